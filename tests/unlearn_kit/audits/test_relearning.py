from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, data, engine, models
from unlearn_kit.audits import AnamnesisIndex, RelearnReport, anamnesis_index, relearn_time
from unlearn_kit.errors import DivergenceError
from unlearn_kit.metrics import split_score


@pytest.fixture(scope="module")
def digits() -> SimpleNamespace:
    """Thirty digits with random labels, memorised; half of them to forget."""
    bundle = data.load("digits")
    x, _ = next(iter(torch.utils.data.DataLoader(bundle.train, batch_size=30)))
    y = torch.randint(10, (30,), generator=torch.Generator().manual_seed(0))
    train = TensorDataset(x, y)
    task = UnlearnTask.forget_samples(train, bundle.test, range(15), num_classes=10)
    network = models.build("mlp", 10, seed=0, hidden=(64,))
    options = {"epochs": 150, "lr": 0.1, "batch_size": 30}
    original = engine.train(network, train, **options).model
    reference = engine.train(models.build("mlp", 10, seed=1, hidden=(64,)), task.retain, **options).model
    # Hidden, not forgotten: the head's biases alone drive nearly every prediction to class 0.
    hidden = copy.deepcopy(original)
    with torch.no_grad():
        hidden.head.bias[0] += 16.0
    return SimpleNamespace(task=task, original=original, reference=reference, hidden=hidden)


def test_what_was_hidden_comes_back_sooner_than_what_was_never_there(digits) -> None:
    assert split_score(digits.original, digits.task, "forget") == 1
    options = {"original": digits.original, "every": 1, "lr": 0.03, "batch_size": 15}
    index = anamnesis_index(digits.hidden, digits.task, digits.reference, **options)
    assert index.model.scores[0][1] < 0.5  # 3 of 15 are left.
    assert 0 < index.model.steps < index.reference.steps
    assert index.value == index.model.steps / index.reference.steps
    assert index.value < 0.7
    assert index.model == relearn_time(digits.hidden, digits.task, **options)
    assert str(index.model) == f"{index.model.steps} steps"


def test_relearning_from_retain_data_alone_is_the_stronger_test(digits) -> None:
    options = {"original": digits.original, "on": "retain", "every": 2, "max_steps": 60, "lr": 0.03, "batch_size": 15}
    index = anamnesis_index(digits.hidden, digits.task, digits.reference, **options)
    assert index.model.steps is not None
    assert index.reference.steps is None
    assert index.value is None
    assert str(index.reference) == "not within 60 steps"
    assert index.bounds == (0, index.model.steps / 60)
    turned = AnamnesisIndex(None, index.reference, index.model)
    assert turned.bounds == (60 / index.model.steps, math.inf)
    assert AnamnesisIndex(None, index.reference, index.reference).bounds == (0, math.inf)
    assert index.reference.scores[-1][0] == 60
    assert [step for step, _ in index.reference.scores] == list(range(0, 61, 2))


def test_the_reference_beside_itself_has_index_one_and_the_original_needs_no_step(digits) -> None:
    options = {"original": 1.0, "lr": 0.05}
    itself = anamnesis_index(digits.reference, digits.task, digits.reference, **options)
    assert itself.value == 1
    assert itself.bounds == (1, 1)
    assert itself == anamnesis_index(digits.reference, digits.task, itself.reference, **options)
    nothing = relearn_time(digits.original, digits.task, **options)
    assert (nothing.steps, nothing.scores) == (0, ((0, 1.0),))
    # Nothing to forget: the reference knows it without having seen it.
    known = anamnesis_index(digits.original, digits.task, digits.original, **options)
    assert known.value is known.bounds is None


def test_steps_agree_with_gradient_descent_written_out() -> None:
    """Softmax regression on the whole forget set at every step, in numpy."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.integers(3, size=40)
    y[x[:, 0] > 0.3] = 1
    w, b = 0.1 * rng.normal(size=(3, 5)), np.zeros(3)
    model = nn.Linear(5, 3).double()
    model.load_state_dict({"weight": torch.tensor(w), "bias": torch.tensor(b)})
    held = TensorDataset(torch.tensor(x), torch.tensor(y))
    task = UnlearnTask(held, held, held, held, 3)
    speed_w, speed_b, scores = np.zeros_like(w), np.zeros_like(b), []
    for step in range(61):
        z = x @ w.T + b
        scores.append(float((z.argmax(axis=1) == y).mean()))
        if step % 3 == 0 and scores[-1] >= 0.9 * 0.74:  # Between 26 and 27 of 40.
            break
        p = np.exp(z - z.max(axis=1, keepdims=True))
        slope = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[y]) / 40
        speed_w, speed_b = 0.8 * speed_w + slope.T @ x, 0.8 * speed_b + slope.sum(axis=0)
        w, b = w - 0.05 * speed_w, b - 0.05 * speed_b
    found = relearn_time(
        model, task, original=0.74, margin=0.1, every=3, lr=0.05, momentum=0.8, batch_size=40, max_steps=60, clip=None
    )
    assert found.goal == pytest.approx(0.666)
    assert found.steps == len(scores) - 1 > 0
    assert found.scores == tuple((n, pytest.approx(scores[n])) for n in range(0, len(scores), 3))


def test_the_last_step_is_looked_at_and_the_original_may_be_a_model(digits) -> None:
    found = relearn_time(digits.hidden, digits.task, original=digits.original, every=4, max_steps=6, lr=1e-9)
    assert [step for step, _ in found.scores] == [0, 4, 6]
    assert found.steps is None
    assert found.goal == pytest.approx(0.95)


def test_seeds_order_the_data_and_the_same_seed_gives_the_same_report(digits) -> None:
    def run(seed: int) -> RelearnReport:
        return relearn_time(
            digits.reference,
            digits.task,
            original=1.0,
            every=2,
            batch_size=4,
            lr=0.02,
            clip=None,
            max_steps=8,
            seed=seed,
        )

    assert run(0) == run(0)
    assert run(0).scores != run(1).scores


def test_frozen_weights_train_too_and_the_model_is_left_alone(digits) -> None:
    frozen = copy.deepcopy(digits.hidden).requires_grad_(False).train()
    before = copy.deepcopy(frozen.state_dict())
    assert relearn_time(frozen, digits.task, original=1.0, lr=0.03).steps is not None
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


def test_masks_are_relearned_until_their_iou_is_back() -> None:
    lesions = data.load("synthetic-lesions", train_size=4, test_size=2, size=16)
    task = UnlearnTask.forget_samples(lesions.train, lesions.test, [0, 1])
    unet = models.build("unet", 2, 3, seed=0, widths=(4, 8), decoder_widths=(8, 4))
    found = relearn_time(unet, task, original=0.5, lr=0.05, every=10, max_steps=80)
    assert found.steps is not None
    assert found.scores[-1][1] >= 0.475 > found.scores[0][1]
    assert split_score(unet, task, "forget") == found.scores[0][1]
    assert anamnesis_index(unet, task, found, original=0.5, lr=0.05, every=10, max_steps=80).value == 1


def test_empty_sets_are_n_a(digits) -> None:
    none = TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0).long())
    for split, on in (("forget", "forget"), ("forget", "retain"), ("retain", "retain")):
        empty = SimpleNamespace(**{**vars(digits.task), split: none})
        assert relearn_time(digits.original, empty, original=1.0, on=on) is None
        assert anamnesis_index(digits.original, empty, digits.reference, original=digits.original, on=on) is None


def test_a_step_too_large_says_so(digits) -> None:
    with pytest.raises(DivergenceError, match="phase 'relearn' diverged at step"):
        relearn_time(digits.hidden, digits.task, original=1.0, lr=1e30, every=100)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on": "both"}, r"expected on to be one of \['forget', 'retain'\], but got 'both'"),
        ({"margin": 1.0}, r"expected margin in \[0, 1\), but got 1\.0"),
        ({"max_steps": 0}, "expected max_steps to be at least 1, but got 0"),
        ({"every": 0}, "expected every to be at least 1, but got 0"),
        ({"lr": 0.0}, r"expected lr in \(0, inf\), but got 0\.0"),
        ({"momentum": 1.0}, r"expected momentum in \[0, 1\), but got 1\.0"),
        ({"batch_size": 0}, "expected batch_size to be at least 1, but got 0"),
        ({"original": 1.5}, r"expected original in \[0, 1\], but got 1\.5"),
    ],
)
def test_bad_options_are_refused(digits, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        relearn_time(digits.hidden, digits.task, **{"original": 1.0, **options})


def test_a_model_without_weights_and_a_report_of_other_settings_are_refused(digits) -> None:
    task = UnlearnTask(*[TensorDataset(torch.eye(2), torch.tensor([1, 0]))] * 4, 2)
    with pytest.raises(
        ValueError, match="expected phase 'relearn' to train at least one parameter, but it trains none"
    ):
        relearn_time(nn.Identity(), task, original=1.0)
    other = RelearnReport(3, 0.95, 10, 5, "forget", ())
    with pytest.raises(ValueError, match=r"expected reference to be a report of the same goal.* but got \(0.95, 10, 5"):
        anamnesis_index(digits.original, digits.task, other, original=1.0)


def test_clipping_bounds_each_step(digits):
    """The first step from weights w is w - lr g / max(1, |g| / clip), so a tiny clip keeps the score where it was."""
    still = relearn_time(digits.hidden, digits.task, original=1.0, every=2, max_steps=4, lr=0.05, clip=1e-9)
    moved = relearn_time(digits.hidden, digits.task, original=1.0, every=2, max_steps=4, lr=0.05, clip=None)
    assert still.scores[-1][1] == still.scores[0][1]
    assert moved.scores[-1][1] > moved.scores[0][1]
    with pytest.raises(ValueError, match=r"expected clip in \(0, inf\)"):
        relearn_time(digits.hidden, digits.task, original=1.0, clip=0.0)


def test_a_limit_judges_some_of_the_forget_samples(digits):
    found = relearn_time(digits.hidden, digits.task, original=digits.original, limit=7, max_steps=1, every=1)
    assert (found.scores[-1][1] * 7) % 1 == pytest.approx(0, abs=1e-9)
    everything = relearn_time(digits.hidden, digits.task, original=digits.original, limit=None, max_steps=1, every=1)
    assert (
        everything.scores
        == relearn_time(digits.hidden, digits.task, original=digits.original, max_steps=1, every=1).scores
    )
