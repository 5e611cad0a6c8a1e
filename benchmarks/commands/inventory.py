"""``unlearn-kit list``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .reporting import Debug, reported

if TYPE_CHECKING:
    from rich.table import Table


def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, debug: Debug = False
) -> None:
    """Show the algorithms, data sets and models."""
    with reported(debug):
        from ..analysis.tables import wide
        from ..setup.inventory import inventory

        found = inventory()
    if as_json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    console = wide(Console())
    for table in _tables(found):
        console.print(table)


def _tables(found: dict[str, dict[str, str]]) -> Iterator[Table]:
    """Yield one table a kind."""
    from ..analysis.tables import titled

    for kind, members in found.items():
        table = titled(kind)
        table.add_column("name", style="bold", no_wrap=True)
        table.add_column("what it is")
        for name, line in members.items():
            table.add_row(name, line)
        yield table
