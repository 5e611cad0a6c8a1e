"""Training on, without the forget data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.schedules import ScalarOrSchedule, cosine


@revision
def finetune(
    model: nn.Module,
    task: UnlearnTask,
    *,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 256,
    lr: ScalarOrSchedule = cosine(1e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    clip: float | None = 5.0,
    batch_norm: BatchNorm = "frozen",
    objective: L.Objective | L.Term | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
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
        epochs, steps: passes over the retain data; ``steps`` replaces ``epochs``.
        batch_size, lr, optimizer, weight_decay, clip, batch_norm: as in ``engine.Phase``.
        objective: reads the stream "retain" (default: cross-entropy).
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.
    """
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = Phase(
        loss,
        streams_for(task, loss),
        epochs=epochs if steps is None else None,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        clip=clip,
        batch_norm=batch_norm,
        name="finetune",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
