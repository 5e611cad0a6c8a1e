"""The resolution of a ranking: how far two references of one training, which differ by their seeds alone, are apart.

A method that is no farther from the reference than another reference is cannot be told from one: such methods are tied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from unlearn_kit.judging import farthest, within
from unlearn_kit.scores import Evaluation

from .rows import ResultRow, is_further, name_of, task_of

FurtherReferences = Mapping[tuple[str, int, int], Sequence[Evaluation]]


def seeds_of(row: ResultRow) -> tuple[str, int, int]:
    """Return what a row shares with the references that stand beside it: task, training seed, evaluation seed."""
    return name_of(task_of(row.record.config)), row.training_seed, row.evaluation_seed


def further_references(rows: Iterable[ResultRow]) -> FurtherReferences:
    """Return the scores of further references by :func:`seeds_of`; none where there are none."""
    found: dict[tuple[str, int, int], list[Evaluation]] = defaultdict(list)
    for row in rows:
        if is_further(row) and row.scores is not None:
            found[seeds_of(row)].append(row.scores)
    return found


def resolution_of(rows: Iterable[ResultRow]) -> float | None:
    """Return the largest average gap of a further reference to the first, over trainings; None without one."""
    return farthest(row.scores.average_gap for row in rows if is_further(row) and row.scores is not None)


def places(gaps: Sequence[float], resolution: float | None) -> list[int]:
    """Return the place of each gap, given from the smallest on: those within the resolution share the first.

    Without a resolution none are shared.
    """
    tied = sum(bool(within(gap, resolution)) for gap in gaps)
    return [1 if place <= tied else place for place in range(1, len(gaps) + 1)]


def in_words(resolution: float | None, tied: int) -> str:
    """Say what the resolution is, and how many methods are within it."""
    if resolution is None:
        return (
            "There is no second reference: how far two of them are apart is not known, and small differences between "
            "methods say nothing."
        )
    count = {0: "No method is", 1: "One method is"}.get(tied, f"{tied} methods are")
    return (
        f"Two references of one training, apart in their seeds alone, differ by a gap of up to {resolution:.3f}. "
        f"{count} that near to the reference and tied with it (=). Smaller differences between methods say nothing."
    )
