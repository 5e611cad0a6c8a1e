"""Trainings that save themselves on the way, whoever calls them: a method that was killed goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ..arguments import checked
from ..errors import check_number, check_path_exists
from ..hashing import hash_config
from .callbacks import Callback
from .fingerprint import Mark


class Saving:
    """Where trainings save themselves, and how often; a clock that is asked after each step.

    Args:
        folder: Where.
        seconds: Between saves, at least.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self._last = time.monotonic()

    def file(self, mark: Mark, callbacks: Sequence[Callback]) -> Path:
        """Return the file of one run: named after all that tells it from others, it is found by no other."""
        kinds = [type(callback).__name__ for callback in callbacks]
        return self.folder / f"{hash_config([dict(mark), kinds])[:32]}.safetensors"

    def due(self) -> bool:
        """Return whether it is time to save, and begin to wait anew then."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


_SAVING: ContextVar[Saving | None] = ContextVar("saving", default=None)


@checked
@contextmanager
def resumable(folder: str | Path, *, seconds: float = 60.0) -> Iterator[None]:
    """Let every training in the block save itself in ``folder``, and go on from what an earlier one saved there.

    The bits are those of a training that was never interrupted. A run that was through is not trained again. One whose
    program holds a function that cannot be told apart from others, or whose optimiser cannot be saved, starts anew.

    Args:
        folder: An existing folder; what it holds may be deleted when the work is done.
        seconds: The least time between two saves.

    Raises:
        FileNotFoundError: When there is no such folder.
        ValueError: When ``seconds`` is negative.
    """
    place = check_path_exists("folder", folder)
    token = _SAVING.set(Saving(place, check_number("seconds", seconds, low=0)))
    try:
        yield
    finally:
        _SAVING.reset(token)


def saving() -> Saving | None:
    """Return where trainings save themselves here; None outside :func:`resumable`."""
    return _SAVING.get()
