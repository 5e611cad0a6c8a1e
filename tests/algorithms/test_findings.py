"""Methods on a multi-label head: what is forgotten comes nearer to a model that never saw it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import algorithms
from algorithms.masks import Part, accuracy_within, forget_loss, part_to_forget, to_forget
from algorithms.stopping import forget_score, stop_level
from unlearn_kit import UnlearnResult, UnlearnTask, adapters, models
from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import train
from unlearn_kit.metrics import Evaluation, accuracy, evaluate
from unlearn_kit.outputs import IGNORE, decisions

K = 6
RECIPE: dict[str, Any] = {"epochs": 25, "batch_size": 30, "lr": 0.1}


def images(count: int, seed: int) -> TensorImages:
    """Findings as bright bands; one in ten is noted wrongly, which a model can only know by heart."""
    source = torch.Generator().manual_seed(seed)
    y = (torch.rand(count, K, generator=source) < 0.35).float()
    x = 0.5 * torch.rand(count, 1, 12, 6, generator=source)
    for finding in range(K):
        x[y[:, finding] == 1, :, 2 * finding : 2 * finding + 2] += 0.4
    wrong = torch.rand(count, K, generator=source) < 0.1
    return TensorImages(x, torch.where(wrong, 1 - y, y))


TRAIN, TEST = images(120, 0), images(240, 1)
TASKS = {
    "finding": UnlearnTask.forget_class(TRAIN, TEST, 1),
    "samples": UnlearnTask.forget_random(TRAIN, TEST, 0.15),
    "device": UnlearnTask.forget_where(
        TRAIN, TEST, {"device": torch.arange(120) % 6}, {"device": torch.arange(240) % 6}, lambda t: t["device"] == 1
    ),
}


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return train(models.small_cnn(num_classes=K, channels=1, width=6), TRAIN, **RECIPE).model.eval()


@pytest.fixture(scope="module")
def references(original: nn.Module) -> dict[str, Evaluation]:
    return {name: evaluate(algorithms.retrain(original, task, **RECIPE).model, task) for name, task in TASKS.items()}


SEEDS = [
    ("perturbed_sign", {"steps": 20}),
    ("erase_to_retain", {"rounds": 6, "stop_every": 3}),
]


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize(("method", "options"), SEEDS)
def test_both_seed_methods_come_nearer_to_what_was_never_seen(
    method: str, options: dict[str, Any], name: str, original: nn.Module, references: dict[str, Evaluation]
) -> None:
    task, reference = TASKS[name], references[name]
    before = evaluate(original, task, reference)
    result: UnlearnResult = getattr(algorithms, method)(original, task, **options)
    after = evaluate(result.model, task, reference)
    assert before.forget is not None
    assert after.forget is not None
    assert reference.forget is not None
    assert abs(after.forget - reference.forget) < abs(before.forget - reference.forget)
    assert after.average_gap is not None
    assert before.average_gap is not None
    assert after.average_gap < before.average_gap
    assert before.retain is not None
    assert after.retain is not None
    assert after.retain > before.retain - 0.05  # five points: what a revision may cost on so few images


def test_adapters_on_a_multi_label_head_are_reversible(original: nn.Module) -> None:
    result = algorithms.erase_to_retain(original, TASKS["samples"], rounds=1, rank=2)
    x = TEST.batch(torch.arange(10))[0]
    with torch.no_grad():
        assert not torch.equal(result.model(x), original(x))
        with adapters.switched_off(result.model):
            assert torch.equal(result.model(x), original(x))


def test_what_is_asked_of_a_finding_is_asked_of_it_alone() -> None:
    task = TASKS["finding"]
    assert part_to_forget(task) == Part(findings=(1,))
    assert to_forget(task) == L.Findings(L.Labels(), (1,), label=1)
    assert to_forget(task, L.Cached(L.Background())) == L.Cached(L.Findings(L.Background(), (1,), label=1))
    assert to_forget(TASKS["samples"]) == L.Labels()
    z, y = torch.randn(5, K), torch.ones(5, K)
    y[0, 3] = IGNORE
    own = nn.functional.binary_cross_entropy_with_logits(z[:, 1], y[:, 1], reduction="none")
    wanted = own / torch.tensor([5.0, 6, 6, 6, 6])  # its share of the mean over what is known
    assert torch.allclose(forget_loss(task)(decisions(z, y), y), wanted)


def test_scores_to_stop_by_are_those_of_what_is_forgotten(original: nn.Module) -> None:
    task = TASKS["finding"]
    x, y = task.forget.dataset.batch(torch.tensor(task.forget.indices))
    known = float(((original(x)[:, 1] > 0) == (y[:, 1] == 1)).double().mean())
    assert forget_score(original, task) == pytest.approx(known)
    assert accuracy_within(original, task.forget, part_to_forget(task)) == pytest.approx(known)
    unseen = TASKS["device"]
    assert stop_level(original, unseen, "held-out") == accuracy(original, unseen.forget_validation)
    with pytest.raises(ValueError, match="expected a number or 'never' for stop_at, but got 'held-out'"):
        stop_level(original, task, "held-out")


# Options with which a method that forgets a finding does so on this small task in a moment.
FORGETS: dict[str, dict[str, Any]] = {
    "bad_teacher": {},
    "boundary_shrink": {"steps": 15},
    "fisher_forgetting": {},
    "influence": {},
    "lfssd": {},
    "masked_small_gradient": {"steps": 20},
    "neg_grad": {"steps": 15, "lr": 5e-2},
    "neg_grad_plus": {"steps": 15, "lr": 1e-2},
    "random_label": {"steps": 20, "lr": 5e-2},
    "salun": {"steps": 20, "lr": 5e-2},
    "scrub": {"epochs": 20, "msteps": 10},
    "sfron": {"steps": 20, "lr": 5e-2},
    "ssd": {},
}


@pytest.mark.parametrize("name", sorted(FORGETS))
def test_a_finding_is_known_less(name: str, original: nn.Module) -> None:
    task = TASKS["finding"]
    result = getattr(algorithms, name)(original, task, **FORGETS[name])
    before, after = forget_score(original, task), forget_score(result.model, task)
    assert after < before - 0.1  # five of fifty images
