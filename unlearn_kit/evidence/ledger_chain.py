"""A file that only grows: one line of canonical JSON an entry, each with the SHA-256 of the line before it.

A change anywhere breaks the chain after it. ``head.json`` beside the file names the last line, so that an end that was
cut off is missed too. A write that was cut short by a kill leaves a torn end: it stays where it is, is told by whoever
reads the file, and the next line names its SHA-256.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_json

FILE, HEAD = "ledger.jsonl", "head.json"


@dataclass(frozen=True)
class Line:
    """One line of the chain.

    Attributes:
        number: Its place, from 1.
        sha256: Of its bytes, as ``sha256sum`` prints it of the line without its end.
        values: What it says.
    """

    number: int
    sha256: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Chain:
    """What a file holds.

    Attributes:
        lines: Every line that can be read, in the order of the file.
        torn: The end of an append that was cut short; None where the file ends well.
        faults: What is wrong with it, each naming the line; none where the chain verifies.
        notes: What an interrupted append left, which the next one mends or has answered for.
        ended: Whether the file is empty or ends with the end of a line.
    """

    lines: tuple[Line, ...]
    torn: bytes | None
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    ended: bool


def canonical(values: Mapping[str, Any]) -> bytes:
    """Return ``values`` as JSON of one line that is the same wherever it is written.

    Raises:
        TypeError: On what JSON cannot hold.
        ValueError: On numbers that are not finite.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def read_chain(folder: str | Path) -> Chain:
    """Read the chain in ``folder`` and hold every line against the others and the head; no file is an empty chain."""
    path = Path(folder) / FILE
    data = path.read_bytes() if path.exists() else b""
    parts = data.split(b"\n")
    ended = parts[-1] == b""
    lines: list[Line] = []
    faults: list[str] = []
    notes: list[str] = []
    unread: list[bytes] = []
    for part in parts[:-1] if ended else parts:
        line = _line(part)
        if line is None:
            unread.append(part)
            continue
        left = hashlib.sha256(b"\n".join(unread)).hexdigest() if unread else None
        if left is None and "torn" in line.values:
            faults.append(f"what line {line.number} names as left by an append that was cut short is missing")
        elif left is not None and line.values.get("torn") == left:
            notes.append(f"an append was cut short before line {line.number}, which names what it left")
        elif left is not None:
            faults.append(f"what stands before line {line.number} is no line of a ledger: it was changed")
        lines.append(line)
        unread = []
    torn = b"\n".join(unread) if unread else None
    if torn is not None:
        notes.append(f"torn end: an append was cut short, {len(torn)} bytes are left of it: {torn[:60]!r}")
    faults += _broken(lines)
    said, wrong = _beside_head(lines, _head(Path(folder) / HEAD))
    return Chain(tuple(lines), torn, (*faults, *wrong), (*notes, *said), ended)


def append(folder: str | Path, values: Mapping[str, Any]) -> Line:
    """Write one more line, on disk when this returns, then the head; for whoever holds the lock.

    Killed anywhere in between, the file holds the line, or a part of it that the next append names.

    Raises:
        ValueError: When the chain is broken: nothing is built on it.
        OSError: When it cannot be written.
    """
    target = Path(folder)
    chain = read_chain(target)
    if chain.faults:
        raise ValueError(f"expected the chain of {str(target)!r} to verify, but {'; '.join(chain.faults)}")
    last = chain.lines[-1] if chain.lines else None
    if last is not None and _head(target / HEAD) != (last.number, last.sha256):
        # First of all: however often one is killed, a head is never more than one line behind.
        _write_head(target, last)
    number = 1 if last is None else last.number + 1
    row = {**values, "line": number, "previous": None if last is None else last.sha256}
    if chain.torn is not None:
        row["torn"] = hashlib.sha256(chain.torn).hexdigest()
    text = canonical(row)
    with (target / FILE).open("ab") as file:
        file.write((b"" if chain.ended else b"\n") + text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    line = Line(number, hashlib.sha256(text).hexdigest(), json.loads(text))
    _write_head(target, line)
    return line


def _write_head(folder: Path, line: Line) -> None:
    write_json({"line": line.number, "sha256": line.sha256}, folder / HEAD)


def _line(part: bytes) -> Line | None:
    try:
        values = json.loads(part)
    except (ValueError, RecursionError):
        return None
    number = values.get("line") if isinstance(values, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or "previous" not in values:
        return None
    return Line(number, hashlib.sha256(part).hexdigest(), values)


def _broken(lines: Sequence[Line]) -> list[str]:
    """Return where numbers or hashes do not follow each other."""
    numbers = [line.number for line in lines]
    faults = [f"line {number} is missing" for number in range(1, max(numbers, default=0)) if number not in numbers]
    faults += [f"line {number} is there {numbers.count(number)} times" for number in sorted(set(numbers))
               if numbers.count(number) > 1]  # fmt: skip
    faults += [
        f"line {after.number} stands after line {before.number}: the order was changed"
        for before, after in itertools.pairwise(lines)
        if after.number < before.number
    ]
    known = {line.number: line for line in lines}
    for line in lines:
        before, named = known.get(line.number - 1), line.values["previous"]
        if line.number == 1 and named is not None:
            faults.append("line 1 names a line before it: the beginning is missing, or it was changed")
        elif before is not None and named != before.sha256:
            faults.append(f"line {before.number} was changed: line {line.number} names another SHA-256 of it")
    return faults


def _head(path: Path) -> Any:
    """Return what the head says; None where there is none, a text where it cannot be read."""
    if not path.exists():
        return None
    try:
        head = json.loads(path.read_bytes())
        return int(head["line"]), str(head["sha256"])
    except (ValueError, KeyError, TypeError):
        return f"{HEAD} cannot be read: it was changed"


def _beside_head(lines: Sequence[Line], head: Any) -> tuple[list[str], list[str]]:
    """Return what an interrupted append left of the head, and what is wrong with it."""
    if isinstance(head, str):
        return [], [head]
    last = max((line.number for line in lines), default=0)
    if head is None:
        if last > 1:
            return [], [f"{HEAD} is missing, which names the last line"]
        return (["the first append was cut short before the head was written"] if last else []), []
    number, sha = head
    if number > last:
        there = f"the file ends with line {last}" if last else "the file holds none"
        return [], [f"the end is missing: {HEAD} names line {number}, but {there}"]
    if number < last - 1:
        return [], [f"{HEAD} names line {number}, but the file goes on to line {last}: one of them was changed"]
    named = [line for line in lines if line.number == number]
    if not any(line.sha256 == sha for line in named):
        return [], [f"line {number} was changed: {HEAD} names another SHA-256 of it"] if named else []
    return ([f"the last append was cut short after line {last} and before the head"] if number < last else []), []
