from __future__ import annotations

import pytest

from benchmarks.setup.methods import METHODS, Method, attempt
from benchmarks.setup.recipes import RECIPES, Blueprint, ForgetRule
from unlearn_kit import UnlearnTask
from unlearn_kit.data import load
from unlearn_kit.data.tensors import labels_of
from unlearn_kit.models import MODELS


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_a_model_for_its_kind_methods_that_exist_and_a_rule(name: str) -> None:
    recipe = RECIPES[name]
    assert MODELS[recipe.model].task == recipe.kind
    assert {Method(text).name for text in recipe.methods} <= set(METHODS)
    ForgetRule(recipe.forget)


def test_rules_make_the_tasks_they_name() -> None:
    digits = load("digits")
    whole = ForgetRule("class:3").task(digits, 0)
    assert set(labels_of(whole.forget).tolist()) == {3}
    assert whole.forget_classes == (3,)
    half = ForgetRule("fraction:3:0.5").task(digits, 0)
    assert len(half.forget) == round(len(whole.forget) / 2)
    assert len(half.forget_test) == 0
    some = ForgetRule("random:0.1").task(digits, 4)
    assert len(some.forget) == round(0.1 * len(digits.train))
    same = UnlearnTask.forget_random(digits.train, digits.test, 0.1, seed=4)
    assert some.forget_indices.tolist() == same.forget_indices.tolist()


def test_a_rule_by_metadata_splits_training_and_held_out_data() -> None:
    lesions = load("synthetic-lesions", train_size=16, test_size=8, size=16)
    task = ForgetRule("where:device:B").task(lesions, 0)
    assert len(task.forget) == (lesions.train_metadata["device"] == "B").sum() > 0
    assert len(task.forget_test) + len(task.forget_validation) == (lesions.test_metadata["device"] == "B").sum() > 0
    with pytest.raises(ValueError, match=r"expected the column of 'synthetic-lesions' to be one of .*'device'"):
        ForgetRule("where:devices:B").task(lesions, 0)
    with pytest.raises(ValueError, match=r"expected a data set with metadata .* 'digits' has none"):
        ForgetRule("where:device:B").task(load("digits"), 0)


@pytest.mark.parametrize(
    "text", ["", "class", "class:", "class:zero", "class:0:0.5", "fraction:0", "random:x", "all:1"]
)
def test_what_is_no_rule_is_refused_with_all_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected forget to be one of class:LABEL .*random:SHARE.* but got"):
        ForgetRule(text)


def test_a_class_the_data_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected label to be a class in \[0, 9\], but got 10"):
        ForgetRule("class:10").task(load("digits"), 0)


def test_methods_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"expected every method to be one of .* did you mean 'finetune'"):
        Method("fine_tune")
    with pytest.raises(ValueError, match="expected methods without 'retrain'"):
        Method("retrain")
    with pytest.raises(ValueError, match="expected 'finetune' without a preset"):
        Method("finetune:paper")
    assert Method("perturbed_sign:paper").options == {"preset": "paper"}


def test_an_attempt_is_a_result_a_refusal_or_a_divergence(capsys: pytest.CaptureFixture[str]) -> None:
    digits = load("digits", train_size=60)
    task = ForgetRule("class:0").task(digits, 0)
    model = Blueprint("small-cnn", 10, 1)()
    found = attempt(Method("finetune"), model, task, seed=0, device="cpu", show="tuning", steps=1)
    assert (found.status, found.reason) == ("ok", None)
    assert found.result.config["steps"] == 1
    assert capsys.readouterr().err == "tuning ...\n"  # no terminal: a line in place of a bar
    refused = attempt(Method("finetune"), model, task, seed=0, device="cpu", lr=-1.0)
    assert refused.status == "n/a"
    assert "lr" in refused.reason
    burst = attempt(Method("finetune"), model, task, seed=0, device="cpu", lr=1e30, steps=9)
    assert burst.status == "diverged"
    assert "is not finite" in burst.reason
