"""Thirty digits with random labels can only be memorised: every audit must tell who has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, audits, data, engine, metrics, models


@pytest.fixture(scope="module")
def memorised() -> SimpleNamespace:
    digits = data.load("digits")
    x, _ = data.tensors.load_tensors(data.tensors.subset(digits.train, range(60)))
    y = torch.randint(10, (60,), generator=torch.Generator().manual_seed(0))
    train, test = TensorDataset(x[:30], y[:30]), TensorDataset(x[30:], y[30:])
    task = UnlearnTask.forget_samples(train, test, range(15), num_classes=10)

    def trained(on: object, seed: int) -> torch.nn.Module:
        network = models.build("mlp", 10, seed=seed, hidden=(64,))
        return engine.train(network, on, epochs=150, lr=0.1, batch_size=30).model

    return SimpleNamespace(
        task=task, original=trained(train, 0), reference=trained(task.retain, 1), second=trained(task.retain, 2)
    )


def test_membership_sees_the_original_and_not_the_reference(memorised) -> None:
    task = memorised.task
    aucs = {
        name: metrics.loss_auc(getattr(memorised, name), task.forget, task.retain_test)
        for name in ("original", "reference")
    }
    assert aucs["original"] > 0.9
    assert aucs["reference"] < 0.7
    attacked = metrics.membership_inference(memorised.original, task, features=["loss", "confidence"])
    spared = metrics.membership_inference(memorised.reference, task, features=["loss", "confidence"])
    assert attacked.forget_share > 0.9
    assert spared.forget_share < 0.5


def test_distances_to_the_reference_see_the_original_and_not_a_second_reference(memorised) -> None:
    forget, reference = memorised.task.forget, memorised.reference
    for metric in (metrics.activation_distance, metrics.js_divergence):
        assert metric(memorised.original, reference, forget) > metric(memorised.second, reference, forget)
        assert metric(reference, reference, forget) == pytest.approx(0, abs=1e-12)
    assert metrics.completeness(reference, reference, forget) == 1
    near, far = (metrics.completeness(getattr(memorised, name), reference, forget) for name in ("second", "original"))
    assert near > far


def test_scores_relearning_and_rounding_see_the_original(memorised) -> None:
    task, reference = memorised.task, memorised.reference
    mine = metrics.evaluate(memorised.original, task, reference)
    ideal = metrics.evaluate(reference, task, reference)
    assert (ideal.average_gap, ideal.tug_of_war, ideal.tug_of_war_mia) == (0, 1, 1)
    assert mine.tug_of_war < 0.5
    index = audits.anamnesis_index(memorised.original, task, reference, original=memorised.original, lr=0.05)
    assert index.value == 0
    whole, *rounded = metrics.quantize_attack(memorised.original, task)
    assert whole.forget == 1
    assert all(row.forget > 0.7 for row in rounded)
    assert all(row.forget < 0.5 for row in metrics.quantize_attack(reference, task))


def test_features_are_nearer_to_what_they_come_from(memorised) -> None:
    revised = engine.train(memorised.original, memorised.task.retain, epochs=2, lr=0.01).model
    forget = memorised.task.forget
    to_original = metrics.feature_distance(revised, memorised.original, forget)
    to_reference = metrics.feature_distance(revised, memorised.reference, forget)
    assert all(to_original[layer] > to_reference[layer] for layer in to_original)
    assert min(metrics.feature_distance(revised, revised, forget).values()) == pytest.approx(1, abs=1e-9)


def test_a_probe_of_random_labels_says_no_more_of_the_original_than_of_the_reference(memorised) -> None:
    # What was memorised lies in single samples; another sample's random label cannot be read off the features.
    report = audits.linear_probe(memorised.original, memorised.task, memorised.reference)
    assert report.forget < 0.6
    assert report.reference.forget < 0.6
