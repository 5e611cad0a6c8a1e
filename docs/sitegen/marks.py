"""Marks of a page that are replaced by what the repository holds: ``<!-- KIND: ARGUMENT -->`` on a line of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from . import rankings
from .markdown import table

MARK = re.compile(r"^<!-- (\w+): (.+?) -->$", flags=re.MULTILINE)


def section(argument: str, root: Path) -> str:
    """Return the text under a heading of a document: ``docs/evidence.md, Words for a lawyer``."""
    document, _, heading = argument.partition(", ")
    text = (root / document).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"expected {document} to have a heading {heading!r}, but it has none")
    return rest.partition("\n## ")[0].strip()


def columns(argument: str, root: Path) -> str:  # noqa: ARG001
    """Return the table of the columns of the report's tables, with what each means."""
    from benchmarks.report.tables import COLUMNS

    return table(("column", "meaning"), [(column.title, column.about) for column in COLUMNS])


KINDS: dict[str, Callable[[str, Path], str]] = {"section": section, "ranking": rankings.ranking, "columns": columns}


def filled(text: str, root: Path) -> str:
    """Return the text of a page with its marks replaced.

    Raises:
        ValueError: On a mark of no known kind.
    """

    def replace(match: re.Match[str]) -> str:
        kind, argument = match.groups()
        if kind not in KINDS:
            raise ValueError(f"expected a mark of {sorted(KINDS)}, but got {kind!r}")
        return KINDS[kind](argument, root)

    return MARK.sub(replace, text)
