"""UGradSL: gradient ascent toward negatively smoothed labels, so that what is climbed from is no single class alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Between, NonNegative, Share
from unlearn_kit.audits.probe import head_inputs
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.losses.distances import cross_entropy
from unlearn_kit.outputs import probabilities
from unlearn_kit.schedules import cosine

from .masks import to_forget

NEIGHBOURS = 1_024  # Retain samples among which those near a forget sample are counted, at most.


def smoothed(rates: Tensor, target: L.Target) -> L.Term:
    """Return the cross-entropy toward ``(1 + a_i) q_i - a_i / K`` on the forget data; a_i is the rate of sample i."""

    @L.term(reduction="forward")
    def smoothed_cross_entropy(forward: Callable[[Tensor], Tensor], batch: L.Batch) -> Tensor:
        logits, goal = forward(batch.inputs), target(batch)
        rate = rates.to(logits)[batch.indices.to(logits.device)] if batch.indices is not None else rates.mean()
        even = L.Goal("probabilities", probabilities(torch.zeros_like(logits)))
        every = cross_entropy(logits, even.without(goal.asked() == L.IGNORE))
        return (1 + rate) * cross_entropy(logits, goal) - rate * every

    return smoothed_cross_entropy(on="forget")


@revision(
    {
        "ugradsl": Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(1e-3, 0.0), optimizer="adam"),
        "plus": Training(epochs=2, batch_size={"forget": 64, "retain": 128}, lr=cosine(1e-3, 0.0), optimizer="adam"),
    },
    source="Di et al. 2024, arXiv 2406.07698",
)
def ugradsl(
    model: nn.Module,
    task: UnlearnTask,
    *,
    preset: Literal["ugradsl", "plus"] = "ugradsl",
    retain_share: Annotated[float, Between(0, 1, open_low=True, open_high=True)] = 0.995,
    smoothing: NonNegative | None = None,
    near: Share = 0.25,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``p CE(retain) - (1 - p) CE(x_f -> (1 + a) y_f - a / K)``, p being ``retain_share``.

    Labels smoothed at the rate -a lie beyond the label, on the far side of the even distribution: to climb from them is
    to climb from the label and to descend toward all classes alike. The rate is each sample's own: a_i is the share of
    retain samples whose features lie within ``near`` of its own, so that among data that are kept it is led toward
    uncertainty, and away from them off its label alone.

    Preset "ugradsl" is ascent with this loss, for as long as ascent takes; "plus" is fine-tuning with it, passes over
    the retain data with the forget data going round beside it.

    Published defaults: rates from the retain data of the same batch, anew in each step, in a distance that is not named
    and scaled to [0, 1]; SGD, ten epochs or fewer. Here they are counted once, by the original's features and half of
    one minus their cosine, among up to 1,024 retain samples: a batch holds too few near ones. It trains as
    ``neg_grad_plus`` does, and "plus" for two passes: where the model is certain of its forget data no rate of SGD both
    lifts it off and leaves the rest whole.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        preset: "ugradsl" or "plus"; gives the training options that are not given.
        retain_share: p, in (0, 1).
        smoothing: a of every sample, at least 0; at 0 the loss is that of ``neg_grad_plus``. None: each its own.
        near: In [0, 1]; half of one minus the cosine of two features, at most which a retain sample is near.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    The result's details: ``smoothing``, the mean of a.

    Raises:
        ValueError: When no head is found whose inputs are the features, with ``smoothing`` None. When an argument is
            out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Di et al. 2024, arXiv 2406.07698, section 4 and algorithm 1.
    """
    training = Training(**options)
    if smoothing is None:
        rates = shares_near(model, task, near, seed=seed)
    else:
        rates = torch.full((len(task.forget),), float(smoothing))
    objective = retain_share * L.cross_entropy(on="retain") - (1 - retain_share) * smoothed(rates, to_forget(task))
    lead = "retain" if preset == "plus" else "forget"
    phase = training.phase(objective, task, name="unlearn", lead=lead)
    fitted = training.fit(model, phase, seed=seed, device=device)
    fitted.details.update(smoothing=float(rates.mean()))
    return fitted


def shares_near(model: nn.Module, task: UnlearnTask, near: float, *, seed: int) -> Tensor:
    """Return the share of retain samples within ``near`` of each forget sample in the model's features, ``(N,)``.

    The distance is half of one minus the cosine of two samples' inputs to the head, in [0, 1].
    """
    kept = _features(model, random_subset(task.retain, NEIGHBOURS, seed=seed))
    cosines = _features(model, task.forget) @ kept.T
    return ((1 - cosines) / 2 <= near).float().mean(1)


def _features(model: nn.Module, dataset: Any) -> Tensor:
    """Return the head's inputs of every sample as unit vectors ``(N, D)``; of masks their means over the image."""
    x = torch.from_numpy(head_inputs(model, dataset)[0])
    return F.normalize(x.flatten(2).mean(2) if x.dim() > 2 else x, dim=1)
