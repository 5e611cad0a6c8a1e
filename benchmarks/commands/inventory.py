"""``unlearn-kit list``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from .reporting import Debug, reported


def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, debug: Debug = False
) -> None:
    """Show the algorithms, data sets and models."""
    with reported(debug):
        from ..analysis.tables import inventory, inventory_tables, wide

        found = inventory()
    if as_json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    console = wide(Console())
    for table in inventory_tables(found):
        console.print(table)
