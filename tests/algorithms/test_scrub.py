"""SCRUB: its two phases by hand, its teacher, and the epoch that rewinding returns."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import scrub
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.engine import BestSoFar, Callback, train
from unlearn_kit.modules import cpu_state
from unlearn_kit.schedules import constant


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return TensorImages(torch.randn(count, 6, generator=source) + 2 * F.one_hot(y, 6), y)


@pytest.fixture(scope="module")
def setting():
    data, test = images(60, 0), images(60, 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return UnlearnTask.forget_class(data, test, 1), train(model, data, epochs=15, batch_size=20).model


def tempered_kl(model, teacher, x, temperature):
    with torch.no_grad():
        q = F.softmax(teacher(x) / temperature, 1)
    p = F.log_softmax(model(x) / temperature, 1)
    return temperature**2 * F.kl_div(p, q, reduction="batchmean")


def by_hand(model, task, *, msteps, epochs, gamma, alpha, temperature, lr, nudge):
    """Full-batch SCRUB with one SGD optimiser; the weights after each epoch."""
    (x, y), (xr, yr) = load_tensors(task.forget), load_tensors(task.retain)
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=lr.at(0, 1), momentum=0.9)
    states = []
    for epoch in range(epochs):
        losses = [lambda: gamma * F.cross_entropy(own(xr), yr) + alpha * tempered_kl(own, model, xr, temperature)]
        if epoch < msteps:
            losses.insert(0, lambda: -tempered_kl(own, model, x, temperature) - nudge * F.cross_entropy(own(x), y))
        for loss in losses:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        states.append(cpu_state(own))
    return states


@pytest.mark.parametrize("nudge", [0.0, 0.5])
def test_both_phases_share_one_momentum_and_only_the_first_epochs_ascend(setting, nudge):
    task, model = setting
    recipe = {
        "msteps": 2,
        "epochs": 4,
        "gamma": 0.9,
        "alpha": 0.4,
        "temperature": 3.0,
        "lr": constant(0.2),
        "nudge": nudge,
    }
    found = scrub(model, task, forget_steps=1, retain_steps=1, batch_size=64, clip=None, doublings=0, **recipe)
    for name, expected in by_hand(model, task, **recipe)[-1].items():
        torch.testing.assert_close(found.model.state_dict()[name], expected, rtol=1e-4, atol=1e-5)
    assert [record["phase"] for record in found.history] == ["ascend", "descend"] * 2 + ["descend"] * 2


def test_the_teacher_is_another_object_and_does_not_move(setting):
    task, model = setting
    before = cpu_state(model)
    found = scrub(model, task, msteps=2, epochs=4, lr=0.05, forget_steps=2, retain_steps=2)
    descents = [r for r in found.history if r["phase"] == "descend"]
    distances = [value for r in descents for name, value in r.items() if name.startswith("kl(")]
    assert distances
    assert all(d > 1e-6 for d in distances)  # One object for both would give 0 all the way.
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_it_forgets_the_class_and_keeps_the_others(setting):
    task, model = setting
    # A hundred of each class: none of them moves a score by more than a hundredth.
    x, y = load_tensors(images(300, 1))
    found = scrub(model, task, clip=0.5).model

    def accuracies(m):
        right = m(x).argmax(1) == y
        return [right[of].float().mean().item() for of in (y == 1, y != 1)]

    (before, kept_before), (after, kept) = accuracies(model), accuracies(found)
    assert before > 0.7
    assert after < 0.1
    assert kept > kept_before - 0.1


def test_without_a_nudge_the_first_ascent_stands_still_and_with_one_it_forgets(setting):
    task, model = setting
    x, y = load_tensors(task.forget)
    options = {"msteps": 1, "epochs": 1, "gamma": 0.0, "alpha": 0.0, "clip": None, "lr": 0.1}
    still, away = (scrub(model, task, nudge=size, **options).model for size in (0.0, 1.0))
    assert tempered_kl(still, model, x, 4.0) < 1e-6
    assert F.cross_entropy(away(x), y) > F.cross_entropy(model(x), y) + 1e-3


class Watch(Callback):
    def __init__(self):
        self.states = []

    def on_epoch(self, run):
        if run.phase == "descend":
            self.states.append(cpu_state(run.model))


def test_rewinding_and_another_choice_of_the_weights_are_refused_together(setting):
    task, model = setting
    with pytest.raises(ValueError, match=r"one at most that chooses the weights, but got .*'Rewind'"):
        scrub(model, task, rewind=True, validation=task.forget_test, callbacks=[BestSoFar(lambda _: 1.0)], epochs=1)


def test_rewind_returns_the_epoch_nearest_the_last_validation_error(setting):
    task, model = setting
    watch = Watch()
    options = {
        "msteps": 4,
        "epochs": 5,
        "forget_steps": 1,
        "retain_steps": None,
        "batch_size": 20,
        "lr": constant(0.05),
    }
    last = scrub(model, task, callbacks=[watch], doublings=0, **options).model  # as with rewind

    def error(state, data):
        own = copy.deepcopy(model)
        own.load_state_dict(state)
        x, y = load_tensors(data)
        return (own(x).argmax(1) != y).double().mean().item()

    assert len(watch.states) == 5
    errors = [error(state, task.forget) for state in watch.states]
    assert len(set(errors)) > 2
    for validation in (task.forget_test, task.retain_test):
        wanted = error(last.state_dict(), validation)
        best = min(range(5), key=lambda epoch: abs(errors[epoch] - wanted))
        found = scrub(model, task, rewind=True, validation=validation, **options)
        assert found.details["epoch"] == best
        assert found.details["forget_errors"] == pytest.approx(errors)
        for name, tensor in found.model.state_dict().items():
            torch.testing.assert_close(tensor, watch.states[best][name], rtol=0, atol=0)


def test_rewind_takes_held_out_data_of_the_forgotten_classes(setting):
    _, model = setting
    data, test = images(60, 0), images(60, 1)
    few = UnlearnTask.forget_samples(data, test, [0, 3, 6])  # All of class 0; the held-out data hold nothing to forget.
    (x, y) = load_tensors(test)
    of_class = TensorImages(x[y == 0], y[y == 0])
    options = {"rewind": True, "epochs": 4, "msteps": 3, "forget_steps": 2, "retain_steps": 1, "lr": 0.05}
    implicit, explicit = scrub(model, few, **options), scrub(model, few, validation=of_class, **options)
    assert implicit.details == explicit.details
    nothing = UnlearnTask(few.forget, few.retain, few.forget_test, few.forget_test, 3)
    with pytest.raises(ValueError, match="expected validation with rewind=True, but got None and a task without"):
        scrub(model, nothing, rewind=True)
    with pytest.raises(ValueError, match="expected validation to hold at least one sample, but got an empty data set"):
        scrub(model, few, rewind=True, validation=few.forget_test)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"alpha": -1.0}, r"expected alpha in \[0, inf\), but got -1.0"),
        ({"gamma": float("nan")}, r"expected gamma in \[0, inf\), but got nan"),
        ({"msteps": -1}, "expected msteps to be at least 0, but got -1"),
        ({"temperature": 0.0}, r"expected temperature in \(0, inf\), but got 0.0"),
    ],
)
def test_bad_options_of_scrub_are_named(setting, option, text):
    task, model = setting
    with pytest.raises(ValueError, match=text):
        scrub(model, task, **option)


@pytest.mark.parametrize("channels", [1, 3])
def test_scrub_moves_masks_away_from_the_teacher(channels):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 6, 6, generator=source)
    y = (x > 0.5).float() if channels == 1 else (x[:, 0] * 3).long().clamp(max=2)
    data = TensorImages(x, y)
    task = UnlearnTask.forget_samples(data, data, [0, 1, 2], num_classes=max(channels, 2))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 1))
    found = scrub(model, task, msteps=2, epochs=2, retain_steps=2, alpha=0.0, gamma=1.0, lr=0.05, rewind=True)
    forgotten, _ = load_tensors(task.forget)
    assert torch.isfinite(found.model(forgotten)).all()
    assert (found.model(forgotten) - model(forgotten)).abs().mean() > 1e-3
    assert len(found.details["forget_errors"]) == 2
