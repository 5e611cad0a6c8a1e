from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suites.receipts import receipt_of
from benchmarks.suites.records import Record
from unlearn_kit.files import write_json
from unlearn_kit.metrics import Evaluation

SCORES = {
    "kind": "classification",
    "sizes": {"forget": 8, "retain": 72, "forget_test": 0, "retain_test": 40},
    "forget": 0.75,
    "retain": 1.0,
    "forget_test": None,
    "retain_test": 0.9,
    "test": 0.9,
    "membership": 0.5,
    "per_class": {"0": 1.0, "1": None},
    "dice": None,
    "auroc": None,
    "findings": None,
    "reference": None,
    "average_gap": 0.05,
    "tug_of_war": 0.8,
    "tug_of_war_mia": 0.9,
    "resolution": 0.01,
}
COMMON = {
    "versions": {"python": "3.11.9", "unlearn-kit": "0.1.0", "torch": "2.8.0"},
    "threads": 1,
}
TASK = {
    "data": {"name": "digits", "options": {"train_size": 80}, "hash": "d" * 64},
    "model": "mlp",
    "training": {"epochs": 1, "lr": 0.1},
    "device": "cpu",
}
COST = {"node_seconds": 0.5, "peak_memory_bytes": 400000000, "device_memory_bytes": None, "finished": "2026-01-01"}
# What files of format 1 held before there was a class for it, in the order of their fields.
TRAINED = {
    "format": 1,
    "key": "t",
    "tensors": True,
    "kind": "original",
    "name": "digits/mlp/seed 0/train original",
    "status": "ok",
    "reason": None,
    "config": {**TASK, "seed": 0},
    "needs": {},
    **COMMON,
    "hashes": {"data": "d" * 64, "model": "a" * 64},
    "history": [{"phase": "train", "step": 0, "total": 2.5, "other": None}],
    "parameters": 2410,
    "cost": {"seconds": 0.25, "cpu_seconds": 0.25, **COST},
}
RESULT = {
    "format": 1,
    "key": "r",
    "tensors": False,
    "kind": "result",
    "name": "digits/random:0.1/mlp/seed 0/finetune/seed 0",
    "status": "ok",
    "reason": None,
    "config": {
        **TASK,
        "forget": ["random:0.1"],
        "method": {"name": "finetune", "options": {}, "text": "finetune"},
        "seeds": {"training": 0, "unlearning": 0, "evaluation": [3]},
        "learning_curve": True,
    },
    "needs": {"original": "t", "reference": "u", "baseline": "b", "nothing": "n"},
    **COMMON,
    "hashes": {"data": "d" * 64, "before": "a" * 64, "forget": "f" * 64, "model": "c" * 64, "reference": None},
    "class_names": ["zero", "one"],
    "forget_samples": 8,
    "options": {"lr": 0.01, "epochs": 5},
    "details": {},
    "history": [],
    "learning_curve": [{"request": 0, "step": 0, "phase": "x", "forget": 1.0, "retain": 1, "held_out": None}],
    "evaluations": [{"seed": 3, "scores": SCORES}],
    "requests": [],
    "cost": {"seconds": 0, "cpu_seconds": 0.1, "request_seconds": [0], **COST},
}  # fmt: skip
BARE = {**RESULT, "cost": TRAINED["cost"]}
REFUSED = {name: value for name, value in RESULT.items() if name != "requests"} | {
    "status": "n/a",
    "reason": "expected another task",
    "evaluations": [],
}


def altered(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The record with another value at a path, or without it where the value is None."""
    changed = inner = copy.deepcopy(values)
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


SCORED = ("evaluations", 0, "scores")


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("config", "seeds"), None, "config.seeds: expected a value, but got none"),
        (("config", "seeds", "evaluation"), "0", "config.seeds.evaluation: expected"),
        (("config", "method", "text"), None, "config.method.text: expected a value, but got none"),
        (("config", "data", "hash"), 3, "config.data.hash: expected"),
        (("config", "learning_curve"), 1, "config.learning_curve: expected"),
        (("learning_curve", 0, "held_out"), "high", "learning_curve.0.held_out: expected"),
        (("learning_curve", 0, "step"), None, "learning_curve.0.step: expected a value, but got none"),
        (("learning_curve", 0, "request"), -1, "learning_curve.0.request: expected"),
        ((*SCORED, "forget"), "high", "expected scores of their types: scores: forget: expected"),
        ((*SCORED, "forget"), 1.5, r"expected forget in \[0, 1\], but got 1.5"),
        ((*SCORED, "sizes", "retain"), None, r"expected sizes of \['retain'\], but got"),
        ((*SCORED, "sizes", "forget"), 0, "expected sizes of 'forget' to be at least 1"),
        ((*SCORED, "per_class"), {"cat": 0.5}, "expected scores of their types: scores: per_class"),
        ((*SCORED, "dice"), {"forget": 0.5}, "expected dice of .'retain', 'forget_test', 'retain_test', 'test'."),
    ],
)
def test_an_incomplete_result_is_refused_by_file_and_field(path: tuple[Any, ...], value: Any, text: str) -> None:
    assert Record.from_dict(RESULT, "a.json").status == "ok"
    with pytest.raises((ValueError, TypeError), match=rf"^a\.json: .*{text}"):
        Record.from_dict(altered(RESULT, path, value), "a.json")


@pytest.mark.parametrize("values", [TRAINED, RESULT, BARE, REFUSED], ids=["trained", "result", "bare", "refused"])
def test_what_was_written_before_is_read_and_written_again_byte_for_byte(
    values: dict[str, Any], tmp_path: Path
) -> None:
    path = write_json(values, tmp_path / "before.json")
    record = Record.from_dict(json.loads(path.read_text()))
    assert write_json(record.as_dict(), tmp_path / "again.json").read_text() == path.read_text()
    assert Record.from_dict(record.as_dict()) == record


def test_fields_have_their_values_and_those_of_other_kinds_their_defaults() -> None:
    trained, result = Record.from_dict(TRAINED), Record.from_dict(RESULT)
    assert (trained.kind, trained.parameters, trained.cost.request_seconds) == ("original", 2410, None)
    assert (trained.evaluations, trained.forget_samples, trained.options) == ((), None, {})
    assert (result.config["method"]["name"], result.cost.request_seconds, result.parameters) == ("finetune", [0], None)
    (one,) = result.evaluations
    assert (one.seed, one.scores["forget"]) == (3, 0.75)
    assert isinstance(one.evaluation, Evaluation)
    assert (one.evaluation.per_class, one.evaluation.forget_test) == ({0: 1.0, 1: None}, None)
    assert one.evaluation.as_dict() == SCORES
    assert Record.from_dict({**RESULT, "of a later version": 1}) == result


GONE = object()


def edited(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of the result's values with another one at ``path``, or none."""
    found: Any = copy.deepcopy(RESULT)
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    if value is GONE:
        del inner[path[-1]]
    return found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "format: expected 1, but got 2"),
        (("format",), GONE, "format: expected 1, but got None"),
        (("threads",), GONE, "threads: expected a value, but got none"),
        (("cost", "finished"), GONE, "cost.finished: expected a value, but got none"),
        (("evaluations",), GONE, "evaluations: expected a value, but got none"),
        (("forget_samples",), None, "forget_samples: expected a value, but got none"),
        (("threads",), "1", "threads: expected a valid integer, but got '1'"),
        (("threads",), True, "threads: expected a valid integer, but got True"),
        (("tensors",), 1, "tensors: expected a valid boolean, but got 1"),
        (("name",), 7, "name: expected a valid string, but got 7"),
        (("status",), "done", "status: expected 'ok', 'n/a' or 'diverged', but got 'done'"),
        (("kind",), "run", "kind: expected 'difficulty', 'original', 'reference' or 'result', but got 'run'"),
        (("config",), [], "config: expected an object, but got []"),
        (("needs", "original"), 3, "needs.original: expected a valid string, but got 3"),
        (("history",), {}, "history: expected a valid array, but got {}"),
        (("cost",), 3, "cost: expected an object, but got 3"),
        (("cost", "seconds"), "fast", "cost.seconds: expected a valid number, but got 'fast'"),
        (("cost", "seconds"), None, "cost.seconds: expected a valid number, but got None"),
        (("cost", "peak_memory_bytes"), True, "cost.peak_memory_bytes: expected a valid number, but got True"),
        (("evaluations", 0, "seed"), "3", "evaluations.0.seed: expected a valid integer, but got '3'"),
        (
            ("evaluations", 0, "scores", "retain"),
            GONE,
            "evaluations.0.scores: expected the score 'retain', but got none",
        ),
        (
            ("evaluations", 0, "scores", "luck"),
            1.0,
            f"evaluations.0.scores: expected every score to be one of {list(SCORES)}, but got 'luck'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: tuple[Any, ...], value: Any, message: str) -> None:
    values = edited(path, value)
    for source, name in ((None, "record 'r'"), ("out/results/r.json", "out/results/r.json")):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{name}: {message}')}$"):
            Record.from_dict(values, source)


@pytest.mark.parametrize("values", [[], None, 3, {}])
def test_what_is_no_record_at_all_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^f\.json: .*: expected .*, but got "):
        Record.from_dict(values, "f.json")


def test_a_trained_model_has_its_number_of_parameters() -> None:
    with pytest.raises(ValueError, match="record 't': parameters: expected a value, but got none"):
        Record.from_dict({name: value for name, value in TRAINED.items() if name != "parameters"})


@pytest.mark.parametrize("count", [None, 7, math.inf])
def test_a_count_of_bytes_is_kept_as_it_is(count: float | None) -> None:
    # An infinity no runner writes, but a file from elsewhere may hold it.
    found = Record.from_dict(edited(("cost", "peak_memory_bytes"), count)).cost.peak_memory_bytes
    assert (found, type(found)) == (count, type(count))


def test_a_receipt_is_of_a_result_alone() -> None:
    record = Record.from_dict(RESULT)
    request = receipt_of(record, None, None).values["request"]
    assert (request["samples"], request["digest"], request["rules"]) == (8, "f" * 64, ["random:0.1"])
    with pytest.raises(ValueError, match="expected the record of a result, but got that of 'digits/mlp/seed 0/train"):
        receipt_of(Record.from_dict(TRAINED), None, None)
    refused = receipt_of(replace(record, status="n/a", reason="why", evaluations=()), None, None).values
    assert (refused["status"], refused["reason"], refused["metrics"]["after"]) == ("n/a", "why", None)


def test_what_earlier_versions_did_not_write_may_be_there_or_not() -> None:
    more = {
        "forget_groups": {"name": "patients", "touched": 2, "groups": 9},
        "group_scores": {"a": {"forgotten": 2, "train": 4, "train_score": 0.5, "test": 0, "test_score": None}},
        "confusion": {"1": {"1": 3, "7": 5}},
        "forget_losses": [0.5, 2],
    }
    for values in (RESULT, {**RESULT, **more}):
        assert Record.from_dict(values).as_dict() == values
    for name, wrong, said in (
        ("forget_groups", {"name": "patients", "touched": 2}, "expected 'groups' to be int, but got None"),
        ("group_scores", {"a": {"forgotten": 2}}, "group_scores"),
        ("confusion", {"1": {"7": "many"}}, "confusion"),
        ("forget_losses", ["x"], "forget_losses"),
    ):
        with pytest.raises(ValueError, match=said):
            Record.from_dict({**RESULT, **more, name: wrong})
