"""MUNBa: forgetting and keeping as two players, whose every step is a bargain that neither would leave."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine

from .masks import to_forget


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(3e-3, 0.0), balance="nash"),
    without=("balance",),
    source="Wu and Harandi 2025, arXiv 2411.15537",
)
def munba(
    model: nn.Module,
    task: UnlearnTask,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Maximise ``CE(forget)`` and minimise ``CE(retain)`` along the Nash bargaining solution of their gradients.

    The solution has one length whatever the losses (:func:`unlearn_kit.engine.balance.nash`): there is no weight
    between the two to tune, and the ascent, which has no upper bound, takes no more of a step than the descent does.
    What ends it is the learning rate, which falls to 0.

    Published defaults: the losses are those of the task at hand, five to ten epochs, and no schedule is named. Here
    forty steps.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Wu and Harandi 2025, arXiv 2411.15537.
    """
    training = Training(**options)
    objective = -L.cross_entropy(on="forget", to=to_forget(task)) + L.cross_entropy(on="retain")
    phase = training.phase(objective, task, name="unlearn", balance="nash")
    return training.fit(model, phase, seed=seed, device=device)
