"""Forgetting a class anew, twice as strongly, while it is still recognised."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from unlearn_kit import DivergenceError, UnlearnTask
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, Training
from unlearn_kit.metrics import accuracy
from unlearn_kit.schedules import ScalarOrSchedule, Schedule, formula, value_at

LOOKED_AT = 256  # samples to forget


def doubled(make: Callable[[float], FitResult], task: UnlearnTask, doublings: int, *, start: float = 1.0) -> FitResult:
    """Return what ``make`` makes at the strength that is the first of ``start``, twice that, ... to forget the class.

    Forgotten is a class of which the model recognises at most half as many samples as one that guesses would,
    ``1 / (2 C)``: of its validation data and of up to 256 of those to forget, since small data sets hold few of either.
    Each attempt starts from the original, since what a weaker one did to the weights is in the way of a stronger one.
    Where none forgets, or the last cost what is kept more than it forgot, that attempt counts whose accuracy on
    ``retain_validation`` exceeds what it recognises of the class by most.

    There is one attempt alone, of strength 1, for a task that forgets no whole class or has no validation data of it.
    And none follows one that a callback ended, which has its own idea of how far to go.

    Args:
        make: Runs the method on the original, at a strength; 1 is that of its other options.
        task: What to forget.
        doublings: How often the strength may double; at 0 it is 1.
        start: The first strength, for methods whose own may be too much.

    Returns:
        The result, whose details tell the ``strength``.

    Raises:
        DivergenceError: When the first attempt diverges; a stronger one that does is left out.
    """
    whole = task.kind == "classification" and bool(task.forget_classes) and len(task.forget_validation) > 0
    strengths = [start * 2**number for number in range(doublings + 1)] if whole and doublings else [1.0]
    best, most = None, -math.inf
    for strength in strengths:
        try:
            fitted = make(strength)
        except DivergenceError:
            if best is None:
                raise
            break
        fitted = replace(fitted, details=fitted.details | {"strength": strength})
        if len(strengths) == 1 or fitted.stopped is not None:
            return fitted
        known = recognised(fitted.model, task)
        apart = (accuracy(fitted.model, task.retain_validation) or 0.0) - known
        if apart > most:
            best, most = fitted, apart
        if known <= 0.5 / task.num_classes:
            break
    if best is None:
        raise ValueError(f"expected doublings to be at least 0, but got {doublings}")
    return best


def recognised(model: nn.Module, task: UnlearnTask) -> float:
    """Return the share of the class that the model recognises, in [0, 1]: the larger of unseen and of forget data."""
    seen = random_subset(task.forget, LOOKED_AT, seed=0)
    return max(accuracy(model, data) or 0.0 for data in (task.forget_validation, seen))


def times(factor: float, lr: ScalarOrSchedule | None) -> ScalarOrSchedule | None:
    """Return a learning rate or its schedule times a factor; None for None, and the same for a factor of 1."""
    if lr is None or factor == 1:
        return lr
    return Schedule(f"{factor:g} * {formula(lr)}", lambda step, total: factor * value_at(lr, step, total))


def farther(training: Training, strength: float) -> Training:
    """Return a training of clipped gradients that goes farther: ``clip`` times the strength, lr times its root.

    Where nothing is clipped lr alone grows, by the strength.
    """
    if training.clip is None:
        return replace(training, lr=times(strength, training.lr))
    return replace(training, lr=times(math.sqrt(strength), training.lr), clip=strength * training.clip)
