from __future__ import annotations

import csv
import errno
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import algorithms
from benchmarks.analysis.rows import rows
from benchmarks.analysis.tradeoff import curves_of
from benchmarks.cli import app
from benchmarks.report.build import FORMATS, write_report
from benchmarks.report.reproduce import command, suite_of
from benchmarks.report.tasks import tasks
from benchmarks.setup.recipes import Blueprint, ForgetRule
from benchmarks.speed import overhead
from benchmarks.suites import parse_suite, runner
from benchmarks.suites.backends import Local, check_backend, make_backend, stored_product
from benchmarks.suites.execute import Finished, Product, execute, execute_safely
from benchmarks.suites.forgotten import division, group_scores
from benchmarks.suites.plan import Node, plan
from benchmarks.suites.records import NodeCost, Record
from benchmarks.suites.revise import unlearning_seed
from benchmarks.suites.runner import SuiteSummary, run_suite
from benchmarks.suites.store import Store, read_json
from unlearn_kit.data import load
from unlearn_kit.data.simulated_scanners import simulate
from unlearn_kit.files import write_json
from unlearn_kit.metrics import evaluate

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
        return [self.work(node, lambda key: stored_product(self.store, key)) for node in nodes]

    def close(self) -> None:
        self.waiting = []


def run_here(
    monkeypatch: pytest.MonkeyPatch,
    suite: Any,
    out: Path,
    work: Callable[..., Finished] = execute_safely,
    **options: Any,
) -> tuple[SuiteSummary, list[str]]:
    begun: list[str] = []

    def make(name: str, store: Store, **settings: Any) -> Here:
        made = Here(store, work)
        made.begun = begun
        return made

    with monkeypatch.context() as patched:
        patched.setattr(runner, "make_backend", make)
        return run_suite(suite, out, **options), begun


def made_up(node: Node, inputs: Mapping[str, Product]) -> Product:
    """A stand-in for ``execute`` that takes no time."""
    cost = NodeCost(
        seconds=0.0,
        cpu_seconds=0.0,
        node_seconds=0.01,
        peak_memory_bytes=0,
        device_memory_bytes=None,
        finished="2026-01-01T00:00:00+00:00",
    )
    record = Record(
        key=node.key,
        kind=node.kind,
        name=node.name,
        status="ok",
        reason=None,
        config=node.config,
        needs=node.needs,
        versions={},
        threads=1,
        hashes={"model": "", "forget": "", "before": ""},
        forget_samples=1,
        history=[],
        parameters=1,
        cost=cost,
    )
    return Product(record, {"w": torch.zeros(1)} if node.kind == "original" else {})


def listed(out: Path) -> list[str]:
    """The keys that a folder says are its suite's."""
    found = read_json(out / "suites" / "tiny.json")
    assert found is not None
    return [node["key"] for node in found["nodes"]]


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Every record without what two runs never share."""
    found = {}
    for record in Store(out, create=False).records():
        kept = record.as_dict()
        del kept["cost"]
        found[record.key] = kept
    return found


def planned(out: Path) -> dict[str, dict[str, Any]]:
    """What :func:`tiny` plans of a folder's results: other tests may have run other suites into it."""
    keys = {node.key for node in plan(tiny())}
    return {key: record for key, record in results(out).items() if key in keys}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, on one thread as those of workers that it is compared with."""
    out, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patched:
            summary, _ = run_here(patched, tiny(), out)
    finally:
        torch.set_num_threads(threads)
    assert summary.complete
    assert len(summary.done) == len(plan(tiny()))
    return out


def test_a_record_holds_what_the_store_promises(whole: Path, tmp_path: Path) -> None:
    records = list(Store(whole, create=False).records())
    for record in records:
        path = whole / "results" / f"{record.key}.json"
        written = json.loads(path.read_text())
        assert {"versions", "threads", "hashes", "cost", "config", "needs", "name", "kind"} <= written.keys()
        assert write_json(record.as_dict(), tmp_path / "again.json").read_bytes() == path.read_bytes()
        assert record.status == "ok"
        assert record.cost.node_seconds > 0
        assert record.cost.peak_memory_bytes > 50e6
        assert read_json(whole / "failures" / f"{record.key}.json") is None
    by_key = {record.key: record for record in records}
    chosen = [r for r in records if r.kind == "result" and r.config["method"]["name"] == "perturbed_sign"]
    assert len(chosen) == 8
    for record in chosen:
        original, reference = (by_key[record.needs[role]] for role in ("original", "reference"))
        assert record.hashes["before"] == original.hashes["model"]
        assert record.hashes["reference"] == reference.hashes["model"]
        assert record.hashes["model"] != record.hashes["before"]
        assert record.options["steps"] == 3
        assert [found.seed for found in record.evaluations] == [0, 1]
        scores = record.evaluations[0].scores
        assert set(scores["per_class"]) == {str(label) for label in range(10)}
        assert record.evaluations[0].evaluation.as_dict() == scores
        samples = read_json(whole / "samples" / f"{record.hashes['forget']}.json")
        assert samples is not None
        assert len(samples["sha256"]) == record.forget_samples == scores["sizes"]["forget"]


@pytest.mark.parametrize(("device", "expected"), [("cpu", None), ("cuda:1", 7), ("cuda", 5)])
def test_device_memory_is_that_of_the_device_the_node_ran_on(
    device: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def peak(name: Any = "cuda") -> int:
        asked.append(torch.device(name))
        return {None: 5, 0: 5, 1: 7}[asked[-1].index]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", peak)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    work = {"hashes": {}, "history": [], "parameters": 1, "cost": {"seconds": 0.0, "cpu_seconds": 0.0}}
    draft = SimpleNamespace(record=work, tensors={}, samples=[])
    monkeypatch.setattr("benchmarks.suites.execute._original", lambda *_: draft)
    node = plan(tiny())[0]
    found = execute(replace(node, config={**node.config, "device": device}), {})
    assert found.record.cost.device_memory_bytes == expected
    assert asked == ([] if device == "cpu" else [torch.device(device)] * 2)


def test_scores_are_those_of_the_metrics_with_the_stored_weights(whole: Path) -> None:
    from benchmarks.setup.scenarios import Scenario
    from unlearn_kit.data import load
    from unlearn_kit.metrics import evaluate
    from unlearn_kit.models import build

    store = Store(whole, create=False)
    record = next(r for r in store.records() if r.name == "digits/class:0/mlp/seed 1/original")
    models = []
    for role in ("original", "reference"):
        model = build("mlp", 10, 1)
        model.load_state_dict(store.tensors(record.needs[role]))
        models.append(model.eval())
    digits = load("digits", train_size=150)
    (task,) = Scenario(("class:0",)).requests(digits, 1)
    expected = evaluate(models[0], task, models[1], seed=1).as_dict()
    del expected["reference"]
    found = record.evaluations[1].scores
    assert {name: found[name] for name in expected} == expected


def test_several_evaluation_seeds_read_each_split_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, sizes = sys.modules["unlearn_kit.metrics.evaluate"], list[int]()
    read = module._read

    def counted(model: Any, task: Any, split: str, *rest: Any) -> Any:
        sizes.append(len(getattr(task, split)))
        return read(model, task, split, *rest)

    monkeypatch.setattr(module, "_read", counted)
    node = next(node for node in plan(tiny()) if node.name == "digits/class:0/mlp/seed 0/original")
    ended = execute_safely(node, lambda key: stored_product(Store(whole, create=False), key))
    assert ended.product is not None
    found = ended.product.record.evaluations
    assert [one.seed for one in found] == [0, 1]
    assert sizes == [found[0].scores["sizes"][name] for name in ("forget", "retain", "forget_test", "retain_test")]


def test_a_revision_is_the_algorithms_own(whole: Path) -> None:
    from unlearn_kit import UnlearnTask
    from unlearn_kit.data import load
    from unlearn_kit.hashing import hash_model
    from unlearn_kit.models import build

    store = Store(whole, create=False)
    record = next(r for r in store.records() if r.name == "digits/class:0/mlp/seed 0/finetune/seed 0")
    digits = load("digits", train_size=150)
    original = build("mlp", 10, 1)
    original.load_state_dict(store.tensors(record.needs["original"]))
    task = UnlearnTask.forget_class(digits.train, digits.test, 0, num_classes=10)
    seed = unlearning_seed(record.config["seeds"], 0)
    assert record.config["seeds"] == {"training": 0, "unlearning": 0, "evaluation": [0, 1]}
    assert record.options["seed"] == seed
    result = algorithms.finetune(original.eval(), task, seed=seed)
    assert hash_model(result.model) == record.hashes["model"]  # watching it changed nothing
    assert result.history == record.history


def test_learning_curves_go_from_the_start_to_the_last_step(whole: Path) -> None:
    record = next(r for r in Store(whole, create=False).records() if "class:0/mlp/seed 0/perturbed_sign" in r.name)
    steps = [point["step"] for point in record.learning_curve]
    assert (steps[0], steps[-1]) == (0, 3)
    assert steps == sorted(set(steps))
    assert all(0 <= point[name] <= 1 for point in record.learning_curve for name in ("forget", "retain", "held_out"))


def test_after_each_request_the_earlier_ones_are_judged_again(whole: Path) -> None:
    found = [r for r in Store(whole, create=False).records() if r.kind == "result" and len(r.config["forget"]) > 1]
    assert len(found) == 10
    for record in found:
        assert [[s["rule"] for s in row["scores"]] for row in record.requests] == [
            ["class:1"],
            ["class:1", "random:0.1"],
        ]
        assert record.requests[1]["scores"][0]["forget_test"] is not None


def test_running_again_repeats_nothing_and_another_suite_shares_what_it_can(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, begun = run_here(monkeypatch, tiny(), whole)
    assert (again.done, begun) == ([], [])
    assert len(again.reused) == len(plan(tiny()))
    _, begun = run_here(monkeypatch, tiny(methods=["boundary_shrink:steps=1"], forget="class:0"), whole)
    assert begun == [f"digits/class:0/mlp/seed {seed}/boundary_shrink:steps=1/seed 0" for seed in (0, 1)]


def test_shards_in_folders_of_their_own_are_together_one_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # as ``whole`` was made
    together: dict[str, dict[str, Any]] = {}
    for place in (1, 2, 3):
        out = tmp_path / str(place)
        summary, begun = run_here(monkeypatch, tiny(), out, shard=(place, 3))
        assert summary.complete
        assert len(begun) < len(plan(tiny()))
        assert listed(out) == [node.key for node in plan(tiny())]
        together |= results(out)
    assert together == planned(whole)


def test_only_and_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, begun = run_here(monkeypatch, tiny(), tmp_path, only="class:0/mlp/seed 1/finetune")
    assert len(begun) == 5
    assert listed(tmp_path) == [node.key for node in plan(tiny())]
    again, begun = run_here(monkeypatch, tiny(), tmp_path, only="class:0/mlp/seed 1/finetune", fresh=True)
    assert len(begun) == len(again.done) == 5


def test_a_suite_is_noted_as_a_whole_whatever_part_of_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.suites.execute.execute", made_up)
    run_here(monkeypatch, tiny(), tmp_path, only="*class:0/*finetune*")
    assert listed(tmp_path) == [node.key for node in plan(tiny())]
    run_here(monkeypatch, tiny(), tmp_path, only="*class:0/*perturbed_sign*")
    there = [row.name for row in rows(tmp_path, "tiny")]
    assert [sum(method in name for name in there) for method in ("finetune", "perturbed_sign")] == [4, 8]
    more = tiny(methods=["finetune", "scrub"])
    run_here(monkeypatch, more, tmp_path, only="class:0/mlp/seed 0/scrub")
    assert listed(tmp_path) == [node.key for node in plan(more)]
    assert any("scrub" in row.name for row in rows(tmp_path, "tiny"))


def test_fresh_spares_what_another_runner_is_working_on_and_what_that_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.suites.execute.execute", made_up)
    run_here(monkeypatch, tiny(), tmp_path)
    nodes = {node.key: node for node in plan(tiny())}
    busy = next(node for node in nodes.values() if "class:0/mlp/seed 0/finetune" in node.name)
    claim = Store(tmp_path).claim(busy.key)
    assert claim is not None
    monkeypatch.setattr(runner, "_rest", lambda: pytest.fail("it waits for what it has no reason to do again"))
    summary, begun = run_here(monkeypatch, tiny(), tmp_path, fresh=True)
    claim.release()
    spared = [busy.name, *(nodes[key].name for key in busy.needs.values())]
    assert sorted(summary.reused) == sorted(spared)
    assert sorted(begun) == sorted(node.name for node in nodes.values() if node.name not in spared)


def test_what_another_runner_forgets_meanwhile_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suites.execute.execute", made_up)
    nodes = plan(tiny())

    def interrupted(node: Node, product: Callable[[str], Product]) -> Finished:
        ended = execute_safely(node, product)
        if node.name == "digits/class:1, then random:0.1/mlp/seed 0/reference":
            runner._forget(Store(tmp_path), nodes)  # what a second runner begins with
        return ended

    summary, begun = run_here(monkeypatch, tiny(), tmp_path, interrupted)
    assert summary.complete, summary.failed
    assert set(summary.done) == set(begun) == {node.name for node in nodes}
    assert begun.count("digits/mlp/seed 0/train original") == 2


@pytest.mark.parametrize("settings", [{"backend": "lokal"}, {"workers": 0}, {"threads": 0}])
def test_wrong_settings_are_refused_before_anything_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr("benchmarks.suites.execute.execute", made_up)
    suite = tiny(forget="class:0", methods=["finetune"])
    run_here(monkeypatch, suite, tmp_path)
    before = times(tmp_path)
    with pytest.raises(ValueError, match="expected"):
        run_suite(suite, tmp_path, fresh=True, **settings)
    assert times(tmp_path) == before


def test_a_device_that_is_not_here_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    elsewhere = tiny().model_copy(update={"device": "cuda:63"})
    with pytest.raises(ValueError, match="expected device to be one of this machine's, but got 'cuda:63'"):
        run_suite(elsewhere, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ray_is_asked_for_a_device_of_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="expected device to be one of this machine's, but got 'cuda'"):
        check_backend("ray", workers=1, threads=1, device="cuda")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_backend("ray", workers=1, threads=1, device="cuda")  # a cluster may have it
    with pytest.raises(ValueError, match=r"expected device to be cuda with ray, which .*, but got 'cuda:0'"):
        check_backend("ray", workers=1, threads=1, device="cuda:0")
    check_backend("ray", workers=1, threads=1, device="cuda", gpus=0.25)
    check_backend("ray", workers=1, threads=1, device="cuda", gpus=2)
    with pytest.raises(ValueError, match=r"expected gpus to be a share of one or a whole number of them, but got 1.5"):
        check_backend("ray", workers=1, threads=1, device="cuda", gpus=1.5)
    with pytest.raises(ValueError, match=r"expected gpus in \(0, inf\), but got 0"):
        check_backend("ray", workers=1, threads=1, device="cuda", gpus=0)
    for name, device in (("local", "cuda"), ("ray", "cpu")):
        with pytest.raises(ValueError, match=r"expected gpus with backend='ray' and device='cuda' alone, but got 0.5"):
            check_backend(name, workers=1, threads=1, device=device, gpus=0.5)


def test_beside_a_reference_that_diverged_every_distance_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blown_up(node: Node, product: Callable[[str], Product]) -> Finished:
        ended = execute_safely(node, product)
        if node.kind == "reference":
            assert ended.product is not None
            tensors = {name: value * 1e37 for name, value in ended.product.tensors.items()}
            assert all(value.isfinite().all() for value in tensors.values())
            return replace(ended, product=replace(ended.product, tensors=tensors))
        return ended

    suite = tiny(forget="class:0", methods=["finetune"])
    summary, _ = run_here(monkeypatch, suite, tmp_path, blown_up, only="seed 0/finetune")
    assert list(summary.refused) == ["digits/class:0/mlp/seed 0/reference"]
    assert summary.refused["digits/class:0/mlp/seed 0/reference"].startswith("diverged: ")
    found = rows(tmp_path)
    assert {row.method: row.status for row in found} == {
        "original": "ok", "reference": "diverged", "finetune": "ok",
    }  # fmt: skip
    for row in found:
        if row.status == "ok":
            assert row.reference is None
            assert 0 <= row.scores.retain <= 1
            assert {getattr(row.scores, name) for name in ("average_gap", "tug_of_war", "tug_of_war_mia")} == {None}
    key = next(row.key for row in found if row.method == "finetune")
    receipt = read_json(tmp_path / "receipts" / f"{key}.json")
    assert receipt is not None
    assert receipt["findings"] == []
    assert receipt["metrics"]["reference"] is None
    assert "| n/a |" in (tmp_path / "receipts" / f"{key}.md").read_text()
    for form in FORMATS:
        assert write_report(tmp_path, format=form).exists()
    with (tmp_path / "report.csv").open() as file:
        cells = {row["method"]: row for row in csv.DictReader(file)}
    assert [cells["finetune"].get(name, "") for name in ("average_gap", "rank")] == ["", ""]
    assert cells["finetune"]["retain"] != ""


def test_blocks_that_differ_in_their_settings_alone_are_told_apart_in_what_became_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(node: Node, inputs: Mapping[str, Product]) -> Product:
        if node.kind == "result" and node.config["method"]["name"] == "finetune":
            raise RuntimeError(f"with {node.config['data']['options']['train_size']}")
        return made_up(node, inputs)

    monkeypatch.setattr("benchmarks.suites.execute.execute", broken)
    sizes = [{"name": "digits", "options": {"train_size": size}} for size in (100, 120)]
    suite = tiny(forget="class:0", methods=["finetune"], data=sizes)
    summary, _ = run_here(monkeypatch, suite, tmp_path, only="seed 0/finetune")
    assert summary.failed == {
        f"digits/class:0/mlp/seed 0/finetune/seed 0/train_size={size}": f"RuntimeError: with {size}"
        for size in (100, 120)
    }


def test_overhead_counts_the_work_of_this_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.suites.execute.execute", made_up)
    summary, begun = run_here(monkeypatch, tiny(forget="class:0"), tmp_path)
    assert summary.worked == pytest.approx(0.01 * len(begun))
    again, _ = run_here(monkeypatch, tiny(forget="class:0"), tmp_path)
    assert again.worked == 0
    # The folder holds runs of the same names, by other settings.
    names = [node.name for node in plan(tiny(forget="class:0"))]
    monkeypatch.setattr(overhead, "run_suite", lambda *_, **__: SuiteSummary(done=names, worked=6.0, seconds=4.0))
    monkeypatch.setattr(sys, "argv", ["overhead", "quick", "--out", str(tmp_path)])
    overhead.main()
    assert "4.0 s of wall time, 6.0 s of work on 2 workers\noverhead 25.0%" in capsys.readouterr().out


def test_a_failure_is_recorded_and_only_what_needs_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(node: Node, product: Callable[[str], Product]) -> Finished:
        if node.kind == "reference" and "class:0/mlp/seed 1" in node.name:
            with monkeypatch.context() as patched:
                patched.setattr(algorithms, "retrain", lambda *_, **__: 1 / 0)
                return execute_safely(node, product)
        return execute_safely(node, product)

    # Of a whole class there are no held-out data to stop by, which the method alone knows.
    suite = tiny(methods=["erase_to_retain:stop_at=held-out", "finetune"], forget="class:0")
    summary, _ = run_here(monkeypatch, suite, tmp_path, broken)
    assert list(summary.failed) == ["digits/class:0/mlp/seed 1/train reference"]
    assert summary.failed["digits/class:0/mlp/seed 1/train reference"] == "ZeroDivisionError: division by zero"
    assert sorted(name.rpartition("seed 1/")[2] for name in summary.skipped) == [
        "erase_to_retain:stop_at=held-out/seed 0",
        "finetune/seed 0",
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

    def write(self: Store, record: Record, tensors: Any, real: Any = Store.write) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise self.unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        real(self, record, tensors)

    suite = tiny(forget="class:0", methods=["finetune"])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", write)
        with pytest.raises(OSError, match="No space left on device; what is finished is kept"):
            run_here(monkeypatch, suite, tmp_path)
    assert not list((tmp_path / "claims").iterdir())
    summary, begun = run_here(monkeypatch, suite, tmp_path)
    assert (len(summary.reused), len(begun)) == (5, 5)


def test_two_runners_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quickly(node: Node, product: Callable[[str], Product]) -> Finished:
        time.sleep(0.01)
        return Finished(node.key, made_up(node, {}))

    monkeypatch.setattr(runner, "make_backend", lambda _, store, **__: Here(store, quickly))
    monkeypatch.setattr(runner, "POLL", 0.01)
    summaries: list[SuiteSummary] = []
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
    store = Store(tmp_path)
    backend = make_backend("local", store, workers=1, threads=1)
    assert isinstance(backend, Local)
    try:
        backend.submit(Node("original", "k", "bomb", {"data": Bomb(os.abort)}))
        (found,) = backend.wait(120)
        assert (found.key, found.product) == ("k", None)
        assert found.reason == "a worker process died (SIGABRT)"
        assert found.died
        assert backend.free() == 1
        backend.submit(nodes[0])
        (found,) = backend.wait(120)
        assert found.product is not None
        assert found.product.record.threads == 1
        # What cannot be read fails its own node with the reason, and costs no worker.
        store.write(found.product.record, found.product.tensors)
        path = store.path("tensors", nodes[0].key, ".safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        needy = Node("result", "k", "needy", {}, {"original": nodes[0].key})
        for change, reason in (
            (lambda: None, f"CheckpointError: cannot read {str(path)!r}: it is cut short or not a safetensors file"),
            (path.unlink, f"ValueError: expected node {nodes[0].key!r} to be finished, but its record or its tensors"),
        ):
            change()
            backend.submit(needy)
            (found,) = backend.wait(120)
            assert (found.key, found.product) == ("k", None)
            assert found.reason.startswith(reason)
            assert "run the suite again, which makes" in found.reason
            assert found.trace.startswith("Traceback")
            assert found.reason in found.trace
            assert backend.free() == 1
    finally:
        backend.close()


def test_a_node_whose_worker_died_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tiny(forget="class:0", methods=["finetune"])
    dying = plan(suite)[0].key
    for deaths, failed, skipped in ((1, 0, 0), (2, 1, 2)):
        left = [Finished("", None, "a worker process died (SIGKILL)", "gone", died=True)] * deaths

        def work(node: Node, *rest: Any, left: list[Finished] = left) -> Finished:
            if left and node.key == dying:
                return replace(left.pop(), key=node.key)
            return execute_safely(node, *rest)

        backend = Here(Store(tmp_path / str(deaths)), work)
        monkeypatch.setattr(runner, "make_backend", lambda *_, found=backend, **__: found)
        found = run_suite(suite, tmp_path / str(deaths))
        assert backend.begun.count(plan(suite)[0].name) == 2
        assert (len(found.failed), len(found.skipped)) == (failed, skipped)
        assert set(found.failed.values()) <= {"a worker process died (SIGKILL)"}
        assert found.complete == (deaths == 1)


def test_a_node_runs_on_the_gpu_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[int] = []

    class Current:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            now.append(self.index)

        def __exit__(self, *_: object) -> None:
            now.pop()

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr("benchmarks.suites.execute.execute", lambda *_: Product({"gpu": list(now)}))
    node = plan(tiny())[0]
    for device, gpus in (("cuda", [[0], [1], [0]]), ("cpu", [[], [], []])):
        placed = replace(node, config={**node.config, "device": device})
        ended = [execute_safely(placed, pytest.fail, place).product for place in range(3)]
        assert [None if one is None else one.record["gpu"] for one in ended] == gpus
    assert now == []


def test_ray_is_asked_for_a_gpu_where_one_is_needed_and_what_cannot_be_read_fails_its_own_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    asked: list[dict[str, Any]] = []

    def begin(*arguments: Any) -> str:
        given.append(arguments[0].name)
        return str(given[-1])

    def options(**resources: Any) -> SimpleNamespace:
        asked.append(resources)
        return SimpleNamespace(remote=begin)

    cluster = SimpleNamespace(
        is_initialized=lambda: True,
        remote=lambda **_: lambda _: SimpleNamespace(options=options),
        put=lambda value: value,
        wait=lambda running, **_: (running, []),
        get=lambda reference: Finished(reference),
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    store = Store(tmp_path)
    for key in ("good", "bad"):
        store.write(made_up(Node("original", key, key, {}), {}).record, {"w": torch.zeros(9)})
    path = store.path("tensors", "bad", ".safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    backend = make_backend("ray", store, workers=3, threads=1, gpus=0.5)
    backend.submit(Node("result", "k", "needy", {}, {"original": "good", "reference": "bad"}))
    for device in ("cpu", "cuda"):
        backend.submit(Node("result", device, f"on {device}", {"device": device}, {"original": "good"}))
    (found,) = backend.wait(1)
    assert (found.key, found.product) == ("k", None)
    assert found.reason.startswith(f"CheckpointError: cannot read {str(path)!r}: it is cut short")
    assert found.trace.startswith("Traceback")
    assert [one.key for one in backend.wait(1)] == given == ["on cpu", "on cuda"]
    assert asked == [{"num_gpus": 0}, {"num_gpus": 0.5}]
    assert backend.free() == 3


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
    part = CliRunner().invoke(app, ["run", str(suite), "--dry-run", "--out", str(tmp_path / "out"), "--shard", "2/3"])
    assert 0 < part.stdout.count("\n") < len(plan(tiny()))
    wrong = CliRunner().invoke(app, ["run", str(suite), "--shard", "4/3"])
    assert wrong.exit_code == 2
    assert "expected shard to be i/n with i in 1..n, such as 2/8, but got '4/3'" in wrong.stderr
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
    def fails(*_: Any, **__: Any) -> SuiteSummary:
        return SuiteSummary(done=["a"], failed={"b": "RuntimeError: broken"}, skipped=["c"])

    monkeypatch.setattr(runner, "run_suite", fails)
    found = CliRunner().invoke(app, ["run", "quick", "--out", str(tmp_path)])
    assert found.exit_code == 1
    assert "b: RuntimeError: broken" in found.stdout
    assert "1 run, 0 already there, 1 failed, 1 skipped" in found.stdout


def test_a_second_reference_is_a_row_and_what_is_given_it_is_not_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["finetune", {"name": "oracle_matching", "options": {"steps": 3}}]
    both = tiny(methods=methods).model_copy(update={"references": 2})
    summary, _ = run_here(monkeypatch, both, tmp_path / "out")
    assert summary.complete
    records = {record.name: record for record in Store(tmp_path / "out", create=False).records()}
    (task, *_) = tasks(rows(tmp_path / "out"))
    ranks = {one.text: one.rank for one in task.rows}
    assert ranks == {
        "original": None, "reference": None, "reference 2": None, "oracle_matching:steps=3": None, "finetune": 1,
    }  # fmt: skip
    assert task.rows[-1].text == "finetune"
    again = next(one for one in task.rows if one.text == "reference 2")
    assert (again.role, again.competes) == ("further reference", False)
    yardstick = next(one for one in task.rows if one.text == "oracle_matching:steps=3")
    assert yardstick.notes == ["a yardstick: not ranked"]
    assert again.figure("average_gap").mean > 0
    assert suite_of(task, again)["references"] == 2
    assert command(again).endswith("--only '/reference 2'")
    trained = records["digits/class:0/mlp/seed 0/train reference 2"]
    assert trained.hashes["model"] != records["digits/class:0/mlp/seed 0/train reference"].hashes["model"]
    assert records["digits/class:0/mlp/seed 0/reference 2"].hashes["model"] == trained.hashes["model"]
    given = records["digits/class:0/mlp/seed 0/oracle_matching:steps=3/seed 0"]
    assert given.status == "ok"
    assert len(given.options["references"]) == 1
    names = {curve.name for curves in curves_of(rows(tmp_path / "out")).values() for curve in curves}
    assert not any("oracle_matching" in name or "reference" in name for name in names)


def test_the_groups_that_a_rule_names_are_scored_as_its_splits_are() -> None:
    bundle = simulate(load("digits", train_size=80), ("A", "B", "C"), 0)
    task = ForgetRule("where:scanner:B").task(bundle, 0)
    network = Blueprint("mlp", bundle.num_classes, 1)().eval()
    whole = evaluate(network, task)
    parts = division(task, bundle, ["where:scanner:B"])
    assert parts is not None
    assert parts.words == "1 of 3 scanners"
    found = group_scores(network, task, bundle, ["where:scanner:B"])
    assert found is not None
    assert list(found) == ["B", "A", "C"]  # what is forgotten first
    assert found["B"]["forgotten"] == found["B"]["train"] == whole.sizes["forget"]
    assert found["B"]["train_score"] == pytest.approx(whole.forget)
    assert found["A"]["forgotten"] == found["C"]["forgotten"] == 0
    kept = [found[name] for name in "AC"]
    assert sum(one["train"] for one in kept) == whole.sizes["retain"]
    mean = sum(one["train"] * one["train_score"] for one in kept) / whole.sizes["retain"]
    assert mean == pytest.approx(whole.retain)
    assert found["B"]["test"] == whole.sizes["forget_test"]
    assert found["B"]["test_score"] == pytest.approx(whole.forget_test)
    # Held-out samples that were set aside to choose by do not judge.
    assert sum(one["test"] for one in kept) == whole.sizes["retain_test"] < len(bundle.test) - found["B"]["test"]
    assert group_scores(network, task, replace(bundle, train_metadata=None), ["class:1"]) is None
