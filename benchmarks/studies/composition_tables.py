"""Tables and pictures of the composition study."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_kit.plots import Stop, tradeoff_figure

Record = Mapping[str, Any]
MISSING = "n/a"


def summary(records: Sequence[Record]) -> str:
    """Return both parts as Markdown: means over the seeds, and which seeds a claim held in."""
    dials, twos = [record["dial"] for record in records], [record["two_classes"] for record in records]
    count = f"Means over {len(records)} seed{'s' if len(records) != 1 else ''}."
    parts = [
        "## One run that forgets most, one that retains best",
        f"{count} Gap: mean distance to the reference. Below both: seeds in which the gap is below either parent's.",
        _table(
            ("model", "forget", "retain", "forget test", "retain test", "gap", "below both", "seconds"),
            [_dial_row(name, dials) for name in dials[0]["rows"]],
        ),
        "## What is left inside",
        _table(
            ("model", "probe on forget", "relearned on forget", "relearned on retain"),
            [_audit_row(name, dials) for name in _audited(dials)],
        ),
        "## The dial beside the sweep",
        _table(("seconds", *dials[0]["cost"]), [("mean", *(_mean(dials, _cost(name)) for name in dials[0]["cost"]))]),
        _table(("nats", *dials[0]["barrier"]), [("mean", *(_mean(dials, _hill(k)) for k in dials[0]["barrier"]))]),
        "## Two classes, one run each",
        _table(
            ("model", *(f"class {label} test" for label in twos[0]["labels"]), "retain test", "both forgotten, kept"),
            [_two_row(name, twos) for name in twos[0]["rows"]],
        ),
        "The last column counts seeds with at most 2 % on both classes and retain within 1.5 points of the reference.",
    ]
    return "\n\n".join(parts) + "\n"


def draw(dial: Record, path: Path, title: str) -> None:
    """Draw the path, the sweep, both parents and the three nearest composed models around the reference."""
    rows = dial["rows"]

    def at(row: Record) -> tuple[float, float]:
        return float(row["forget_test"]), float(row["retain_test"])

    curves: dict[str, list[Stop]] = {
        "path": [(*at(point), f"{point['t']:.1f}") for point in dial["path"]],
        "sweep of retain_weight": [(*at(point), f"{point['retain_weight']:g}") for point in dial["sweep"]],
    }
    # The ends, and the nearest of the composed models: all of them would hide one another.
    composed = sorted((name for name in rows if rows[name].get("composed")), key=lambda name: rows[name]["gap"])
    ends = [name for name in rows if not rows[name].get("composed") and name not in ("original", "reference")]
    shown = {name.partition(":")[0]: at(rows[name]) for name in [*ends, *composed[:3]]}
    figure = tradeoff_figure(shown, curves, at(rows["reference"]), at(rows["original"]), title=title)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def below_both(dial: Record, name: str) -> bool:
    """Return whether a composed model is nearer to the reference than both of its parents."""
    rows = dial["rows"]
    parents = [rows[key]["gap"] for key in rows if key.startswith(("forgets most", "retains best"))]
    return bool(rows[name]["gap"] < min(parents))


def forgets_both(two: Record, name: str) -> bool:
    """Return whether both classes are at 2 % test accuracy or less, and retain within 1.5 points of the reference."""
    row, reference = two["rows"][name], two["rows"]["reference"]
    return bool(max(row["classes"]) <= 0.02 and abs(row["retain"] - reference["retain"]) <= 0.015 + 1e-9)


def _dial_row(name: str, dials: Sequence[Record]) -> tuple[str, ...]:
    def value(key: str) -> Callable[[Record], float | None]:
        return lambda dial: dial["rows"][name].get(key)

    keys = ("forget", "retain", "forget_test", "retain_test", "gap")
    composed = dials[0]["rows"][name].get("composed")
    held = f"{sum(below_both(dial, name) for dial in dials)} of {len(dials)}" if composed else ""
    return (name, *(_mean(dials, value(key)) for key in keys), held, _mean(dials, value("seconds"), 1, ""))


def _audited(dials: Sequence[Record]) -> list[str]:
    return [name for name in dials[0]["rows"] if any("audit" in dial["rows"].get(name, {}) for dial in dials)]


def _audit_row(name: str, dials: Sequence[Record]) -> tuple[str, ...]:
    found = [dial["rows"][name]["audit"] for dial in dials if "audit" in dial["rows"][name]]
    told = ("relearn_on_forget", "relearn_on_retain")
    return (name, _mean(found, lambda a: a["probe"]), *("; ".join(a[key] or MISSING for a in found) for key in told))


def _two_row(name: str, twos: Sequence[Record]) -> tuple[str, ...]:
    classes = [_mean(twos, lambda two, i=i: two["rows"][name]["classes"][i]) for i in (0, 1)]  # type: ignore[misc]
    held = f"{sum(forgets_both(two, name) for two in twos)} of {len(twos)}"
    return (name, *classes, _mean(twos, lambda two: two["rows"][name]["retain"]), held)


def _cost(name: str) -> Callable[[Record], float | None]:
    return lambda dial: dial["cost"][name]


def _hill(name: str) -> Callable[[Record], float | None]:
    return lambda dial: dial["barrier"].get(name)


def _mean(
    records: Sequence[Record], value: Callable[[Record], float | None], digits: int = 3, missing: str = MISSING
) -> str:
    values = [found for record in records if (found := value(record)) is not None]
    return f"{statistics.fmean(values):.{digits}f}" if values else missing


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
