"""The tradeoff curves of a folder of results, as data and figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..analysis.tradeoff import curves_of
from ..analysis.tradeoff_files import save_tradeoff
from .tasks import ReportTask


def write_curves(found: Sequence[ReportTask], folder: str | Path) -> list[Path]:
    """Write what ``analysis.tradeoff_files.save_tradeoff`` does for each task, named after it, and return the paths.

    A task in which no method is finished is left out.
    """
    written: list[Path] = []
    names: set[str] = set()
    for task in found:
        flat = [one for row in task.rows for run in row.runs for one in run.flat]
        curves = [curve for part in curves_of(flat).values() for curve in part]
        if any(run.scores is not None for curve in curves for run in curve.runs):
            name = slug(task.title)
            name += f"-{task.name}" if name in names else ""  # titles may differ in signs that files' names leave out
            names.add(name)
            written += save_tradeoff(curves, folder, name, title=task.title)
    return written


def slug(text: str) -> str:
    """Return a title as the beginning of a file's name: letters, digits and dots, with dashes between."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:150].strip("-.")
