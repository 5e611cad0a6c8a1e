"""Boundary unlearning as a bilevel problem, by perturbed sign-gradient iterations (the first seed method)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask, difficulty
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count, NonNegative, Positive, Share
from unlearn_kit.boundary import Certificate, PerturbedSign
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.data.tensors import in_order, load_tensors
from unlearn_kit.engine import FitResult, Phase, Stationarity, Training, TrainingOptions, revision
from unlearn_kit.modules import device_of
from unlearn_kit.schedules import NonNegativeSchedule, ScalarOrSchedule, cosine, is_schedule

from .masks import to_forget
from .matching import MATCHING, MEASURED_SHARE, check_share, fitting_shrink, matching_phase
from .moving_boundary import moving_boundary, share_solved

# What an option is when it is not given. "paper" is the released recipe, with its faults mended.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "search": PerturbedSign(
            radius=0.1, steps=5, closeness=1e-3, noise=0.1, noise_scale="relative", stop_when_flipped=True
        ),
        "retain_weight": 3.0,
        "uncrossed": "runner-up",
        "labels": "hard",
        "distill_weight": 0.0,
    },
    "fast": {
        "search": PerturbedSign(radius=0.1, steps=1, closeness=0.0),
        "retain_weight": 1.0,
        "uncrossed": "runner-up",
        "labels": "hard",
        "distill_weight": 3.0,
    },
    "samples": {
        "search": PerturbedSign(radius=0.5),
        "retain_weight": 1.0,
        "uncrossed": "runner-up",
        "labels": "matched",
        "distill_weight": 0.0,
    },
    "paper": {
        "search": PerturbedSign(radius=0.1, steps=1, closeness=1e-3, noise=1e-2),
        "retain_weight": 0.0,
        "uncrossed": "keep",
        "labels": "hard",
        "distill_weight": 0.0,
    },
}
TRAINING = {
    "default": Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    "fast": Training(
        steps=12, batch_size={"forget": 64, "retain": 256}, lr=cosine(0.1, 0.0), clip=1.0, trainable="last:1"
    ),
    "samples": MATCHING,
    "paper": Training(epochs=10, batch_size=64, lr=1e-5),
}
RANKED = 1000  # retain samples whose boundary is searched, to rank the forget samples among


def _fitting(options: Mapping[str, Any]) -> None:
    labels = options["labels"] or PRESETS[options["preset"]]["labels"]
    allowed: dict[str, dict[str, tuple[Any, ...]]] = {}
    if options["hypergradient"] != "none":
        with_ = f"hypergradient={options['hypergradient']!r}"
        allowed[with_] = {"labels": ("soft",), "top_k": (None,), "batch_norm": ("frozen",)}
    if labels == "matched":
        alone = {"mix": (1.0,), "top_k": (None,), "refresh": ("once",), "retain_target": (None,)}
        allowed["labels='matched'"] = {**alone, "distill_weight": (None, 0)}
    for with_, needed in allowed.items():
        for name, values in needed.items():
            came = labels if name == "labels" else options[name]
            if came not in values:
                raise ValueError(f"expected {name} to be {values[-1]!r} with {with_}, but got {came!r}")


@revision(TRAINING, source="arXiv 2505.21872", fitting=_fitting)
def perturbed_sign(
    model: nn.Module,
    task: UnlearnTask,
    *,
    preset: str = "default",
    search: PerturbedSign | None = None,
    retain_weight: NonNegativeSchedule | None = None,
    retain_target: L.Target | None = None,
    labels: Literal["hard", "soft", "matched"] | None = None,
    top_k: Count | None = None,
    mix: Share = 1.0,
    uncrossed: Literal["keep", "runner-up"] | None = None,
    refresh: Literal["step", "epoch", "once"] = "once",
    distill_weight: NonNegative | None = None,
    temperature: Positive = 2.0,
    hypergradient: Literal["none", "unrolled", "implicit"] = "none",
    certificate: bool = False,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Lead each forget sample to the label the original model gives just across its boundary.

    Inner problem: ``x' = argmax CE(f0(x'), y) - closeness/2 |x' - x|^2`` in a box around x, by perturbed sign steps.
    Outer problem: ``min CE(f(x) -> f0(x')) + retain_weight CE(f(x_r) -> y_r)``.

    Published defaults (preset "paper"): one step, radius .1, closeness 1e-3, noise 1e-2, no retain term, lr 1e-5,
    10 epochs, batch 64. Here (preset "default"): five steps, since with one closeness does nothing; noise relative to
    each sample's gradient, since an absolute .01 drowns the gradients of samples the model is certain of; a retain
    term and a large, falling lr with clipped gradients, which reach the retrained reference in forty steps; and the
    runner-up for samples whose label no point in the box changes, since their own label would keep them known.

    For a class in a hurry (preset "fast"): the last stage and the head alone, few large steps, one step of the search,
    and distillation on the retain data with the class taken out. It costs a fraction of the default and comes about as
    near to a retrained model by what the model answers; its features before the last stage are the original's, so that
    an audit that looks at features finds what it found in the original.

    Single samples that a network has memorised (preset "samples", ``labels="matched"``) are given the boundary's label
    only as far as an unseen sample of the same difficulty would: samples are ranked by the radius at which their label
    changes, among the retain data, and each gets the confidence that validation data of the same rank have
    (``losses.Matched``), the rest going to the label there. It trains as ``quantile_matching`` does.

    Args:
        model: the original; logits ``(B, C, ...)``; pixels in ``search.bounds``.
        task: what to forget and what to keep.
        preset: "default", "fast", "samples" or "paper"; gives every option that is not given.
        search: the inner problem.
        retain_weight: tradeoff knob, at least 0, or a schedule; at 0 the retain data are not read.
        retain_target: what the retain data are led toward (default: their labels).
        distill_weight: weight of ``T^2 KL(f0 || f)`` on the retain data, at least 0, with the classes that are
            forgotten taken out of what f0 says (``losses.Without``): what it says of kept data names them, too.
        temperature: T of that, above 0.
        labels: "hard" (the label at x'), "soft" (the probabilities there), or "matched" (the label there, as far as an
            unseen sample would have it), which is for classes, reads validation data, and has no ``mix``, ``top_k``,
            ``refresh`` or hypergradient.
        top_k: of soft labels, how many classes are kept.
        mix: share in [0, 1] of the boundary's prediction, the rest being the model's own at x: the knob that forgetting
            single samples needs, since labels far across the boundary are right for a class and ruinous for them.
        uncrossed: the label of samples that keep their own at x': "keep" or "runner-up", see ``losses.Boundary``; for
            masks every preset keeps it, since the runner-up of a binary mask is its negative. Of several findings the
            presets search for the nearest change of any (``flips="any"``), and the runner-up is a change of that one.
        refresh: whether the boundary is searched anew every step, every epoch, or once. The original is frozen, so
            without noise and augmentation all three are the same, and "once" costs least.
        hypergradient: "none" takes what the boundary gives as constant. "unrolled" and "implicit" search the model in
            training instead of the original, in every step whatever ``refresh``, and differentiate the original's soft
            labels there through that search with respect to the weights (``boundary.smoothed_search``): the full
            gradient of the bilevel problem in which the inner problem follows the outer variable. They need
            ``labels="soft"``, noise, frozen batch norm, one decision a sample, and no ``top_k``. Samples whose implicit
            system is not solved in 20 iterations take their label as constant; of how many it is solved, over all
            steps, is in ``details`` ("hypergradient_solved"), and a run in which it is of none warns.
        certificate: whether to measure, in ``details``, what is guaranteed: "boundary", the certificate of up to 256
            forget samples (``boundary.Certificate``), "summary", that in words, and "outer", the squared gradients of
            the outer problem beside the bound on them (``engine.Stationarity``; measured, not proved, for shuffled
            batches). It changes no weight. One decision a sample only.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When lr is too large.

    Source: arXiv 2505.21872, algorithms 1 to 3.
    """
    if retain_target is not None and not isinstance(retain_target, L.Target):
        raise TypeError(f"expected retain_target to be a target of losses, but got {type(retain_target).__name__}")
    training = Training(**options)
    chosen = dict(PRESETS[preset])
    given: dict[str, Any] = {
        "search": search,
        "retain_weight": retain_weight,
        "uncrossed": uncrossed,
        "labels": labels,
        "distill_weight": distill_weight,
    }
    labels = labels or chosen["labels"]
    if hypergradient != "none":
        # Where a sample stops is no smooth function; a search that asks for it is refused, the preset's is changed.
        if search is None:
            chosen["search"] = replace(chosen["search"], stop_when_flipped=False)
        if task.kind != "classification":
            raise ValueError(
                f"expected task.kind to be 'classification' with hypergradient={hypergradient!r}, but got {task.kind!r}"
            )
    if task.kind == "segmentation":
        chosen["uncrossed"] = "keep"
    if task.kind == "multilabel":
        chosen["search"] = replace(chosen["search"], flips="any")
    chosen |= {name: value for name, value in given.items() if value is not None}
    if labels == "matched":
        if task.kind != "classification":
            raise ValueError(f"expected a classification task with labels='matched', but got {task.kind} (masks)")
        check_share(task, MEASURED_SHARE, "quantile_matching(max_share=1) takes them nevertheless")
        target = matched_boundary(model, task, chosen["search"], shrink=fitting_shrink(task, training), seed=seed)
        phase = matching_phase(model, task, target, training, retain_weight=chosen["retain_weight"])
        return _fitted(model, task, phase, chosen["search"], training, certificate, seed, device)
    solved: list[Tensor] = []
    objective = boundary_objective(
        model,
        chosen["search"],
        retain_weight=chosen["retain_weight"],
        retain_target=retain_target,
        soft=labels == "soft",
        top_k=top_k,
        mix=mix,
        uncrossed=chosen["uncrossed"],
        refresh=refresh,
        hypergradient=hypergradient,
        task=task,
        solved=solved,
    )
    if chosen["distill_weight"]:
        # Whole, the original's predictions on the data to keep would teach the class back.
        teacher = L.Without(L.Teacher(model), task.forget_classes if task.kind == "classification" else ())
        objective = objective + chosen["distill_weight"] * L.kl(on="retain", to=teacher, temperature=temperature)
    phase = training.phase(objective, task, name="unlearn")
    fitted = _fitted(model, task, phase, chosen["search"], training, certificate, seed, device)
    if hypergradient == "implicit":
        fitted.details.update(hypergradient_solved=share_solved(solved))
    return fitted


def _fitted(
    model: nn.Module,
    task: UnlearnTask,
    phase: Phase,
    search: PerturbedSign,
    training: Training,
    certificate: bool,
    seed: int,
    device: torch.device | str | None,
) -> FitResult:
    if not certificate:
        return training.fit(model, phase, seed=seed, device=device)
    x, y = load_tensors(random_subset(task.forget, 256, seed=seed))
    at = device_of(model)
    found = cast(Certificate, search.search(model, x.to(at), y.to(at), certificate=True).certificate)
    outer = Stationarity(phase, seed=seed)
    fitted = training.fit(model, phase, seed=seed, device=device, watching=[outer])
    return replace(fitted, details={"boundary": found, "summary": found.summary(), "outer": outer.details()})


def matched_boundary(
    model: nn.Module, task: UnlearnTask, search: PerturbedSign, *, shrink: float = 0.6, seed: int = 0
) -> L.Matched:
    """Return the confidence of unseen samples as near to their boundary, the rest going to the label behind it."""
    labels: list[Tensor] = []

    def radii(data: Any) -> Tensor:
        """Return the radius of each sample, and note the label it changes to: the runner-up where none does."""
        parts = []
        for x, y in in_order(data, device=device_of(model)):
            near = search.radii(model, x, y.long())
            labels.append(torch.where(near.flipped, near.labels, L.RunnerUp(model)(L.Batch(x, y)).values).cpu())
            parts.append(near.radii.cpu())
        return torch.cat(parts)

    forget, behind = radii(task.forget), torch.cat(labels)
    retain = random_subset(task.retain, RANKED, seed=seed)
    scores = difficulty.Scores(-forget, -radii(retain), torch.empty(0))
    ranked = replace(task, retain=retain)
    return difficulty.matched(model, ranked, scores=scores, rest=L.Table(behind, "labels"), shrink=shrink)


def boundary_objective(
    model: nn.Module,
    search: PerturbedSign,
    *,
    retain_weight: ScalarOrSchedule = 1.0,
    retain_target: L.Target | None = None,
    soft: bool = False,
    top_k: Count | None = None,
    mix: Share = 1.0,
    uncrossed: Literal["keep", "runner-up"] = "keep",
    refresh: Literal["step", "epoch", "once"] = "once",
    hypergradient: Literal["none", "unrolled", "implicit"] = "none",
    task: UnlearnTask | None = None,
    solved: list[Tensor] | None = None,
) -> L.Objective:
    """Return the outer objective: the boundary's labels on the forget data, and the retain term unless its weight is 0.

    Where ``task`` forgets a class of the masks, the boundary's labels are those of its pixels. With a hypergradient
    each step adds to ``solved`` which of its samples have one.
    """
    if retain_target is not None and not isinstance(retain_target, L.Target):
        raise TypeError(f"expected retain_target to be a target of losses, but got {type(retain_target).__name__}")
    boundary = L.Boundary(model, search, soft=soft, top_k=top_k, mix=mix, uncrossed=uncrossed)
    if hypergradient == "none":
        target: L.Target = boundary if refresh == "step" else L.Cached(boundary, refresh)
        asked = target if task is None else to_forget(task, target)
        objective = L.Objective((L.cross_entropy(on="forget", to=asked),))
    else:
        objective = L.Objective((moving_boundary(boundary, hypergradient, [] if solved is None else solved),))
    if not is_schedule(retain_weight) and retain_weight == 0:
        return objective
    return objective + retain_weight * L.cross_entropy(on="retain", to=retain_target or L.Labels())
