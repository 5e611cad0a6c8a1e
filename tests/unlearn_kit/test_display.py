"""What values say of themselves at a prompt, in a notebook and in pandas."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from unlearn_kit import UnlearnResult, UnlearnTask, results_frame
from unlearn_kit.data import TensorImages
from unlearn_kit.display import CUT, html_table
from unlearn_kit.evidence import assemble, measure
from unlearn_kit.metrics import Evaluation, evaluate
from unlearn_kit.models import build

ELEMENTS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li"}
SCRIPT = "<script>alert('&')</script>"


def images(count: int) -> TensorImages:
    own = torch.Generator().manual_seed(count)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.arange(count) % 3)


@pytest.fixture(scope="module")
def task() -> UnlearnTask:
    return replace(UnlearnTask.forget_class(images(12), images(24), 1), rule=f"class {SCRIPT}")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build("mlp", 3, seed=0, hidden=(4,))


def result(**values: Any) -> UnlearnResult:
    history = [{"step": 0, "total": 1.5}, {"step": 9, "total": 0.25}, {"step": 9, "forget score": 0.1}]
    config = {"lr": 0.1, "note": SCRIPT, "clip": None}
    return UnlearnResult(nn.Linear(1, 1), history, 3.25, "finetune", config, **values)


def evaluation(**values: Any) -> Evaluation:
    sizes = {"forget": 4, "retain": 1200, "forget_test": 0, "retain_test": 9}
    found = Evaluation("classification", sizes, 0.25, 0.98765, None, 0.75, 0.75, 0.5, None)
    return replace(found, **values)


def cells(text: str) -> list[list[str]]:
    """The rows of a table, read by a parser of XML: markup that came through would be an element, or break it."""
    root = ElementTree.fromstring(f"<div>{text}</div>")
    assert {element.tag for element in root.iter()} <= ELEMENTS
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def test_a_result_says_what_it_took_and_where_it_ended() -> None:
    assert repr(result()) == "<UnlearnResult finetune of Linear: 3.2 s; 3 records; loss 0.25 at the end>"
    assert repr(result(details={"unchanged": True})).endswith("; details: unchanged>")
    rows = dict(cells(result(details={"why": SCRIPT})._repr_html_()))
    assert rows["options"] == f"lr=0.1, note={SCRIPT}"
    assert rows["why"] == SCRIPT
    assert "loss" not in repr(replace(result(), history=[]))


def test_an_evaluation_says_its_scores_and_tells_zero_from_none() -> None:
    assert (
        repr(evaluation(forget=0.0))
        == "<Evaluation classification: forget 0.000, retain 0.988, forget_test n/a, retain_test 0.750; "
        "membership 0.500>"
    )
    both = evaluation(reference=evaluation(forget=0.5), average_gap=0.0625)
    assert "average gap 0.062" in repr(both)
    rows = cells(both._repr_html_())
    assert rows[:3] == [
        ["", "score", "reference"],
        ["forget (4 samples)", "0.250", "0.500"],
        ["retain (1,200 samples)", "0.988", "0.988"],
    ]
    assert cells(evaluation()._repr_html_())[0] == ["", "score"]


def test_a_task_is_a_table_of_its_sizes(task: UnlearnTask) -> None:
    rows = cells(task._repr_html_())
    assert rows[1:] == [
        ["training", str(len(task.forget)), str(len(task.retain))],
        ["validation", str(len(task.forget_validation)), str(len(task.retain_validation))],
        ["test", str(len(task.forget_test)), str(len(task.retain_test))],
    ]
    assert "<script" not in task._repr_html_()


def test_evidence_and_a_receipt_say_their_verdicts(task: UnlearnTask, model: nn.Module) -> None:
    other = build("mlp", 3, seed=1, hidden=(4,))
    evidence = measure(model, other, task, audits=[])
    words = [one.value for one in evidence.verdicts]
    assert f"{words.count('not tested')} not tested" in repr(evidence)
    for one in evidence.verdicts:
        assert (one.name in repr(evidence)) == (one.value == "not shown")
    assert [row[1] for row in cells(evidence._repr_html_())[1:]] == words
    scores = {"before": evaluate(model, task), "after": evaluate(other, task), "reference": None}
    paper = assemble(
        rules=[task.rule],
        digest="0" * 64,
        count=4,
        hashes=None,
        method={"name": "finetune", "options": {}, "seconds": 1.0},
        status=("ok", None),
        seeds={},
        models={"before": "a", "after": "b", "reference": None},
        software={},
        evaluations=scores,
        evidence=evidence,
    )
    assert repr(paper).startswith(f"<Receipt finetune, class {SCRIPT} (4 samples): ")
    assert len(repr(paper)) < 400
    rows = cells(paper._repr_html_())
    after = scores["after"]
    assert after is not None
    assert f"after {after.forget:.3f}" in rows[2][1]
    assert len(rows) == 1 + 1 + 5 + len(words)


def test_a_table_is_cut_where_a_cell_is_long() -> None:
    assert len(cells(html_table("t", [("a", "x" * 1000)]))[0][1]) == CUT
    assert cells(html_table("t", [("a", None, True, 1234, 0.5)])) == [["a", "n/a", "True", "1,234", "0.500"]]


def test_results_are_rows_of_a_frame() -> None:
    other = replace(result(), method="ssd", config={"alpha": 2})
    frame = results_frame([result(), other], [evaluation(), None])
    assert frame["method"].tolist() == ["finetune", "ssd"]
    assert frame["config.lr"][0] == 0.1
    assert frame["scores.retain"][0] == 0.98765
    assert frame[["config.lr", "scores.retain"]].iloc[1].isna().all()
    assert math.isnan(frame["scores.forget_test"][0])  # n/a, not 0
    assert result().to_frame()["total"].tolist()[:2] == [1.5, 0.25]
    assert evaluation().to_frame()["size.retain"].tolist() == [1200]
    assert results_frame([]).empty
    with pytest.raises(ValueError, match="expected one of evaluations a result, 1, but got 2"):
        results_frame([result()], [None, None])
    with pytest.raises(TypeError, match=r"expected results\[0\] to be an UnlearnResult, but got int"):
        results_frame([3])  # type: ignore[list-item]
