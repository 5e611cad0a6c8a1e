"""Verdicts on whole runs with small digits: good, nothing done, a class damaged, over-forgotten."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn_kit import UnlearnTask, engine
from unlearn_kit.data import load
from unlearn_kit.data.tensors import TensorImages, load_tensors, subset
from unlearn_kit.evidence import measure
from unlearn_kit.evidence.claims import CLAIMS
from unlearn_kit.hashing import hash_model
from unlearn_kit.models import build

NAMES = [f"digit {digit}" for digit in range(10)]


def trained(data, seed: int, epochs: int = 45) -> nn.Module:
    network = build("mlp", 10, 1, hidden=(64,), seed=seed)
    return engine.train(network, data, epochs=epochs, batch_size=64, lr=0.2, seed=seed).model.eval()


@pytest.fixture(scope="module")
def runs():
    """Return a task on digits, one label in five wrong and so memorised; an original; what was made of it."""
    bundle = load("digits")
    x, y = (torch.cat(pair) for pair in zip(*map(load_tensors, (bundle.train, bundle.test)), strict=True))
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(len(x), generator=random)
    wrong = torch.rand(len(y), generator=random) < 0.2
    y = torch.where(wrong, (y + torch.randint(1, 10, y.shape, generator=random)) % 10, y)
    train, test = (TensorImages(x[rows], y[rows]) for rows in (order[:400], order[400:]))
    task = UnlearnTask.forget_random(train, test, 0.25, seed=0, validation=subset(test, []))
    original = trained(train, 0)
    relabelled = train.targets.clone()
    relabelled[task.forget_indices] = (relabelled[task.forget_indices] + 5) % 10
    damaged = copy.deepcopy(trained(task.retain, 1))
    with torch.no_grad():
        damaged.head.bias[3] -= 20
    made = {
        "good": trained(task.retain, 1),
        "nothing": copy.deepcopy(original),
        "damaged": damaged,
        "marked": trained(TensorImages(train.inputs, relabelled), 2),
    }
    return task, original, made


def test_four_runs_are_told_apart(runs) -> None:
    task, original, made = runs
    state, before = torch.get_rng_state(), hash_model(original)
    found = {kind: measure(original, model, task, class_names=NAMES, audits=()) for kind, model in made.items()}
    assert (hash_model(original), torch.equal(torch.get_rng_state(), state)) == (before, True)
    values = {
        kind: [one[name].value for name in ("weights changed", "forgotten", "not marked", "kept")]
        for kind, one in found.items()
    }
    assert values == {
        "good": ["shown", "shown", "shown", "shown"],
        "nothing": ["not shown", "not shown", "not tested", "not tested"],
        "damaged": ["shown", values["damaged"][1], values["damaged"][2], "not shown"],
        "marked": ["shown", "shown", "not shown", values["marked"][3]],
    }
    assert found["good"].findings == ()
    assert "nothing was changed" in found["nothing"].findings[0]
    assert any("damage beyond noise: digit 3:" in finding for finding in found["damaged"].findings)
    assert any("over-forgetting" in finding for finding in found["marked"].findings)
    # False negatives, counted another way.
    x, y = load_tensors(task.retain_test)
    with torch.no_grad():
        said = [model.eval()(x).argmax(1) for model in (original, made["damaged"])]
    row = next(one for one in found["damaged"].classes if one.name == "digit 3")
    assert [row.missed_before, row.missed_after] == [int(((one != y) & (y == 3)).sum()) for one in said]
    assert row.specificity_after == pytest.approx(float((said[1][y != 3] != 3).double().mean()))


def test_audits_look_behind_the_answers(runs) -> None:
    task, original, made = runs
    small = replace(task, retain=subset(task.retain, range(100)))
    names = [name for name in CLAIMS if name not in ("membership", "weights changed", "kept", "not marked")]
    audits = ("quantization", "residual knowledge", "relearning", "probe", "features")
    nothing = measure(original, copy.deepcopy(original), small, audits=audits)
    assert {nothing[name].value for name in names} == {"not shown"}
    good = measure(original, made["good"], small, audits=audits, seed=1)
    assert "not shown" not in {good[name].value for name in names}
    assert "head" in good.figures["likeness of the features to the original's (CKA), forget data"]
    again = measure(original, made["good"], small, audits=audits, seed=1)
    assert again.as_dict() == good.as_dict()
    spent = measure(original, made["good"], small, audits=audits, budget=0)
    assert {spent[name].words for name in names[1:]} == {"the budget of 0 s was spent"}


def test_a_whole_class_has_no_unseen_data_that_a_retrained_model_would_get_right() -> None:
    digits = load("digits", train_size=500)
    task = UnlearnTask.forget_class(digits.train, digits.test, 3)
    original, reference = trained(digits.train, 0, 8), trained(task.retain, 1, 8)
    good = measure(original, reference, task, audits=("quantization", "residual knowledge", "relearning"))
    values = {one.name: one.value for one in good.verdicts}
    assert [values[name] for name in ("forgotten", "not brought back by rounding", "kept")] == ["shown"] * 3
    assert values["not relearned faster"] == "not tested"
    assert good["forgotten"].figure.count == len(task.forget) + len(task.forget_test)
    other = measure(original, trained(digits.train, 2, 8), task, audits=("quantization",))
    assert [other[name].value for name in ("forgotten", "not brought back by rounding")] == ["not shown"] * 2


def test_masks_and_other_tasks_are_judged_or_left_untested(runs) -> None:
    task, original, made = runs
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 8, 8, generator=draw)
    y = (x > 0.6).float()
    masks = UnlearnTask.forget_random(TensorImages(x[:24], y[:24]), TensorImages(x[24:], y[24:]), 0.3)
    a, b = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(2))
    found = measure(a, b, masks, audits=("quantization", "residual knowledge", "probe", "relearning"))
    assert found["weights changed"].value == "shown"
    assert [one.name for one in found.classes] == ["class 1"]
    assert found["not just across the boundary"].words == "it is defined for labels, not for masks"
    several = copy.copy(task)
    object.__setattr__(several, "kind", "multilabel")
    other = measure(original, made["good"], several)
    assert {one.value for one in other.verdicts} == {"not tested"}


def test_groups_are_named_and_wrong_arguments_refused(runs) -> None:
    task, original, made = runs
    hospitals = {
        "retain_test": ["north", "south"] * (len(task.retain_test) // 2) + ["north"] * (len(task.retain_test) % 2)
    }
    found = measure(original, made["damaged"], task, audits=(), groups=hospitals)
    assert [one.name for one in found.groups] == ["north", "south"]
    assert sum(one.count for one in found.groups) == len(task.retain_test)
    for wrong, message in (
        ({"audits": ("prob",)}, "expected audits to be one of"),
        ({"groups": {"retain": []}}, "expected groups to be one of"),
        ({"groups": {"forget": ["a"]}}, r"expected groups\['forget'\] to hold one group a sample, 100, but got 1"),
        ({"class_names": ["a"]}, "expected class_names to hold 10 names, but got 1"),
        ({"budget": -1}, "expected budget in \\[0, inf\\), but got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(original, original, task, **wrong)


def test_images_of_one_patient_are_no_patients(runs) -> None:
    task, original, made = runs
    audits = ("quantization", "residual knowledge", "relearning", "probe")
    names = ("forgotten", "not brought back by rounding", "not just across the boundary", "not read off the features")
    alone = measure(original, made["good"], task, audits=audits)
    patients = {
        "forget": [i // 10 for i in range(len(task.forget))],
        "retain_test": [100 + i // 10 for i in range(len(task.retain_test))],
    }
    by_patient = measure(original, made["good"], task, audits=audits, groups=patients)
    assert {by_patient[name].figure.count for name in names} == {10}
    assert by_patient["kept"].figure.count == len(set(patients["retain_test"]))
    assert {alone[name].figure.count for name in names} == {100}
    # A device that is on both sides is no unit that one could draw again: images count.
    device = {"forget": ["B"] * len(task.forget), "retain_test": ["B"] * len(task.retain_test)}
    assert measure(original, made["good"], task, audits=(), groups=device)["forgotten"].figure.count == 100
