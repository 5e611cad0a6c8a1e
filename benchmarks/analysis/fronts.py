"""Fronts, volumes and intervals: what a set of points says, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spot = tuple[float, float]


@dataclass(frozen=True)
class Interval:
    """A mean with the half-width of its 95 % t interval.

    Runs of one training share its luck, so with several trainings the interval is over their means.

    Attributes:
        mean: The mean.
        half: The half-width; None for a single value.
        n: How many runs stand behind it.
        trainings: How many trainings these runs are of.
    """

    mean: float
    half: float | None
    n: int
    trainings: int


def pareto_front(spots: Sequence[Spot]) -> list[int]:
    """Return the places of the spots that no other dominates, by the first axis.

    A spot dominates another when it is at most as large on both axes and smaller on one; equal spots stand together.
    """
    order = sorted(range(len(spots)), key=lambda place: spots[place])
    front: list[int] = []
    lowest = math.inf
    for place in order:
        # Spots that are equal are on the front together.
        if spots[place][1] < lowest or (front and spots[place] == spots[front[-1]]):
            front.append(place)
            lowest = spots[place][1]
    return front


def hypervolume(spots: Sequence[Spot], corner: Spot) -> float:
    """Return the share of the rectangle from the origin to ``corner`` that the spots dominate (small is good)."""
    area, height = 0.0, corner[1]
    for place in pareto_front(spots):
        x, y = spots[place]
        if x < corner[0] and y < height:
            area += (corner[0] - x) * (height - y)
            height = y
    return area / (corner[0] * corner[1])


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values, or None where none is known. What is not finite is not known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def interval(values: Mapping[Any, Sequence[float]]) -> Interval:
    """Return the mean over trainings (the keys) of the means over their runs, with its 95 % t interval.

    Raises:
        ValueError: When there is no value.
    """
    import numpy as np
    from scipy.special import stdtrit

    runs = [list(group) for group in values.values() if len(group)]
    if not runs:
        raise ValueError("expected at least one value, but got none")
    spread = [float(np.mean(group)) for group in runs] if len(runs) > 1 else runs[0]
    n = len(spread)
    half = float(stdtrit(n - 1, 0.975) * np.std(spread, ddof=1) / math.sqrt(n)) if n > 1 else None
    return Interval(float(np.mean(spread)), half, sum(map(len, runs)), len(runs))
