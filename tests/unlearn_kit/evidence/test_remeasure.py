"""A receipt held against its models and data: every number of it that somebody rounds in his favour is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from unlearn_kit import UnlearnResult, UnlearnTask
from unlearn_kit.data import TensorImages
from unlearn_kit.evidence import receipt
from unlearn_kit.evidence.remeasure import differing, remeasure


def edited(change: Callable[[dict[str, Any]], object]) -> list[str]:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.rand(60, 1, 4, 4, generator=draw), torch.arange(60) % 3
    train, test = TensorImages(images[:36], labels[:36]), TensorImages(images[36:], labels[36:])
    task = UnlearnTask.forget_class(train, test, 2)
    torch.manual_seed(0)
    before = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[1].bias[2] -= 1
    values = receipt(task, before, UnlearnResult(after, [], 0.0, "own", {}), audits=()).values
    change(values)
    return [str(one) for one in remeasure(values, before, after, task)]


def every_verdict_shown(values: dict[str, Any]) -> None:
    for one in values["verdicts"]:
        one["value"] = "shown"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (every_verdict_shown, "verdict kept, value: expected shown, but got not "),
        (lambda v: v["settings"]["thresholds"]["kept"].update(value=0.9), "threshold, kept, value: expected 0.9000"),
        (lambda v: v["metrics"]["before"].update(retain=0.125), "training data to keep, before: expected 0.1250"),
        (lambda v: v["metrics"]["after"].update(forget=None), "data to forget, after: expected n/a, but got"),
        (lambda v: v["models"].update(before="0"), "model before: expected SHA-256 0,"),
        (lambda v: v["models"].update(after="0"), "model after: expected SHA-256 0,"),
        (lambda v: v["request"].update(rules=["class 1"]), "request, rules: expected class 1, but got class 2"),
        (lambda v: v["request"].update(samples=1), "request, samples: expected 1, but got 12"),
        (lambda v: v["data"]["forget"].update(files=9), "data, forget, files: expected 9, but got n/a"),
        (lambda v: v.update(not_measured=[]), "what is not covered: expected no word of it, but got"),
        (lambda v: v["classes"][0].update(missed_after=99), "class class 0, missed_after: expected 99, but got"),
        (lambda v: v["verdicts"].pop(), "verdict not read off the features"),
    ],
)
def test_what_was_edited_is_named(change: Callable[[dict[str, Any]], object], told: str) -> None:
    assert any(told in one for one in edited(change)), edited(change)


def test_an_honest_receipt_differs_nowhere_and_rounding_is_no_difference() -> None:
    assert edited(lambda v: v["metrics"]["after"].update(retain=v["metrics"]["after"]["retain"] + 1e-6)) == []
    assert differing("x", {"a": [0.5, "of 0.512"]}, {"a": [0.5004, "of 0.513"]}) == []
    assert [str(one) for one in differing("x", {"a": 1}, {"b": 1})] == [
        "x, a: expected 1, but got n/a",
        "x, b: expected n/a, but got 1",
    ]
