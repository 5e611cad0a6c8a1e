"""The state of a suite in a terminal: a bar, what is at work, failures and learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar as RichBar
from rich.table import Table
from rich.text import Text

from unlearn_kit.display import counted

from ..suites.progress import in_words
from ..suites.records import Record
from .state import SuiteState

T = TypeVar("T")

TICKS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # characters of a curve: three of them fit into 80 columns
SHOWN = 8  # curves, failures and nodes at work that are told one by one
PARTS = {"forget": "forget", "retain": "retain", "held_out": "held out"}


def sparkline(values: Sequence[float | None], low: float | None = None, high: float | None = None) -> str:
    """Return a curve of one line, at most ``WIDTH`` points of it; a value that is none is a blank.

    Args:
        values: From first to last.
        low, high: What the lowest and the highest character stand for; None for the values' own.
    """
    if len(values) > WIDTH:  # the first, the last and some between, evenly
        values = [values[round(place * (len(values) - 1) / (WIDTH - 1))] for place in range(WIDTH)]
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return " " * len(values)
    bottom, top = min(known) if low is None else low, max(known) if high is None else high
    return "".join(
        " "
        if value is None or not math.isfinite(value)
        else TICKS[min(len(TICKS) - 1, max(0, int((value - bottom) / ((top - bottom) or 1) * len(TICKS))))]
        for value in values
    )


def shown(states: Sequence[SuiteState]) -> RenderableType:
    """Return everything that is to be seen."""
    return Group(*(part for state in states for part in _parts(state)))


def _parts(state: SuiteState) -> Iterator[RenderableType]:
    done = len(state.done)
    yield Text(f"{state.name}: {done:,} of {counted(state.planned, 'node')} done{_ending(state)}", style="bold")
    bar = Table.grid()  # a bar by itself ends no line
    bar.add_row(RichBar(total=max(1, state.planned), completed=done, width=60))
    yield bar
    for name, seconds in _some(list(state.working.items())):
        yield Text(f"  at work for {in_words(seconds)}: {name}")
    for word, reasons in (("failed", state.failed), ("no scores", state.refused)):
        if reasons:
            yield Text(f"  {len(reasons):,} {word}", style="yellow")
        for name, reason in _some(list(reasons.items())):
            yield Text(f"  {word}: {name}: {reason}", style="yellow")
    recent = [record for record in state.done if record.kind == "result" and _curves(record)][-SHOWN:]
    for record in reversed(recent):
        yield Text(f"  {record.name}", style="dim")
        yield Text(f"    {'  '.join(_curves(record))}")


def _ending(state: SuiteState) -> str:
    if state.complete:
        return ""
    if not state.working:
        return "; no runner is at work"
    return "" if state.left is None else f"; about {in_words(state.left)} left"


def _some(items: list[tuple[str, T]]) -> list[tuple[str, T]]:
    return items[-SHOWN:]


def _curves(record: Record) -> list[str]:
    """Return curves with their last values: scores where the suite asked for them, else the loss."""
    found = []
    for part, word in PARTS.items():
        scores = [point[part] for point in record.learning_curve]
        if any(score is not None for score in scores):
            last = "n/a" if scores[-1] is None else f"{scores[-1]:.3f}"
            found.append(f"{sparkline(scores, 0.0, 1.0)} {word} {last}")
    losses = [one["total"] for one in record.history if isinstance(one.get("total"), (int, float))]
    if not found and losses:
        found.append(f"{sparkline(losses)} loss {losses[-1]:.4g}")
    return found
