"""The requests that one deployed model was revised for, over months, those that were withdrawn, and what serves.

A ledger is a folder. ``ledger.jsonl`` has a line an entry and only grows (see :mod:`.ledger_chain`); each line names
the SHA-256 of the files that it speaks of. One process at a time writes; who is killed blocks nobody.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import check_choice, check_number, check_path_exists
from ..files import write_json
from ..hashing import hash_file
from .ledger_again import contradictions
from .ledger_chain import Chain, Line, append, read_chain
from .ledger_files import adapters_of, files_of_line, hash_path, weights_of
from .ledger_relapse import SampleScores, Standing
from .ledger_samples import RequestSamples

FORMAT = 1
FOLDERS = ("requests", "samples", "scores")  # what lies beside the chain
NAME = re.compile(r"[A-Za-z0-9_][\w-]*", re.ASCII)


@dataclass(frozen=True)
class ActingAdapter:
    """An adapter that acts in the model that serves.

    Attributes:
        request: The request it was trained for.
        file: Where it lies.
        key: Its name in that file.
    """

    request: str
    file: Path
    key: str


@dataclass(frozen=True)
class ServedModel:
    """A model that serves, or served.

    Attributes:
        checkpoint: Its weights: a file, or a folder for Hugging Face.
        model: ``hash_model`` of it.
        base: The weights under its adapters; where there are none, itself.
        base_model: ``hash_model`` of those.
        adapters: What was added to the base, in order.
    """

    checkpoint: Path
    model: str
    base: Path
    base_model: str
    adapters: tuple[ActingAdapter, ...] = ()

    @classmethod
    def plain(cls, checkpoint: Path, model: str) -> ServedModel:
        """Return a model without adapters."""
        return cls(checkpoint, model, checkpoint, model)


@dataclass(frozen=True)
class Ledger:
    """A ledger in ``folder``, which may yet be made."""

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, (str, Path)):
            raise TypeError(f"expected folder to be a path, but got {type(folder).__name__}")
        object.__setattr__(self, "folder", Path(folder))
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"expected folder to be a folder, but {str(folder)!r} is a file")

    @property
    def chain(self) -> Chain:
        """Return what the file holds, broken or not."""
        return read_chain(self.folder)

    def lines(self) -> tuple[Line, ...]:
        """Return every line.

        Raises:
            ValueError: When the chain is broken.
        """
        chain = self.chain
        if chain.faults:
            raise ValueError(f"expected the ledger {str(self.folder)!r} to verify, but {'; '.join(chain.faults)}")
        return chain.lines

    def requests(self) -> dict[str, Line]:
        """Return the line of every request by name, those that were withdrawn included, in order."""
        return {line.values["name"]: line for line in self.lines() if line.values["kind"] == "request"}

    def withdrawn(self) -> dict[str, Line]:
        """Return the line of every withdrawal, by the name of the request."""
        return {line.values["name"]: line for line in self.lines() if line.values["kind"] == "withdrawal"}

    def active(self) -> list[str]:
        """Return the names of the requests in force, in order."""
        withdrawn = self.withdrawn()
        return [name for name in self.requests() if name not in withdrawn]

    def serves(self) -> ServedModel | None:
        """Return the model that serves now; None for an empty ledger."""
        lines = self.lines()
        return self.served_after(lines[-1]) if lines else None

    def served_after(self, line: Line) -> ServedModel:
        """Return the model that served after ``line``."""
        told = line.values["serves"]
        return ServedModel(
            self.path(told["checkpoint"]),
            told["model"],
            self.path(told["base"]["checkpoint"]),
            told["base"]["model"],
            tuple(ActingAdapter(row["request"], self.path(row["file"]), row["key"]) for row in told["adapters"]),
        )

    def words_of(self, served: ServedModel) -> dict[str, Any]:
        """Return what a line says of the model that serves, with the SHA-256 of its files."""
        return {
            **self._weights(served.checkpoint, served.model),
            "base": self._weights(served.base, served.base_model),
            "adapters": [
                {"request": one.request, "file": self.name_of(one.file), "key": one.key, "sha256": hash_file(one.file)}
                for one in served.adapters
            ],
        }

    def check_file(self, path: Path) -> Path:
        """Return ``path`` when it holds what a line names it for: weights, an adapter, samples or scores.

        Raises:
            FileNotFoundError: When it is gone.
            ValueError: When it was changed.
        """
        check_path_exists("what the ledger names", path)
        known = {name: sha for line in self.lines() for name, sha in files_of_line(line.values)}
        if hash_path(path) != known.get(self.name_of(path)):
            raise ValueError(f"expected {str(path)!r} to be as the ledger names it, but its SHA-256 is another")
        return path

    def samples(self, name: str) -> RequestSamples:
        """Return what tells the samples of a request.

        Raises:
            ValueError: On an unknown request, or when the file was changed.
            FileNotFoundError: When the file is gone.
        """
        line = self._request(name)
        return RequestSamples.from_dict(self._json(line.values["samples"]["file"]))

    def scores(self, line: Line) -> dict[str, SampleScores]:
        """Return the scores of single samples after ``line``, by request."""
        values = self._json(line.values["scores"]["file"])
        return {name: SampleScores.from_dict(row) for name, row in values.items()}

    def standings(self) -> dict[str, dict[int, Standing]]:
        """Return how each request stood after each line from its own on, by name and by the line's number."""
        found: dict[str, dict[int, Standing]] = {name: {} for name in self.requests()}
        for line in self.lines():
            for name, row in line.values.get("standings", {}).items():
                found[name][line.number] = Standing.from_dict(row)
        return found

    def path(self, name: str) -> Path:
        """Return where a file is that a line names: relative to the ledger, unless it lies on another drive."""
        return Path(os.path.normpath(self.folder / name))

    def name_of(self, path: str | Path) -> str:
        """Return how a line names a file, so that the ledger may move together with what lies beside it."""
        try:
            return Path(os.path.relpath(path, self.folder)).as_posix()
        except ValueError:  # another drive
            return Path(path).absolute().as_posix()

    @contextmanager
    def changing(self, timeout: float = -1) -> Iterator[None]:
        """Hold the ledger for the block: other processes wait, or are refused after ``timeout`` seconds.

        The operating system lets go of it when the process dies, however it dies. What a killed process left half
        written is removed; what it had finished stays, and is found again.

        Args:
            timeout: How long to wait, in seconds; -1 for as long as it takes.

        Raises:
            TimeoutError: When another process holds it for longer.
            ValueError: When the chain is broken.
        """
        from filelock import FileLock, Timeout

        check_number("timeout", timeout, low=-1)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # One lock a process: a block inside another of the same ledger has it already.
            lock = FileLock(self.folder.absolute() / "lock", is_singleton=True).acquire(timeout=timeout)
        except Timeout:
            raise TimeoutError(
                f"expected the ledger {str(self.folder)!r} to be free within {timeout:g} s, but another process has it"
            ) from None
        with lock:
            self.lines()
            for place in (self.folder, *(self.folder / name for name in FOLDERS)):
                for left in place.glob(".*.tmp"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield

    def write(self, kind: str, values: Mapping[str, Any]) -> Line:
        """Write one more line, in a block of :meth:`changing`.

        Args:
            kind: "opening", "request" or "withdrawal".
            values: What it says.
        """
        check_choice("kind", kind, ("opening", "request", "withdrawal"))
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return append(self.folder, {"format": FORMAT, "kind": kind, "made": made, **values})

    def write_beside(self, values: Any, *place: str) -> dict[str, str]:
        """Write a file of JSON that a line will name, and return how it names it."""
        path = self.folder.joinpath(*place)
        path.parent.mkdir(exist_ok=True)
        write_json(values, path)
        return {"file": self.name_of(path), "sha256": hash_file(path)}

    def check_new(self, name: str) -> str:
        """Return ``name`` when a request may be called so.

        Raises:
            ValueError: When it is taken, or names no adapter and no folder.
            TypeError: When it is no text.
        """
        if not isinstance(name, str):
            raise TypeError(f"expected name to be a str, but got {type(name).__name__}")
        if not NAME.fullmatch(name):
            raise ValueError(f"expected name to be letters, digits, '_' and '-', but got {name!r}")
        if name in self.requests():
            raise ValueError(f"expected name to be new, but {name!r} is line {self.requests()[name].number} already")
        return name

    def verify(self, head: str | None = None) -> tuple[list[str], list[str]]:
        """Hold the chain and every file that it names against their hashes; nothing is changed.

        What lines tell of receipts and scores is worked out again from those.

        Args:
            head: The SHA-256 of the last line, as it was noted elsewhere: who rewrites both the file and the head that
                lies beside it is found by that alone.

        Returns:
            What is wrong, each naming the line or the file; and what an interrupted process left, which is no fault.
        """
        chain = self.chain
        faults, notes = list(chain.faults), list(chain.notes)
        if head is not None and head not in [line.sha256 for line in chain.lines]:
            faults.append(f"no line has the SHA-256 {head}, which was noted as that of a last line")
        last = chain.lines[-1].values if chain.lines else {}
        needed = {name for name, _ in (*weights_of(last), *adapters_of(last))}
        named = set()
        for line in chain.lines:
            weights = weights_of(line.values)
            for name, sha in files_of_line(line.values):
                path, what = self.path(name), f"{name!r} of line {line.number}"
                # Old weights remember what later requests forget: to remove them, or what served first, is no fault.
                free = (name, sha) in weights and name not in needed
                if not path.exists():
                    (notes if free else faults).append(f"{what} is missing")
                elif hash_path(path) != sha:
                    lists = notes if free and line.values["kind"] == "opening" else faults
                    lists.append(f"{what} was changed: it has another SHA-256")
                named.add(name)
        if not faults:  # of files that are not those that a line names nothing follows
            faults += contradictions(self)
        for folder in FOLDERS:
            for path in sorted((self.folder / folder).glob("*")):
                own = self.name_of(path)
                if not any(name == own or name.startswith(f"{own}/") for name in named):
                    notes.append(f"{own!r} is named by no line: what made it was interrupted, or is still at it")
        return list(dict.fromkeys(faults)), list(dict.fromkeys(notes))

    def _request(self, name: str) -> Line:
        requests = self.requests()
        return requests[check_choice("name", name, requests)]

    def _weights(self, path: Path, model: str) -> dict[str, str]:
        return {"checkpoint": self.name_of(path), "sha256": hash_path(path), "model": model}

    def _json(self, name: str) -> Any:
        return json.loads(self.check_file(self.path(name)).read_text(encoding="utf-8"))
