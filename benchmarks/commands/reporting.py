"""How a command ends when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"shown": "green", "not shown": "bold red", "not tested": "dim"}
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Print an error of the toolkit as one red line and leave with 2 (a user's mistake) or 1 (a divergence)."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        from unlearn_kit import DivergenceError

        ours = not isinstance(error, RuntimeError) or isinstance(error, DivergenceError)
        if debug or not ours:
            raise
        Console(stderr=True).print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
        raise typer.Exit(1 if isinstance(error, DivergenceError) else 2) from None


def say(console: Console, *lines: str) -> None:
    """Print lines as they are, whatever is in them."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def warn(console: Console, *lines: str) -> None:
    """Print lines that ask to be looked at."""
    for line in lines:
        console.print(Text(f"look at this: {line}", style="yellow"), soft_wrap=True)


def show_verdicts(console: Console, values: Mapping[str, Any]) -> None:
    """Print the verdicts of a receipt, and what it finds."""
    table = Table("verdict", "claim")
    for one in values["verdicts"]:
        table.add_row(Text(one["value"], style=STYLES[one["value"]]), Text(one["claim"]))
    console.print(table)
    for finding in values["findings"]:
        console.print(Text(f"finding: {finding}", style="yellow"), soft_wrap=True)
