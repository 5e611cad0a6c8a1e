"""How far a revision is, and how long it will take: told in a terminal, and by a rehearsal before it begins."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unlearn_kit.engine import Callback, Run
from unlearn_kit.errors import DivergenceError

from ..suites.progress import in_words

REHEARSED = 3  # steps: the first also makes the targets that are searched for once


@dataclass(frozen=True)
class TimeEstimate:
    """What the first steps of a training took.

    Attributes:
        first: Seconds of the first step, with all that is made before it.
        step: Seconds of each later step.
        steps: Steps in all.
    """

    first: float
    step: float
    steps: int

    @property
    def seconds(self) -> float:
        """Return the seconds that the training takes; less where it stops early."""
        return self.first + self.step * (self.steps - 1)

    def __str__(self) -> str:
        return f"training takes up to {in_words(self.seconds)}: {self.steps:,} steps of {self.step:.2g} s"


class RevisionProgress(Callback):
    """A bar in a terminal, with the time that is left; elsewhere nothing. It is the same callback in both.

    Args:
        text: What stands beside the bar.
        estimated: Called once with the estimate, after the first steps.
        rehearse: Whether to end the run there, by raising :class:`Rehearsed`.
    """

    shows = True

    def __init__(self, text: str, estimated: Callable[[TimeEstimate], object], *, rehearse: bool = False) -> None:
        self.text, self.estimated, self.rehearse = text, estimated, rehearse
        self._clock: list[float] = []
        self._told = False
        self._bar: Any = None
        self._task: Any = None

    def on_start(self, run: Run) -> None:
        """Begin to measure, and show the bar."""
        self._clock = [time.monotonic()]
        if sys.stderr.isatty() and not self.rehearse:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.text, total=run.planned, completed=run.done)

    def on_step(self, run: Run) -> None:
        """Move the bar on; after the first steps tell the estimate."""
        if self._bar is not None:
            self._bar.update(self._task, completed=run.done)
        if self._told:
            return
        self._clock.append(time.monotonic())
        if len(self._clock) > REHEARSED or run.done == run.planned:
            self._told = True
            start, first, *later = self._clock
            step = (later[-1] - first) / len(later) if later else first - start
            # Of a run that goes on where it was, what is left.
            self.estimated(TimeEstimate(first - start, step, run.planned - run.done + len(later) + 1))
            if self.rehearse:
                raise Rehearsed

    def on_end(self, run: Run) -> None:  # noqa: ARG002
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


class Rehearsed(Exception):  # noqa: N818 - it ends a rehearsal that went well
    """Ends a training of which a few steps were to be timed."""


def rehearse(method: Callable[..., Any], *arguments: Any, **options: Any) -> TimeEstimate | None:
    """Return what the first steps of a method's first training take; None where it trains nothing, or breaks down."""
    found: list[TimeEstimate] = []
    with suppress(Rehearsed, DivergenceError):
        method(*arguments, callbacks=[RevisionProgress("", found.append, rehearse=True)], **options)
    return found[0] if found else None
