"""Arguments of another type are refused by their name, at the door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import algorithms
from unlearn_kit import UnlearnTask, metrics
from unlearn_kit.engine import fit

DATA = TensorDataset(torch.rand(12, 4), torch.arange(12) % 3)
TASK = UnlearnTask.forget_class(DATA, DATA, 0)
MODEL = nn.Sequential(nn.Linear(4, 3))

# What is called with the bad value, what it is called there, and the values.
CALLS: list[tuple[Callable[[Any], Any], str, list[Any]]] = [
    (lambda bad: algorithms.finetune(MODEL, TASK, objective=bad), "objective", ["x", 3, [1]]),
    (lambda bad: algorithms.finetune(MODEL, TASK, seed=bad), "seed", ["0", None, 1.5, True, [1]]),
    (lambda bad: algorithms.finetune(MODEL, TASK, callbacks=bad), "callbacks", ["x", 3, [3], None, {}]),
    (lambda bad: algorithms.finetune(MODEL, TASK, optimizer=bad), "optimizer", [3, None]),
    (lambda bad: algorithms.finetune(MODEL, TASK, momentum=bad), "momentum", ["x", None, True]),
    (lambda bad: fit(MODEL, bad), "program", [3, [3]]),
    (lambda bad: fit(MODEL, [], callbacks=bad), "callbacks", [3, [3], None]),
    (lambda bad: fit(MODEL, [], checkpoint=bad), "checkpoint", [3, [], True]),
    (lambda bad: replace(TASK, kind=bad), "kind", ["Segmentation", None, []]),
    (lambda bad: metrics.evaluate(MODEL, bad), "task", ["x", None, DATA]),
    (lambda bad: metrics.evaluate_seeds(MODEL, TASK, seeds=bad), "seeds", [3, None]),
    (lambda bad: metrics.split_score(MODEL, bad, "forget"), "task", ["x", None, DATA]),
    (lambda bad: metrics.class_leakage(MODEL, bad, MODEL), "task", ["x", None, DATA]),
    (lambda bad: metrics.membership_inference(MODEL, bad), "task", ["x", None, DATA]),
    (lambda bad: metrics.membership_inference(MODEL, TASK, features=bad), "features", [3, None, []]),
    (lambda bad: metrics.quantize_attack(MODEL, bad), "task", ["x", None, DATA]),
    (lambda bad: metrics.quantize_attack(MODEL, TASK, bits=bad), "bits", [8, None, [True]]),
    (lambda bad: metrics.feature_distance(MODEL, MODEL, DATA, layers=bad), "layers", [3, {}]),
    (lambda bad: metrics.independent_seeds(bad), "seed", ["0", None, 1.5, True]),
]


@pytest.mark.parametrize(("call", "name", "values"), CALLS, ids=[row[1] for row in CALLS])
def test_an_argument_of_another_type_is_refused_by_its_name(
    call: Callable[[Any], Any], name: str, values: list[Any]
) -> None:
    before = {key: value.clone() for key, value in MODEL.state_dict().items()}
    for bad in values:
        with pytest.raises((TypeError, ValueError), match=rf"expected {name}(\[0\])? "):
            call(bad)
    assert all(torch.equal(value, before[key]) for key, value in MODEL.state_dict().items())
