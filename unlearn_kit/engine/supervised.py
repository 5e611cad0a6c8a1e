"""Ordinary supervised training: of the original model, of the retrained reference, of a finetuned one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ..arguments import checked
from ..data.checks import check_dataset
from ..data.relabel import with_ignore_index
from ..errors import check_number
from ..losses import Objective, Term, cosine, cross_entropy
from ..modules import unwrapped
from ..schedules import ScalarOrSchedule
from .door import told_if_unchanged
from .fit import FitResult, fit
from .phases import OptimizerFactory, Phase


@checked
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
    ignore_index: int | None = None,
    **options: Any,
) -> Phase:
    """Return a phase that trains every weight, batch norm included, at a rate that falls along half a cosine.

    Args:
        dataset: Map-style, of ``(input, target)``.
        epochs: Passes over the data.
        batch_size: Samples a step.
        lr: The rate at the first step; None leaves a function's optimiser its own.
        optimizer: A name or a function, as in :class:`Phase`.
        weight_decay: Of the named optimisers.
        objective: What is minimised; it reads ``stream`` alone (default: cross-entropy toward the labels).
        stream: The name the data are read by.
        ignore_index: The label of pixels that nobody labelled, in data that no task was made of.
        **options: As in :class:`Phase`.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    check_dataset("dataset", dataset, empty=False)
    dataset = with_ignore_index(dataset, ignore_index)
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


@checked
def train(
    model: nn.Module, dataset: Any, *, epochs: int, seed: int = 0, callbacks: Any = (), **options: Any
) -> FitResult:
    """Train a copy of ``model`` on ``dataset``: how originals are made.

    Args:
        model: A module that returns logits ``(B, C, ...)``.
        dataset: Map-style, of ``(input, target)``.
        epochs: Passes over the data.
        seed: The seed of data order and dropout.
        callbacks: As in :func:`fit`.
        **options: As in :func:`supervised_phase`.

    Returns:
        The trained copy and the log of its training. A run that changed no bit warns (UserWarning) and says
        ``"unchanged"`` in its ``details``.

    Raises:
        ValueError: As :func:`fit` and :func:`supervised_phase`.
        TypeError: As :func:`fit` and :func:`supervised_phase`.
        DivergenceError: When a loss or a weight is no longer finite.
    """
    fitted = fit(model, supervised_phase(dataset, epochs=epochs, **options), seed=seed, callbacks=callbacks)
    return replace(fitted, details=fitted.details | told_if_unchanged("train", unwrapped(model), fitted.model))
