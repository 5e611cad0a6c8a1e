"""Figures with intervals that hold for few samples, several of one patient, and classes of unequal difficulty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..seeding import derive

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1_000
CHUNK = 100  # resamples at once, so that memory stays small for large sets
_EDGES: tuple[Literal["left", "right"], ...] = ("left", "right")
FEW = 5  # groups, below which resampling them says nothing of how groups differ
SOME = 500  # unseen groups, by which one tells how they differ where there are more


@dataclass(frozen=True)
class Figure:
    """A figure, the ends of its 95 % interval, and the number of samples or groups behind it.

    Attributes:
        value: The figure.
        low, high: The interval.
        count: What was drawn independently: samples, or groups where those are known.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Side:
    """One side of a comparison: values of M models ``(M, N)``, the class of each sample, and its group where known."""

    values: Array
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.values.shape[1]

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The number of each sample's group; without groups every sample is one of its own."""
        if self.groups is None:
            return np.arange(len(self))
        numbers: NDArray[np.int64] = np.unique(self.groups, return_inverse=True)[1]
        return numbers

    @property
    def count(self) -> int:
        """The number of groups."""
        return int(self.clusters.max()) + 1 if len(self) else 0

    def only(self, chosen: NDArray[np.bool_]) -> Side:
        """Return the samples where ``chosen``."""
        groups = None if self.groups is None else self.groups[chosen]
        return Side(self.values[:, chosen], self.labels[chosen], groups)


def side(values: ArrayLike, labels: ArrayLike | None = None, groups: Sequence[object] | None = None) -> Side:
    """Return a side of a comparison from numbers ``(M, N)`` or ``(N,)``; without ``labels`` all are of one class."""
    x = np.atleast_2d(np.asarray(values, dtype=np.float64))
    classes = np.zeros(x.shape[1], dtype=np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    known = None if groups is None else np.unique([str(name) for name in groups], return_inverse=True)[1]
    return Side(x, classes, known)


@dataclass(frozen=True)
class Gap:
    """How much better the forget data fare than unseen data, before and after a revision.

    Attributes:
        before, after: Of the two models; 0 for one that never saw either.
        left: The part of the first that is left in the second, between its 5 % and 95 % bounds, so that each end alone
            is passed by chance one time in 20; None where the original had nothing to lose.
    """

    before: Figure
    after: Figure
    left: Figure | None


# What is compared: values of one model on each side and resampling weights ``(R, N)``, to figures ``(R,)``.
Statistic = Callable[[Side, Side, int, Array, Array], Array]


def gap(forget: Side, unseen: Side, statistic: Statistic, *, seed: int = 0) -> Gap | None:
    """Return how the forget data stand to unseen data of their classes, under both models.

    The interval resamples whole groups (percentile bootstrap), the same for both models: how hard a sample is is common
    to them and cancels in what is left. Fewer than 5 forget groups, or samples where no groups are known, say nothing
    of how these differ: how much the unseen ones do takes the place of that, and without 5 of those the interval is
    everything.

    Args:
        forget: Values before and after, ``(2, N)``.
        unseen: The same of samples that no model was trained on.
        statistic: :func:`advantages` of losses, or :func:`differences` of scores.
        seed: Of the resampling.

    Returns:
        The gap; None where no class has samples on both sides.
    """
    shared = np.intersect1d(forget.labels, unseen.labels)
    forget, unseen = (part.only(np.isin(part.labels, shared)) for part in (forget, unseen))
    if not len(forget) or not len(unseen):
        return None
    ones = np.ones((1, len(forget))), np.ones((1, len(unseen)))
    values = [float(statistic(forget, unseen, model, *ones)[0]) for model in range(2)]
    count = min(forget.count, unseen.count)
    if forget.count < FEW:
        ends = []
        for model, value in enumerate(values):
            spread = _between_groups(unseen, statistic, model)
            half = 1.0 if spread is None else 1.96 * spread * math.sqrt(1 / forget.count + 1 / unseen.count)
            ends.append(Figure(value, value - half, value + half, count))
        before, after = ends
        left = Figure(after.value / before.value, 0.0, after.high / before.low, count) if before.low > 0 else None
        return Gap(before, after, left)
    rng, draws = np.random.default_rng(derive(seed, "bootstrap")), []
    for _ in range(RESAMPLES // CHUNK):
        weights = _resampled(forget, rng), _resampled(unseen, rng)
        draws.append([statistic(forget, unseen, model, *weights) for model in range(2)])
    old, new = np.concatenate(draws, axis=1)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    before, after = (
        Figure(value, float(np.nanquantile(one, tails[0])), float(np.nanquantile(one, tails[1])), count)
        for value, one in zip(values, (old, new), strict=True)
    )
    left = None
    if values[0] > 0:
        # A resample in which the original has no advantage speaks against any statement about a part of it.
        parts = np.where(old > 0, new / np.where(old > 0, old, 1.0), math.inf)
        low, high = np.quantile(parts, [1 - CONFIDENCE, CONFIDENCE], method="nearest")
        left = Figure(values[1] / values[0], float(low), float(high), count)
    return Gap(before, after, left)


def advantages(forget: Side, unseen: Side, model: int, f_weights: Array, u_weights: Array) -> Array:
    """Return how much better than guessing one tells forget samples from unseen ones of their class by their losses.

    ``P(forget < unseen) + P(equal) / 2 - 1/2`` within each class, weighted by the classes of the forget samples, so
    that a class that is easier than another gives nobody away. In [-.5, .5]; negative where forget samples have the
    larger losses.
    """
    total, whole = np.zeros(len(f_weights)), np.zeros(len(f_weights))
    for label in np.unique(forget.labels):
        mine, theirs = forget.labels == label, unseen.labels == label
        values = unseen.values[model, theirs]
        order = values.argsort()
        summed = np.cumsum(u_weights[:, theirs][:, order], axis=1)
        summed = np.concatenate([np.zeros((len(summed), 1)), summed], axis=1)
        below, upto = (summed[:, np.searchsorted(values[order], forget.values[model, mine], edge)] for edge in _EDGES)
        there = summed[:, -1:]
        # A resample may hold no unseen sample of a class, which then has nothing to compare with.
        above = np.where(there > 0, (there - upto + (upto - below) / 2) / np.maximum(there, 1), 0.0)
        weights = f_weights[:, mine] * (there > 0)
        total += (weights * above).sum(axis=1)
        whole += weights.sum(axis=1)
    return np.where(whole > 0, total / np.maximum(whole, 1), math.nan) - 0.5


def differences(forget: Side, unseen: Side, model: int, f_weights: Array, u_weights: Array) -> Array:
    """Return the mean of the forget samples less that of unseen ones of their class, weighted as the former."""
    total, whole = np.zeros(len(f_weights)), np.zeros(len(f_weights))
    for label in np.unique(forget.labels):
        mine, theirs = forget.labels == label, unseen.labels == label
        there, weights = u_weights[:, theirs].sum(axis=1), f_weights[:, mine]
        mean = (u_weights[:, theirs] * unseen.values[model, theirs]).sum(axis=1) / np.maximum(there, 1)
        total += ((weights * forget.values[model, mine]).sum(axis=1) - weights.sum(axis=1) * mean) * (there > 0)
        whole += weights.sum(axis=1) * (there > 0)
    return np.where(whole > 0, total / np.maximum(whole, 1), math.nan)


def mean_change(changes: Side, *, seed: int = 0) -> Figure | None:
    """Return the mean of paired changes, after less before, with a bootstrap interval over whole groups; None for none.

    A set in which nothing changed still says only so much: its interval is that of the rule of three, 3 / count to
    either side.
    """
    if not len(changes):
        return None
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    draws = []
    for _ in range(RESAMPLES // CHUNK):
        weights = _resampled(changes, rng)
        draws.append((weights * changes.values[0]).sum(axis=1) / weights.sum(axis=1))
    low, high = np.quantile(np.concatenate(draws), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(changes.values.mean())
    if low == high:
        floor = min(1.0, 3 / changes.count)
        low, high = value - floor, value + floor
    return Figure(value, float(low), float(high), changes.count)


def mean(shares: ArrayLike, *, seed: int = 0) -> Figure:
    """Return the mean of shares ``(N,)`` in [0, 1] with its interval, as :func:`mean_change` makes it."""
    found = mean_change(side(shares), seed=seed)
    if found is None:
        raise ValueError("expected at least one share, but got none")
    return Figure(found.value, max(found.low, 0.0), min(found.high, 1.0), found.count)


def share(right: int, count: int) -> Figure:
    """Return a share of ``count`` independent samples with its exact (Clopper-Pearson) 95 % interval."""
    from scipy.stats import binomtest

    ends = binomtest(right, count).proportion_ci(CONFIDENCE, method="exact")
    return Figure(right / count, float(ends.low), float(ends.high), count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def p_of_drop(changes: Sequence[float] | Array) -> float:
    """Return the one-sided p-value of a fall, from paired changes ``(N,)``: 1 where nothing changed.

    Where every change is -1, 0 or 1 it is McNemar's exact test; else the Wilcoxon signed-rank test.
    """
    from scipy.stats import binomtest, wilcoxon

    x = np.asarray(changes, dtype=np.float64)
    moved = x[x != 0]
    if not len(moved):
        return 1.0
    if np.isin(moved, (-1.0, 1.0)).all():
        return float(binomtest(int((moved < 0).sum()), len(moved), 0.5, alternative="greater").pvalue)
    return float(wilcoxon(moved, alternative="less").pvalue)


def _resampled(part: Side, rng: np.random.Generator) -> Array:
    """Return how often each sample is drawn, ``(CHUNK, N)``, when whole groups are drawn with replacement."""
    groups = part.count
    drawn = rng.integers(groups, size=(CHUNK, groups)) + groups * np.arange(CHUNK)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=CHUNK * groups).reshape(CHUNK, groups)
    return counts.astype(np.float64)[:, part.clusters]


def _between_groups(unseen: Side, statistic: Statistic, model: int) -> float | None:
    """Return the standard deviation of how each unseen group stands to the others; None of fewer than 5."""
    clusters = unseen.clusters
    if unseen.count < FEW:
        return None
    found = []
    for group in np.linspace(0, unseen.count - 1, min(unseen.count, SOME)).round():
        own, others = unseen.only(clusters == group), unseen.only(clusters != group)
        own = own.only(np.isin(own.labels, others.labels))
        if len(own):
            found.append(statistic(own, others, model, np.ones((1, len(own))), np.ones((1, len(others))))[0])
    return float(np.std(found, ddof=1)) if len(found) >= FEW else None
