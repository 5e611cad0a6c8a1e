"""What a run leaves on disk, beside models and pictures: one JSON file, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import uuid
from pathlib import Path
from typing import Any

PACKAGES = ("unlearn-kit", "torch", "numpy", "scikit-learn", "peft", "segmentation-models-pytorch")


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def plain(value: Any) -> Any:
    """Return ``value`` with None in place of every NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Return the versions a figure may depend on; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
