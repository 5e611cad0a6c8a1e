"""What runs leave on disk, so that any of them can be killed at any moment.

A folder holds::

    results/KEY.json          one file a node: the record, whole or not there at all
    tensors/KEY.safetensors   weights of trained models, difficulties, predicted masks; always written before the record
    failures/KEY.json         what became of the last try of a node that failed, with its traceback
    samples/DIGEST.json       SHA-256 of every forgotten sample; its name is ``hashes.forget`` of the records
    receipts/KEY.json, .md    for auditors, one pair a revision
    suites/NAME.json          a suite as it was last run, whole or in part, and the keys of all its nodes
    claims/KEY.lock           held (flock) by the runner that is working on a node; the system frees it when that dies

What a record holds is said by :class:`.records.Record`. Torch is imported where tensors are read or written: a report
needs none.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_kit.errors import CheckpointError
from unlearn_kit.files import write_json

from .records import FORMAT, Record

if TYPE_CHECKING:
    from torch import Tensor

FOLDERS = ("results", "tensors", "failures", "samples", "receipts", "suites", "claims")
STALE = 600  # seconds after which a temporary file is nobody's any more

logger = logging.getLogger("unlearn_kit")


class Store:
    """The folder ``root``; made when it is missing.

    Raises:
        OSError: When it cannot be written to, saying what is wrong.
    """

    def __init__(self, root: str | Path, *, create: bool = True) -> None:
        self.root = Path(root)
        if not create:
            return
        try:
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            # Of a name that no other runner has, and that is swept where this one is killed before it is removed.
            write_json({}, self.root / "claims" / f".{uuid.uuid4().hex}.tmp").unlink()
        except OSError as error:
            raise OSError(
                f"expected out to be a folder that can be written to, but got {str(self.root)!r}: {error}"
            ) from error
        self._sweep()

    def path(self, folder: str, name: str, suffix: str = ".json") -> Path:
        """Return where a file is, there or not."""
        return self.root / folder / f"{name}{suffix}"

    def has(self, key: str) -> bool:
        """Return whether a node is finished."""
        return self.read(key) is not None

    def read(self, key: str) -> Record | None:
        """Return a node's record; None where it is not finished, or cannot be read."""
        try:
            return self._load(key)
        except (OSError, ValueError):
            return None

    def _load(self, key: str) -> Record:
        path, tensors = self.path("results", key), self.path("tensors", key, ".safetensors")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, but got: {error}") from error
        record = Record.from_dict(values, str(path))
        if record.key != key:
            raise ValueError(f"{path}: key: expected {key!r}, but got {record.key!r}")
        if record.tensors and not tensors.is_file():
            raise ValueError(f"{path}: tensors: expected them in {tensors}, but there is no such file")
        return record

    def tensors(self, key: str) -> dict[str, Tensor]:
        """Return a node's tensors.

        Raises:
            CheckpointError: When the file is damaged.
            FileNotFoundError: When it is gone.
        """
        from unlearn_kit.checkpoints import load_tensors_file

        try:
            return load_tensors_file(self.path("tensors", key, ".safetensors"))[0]
        except CheckpointError as error:
            raise CheckpointError(f"{error}; remove that file and run the suite again, which makes it anew") from error

    def records(self) -> Iterator[Record]:
        """Yield every finished node's record, in the order of the keys; say which files are skipped, and why."""
        for path in sorted((self.root / "results").glob("*.json")):
            try:
                record = self._load(path.stem)
            except FileNotFoundError:  # removed meanwhile by a runner that was started with ``fresh``
                continue
            except (OSError, ValueError) as error:
                logger.warning("skipped a record that cannot be read: %s", error)
                continue
            yield record

    def write(self, record: Record, tensors: Mapping[str, Tensor]) -> None:
        """Finish a node: tensors first, so that a record never promises what is not there.

        Args:
            record: What is known of it; whether it has tensors is said here.
            tensors: By name; none is written where there are none.

        Raises:
            OSError: When the disk is full or the folder cannot be written to; what was finished stays.
        """
        key = record.key
        try:
            if tensors:
                from unlearn_kit.checkpoints import save_tensors

                save_tensors(tensors, self.path("tensors", key, ".safetensors"))
            write_json(replace(record, tensors=bool(tensors)).as_dict(), self.path("results", key))
            self.path("failures", key).unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise self.unwritable(error) from error

    def write_failure(self, key: str, failure: Mapping[str, Any]) -> None:
        """Note why a node failed; it stays unfinished, and is tried again by the next run."""
        try:
            write_json({"format": FORMAT, "key": key, **failure}, self.path("failures", key))
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: Exception) -> OSError:
        """Return the error for people."""
        return OSError(
            f"cannot write to {str(self.root)!r}: {error}; what is finished is kept: once that is mended, "
            "run the same command again and it goes on from there"
        )

    def forget(self, key: str) -> None:
        """Remove a node's record (first) and tensors."""
        self.path("results", key).unlink(missing_ok=True)
        self.path("tensors", key, ".safetensors").unlink(missing_ok=True)

    def claim(self, key: str) -> Claim | None:
        """Return the right to work on a node; None while another runner has it."""
        return Claim.take(self.path("claims", key, ".lock"))

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.root.glob("*/.*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink()


class Claim:
    """A lock on a file that the system frees when its holder dies, however it dies."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Return the claim, or None while another process holds it.

        Raises:
            OSError: When the file cannot be made.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such locks: two runners may do a node twice there, with the same result
            return cls(path, -1)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file between opening and locking: then this locks nothing.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.utime(descriptor)  # since when it is held, also where an earlier holder was killed
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Give it back."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def planned_nodes(suite: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the nodes that a suite's file lists, without what is none."""
    nodes = (suite or {}).get("nodes", [])
    return [one for one in nodes if isinstance(one, dict) and isinstance(one.get("key"), str)]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a JSON file; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
