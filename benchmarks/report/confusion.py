"""What the models take samples of the forgotten classes for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ..analysis.fronts import mean
from .rows import ReportRow
from .tasks import ReportTask

MOST = 6  # predicted classes that have a column of their own


@dataclass(frozen=True)
class ConfusionTable:
    """What samples of one class are taken for.

    Attributes:
        title: The class.
        heads: The predicted classes, and "others" where there are more of them than columns.
        rows: ``(row, shares)``: the share of each head, in [0, 1], the mean over runs.
    """

    title: str
    heads: list[str]
    rows: list[tuple[ReportRow, list[float]]]


def confusion(task: ReportTask) -> list[ConfusionTable]:
    """Return a table for each forgotten class; none where no record tells, as of masks and of older versions."""
    shares = {id(row): found for row in task.rows if (found := _shares(row))}
    labels = sorted({label for found in shares.values() for label in found} & task.forgotten)
    return [_table(task, label, shares) for label in labels]


def _table(task: ReportTask, label: int, shares: dict[int, dict[int, dict[int, float]]]) -> ConfusionTable:
    rows = [(row, shares[id(row)][label]) for row in task.rows if label in shares.get(id(row), {})]
    # Beside the class itself, what any model takes most of it for.
    most = {other: max(found.get(other, 0.0) for _, found in rows) for _, found in rows for other in found}
    order = sorted(most, key=lambda other: (other != label, -most[other], other))
    shown, rest = order[:MOST], order[MOST:]
    return ConfusionTable(
        task.class_title(label),
        [task.class_title(other) for other in shown] + (["others"] if rest else []),
        [
            (
                row,
                [found.get(other, 0.0) for other in shown]
                + [sum(found.get(other, 0.0) for other in rest)][: len(rest)],
            )
            for row, found in rows
        ],
    )


def _shares(row: ReportRow) -> dict[int, dict[int, float]]:
    """Return ``{label: {predicted label: share}}``, the mean over runs."""
    found: dict[int, list[dict[int, float]]] = defaultdict(list)
    for run in row.ok:
        for label, counts in (run.record.confusion or {}).items():
            if whole := sum(counts.values()):
                found[int(label)].append({int(other): count / whole for other, count in counts.items()})
    return {
        label: {other: mean(one.get(other, 0.0) for one in several) or 0.0 for one in several for other in one}
        for label, several in found.items()
    }
