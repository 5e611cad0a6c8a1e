"""Ordinary supervised training: of the original model, of the retrained reference, of a finetuned one."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import check_number
from ..losses import Objective, Term, cosine, cross_entropy
from ..schedules import ScalarOrSchedule
from .fit import FitResult, fit
from .phases import OptimizerFactory, Phase


def supervised_phase(
    dataset: Any,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float | None = 0.05,
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    objective: Objective | Term | None = None,
    stream: str = "train",
    **options: Any,
) -> Phase:
    """Train every weight on ``dataset``, batch norm included, with a learning rate that falls along half a cosine.

    Args:
        dataset: map-style, of ``(input, target)``.
        epochs, batch_size, lr, optimizer, weight_decay, **options: as in :class:`Phase`.
        objective: reads ``stream`` alone (default: cross-entropy toward the labels).
        stream: the name it is read by.

    Raises: ValueError, TypeError naming the argument.
    """
    schedule: ScalarOrSchedule | None = None if lr is None else cosine(check_number("lr", lr, low=0), 0.0)
    return Phase(
        objective=objective if objective is not None else cross_entropy(on=stream),
        streams={stream: dataset},
        epochs=epochs,
        batch_size=batch_size,
        lr=schedule,
        optimizer=optimizer,
        weight_decay=weight_decay,
        batch_norm="update",
        name="train",
        **options,
    )


def train(
    model: nn.Module, dataset: Any, *, epochs: int, seed: int = 0, callbacks: Any = (), **options: Any
) -> FitResult:
    """Train a copy of ``model`` on ``dataset``: how originals are made. Options: see ``supervised_phase``."""
    return fit(model, supervised_phase(dataset, epochs=epochs, **options), seed=seed, callbacks=callbacks)
