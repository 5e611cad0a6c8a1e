from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.setup.methods import Attempt
from benchmarks.setup.scenarios import Scenario
from benchmarks.suites import parse_suite
from benchmarks.suites import plan as plans
from benchmarks.suites.execute import execute_safely
from benchmarks.suites.plan import Node, open_data, plan, read_shard, select
from benchmarks.suites.progress import Estimate
from benchmarks.suites.revise import revise
from unlearn_kit import UnlearnResult, hashing
from unlearn_kit.data import load
from unlearn_kit.data.tensors import labels_of, resolve, subset


def planned(**changes: Any) -> list[Node]:
    seeds = changes.pop("seeds", {"training": [0, 1]})
    watched, references = changes.pop("learning_curve", False), changes.pop("references", 1)
    block = {
        "data": {"name": "digits", "options": {"train_size": 100}},
        "forget": ["class:0", "random:0.1"],
        "models": "mlp",
        "training": {"epochs": 1},
        "methods": ["finetune", {"name": "perturbed_sign", "grid": {"retain_weight": [0, 1]}}],
    }
    suite = {"name": "x", "seeds": seeds, "learning_curve": watched, "matrix": [{**block, **changes}]}
    return plan(parse_suite({**suite, "references": references}))


def by_kind(nodes: list[Node], kind: str) -> list[Node]:
    return [node for node in nodes if node.kind == kind]


def test_the_matrix_is_complete_and_originals_are_shared_between_scenarios() -> None:
    nodes = planned(seeds={"training": [0, 1], "unlearning": [0, 1, 2]})
    assert len(by_kind(nodes, "original")) == 2
    assert len(by_kind(nodes, "reference")) == 4
    # Two seeds, two scenarios: doing nothing, the reference, and three variants under three seeds.
    assert len(by_kind(nodes, "result")) == 2 * 2 * (2 + 3 * 3)
    assert len({node.key for node in nodes}) == len({node.name for node in nodes}) == len(nodes)


def test_further_references_are_rows_that_change_nothing_else() -> None:
    methods = ["finetune", "oracle_matching"]
    one, three = (planned(seeds={"training": [4]}, methods=methods, references=count) for count in (1, 3))
    more = {node.name: node for node in three if node.key not in {own.key for own in one}}
    trained = {f"digits/{rule}/mlp/seed 4/train reference {k}" for rule in ("class:0", "random:0.1") for k in (2, 3)}
    # The yardstick is given the others, and so is another one with them.
    yardsticks = {f"digits/{rule}/mlp/seed 4/oracle_matching/seed 0" for rule in ("class:0", "random:0.1")}
    assert set(more) == trained | {name.replace("train ", "") for name in trained} | yardsticks
    second, given = (
        more["digits/class:0/mlp/seed 4/reference 2"],
        more["digits/class:0/mlp/seed 4/oracle_matching/seed 0"],
    )
    assert second.needs["reference 2"] == more["digits/class:0/mlp/seed 4/train reference 2"].key
    assert {"reference", "reference 2", "reference 3"} <= given.needs.keys()
    assert not any(role.startswith("reference ") for node in one for role in node.needs)
    marked = {
        node.name.split("/")[4] for node in three if node.kind == "result" and node.config["method"].get("yardstick")
    }
    assert marked == {"reference 2", "reference 3", "oracle_matching"}


def test_every_node_comes_after_what_it_needs() -> None:
    nodes = planned(forget=["class:0", "outliers:0.1"])
    seen: set[str] = set()
    for node in nodes:
        assert set(node.needs.values()) <= seen
        seen.add(node.key)
    hard = [n for n in nodes if "outliers" in n.name]
    assert all("difficulty" in node.needs for node in hard)
    assert not any("difficulty" in node.needs for node in nodes if "class:0" in node.name)


def test_keys_change_with_what_matters_and_with_nothing_else() -> None:
    keys = {node.name: node.key for node in planned()}
    assert {node.name: node.key for node in planned()} == keys
    # Another block order, more methods: the old ones keep their keys.
    more = {node.name: node.key for node in planned(methods=["scrub", "finetune"])}
    shared = keys.keys() & more.keys()
    assert any("finetune" in name for name in shared)
    assert all(more[name] == keys[name] for name in shared)
    trained = {node.name: node.key for node in planned(training={"epochs": 2})}
    assert not set(trained.values()) & set(keys.values())
    other = {node.name: node.key for node in planned(data={"name": "digits", "options": {"train_size": 101}})}
    assert not set(other.values()) & set(keys.values())
    watched = {node.name: node.key for node in planned(learning_curve=True)}
    same = {name for name in keys if watched[name] == keys[name]}
    assert same == {name for name in keys if "train" in name}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ("algorithms", {"reference", "result"}),
        ("unlearn_kit", {"difficulty", "original", "reference", "result"}),
        ("benchmarks.setup", {"difficulty", "original", "reference", "result"}),
        ("benchmarks.report", set()),
    ],
)
def test_keys_change_with_the_code_that_makes_a_node(
    changed: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {node.name: node.key for node in planned(forget=["class:0", "outliers:0.1"])}
    source = hashing._package_source
    monkeypatch.setattr(hashing, "_package_source", lambda name: "other" if name == changed else source(name))
    after = planned(forget=["class:0", "outliers:0.1"])
    assert {node.kind for node in after if node.key != before[node.name]} == kinds
    assert {node.kind for node in after if node.key == before[node.name]} == {node.kind for node in after} - kinds


def test_a_worker_with_other_code_refuses_its_node() -> None:
    node = planned(seeds={"training": [0]})[0]
    ended = execute_safely(replace(node, code="other"), lambda _: pytest.fail("it needs nothing"))
    assert ended.product is None
    assert ended.reason.startswith(f"ValueError: expected the code that makes {node.name!r} to be what it was planned")


def sizes(*given: int | None) -> list[dict[str, Any]]:
    return [{"name": "digits", "options": {} if size is None else {"train_size": size}} for size in given]


def test_names_say_what_differs_where_they_would_be_alike_and_keys_stay() -> None:
    apart = planned(data=sizes(100, None), seeds={"training": [0]}, forget="class:0", methods=["finetune"])
    assert len({node.name for node in apart}) == len(apart) == 10
    assert [node.name for node in apart if node.kind == "original" or "finetune" in node.name] == [
        f"digits/{name}/train_size={size}"
        for size in ("100", "default")
        for name in ("mlp/seed 0/train original", "class:0/mlp/seed 0/finetune/seed 0")
    ]
    one, other = (
        planned(data=sizes(size), seeds={"training": [0]}, forget="class:0", methods=["finetune"])
        for size in (100, None)
    )
    assert [node.key for node in apart] == [node.key for node in (*one, *other)]
    assert not any("train_size" in node.name for node in (*one, *other))
    chosen = select(apart, "*finetune*train_size=100")
    assert {node.key for node in chosen} == {node.key for node in one}


def test_names_of_blocks_that_differ_in_training_or_in_what_no_text_tells() -> None:
    block = {"data": "digits", "forget": "class:0", "models": "mlp"}
    lrs = [0.12345671, 0.12345672]
    blocks = [{**block, "methods": [f"finetune:lr={lr}"], "training": {"epochs": 1}} for lr in lrs]
    blocks.append({**block, "methods": ["finetune"], "training": {"epochs": 2}})
    nodes = plan(parse_suite({"name": "x", "matrix": blocks}))
    names = {node.name: node.key for node in nodes}
    assert len(names) == len({node.key for node in nodes}) == len(nodes)
    assert {"digits/mlp/seed 0/train original/epochs=1", "digits/mlp/seed 0/train original/epochs=2"} <= names.keys()
    tuned = [name for name in names if "finetune:lr" in name]
    assert [name.split("/")[-1] for name in tuned] == [names[name][:8] for name in tuned]
    assert "digits/class:0/mlp/seed 0/finetune/seed 0" in names


def test_a_grid_over_one_option_is_labelled_as_a_curve() -> None:
    labels = {node.name.split("/")[4]: dict(node.labels) for node in planned() if node.kind == "result"}
    assert labels["perturbed_sign:retain_weight=1"] == {"knob": "retain_weight", "value": 1}
    assert labels["finetune"] == {}


def test_selection_brings_along_what_is_needed() -> None:
    nodes = planned(seeds={"training": [0]})
    chosen = select(nodes, "*class:0*finetune*")
    assert [n.name.rpartition("mlp/")[2] for n in chosen] == [
        "seed 0/train original",
        "seed 0/train reference",
        "seed 0/reference",
        "seed 0/original",
        "seed 0/finetune/seed 0",
    ]
    assert len(select(nodes, "finetune")) == 9
    with pytest.raises(ValueError, match="expected only to match some of the 13 planned runs, but got 'nope'"):
        select(nodes, "nope")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_shards_are_the_whole_plan_and_share_no_result(count: int) -> None:
    nodes = planned()
    shards = [select(nodes, None, (place, count)) for place in range(1, count + 1)]
    assert {node.key for shard in shards for node in shard} == {node.key for node in nodes}
    for shard in shards:
        keys = {node.key for node in shard}
        assert all(keys.issuperset(node.needs.values()) for node in shard)
    named = [select(nodes, "finetune", (place, count)) for place in range(1, count + 1)]
    asked = [node.key for shard in named for node in shard if node.kind == "result" and "finetune" in node.name]
    assert sorted(asked) == sorted(node.key for node in nodes if "finetune" in node.name)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "/2", "a/2", "-1/2", "1.5/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected shard to be i/n with i in 1\.\.n, such as 2/8, but got"):
        read_shard(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": "class:12"}, r"suite 'x': matrix.0: expected label to be a class in \[0, 9\], but got 12"),
        ({"forget": "where:device:B"}, "'digits' has none"),
        ({"models": "unet"}, "matrix.0: expected a model for classification to be one of"),
        ({"data": {"name": "digits", "options": {"train_size": 0}}}, "expected train_size to be at least 1"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(**changes)


def test_requests_of_a_sequence_add_up_and_never_keep_what_went_before() -> None:
    digits = load("digits", train_size=200)
    scenario = Scenario(("class:1", "random:0.2", "class:2"))
    requests = scenario.requests(digits, 3)
    gone: set[int] = set()
    for task in requests:
        gone |= set(resolve(task.forget)[1].tolist())
        assert len(task.retain) == 200 - len(gone)
        assert 1 not in labels_of(task.retain).tolist()
    whole = scenario.whole(requests)
    assert set(resolve(whole.forget)[1].tolist()) == gone
    assert {1, 2} <= set(labels_of(whole.forget).tolist())
    assert not {1, 2} & set(labels_of(whole.retain).tolist())
    assert sorted(set(labels_of(whole.forget_test).tolist())) == [1, 2]
    splits = [getattr(whole, f"{side}_{part}") for side in ("forget", "retain") for part in ("test", "validation")]
    places = [place for split in splits for place in resolve(split)[1].tolist()]
    assert sorted(places) == list(range(len(digits.test)))


def test_no_request_of_one_training_is_one_of_another() -> None:
    digits, scenario = load("digits", train_size=200), Scenario(("random:0.2", "random:0.2"))
    drawn = [task.forget_indices.tolist() for seed in (0, 1) for task in scenario.requests(digits, seed)]
    assert len({tuple(indices) for indices in drawn}) == 4
    # Two independent draws of a fifth share a fifth of it, up to four standard deviations: 8 of 40, by chance +- 9.
    assert all(len(set(a) & set(b)) < 18 for a, b in combinations(drawn, 2))


def test_unlearning_seeds_are_independent_over_trainings_seeds_and_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def attempt(*_: Any, seed: int, **__: Any) -> Attempt:
        seen.append(seed)
        return Attempt("ok", UnlearnResult(nn.Linear(1, 1), [], 0.0, "finetune", {}))

    monkeypatch.setattr("benchmarks.suites.revise.attempt", attempt)
    digits = load("digits", train_size=100)
    requests = Scenario(("class:0", "class:1")).requests(digits, 0)
    for training, unlearning in product((0, 1), repeat=2):
        seeds = {"training": training, "unlearning": unlearning, "evaluation": [0]}
        method = {"name": "finetune", "options": {}, "text": "finetune"}
        config = {"method": method, "seeds": seeds, "device": "cpu", "learning_curve": False}
        revise(config, nn.Linear(1, 1), requests)
    assert len(set(seen)) == len(seen) == 8


def test_outliers_are_the_hardest() -> None:
    digits = load("digits", train_size=50)
    hardness = torch.arange(50.0).flip(0)
    (task,) = Scenario(("outliers:0.1",)).requests(digits, 0, hardness)
    assert task.forget_indices.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(
        ValueError, match=r"expected one difficulty a training sample for 'outliers:0\.1', but got None"
    ):
        Scenario(("outliers:0.1",)).requests(digits, 0)


def test_pictures_that_are_there_twice_are_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, digest = open_data("digits", ())
    twice = replace(bundle, test=subset(bundle.train, [5, 9]))
    monkeypatch.setattr(plans, "open_data", lambda *_: (twice, digest))
    plans._tell_duplicates.cache_clear()
    for _ in range(2):
        plans._tell_duplicates("digits", ())
    plans._tell_duplicates.cache_clear()
    told = "the same picture twice: 2 copies of train in test: train[5] is test[0], train[9] is test[1]"
    assert [record.message for record in caplog.records].count(told) == 1


def test_data_are_read_once_and_their_hash_tells_them_apart() -> None:
    first, again = open_data("digits", ()), open_data("digits", ())
    assert first is again
    assert open_data("digits", (("train_size", 99),))[1] != first[1]


def test_time_left_is_told_once_something_alike_has_been_seen() -> None:
    nodes = planned(seeds={"training": [0]})
    tune = next(node for node in nodes if "finetune" in node.name)
    sign = next(node for node in nodes if "perturbed_sign" in node.name)
    estimate = Estimate()
    assert estimate.left([tune], 1) is None
    estimate.learn(tune, 4.0)
    assert estimate.of(sign) == 4.0  # for want of better
    estimate.learn(sign, 2.0)
    assert (estimate.of(tune), estimate.of(sign)) == (4.0, 2.0)
    assert estimate.left([tune, sign, sign], 2) == 4.0
