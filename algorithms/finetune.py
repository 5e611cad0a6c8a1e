"""Training on, without the forget data."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine


@revision(
    Training(epochs=1, batch_size=256, lr=cosine(1e-2, 0.0), weight_decay=5e-4, clip=5.0),
)
def finetune(
    model: nn.Module,
    task: UnlearnTask,
    *,
    objective: L.Objective | L.Term | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(retain)`` from the original weights: what mere further training forgets.

    Published default: 10 epochs at lr .01 with weight decay 5e-4. Here 1 epoch, since a step of it costs what a
    step of every other method does and the comparison is at a small share of the cost of retraining; a rate that
    falls to 0, and gradients no longer than 5: with batch norm frozen a constant .01 breaks a model that has
    memorised its data, and a few steep batches in a row can do the same later (gradients are mostly of length 1 to
    5; in a collapse, 30 to 140).

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        objective: reads the stream "retain" (default: cross-entropy).
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.
    """
    training = Training(**options)
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = training.phase(loss, task, name="finetune")
    return training.fit(model, phase, seed=seed, device=device)
