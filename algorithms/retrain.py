"""The reference that everything is judged against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, fit, revision, supervised_phase
from unlearn_kit.engine.phases import OptimizerFactory
from unlearn_kit.models import fresh_copy
from unlearn_kit.seeding import derive, isolated


@revision
def retrain(
    model: nn.Module,
    task: UnlearnTask,
    *,
    build: Callable[[], nn.Module] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float | None = 0.05,
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    objective: L.Objective | L.Term | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Train from scratch on the retain data, with the recipe the original was trained with.

    The defaults are the recipe of ``engine.train``; give what the original had, or it is no reference.

    Args:
        model: the original; only its architecture matters.
        task: what to forget and what to keep.
        build: makes a network with fresh weights. Without it every module of a copy is reset, parameters and buffers; a
            module that owns parameters and cannot be reset is refused by name.
        epochs, batch_size, lr, optimizer, weight_decay: the original recipe (lr falls along half a cosine).
        objective: reads the stream "retain" (default: cross-entropy).
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.
    """
    fresh_seed = derive(seed, "fresh weights")
    if build is None:
        fresh = fresh_copy(model, seed=fresh_seed)
    else:
        with isolated(fresh_seed):
            fresh = build()
    phase = supervised_phase(
        task.retain,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        objective=objective,
        stream="retain",
    )
    # A frozen original must not make for a frozen reference.
    return fit(fresh.requires_grad_(True), phase, seed=seed, device=device, callbacks=callbacks)
