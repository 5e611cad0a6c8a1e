"""Files that are written whole or not at all: a reader, or a crash, finds the old one or the new one."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; what is written there becomes ``path`` when the block ends well.

    A reader, or a crash, finds the old file or the new one, never half of one. It may be read by those who may read any
    new file here, whoever writes it (safetensors alone would let its owner read it, and nobody who serves it).

    Raises:
        ValueError: When the path names no file.
        FileNotFoundError: When the folder is missing.
    """
    target = Path(path)
    if not target.name:
        raise ValueError(f"expected path to name a file, but got {str(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"expected path to be in an existing folder, but got {str(path)!r}")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(name: str, path: str | Path) -> Path:
    """Make a folder and those above it, where they are not there yet, and return its path.

    Raises:
        ValueError: When a file is in the way, by the name of the argument.
        OSError: When it cannot be made, likewise.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"expected {name} to be a folder, but got {str(path)!r}, where a file is") from error
    except OSError as error:
        raise OSError(f"expected {name} to be a folder that can be made, but got {str(path)!r}: {error}") from error
    return folder


def write_json(value: Any, path: Path) -> Path:
    """Write ``value`` to ``path``: a reader, or a crash, finds the old file or the new one, never half of one.

    None is written as null and stands for "n/a"; so is a number that is not finite.

    Returns:
        The path.

    Raises:
        TypeError: On what JSON cannot hold.
    """
    return write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> Path:
    """Write ``text`` to ``path``, whole or not at all; return the path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def plain(value: Any) -> Any:
    """Return ``value`` with None in place of every NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
