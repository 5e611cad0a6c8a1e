from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.resolution import places, resolution_of
from benchmarks.analysis.rows import is_further, name_of, rows, suites_in, task_of, titles
from benchmarks.analysis.tradeoff import curves_of
from benchmarks.suites.records import NodeCost, Record, SeedScores
from benchmarks.suites.store import Store
from unlearn_kit.files import write_json
from unlearn_kit.metrics.evaluate import SPLITS, Evaluation


def scores(forget: float) -> dict[str, Any]:
    axes = dict.fromkeys(("forget", "retain", "forget_test", "retain_test", "test", "membership"), forget)
    return Evaluation(kind="classification", sizes=dict.fromkeys(SPLITS, 100), per_class=None, **axes).as_dict()


def record(key: str, method: str, forget: float, needs: dict[str, str], **options: Any) -> Record:
    text = ":".join([method, *(f"{name}={value}" for name, value in options.items())])
    return Record(
        key=key,
        kind="result",
        name=f"d/class:0/m/{text}",
        status="ok",
        reason=None,
        needs=needs,
        config={
            "data": {"name": "d", "options": {}, "hash": "0" * 64},
            "forget": ["class:0", "class:1"],
            "model": "m",
            "training": {"epochs": 6},
            "device": "cpu",
            "method": {"name": method, "text": text, "options": options},
            "seeds": {"training": 4, "unlearning": 5, "evaluation": [0, 1]},
        },
        versions={},
        threads=1,
        hashes={},
        history=[],
        forget_samples=1,
        evaluations=[SeedScores(seed, scores(forget + seed / 10)) for seed in (0, 1)],
        cost=NodeCost(
            seconds=2.0,
            cpu_seconds=2.0,
            node_seconds=3.0,
            peak_memory_bytes=7,
            device_memory_bytes=None,
            finished="2026-01-01T00:00:00+00:00",
        ),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    trained = record("t", "reference", 0.0, {})
    store.write(replace(trained, kind="reference", parameters=1, cost=replace(trained.cost, seconds=8.0)), {})
    store.write(record("r", "reference", 0.0, {"reference": "t"}), {})
    store.write(record("o", "original", 0.9, {"reference": "t", "baseline": "r"}), {})
    beside = {"reference": "t", "baseline": "r", "nothing": "o"}
    for key, lr in (("a", 0.1), ("b", 0.2)):
        store.write(record(key, "finetune", lr, beside, lr=lr, steps=3), {})
    store.write(record("c", "scrub", 0.5, beside), {})
    labelled = [{"key": "a", "knob": "lr", "value": 0.1}, {"key": "b", "knob": "lr", "value": 0.2}, {"key": "r"}]
    write_json({"name": "s", "nodes": labelled}, store.path("suites", "s"))
    return tmp_path


def test_a_row_an_evaluation_with_original_and_reference_of_the_same_seed(out: Path) -> None:
    found = rows(out)
    assert len(found) == 2 * 5
    row = next(row for row in found if row.key == "b" and row.evaluation_seed == 1)
    assert (row.forget, row.training_seed, row.unlearning_seed) == ("class:0, then class:1", 4, 5)
    assert (row.knob, row.value, row.seconds, row.speed_up) == ("lr", 0.2, 2.0, 4.0)
    assert [getattr(row, name).forget for name in ("scores", "original", "reference")] == pytest.approx([0.3, 1.0, 0.1])
    nothing = next(row for row in found if row.method == "original")
    assert nothing.scores == nothing.original
    assert nothing.speed_up is None


def test_one_suite_of_a_shared_folder(out: Path) -> None:
    assert suites_in(out) == ["s"]
    assert {row.key for row in rows(out, "s")} == {"a", "b", "r"}
    with pytest.raises(ValueError, match=r"expected suite to be one of \['s'\]"):
        rows(out, "t")


def test_rows_become_curves_along_their_knobs(out: Path) -> None:
    (curves,) = curves_of(rows(out)).values()
    by_name = {curve.name: curve for curve in curves}
    assert set(by_name) == {"finetune:steps=3", "scrub"}
    curve = by_name["finetune:steps=3"]
    assert curve.knob == "lr"
    assert [run.value for run in curve.runs] == [0.1, 0.2]
    assert by_name["scrub"].knob is None


def test_evaluations_of_one_revision_are_no_runs(out: Path) -> None:
    store = Store(out)
    # The two evaluations of "c" lie on either side of the reference's 0.0 and 0.1.
    revised = record("c", "scrub", 0.0, {"reference": "t", "baseline": "r", "nothing": "o"})
    store.write(replace(revised, evaluations=[SeedScores(seed, scores(0.05)) for seed in (0, 1)]), {})
    (curves,) = curves_of(rows(out)).values()
    (point,) = next(curve for curve in curves if curve.name == "scrub").points()
    assert (point.x.n, point.x.trainings, point.x.half, point.gap_x.half) == (1, 1, None, None)
    assert point.x.mean == pytest.approx(0.05)
    assert point.gap_x.mean == pytest.approx(0.05)  # the mean of the gaps, not the gap of the means, which is 0
    run = curves[0].runs[0]
    assert (run.original["forget"], run.reference["forget"]) == pytest.approx((0.95, 0.05))
    assert len(curves[0].frame()) == len(curves[0].runs)


def test_a_refused_revision_is_one_run_however_often_it_would_have_been_evaluated(out: Path) -> None:
    refused = record("c", "scrub", 0.0, {"reference": "t", "baseline": "r", "nothing": "o"})
    Store(out).write(replace(refused, status="n/a", reason="why", evaluations=[]), {})
    (curves,) = curves_of(rows(out)).values()
    (run,) = next(curve for curve in curves if curve.name == "scrub").runs
    assert (run.scores, run.reason) == (None, "why")


@pytest.mark.parametrize("other", ["a", "z"])
def test_a_suite_that_runs_a_method_once_does_not_take_it_off_the_curve_of_another(out: Path, other: str) -> None:
    write_json({"name": other, "nodes": [{"key": "a"}, {"key": "c"}]}, Store(out).path("suites", other))
    assert suites_in(out) == sorted([other, "s"])
    (curves,) = curves_of(rows(out)).values()
    assert {curve.name: len(curve.runs) for curve in curves} == {"finetune:steps=3": 2, "scrub": 1}


def test_nodes_without_a_result_are_no_rows(out: Path) -> None:
    nodes = [{"key": "a", "knob": "lr", "value": 0.1}, {"key": "not run yet", "knob": "lr", "value": 0.3}]
    write_json({"name": "s", "nodes": nodes}, Store(out).path("suites", "s"))
    assert {row.key for row in rows(out, "s")} == {"a"}
    assert {row.key for row in rows(out)} == {"a", "b", "c", "o", "r"}


def test_a_record_that_cannot_be_read_is_skipped_and_said_once(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Store(out).path("results", "a")
    path.write_text(path.read_text().replace('"threads": 1', '"threads": "one"'))
    assert {row.key for row in rows(out)} == {"b", "c", "o", "r"}
    said = f"skipped a record that cannot be read: {path}: threads: expected a valid integer, but got 'one'"
    assert caplog.record_tuples == [("unlearn_kit", logging.WARNING, said)]


def copy(out: Path, key: str, seed: int = 4, finished: str = "2026-01-01", forget: float = 0.7, **config: Any) -> None:
    """Another result of "c" with another configuration."""
    beside = {"reference": "t", "baseline": "r", "nothing": "o"}
    one = record(key, "scrub", forget, beside)
    asked = {**one.config, **config, "seeds": {**one.config["seeds"], "training": seed}}
    Store(out).write(replace(one, config=asked, cost=replace(one.cost, finished=finished)), {})


def test_tasks_that_differ_in_training_have_curves_of_their_own(out: Path) -> None:
    copy(out, "d", seed=9, training={"epochs": 12})
    found = curves_of(rows(out))
    assert set(found) == {f"d · class:0, then class:1 · m · epochs={epochs}" for epochs in (6, 12)}
    for curves in found.values():
        (curve,) = [one for one in curves if one.name == "scrub"]
        assert len(curve.runs) == 1


def test_where_data_come_from_makes_no_other_task(out: Path) -> None:
    copy(out, "d", seed=9, data={"name": "d", "options": {"download": True, "root": "/data"}, "hash": "0" * 64})
    ((title, curves),) = curves_of(rows(out)).items()
    assert title == "d · class:0, then class:1 · m"
    (curve,) = [one for one in curves if one.name == "scrub"]
    assert [run.training_seed for run in curve.runs] == [4, 9]


def test_of_two_results_of_one_revision_the_curve_has_the_newer(out: Path) -> None:
    copy(out, "d", finished="2027-01-01")
    copy(out, "e", finished="2025-01-01", forget=0.1)
    (curves,) = curves_of(rows(out)).values()
    (run,) = next(curve for curve in curves if curve.name == "scrub").runs
    assert run.scores["forget"] == pytest.approx(0.75)


def task(options: dict[str, Any], epochs: int = 6, digest: str = "0", device: str = "cpu") -> dict[str, Any]:
    return {
        "data": {"name": "d", "options": options, "hash": digest * 64},
        "forget": ["class:0"],
        "model": "m",
        "training": {"epochs": epochs},
        "device": device,
    }


def test_titles_of_tasks_that_differ_are_unique() -> None:
    every = [
        task(options, epochs, digest, device)
        for options in ({}, {"size": 1}, {"size": True}, {"size": None}, {"size": 2, "train_size": 5})
        for epochs in (6, 12)
        for digest in "ab"
        for device in ("cpu", "cuda")
    ]
    assert len({name_of(task_of(one)) for one in every}) == len(every)
    found = titles(every)
    assert len(set(found)) == len(every)
    assert found[0] == "d · class:0 · m · epochs=6 · device=cpu · data=aaaaaaaa"
    assert titles(every[:1]) == ["d · class:0 · m"]
    assert len(set(titles([task({"size": 1}), task({"size": True})]))) == 2
    assert titles([task({}), {**task({}), "model": "n"}]) == ["d · class:0 · m", "d · class:0 · n"]


def test_a_further_reference_stands_beside_the_first(out: Path) -> None:
    needs = {"reference": "t", "reference 2": "t2", "baseline": "r", "nothing": "o"}
    Store(out).write(record("r2", "reference 2", 0.07, needs), {})
    found = rows(out)
    (first, _), (further, _) = ([row for row in found if row.key == key] for key in ("r", "r2"))
    assert (is_further(first), is_further(further)) == (False, True)
    assert first.scores == first.reference == further.reference
    assert further.speed_up is None
    assert (further.scores.forget, further.scores.average_gap) == pytest.approx((0.07, 0.07))
    assert resolution_of(found) == pytest.approx(0.07)
    assert resolution_of(rows(out, "s")) is None
    curves = [curve for several in curves_of(found).values() for curve in several]
    assert {curve.name for curve in curves} == {"finetune:steps=3", "scrub"}  # neither of the references
    for each in (one for curve in curves for one in curve.runs):
        assert each.resolution("forget", "retain") == pytest.approx(0.07 * 2**0.5)


@pytest.mark.parametrize(
    ("resolution", "wanted"), [(None, [1, 2, 3]), (0.0, [1, 2, 3]), (0.2, [1, 1, 3]), (1.0, [1, 1, 1])]
)
def test_places_within_the_resolution_are_shared(resolution: float | None, wanted: list[int]) -> None:
    assert places([0.1, 0.2, 0.3], resolution) == wanted
