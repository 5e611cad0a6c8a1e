"""Counts of long work on standard error: bars on a terminal, elsewhere one line when something new begins."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID


class Tally:
    """A context in which :meth:`update` shows how far each piece of work is."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Tally:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def update(self, what: str, done: int, of: int) -> None:
        """Show that ``done`` of ``of`` pieces of ``what`` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=of)
            if self._bars.disable:
                sys.stderr.write(f"{what} ...\n")
                sys.stderr.flush()
        self._bars.update(self._tasks[what], completed=done)
