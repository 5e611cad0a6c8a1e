"""The results of a folder as flat rows, one for each evaluation, for tables, curves and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearn_kit.errors import check_choice

from .store import Store, read_json


def suites_in(out: str | Path) -> list[str]:
    """Names of the suites that were run into a folder."""
    return sorted(path.stem for path in (Path(out) / "suites").glob("*.json"))


def rows(out: str | Path, suite: str | None = None) -> list[dict[str, Any]]:
    """Every finished result of a folder, or of one suite in it.

    A row has: ``key``, ``name``, ``data``, ``forget`` (text), ``model``, ``method``, ``text`` (with options), ``knob``,
    ``value``, ``training_seed``, ``unlearning_seed``, ``evaluation_seed``, ``status``, ``reason``, ``seconds``,
    ``speed_up`` (reference's seconds over its own), ``peak_memory_bytes``, ``scores``, ``original``, ``reference``
    (scores of doing nothing and of the reference for the same seeds; None where not finished), ``record`` (all else).
    ``scores`` is None where a method was refused or diverged.

    Raises: ValueError on a suite that was not run into the folder.
    """
    store = Store(out, create=False)
    labels: dict[str, dict[str, Any]] = {}
    wanted: set[str] | None = None
    for name in suites_in(out) if suite is None else [check_choice("suite", suite, suites_in(out))]:
        nodes = (read_json(store.path("suites", name)) or {}).get("nodes", [])
        labels |= {node["key"]: node for node in nodes}
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
