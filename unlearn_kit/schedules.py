"""Numbers that change during a run: loss weights, step sizes, closeness, noise.

A schedule is evaluated at ``(step, total)`` with ``step`` counted from 0. Shapes defined over a whole run (linear,
cosine) depend on ``progress = step / (total - 1)`` in [0, 1], and as learning rates on ``step / total``
(:func:`rate_at`), since a step at the rate 0 that a falling one ends at would be no step. Decays of the literature
(1/t, 1/sqrt t, exponential) depend on ``t = step + 1`` alone. Wherever a schedule is accepted, a plain float or any
function of progress is too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from .arguments import Limit, checked
from .errors import check_count, check_number


@checked
@dataclass(frozen=True)
class Schedule:
    """A number as a function of ``(step, total)``; two schedules are equal when their formulas are."""

    formula: str
    function: Callable[[int, int], float] = field(compare=False, repr=False)

    def at(self, step: int, total: int) -> float:
        """Return the value at ``step`` (0-based) of ``total`` steps."""
        return self.function(step, total)

    def __repr__(self) -> str:
        return self.formula


ScalarOrSchedule = float | Schedule | Callable[[float], float]


def progress(step: int, total: int) -> float:
    """Return progress in [0, 1]: 0 at the first step, 1 at the last (0 when there is only one)."""
    return step / (total - 1) if total > 1 else 0.0


def value_at(value: ScalarOrSchedule, step: int, total: int) -> float:
    """Evaluate a float, a :class:`Schedule` or a function of progress at ``step`` (0-based) of ``total``."""
    if isinstance(value, Schedule):
        return value.at(step, total)
    if callable(value):
        return check_number("the value of a schedule", value(progress(step, total)))
    return float(value)


def rate_at(lr: ScalarOrSchedule, step: int, total: int) -> float:
    """Evaluate a learning rate at ``step`` (0-based) of ``total``: at progress ``step / total``."""
    return value_at(lr, step, total + 1)


def is_schedule(value: ScalarOrSchedule) -> bool:
    """Return whether ``value`` may change during a run."""
    return isinstance(value, Schedule) or callable(value)


def check_scalar_or_schedule(name: str, value: ScalarOrSchedule, *, low: float = -math.inf) -> ScalarOrSchedule:
    """Return ``value`` when it is a finite number of at least ``low``, a schedule, or a function.

    Raises:
        TypeError: When an argument is of another type, by its name.
        ValueError: When an argument is out of range, by its name.
    """
    if isinstance(value, Schedule):
        return value
    if callable(value):
        try:
            first = value(0.0)
        except Exception as error:
            raise TypeError(f"expected {name} to be a function of progress, but it fails at 0: {error}") from error
        check_number(f"what {name} returns", first)
        return value
    return check_number(name, value, low=low)


@dataclass(frozen=True)
class ScheduledAtLeast(Limit):
    """A number of at least ``low``, a schedule, or a function of progress."""

    low: float

    def check(self, name: str, value: ScalarOrSchedule) -> ScalarOrSchedule:
        """Refuse a smaller number, and a function that gives no number."""
        return check_scalar_or_schedule(name, value, low=self.low)


# A weight or a rate.
NonNegativeSchedule = Annotated[ScalarOrSchedule, ScheduledAtLeast(0)]


def formula(value: ScalarOrSchedule) -> str:
    """Return how a weight prints inside a formula."""
    if isinstance(value, Schedule):
        return value.formula
    if not callable(value):
        return f"{value:g}"
    # The function inside a partial; never an address, since formulas tell runs apart that are resumed elsewhere.
    name = getattr(getattr(value, "func", value), "__name__", type(value).__name__)
    return "f(progress)" if name == "<lambda>" else str(name)


def _constant(value: float, _step: int, _total: int) -> float:
    return value


def _linear(start: float, end: float, step: int, total: int) -> float:
    return start + (end - start) * progress(step, total)


def _cosine(start: float, end: float, step: int, total: int) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress(step, total))) / 2


def _inverse(start: float, step: int, _total: int) -> float:
    return start / (step + 1)


def _inverse_sqrt(start: float, step: int, _total: int) -> float:
    return start / math.sqrt(step + 1)


def _exponential(start: float, rate: float, step: int, _total: int) -> float:
    return start * math.exp(-rate * (step + 1))


def _every(period: int, step: int, _total: int) -> float:
    return 1.0 if step % period == period - 1 else 0.0


# Each of these raises TypeError or ValueError, naming the argument, on what is not a finite number.
@checked
def linear(start: float, end: float) -> Schedule:
    """Go from ``start`` at the first step to ``end`` at the last, on a straight line."""
    start, end = check_number("start", start), check_number("end", end)
    return Schedule(f"linear({start:g}, {end:g})", partial(_linear, start, end))


@checked
def cosine(start: float, end: float) -> Schedule:
    """Go from ``start`` to ``end`` along half a cosine (flat at both ends)."""
    start, end = check_number("start", start), check_number("end", end)
    return Schedule(f"cosine({start:g}, {end:g})", partial(_cosine, start, end))


def constant(value: float) -> Schedule:
    """Return the schedule that is ``value`` at every step: a rate that does not fall where a method's default does."""
    value = check_number("value", value)
    return Schedule(f"constant({value:g})", partial(_constant, value))


@checked
def inverse(start: float) -> Schedule:
    """Return ``start / t`` at step t = 1, 2, ..."""
    start = check_number("start", start)
    return Schedule(f"inverse({start:g})", partial(_inverse, start))


@checked
def inverse_sqrt(start: float) -> Schedule:
    """Return ``start / sqrt(t)`` at step t = 1, 2, ...: the step size of sign descent without a known horizon."""
    start = check_number("start", start)
    return Schedule(f"inverse_sqrt({start:g})", partial(_inverse_sqrt, start))


@checked
def exponential(start: float, rate: float = 0.01) -> Schedule:
    """Return ``start * exp(-rate t)`` at step t = 1, 2, ...

    (``rate`` .01 in the code released with arXiv 2505.21872).
    """
    start, rate = check_number("start", start), check_number("rate", rate, low=0)
    return Schedule(f"exponential({start:g}, {rate:g})", partial(_exponential, start, rate))


@checked
def every(period: int) -> Schedule:
    """Return 1 on every ``period``-th step and 0 between: a term with weight 0 is not evaluated at all."""
    return Schedule(f"every({check_count('period', period)})", partial(_every, period))


def with_peak(schedule: Schedule, peak: float) -> Schedule:
    """Return the schedule's shape, scaled so that its first value is ``peak``.

    Raises:
        ValueError: When the schedule starts at 0, which nothing scales.
    """
    first = schedule.at(0, 2)
    if first == 0:
        raise ValueError(f"expected a schedule that does not start at 0 to scale, but got {schedule}")
    factor = peak / first
    for shape, formula_of in ((linear, _linear), (cosine, _cosine)):
        if isinstance(schedule.function, partial) and schedule.function.func is formula_of:
            return shape(peak, schedule.function.args[1] * factor)
    return Schedule(f"{factor:g} * {schedule.formula}", lambda step, total: factor * schedule.at(step, total))
