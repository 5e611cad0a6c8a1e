"""Tables for people: what a demo found, and what the toolkit has."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..demo.curves import MixCurve, MixPoint
    from ..demo.run import DemoReport, Row

MISSING = "n/a"


@dataclass(frozen=True)
class Column:
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
    Column("forget\ntrain", score("forget")),
    Column("retain\ntrain", score("retain")),
    Column("forget\ntest", score("forget_test")),
    Column("retain\ntest", score("retain_test")),
]
COMMON = [
    Column("gap", score("average_gap")),
    Column("ToW", score("tug_of_war")),
    Column("member\nAUC", score("membership")),
    Column("seconds", lambda row: row.seconds, "{:.1f}"),
    Column("speed\nup", lambda row: row.speed_up, "{:.1f}x"),
]
DICE = [
    Column("Dice\nforget", dice("forget")),
    Column("Dice\nretain", dice("retain")),
    Column("Dice\ntest", dice("test")),
]
COLUMNS = {"classification": [*SPLITS, *COMMON], "segmentation": [*SPLITS, *DICE, *COMMON]}
LABELS = {"original": "original (do nothing)", "reference": "reference (retrained)"}


def wide(console: Console) -> Console:
    """The same console, wide enough for a table when its output goes to a file or a pipe."""
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def demo_table(report: DemoReport) -> Table:
    """One line a model: original, reference, each method."""
    kind = report.task.kind
    table = _table(f"{report.config.data}: forgetting {report.task.rule}")
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
    table = _table("perturbed_sign over mix")
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


def inventory() -> dict[str, dict[str, str]]:
    """Every algorithm, data set and model, with one line about it."""
    import algorithms
    from unlearn_kit.data import LOADERS
    from unlearn_kit.models import MODELS

    return {
        "algorithms": {name: first_line(getattr(algorithms, name)) for name in algorithms.__all__},
        "data": {
            name: first_line(importlib.import_module(f"unlearn_kit.data.{module}")) for name, module in LOADERS.items()
        },
        "models": {name: f"{entry.summary} ({entry.task})" for name, entry in MODELS.items()},
    }


def inventory_tables(found: dict[str, dict[str, str]]) -> list[Table]:
    """One table a kind."""
    tables = []
    for kind, members in found.items():
        table = _table(kind)
        table.add_column("name", style="bold", no_wrap=True)
        table.add_column("what it is")
        for name, line in members.items():
            table.add_row(name, line)
        tables.append(table)
    return tables


def first_line(thing: Any) -> str:
    """The first line of a docstring, without its full stop and its marks of code."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".").replace("``", "")


def _table(title: str) -> Table:
    return Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", caption_justify="left", pad_edge=False
    )
