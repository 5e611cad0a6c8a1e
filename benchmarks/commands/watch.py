"""The command ``unlearn-kit watch``: how far a suite is, while it runs."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .reporting import Debug, reported


def watch(
    dir: Annotated[Path, typer.Argument(help="A folder that `unlearn-kit run` writes.")],  # noqa: A002
    suite: Annotated[str | None, typer.Option(help="Only this suite.", show_default="all")] = None,
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once and leave.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Also write the report after each run.")] = False,
    debug: Debug = False,
) -> None:
    """Show how far a suite is while it runs: what is at work, learning curves, failures, the time that is left.

    It reads the folder and writes nothing to it, but the report with --html; it ends when all is done, or with Ctrl+C.
    """
    console = Console()
    with reported(debug):
        from ..watching.show import shown
        from ..watching.state import SuiteFolder, SuiteState

        folder, written = SuiteFolder(dir), 0

        def look() -> list[SuiteState]:
            nonlocal written
            states = folder.look(suite)
            results = sum(record.kind == "result" for state in states for record in state.done)
            if html and results > written:
                from ..report import write_report

                write_report(dir, suite=suite)
                written = results
            return states

        states = look()
        if once or not console.is_terminal:
            console.print(shown(states))
            return
        from rich.live import Live

        with suppress(KeyboardInterrupt), Live(shown(states), console=console, auto_refresh=False) as live:
            while not all(state.complete for state in states):
                time.sleep(every)
                states = look()
                live.update(shown(states), refresh=True)
