"""The charts as plotly figures: plain dictionaries, so that nothing heavy is imported to write them.

Colours that depend on the page's theme are written as ``@ink``, ``@faint``, ``@grid``, ``@surface`` and ``@accent``;
the page puts them in. A point's ``customdata`` is the identifier of its row or run, see :func:`identifiers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from unlearn_kit.plots import NARROWEST, PALETTE

from ..attempts import METHODS
from ..tables import MISSING
from ..tradeoff import PAIRS, pareto_front
from .rows import Row, Scenario, mean

WORDS = {
    "forget": "forget", "retain": "retain", "forget_test": "forget test", "retain_test": "retain test", "test": "test",
    "membership": "membership", "seconds": "seconds", "average_gap": "gap",
}  # fmt: skip
PLACES = {
    "forget": "the training data to forget", "retain": "the training data to keep",
    "forget_test": "held-out data like the forgotten", "retain_test": "held-out data like the kept",
    "test": "all held-out data",
}  # fmt: skip
Figure = dict[str, Any]
SYMBOLS = ("circle", "diamond", "triangle-up", "cross", "triangle-down", "x")
FIRST = ("perturbed_sign", "erase_to_retain")  # the methods that the toolkit is about
CURVES = 8  # learning curves shown before the reader asks for more
NUMBERS = 12  # most classes whose cells have room for a number


def looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and symbol of each method: the same in every chart of every report, no two alike up to 48."""
    known = [*FIRST, *(name for name in METHODS if name not in FIRST)]
    order = [*known, *sorted(set(methods) - set(known))]
    kinds = [(color, symbol) for symbol in SYMBOLS for color in PALETTE]
    return {name: kinds[place % len(kinds)] for place, name in enumerate(order) if name in methods}


def identifiers(scenario: Scenario) -> Iterator[tuple[str, Row, int | None]]:
    """``(identifier, row, None)`` of each row, and ``(identifier, row, place)`` of each of its runs."""
    for number, row in enumerate(scenario.rows):
        yield f"{scenario.name}-r{number}", row, None
        for place in range(len(row.runs)):
            yield f"{scenario.name}-r{number}-{place}", row, place


def figures(scenario: Scenario) -> dict[str, list[dict[str, Any]]]:
    """The charts of a task, each as views ``{"name", "figure"}`` to choose from; without those that have no data."""
    score = scenario.score
    pairs = [("forget_test", "retain_test"), *PAIRS] if scenario.held_out else list(PAIRS)
    found = {
        "tradeoff": [
            _view(f"{WORDS[x]} and {WORDS[y]}", scatter(scenario, x, y, (_title(x, score), _title(y, score))))
            for x, y in pairs
        ],
        "cost": [
            _view(
                "seconds and gap",
                scatter(scenario, "seconds", "average_gap", ("seconds (log scale)", "gap to the reference"), cost=True),
            )
        ],
        "classes": [_view("score", heat(scenario)), _view("difference to the reference", heat(scenario, change=True))],
        "learning": [_view("learning curves", learning(scenario))],
    }
    kept = {name: [view for view in views if view["figure"] is not None] for name, views in found.items()}
    return {name: views for name, views in kept.items() if views}


def _title(name: str, score: str) -> str:
    return "membership AUC of the forgotten data" if name == "membership" else f"{score} on {PLACES[name]}"


def _view(name: str, figure: Figure | None) -> dict[str, Any]:
    return {"name": name, "figure": figure}


def scatter(scenario: Scenario, x: str, y: str, titles: tuple[str, str], *, cost: bool = False) -> Figure | None:
    """One figure of the rows against another: means with intervals, single runs faintly behind, curves joined.

    Args:
        scenario: the rows.
        x, y: names of figures.
        titles: of the axes.
        cost: the x axis is logarithmic; nothing is said about fronts.
    """
    names = {id(row): name for name, row, place in identifiers(scenario) if place is None}
    spots = {id(row): (a, b) for row in scenario.rows if (a := row.figure(x)) and (b := row.figure(y))}
    rows = [row for row in scenario.rows if id(row) in spots and row.role == "method"]
    look = looks(sorted({row.method for row in rows}))
    traces: list[dict[str, Any]] = []
    for method, (color, symbol) in look.items():
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
            traces.append(_trace("markers", xs, ys, ids, said, marker=marker, legendgroup=method, showlegend=False))
        traces.append(
            _trace(
                "lines+markers",
                [None if spot is None else spot[0].mean for spot in means],
                [None if spot is None else spot[1].mean for spot in means],
                [None if row is None else names[id(row)] for row in stops],
                ["" if row is None else _said(row, f"n = {row.count}", x, *_both(row, x, y)) for row in stops],
                name=escape(method, quote=False),
                legendgroup=method,
                marker={"color": color, "symbol": symbol, "size": 11, "line": {"color": "@surface", "width": 1}},
                line={"color": _pale(color, 0.6), "width": 1.5},
                error_x=_bars([None if spot is None else spot[0].half for spot in means], color),
                error_y=_bars([None if spot is None else spot[1].half for spot in means], color),
            )
        )
    shapes = []
    for role, symbol, size in (("original", "square-open", 15), ("reference", "star", 17)):
        row = scenario.row(role)
        if row is None or id(row) not in spots:
            continue
        a, b = spots[id(row)]
        traces.append(
            _trace(
                "markers", [a.mean], [b.mean], [names[id(row)]], [_said(row, f"n = {row.count}", x, *_both(row, x, y))],
                name=row.label, marker={"color": "@ink", "symbol": symbol, "size": size, "line": {"width": 2}},
            )
        )  # fmt: skip
        if role == "reference":
            shapes = _cross(a.mean, b.mean)
    if not rows:
        return None
    everything = [spots[id(row)] for row in scenario.rows if id(row) in spots]
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


def _both(row: Row, x: str, y: str) -> tuple[Any, str, Any]:
    return row.figure(x), y, row.figure(y)


def _trace(mode: str, x: list[Any], y: list[Any], ids: list[Any], said: list[str], **look: Any) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": mode, "x": x, "y": y, "customdata": ids, "hovertext": said, "hoverinfo": "text",
        **look,
    }  # fmt: skip


def _said(row: Row, which: str, x: str, a: Any, y: str, b: Any) -> str:
    """The text at a point."""
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
        "color": _pale(color, 0.4),
        "visible": any(halves),
    }


def _pale(color: str, share: float) -> str:
    return f"rgba({int(color[1:3], 16)},{int(color[3:5], 16)},{int(color[5:7], 16)},{share})"


def _cross(x: float, y: float) -> list[dict[str, Any]]:
    """Dashed lines through the reference: the horizontal one first."""
    line = {"color": "@faint", "width": 1, "dash": "dash"}
    return [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"},
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line, "layer": "below"},
    ]


def _axis(title: str, values: list[float], *, log: bool = False) -> dict[str, Any]:
    """Around the values; a hair's breadth must not look like a gulf."""
    axis: dict[str, Any] = {"title": {"text": title}}
    if log:
        return {**axis, "type": "log", "autorange": True}
    low, high = min(values), max(values)
    spread = max(high - low, NARROWEST)
    middle = (low + high) / 2
    return {**axis, "range": [middle - 0.57 * spread, middle + 0.57 * spread]}


def _curves(rows: list[Row]) -> list[list[Row]]:
    """Rows that lie on one tradeoff curve in the order of its knob; every other row by itself."""
    curves: dict[tuple[str, str], list[Row]] = defaultdict(list)
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


def _front(rows: Sequence[Row], x: str, y: str) -> list[Row]:
    """Rows that no other is nearer to the reference than on both axes."""
    known = [(row, (a.mean, b.mean)) for row in rows if (a := row.gap(x)) and (b := row.gap(y))]
    return [known[place][0] for place in pareto_front([spot for _, spot in known])]


def heat(scenario: Scenario, *, change: bool = False) -> Figure | None:
    """The score of each class on held-out data: before, the reference, and after each method.

    Args:
        scenario: the rows.
        change: show differences to the reference instead.
    """
    table = {id(row): means for row in scenario.rows if (means := _class_means(row))}
    reference = scenario.row("reference")
    theirs = table.get(id(reference), {})
    rows = [row for row in scenario.rows if id(row) in table and not (change and row is reference)]
    if not any(row.role == "method" for row in rows) or (change and not theirs):
        return None
    labels = sorted({label for means in table.values() for label in means})
    names, ids = scenario.class_names, {id(row): name for name, row, place in identifiers(scenario) if place is None}
    titles = [_class_title(label, names, label in scenario.forgotten) for label in labels]
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


def _class_means(row: Row) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for run in row.ok:
        for label, score in run.per_class.items():
            if score is not None:
                found[label].append(score)
    return {label: sum(scores) / len(scores) for label, scores in found.items()}


def _change(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def _class_title(label: int, names: Sequence[str], forgotten: bool) -> str:
    name = names[label] if label < len(names) else ""
    title = str(label) if name in ("", str(label)) else f"{label} {escape(name, quote=False)}"
    return f"{title} ✕" if forgotten else title


PANELS = {"forget": "forget", "retain": "retain", "held_out": "held-out"}


def learning(scenario: Scenario) -> Figure | None:
    """How forget, retain and held-out scores move during the revision: means over runs, the reference dashed."""
    curves = {id(row): found for row in scenario.rows if row.role == "method" and (found := _progress(row))}
    rows = [row for row in scenario.rows if id(row) in curves]
    if not rows:
        return None
    ids = {id(row): name for name, row, place in identifiers(scenario) if place is None}
    look = looks(sorted({row.method for row in rows}))
    order = sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))
    traces, shapes = [], []
    axis_x = {"title": {"text": "share of the revision done"}, "tickformat": ".0%", "anchor": f"y{len(PANELS)}"}
    layout: Figure = {"height": 760, "xaxis": axis_x}
    reference = scenario.row("reference")
    for panel, (part, title) in enumerate(PANELS.items()):
        axis = "y" if panel == 0 else f"y{panel + 1}"
        top = 1 - panel * 0.35
        layout[f"yaxis{axis[1:]}"] = {
            "domain": [max(0, top - 0.3), top], "title": {"text": f"{title} {scenario.score}"}, "anchor": "x",
        }  # fmt: skip
        ideal = None if reference is None else reference.figure("retain_test" if part == "held_out" else part)
        if ideal is not None:
            # A hair's breadth must not look like a gulf.
            around = [ideal.mean - NARROWEST / 2, ideal.mean + NARROWEST / 2]
            layout[f"yaxis{axis[1:]}"]["autorangeoptions"] = {"include": around}
            line = {"color": "@faint", "width": 1, "dash": "dash"}
            place = {"xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": ideal.mean, "y1": ideal.mean}
            shapes.append({"type": "line", "layer": "below", "line": line, **place})
        for number, row in enumerate(order):
            points = [(x, scores[part]) for x, scores in curves[id(row)] if scores[part] is not None]
            label = escape(row.label, quote=False)
            color = look[row.method][0]
            traces.append(
                _trace(
                    "lines", [round(x, 4) for x, _ in points], [y for _, y in points], [ids[id(row)]] * len(points),
                    [f"<b>{label}</b><br>{title} {y:.3f} at {x:.0%}" for x, y in points],
                    name=label, legendgroup=ids[id(row)], showlegend=panel == 0, yaxis=axis,
                    visible=True if number < CURVES else "legendonly",
                    line={"color": color, "width": 2, "dash": _dash(row, order)},
                )
            )  # fmt: skip
    return {"data": traces, "layout": {**layout, "shapes": shapes}}


def _dash(row: Row, rows: list[Row]) -> str:
    """Rows of one method share its colour and differ by their dashes; so do methods of one colour."""
    color = looks([row.method])[row.method][0]
    same = [other for other in rows if looks([other.method])[other.method][0] == color]
    return ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")[same.index(row) % 6]


def _progress(row: Row) -> list[tuple[float, dict[str, float | None]]]:
    """``(share done, scores)``: the mean over the runs that were looked at there, at every point that all share."""
    found: dict[float, list[dict[str, float | None]]] = defaultdict(list)
    runs = [run for run in row.ok if run.record.get("learning_curve")]
    for run in runs:
        points = run.record["learning_curve"]
        requests = 1 + max(point.get("request", 0) for point in points)
        last = {place: max(p["step"] for p in points if p.get("request", 0) == place) for place in range(requests)}
        seen = {}
        for point in points:
            place = point.get("request", 0)
            share = (place + (point["step"] / last[place] if last[place] else 0.0)) / requests
            seen[round(share, 6)] = {part: point[part] for part in PANELS}
        for share, scores in seen.items():
            found[share].append(scores)
    every = [(share, scores) for share, scores in sorted(found.items()) if len(scores) == len(runs)]
    return [(share, {part: mean(one[part] for one in scores) for part in PANELS}) for share, scores in every]
