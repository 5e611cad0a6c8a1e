"""How far a run is, and when it will be done."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .plan import Node


class Estimate:
    """An estimate of the time that is left, from what nodes of the same kind took: here, or in an earlier run."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def learn(self, node: Node, seconds: float) -> None:
        """Take in that one more node took ``seconds``."""
        # What is alike in fewer respects is the better guess than none: the method on any data, then the kind.
        for group in _wider(node):
            self._seen[group].append(seconds)

    def of(self, node: Node) -> float | None:
        """Return the seconds a node will take; None where nothing like it has been seen."""
        for group in _wider(node):
            known = self._seen.get(group)
            if known:
                return sum(known) / len(known)
        return None

    def left(self, nodes: Iterable[Node], workers: int) -> float | None:
        """Return the seconds until all nodes are done by that many workers; None while nobody can tell."""
        guesses = [self.of(node) for node in nodes]
        known = [guess for guess in guesses if guess is not None]
        if len(known) < len(guesses):
            return None
        return sum(known) / workers


def _wider(node: Node) -> list[tuple[str, ...]]:
    kind, data, model, method = node.group
    return (
        [(kind, data, model, method), (kind, data, model), (kind, method), (kind,)]
        if method
        else [
            (kind, data, model),
            ("training", data, model),
        ]
    )


class Progress:
    """A bar on a terminal, elsewhere a line for each node; on standard error."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("runs", total=total, completed=done, left="")

    def tell(self, text: str, left: float | None, *, count: int = 1) -> None:
        """Say that ``count`` more nodes are through; ``text`` tells what became of the last one."""
        self.done += count
        remaining = "" if left is None else f"about {in_words(left)} left"
        if self._bar is not None:
            if not text.startswith("ok"):
                self._bar.console.print(text, markup=False, highlight=False)
            self._bar.update(self._task, completed=self.done, left=remaining)
        else:
            sys.stderr.write(f"[{self.done}/{self.total}] {text}{remaining and ', ' + remaining}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def in_words(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
