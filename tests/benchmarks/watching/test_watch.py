"""What is seen of a suite while it runs, from the files of its folder."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.speed.made_up import write_made_up
from benchmarks.suites.store import Store
from benchmarks.watching.show import TICKS, WIDTH, shown, sparkline
from benchmarks.watching.state import FRESH, SuiteFolder, held_since
from unlearn_kit.files import write_json

FAILED, WORKING, WAITING = (f"node {word}" for word in ("failed", "working", "waiting"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Finished nodes that took 10 s each, one that failed, one at work, one that waits."""
    store = write_made_up(tmp_path / "out", methods=("finetune",), trainings=1)
    for record in list(store.records()):
        store.write(replace(record, cost=replace(record.cost, node_seconds=10.0), tensors=False), {})
    rows = [{"key": record.key, "kind": record.kind, "name": record.name} for record in store.records()]
    rows += [{"key": name[-7:], "kind": "result", "name": name} for name in (FAILED, WORKING, WAITING)]
    for path in (store.root / "suites").glob("*.json"):
        path.unlink()
    write_json({"name": "mine", "nodes": rows}, store.path("suites", "mine"))
    store.write_failure(FAILED[-7:], {"name": FAILED, "reason": "out of [red]memory"})
    return store


def text(store: Store) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(shown(SuiteFolder(store.root).look()))
    return console.export_text()


def files(store: Store) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in store.root.rglob("*")}


def test_a_suite_is_told_by_its_files(store: Store) -> None:
    claim = store.claim(WORKING[-7:])
    assert claim is not None
    (state,) = SuiteFolder(store.root).look()
    finished = len(list(store.records()))
    assert (state.name, state.planned, len(state.done), state.complete) == ("mine", finished + 3, finished, False)
    assert state.failed == {FAILED: "out of [red]memory"}
    assert list(state.working) == [WORKING]
    assert state.left == pytest.approx(20, abs=1)  # the one at work and the one that waits, of 10 s, by one runner
    written = text(store)
    assert f"mine: {finished} of {finished + 3} nodes done; about 20 s left" in written
    assert "failed: node failed: out of [red]memory" in written
    claim.release()
    (state,) = SuiteFolder(store.root).look()
    assert (state.working, state.left) == ({}, None)
    assert "no runner is at work" in text(store)


def test_the_claim_of_a_killed_runner_is_none_and_a_held_one_is_left_alone(store: Store) -> None:
    path, old = store.path("claims", "a", ".lock"), time.time() - 10 * FRESH
    assert held_since(path) is None
    path.touch()
    os.utime(path, (old, old))
    assert held_since(path) is None  # nobody locks it
    claim = store.claim("a")
    assert claim is not None
    assert time.time() - path.stat().st_mtime < FRESH  # since now, though the file is older
    os.utime(path, (old, old))
    assert held_since(path) == pytest.approx(old, abs=1e-3)
    assert store.claim("a") is None
    claim.release()


def test_a_node_that_is_finished_meanwhile_is_seen_and_others_are_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = SuiteFolder(store.root), []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: (read.append(key), original(self, key))[1])
    before = len(folder.look()[0].done)
    assert len(read) == before
    record = next(one for one in store.records() if one.kind == "result")
    store.write(replace(record, key=WAITING[-7:], name=WAITING), {})
    assert len(folder.look()[0].done) == before + 1
    assert read[before:] == [WAITING[-7:]]


def test_curves_are_of_scores_where_there_are_some_else_of_the_loss(store: Store) -> None:
    record = next(one for one in store.records() if one.kind == "result" and one.name.count("finetune"))
    points = [
        {"request": 0, "step": step, "forget": forget, "retain": None, "held_out": 0.5}
        for step, forget in enumerate([1.0, 0.5, 0.0])
    ]
    late = replace(record.cost, finished="9999")
    store.write(replace(record, learning_curve=points, cost=late), {})
    assert "█▅▁ forget 0.000" in text(store)
    assert "▅▅▅ held out 0.500" in text(store)
    assert "retain n/a" not in text(store)
    store.write(replace(record, learning_curve=[], history=[{"total": 2.0}, {"total": 1.0}], cost=late), {})
    assert "█▁ loss 1" in text(store)


def test_a_sparkline_keeps_its_ends_and_leaves_gaps() -> None:
    assert sparkline([0.0, None, 1.0], 0.0, 1.0) == "▁ █"
    assert sparkline([2.0, float("nan"), 2.0]) == "▁ ▁"
    assert sparkline([None]) == " "
    assert sparkline([]) == ""
    long = sparkline([place / 999 for place in range(1000)], 0.0, 1.0)
    assert (len(long), long[0], long[-1]) == (WIDTH, TICKS[0], TICKS[-1])
    assert list(long) == sorted(long)


def test_the_command_prints_once_and_writes_nothing(store: Store) -> None:
    before = files(store)
    found = CliRunner().invoke(app, ["watch", str(store.root), "--once"])
    assert found.exit_code == 0
    assert found.output.startswith("mine: ")
    assert files(store) == before
    found = CliRunner().invoke(app, ["watch", str(store.root), "--once", "--html"])
    assert found.exit_code == 0
    assert set(files(store)) - set(before) == {str(store.root / "report.html")}


def test_the_command_refuses_a_folder_without_a_suite_and_an_unknown_suite(store: Store, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["watch", str(tmp_path), "--once"])
    assert found.exit_code == 2
    found = CliRunner().invoke(app, ["watch", str(store.root), "--suite", "mien", "--once"])
    assert found.exit_code == 2
    assert "mine" in found.output.replace("\n", " ")
    with pytest.raises(ValueError, match="expected dir to be a folder that `unlearn-kit run` writes, but got"):
        SuiteFolder(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_live_view_ends_when_everything_is_finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    path = store.path("suites", "mine")
    suite = json.loads(path.read_text())

    def finish(_: float) -> None:
        write_json({**suite, "nodes": suite["nodes"][:-3]}, path)

    monkeypatch.setattr(time, "sleep", finish)
    found = CliRunner().invoke(app, ["watch", str(store.root)])
    assert found.exit_code == 0
    done = len(suite["nodes"]) - 3
    assert f"mine: {done} of {done} nodes done" in found.output
