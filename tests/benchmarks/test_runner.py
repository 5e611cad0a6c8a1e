from __future__ import annotations

import copy
import errno
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import algorithms
from benchmarks import runner
from benchmarks.backends import Local, make_backend, stored_product
from benchmarks.cli import app
from benchmarks.execute import Finished, Product, execute_safely
from benchmarks.judging import evaluation_of
from benchmarks.plan import Node, plan
from benchmarks.runner import Summary, run_suite
from benchmarks.store import Store, read_json
from benchmarks.suites import parse_suite

COMMAND = [sys.executable, "-c", "from benchmarks.cli import main; main()", "run"]
TINY = """
name: tiny
seeds: {training: [0, 1], evaluation: [0, 1]}
learning_curve: true
matrix:
  - data: {name: digits, options: {train_size: 150}}
    forget: ["class:0", ["class:1", "random:0.1"]]
    models: mlp
    training: {epochs: 1}
    methods:
      - finetune
      - {name: perturbed_sign, options: {steps: 3}, grid: {retain_weight: [0, 1]}}
"""


def tiny(**changes: Any) -> Any:
    import yaml

    values = yaml.safe_load(TINY)
    values["matrix"][0] |= changes
    return parse_suite(values)


class Here:
    """A backend in this process: no worker to start, and every step in its order."""

    def __init__(self, store: Store, work: Callable[..., Finished] = execute_safely) -> None:
        self.store, self.work, self.waiting = store, work, list[Node]()
        self.begun: list[str] = []

    def free(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, node: Node) -> None:
        self.begun.append(node.name)
        self.waiting.append(node)

    def wait(self, timeout: float) -> list[Finished]:
        nodes, self.waiting = self.waiting, []
        return [
            self.work(node, {role: stored_product(self.store, key) for role, key in node.needs.items()})
            for node in nodes
        ]

    def close(self) -> None:
        self.waiting = []


def run_here(
    monkeypatch: pytest.MonkeyPatch,
    suite: Any,
    out: Path,
    work: Callable[..., Finished] = execute_safely,
    **options: Any,
) -> tuple[Summary, list[str]]:
    begun: list[str] = []

    def make(name: str, store: Store, *, workers: int, threads: int) -> Here:
        made = Here(store, work)
        made.begun = begun
        return made

    with monkeypatch.context() as patched:
        patched.setattr(runner, "make_backend", make)
        return run_suite(suite, out, **options), begun


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Every record without what two runs never share."""
    found = {}
    for record in Store(out, create=False).records():
        kept = copy.deepcopy(record)
        del kept["cost"]
        found[record["key"]] = kept
    return found


def planned(out: Path) -> dict[str, dict[str, Any]]:
    """What :func:`tiny` plans of a folder's results: other tests may have run other suites into it."""
    keys = {node.key for node in plan(tiny())}
    return {key: record for key, record in results(out).items() if key in keys}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        summary, _ = run_here(patched, tiny(), out)
    assert summary.complete
    assert len(summary.done) == len(plan(tiny()))
    return out


def test_a_record_holds_what_the_store_promises(whole: Path) -> None:
    records = list(Store(whole, create=False).records())
    for record in records:
        assert {"versions", "threads", "hashes", "cost", "config", "needs", "name", "kind"} <= record.keys()
        assert record["status"] == "ok"
        assert record["cost"]["node_seconds"] > 0
        assert record["cost"]["peak_memory_bytes"] > 50e6
        assert read_json(whole / "failures" / f"{record['key']}.json") is None
    by_key = {record["key"]: record for record in records}
    chosen = [r for r in records if r["kind"] == "result" and r["config"]["method"]["name"] == "perturbed_sign"]
    assert len(chosen) == 8
    for record in chosen:
        original, reference = (by_key[record["needs"][role]] for role in ("original", "reference"))
        assert record["hashes"]["before"] == original["hashes"]["model"]
        assert record["hashes"]["reference"] == reference["hashes"]["model"]
        assert record["hashes"]["model"] != record["hashes"]["before"]
        assert record["options"]["steps"] == 3
        assert [found["seed"] for found in record["evaluations"]] == [0, 1]
        scores = record["evaluations"][0]["scores"]
        assert set(scores["per_class"]) == {str(label) for label in range(10)}
        assert evaluation_of(scores).as_dict() == scores
        samples = read_json(whole / "samples" / f"{record['hashes']['forget']}.json")
        assert samples is not None
        assert len(samples["sha256"]) == record["forget_samples"] == scores["sizes"]["forget"]


def test_scores_are_those_of_the_metrics_with_the_stored_weights(whole: Path) -> None:
    from benchmarks.scenarios import Scenario
    from unlearn_kit.data import load
    from unlearn_kit.metrics import evaluate
    from unlearn_kit.models import build

    store = Store(whole, create=False)
    record = next(r for r in store.records() if r["name"] == "digits/class:0/mlp/seed 1/original")
    models = []
    for role in ("original", "reference"):
        model = build("mlp", 10, 1)
        model.load_state_dict(store.tensors(record["needs"][role]))
        models.append(model.eval())
    digits = load("digits", train_size=150)
    (task,) = Scenario(("class:0",)).requests(digits, 1)
    expected = evaluate(models[0], task, models[1], seed=1).as_dict()
    del expected["reference"]
    found = record["evaluations"][1]["scores"]
    assert {name: found[name] for name in expected} == expected


def test_a_revision_is_the_algorithms_own(whole: Path) -> None:
    from unlearn_kit import UnlearnTask
    from unlearn_kit.data import load
    from unlearn_kit.hashing import hash_model
    from unlearn_kit.models import build

    store = Store(whole, create=False)
    record = next(r for r in store.records() if r["name"] == "digits/class:0/mlp/seed 0/finetune/seed 0")
    digits = load("digits", train_size=150)
    original = build("mlp", 10, 1)
    original.load_state_dict(store.tensors(record["needs"]["original"]))
    task = UnlearnTask.forget_class(digits.train, digits.test, 0, num_classes=10)
    result = algorithms.finetune(original.eval(), task, seed=0)
    assert hash_model(result.model) == record["hashes"]["model"]  # watching it changed nothing
    assert result.history == record["history"]


def test_learning_curves_go_from_the_start_to_the_last_step(whole: Path) -> None:
    record = next(r for r in Store(whole, create=False).records() if "class:0/mlp/seed 0/perturbed_sign" in r["name"])
    steps = [point["step"] for point in record["learning_curve"]]
    assert (steps[0], steps[-1]) == (0, 3)
    assert steps == sorted(set(steps))
    assert all(0 <= point[name] <= 1 for point in record["learning_curve"] for name in ("forget", "retain", "held_out"))


def test_after_each_request_the_earlier_ones_are_judged_again(whole: Path) -> None:
    found = [
        r for r in Store(whole, create=False).records() if r["kind"] == "result" and len(r["config"]["forget"]) > 1
    ]
    assert len(found) == 10
    for record in found:
        assert [[s["rule"] for s in row["scores"]] for row in record["requests"]] == [
            ["class:1"],
            ["class:1", "random:0.1"],
        ]
        assert record["requests"][1]["scores"][0]["forget_test"] is not None


def test_running_again_repeats_nothing_and_another_suite_shares_what_it_can(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, begun = run_here(monkeypatch, tiny(), whole)
    assert (again.done, begun) == ([], [])
    assert len(again.reused) == len(plan(tiny()))
    _, begun = run_here(monkeypatch, tiny(methods=["boundary_shrink:steps=1"], forget="class:0"), whole)
    assert begun == [f"digits/class:0/mlp/seed {seed}/boundary_shrink:steps=1/seed 0" for seed in (0, 1)]


def test_only_and_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, begun = run_here(monkeypatch, tiny(), tmp_path, only="class:0/mlp/seed 1/finetune")
    assert len(begun) == 5
    suites = read_json(tmp_path / "suites" / "tiny.json")
    assert suites is not None
    again, begun = run_here(monkeypatch, tiny(), tmp_path, only="class:0/mlp/seed 1/finetune", fresh=True)
    assert len(begun) == len(again.done) == 5


def test_a_failure_is_recorded_and_only_what_needs_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(node: Node, inputs: dict[str, Product]) -> Finished:
        if node.kind == "reference" and "class:0/mlp/seed 1" in node.name:
            with monkeypatch.context() as patched:
                patched.setattr(algorithms, "retrain", lambda *_, **__: 1 / 0)
                return execute_safely(node, inputs)
        return execute_safely(node, inputs)

    suite = tiny(methods=["finetune:lr=-1.0", "finetune"], forget="class:0")
    summary, _ = run_here(monkeypatch, suite, tmp_path, broken)
    assert list(summary.failed) == ["digits/class:0/mlp/seed 1/train reference"]
    assert summary.failed["digits/class:0/mlp/seed 1/train reference"] == "ZeroDivisionError: division by zero"
    assert sorted(name.rpartition("seed 1/")[2] for name in summary.skipped) == [
        "finetune/seed 0",
        "finetune:lr=-1/seed 0",
        "original",
        "reference",
    ]
    (refused,) = summary.refused.values()
    assert refused.startswith("n/a: expected")
    (failure,) = [read_json(path) for path in (tmp_path / "failures").iterdir()]
    assert failure is not None
    assert "Traceback" in failure["traceback"]
    assert "1 / 0" in failure["traceback"]
    # The next run tries it again, and nothing else.
    mended, begun = run_here(monkeypatch, suite, tmp_path)
    assert len(begun) == 5
    assert not list((tmp_path / "failures").iterdir())
    assert not mended.failed


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = 5

    def write(self: Store, key: str, record: Any, tensors: Any, real: Any = Store.write) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise self.unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        real(self, key, record, tensors)

    suite = tiny(forget="class:0", methods=["finetune"])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", write)
        with pytest.raises(OSError, match="No space left on device; what is finished is kept"):
            run_here(monkeypatch, suite, tmp_path)
    assert not list((tmp_path / "claims").iterdir())
    summary, begun = run_here(monkeypatch, suite, tmp_path)
    assert (len(summary.reused), len(begun)) == (5, 5)


def test_two_runners_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quickly(node: Node, inputs: dict[str, Product]) -> Finished:
        time.sleep(0.01)
        return Finished(
            node.key,
            Product({"kind": node.kind, "name": node.name, "status": "ok", "reason": None, "config": dict(node.config),
                     "hashes": {"model": "", "forget": "", "before": ""}, "forget_samples": 1, "evaluations": [],
                     "options": {}, "versions": {}, "cost": {"seconds": 0.0, "node_seconds": 0.01}}),
        )  # fmt: skip

    monkeypatch.setattr(runner, "make_backend", lambda _, store, **__: Here(store, quickly))
    monkeypatch.setattr(runner, "POLL", 0.01)
    summaries: list[Summary] = []
    threads = [threading.Thread(target=lambda: summaries.append(run_suite(tiny(), tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = summaries
    every = {node.name for node in plan(tiny())}
    assert not set(first.done) & set(second.done)
    assert set(first.done) | set(second.done) == every
    assert first.done
    assert second.done
    assert set(first.done) | set(first.reused) == set(second.done) | set(second.reused) == every


def test_two_processes_share_a_folder(whole: Path, tmp_path: Path) -> None:
    suite, out = tmp_path / "tiny.yaml", tmp_path / "out"
    suite.write_text(TINY)
    command = [*COMMAND, str(suite), "--out", str(out), "--workers", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = [
        int(match.group(1)) for out_text, _ in said if (match := re.search(r"(\d+) run, \d+ already there", out_text))
    ]
    assert sum(done) == len(plan(tiny())), "a node was done twice, or by nobody"
    assert min(done) > 0
    assert results(out) == planned(whole)


class Bomb:
    """Ends the process that unpickles it."""

    def __init__(self, how: Callable[..., Any], *arguments: Any) -> None:
        self.how, self.arguments = how, arguments

    def __reduce__(self) -> Any:
        return self.how, self.arguments


def test_a_worker_that_dies_fails_its_own_node_and_is_replaced(tmp_path: Path) -> None:
    nodes = plan(tiny(forget="class:0", methods=["finetune"]))
    backend = make_backend("local", Store(tmp_path), workers=1, threads=1)
    assert isinstance(backend, Local)
    try:
        backend.submit(Node("original", "k", "bomb", {"data": Bomb(os.abort)}))
        (found,) = backend.wait(120)
        assert (found.key, found.product) == ("k", None)
        assert found.reason == "the worker process died (SIGABRT)"
        assert backend.free() == 1
        backend.submit(nodes[0])
        (found,) = backend.wait(120)
        assert found.product is not None
        assert found.product.record["threads"] == 1
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("backend", "workers", "message"),
    [("lokal", 1, "expected backend to be one of .*'local'"), ("local", 0, "expected workers to be at least 1")],
)
def test_wrong_settings_are_refused(tmp_path: Path, backend: str, workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_suite(tiny(), tmp_path, backend=backend, workers=workers)


def test_killed_at_random_and_resumed_it_ends_as_if_it_never_had_been(whole: Path, tmp_path: Path) -> None:
    suite, out = tmp_path / "tiny.yaml", tmp_path / "out"
    suite.write_text(TINY)
    command = [*COMMAND, str(suite), "--out", str(out), "--workers", "1"]
    total, draw = len(plan(tiny())), random.Random()
    finished: dict[str, int] = {}
    for enough in (1, total // 2):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(times(out)) < enough:
                time.sleep(0.02)
            time.sleep(draw.random() * 0.5)
            workers = children(process.pid)
            process.kill()
            process.wait()
        gone = time.time() + 20
        while any(running(pid) for pid in workers):
            assert time.time() < gone, "a worker outlived its runner"
            time.sleep(0.05)
        kept = times(out)
        assert kept.items() >= finished.items()  # nothing that was finished has been written again
        finished = kept
        for path in (out / "results").glob("*.json"):
            assert json.loads(path.read_text())["key"] == path.stem
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{total - len(finished)} run, {len(finished)} already there" in ended.stdout
    assert times(out).items() >= finished.items()
    assert results(out) == planned(whole)


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ray_gives_the_same_results(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    summary = run_suite(tiny(), tmp_path, backend="ray", workers=2, only="class:0/mlp/seed 0")
    assert summary.complete
    found = results(tmp_path)
    assert len(found) == 7
    assert found == {key: results(whole)[key] for key in found}


def test_the_command_prints_a_plan_and_refuses_in_one_line(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TINY)
    shown = CliRunner().invoke(app, ["run", str(suite), "--dry-run", "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0
    assert shown.stdout.count("\n") == len(plan(tiny()))
    assert "run  " in shown.stdout
    assert not (tmp_path / "out").exists()
    suite.write_text(TINY.replace("digits", "digit"))
    refused = CliRunner().invoke(app, ["run", str(suite), "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "matrix.0.data.0.name: expected a data set to be one of" in refused.stderr
    assert "did you mean 'digits'?" in refused.stderr
    (tmp_path / "file").write_text("")
    suite.write_text(TINY)
    refused = CliRunner().invoke(app, ["run", str(suite), "--out", str(tmp_path / "file")])
    assert refused.exit_code == 2
    assert "expected out to be a folder that can be written to" in refused.stderr


def test_the_command_leaves_with_1_when_a_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Summary:
        return Summary(done=["a"], failed={"b": "RuntimeError: broken"}, skipped=["c"])

    monkeypatch.setattr(runner, "run_suite", fails)
    found = CliRunner().invoke(app, ["run", "quick", "--out", str(tmp_path)])
    assert found.exit_code == 1
    assert "b: RuntimeError: broken" in found.stdout
    assert "1 run, 0 already there, 1 failed, 1 skipped" in found.stdout
