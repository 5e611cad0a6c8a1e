"""Forgetting a class anew, twice as strongly, while validation data of it are still recognised."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from unlearn_kit import DivergenceError, UnlearnTask
from unlearn_kit.engine import FitResult
from unlearn_kit.metrics import accuracy
from unlearn_kit.schedules import ScalarOrSchedule, Schedule, formula, value_at


def doubled(make: Callable[[int], FitResult], task: UnlearnTask, doublings: int) -> FitResult:
    """Return what ``make`` makes at the strength 1, 2, 4, ... that is the first to forget the task's class.

    Forgotten is a class of which the model recognises at most half as many validation samples as one that guesses
    would: ``1 / (2 C)``. Each attempt starts from the original, since what a weaker one did to the weights is in the
    way of a stronger one. Where none forgets, or the last cost what is kept more than it forgot, that attempt counts
    whose accuracy on ``retain_validation`` exceeds that on ``forget_validation`` by most.

    There is one attempt alone for a task that forgets no whole class or has no such validation data, and where a
    callback ended the training, which has its own idea of how far to go.

    Args:
        make: Runs the method on the original, at a strength.
        task: What to forget.
        doublings: How often the strength may double.

    Returns:
        The result, whose details tell the ``strength``.

    Raises:
        DivergenceError: When the first attempt diverges; a stronger one that does is left out.
    """
    best, most = None, -math.inf
    tells = tells_when(task)
    for strength in (2**number for number in range(doublings + 1 if tells else 1)):
        try:
            fitted = make(strength)
        except DivergenceError:
            if best is None:
                raise
            break
        fitted = replace(fitted, details=fitted.details | {"strength": strength})
        if not tells or fitted.stopped is not None:
            return fitted
        known = accuracy(fitted.model, task.forget_validation) or 0.0
        forgotten = known <= 0.5 / task.num_classes
        if forgotten and best is None:
            return fitted
        apart = (accuracy(fitted.model, task.retain_validation) or 0.0) - known
        if best is None or apart > most:
            best, most = fitted, apart
        if forgotten:
            break
    if best is None:
        raise ValueError(f"expected doublings to be at least 0, but got {doublings}")
    return best


def tells_when(task: UnlearnTask) -> bool:
    """Return whether validation data tell when the task is forgotten: those of a whole class that is to go."""
    return task.kind == "classification" and bool(task.forget_classes) and len(task.forget_validation) > 0


def times(factor: float, lr: ScalarOrSchedule | None) -> ScalarOrSchedule | None:
    """Return a learning rate or its schedule times a factor; None for None, and the same for a factor of 1."""
    if lr is None or factor == 1:
        return lr
    return Schedule(f"{factor:g} * {formula(lr)}", lambda step, total: factor * value_at(lr, step, total))
