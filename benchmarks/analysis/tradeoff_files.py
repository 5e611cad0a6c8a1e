"""Tradeoff curves as files: CSV and Parquet, and figures as PNG, SVG and PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .fronts import Spot
from .tradeoff import PAIRS, Scores, TradeoffCurve, ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
READABLE = 12  # methods without a curve that a figure shows: more than these cannot be told apart


def save_tradeoff(
    curves: Sequence[TradeoffCurve],
    folder: str | Path,
    name: str = "tradeoff",
    *,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    title: str = "",
) -> list[Path]:
    """Write the runs and rankings as CSV and Parquet (where pyarrow is installed), figures as PNG, SVG and PDF.

    A pair of axes that no run has scores on is left out.

    Args:
        curves: The curves of one task.
        folder: Where the files ``NAME-runs.*`` and ``NAME-X-Y.*`` go.
        name: How their names begin.
        pairs: The axes of each ranking and figure.
        title: What stands above the figures.

    Returns:
        The paths of the files.
    """
    import importlib.util

    import pandas as pd

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    tables = {"runs": pd.concat([curve.frame() for curve in curves], ignore_index=True)}
    written = []
    for x, y in pairs:
        ranked = ranking(curves, x, y)
        if len(ranked):
            tables[f"{x}-{y}"] = ranked
            figure = figure_of(curves, x, y, title=title)
            for form in FORMATS:
                written.append(target / f"{name}-{x}-{y}.{form}")
                figure.savefig(written[-1], dpi=200)
    for part, table in tables.items():
        written.append(target / f"{name}-{part}.csv")
        table.to_csv(written[-1], index=False)
        if importlib.util.find_spec("pyarrow") is not None:
            written.append(target / f"{name}-{part}.parquet")
            # A column of Parquet has one type; the values of different knobs need not.
            texts = pd.Series([None if value is None else str(value) for value in table["value"]], dtype="str")
            table.assign(value=texts).to_parquet(written[-1])
    return written


def figure_of(
    curves: Sequence[TradeoffCurve],
    x: str = "forget",
    y: str = "retain",
    *,
    title: str = "",
    most: int = READABLE,
) -> Figure:
    """Draw means over seeds of two scores, with their intervals as crosses, beside original and reference.

    Args:
        curves: The curves of one task: every one is drawn.
        x: The score on the horizontal axis.
        y: The score on the vertical axis.
        title: What stands above the figure.
        most: How many of the methods that are a single point are drawn: those nearest to the reference. The title says
            how many are left out.

    Returns:
        The figure.
    """
    from unlearn_kit.plots import tradeoff_figure

    drawn = [(curve, curve.points(x, y)) for curve in curves]
    single = [place for place, (_, points) in enumerate(drawn) if len(points) == 1]
    far = sorted(single, key=lambda place: drawn[place][1][0].distance.mean)[most:]
    shown = [pair for place, pair in enumerate(drawn) if place not in far]
    if far:
        title = f"{title}\n{len(single) - len(far)} nearest of {len(single)} methods".strip()
    spots: dict[str, Spot] = {}
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for curve, points in shown:
        if len(points) == 1:
            spots[curve.name] = (points[0].x.mean, points[0].y.mean)
        elif points:
            lines[f"{curve.name} over {curve.knob}"] = [(p.x.mean, p.y.mean, _label(p.value)) for p in points]
    runs = [run for curve, _ in shown for run in curve.runs]
    figure = tradeoff_figure(
        spots,
        lines,
        _centre({run.training_seed: run.reference for run in runs if run.reference is not None}, x, y),
        _centre({run.training_seed: run.original for run in runs}, x, y),
        xlabel=x.replace("_", " "),
        ylabel=y.replace("_", " "),
        title=title,
    )
    (axes, *_) = figure.axes
    limits = axes.get_xlim(), axes.get_ylim()
    for _, points in shown:
        for p in points:
            axes.errorbar(
                p.x.mean, p.y.mean, xerr=p.x.half, yerr=p.y.half, color="#8A8A8A", linewidth=0.8, capsize=0, zorder=1.5
            )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    return figure


def _centre(trainings: Mapping[int, Scores], x: str, y: str) -> Spot | None:
    known = [(s[x], s[y]) for s in trainings.values() if s[x] is not None and s[y] is not None]
    return (sum(a for a, _ in known) / len(known), sum(b for _, b in known) / len(known)) if known else None


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
