"""How tables for people look, and what stands in them where there is no figure."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

MISSING = "n/a"
LABELS = {"original": "original (do nothing)", "reference": "reference (retrained)"}


def wide(console: Console) -> Console:
    """Return the same console, wide enough for a table when its output goes to a file or a pipe."""
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def titled(title: str, caption: str | None = None) -> Table:
    """Return an empty table under ``title``, over ``caption``."""
    return Table(
        title=title, caption=caption, box=SIMPLE_HEAD, title_justify="left", caption_justify="left",
        title_style="bold", pad_edge=False,
    )  # fmt: skip
