"""The command ``unlearn-kit list``: what the toolkit has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .reporting import Debug, reported

if TYPE_CHECKING:
    from rich.table import Table


def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the algorithms as in the README.")] = False,
    debug: Debug = False,
) -> None:
    """Show the algorithms, with the kinds of task and the data that each works on, the data sets and models."""
    with reported(debug):
        from ..analysis.tables import wide
        from ..setup.inventory import algorithms_as_markdown, inventory

        found = inventory()
    if as_json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    elif as_markdown:
        sys.stdout.write(algorithms_as_markdown())
    else:
        console = wide(Console())
        for table in _tables(found):
            console.print(table)


def _tables(found: dict[str, dict[str, dict[str, Any]]]) -> Iterator[Table]:
    """Yield a table of each kind."""
    from rich.markup import escape

    from ..analysis.tables import titled
    from ..setup.inventory import HEADINGS, algorithm_cells

    for kind, members in found.items():
        table = titled(kind)
        for heading in HEADINGS if kind == "algorithms" else HEADINGS[:2]:
            table.add_column(heading, style="bold" if heading == "name" else None, no_wrap=heading == "name")
        for name, entry in members.items():
            cells = algorithm_cells(name, entry) if kind == "algorithms" else (name, entry["about"])
            table.add_row(*(escape(cell.replace("``", "")) for cell in cells))
        yield table
