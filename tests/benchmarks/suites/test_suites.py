from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import algorithms
from benchmarks.setup.methods import METHODS, YARDSTICKS, Method
from benchmarks.suites import find, parse_suite, read_suite, shipped
from benchmarks.suites.plan import training_of
from benchmarks.suites.schema import NOT_OF_A_FILE, Suite
from unlearn_kit.arguments import hints_of
from unlearn_kit.boundary import PerturbedSign

SHIPPED = {
    "quick",
    "fashion-class",
    "fashion-fraction",
    "fashion-random",
    "fashion-samples",
    "segmentation",
    "device",
    "outliers",
    "sequence",
    "cifar10-class",
}


def suite(**changes: Any) -> dict[str, Any]:
    block = {"data": "digits", "forget": "class:0", "methods": ["finetune"]}
    return {"name": "x", "matrix": [{**block, **changes}]}


def test_every_promised_suite_is_shipped_and_valid() -> None:
    assert set(shipped()) == SHIPPED
    for name in shipped():
        found = read_suite(name)
        assert found.name == name
        assert found.about.endswith(".")


def test_every_key_says_what_it_is() -> None:
    whole = Suite.model_json_schema()
    for name, part in {"Suite": whole, **whole["$defs"]}.items():
        keys = {} if name == "Scenario" else part["properties"]  # a scenario is written as its rules alone
        assert [key for key, value in keys.items() if "description" not in value] == [], name


def test_single_values_stand_for_lists_and_recipes_for_what_is_not_said() -> None:
    block = parse_suite(suite(training={"epochs": 2})).matrix[0]
    assert (block.data[0].name, block.forget[0].rules, block.models) == ("digits", ("class:0",), ())
    training = {"epochs": 2, "batch_size": 128, "lr": 0.05, "optimizer": "sgd", "weight_decay": 5e-4}
    assert training_of(block, "digits") == training


def test_a_grid_is_every_combination_and_one_option_is_a_knob() -> None:
    row = {"name": "perturbed_sign", "options": {"steps": 3}, "grid": {"retain_weight": [0, 1], "mix": [0.5, 1]}}
    found = parse_suite(suite(methods=[row])).matrix[0].methods[0]
    assert [v.text for v in found.variants()] == [
        f"perturbed_sign:steps=3:retain_weight={w}:mix={m}" for w in (0, 1) for m in (0.5, 1)
    ]
    assert found.tradeoff_knob is None
    assert parse_suite(suite(methods=[{**row, "knob": "mix"}])).matrix[0].methods[0].tradeoff_knob == "mix"
    single = {"name": "finetune", "grid": {"lr": [0.1, "1e-3"]}}
    found = parse_suite(suite(methods=[single])).matrix[0].methods[0]
    assert found.tradeoff_knob == "lr"
    assert [v.options["lr"] for v in found.variants()] == [0.1, 0.001]  # YAML reads 1e-3 as text


def test_all_is_every_method_and_text_forms_are_those_of_the_demo() -> None:
    rows = parse_suite(suite(methods="all")).matrix[0].methods
    assert tuple(row.name for row in rows) == METHODS
    # What reads references is no method: it runs where it is named.
    assert YARDSTICKS == ("oracle_matching",)
    assert not set(YARDSTICKS) & set(METHODS)
    assert parse_suite(suite(methods=["oracle_matching"])).matrix[0].methods[0].name == "oracle_matching"
    row = parse_suite(suite(methods=["erase_to_retain:released:lr=0.01"])).matrix[0].methods[0]
    assert row.options == {"preset": "released", "lr": 0.01}


def test_lists_are_options_and_devices_need_not_be_of_this_machine() -> None:
    found = parse_suite({**suite(data={"name": "mni-slices", "options": {"planes": ["axial"]}}), "device": "cuda:63"})
    assert found.matrix[0].data[0].options == {"planes": ["axial"]}
    assert found.device == "cuda:63"


def test_a_search_is_described_by_its_options() -> None:
    from benchmarks.setup.methods import as_options

    assert as_options({"search": {"radius": 0.2}})["search"] == PerturbedSign(radius=0.2)


# Seven options of ten values each.
GRID = {option: list(range(10)) for option in ("lr", "steps", "momentum", "clip", "workers", "batch_size", "epochs")}


@pytest.mark.parametrize(
    ("values", "where", "what"),
    [
        (
            suite(methods=[{"name": "perturbed_sign", "options": {"retain_wieght": 1}}]),
            "matrix.0.methods.0",
            "did you mean 'retain_weight'?",
        ),
        (suite(methods=["finetune", "perturbed_sin"]), "matrix.0.methods.1", "did you mean 'perturbed_sign'?"),
        (suite(methods=["retrain"]), "matrix.0.methods.0", "expected methods without 'retrain'"),
        (suite(methods=["finetune", "finetune"]), "matrix.0", "more than once"),
        (suite(methods=[{"name": "finetune", "grid": {"lr": []}}]), "matrix.0.methods.0.grid.lr", "at least 1 item"),
        (suite(methods=[{"name": "finetune", "options": {"seed": 1}}]), "matrix.0.methods.0", "without 'seed'"),
        (suite(data="digit"), "matrix.0.data.0.name", "did you mean 'digits'?"),
        (suite(data={"name": "digits", "options": {"train_sise": 3}}), "matrix.0.data.0", "mean 'train_size'?"),
        (
            suite(data={"name": "digits", "options": {"train_size": {"a": 1}}}),
            "matrix.0.data.0",
            "expected option 'train_size' of 'digits' to be text, a number, true, false, null or a list of these, "
            "but got {'a': 1}",
        ),
        (
            suite(data={"name": "digits", "options": {"train_size": [[3]]}}),
            "matrix.0.data.0",
            "expected option 'train_size' of 'digits' to be text",
        ),
        (suite(data="svhn"), "matrix.0", "which has no recipe"),
        (suite(forget="clas:0"), "matrix.0.forget.0", "expected forget to be one of class:LABEL"),
        (suite(forget=[["class:0", "outliers:2"]]), "matrix.0.forget.0", "expected the share of 'outliers:2'"),
        (suite(models="small"), "matrix.0.models.0", "did you mean 'small-cnn'?"),
        (suite(training={"epochs": 0}), "matrix.0.training.epochs", "greater than or equal to 1, but got 0"),
        (suite(training={"optimizer": "sdg"}), "matrix.0.training.optimizer", "did you mean 'sgd'?"),
        (suite(methds=1), "matrix.0", "did you mean 'methods'?"),
        ({**suite(), "references": 0}, "references", "greater than or equal to 1, but got 0"),
        ({**suite(), "references": 11}, "references", "less than or equal to 10, but got 11"),
        (
            suite(methods=[{"name": "oracle_matching", "options": {"references": []}}]),
            "matrix.0.methods.0",
            "expected options without 'references', which the runner gives",
        ),
        ({**suite(), "seeds": {"training": [0, 0]}}, "seeds.training", "expected values that differ"),
        ({**suite(), "seeds": {"training": [-1]}}, "seeds.training", "expected a seed to be at least 0"),
        ({**suite(), "device": "cdua"}, "device", "expected device to be a name such as cpu, cuda, cuda:1 or mps, but"),
        ({**suite(), "device": "meta"}, "device", "but got 'meta'"),
        ({**suite(), "device": ""}, "device", "but got ''"),
        ({"name": "x"}, "matrix", "expected a value, but got none"),
        ({**suite(), "name": "a b"}, "name", "pattern"),
        ([], "the whole file", "dictionary"),
        (suite(training={"lr": math.inf}), "matrix.0.training.lr", "expected a finite number, but got inf"),
        (suite(training={"lr": math.nan}), "matrix.0.training.lr", "but got nan"),
        (suite(training={"lr": -1}), "matrix.0.training.lr", "greater than 0, but got -1"),
        (suite(training={"weight_decay": True}), "matrix.0.training.weight_decay", "a number, but got True"),
        (suite(training={"epochs": "hello"}), "matrix.0.training.epochs", "but got 'hello'"),
        (suite(training={"epochs": True}), "matrix.0.training.epochs", "expected a number, but got True"),
        ({**suite(), "seeds": {"unlearning": True}}, "seeds.unlearning.0", "expected a number, but got True"),
        ({**suite(), "name": "a" * 300}, "name", "at most 100 characters"),
        (suite(data="image-folder:" + "a" * 300), "matrix.0.data.0.name", "at most 100 characters"),
        (suite(forget="where:device:" + "a" * 300), "matrix.0.forget.0", "at most 200 characters, but got 313"),
        (suite(forget=["class:0", "class: 0"]), "matrix.0.forget", "expected values that differ"),
        (suite(forget=["random:.1", "random:1e-1"]), "matrix.0.forget", "expected values that differ"),
        (suite(methods=[{"name": "finetune", "grid": GRID}]), "matrix.0.methods.0", "10000 runs of one suite, but got"),
        (
            {**suite(methods=["finetune", "scrub"] * 60), "seeds": {"training": list(range(100))}},
            "matrix.0.methods.100",
            "expected at most 10000 runs of one suite, but got 10,100 and more",
        ),
        (suite(about={"a": [[["x" * 20_000]]]}), "matrix.0.about.a.0.0.0", "expected a text of at most 10000"),
    ],
)
def test_mistakes_name_the_file_the_place_and_what_is_allowed(values: Any, where: str, what: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_suite(values, "mine.yaml")
    text = str(caught.value)
    assert text.startswith(f"mine.yaml: {where}: expected ")
    assert what in text
    assert "\n" not in text


BAD_OPTIONS: dict[str, tuple[str, Any]] = {
    "finetune": ("lr", math.inf),
    "neg_grad": ("lr", -1),
    "neg_grad_plus": ("lr", True),
    "scrub": ("epochs", "hello"),
    "delete": ("epochs", True),
    "salun": ("density", "half"),
    "ssd": ("alpha", math.nan),
    "lfssd": ("dampening", True),
    "damp": ("samples", 2.5),
    "jit": ("draws", [3]),
    "random_label": ("fixed", 1),
    "influence": ("solver", "gc"),
    "perturbed_sign": ("preset", "papre"),
    "erase_to_retain": ("where", 3),
    "l1_sparse": ("batch_size", {"forget": 0}),
    "bad_teacher": ("momentum", 1),
    "unsir": ("optimizer", "sdg"),
    "sfron": ("forget_weight", "x" * 5000),
    "amun": ("radius", "(" * 500),
    "boundary_expand": ("callbacks", ["x"]),
    "mean_feature_head": ("accelerator", "gpu"),
    "masked_small_gradient": ("objective", "cross_entropy"),
}


@pytest.mark.parametrize("method", BAD_OPTIONS)
@pytest.mark.parametrize("form", ["options", "grid"])
def test_values_that_no_method_takes_are_refused_before_anything_runs(method: str, form: str) -> None:
    option, value = BAD_OPTIONS[method]
    row = {"name": method, form: {option: value if form == "options" else [value]}}
    with pytest.raises(ValueError, match="expected") as caught:
        parse_suite(suite(methods=["finetune", row]), "mine.yaml")
    text = str(caught.value)
    assert text.startswith("mine.yaml: matrix.0.methods.1: expected ")
    assert option in text
    assert method in text or option in NOT_OF_A_FILE


SHARED = ("epochs", "steps", "batch_size", "lr", "momentum", "weight_decay", "clip", "workers")


def numbers(method: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a method that are numbers, or may be, and their annotations ("" of those of training)."""
    function = getattr(algorithms, method)
    hints = hints_of(function)
    for name in inspect.signature(function).parameters:
        hint = repr(hints.get(name, ""))
        if name in SHARED or (name != "seed" and re.search(r"\b(float|int)\b", hint)):
            yield name, "" if name in SHARED else hint


# What is too large, and what is too small though it is not below 0.
TOO_LARGE = {
    "share": 1.5, "slow": 1.5, "density": 1.5, "retain_share": 1.5, "confidence": 1.5, "mix": 1.5, "pace": 1.5,
    "stop_at": 1.5, "forget_to": 1.5, "retain_drop": 1.5, "dropout": 1.0, "strength": {"damp": 2.5}, "momentum": 1.0,
    "cosine": 1.5,
}  # fmt: skip
TOO_SMALL = {
    "temperature": 0, "clip": 0, "batch_size": 0, "damping": 0, "tolerance": {"influence": 0}, "iterations": 0,
    "samples": 0,
    "search_samples": 0, "search_steps": 0, "growth": {"amun": 1.0}, "radius": {"amun": 0}, "max_radius": 0, "std": 0,
    "draws": 0, "cap": 0, "density": 0, "retain_share": 0, "pace": 0, "rank": 0, "stop_every": 0, "top_k": 0,
    "class_samples": 0, "rounds": {"mean_feature_head": 0}, "forget_every": 0, "fisher_samples": 0,
    "noise_samples": 0, "retain_samples": 0, "alpha": {"neg_grad_plus": 0, "erase_to_retain": 0},
}  # fmt: skip


def outside(method: str) -> Iterator[tuple[str, float]]:
    """Yield every numeric option of a method with numbers outside its range."""
    for option, _ in numbers(method):
        yield option, -1
        yield option, math.inf
        for table in (TOO_LARGE, TOO_SMALL):
            value = table.get(option)
            value = value.get(method) if isinstance(value, dict) else value
            if value is not None:
                yield option, value


@pytest.mark.parametrize("method", METHODS)
def test_a_number_outside_its_range_is_refused_before_anything_runs(method: str) -> None:
    for option, value in outside(method):
        with pytest.raises(ValueError, match="expected") as caught:
            parse_suite(suite(methods=["finetune", {"name": method, "options": {option: value}}]), "mine.yaml")
        text = str(caught.value)
        assert text.startswith("mine.yaml: matrix.0.methods.1: expected "), (option, value, text)
        assert option in text, (option, value, text)
        # And so does the command line's short form.
        with pytest.raises(ValueError, match=f"expected .*{option}.*{method}"):
            Method(f"{method}:{option}={value}")


TOGETHER = {
    "amun:radius=2": r"expected max_radius in \[2, inf\), but got 1.0",
    "erase_to_retain:released:pace=0.5": "expected no pace with preset='released'",
    "perturbed_sign:samples:top_k=2": "expected top_k to be None with labels='matched'",
    "perturbed_sign:labels=matched:mix=0.5": "expected mix to be 1.0 with labels='matched'",
    "perturbed_sign:hypergradient=unrolled": "expected labels to be 'soft' with hypergradient='unrolled'",
    "perturbed_sign:labels=soft:hypergradient=implicit:batch_norm=update": "expected batch_norm to be 'frozen' with",
    "random_label:order=in turn": "expected epochs with order='in turn'",
    "salun:order=in turn": "expected epochs with order='in turn'",
    "sfron:epochs=0": "expected epochs to be at least 1",
    "sfron:steps=0": "expected steps to be at least 1",
    "finetune:epochs=1:steps=1": "expected one of epochs and steps",
}


@pytest.mark.parametrize("text", TOGETHER)
def test_options_that_do_not_fit_together_are_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(ValueError, match=f"mine.yaml: matrix.0.methods.0: {TOGETHER[text]}"):
        parse_suite(suite(methods=[text]), "mine.yaml")


def test_options_that_fit_together_pass() -> None:
    fine = ["amun:radius=1", "erase_to_retain:released:pace=1", "random_label:order=in turn:epochs=1", "sfron:epochs=1"]
    fine += ["perturbed_sign:samples", "perturbed_sign:labels=soft:hypergradient=implicit:batch_norm=frozen"]
    assert len(parse_suite(suite(methods=fine)).matrix[0].methods) == len(fine)


def test_every_number_of_a_method_has_a_range() -> None:
    own = {(method, name): hint for method in algorithms.__all__ for name, hint in numbers(method) if hint}
    assert len(own) > 60
    assert [place for place, hint in own.items() if "Annotated" not in hint] == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("class: 0", "class:0"),
        ("random:1e-1", "random:0.1"),
        ("fraction:00:.50", "fraction:0:0.5"),
        ("outliers: .10", "outliers:0.1"),
        ("where:device:07", "where:device:07"),  # a value is text
    ],
)
def test_a_rule_is_known_by_one_spelling(rule: str, text: str) -> None:
    """Two would be two runs, since a run is known by the rules of its forget set."""
    assert parse_suite(suite(forget=rule)).matrix[0].forget[0].rules == (text,)


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="models") as caught:
        parse_suite(suite(models="small", data="digit"))
    assert str(caught.value).count("\n") == 1


def test_files_that_are_none_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected suite to be one of .*; did you mean 'quick'"):
        find("quik")
    with pytest.raises(FileNotFoundError, match="expected suite to be an existing file"):
        find(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("name: [")
    with pytest.raises(ValueError, match=r"expected .*bad\.yaml to be YAML"):
        read_suite(path)
    path.write_text("name: a\nname: b\n")
    with pytest.raises(ValueError, match="the key 'name' comes more than once"):
        read_suite(path)


def test_a_suite_says_how_much_it_asks_for() -> None:
    suite = Suite.model_validate(
        {
            "name": "tiny",
            "seeds": {"training": [0, 1], "unlearning": [0, 1, 2]},
            "matrix": {
                "data": ["digits"],
                "forget": ["class:1", "class:2"],
                "methods": ["ssd", {"name": "finetune", "grid": {"lr": [0.1, 0.2]}}],
            },
        }
    )
    # 2 x 3 seeds, 2 requests, 1 + 2 variants
    assert repr(suite) == (
        "<Suite tiny: 36 revisions on digits; 2 methods: ssd, finetune; 2 training seeds, 3 unlearning seeds, "
        "1 evaluation seed; on cpu>"
    )
