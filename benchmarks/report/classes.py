"""The heat map of the classes."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import Any

from ..analysis.tables import MISSING
from .looks import Figure, identifiers
from .rows import ReportRow
from .tasks import ReportTask

NUMBERS = 12  # most classes whose cells have room for a number


def heat(task: ReportTask, *, change: bool = False) -> Figure | None:
    """Draw the score of each class on held-out data: before, the reference, and after each method.

    Args:
        task: The rows.
        change: Show differences to the reference instead.
    """
    table = {id(row): means for row in task.rows if (means := class_means(row))}
    reference = task.row("reference")
    theirs = table.get(id(reference), {})
    rows = [row for row in task.rows if id(row) in table and not (change and row is reference)]
    if not any(row.role == "method" for row in rows) or (change and not theirs):
        return None
    labels = sorted({label for means in table.values() for label in means})
    ids = {id(row): name for name, row, place in identifiers(task) if place is None}
    titles = [_marked(task, label) for label in labels]
    z, hover = [], []
    for row in rows:
        means = table[id(row)]
        values = [_change(means.get(label), theirs.get(label)) if change else means.get(label) for label in labels]
        z.append([None if value is None else round(value, 4) for value in values])
        shown = [MISSING if value is None else f"{value:+.3f}" if change else f"{value:.3f}" for value in values]
        head = f"<b>{escape(row.label, quote=False)}</b><br>"
        hover.append([f"{head}{title}: {cell}" for title, cell in zip(titles, shown, strict=True)])
    form = "{:+.2f}" if change else "{:.2f}"
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": titles,
        "y": [f"{escape(row.label, quote=False)}" for row in rows],
        "z": z,
        "customdata": [[ids[id(row)]] * len(labels) for row in rows],
        "hovertext": hover,
        "hoverinfo": "text",
        "xgap": 2,
        "ygap": 2,
        "zmin": -1 if change else 0,
        "zmax": 1,
        "colorscale": "@change" if change else "@share",
        "colorbar": {"thickness": 8, "outlinewidth": 0, "len": 0.9},
        "showscale": len(labels) > NUMBERS,
    }
    if not trace["showscale"]:
        trace["text"] = [[MISSING if cell is None else form.format(cell) for cell in line] for line in z]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 11}
    layout = {
        "height": 120 + 26 * len(rows),
        "xaxis": {"side": "top", "type": "category", "tickangle": -35 if any(len(t) > 6 for t in titles) else 0,
                  "showgrid": False, "automargin": True},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def class_means(row: ReportRow) -> dict[int, float]:
    """Return the score of each class on held-out data, the mean over runs."""
    found: dict[int, list[float]] = defaultdict(list)
    for run in row.ok:
        for label, score in run.per_class.items():
            if score is not None:
                found[label].append(score)
    return {label: sum(scores) / len(scores) for label, scores in found.items()}


def _change(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def _marked(task: ReportTask, label: int) -> str:
    title = escape(task.class_title(label), quote=False)
    return f"{title} ✕" if label in task.forgotten else title
