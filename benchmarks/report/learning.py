"""Learning curves: what happens to the scores while a model is revised."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape

from unlearn_kit.plots import NARROWEST

from ..analysis.fronts import mean
from .looks import Figure, identifiers, looks, trace
from .rows import ReportRow
from .tasks import ReportTask

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
CURVES = 8  # learning curves shown before the reader asks for more
PANELS = {"forget": "forget", "retain": "retain", "held_out": "held-out"}


def learning(task: ReportTask) -> Figure | None:
    """Draw how forget, retain and held-out scores move during the revision: means over runs, the reference dashed."""
    curves = {id(row): found for row in task.rows if row.role == "method" and (found := _progress(row))}
    rows = [row for row in task.rows if id(row) in curves]
    if not rows:
        return None
    ids = {id(row): name for name, row, place in identifiers(task) if place is None}
    look = looks(sorted({row.method for row in rows}))
    order = sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))
    dashes = _dashes([look[row.method][0] for row in order])
    traces, shapes = [], []
    axis_x = {"title": {"text": "share of the revision done"}, "tickformat": ".0%", "anchor": f"y{len(PANELS)}"}
    layout: Figure = {"height": 760, "xaxis": axis_x}
    reference = task.row("reference")
    for panel, (part, title) in enumerate(PANELS.items()):
        axis = "y" if panel == 0 else f"y{panel + 1}"
        top = 1 - panel * 0.35
        layout[f"yaxis{axis[1:]}"] = {
            "domain": [max(0, top - 0.3), top], "title": {"text": f"{title} {task.score}"}, "anchor": "x",
        }  # fmt: skip
        ideal = None if reference is None else reference.figure("retain_test" if part == "held_out" else part)
        if ideal is not None:
            # A hair's breadth must not look like a gulf.
            low = min(max(ideal.mean - NARROWEST / 2, 0.0), 1 - NARROWEST)
            layout[f"yaxis{axis[1:]}"]["autorangeoptions"] = {"include": [low, low + NARROWEST]}
            line = {"color": "@faint", "width": 1, "dash": "dash"}
            place = {"xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": ideal.mean, "y1": ideal.mean}
            shapes.append({"type": "line", "layer": "below", "line": line, **place})
        for number, (row, dash) in enumerate(zip(order, dashes, strict=True)):
            points = [(x, scores[part]) for x, scores in curves[id(row)] if scores[part] is not None]
            label = escape(row.label, quote=False)
            color = look[row.method][0]
            traces.append(
                trace(
                    "lines", [round(x, 4) for x, _ in points], [y for _, y in points], [ids[id(row)]] * len(points),
                    [f"<b>{label}</b><br>{title} {y:.3f} at {x:.0%}" for x, y in points],
                    name=label, legendgroup=ids[id(row)], showlegend=panel == 0, yaxis=axis,
                    visible=True if number < CURVES else "legendonly",
                    line={"color": color, "width": 2, "dash": dash},
                )
            )  # fmt: skip
    return {"data": traces, "layout": {**layout, "shapes": shapes}}


def _dashes(colors: Sequence[str]) -> list[str]:
    """Return the dashes of rows by their colours: rows of one method, or of methods of one colour, differ by them."""
    before = Counter[str]()
    found = []
    for color in colors:
        found.append(DASHES[before[color] % len(DASHES)])
        before[color] += 1
    return found


def _progress(row: ReportRow) -> list[tuple[float, dict[str, float | None]]]:
    """Return ``(share done, scores)`` at every point that all watched runs share: the mean over these."""
    found: dict[float, list[dict[str, float | None]]] = defaultdict(list)
    runs = [run for run in row.ok if run.record.learning_curve]
    for run in runs:
        points = run.record.learning_curve
        requests = 1 + max(point.get("request", 0) for point in points)
        last = {
            place: max((p["step"] for p in points if p.get("request", 0) == place), default=0)
            for place in range(requests)
        }
        seen = {}
        for point in points:
            place = point.get("request", 0)
            share = (place + (point["step"] / last[place] if last[place] else 0.0)) / requests
            seen[round(share, 6)] = {part: point[part] for part in PANELS}
        for share, scores in seen.items():
            found[share].append(scores)
    every = [(share, scores) for share, scores in sorted(found.items()) if len(scores) == len(runs)]
    return [(share, {part: mean(one[part] for one in scores) for part in PANELS}) for share, scores in every]
