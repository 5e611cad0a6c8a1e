"""Made-up records in a store, to measure and test what reads them. Never results: the figures are drawn at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from unlearn_kit.files import write_json

from ..setup.methods import METHODS, Variant
from ..suites.records import NodeCost, Record, SeedScores
from ..suites.store import Store

SIZES = {"forget": 6000, "retain": 54000, "forget_test": 1000, "retain_test": 9000}
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CURVE = (0.0, 0.3, 1.0, 3.0, 10.0)


def write_made_up(
    folder: str | Path,
    *,
    forget: Sequence[tuple[str, ...]] = (("class:0",),),
    trainings: int = 3,
    references: int = 1,
    revisions: int = 2,
    methods: Sequence[str] = METHODS,
    extra: Sequence[tuple[str, dict[str, Any]]] = (),
    seed: int = 0,
) -> Store:
    """Fill a store as a suite would: an original, a reference and every method on every request and seed.

    Args:
        folder: Of the store.
        forget: Scenarios, as lists of rules.
        trainings: Number of training seeds.
        references: Number of references of each.
        revisions: Number of unlearning seeds.
        methods: Names; ``perturbed_sign`` gets a curve over ``retain_weight`` beside.
        extra: Further ``(text, options)`` of methods, which may be names that no algorithm has.
        seed: Of the draws.
    """
    store, random = Store(folder), Random(seed)
    nodes: list[dict[str, Any]] = []
    rows: list[tuple[str, str, dict[str, Any]]] = [(name, name, {}) for name in methods]
    if "perturbed_sign" in methods:
        variants = [Variant("perturbed_sign", {"retain_weight": weight}) for weight in CURVE]
        rows += [("perturbed_sign", one.text, dict(one.options)) for one in variants]
    rows += [(text, text, options) for text, options in extra]
    for rules in forget:
        for training in range(trainings):
            baseline = _write(store, rules, training, None, ("reference", "reference", {}), {}, random)
            nothing = _write(store, rules, training, None, ("original", "original", {}), {"baseline": baseline}, random)
            needs = {"baseline": baseline, "nothing": nothing}
            nodes += [{"key": key, "kind": "result", "name": name} for name, key in needs.items()]
            for text in (f"reference {place}" for place in range(2, references + 1)):
                key = _write(store, rules, training, None, (text, text, {}), {"baseline": baseline}, random)
                nodes.append({"key": key, "kind": "result", "name": text})
            for revision in range(revisions):
                for row in rows:
                    key = _write(store, rules, training, revision, row, needs, random)
                    knob = (
                        {"knob": "retain_weight", "value": row[2]["retain_weight"]}
                        if row[2] and row[0] != row[1]
                        else {}
                    )
                    nodes.append({"key": key, "kind": "result", "name": row[1], **knob})
    suite = {"name": "made-up", "about": "Figures drawn at random, to measure the report.", "suite": {}, "nodes": nodes}
    write_json(suite, store.path("suites", "made-up"))
    return store


def _write(
    store: Store,
    rules: tuple[str, ...],
    training: int,
    revision: int | None,
    row: tuple[str, str, dict[str, Any]],
    needs: dict[str, str],
    random: Random,
) -> str:
    method, text, options = row
    key = f"{random.getrandbits(96):024x}"
    skill = Random(text).random()  # each method has its own place, whatever the seed
    scores = _scores(method, skill, random)
    seconds = (
        60.0 if method == "reference" else 0.5 * math.exp(4 * Random(text + "s").random()) * random.uniform(0.9, 1.1)
    )
    record = Record(
        key=key,
        kind="result",
        name=f"fashion-mnist/{', then '.join(rules)}/small-cnn/seed {training}/{text}",
        status="ok",
        reason=None,
        config={
            "data": {"name": "fashion-mnist", "options": {}, "hash": "0" * 64},
            "model": "small-cnn",
            "training": {"epochs": 6, "batch_size": 128, "lr": 0.05, "optimizer": "sgd", "weight_decay": 5e-4},
            "device": "cpu",
            "forget": list(rules),
            "method": {"name": method, "options": options, "text": text},
            "seeds": {"training": training, "unlearning": revision, "evaluation": [0]},
            "learning_curve": True,
        },
        needs=needs,
        versions={"python": "3.11", "unlearn-kit": "0.1.0", "torch": "2"},
        threads=1,
        hashes={"data": "0" * 64, "before": "2" * 64, "forget": "1" * 64, "model": key},
        class_names=CLASSES,
        forget_samples=SIZES["forget"],
        options={**options, "lr": 0.01, "epochs": 5},
        history=[{"phase": "unlearn", "step": step, "total": random.random()} for step in range(50)],
        learning_curve=[] if revision is None else _curve(scores),
        evaluations=[SeedScores(0, scores)],
        cost=NodeCost(
            seconds=seconds,
            cpu_seconds=seconds,
            node_seconds=seconds + 1,
            peak_memory_bytes=random.randint(900, 1100) * 2**20,
            device_memory_bytes=None,
            finished=f"2026-01-01T00:{training:02d}:{revision or 0:02d}+00:00",
        ),
    )
    store.write(record, {})
    return key


def _scores(method: str, skill: float, random: Random) -> dict[str, Any]:
    method = "reference" if method.startswith("reference ") else method

    def near(value: float, spread: float = 0.01) -> float:
        return min(1.0, max(0.0, random.gauss(value, spread)))

    forget = {"original": 0.9, "reference": 0.0}.get(method, 0.7 * skill**2)
    kept = {"original": 0.92, "reference": 0.93}.get(method, 0.93 - 0.15 * abs(skill - 0.5))
    found = {
        "forget": near(forget + 0.02),
        "retain": near(kept + 0.03, 0.004),
        "forget_test": near(forget),
        "retain_test": near(kept, 0.004),
        "membership": near({"original": 0.62, "reference": 0.5}.get(method, 0.5 + 0.1 * skill)),
    }
    gap = 0.0 if method == "reference" else (abs(found["forget_test"]) + abs(0.93 - kept)) / 2
    return {
        "kind": "classification",
        "sizes": dict(SIZES),
        **found,
        "test": 0.1 * found["forget_test"] + 0.9 * found["retain_test"],
        "per_class": {str(label): near(kept) if label else found["forget_test"] for label in range(len(CLASSES))},
        "dice": None,
        "reference": None,
        "average_gap": gap,
        "tug_of_war": 1 - gap,
        "tug_of_war_mia": 1 - gap,
    }


def _curve(scores: dict[str, Any], points: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "request": 0,
            "step": 10 * place,
            "planned": 10 * points,
            "phase": "unlearn",
            "forget": 0.9 + (scores["forget"] - 0.9) * place / points,
            "retain": scores["retain"],
            "held_out": scores["retain_test"],
        }
        for place in range(points + 1)
    ]
