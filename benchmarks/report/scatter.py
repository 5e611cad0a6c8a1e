"""Scatter charts: one figure of the rows against another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from unlearn_kit.plots import NARROWEST

from ..analysis.fronts import pareto_front
from .looks import Figure, identifiers, looks, pale, trace
from .rows import ReportRow
from .tasks import ReportTask

WORDS = {
    "forget": "forget", "retain": "retain", "forget_test": "forget test", "retain_test": "retain test", "test": "test",
    "membership": "membership", "seconds": "seconds", "average_gap": "gap",
}  # fmt: skip


def scatter(task: ReportTask, x: str, y: str, titles: tuple[str, str], *, cost: bool = False) -> Figure | None:
    """Draw one figure of the rows against another: means with intervals, single runs faintly behind, curves joined.

    Args:
        task: The rows.
        x: Name of the figure on the x axis.
        y: Name of the figure on the y axis.
        titles: Of the axes.
        cost: The x axis is logarithmic; nothing is said about fronts.
    """
    names = {id(row): name for name, row, place in identifiers(task) if place is None}
    spots = {
        id(row): (a, b)
        for row in task.rows
        if (a := row.figure(x)) and (b := row.figure(y)) and not (cost and a.mean <= 0)
    }
    rows = [row for row in task.rows if id(row) in spots and row.role == "method"]
    look = looks(sorted({row.method for row in rows}))
    traces: list[dict[str, Any]] = []
    for method, (color, symbol) in look.items():
        name = escape(method, quote=False)
        stops = [stop for curve in _curves([row for row in rows if row.method == method]) for stop in (*curve, None)]
        means = [None if row is None else spots[id(row)] for row in stops]
        runs = [
            (
                run.values[x],
                run.values[y],
                f"{names[id(row)]}-{place}",
                _said(row, run.text, x, run.values[x], y, run.values[y]),
            )
            for row in stops
            if row is not None and len(row.ok) > 1
            for place, run in enumerate(row.runs)
            if run.status == "ok"
        ]
        if runs:
            xs, ys, ids, said = (list(column) for column in zip(*runs, strict=True))
            marker = {"color": color, "symbol": symbol, "size": 5, "opacity": 0.45}
            traces.append(trace("markers", xs, ys, ids, said, marker=marker, legendgroup=name, showlegend=False))
        traces.append(
            trace(
                "lines+markers",
                [None if spot is None else spot[0].mean for spot in means],
                [None if spot is None else spot[1].mean for spot in means],
                [None if row is None else names[id(row)] for row in stops],
                ["" if row is None else _said(row, f"n = {row.count}", x, *_both(row, x, y)) for row in stops],
                name=name,
                legendgroup=name,
                marker={"color": color, "symbol": symbol, "size": 11, "line": {"color": "@surface", "width": 1}},
                line={"color": pale(color, 0.6), "width": 1.5},
                # Along a logarithm, an interval that reaches zero would fill the chart.
                error_x={"visible": False} if cost else _bars([None if s is None else s[0].half for s in means], color),
                error_y=_bars([None if spot is None else spot[1].half for spot in means], color),
            )
        )
    shapes = []
    for role, symbol, size in (("original", "square-open", 15), ("reference", "star", 17)):
        row = task.row(role)
        if row is None or id(row) not in spots:
            continue
        a, b = spots[id(row)]
        traces.append(
            trace(
                "markers", [a.mean], [b.mean], [names[id(row)]], [_said(row, f"n = {row.count}", x, *_both(row, x, y))],
                name=row.label, marker={"color": "@ink", "symbol": symbol, "size": size, "line": {"width": 2}},
            )
        )  # fmt: skip
        if role == "reference":
            shapes = _cross(a.mean, b.mean)
    if not rows:
        return None
    everything = [spots[id(row)] for row in task.rows if id(row) in spots]
    layout = {
        "xaxis": _axis(titles[0], [spot[0].mean for spot in everything], log=cost),
        "yaxis": _axis(titles[1], [spot[1].mean for spot in everything]),
        "shapes": shapes[:1] if cost else shapes,
        "height": 520,
    }
    front = [] if cost else _front(rows, x, y)
    if front:
        marker = {"color": "@accent", "symbol": "circle-open", "size": 21, "line": {"width": 1.5}}
        traces.insert(
            0,
            {
                "type": "scatter", "mode": "markers", "name": "Pareto front", "hoverinfo": "skip", "marker": marker,
                "x": [spots[id(row)][0].mean for row in front], "y": [spots[id(row)][1].mean for row in front],
            },
        )  # fmt: skip
    return {"data": traces, "layout": layout}


def _both(row: ReportRow, x: str, y: str) -> tuple[Any, str, Any]:
    return row.figure(x), y, row.figure(y)


def _said(row: ReportRow, which: str, x: str, a: Any, y: str, b: Any) -> str:
    """Return the text at a point."""
    lines = [f"<b>{escape(row.label, quote=False)}</b>", which]
    for name, value in ((x, a), (y, b)):
        mean, half = (value.mean, value.half) if hasattr(value, "mean") else (value, None)
        lines.append(f"{WORDS[name]} {mean:.3g}" + ("" if half is None else f" ± {half:.2g}"))
    gap = row.figure("average_gap")
    lines += [f"gap {gap.mean:.3f}"] if gap is not None and "average_gap" not in (x, y) else []
    return "<br>".join([*lines, *(escape(note, quote=False) for note in row.notes)])


def _bars(halves: list[float | None], color: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": halves,
        "thickness": 1,
        "width": 3,
        "color": pale(color, 0.4),
        "visible": any(halves),
    }


def _cross(x: float, y: float) -> list[dict[str, Any]]:
    """Return dashed lines through the reference, the horizontal one first."""
    line = {"color": "@faint", "width": 1, "dash": "dash"}
    return [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"},
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line, "layer": "below"},
    ]


def _axis(title: str, values: list[float], *, log: bool = False) -> dict[str, Any]:
    """Return an axis around the values; a hair's breadth must not look like a gulf."""
    axis: dict[str, Any] = {"title": {"text": title}}
    if log:
        low, high = math.log10(min(values)), math.log10(max(values))
        ticks = _log_ticks(low - 0.2, high + 0.2)
        shown = {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
        return {**axis, "type": "log", "range": [low - 0.2, high + 0.2], **shown}
    low, high = min(values), max(values)
    spread = max(high - low, NARROWEST)
    middle = (low + high) / 2
    return {**axis, "range": [middle - 0.57 * spread, middle + 0.57 * spread]}


def _log_ticks(low: float, high: float) -> list[float]:
    """Return where a logarithmic axis is labelled, between exponents of ten: 1, 2 and 5 of each, or of many the 1."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    digits = (1, 2, 5) if high - low < 3 else (1,)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _curves(rows: list[ReportRow]) -> list[list[ReportRow]]:
    """Return the rows of each tradeoff curve in the order of its knob, and every other row by itself."""
    curves: dict[tuple[str, str], list[ReportRow]] = defaultdict(list)
    alone = []
    for row in rows:
        if row.curve is None:
            alone.append([row])
        else:
            curves[row.curve[:2]].append(row)
    for curve in curves.values():
        numbers = all(isinstance(row.curve[2], (int, float)) for row in curve if row.curve is not None)
        curve.sort(key=lambda row: 0.0 if row.curve is None or not numbers else float(row.curve[2]))
    return [*curves.values(), *alone]


def _front(rows: Sequence[ReportRow], x: str, y: str) -> list[ReportRow]:
    """Return the rows that no other is nearer to the reference than on both axes."""
    known = [(row, (a.mean, b.mean)) for row in rows if (a := row.gap(x)) and (b := row.gap(y))]
    return [known[place][0] for place in pareto_front([spot for _, spot in known])]
