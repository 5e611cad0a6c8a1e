"""Means with intervals, where the variance comes from, and whether two methods differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import checked
from ..errors import check_count, check_number
from ..seeding import derive

Array = NDArray[np.float64]


class Seeds(NamedTuple):
    """The three seeds of a run; a change of one leaves the others alone."""

    training: int
    unlearning: int
    evaluation: int


@checked
def independent_seeds(seed: int, *, training: int = 0, unlearning: int = 0) -> Seeds:
    """Return seeds of the ``unlearning``-th revision of the ``training``-th model of a study.

    Two revisions of one model share its training seed and nothing else; two models share nothing. Each is in
    [0, 2**63).

    Raises:
        TypeError: When a number is no int of at least 0.
        ValueError: When a number is no int of at least 0.
    """
    check_count("training", training, low=0)
    check_count("unlearning", unlearning, low=0)
    return Seeds(
        derive(seed, "training", training),
        derive(seed, "unlearning", training, unlearning),
        derive(seed, "evaluation", training, unlearning),
    )


@dataclass(frozen=True)
class Summary:
    """A mean and the half-width of its t interval, which is None for a single value: one run says nothing of spread."""

    mean: float
    half_width: float | None
    n: int
    confidence: float = 0.95

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    def __str__(self) -> str:
        ends = "no interval" if self.interval is None else "[{:.3f}, {:.3f}]".format(*self.interval)
        return f"{self.mean:.3f} {ends}, n = {self.n}"


@checked
def summary(values: ArrayLike, *, confidence: float = 0.95) -> Summary | None:
    """Return mean, half-width of the t interval, and n of independent ``values`` ``(n,)``; None where there are none.

    Raises:
        ValueError: On values that are not finite or not one-dimensional, or a confidence outside (0, 1).
    """
    x = _finite("values", values, dimensions=1)
    check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    if len(x) == 0:
        return None
    half = None if len(x) == 1 else _t(len(x) - 1, confidence) * math.sqrt(float(x.var(ddof=1)) / len(x))
    return Summary(float(x.mean()), half, len(x), confidence)


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of a figure comes from, over I trainings and J unlearnings of each.

    Attributes:
        mean: over all runs.
        training, unlearning: variance between trainings and between unlearnings of one training, estimated as in a
            one-way random-effects analysis of variance and never negative. None where the table cannot tell: both for
            J = 1, ``training`` for I = 1.
        variance_of_mean: ``training / I + unlearning / (I J)``; None for I = 1.
        half_width: of the t interval of the mean, with I - 1 degrees of freedom; None for I = 1.
        trainings, unlearnings: I and J.
    """

    mean: float
    training: float | None
    unlearning: float | None
    variance_of_mean: float | None
    half_width: float | None
    trainings: int
    unlearnings: int


@checked
def variance_components(table: ArrayLike, *, confidence: float = 0.95) -> VarianceComponents:
    """Split the variance of a ``table`` ``(I, J)``, a row a training, a column an unlearning of it.

    J more unlearnings of the same models never bring the variance of the mean below ``training / I``: spend on
    trainings first.

    Raises:
        ValueError: On a table that is not two-dimensional, empty or not finite.
    """
    x = _finite("table", table, dimensions=2)
    check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    if x.size == 0:
        raise ValueError(f"expected table to hold at least one value, but got shape {x.shape}")
    trainings, unlearnings = x.shape
    between = float(x.mean(axis=1).var(ddof=1)) if trainings > 1 else None
    unlearning = float(x.var(axis=1, ddof=1).mean()) if unlearnings > 1 else None
    training = None if between is None or unlearning is None else max(0.0, between - unlearning / unlearnings)
    variance = between
    if training is not None and unlearning is not None:
        variance = training / trainings + unlearning / (trainings * unlearnings)
    elif between is not None:
        variance = between / trainings
    half = None if variance is None else _t(trainings - 1, confidence) * math.sqrt(variance)
    return VarianceComponents(float(x.mean()), training, unlearning, variance, half, trainings, unlearnings)


@dataclass(frozen=True)
class PairedComparison:
    """Whether two methods differ, from runs that share their seeds.

    Attributes:
        difference: mean of ``a - b``.
        low, high: bootstrap interval (percentile) of that mean; None for a single pair. With few pairs it is narrower
            than it should be.
        p_value: of the two-sided Wilcoxon signed-rank test; pairs without a difference are left out, 1 where none is
            left. Below 6 pairs it cannot fall under .05.
        n: number of pairs.
        confidence: of the interval.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    n: int
    confidence: float


@checked
def paired_comparison(
    a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedComparison | None:
    """Compare two methods on the same runs: ``a`` and ``b`` ``(n,)``, pair by pair; None where there is no pair.

    Raises:
        ValueError: On values that are not finite, or sequences of two lengths.
    """
    x, y = _finite("a", a, dimensions=1), _finite("b", b, dimensions=1)
    if len(x) != len(y):
        raise ValueError(f"expected a and b to hold one value a run each, but got {len(x)} and {len(y)}")
    check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    check_count("resamples", resamples)
    if len(x) == 0:
        return None
    from scipy.stats import bootstrap, wilcoxon

    differences = x - y
    moved = differences[differences != 0]
    p = float(wilcoxon(moved).pvalue) if len(moved) else 1.0
    low: float | None = None
    high: float | None = None
    if len(x) > 1:
        found = bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            random_state=np.random.default_rng(derive(seed, "bootstrap")),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return PairedComparison(float(differences.mean()), low, high, p, len(x), confidence)


def _t(freedom: int, confidence: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))


def _finite(name: str, values: ArrayLike, dimensions: int) -> Array:
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {name} to be numbers in {dimensions} dimension(s), but got {values!r}") from None
    if x.ndim != dimensions:
        raise ValueError(f"expected {name} to have {dimensions} dimension(s), but got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).sum())
        raise ValueError(f"expected {name} to be finite, but got {bad} NaN or infinite of {x.size} values")
    return x
