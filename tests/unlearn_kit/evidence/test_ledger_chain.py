"""The chain of a ledger: what a kill, a torn write and a forger leave is told, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_kit.evidence import Ledger
from unlearn_kit.evidence.ledger_chain import read_chain


def add(ledger: Ledger, name: str) -> None:
    """Add an entry as every request does: files first, then the line that names them."""
    with ledger.changing(timeout=30):
        paper = ledger.write_beside({"name": name}, "samples", f"{name}.json")
        ledger.write("request", {"name": name, "samples": paper})


def filled(folder: Path, count: int = 4) -> Ledger:
    ledger = Ledger(folder / "ledger")
    for place in range(count):
        add(ledger, f"r{place}")
    return ledger


def rows(ledger: Ledger) -> list[bytes]:
    return (ledger.folder / "ledger.jsonl").read_bytes().splitlines()


def test_every_line_names_the_one_before_it(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    digests = [hashlib.sha256(row).hexdigest() for row in rows(ledger)]
    told = [json.loads(row) for row in rows(ledger)]
    assert [row["previous"] for row in told] == [None, *digests[:-1]]
    assert [row["line"] for row in told] == [1, 2, 3, 4]
    assert all(
        row == json.dumps(json.loads(row), sort_keys=True, separators=(",", ":")).encode() for row in rows(ledger)
    )
    assert json.loads((ledger.folder / "head.json").read_text()) == {"line": 4, "sha256": digests[-1]}
    assert ledger.verify() == ([], [])
    assert ledger.verify(digests[1]) == ([], [])  # the last line of another day
    (fault,) = ledger.verify("0" * 64)[0]
    assert "no line has the SHA-256 0000" in fault


def change(lines: list[bytes], place: int) -> list[bytes]:
    return [row.replace(b'"r', b'"R') if at == place else row for at, row in enumerate(lines)]


FORGERIES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (lambda lines: change(lines, 1), "line 2 was changed"),
    "changed first": (lambda lines: change(lines, 0), "line 1 was changed"),
    "changed last": (lambda lines: change(lines, 3), "line 4 was changed: head.json names another"),
    "made unreadable": (lambda lines: [lines[0], b"{", *lines[2:]], "line 2 is missing"),
    "removed": (lambda lines: [lines[0], *lines[2:]], "line 2 is missing"),
    "first removed": (lambda lines: lines[1:], "line 1 is missing"),
    "swapped": (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2 stands after line 3"),
    "last two swapped": (lambda lines: [*lines[:2], lines[3], lines[2]], "line 3 stands after line 4"),
    "twice": (lambda lines: [*lines, lines[3]], "line 4 is there 2 times"),
    "end cut off": (
        lambda lines: lines[:3],
        "the end is missing: head.json names line 4, but the file ends with line 3",
    ),
    "all cut off": (lambda lines: lines[:0], "the end is missing: head.json names line 4, but the file holds none"),
    "end made unreadable": (lambda lines: [*lines[:3], b"x"], "the end is missing"),
    "two appended": (
        lambda lines: [
            *lines,
            (one := json.dumps({"line": 5, "previous": hashlib.sha256(lines[3]).hexdigest()}).encode()),
            json.dumps({"line": 6, "previous": hashlib.sha256(one).hexdigest()}).encode(),
        ],
        "head.json names line 4, but the file goes on to line 6",
    ),
    "an invented torn write": (
        lambda lines: [*lines[:2], b"half", *lines[2:]],
        "what stands before line 3 is no line of a ledger",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_named_and_built_on_by_nobody(tmp_path: Path, name: str) -> None:
    ledger = filled(tmp_path)
    forge, expected = FORGERIES[name]
    (ledger.folder / "ledger.jsonl").write_bytes(b"".join(row + b"\n" for row in forge(rows(ledger))))
    faults, _ = ledger.verify()
    assert any(expected in fault for fault in faults), faults
    with pytest.raises(ValueError, match="to verify, but"):
        add(ledger, "more")


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"line": 4, "sha256": 5}'])
def test_a_head_that_is_gone_or_changed_is_told(tmp_path: Path, text: str | None) -> None:
    ledger = filled(tmp_path)
    head = ledger.folder / "head.json"
    if text is None:
        head.unlink()
    else:
        head.write_text(text)
    (fault,) = ledger.verify()[0]
    assert "head.json" in fault


def test_files_beside_the_chain_are_held_against_it(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    (ledger.folder / "samples" / "r1.json").write_text("{}")
    (ledger.folder / "samples" / "r2.json").unlink()
    (ledger.folder / "samples" / "extra.json").write_text("{}")
    faults, notes = ledger.verify()
    assert faults == [
        "'samples/r1.json' of line 2 was changed: it has another SHA-256",
        "'samples/r2.json' of line 3 is missing",
    ]
    assert notes == ["'samples/extra.json' is named by no line: what made it was interrupted, or is still at it"]


def test_a_write_cut_short_at_any_byte_is_told_and_the_next_one_goes_on(tmp_path: Path) -> None:
    ledger = filled(tmp_path, 2)
    path, head = ledger.folder / "ledger.jsonl", ledger.folder / "head.json"
    before, older = path.read_bytes(), head.read_bytes()
    add(ledger, "cut")
    whole = path.read_bytes()
    for end in range(len(before) + 1, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        head.write_bytes(older)
        (ledger.folder / "samples" / "next.json").unlink(missing_ok=True)
        faults, notes = ledger.verify()
        complete = end >= len(whole) - 1  # all but the end of the line
        assert (faults, len(ledger.lines())) == ([], 3 if complete else 2)
        assert complete or "torn end: an append was cut short" in notes[0]
        assert complete or f"{end - len(before)} bytes are left of it" in notes[0]
        add(ledger, "next")
        faults, notes = ledger.verify()
        assert (faults, len(ledger.lines())) == ([], 4 if complete else 3)
        assert path.read_bytes().startswith(whole[:end])  # nothing was ever rewritten
        assert complete or notes[0] == "an append was cut short before line 3, which names what it left"


def test_two_writes_cut_short_one_after_the_other(tmp_path: Path) -> None:
    ledger = filled(tmp_path, 2)
    path = ledger.folder / "ledger.jsonl"
    for left in (b'{"line":3,"prev', b'\n{"li'):
        path.write_bytes(path.read_bytes() + left)
        assert ledger.verify()[0] == []
    add(ledger, "next")
    assert (ledger.verify()[0], [line.number for line in ledger.lines()]) == ([], [1, 2, 3])
    path.write_bytes(path.read_bytes().replace(b'\n{"li\n', b'\n{"lo\n'))
    (fault,) = ledger.verify()[0]
    assert "what stands before line 3" in fault


def killed_at(step: int, ledger: Ledger, name: str) -> bool:
    """Add an entry in a process that is killed at its ``step``-th call of the system; return whether it was."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    count = 0

    def counted(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in ("open", "os.rename", "os.mkdir", "os.remove") and str(ledger.folder) in str(arguments[0]):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def flushed(number: int, real: Callable[[int], None] = os.fsync) -> None:
        counted("open", (str(ledger.folder),))
        real(number)

    try:
        sys.addaudithook(counted)
        os.fsync = flushed
        add(ledger, name)
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that was forked")
def test_killed_at_any_step_nothing_is_lost_and_the_next_one_goes_on(tmp_path: Path) -> None:
    ledger = filled(tmp_path, 1)
    names, step = ["r0"], 0
    while True:
        step += 1
        name = f"k{step}"
        killed = killed_at(step, ledger, name)
        there = [line.values["name"] for line in ledger.lines()]
        assert there in (names, [*names, name])
        assert ledger.verify()[0] == []
        if there == names:
            add(ledger, name)  # the same request again
        names.append(name)
        assert [line.values["name"] for line in ledger.lines()] == names
        faults, notes = ledger.verify()
        assert faults == []
        assert [note for note in notes if "before the head" not in note] == []
        if not killed:
            break
    assert step > 8  # files, line and head each have steps of their own
    add(ledger, "last")  # mends what is left of the kill before it
    assert ledger.verify() == ([], [])
    assert not list(ledger.folder.rglob(".*.tmp"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_on_one_ledger_lose_no_line(tmp_path: Path) -> None:
    folder, count = tmp_path / "ledger", 20
    start, go = os.pipe()
    children = []
    for who in "ab":
        child = os.fork()
        if not child:
            try:
                os.read(start, 1)  # both at once
                for place in range(count):
                    add(Ledger(folder), f"{who}{place}")
            finally:
                os._exit(0)
        children.append(child)
    os.write(go, b"..")
    for child in children:
        os.waitpid(child, 0)
    names = [line.values["name"] for line in Ledger(folder).lines()]
    assert sorted(names) == sorted(f"{who}{place}" for who in "ab" for place in range(count))
    assert Ledger(folder).verify() == ([], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_lock_keeps_others_out_while_its_process_lives_and_no_longer(tmp_path: Path) -> None:
    ledger = filled(tmp_path, 1)
    held, hold = os.pipe()
    holder = os.fork()
    if not holder:
        with ledger.changing():
            os.write(hold, b".")
            time.sleep(600)
    try:
        os.read(held, 1)
        refused = pytest.raises(TimeoutError, match=r"to be free within 0\.1 s, but another process has it")
        with refused, ledger.changing(0.1):
            pass
        assert [line.number for line in ledger.lines()] == [1]  # to read takes no lock
    finally:
        os.kill(holder, signal.SIGKILL)  # it cleans nothing up
        os.waitpid(holder, 0)
    with ledger.changing(10):
        ledger.write("request", {"name": "after"})
    assert ledger.verify() == ([], [])


def test_a_ledger_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected folder to be a folder"):
        Ledger(tmp_path / "file")
    with pytest.raises(TypeError, match="expected folder to be a path, but got int"):
        Ledger(3)  # type: ignore[arg-type]
    ledger = filled(tmp_path, 1)
    for name, error in (
        ("a b", ValueError),
        ("../x", ValueError),
        ("r0", ValueError),
        ("", ValueError),
        (3, TypeError),
    ):
        with pytest.raises(error, match="expected name to be"):
            ledger.check_new(name)  # type: ignore[arg-type]
    assert read_chain(tmp_path / "nowhere").lines == ()
