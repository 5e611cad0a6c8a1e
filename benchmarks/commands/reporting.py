"""How a command ends when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

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
