"""The scores of groups of the data, such as patients or scanners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.fronts import mean
from ..suites.records import GroupScore
from .rows import ReportRow
from .tasks import ReportTask

Cell = tuple[float | None, float | None]


@dataclass(frozen=True)
class GroupTable:
    """What each model scores on each group.

    Attributes:
        heads: ``(group, forgotten, train)``: its name, and how many of how many training samples are forgotten.
        rows: ``(row, cells)``: for each group the scores on training and on held-out data, means over runs.
    """

    heads: list[tuple[str, int, int]]
    rows: list[tuple[ReportRow, list[Cell]]]


def group_table(task: ReportTask) -> GroupTable | None:
    """Return the table of the groups; None where no record tells, as of data without groups and of older versions."""
    told = {id(row): [scores for run in row.ok if (scores := run.record.group_scores)] for row in task.rows}
    first: dict[str, GroupScore] = {}
    for several in told.values():
        for scores in several:
            first = {**scores, **first}
    if not first:
        return None
    heads = [(name, one.forgotten, one.train) for name, one in first.items()]
    return GroupTable(
        heads, [(row, [_cell(told[id(row)], name) for name, _, _ in heads]) for row in task.rows if told[id(row)]]
    )


def _cell(several: list[Mapping[str, GroupScore]], name: str) -> Cell:
    known = [scores[name] for scores in several if name in scores]
    return mean(one.train_score for one in known), mean(one.test_score for one in known)
