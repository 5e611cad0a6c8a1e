"""Figures. Each function builds its own ``matplotlib`` Figure: no window, no global state, safe on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
Stop = tuple[float, float, str]

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F5B3A")
MARKERS = ("o", "^", "v", "P", "X", "<", ">", "h", "p")  # "D" is for points that lie on a curve
NARROWEST = 0.06  # an axis shows at least six points: a hair's breadth must not look like a gulf
# An enlarged view, where so many points lie in so small a share of the axes, and its place (left, bottom, width, height
# in axes fractions) is empty.
CROWD, SMALL, INSET, EDGE = 5, 0.03, (0.36, 0.14, 0.6, 0.5), 0.04
INK, FAINT, GRID = "#222222", "#8A8A8A", "#E6E6E6"


def tradeoff_figure(
    points: Mapping[str, Point],
    curves: Mapping[str, Sequence[Stop]],
    reference: Point | None,
    original: Point | None,
    *,
    xlabel: str = "accuracy on the forget data",
    ylabel: str = "accuracy on the retain data",
    title: str = "",
) -> Figure:
    """Return what is forgotten against what is kept: the nearer to the reference (the star), the better.

    Args:
        points: ``(forget, retain)`` of each method, in [0, 1].
        curves: ``(forget, retain, label)`` along a knob of a method, in the knob's order; stops that lie too close to
            a labelled one are drawn without their label.
        reference: of the retrained model; dashed lines run through it.
        original: of the model before anything was forgotten.
        xlabel, ylabel, title: what the axes and the figure show.

    Raises:
        ValueError: When there is nothing to draw, or a coordinate is not finite.
    """
    from matplotlib.figure import Figure

    _check_points(points, curves, reference, original)
    figure = Figure(figsize=(8.2, 4.8), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, points, curves, reference, original)
    _frame(axes)
    axes.set_xlabel(xlabel, color=INK, fontsize=11, labelpad=8)
    axes.set_ylabel(ylabel, color=INK, fontsize=11, labelpad=8)
    axes.set_title(title, color=INK, fontsize=12.5, fontweight="bold", loc="left", pad=12)
    count = len(axes.get_legend_handles_labels()[1])
    legend = figure.legend(
        loc="outside right upper", ncols=1 + count // 19, frameon=False, fontsize=10, labelcolor=INK, labelspacing=0.8
    )
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([75])
    figure.draw_without_rendering()  # where labels collide is known only once the axes have their place
    for place, stops in enumerate(curves.values()):
        _label_stops(axes, stops, PALETTE[place % len(PALETTE)])
    if reference is not None:
        _magnify(axes, points, curves, reference, original)
    return figure


def _draw(
    axes: Axes,
    points: Mapping[str, Point],
    curves: Mapping[str, Sequence[Stop]],
    reference: Point | None,
    original: Point | None,
) -> None:
    if reference is not None:
        for line, value in ((axes.axvline, reference[0]), (axes.axhline, reference[1])):
            line(value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.scatter(*reference, s=420, color=INK, marker="*", linewidth=0, label="retrained reference", zorder=2)
    if original is not None:
        # Hollow and large, since a method that changed nothing lies inside it.
        axes.scatter(
            *original, s=210, color="none", marker="s", edgecolor=INK, linewidth=1.8, label="original", zorder=3
        )
    for place, (name, stops) in enumerate(curves.items()):
        xs, ys = [stop[0] for stop in stops], [stop[1] for stop in stops]
        color = PALETTE[place % len(PALETTE)]
        axes.plot(xs, ys, color=color, linewidth=2, marker="o", markersize=5.5, label=name, zorder=4)
    for name, (color, marker) in looks(list(points), list(curves)).items():
        axes.scatter(
            *points[name], s=85, color=color, marker=marker, edgecolor="white", linewidth=1, label=name, zorder=5
        )


def _magnify(
    axes: Axes,
    points: Mapping[str, Point],
    curves: Mapping[str, Sequence[Stop]],
    reference: Point,
    original: Point | None,
) -> None:
    """Enlarge the points that are crowded around the reference, where the figure has an empty place for it."""
    crowd = np.array([reference, *points.values()])
    if len(crowd) < CROWD:
        return
    room = np.array([axes.get_xlim(), axes.get_ylim()])
    size, span = np.diff(room)[:, 0], np.ptp(crowd, axis=0)
    at, share = np.array(INSET[:2]), np.array(INSET[2:])
    spots = [*crowd, *((x, y) for stops in curves.values() for x, y, _ in stops), *([original] if original else [])]
    places = (np.array(spots) - room[:, 0]) / size
    taken = ((places > at - EDGE) & (places < at + share + EDGE)).all(axis=1).any()
    if taken or np.prod(span / size) > SMALL:
        return
    view = axes.inset_axes(INSET, zorder=6)
    _draw(view, points, curves, reference, None)
    spare = np.maximum(0.12 * span, 0.002)
    view.set_xlim(crowd[:, 0].min() - spare[0], crowd[:, 0].max() + spare[0])
    view.set_ylim(crowd[:, 1].min() - spare[1], crowd[:, 1].max() + spare[1])
    _ticks(view, 4)
    view.tick_params(colors=INK, labelsize=8, length=0, pad=3)
    view.spines[:].set_color(FAINT)
    view.grid(color=GRID, linewidth=0.6)
    view.set_axisbelow(True)
    axes.indicate_inset_zoom(view, edgecolor=FAINT)


def looks(points: Sequence[str], curves: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each point, no two alike; a point has the colour of the curve its name begins."""
    found: dict[str, tuple[str, str]] = {}
    place = len(curves)
    for name in points:
        owner = next((i for i, curve in enumerate(curves) if curve.startswith(name)), None)
        if owner is not None:
            found[name] = (PALETTE[owner % len(PALETTE)], "D")
            continue
        found[name] = (PALETTE[place % len(PALETTE)], MARKERS[(place + 2 * (place // len(PALETTE))) % len(MARKERS)])
        place += 1
    return found


def picture_strip(rows: Sequence[Sequence[Any]], titles: Sequence[str], *, labels: Sequence[str] = ()) -> Figure:
    """Return pictures side by side: a row a sample, a column a title, such as image, mask, before, after, reference.

    Args:
        rows: pictures ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, tensors or arrays. Floating point is a picture in
            [0, 1], bool and int64 a map of classes (0 is black); None leaves the place empty.
        titles: one a column.
        labels: one a row, or none.

    Raises:
        ValueError: On rows of another length than titles, or on anything that is no picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not rows or not titles:
        raise ValueError(f"expected at least one row and one title, but got {len(rows)} and {len(titles)}")
    wrong = [len(row) for row in rows if len(row) != len(titles)]
    if wrong:
        raise ValueError(f"expected {len(titles)} pictures a row, one a title, but got {wrong[0]}")
    if labels and len(labels) != len(rows):
        raise ValueError(f"expected {len(rows)} labels, one a row, but got {len(labels)}")
    figure = Figure(
        figsize=(1.7 * len(titles) + 0.2, 1.7 * len(rows) + 0.35),
        dpi=150,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02),
    )
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            axes = grid[i][j]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_title(titles[j], color=INK, fontsize=11, pad=6)
            if j == 0 and labels:
                axes.set_ylabel(labels[i], color=INK, fontsize=10)
            if picture is not None:
                axes.imshow(_colours(f"rows[{i}][{j}]", picture), interpolation="nearest", aspect="equal")
    return figure


def _check_points(
    points: Mapping[str, Point],
    curves: Mapping[str, Sequence[Stop]],
    reference: Point | None,
    original: Point | None,
) -> None:
    named = [(f"points[{name!r}]", point) for name, point in points.items()]
    named += [(f"curves[{name!r}]", (x, y)) for name, stops in curves.items() for x, y, _ in stops]
    named += [(name, p) for name, p in (("reference", reference), ("original", original)) if p is not None]
    if not named:
        raise ValueError("expected at least one point, but got none")
    for name, point in named:
        if len(point) != 2 or not np.isfinite(np.asarray(point, dtype=float)).all():
            raise ValueError(f"expected {name} to be two finite numbers, but got {point!r}")


def _ticks(axes: Axes, count: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 2):g}%"))


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=10, length=0, pad=6)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.08)
    for (low, high), fix in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        spare = max(0.0, NARROWEST - (high - low)) / 2
        low, high = low - spare, high + spare
        # No room beyond 0 and 1 but what the markers there need.
        edge = 0.07 * (high - low)
        fix(max(low, -edge), min(high, 1 + edge))
    _ticks(axes, 7)


def _label_stops(axes: Axes, stops: Sequence[Stop], color: str) -> None:
    """Write each stop's label beside it, unless one that is already written is in the way."""
    from matplotlib.patheffects import withStroke

    spots = axes.transData.transform([(x, y) for x, y, _ in stops])
    wide, high = np.ptp(spots, axis=0)
    # Beside a steep curve; else below and to the right, where a curve that rises with forgetting less leaves room.
    offset, along = ((10, 0), "center") if high > wide else ((6, -6), "top")
    written: list[Any] = []
    # The ends first: they say which way the knob turns.
    for place in sorted(range(len(stops)), key=lambda place: min(place, len(stops) - 1 - place)):
        x, y, text = stops[place]
        if text and all(abs(spots[place] - spot)[0] > 42 or abs(spots[place] - spot)[1] > 22 for spot in written):
            written.append(spots[place])
            axes.annotate(
                text,
                (x, y),
                xytext=offset,
                textcoords="offset points",
                ha="left",
                va=along,
                color=color,
                fontsize=9,
                zorder=7,
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )


def _colours(name: str, picture: Any) -> np.ndarray:
    """Return ``(H, W, 3)`` in [0, 1]."""
    values = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[0] == 3 and np.issubdtype(values.dtype, np.floating):
        return values.transpose(1, 2, 0).clip(0, 1)
    if values.ndim != 2:
        raise ValueError(f"expected {name} to be (H, W), (1, H, W) or (3, H, W), but got shape {values.shape}")
    if np.issubdtype(values.dtype, np.floating):
        return np.repeat(values.clip(0, 1)[..., None], 3, axis=-1)
    from matplotlib.colors import to_rgb

    table = np.array([(0, 0, 0), (1, 1, 1), *(to_rgb(color) for color in PALETTE[1:])], dtype=float)
    labels = values.astype(np.int64)
    return table[np.where(labels > 0, (labels - 1) % (len(table) - 1) + 1, 0)]
