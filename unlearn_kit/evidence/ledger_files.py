"""The files that a ledger's line names, each with the SHA-256 it must have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..hashing import hash_file


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder that of its files' names and SHA-256, sorted."""
    if path.is_file():
        return hash_file(path)
    rows = sorted(f"{one.relative_to(path).as_posix()} {hash_file(one)}" for one in path.rglob("*") if one.is_file())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def weights_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the weights that serve after a line and those under their adapters, each with its SHA-256."""
    serves = values.get("serves")
    return [] if serves is None else [(row["checkpoint"], row["sha256"]) for row in (serves, serves["base"])]


def files_of_line(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every file that a line names, with its SHA-256."""
    return [*weights_of(values), *adapters_of(values), *papers_of(values)]


def adapters_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the adapters that act after a line, each with its SHA-256."""
    return [(row["file"], row["sha256"]) for row in values.get("serves", {}).get("adapters", [])]


def papers_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return receipt, samples and scores of a line, each with its SHA-256."""
    return [(row["file"], row["sha256"]) for key in ("receipt", "samples", "scores") if (row := values.get(key))]
