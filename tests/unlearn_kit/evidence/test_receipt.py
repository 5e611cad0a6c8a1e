from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import algorithms
from unlearn_kit import UnlearnResult, UnlearnTask
from unlearn_kit.data import TensorImages, load
from unlearn_kit.evidence.receipt import NEVER, options_digest, receipt
from unlearn_kit.hashing import hash_config, hash_model, hash_tensor, sample_hashes
from unlearn_kit.metrics import evaluate
from unlearn_kit.models import build


@pytest.fixture(scope="module")
def parts():
    digits = load("digits", train_size=80)
    task = UnlearnTask.forget_random(digits.train, digits.test, 0.1, seed=1)
    original = build("mlp", 10, 1, seed=0).eval()
    result = algorithms.finetune(original, task, steps=2, seed=3)
    reference = algorithms.retrain(original, task, epochs=1).model
    return task, original, result, reference


def test_it_says_what_was_asked_done_and_measured(parts, tmp_path: Path) -> None:
    task, original, result, reference = parts
    asked = {"by": "Clinic North", "ticket": "R-17", "basis": "GDPR Art. 17", "date": "2026-02-03"}
    page = receipt(task, original, result, reference=reference, seed=2, asked=asked, class_names=list("zabcdefghi"))
    path, text = page.save(tmp_path)
    found = json.loads(path.read_text())
    x, y = task.forget[0]
    assert (
        found["request"]["sample_hashes"][0]
        == hashlib.sha256(f"{hash_tensor(x)} {hash_tensor(y)}".encode()).hexdigest()
    )
    assert found["request"]["digest"] == hash_config(sorted(sample_hashes(task.forget)))
    assert found["request"]["samples"] == 8
    assert found["models"] == {
        "before": hash_model(original),
        "after": hash_model(result.model),
        "reference": hash_model(reference),
    }
    assert found["method"]["name"] == "finetune"
    assert found["method"]["options"]["steps"] == 2
    assert found["seeds"] == {"unlearning": 3, "evaluation": 2}
    theirs = evaluate(reference, task, seed=2)
    assert found["metrics"]["reference"]["retain"] == theirs.retain
    assert found["metrics"]["after"]["average_gap"] == evaluate(result.model, task, theirs, seed=2).average_gap
    lines = text.read_text().splitlines()
    assert "- Request: by Clinic North, ticket R-17, basis GDPR Art. 17, date 2026-02-03" in lines
    assert [row["name"] for row in found["classes"]] == list("zabcdefghi")
    assert len(lines) < 120  # a few pages, verdicts first
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == [
        "## Verdicts",
        "## Findings",
        "## Description of modifications",
        "## Modification protocol",
        "## Impact assessment",
    ]
    assert found["method"]["digest"] == options_digest(found["method"])
    assert found["data"]["retain"]["digest"] == hash_config(sorted(sample_hashes(task.retain)))
    assert (found["data"]["on_both_sides"], found["data"]["forget"]["files"]) == (0, None)
    assert found["settings"]["thresholds"]["left"]["origin"] in text.read_text()
    assert f"| training data to keep | {evaluate(original, task).retain:.3f} |" in "\n".join(lines)
    assert "| held-out data like the forgotten | n/a | n/a | n/a |" in lines
    assert any(line.startswith("- held-out data like the forgotten: there are no such data") for line in lines)
    assert all(f"- {what}" in lines for what in NEVER)


def test_without_a_reference_it_says_that_there_is_no_ideal(parts) -> None:
    task, original, result, _ = parts
    page = receipt(task, original, result, audits=())
    assert page.values["models"]["reference"] is None
    assert not any("reference" in finding for finding in page.values["findings"])
    assert [one["value"] for one in page.values["verdicts"] if "not asked for" in one["words"]] == ["not tested"] * 4
    assert (
        "the distance to a model retrained without the data, since there is none with scores"
        in page.values["not_measured"]
    )
    assert "| training data to forget |" in page.markdown()


def test_copies_in_the_retain_list_are_a_finding_whatever_their_label() -> None:
    images, labels = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    images[10], images[11] = images[0], images[1]  # 11 has the label of 1, and so has 10 that of 0 ...
    labels[10] = 1  # ... but for this
    train = TensorImages(images, labels)
    task = UnlearnTask.forget_samples(train, TensorImages(images[12:], labels[12:]), [0, 1, 2])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    found = receipt(task, model, UnlearnResult(model, [], 0.0, "own", {}), audits=())
    assert found.values["data"]["on_both_sides"] == 2
    assert any(
        text.startswith("kept out: 2 of 3 samples to forget are in the retain") for text in found.values["findings"]
    )
    assert "- Forget list kept out of the retain list: no: 2 samples of it are in both lists" in found.markdown()
