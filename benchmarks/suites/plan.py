"""From a suite to a graph of nodes, each known by the hash of all that its result depends on.

original (trained once for all scenarios), references (retrained without the forget data), then results: doing nothing,
the references themselves, and every method. A node's key covers its settings, the data's hash, the keys of what it
needs, the versions of unlearn-kit and torch, and the source of the code that makes it: equal keys are equal results,
whichever suite asks for them. That code is ``unlearn_kit`` and what of ``benchmarks`` makes results (:data:`MAKERS`);
references and results are also made by ``algorithms``. So a change of any algorithm repeats all results and no training
of an original, and a change of the core repeats everything. The source is read once; a worker that finds another one
refuses its node. A node's name is for people, and for choosing what is run.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from unlearn_kit.data import DataBundle, duplicates, load
from unlearn_kit.errors import check_choice
from unlearn_kit.hashing import LARGE, hash_code, hash_config, known_by
from unlearn_kit.models import MODELS

from ..setup.methods import YARDSTICKS
from ..setup.recipes import RECIPES
from ..setup.scenarios import Scenario, tell_duplicates
from .records import Kind, without_places
from .schema import Block, Data, Suite

# What of this program decides what a node holds; how runs are planned, spread, stored and reported does not.
MAKERS = (
    "unlearn_kit",
    "benchmarks.setup",
    "benchmarks.suites.execute",
    "benchmarks.suites.forgotten",
    "benchmarks.suites.revise",
    "benchmarks.suites.watch",
)


@dataclass(frozen=True)
class Node:
    """One piece of work and what it needs.

    Attributes:
        kind: "difficulty", "original", "reference" or "result".
        key: The hash of all that the result depends on.
        name: For people, and to choose by.
        config: All that is asked for.
        needs: Keys of the nodes it is made from, by role.
        labels: What people are told beside the name; no part of the key.
        code: The hash of the source that is to do the work, :func:`code_of`.
    """

    kind: Kind
    key: str
    name: str
    config: Mapping[str, Any]
    needs: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    @property
    def group(self) -> tuple[str, ...]:
        """Return what nodes that take about as long have in common."""
        method = self.config["method"]["name"] if self.kind == "result" else ""
        return (self.kind, self.config["data"]["name"], self.config["model"], method)


def plan(suite: Suite) -> list[Node]:
    """Return every node of a suite, each after what it needs; training seeds one after another. No two have one name.

    Reads the data sets, and draws every forget set but those of outliers.

    Raises:
        ValueError: Where a data set, model or rule does not fit, naming its block.
        TypeError: Where an option is of the wrong type, naming its block.
        DataNotFoundError: Where data are not there.
    """
    nodes: dict[str, Node] = {}
    for seed in suite.seeds.training:
        for place, block in enumerate(suite.matrix):
            for data in block.data:
                try:
                    _plan_data(suite, block, data, seed, nodes)
                except (ValueError, TypeError) as error:
                    raise type(error)(f"suite {suite.name!r}: matrix.{place}: {error}") from error
    return _told_apart(nodes.values())


@lru_cache(maxsize=16)
def _tell_duplicates(name: str, options: tuple[tuple[str, Any], ...]) -> None:
    """Tell once which pictures of a data set are there twice."""
    bundle, _ = open_data(name, options)
    splits = {"train": bundle.train, "validation": bundle.validation, "test": bundle.test}
    tell_duplicates(duplicates({split: held for split, held in splits.items() if held is not None}, limit=LARGE))


def _plan_data(suite: Suite, block: Block, data: Data, seed: int, nodes: dict[str, Node]) -> None:
    bundle, digest = open_data(data.name, frozen_options(data.options))
    _tell_duplicates(data.name, frozen_options(data.options))
    for model in block.models or (RECIPES[data.name].model,):
        check_choice(f"a model for {bundle.task}", model, [n for n, e in MODELS.items() if e.task == bundle.task])
        common = {
            "data": {"name": data.name, "options": dict(data.options), "hash": digest},
            "model": model,
            "training": training_of(block, data.name),
            "device": suite.device,
        }
        for scenario in block.forget:
            if not scenario.needs_difficulty:
                scenario.requests(bundle, seed)
            _plan_scenario(suite, block, common, scenario, seed, nodes)


def _plan_scenario(
    suite: Suite, block: Block, common: Mapping[str, Any], scenario: Scenario, seed: int, nodes: dict[str, Node]
) -> None:
    trained = f"{common['data']['name']}/{common['model']}/seed {seed}"
    forgets = f"{common['data']['name']}/{scenario.text}/{common['model']}/seed {seed}"
    hardness = {}
    if scenario.needs_difficulty:
        hardness = {"difficulty": _add(nodes, "difficulty", f"{trained}/train difficulty", {**common, "seed": seed})}
    original = _add(nodes, "original", f"{trained}/train original", {**common, "seed": seed})
    asked = {**common, "forget": list(scenario.rules)}
    trains = {**asked, "seed": seed}
    reference = _add(nodes, "reference", f"{forgets}/train reference", trains, hardness)
    others = {
        f"reference {k}": _add(nodes, "reference", f"{forgets}/train reference {k}", {**trains, "again": k}, hardness)
        for k in range(2, suite.references + 1)
    }

    def result(method: dict[str, Any], unlearning: int | None, needs: dict[str, str], labels: dict[str, Any]) -> str:
        seeds = {"training": seed, "unlearning": unlearning, "evaluation": list(suite.seeds.evaluation)}
        config = {**asked, "method": method, "seeds": seeds, "learning_curve": suite.learning_curve}
        run = "" if unlearning is None else f"/seed {unlearning}"
        return _add(nodes, "result", f"{forgets}/{method['text']}{run}", config, {**needs, **hardness}, labels)

    needs = {"original": original, "reference": reference}
    needs["baseline"] = result(_bare("reference"), None, {"reference": reference}, {})
    needs = {**needs, "nothing": result(_bare("original"), None, needs, {})}
    for name, other in others.items():
        result({**_bare(name), "yardstick": True}, None, {**needs, name: other}, {})
    for unlearning in suite.seeds.unlearning:
        for row in block.methods:
            knob = row.tradeoff_knob
            for variant in row.variants():
                method = {"name": variant.name, "options": dict(variant.options), "text": variant.text}
                labels = {} if knob is None else {"knob": knob, "value": variant.options[knob]}
                if variant.name in YARDSTICKS:
                    result({**method, "yardstick": True}, unlearning, {**needs, **others}, labels)
                else:
                    result(method, unlearning, needs, labels)


def _told_apart(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with names that differ: shared ones are followed by settings that differ, or else by keys."""
    found, alike = list(nodes), defaultdict[str, list[Node]](list)
    for node in found:
        alike[node.name].append(node)
    names = {}
    for name, several in alike.items():
        settings = [{**node.config["data"]["options"], **node.config["training"]} for node in several]
        known = sorted({key for one in settings for key in one})
        apart = [key for key in known if any(one.get(key) != settings[0].get(key) for one in settings)]
        texts = [", ".join(f"{key}={one.get(key, 'default')}" for key in apart) for one in settings]
        for node, text in zip(several, texts, strict=True):
            parts = [name, text, node.key[:8] if texts.count(text) > 1 else ""]
            names[node.key] = "/".join(part for part in parts if part)
    return [replace(node, name=names[node.key]) for node in found]


def _bare(name: str) -> dict[str, Any]:
    return {"name": name, "options": {}, "text": name}


def _add(
    nodes: dict[str, Node],
    kind: Kind,
    name: str,
    config: Mapping[str, Any],
    needs: Mapping[str, str] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> str:
    code = code_of(kind)
    key = hash_config(
        {
            "kind": kind,
            "config": {**config, "data": without_places(config["data"])},
            "needs": dict(needs or {}),
            "versions": {name: version(name) for name in ("unlearn-kit", "torch")},
            "code": code,
        }
    )[:24]
    if key not in nodes or (labels and not nodes[key].labels):
        nodes[key] = Node(kind, key, name, config, needs or {}, labels or {}, code)
    return key


def code_of(kind: Kind) -> str:
    """Return the hash of the source that makes nodes of a kind, as it was when this process first asked."""
    return hash_code(*MAKERS, *(() if kind in ("difficulty", "original") else ("algorithms",)))


def training_of(block: Block, data: str) -> dict[str, Any]:
    """Return how the original is trained: the recipe of the data set, overridden by the block."""
    recipe = RECIPES.get(data)
    given = block.training.model_dump()
    fallback = {"optimizer": "sgd", "weight_decay": 5e-4}
    return {
        name: value if value is not None else getattr(recipe, name) if recipe is not None else fallback[name]
        for name, value in given.items()
    }


@lru_cache(maxsize=4)
def open_data(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[DataBundle, str]:
    """Return a data set and the hash by which its samples are known, training and held-out."""
    given: dict[str, Any] = {key: list(value) if isinstance(value, tuple) else value for key, value in options}
    bundle = load(name, given.pop("root", None), **given)
    return bundle, hash_config([known_by(bundle.train), known_by(bundle.test)])


def frozen_options(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return options as :func:`open_data` takes them."""
    return tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))


Shard = tuple[int, int]  # the i-th of n, from 1


def read_shard(text: str) -> Shard:
    """Return the shard that a text such as "2/8" names, the second of eight.

    Raises:
        ValueError: When it names none.
    """
    place, _, count = text.partition("/")
    if not (place.isdecimal() and count.isdecimal() and 1 <= int(place) <= int(count)):
        raise ValueError(f"expected shard to be i/n with i in 1..n, such as 2/8, but got {text!r}")
    return int(place), int(count)


def select(nodes: Iterable[Node], pattern: str | None, shard: Shard | None = None) -> list[Node]:
    """Return the results whose name holds ``pattern`` (or matches it, where it has wildcards), and all that they need.

    Args:
        nodes: The plan.
        pattern: What names are chosen by; None for all.
        shard: ``(i, n)`` for the i-th of n parts of these results. Those of one training seed are neighbours in a plan
            and stay together as far as they can: what two shards need is made by one of them where they share a folder,
            and by both where they do not.

    Raises:
        ValueError: When none is chosen by its name.
    """
    every = list(nodes)
    if pattern is None and shard is None:
        return every
    text = pattern or "*"
    wild = text if any(sign in text for sign in "*?[") else f"*{text}*"
    results = [node.key for node in every if node.kind == "result" and fnmatch.fnmatchcase(node.name, wild)]
    if not results:
        raise ValueError(f"expected only to match some of the {len(every)} planned runs, but got {pattern!r}")
    place, count = shard or (1, 1)
    wanted = set(results[len(results) * (place - 1) // count : len(results) * place // count])
    for node in reversed(every):
        if node.key in wanted:
            wanted |= set(node.needs.values())
    return [node for node in every if node.key in wanted]
