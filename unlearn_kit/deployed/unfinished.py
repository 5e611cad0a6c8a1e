"""The place beside a folder in which it is made: nobody finds half of it, and an interruption loses no training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DivergenceError
from ..files import make_folder, write_text


@dataclass(frozen=True)
class Unfinished:
    """What is being made.

    Attributes:
        runs: Where trainings save themselves.
        result: What becomes the folder.
        resumed: Whether an earlier call of the same request left trainings behind.
    """

    runs: Path
    result: Path
    resumed: bool


def place_of(folder: Path) -> Path:
    """Return where ``folder`` is made."""
    return folder.parent / f".{folder.name}.unfinished"


@contextmanager
def unfinished(folder: Path, request: str) -> Iterator[Unfinished]:
    """Yield the place in which ``folder`` is made by a request; what the block leaves in it becomes the folder.

    What an interrupted call of the same request left there is kept, and that of another one is thrown away, since it
    remembers what was to be forgotten. After an error that would come again, nothing is left.

    Args:
        folder: The folder that is made.
        request: What tells this request from every other.

    Raises:
        ValueError: When another process is making it.
        OSError: When it cannot be written to.
    """
    parents = [parent for parent in folder.parents if not parent.exists()]
    make_folder("the folder of out", folder.parent)
    try:
        with _alone(folder):
            yield from _made(folder, request)
    except BaseException:
        for parent in parents:
            with suppress(OSError):  # it holds what others made meanwhile
                parent.rmdir()
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make a folder; the operating system lets go of it when that dies."""
    from filelock import FileLock, Timeout

    path = folder.parent / f".{folder.name}.lock"
    try:
        lock = FileLock(path.absolute()).acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"expected out to be a folder that nobody else is making, but another process is at {str(folder)!r}: wait "
            "for it, or name another"
        ) from None
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _made(folder: Path, request: str) -> Iterator[Unfinished]:
    place = place_of(folder)
    mark = place / "request"
    with suppress(OSError):
        if mark.read_text(encoding="utf-8") != request:
            shutil.rmtree(place)
    if not mark.exists():
        shutil.rmtree(place, ignore_errors=True)
    found = Unfinished(place / "runs", place / "result", (place / "runs").is_dir() and _holds_files(place / "runs"))
    make_folder("the folder of out", found.runs)
    write_text(request, mark)
    shutil.rmtree(found.result, ignore_errors=True)
    found.result.mkdir()
    try:
        yield found
        found.result.replace(folder)
    except BaseException as error:
        if isinstance(error, (ValueError, TypeError, DivergenceError)) or not _holds_files(found.runs):
            shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)


def _holds_files(folder: Path) -> bool:
    return any(path.suffix == ".safetensors" for path in folder.iterdir())
