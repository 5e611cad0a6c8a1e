"""The reference that everything is judged against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.models import fresh_copy
from unlearn_kit.modules import built
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive, isolated


@revision(
    Training(epochs=10, batch_size=128, lr=cosine(0.05, 0.0), weight_decay=5e-4, batch_norm="update"),
    without=("trainable",),
    reinitializes=True,
)
def retrain(
    model: nn.Module,
    task: UnlearnTask,
    *,
    build: Callable[[], nn.Module] | None = None,
    objective: L.Objective | L.Term | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Train from scratch on the retain data, with the recipe the original was trained with.

    The defaults are the recipe of ``engine.train``; give what the original had, or it is no reference.

    Args:
        model: the original; only its architecture matters.
        task: what to forget and what to keep.
        build: makes a network with fresh weights. Without it every module of a copy is reset, parameters and buffers; a
            module that owns parameters and cannot be reset is refused by name.
        objective: reads the stream "retain" (default: cross-entropy).
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.
    """
    training = Training(**options)
    fresh_seed = derive(seed, "fresh weights")
    if build is None:
        fresh = fresh_copy(model, seed=fresh_seed)
    else:
        with isolated(fresh_seed):
            fresh = built(build)
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = training.phase(loss, task, name="train")
    # A frozen original must not make for a frozen reference.
    return training.fit(fresh.requires_grad_(True), phase, seed=seed, device=device)
