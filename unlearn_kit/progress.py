"""Progress bars on long calls: in a terminal and in a notebook, and nowhere else.

A call that trains or reads a data set shows how far it is once it has taken a second. It shows nothing where standard
error is a file or a pipe, in worker processes and threads, in all but the first of several processes, and inside
another call that has a bar. ``UNLEARN_KIT_PROGRESS=0`` switches bars off and ``=1`` on, wherever standard error goes;
:func:`progress_bars` does so for a block. A bar draws no random number and reads no tensor: results are the same bits.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from types import TracebackType
from typing import Any, Self

VARIABLE = "UNLEARN_KIT_PROGRESS"
PATIENCE = 1.0  # seconds before a call that nobody asked to show a bar does
EVERY = 0.1  # seconds between drawings

_asked: ContextVar[bool | None] = ContextVar("progress_bars", default=None)
_open: list[Bar] = []  # bars whose calls go on, shown yet or not


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Show bars inside the block, wherever standard error goes, or none at all.

    Raises:
        TypeError: When ``shown`` is no bool.
    """
    if not isinstance(shown, bool):
        raise TypeError(f"expected shown to be a bool, but got {type(shown).__name__}")
    token = _asked.set(shown)
    try:
        yield
    finally:
        _asked.reset(token)


def bars_shown() -> bool:
    """Return whether a call that begins here and now shows a bar if it takes long.

    Raises:
        ValueError: When the environment variable is neither "0" nor "1" nor empty.
    """
    if multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread():
        return False
    if os.environ.get("RANK", "0") != "0" or os.environ.get("LOCAL_RANK", "0") != "0":
        return False
    asked, said = _asked.get(), os.environ.get(VARIABLE, "")
    if asked is not None:
        return asked
    if said not in ("", "0", "1"):
        raise ValueError(f"expected the environment variable {VARIABLE} to be 0 or 1, but got {said!r}")
    return said == "1" if said else in_notebook() or _is_terminal()


def in_notebook() -> bool:
    """Return whether a kernel runs this, whose front end shows HTML."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, as of a program without a console, or closed
        return False


class Bar:
    """A bar over the block of a ``with``; with ``always`` at once, else where bars are shown and the call is long.

    Args:
        description: What stands beside it.
        total: What ``done`` is in the end.
        done: How far it is.
        always: Whether it is shown in any case.
    """

    def __init__(self, description: str, total: int, *, done: int = 0, always: bool = False) -> None:
        self.description, self.total, self.done, self.always = description, total, done, always
        self._shown: _Terminal | _Notebook | None = None
        self._due = float("inf")

    def __enter__(self) -> Self:
        return self.open()

    def open(self) -> Self:
        """Begin, where no ``with`` can."""
        if self.always or (not _open and bars_shown()):
            self._due = time.monotonic() + (0 if self.always else PATIENCE)
            _open.append(self)
            self.update(self.done)
        return self

    def update(self, done: int, description: str | None = None) -> None:
        """Say how far it is; what is shown follows at most ten times a second."""
        self.done = done
        self.description = self.description if description is None else description
        now = time.monotonic()
        if now < self._due:
            return
        if self._shown is None:
            self._shown = _Notebook() if in_notebook() else _Terminal(self.total)
        self._shown.draw(self)
        self._due = now + EVERY

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it away."""
        self._due = float("inf")
        if self in _open:
            _open.remove(self)
        if self._shown is not None:
            self._shown.draw(self)
            self._shown.close()
            self._shown = None


class _Terminal:
    """A rich bar on standard error, without a thread of its own; it is gone in the end."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True, auto_refresh=False)
        self._progress.start()
        self._task = self._progress.add_task("", total=total)

    def draw(self, bar: Bar) -> None:
        self._progress.update(self._task, completed=bar.done, description=bar.description, refresh=True)

    def close(self) -> None:
        self._progress.stop()


class _Notebook:
    """The browser's own bar, in the output of the cell; it is empty in the end."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._handle: Any = display(HTML(""), display_id=True)
        self._began: float | None = None
        self._first = 0

    def draw(self, bar: Bar) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._first = now, bar.done
        more = bar.done - self._first
        left = f", {(now - self._began) / more * (bar.total - bar.done):.0f} s left" if more else ""
        text = f"{escape(bar.description)} {bar.done:,} of {bar.total:,}{left}"
        self._handle.update(self._html(f'<progress max="{bar.total}" value="{bar.done}"></progress> {text}'))

    def close(self) -> None:
        self._handle.update(self._html(""))
