"""The results of a folder as flat rows, one for each evaluation, for tables, curves and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_kit.errors import check_choice

from ..suites.plan import without_places
from ..suites.store import Store, read_json

TASK = ("data", "forget", "model", "training", "device")


def suites_in(out: str | Path) -> list[str]:
    """Return the names of the suites that were run into a folder."""
    return sorted(path.stem for path in (Path(out) / "suites").glob("*.json"))


def rows(out: str | Path, suite: str | None = None) -> list[dict[str, Any]]:
    """Return every finished result of a folder, or of one suite in it.

    Args:
        out: The folder, a store.
        suite: The name of a suite that was run into it; None for all results.

    Returns:
        One row for each result and evaluation seed, with the keys ``key``, ``name``, ``data``, ``forget`` (text),
        ``model``, ``method``, ``text`` (with options), ``knob``, ``value``, ``training_seed``, ``unlearning_seed``,
        ``evaluation_seed``, ``status``, ``reason``, ``seconds``, ``speed_up`` (seconds of the reference over its own),
        ``peak_memory_bytes``, ``scores`` (None where a method refused or diverged), ``original`` and ``reference`` (the
        scores of doing nothing and of the reference under the same seeds; None where not finished), ``record`` (all
        else).

    Raises:
        ValueError: When ``suite`` was not run into the folder.
    """
    store = Store(out, create=False)
    labels: dict[str, dict[str, Any]] = {}
    wanted: set[str] | None = None
    for name in suites_in(out) if suite is None else [check_choice("suite", suite, suites_in(out))]:
        nodes = (read_json(store.path("suites", name)) or {}).get("nodes", [])
        # A knob is not part of a key: one suite may sweep what another runs once.
        labels |= {node["key"]: node for node in nodes if "knob" in node or node["key"] not in labels}
        if suite is not None:
            wanted = {node["key"] for node in nodes}
    records = {record["key"]: record for record in store.records()}
    found = []
    for key, record in records.items():
        if record["kind"] == "result" and (wanted is None or key in wanted):
            found += _rows(record, records, labels.get(key, {}))
    return sorted(found, key=lambda row: (row["name"], row["evaluation_seed"]))


def _rows(record: dict[str, Any], records: dict[str, Any], label: dict[str, Any]) -> list[dict[str, Any]]:
    config, seeds, seconds = record["config"], record["config"]["seeds"], record["cost"]["seconds"]
    method = config["method"]
    trained = records.get(record["needs"].get("reference", ""))
    faster = None
    if trained is not None and seconds > 0 and method["name"] not in ("original", "reference"):
        faster = trained["cost"]["seconds"] / seconds
    scores = {found["seed"]: found["scores"] for found in record["evaluations"]}
    beside = {
        name: {found["seed"]: found["scores"] for found in other["evaluations"]}
        for name, role in (("original", "nothing"), ("reference", "baseline"))
        if (other := records.get(record["needs"].get(role, ""))) is not None
    }
    return [
        {
            "key": record["key"],
            "name": record["name"],
            "data": config["data"]["name"],
            "forget": ", then ".join(config["forget"]),
            "model": config["model"],
            "method": method["name"],
            "text": method["text"],
            "knob": label.get("knob"),
            "value": label.get("value"),
            "training_seed": seeds["training"],
            "unlearning_seed": seeds["unlearning"],
            "evaluation_seed": seed,
            "status": record["status"],
            "reason": record["reason"],
            "seconds": seconds,
            "speed_up": faster,
            "peak_memory_bytes": record["cost"]["peak_memory_bytes"],
            "scores": scores.get(seed),
            "original": beside.get("original", {}).get(
                seed, scores.get(seed) if method["name"] == "original" else None
            ),
            "reference": beside.get("reference", {}).get(
                seed, scores.get(seed) if method["name"] == "reference" else None
            ),
            "record": record,
        }
        for seed in seeds["evaluation"]
    ]


def task_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record's ``config`` asks for beside the method and its seeds.

    Runs may be compared where it is equal. Where the data come from is no part of it, as it is no part of the nodes'
    keys.
    """
    return {**{name: config[name] for name in TASK}, "data": without_places(config["data"])}


def name_of(task: Mapping[str, Any]) -> str:
    """Return a task as one text, equal for equal tasks."""
    return json.dumps(task, sort_keys=True)


def titles(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return titles for people of tasks that differ.

    A title names the data, the rule and the network; where those are alike, also what else the tasks differ in.
    """
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
