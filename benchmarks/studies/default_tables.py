"""The page of the study of defaults: what was turned and chosen, before and after, and what is left of a class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from .default_ranges import RANGES

FORGOTTEN = 0.1  # of the training images of the class, at most
Rows = list[dict[str, Any]]


def page(record: Mapping[str, Any]) -> str:
    """Return the study as Markdown."""
    rows = record["report"]
    lines = [
        "# Defaults, before and after",
        "",
        f"Tuning: {', '.join(record['tuning'])}. Trials of each method: its default and "
        f"{record['arguments']['trials']} settings.",
        f"Two retrained models are {record['margin']:.4f} apart on these; a default changes where the best setting",
        "beats it by more.",
        "",
        "## What was tried",
        "",
        "Scores: gap to the retrained reference beyond that of a second one, on validation data, mean over the tasks.",
        "Work: CPU time as a share of retraining. A trial ends early where it can no longer change the default; none",
        "is run where the default is nearer to the reference than any setting could beat.",
        "",
        "| method | ranges | default: score | work | trials, ended early | new default | score | work |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tuned in record["tuned"]:
        name, start, best = tuned["method"], tuned["start"], tuned["best"]
        ranges = ", ".join(f"{option} {span}" for option, span in RANGES[name].items())
        tried = f"{tuned['trials']}, {tuned['ended early']}"
        new = (
            ("none", "", "") if best is None else (told(best["options"]), number(best["score"]), f"{best['work']:.2f}")
        )
        cells = (name, ranges, number(start["score"]), f"{start['work']:.2f}", tried, *new)
        lines.append(f"| {' | '.join(cells)} |")
    idle = [name for name in RANGES if name not in record["arguments"]["methods"]]
    if idle:
        lines += ["", f"Not tuned in this run: {', '.join(idle)}."]
    return "\n".join([*lines, "", *before_and_after(rows), "", *left(rows, record["places"]), ""])


def before_and_after(rows: Rows) -> list[str]:
    """Return the gap and what is left of the class, of each method whose default changed, on each place."""
    places, methods = unique(r["place"] for r in rows), unique(r["method"] for r in rows if r["when"] == "before")
    lines = [
        "## On tasks that nothing was chosen on",
        "",
        "Test data, means over seeds: before -> after. In brackets what is recognised of the class's training images.",
        "",
        f"| method | {' | '.join(places)} |",
        "|---|" + "---|" * len(places),
    ]
    for name in ("second reference", "original"):
        lines.append(f"| {name} | {' | '.join(cell(rows, name, place, '') for place in places)} |")
    for name in methods:
        both = [f"{cell(rows, name, place, 'before')} -> {cell(rows, name, place, 'after')}" for place in places]
        lines.append(f"| {name} | {' | '.join(both)} |")
    return lines


def left(rows: Rows, places: Mapping[str, str]) -> list[str]:
    """Return what every method leaves of the tuned class of digits, at the worst seed, beside Fashion."""
    lines = [
        f"## What is left of {places['again']}",
        "",
        "Training images of the class that are recognised, by seed; a method forgets that leaves at most "
        f"{FORGOTTEN:g} on Fashion.",
        "",
        f"| method | {places['fashion']} | {places['again']} | |",
        "|---|---|---|---|",
    ]
    for name in unique(r["method"] for r in rows if r["when"] == "after"):
        fashion, again = (
            [r.get("forget") for r in rows if (r["method"], r["place"], r["when"]) == (name, place, "after")]
            for place in (places["fashion"], places["again"])
        )
        lines.append(f"| {name} | {listed(fashion)} | {listed(again)} | {verdict(fashion, again)} |")
    return lines


def verdict(fashion: list[float | None], again: list[float | None]) -> str:
    """Return whether a method that forgets on Fashion leaves too much on digits."""
    if None in fashion or None in again:
        return "n/a"
    if max(v for v in fashion if v is not None) > FORGOTTEN:
        return "does not forget on Fashion"
    return "forgets both" if max(v for v in again if v is not None) <= FORGOTTEN else "**leaves too much**"


def cell(rows: Rows, method: str, place: str, when: str) -> str:
    """Return the mean gap and, in brackets, the mean forget score."""
    found = [r for r in rows if (r["method"], r["place"], r["when"]) == (method, place, when)]
    if not found or any(r["gap"] is None for r in found):
        return "n/a"
    return f"{fmean(r['gap'] for r in found):.4f} ({fmean(r['forget'] for r in found):.3f})"


def unique(names: Iterable[str]) -> list[str]:
    """Return names once each, in order."""
    return list(dict.fromkeys(names))


def listed(values: list[float | None]) -> str:
    """Return values to three digits, n/a where there is none."""
    return ", ".join("n/a" if value is None else f"{value:.3f}" for value in values)


def number(value: float | None) -> str:
    """Return a score to four digits; n/a where nothing came of a setting."""
    return "n/a" if value is None or math.isinf(value) else f"{value:.4f}"


def told(options: Mapping[str, Any]) -> str:
    """Return options as they are given, or that there are none."""
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "as they are"
