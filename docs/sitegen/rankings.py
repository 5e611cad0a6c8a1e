"""The nearest methods of a suite, for whoever has to choose one."""

from __future__ import annotations

import csv
from pathlib import Path

import algorithms
from unlearn_kit.engine import facts_of

from .markdown import table
from .methods import REVERSIBLE, YES

NEAREST = 5
HEADINGS = ("method", "gap", "forget", "kept, on test data", "speed-up", "reversible", "needs the data to keep")


def ranking(argument: str, root: Path) -> str:
    """Return the table of the nearest methods of a suite: ``fashion-class``, or ``device, mni-slices``.

    The suite's figures are those of its table in ``docs/suites``; the second word chooses the rows whose task begins
    with it.
    """
    name, _, begins = argument.partition(", ")
    with (root / "docs" / "suites" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"].startswith(begins)]
    if not rows:
        raise ValueError(f"expected {name}.csv to have a task that begins with {begins!r}, but it has none")
    shown = [row for row in rows if not row["rank"]] + [row for row in rows if row["rank"]][:NEAREST]
    return table(HEADINGS, [_cells(row) for row in shown])


def _cells(row: dict[str, str]) -> tuple[str, ...]:
    name = row["method"].partition(":")[0]
    ranked = bool(row["rank"])  # else the original or the reference
    facts = (name in REVERSIBLE, facts_of(getattr(algorithms, name)).reads_retain) if ranked else ()
    said = [_mean(row, key) for key in ("average_gap", "forget", "retain_test")]
    speed = f"{float(row['speed_up']):.1f}" if row["speed_up"] else ""
    linked = f"[`{row['method']}`](reference/methods/{name}.md)" if ranked else row["method"]
    return (linked, *said, speed, *(YES[fact] for fact in facts)) + ("",) * (2 - len(facts))


def _mean(row: dict[str, str], key: str) -> str:
    """Return mean and half-width of the interval."""
    half = (float(row[f"{key}_high"]) - float(row[f"{key}_low"])) / 2
    return f"{float(row[key]):.3f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{half:.3f}"
