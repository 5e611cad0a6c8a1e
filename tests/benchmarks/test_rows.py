from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import write_json
from benchmarks.rows import rows, suites_in
from benchmarks.store import Store
from benchmarks.tradeoff import curves_of


def scores(forget: float) -> dict[str, Any]:
    return dict.fromkeys(("forget", "retain", "forget_test", "retain_test", "test", "membership"), forget)


def record(key: str, method: str, forget: float, needs: dict[str, str], **options: Any) -> dict[str, Any]:
    text = ":".join([method, *(f"{name}={value}" for name, value in options.items())])
    return {
        "kind": "result",
        "name": f"d/class:0/m/{text}",
        "status": "ok",
        "reason": None,
        "needs": needs,
        "config": {
            "data": {"name": "d"},
            "forget": ["class:0", "class:1"],
            "model": "m",
            "method": {"name": method, "text": text, "options": options},
            "seeds": {"training": 4, "unlearning": 5, "evaluation": [0, 1]},
        },
        "evaluations": [{"seed": seed, "scores": scores(forget + seed / 10)} for seed in (0, 1)],
        "cost": {"seconds": 2.0, "peak_memory_bytes": 7},
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    store.write("t", {"kind": "reference", "cost": {"seconds": 8.0}}, {})
    store.write("r", record("r", "reference", 0.0, {"reference": "t"}), {})
    store.write("o", record("o", "original", 0.9, {"reference": "t", "baseline": "r"}), {})
    beside = {"reference": "t", "baseline": "r", "nothing": "o"}
    for key, lr in (("a", 0.1), ("b", 0.2)):
        store.write(key, record(key, "finetune", lr, beside, lr=lr, steps=3), {})
    store.write("c", record("c", "scrub", 0.5, beside), {})
    labelled = [{"key": "a", "knob": "lr", "value": 0.1}, {"key": "b", "knob": "lr", "value": 0.2}, {"key": "r"}]
    write_json({"name": "s", "nodes": labelled}, store.path("suites", "s"))
    return tmp_path


def test_a_row_an_evaluation_with_original_and_reference_of_the_same_seed(out: Path) -> None:
    found = rows(out)
    assert len(found) == 2 * 5
    row = next(row for row in found if row["key"] == "b" and row["evaluation_seed"] == 1)
    assert (row["forget"], row["training_seed"], row["unlearning_seed"]) == ("class:0, then class:1", 4, 5)
    assert (row["knob"], row["value"], row["seconds"], row["speed_up"]) == ("lr", 0.2, 2.0, 4.0)
    assert [row[name]["forget"] for name in ("scores", "original", "reference")] == pytest.approx([0.3, 1.0, 0.1])
    nothing = next(row for row in found if row["method"] == "original")
    assert nothing["scores"] == nothing["original"]
    assert nothing["speed_up"] is None


def test_one_suite_of_a_shared_folder(out: Path) -> None:
    assert suites_in(out) == ["s"]
    assert {row["key"] for row in rows(out, "s")} == {"a", "b", "r"}
    with pytest.raises(ValueError, match=r"expected suite to be one of \['s'\]"):
        rows(out, "t")


def test_rows_become_curves_along_their_knobs(out: Path) -> None:
    (curves,) = curves_of(rows(out)).values()
    by_name = {curve.name: curve for curve in curves}
    assert set(by_name) == {"finetune:steps=3", "scrub"}
    curve = by_name["finetune:steps=3"]
    assert curve.knob == "lr"
    assert [run.value for run in curve.runs] == [0.1, 0.1, 0.2, 0.2]
    assert by_name["scrub"].knob is None
