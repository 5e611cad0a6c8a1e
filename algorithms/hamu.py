"""HAMU: steps that keep as much as they can among those that forget enough, tensor by tensor."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import CountOrZero, Share
from unlearn_kit.engine import Cone, FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine as falling

from .doubling import doubled, farther
from .masks import to_forget


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=falling(0.1, 0.0), clip=0.5),
    without=("balance",),
    source="arXiv 2606.02119",
)
def hamu(
    model: nn.Module,
    task: UnlearnTask,
    *,
    cosine: Share = 0.5,
    doublings: CountOrZero = 6,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Descend ``CE(retain)`` in the direction nearest to its own that climbs ``CE(forget)`` by enough.

    Of each tensor the step d minimises ``g_r d`` under ``g_f d >= Q`` and ``|d| <= R`` in closed form
    (:class:`unlearn_kit.engine.Cone`), with ``R = lr |g_r|`` and ``Q = cosine R |g_f|``: ``cosine`` is the dial between
    forgetting and keeping.

    Published defaults: ``cosine`` .5, lr 1e-4, 25 epochs. Here forty steps of a larger, falling rate with momentum and
    clipped gradients: where the retain data are fitted their gradient is short, and so is every step; the ascent has no
    upper bound, and both grow together once what is kept begins to suffer.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        cosine: In [0, 1].
        doublings: How often ``clip`` may double, and lr grow by sqrt 2, from an eighth of what it is, while a class
            that is to be forgotten is still recognised (``doubling.doubled``): a step more than it takes costs what is
            kept. At 0, or without validation data, they are what they are; 0 where ``cosine`` is to decide.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    The result's details: ``strength``, what ``clip`` was multiplied by.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: arXiv 2606.02119.
    """
    training = Training(**options)
    objective = -L.cross_entropy(on="forget", to=to_forget(task)) + L.cross_entropy(on="retain")

    def run(strength: float) -> FitResult:
        stronger = farther(training, strength)
        phase = stronger.phase(objective, task, name="unlearn", balance=Cone(cosine))
        return stronger.fit(model, phase, seed=seed, device=device)

    return doubled(run, task, doublings, start=1 / 8)
