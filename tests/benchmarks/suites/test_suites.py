from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.setup.methods import METHODS
from benchmarks.suites import find, parse_suite, read_suite, shipped
from benchmarks.suites.plan import training_of
from unlearn_kit.boundary import PerturbedSign

SHIPPED = {
    "quick",
    "fashion-class",
    "fashion-fraction",
    "fashion-random",
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
    row = parse_suite(suite(methods=["erase_to_retain:released:lr=0.01"])).matrix[0].methods[0]
    assert row.options == {"preset": "released", "lr": 0.01}


def test_lists_are_options_and_devices_need_not_be_of_this_machine() -> None:
    found = parse_suite({**suite(data={"name": "mni-slices", "options": {"planes": ["axial"]}}), "device": "cuda:63"})
    assert found.matrix[0].data[0].options == {"planes": ["axial"]}
    assert found.device == "cuda:63"


def test_a_search_is_described_by_its_options() -> None:
    from benchmarks.suites.schema import as_options

    assert as_options({"search": {"radius": 0.2}})["search"] == PerturbedSign(radius=0.2)


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
        ({**suite(), "seeds": {"training": [0, 0]}}, "seeds.training", "expected values that differ"),
        ({**suite(), "seeds": {"training": [-1]}}, "seeds.training", "expected a seed to be at least 0"),
        ({**suite(), "device": "cdua"}, "device", "expected device to be a name such as cpu, cuda, cuda:1 or mps, but"),
        ({**suite(), "device": "meta"}, "device", "but got 'meta'"),
        ({**suite(), "device": ""}, "device", "but got ''"),
        ({"name": "x"}, "matrix", "expected a value, but got none"),
        ({**suite(), "name": "a b"}, "name", "pattern"),
        ([], "the whole file", "dictionary"),
    ],
)
def test_mistakes_name_the_file_the_place_and_what_is_allowed(values: Any, where: str, what: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_suite(values, "mine.yaml")
    text = str(caught.value)
    assert text.startswith(f"mine.yaml: {where}: expected ")
    assert what in text
    assert "\n" not in text


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
