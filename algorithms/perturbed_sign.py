"""Boundary unlearning as a bilevel problem, by perturbed sign-gradient iterations (the first seed method)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign, smoothed_search
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.data.tensors import load_tensors
from unlearn_kit.engine import FitResult, Stationarity, Training, TrainingOptions, revision
from unlearn_kit.errors import check_choice, check_number
from unlearn_kit.losses import distances
from unlearn_kit.modules import device_of, frozen_copy
from unlearn_kit.outputs import is_binary, predicted_labels, probabilities
from unlearn_kit.schedules import ScalarOrSchedule, cosine, is_schedule

from .masks import to_forget

# What an option is when it is not given. "paper" is the released recipe, with its faults mended.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "search": PerturbedSign(
            radius=0.1, steps=5, closeness=1e-3, noise=0.1, noise_scale="relative", stop_when_flipped=True
        ),
        "retain_weight": 3.0,
        "uncrossed": "runner-up",
    },
    "paper": {
        "search": PerturbedSign(radius=0.1, steps=1, closeness=1e-3, noise=1e-2),
        "retain_weight": 0.0,
        "uncrossed": "keep",
    },
}
TRAINING = {
    "default": Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    "paper": Training(epochs=10, batch_size=64, lr=1e-5),
}


@revision(TRAINING, source="arXiv 2505.21872")
def perturbed_sign(
    model: nn.Module,
    task: UnlearnTask,
    *,
    preset: str = "default",
    search: PerturbedSign | None = None,
    retain_weight: ScalarOrSchedule | None = None,
    retain_target: L.Target | None = None,
    labels: Literal["hard", "soft"] = "hard",
    top_k: int | None = None,
    mix: float = 1.0,
    uncrossed: Literal["keep", "runner-up"] | None = None,
    refresh: Literal["step", "epoch", "once"] = "once",
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

    Args:
        model: the original; logits ``(B, C, ...)``; pixels in ``search.bounds``.
        task: what to forget and what to keep.
        preset: "default" or "paper"; gives every option that is not given.
        search: the inner problem.
        retain_weight: tradeoff knob, at least 0, or a schedule; at 0 the retain data are not read.
        retain_target: what the retain data are led toward (default: their labels).
        labels: "hard" (the label at x') or "soft" (the probabilities there).
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
            system is not solved in 20 iterations take their label as constant.
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
    training = Training(**options)
    chosen = dict(PRESETS[preset])
    given: dict[str, Any] = {"search": search, "retain_weight": retain_weight, "uncrossed": uncrossed}
    check_choice("hypergradient", hypergradient, ("none", "unrolled", "implicit"))
    if hypergradient != "none":
        # Where a sample stops is no smooth function; a search that asks for it is refused, the preset's is changed.
        if search is None:
            chosen["search"] = replace(chosen["search"], stop_when_flipped=False)
        _check_hypergradient(task, hypergradient, labels, top_k, training.batch_norm)
    if task.kind == "segmentation":
        chosen["uncrossed"] = "keep"
    if task.kind == "multilabel":
        chosen["search"] = replace(chosen["search"], flips="any")
    chosen |= {name: value for name, value in given.items() if value is not None}
    check_choice("labels", labels, ("hard", "soft"))
    check_choice("refresh", refresh, ("step", "epoch", "once"))
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
    )
    phase = training.phase(objective, task, name="unlearn")
    if not certificate:
        return training.fit(model, phase, seed=seed, device=device)
    x, y = load_tensors(random_subset(task.forget, 256, seed=seed))
    at = device_of(model)
    found = chosen["search"].search(model, x.to(at), y.to(at), certificate=True).certificate
    outer = Stationarity(phase, seed=seed)
    fitted = training.fit(model, phase, seed=seed, device=device, watching=[outer])
    return replace(fitted, details={"boundary": found, "summary": found.summary(), "outer": outer.details()})


def boundary_objective(
    model: nn.Module,
    search: PerturbedSign,
    *,
    retain_weight: ScalarOrSchedule = 1.0,
    retain_target: L.Target | None = None,
    soft: bool = False,
    top_k: int | None = None,
    mix: float = 1.0,
    uncrossed: Literal["keep", "runner-up"] = "keep",
    refresh: Literal["step", "epoch", "once"] = "once",
    hypergradient: Literal["none", "unrolled", "implicit"] = "none",
    task: UnlearnTask | None = None,
) -> L.Objective:
    """Return the outer objective: the boundary's labels on the forget data, and the retain term unless its weight is 0.

    Where ``task`` forgets a class of the masks, the boundary's labels are those of its pixels.
    """
    if retain_target is not None and not isinstance(retain_target, L.Target):
        raise TypeError(f"expected retain_target to be a target of losses, but got {type(retain_target).__name__}")
    boundary = L.Boundary(model, search, soft=soft, top_k=top_k, mix=mix, uncrossed=uncrossed)
    if hypergradient == "none":
        target: L.Target = boundary if refresh == "step" else L.Cached(boundary, refresh)
        asked = target if task is None else to_forget(task, target)
        objective = L.Objective((L.cross_entropy(on="forget", to=asked),))
    else:
        objective = L.Objective((_moving_boundary(boundary, hypergradient),))
    if not is_schedule(retain_weight) and check_number("retain_weight", retain_weight, low=0) == 0:
        return objective
    return objective + retain_weight * L.cross_entropy(on="retain", to=retain_target or L.Labels())


def _moving_boundary(boundary: L.Boundary, mode: Literal["unrolled", "implicit"]) -> L.Term:
    """Return CE toward the original's soft labels where the model in training changes its mind."""
    original, mix = frozen_copy(boundary.model), boundary.mix

    @L.term(reduction="forward")
    def cross_entropy(forward: Callable[[Tensor], Tensor], batch: L.Batch) -> Tensor:
        x, y = batch.inputs, batch.targets
        found = smoothed_search(boundary.search, forward, x, y, mode=mode, tolerance=1e-3, iterations=20, strict=False)
        logits = original(found.inputs)
        if boundary.uncrossed == "runner-up":
            logits = _runner_up(logits, y)
        wanted = probabilities(logits)
        if mix < 1:
            with torch.no_grad():
                here = probabilities(original(x))
            wanted = mix * wanted + (1 - mix) * here
        return distances.cross_entropy(forward(x), L.Goal("probabilities", wanted))

    return cross_entropy(on="forget", name=f"cross_entropy(forget -> {boundary}, {mode})")


def _runner_up(logits: Tensor, own: Tensor) -> Tensor:
    """Return logits with the class ``own`` taken out where it is the predicted one (a single logit changes sign)."""
    kept = (predicted_labels(logits) == own.long()).unsqueeze(1)
    if is_binary(logits):
        return torch.where(kept, -logits, logits)
    others = logits.scatter(1, own.unsqueeze(1), torch.finfo(logits.dtype).min)
    return torch.where(kept, others, logits)


def _check_hypergradient(task: UnlearnTask, mode: str, labels: str, top_k: int | None, batch_norm: str) -> None:
    wanted = {"labels": (labels, "soft"), "top_k": (top_k, None), "batch_norm": (batch_norm, "frozen")}
    wanted["task.kind"] = (task.kind, "classification")
    for name, (came, needed) in wanted.items():
        if came != needed:
            raise ValueError(f"expected {name} to be {needed!r} with hypergradient={mode!r}, but got {came!r}")
