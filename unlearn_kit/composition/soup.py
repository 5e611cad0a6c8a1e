"""A soup that takes in a run only when it gets better by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..arguments import checked
from ..errors import check_number
from ..seeding import standardized
from .merge import average
from .state import check_match, numbered


@dataclass(frozen=True)
class Soup:
    """A mean of some of the runs.

    Attributes:
        model: their uniform mean.
        chosen: places of the runs in it, in the order they were taken in.
        score: of the mean.
        scores: of each run alone, in the order given.
        tried: of each mean that was tried: the place of the run that joined, and the score.
    """

    model: nn.Module
    chosen: tuple[int, ...]
    score: float
    scores: tuple[float, ...]
    tried: tuple[tuple[int, float], ...]


@checked
@standardized
def greedy_soup(models: Sequence[nn.Module], score: Callable[[nn.Module], float], *, recalibrate: Any = None) -> Soup:
    """Start from the best run; in falling order of score, take in each of the others that improves the mean's score.

    Args:
        models: runs of one architecture.
        score: larger is better; to be measured on held-out data that no figure is later reported on.
        recalibrate: retain data, or a task, on which the statistics of batch norm of each mean are measured.

    Raises:
        ValueError: Naming what differs in the models, or a score that is no finite number.

    Source: arXiv 2203.05482, algorithm 1 (which also takes in a run that changes nothing).
    """
    check_match(numbered(models))
    alone = tuple(check_number(f"the score of models[{i}]", score(model)) for i, model in enumerate(models))
    first, *others = sorted(range(len(models)), key=lambda place: -alone[place])
    chosen, best, mixed = [first], alone[first], average([models[first]])
    tried = []
    for place in others:
        candidate = average([models[i] for i in (*chosen, place)], recalibrate=recalibrate)
        value = check_number("the score of a mean", score(candidate))
        tried.append((place, value))
        if value > best:
            chosen, best, mixed = [*chosen, place], value, candidate
    return Soup(mixed, tuple(chosen), best, alone, tuple(tried))
