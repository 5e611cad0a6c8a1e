"""The results of a folder as flat rows, one for each evaluation, for tables, curves and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_kit.errors import check_choice
from unlearn_kit.judging import beside
from unlearn_kit.scores import Evaluation

from ..suites.records import Record, Status, is_trained, without_places
from ..suites.store import Store, planned_nodes, read_json

BARE = ("original", "reference")  # what is shown beside the methods: doing nothing, and retraining
TASK = ("data", "forget", "model", "training", "device")


def suites_in(out: str | Path) -> list[str]:
    """Return the names of the suites that were run into a folder."""
    return sorted(path.stem for path in (Path(out) / "suites").glob("*.json"))


@dataclass(frozen=True)
class ResultRow:
    """One evaluation of a finished result, with what stands beside it.

    Attributes:
        key: The result's content key.
        name: The result's name, for people.
        data: The data set's name.
        forget: What is forgotten, in words.
        model: The network's name.
        method: The method's name.
        text: The method with its options.
        knob: The option that a suite sweeps; None where none does.
        value: The knob's value.
        training_seed: The seed of the original and the reference.
        unlearning_seed: The seed of the revision; None where nothing was revised.
        evaluation_seed: The seed of the evaluation.
        status: "ok", "n/a" or "diverged".
        reason: Why, when not ok.
        seconds: Wall time of the revision.
        speed_up: The reference's seconds over these; None where there is nothing to compare.
        peak_memory_bytes: Largest resident memory of the process.
        scores: What was scored; None where the method was refused or diverged.
        original: Scores of doing nothing under the same seeds; None where that is not finished.
        reference: Scores of the reference, in the same way.
        record: All else.
    """

    key: str
    name: str
    data: str
    forget: str
    model: str
    method: str
    text: str
    knob: str | None
    value: Any
    training_seed: int
    unlearning_seed: int | None
    evaluation_seed: int
    status: Status
    reason: str | None
    seconds: float
    speed_up: float | None
    peak_memory_bytes: float | None
    scores: Evaluation | None
    original: Evaluation | None
    reference: Evaluation | None
    record: Record


def is_further(row: ResultRow) -> bool:
    """Return whether a row is of a further reference, of another seed: it stands beside the first, its baseline."""
    return _is_further(row.record)


def _is_further(record: Record) -> bool:
    # By its name: "reference 2", "reference 3".
    return record.config["method"]["name"].split(" ")[0] == "reference" and "baseline" in record.needs


def rows(out: str | Path, suite: str | None = None) -> list[ResultRow]:
    """Return a row for each evaluation of every finished result of a folder, or of one suite in it.

    Records that cannot be read are skipped, as the log says.

    Raises:
        ValueError: On a suite that was not run into the folder.
    """
    store = Store(out, create=False)
    labels: dict[str, dict[str, Any]] = {}
    wanted: set[str] | None = None
    for name in suites_in(out) if suite is None else [check_choice("suite", suite, suites_in(out))]:
        nodes = planned_nodes(read_json(store.path("suites", name)))
        # A knob is not part of a key: one suite may sweep what another runs once.
        labels |= {node["key"]: node for node in nodes if "knob" in node or node["key"] not in labels}
        if suite is not None:
            wanted = {node["key"] for node in nodes}
    records = {record.key: record for record in store.records()}
    found = []
    for key, record in records.items():
        if record.kind == "result" and (wanted is None or key in wanted):
            found += _rows(record, records, labels.get(key, {}))
    return sorted(found, key=lambda row: (row.name, row.evaluation_seed))


def _rows(record: Record, records: Mapping[str, Record], label: Mapping[str, Any]) -> list[ResultRow]:
    """Return the rows of one result, one an evaluation seed."""
    config, seeds, seconds = record.config, record.config["seeds"], record.cost.seconds
    method = config["method"]
    trained = records.get(record.needs.get("reference", ""))
    faster = None
    if trained is not None and seconds > 0 and not is_trained(method["name"]):
        faster = trained.cost.seconds / seconds
    scores = _evaluations(record)
    needs = record.needs
    # The original and the reference stand beside themselves; further references beside the first.
    original, reference = (
        scores if method["name"] == name and role not in needs else _evaluations(records.get(needs.get(role, "")))
        for name, role in zip(BARE, ("nothing", "baseline"), strict=True)
    )
    if _is_further(record):
        scores = {
            seed: replace(beside(one, reference[seed]), reference=None) if seed in reference else one
            for seed, one in scores.items()
        }
    return [
        ResultRow(
            key=record.key,
            name=record.name,
            data=config["data"]["name"],
            forget=", then ".join(config["forget"]),
            model=config["model"],
            method=method["name"],
            text=method["text"],
            knob=label.get("knob"),
            value=label.get("value"),
            training_seed=seeds["training"],
            unlearning_seed=seeds["unlearning"],
            evaluation_seed=seed,
            status=record.status,
            reason=record.reason,
            seconds=seconds,
            speed_up=faster,
            peak_memory_bytes=record.cost.peak_memory_bytes,
            scores=scores.get(seed),
            original=original.get(seed),
            reference=reference.get(seed),
            record=record,
        )
        for seed in seeds["evaluation"]
    ]


def competes(config: Mapping[str, Any]) -> bool:
    """Return whether a result's ``config`` asks for a method: what is ranked, unlike references and yardsticks."""
    method = config["method"]
    return not is_trained(method["name"]) and not method.get("yardstick", False)


def _evaluations(record: Record | None) -> dict[int, Evaluation]:
    """Return the evaluations by seed."""
    return {} if record is None else {one.seed: one.evaluation for one in record.evaluations}


def task_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record's ``config`` asks for beside the method and its seeds; equal ones may be compared.

    Runs may be compared where it is equal. Where the data come from is no part of it, as it is no part of the nodes'
    keys.
    """
    return {**{name: config[name] for name in TASK}, "data": without_places(config["data"])}


def name_of(task: Mapping[str, Any]) -> str:
    """Return a task as one text, equal for equal tasks."""
    return json.dumps(task, sort_keys=True)


def titles(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return titles that tell tasks apart: data, rule and network; where those are alike, what else they differ in."""
    base = [" · ".join([task["data"]["name"], ", then ".join(task["forget"]), task["model"]]) for task in tasks]
    found: list[str] = []
    for title, task in zip(base, tasks, strict=True):
        rivals = [_settings(other) for other, its in zip(tasks, base, strict=True) if its == title]
        own = _settings(task)
        apart = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        found.append(" · ".join([title, *(f"{key}={own[key]}" for key in apart)]))
    return found


def _settings(task: Mapping[str, Any]) -> dict[str, Any]:
    data = task["data"]
    settings = {**data["options"], **task["training"], "device": task["device"], "data": data["hash"][:8]}
    # As texts: True and 1 are equal, but not the same setting.
    return {key: str(value) for key, value in settings.items()}
