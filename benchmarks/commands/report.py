"""The command ``unlearn-kit report``: what a folder of results says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .reporting import Debug, reported


def report(
    dir: Annotated[Path, typer.Argument(help="A folder that `unlearn-kit run` wrote.")],  # noqa: A002
    format: Annotated[  # noqa: A002
        str,
        typer.Option(help="html, or the tables alone: latex, csv, markdown; curves: their data and figures, a folder."),
    ] = "html",
    suite: Annotated[str | None, typer.Option(help="Only the runs of this suite.", show_default="all")] = None,
    out: Annotated[Path | None, typer.Option(help="File (of curves: folder) to write.", show_default="in DIR")] = None,
    debug: Debug = False,
) -> None:
    """Show what a folder of results says: one page that opens offline, or tables for a paper."""
    with reported(debug):
        from ..report import write_report

        path = write_report(dir, format=format, suite=suite, out=out)
    Console().print(Text(f"written to {path}"), soft_wrap=True)
