"""What a demo found, as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ..analysis.tables import LABELS, MISSING, titled
from .curves import MixCurve, MixPoint
from .run import DemoReport, Row


@dataclass(frozen=True)
class DemoColumn:
    """A column: its heading, the figure of a row (None is "n/a"), and how that is written."""

    title: str
    value: Callable[[Row], float | None]
    form: str = "{:.3f}"

    def text(self, row: Row) -> str:
        """The cell."""
        value = self.value(row)
        return MISSING if value is None else self.form.format(value)


def score(name: str) -> Callable[[Row], float | None]:
    """The figure ``name`` of a row's evaluation."""
    return lambda row: None if row.scores is None else getattr(row.scores, name)


def dice(split: str) -> Callable[[Row], float | None]:
    """Dice of a split."""
    return lambda row: None if row.scores is None or row.scores.dice is None else row.scores.dice[split]


SPLITS = [
    DemoColumn("forget\ntrain", score("forget")),
    DemoColumn("retain\ntrain", score("retain")),
    DemoColumn("forget\ntest", score("forget_test")),
    DemoColumn("retain\ntest", score("retain_test")),
]
COMMON = [
    DemoColumn("gap", score("average_gap")),
    DemoColumn("ToW", score("tug_of_war")),
    DemoColumn("member\nAUC", score("membership")),
    DemoColumn("seconds", lambda row: row.seconds, "{:.1f}"),
    DemoColumn("speed\nup", lambda row: row.speed_up, "{:.1f}x"),
]
DICE = [
    DemoColumn("Dice\nforget", dice("forget")),
    DemoColumn("Dice\nretain", dice("retain")),
    DemoColumn("Dice\ntest", dice("test")),
]
COLUMNS = {"classification": [*SPLITS, *COMMON], "segmentation": [*SPLITS, *DICE, *COMMON]}


def demo_table(report: DemoReport) -> Table:
    """One line a model: original, reference, each method."""
    kind = report.task.kind
    table = titled(f"{report.config.data}: forgetting {report.task.rule}")
    what = "IoU" if kind == "segmentation" else "accuracy"
    table.caption = f"{what}; ideal is the reference's value, not zero; one run, seed {report.config.seed}"
    table.add_column("", no_wrap=True)
    for column in COLUMNS[kind]:
        table.add_column(column.title, justify="right")
    for place, row in enumerate(report.rows):
        style = "bold" if row.name == "reference" else "red" if row.status == "diverged" else None
        table.add_row(
            LABELS.get(row.name, row.name),
            *(column.text(row) for column in COLUMNS[kind]),
            style=style,
            end_section=place == 1,
        )
    return table


def mix_table(mix: MixCurve) -> Table:
    """The curve over ``mix``, with the original and the reference on the same half of the held-out data."""
    table = titled("perturbed_sign over mix")
    table.caption = "chosen: forget nearest to validation; test is the other half"
    for title in ("", "forget\ntrain", "retain\ntrain", "valid-\nation", "test", "member\nAUC"):
        table.add_column(title, justify="right" if title else "left")

    def add(name: str, point: MixPoint, **look: Any) -> None:
        values = (point.forget, point.retain, point.validation, point.test, point.membership)
        table.add_row(name, *(MISSING if value is None else f"{value:.3f}" for value in values), **look)

    add(LABELS["original"], mix.original)
    add(LABELS["reference"], mix.reference, style="bold", end_section=True)
    for place, point in enumerate(mix.points):
        chosen = place == mix.chosen
        add(f"mix {point.mix:g}" + (" (chosen)" if chosen else ""), point, style="green" if chosen else None)
    return table
