"""Random labels: what is drawn, when, and how the two data sets take turns."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import random_label
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.schedules import constant


def images(count, seed, classes=3):
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.arange(count) % classes)


def task_and_model(classes=3):
    task = UnlearnTask.forget_class(images(60, 0, classes), images(9, 1, classes), 1)
    torch.manual_seed(0)
    return task, nn.Linear(6, classes)


def probabilities(model, task):
    x, _ = load_tensors(task.forget)
    return model(x).softmax(1).mean(0)


def fitted(task, model, **options):
    options = {"retain_weight": 0.0, "steps": 100, "lr": L.cosine(1.0, 0.0), "batch_size": 64, "clip": None} | options
    return random_label(model, task, **options).model


def test_wrong_labels_empty_the_forgotten_class_and_fill_the_others_alike():
    task, model = task_and_model()
    p = probabilities(fitted(task, model), task)
    assert p[1] < 0.02
    assert abs(p[0] - p[2]) < 0.2


def test_labels_of_all_classes_end_near_chance():
    task, model = task_and_model()
    p = probabilities(fitted(task, model, wrong_only=False), task)
    torch.testing.assert_close(p, torch.full((3,), 1 / 3), atol=0.12, rtol=0)


def test_two_classes_draw_from_both_by_default():
    task, model = task_and_model(2)
    assert 0.3 < probabilities(fitted(task, model), task)[1] < 0.7
    assert probabilities(fitted(task, model, wrong_only=True), task)[1] < 0.05


def test_fixed_labels_can_be_learned_by_heart_and_redrawn_ones_cannot():
    task, _ = task_and_model()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))
    options = {
        "retain_weight": 0.0,
        "steps": 150,
        "lr": constant(0.05),
        "optimizer": "adam",
        "wrong_only": False,
        "clip": None,
    }
    by_heart, redrawn = (random_label(model, task, fixed=fixed, **options) for fixed in (True, False))
    assert by_heart.history[-1]["total"] < 0.05
    assert redrawn.history[-1]["total"] > 0.3


def test_in_turn_one_epoch_is_a_step_on_random_labels_then_one_on_the_retain_data():
    task, model = task_and_model(2)
    (x, y), (xr, yr) = load_tensors(task.forget), load_tensors(task.retain)
    options = {"wrong_only": True, "batch_size": 64, "clip": None}  # Of two classes the wrong label is no surprise.
    found = random_label(model, task, order="in turn", epochs=1, lr=constant(0.1), retain_weight=1.0, **options).model
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
    for loss in (lambda: F.cross_entropy(own(x), 1 - y), lambda: F.cross_entropy(own(xr), yr)):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for a, b in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Unreadable(TensorImages):
    def batch(self, indices):
        raise AssertionError("the retain data were read")


@pytest.mark.parametrize("options", [{"steps": 2}, {"order": "in turn", "epochs": 2}])
def test_without_a_retain_weight_the_retain_data_are_not_read(options):
    task, model = task_and_model()
    hidden = Unreadable(*load_tensors(images(3, 2)))
    closed = UnlearnTask(task.forget, hidden, task.forget_test, task.retain_test, 3)
    found = random_label(model, closed, retain_weight=0, **options)
    assert not torch.equal(found.model.weight, model.weight)
    with pytest.raises(AssertionError, match="the retain data were read"):
        random_label(model, closed, **options)


def test_in_turn_needs_epochs_and_the_order_is_checked():
    task, model = task_and_model()
    with pytest.raises(ValueError, match=r"expected epochs with order='in turn', but got None"):
        random_label(model, task, order="in turn")
    with pytest.raises(ValueError, match=r"expected order to be one of .*but got 'in turns'; did you mean 'in turn'"):
        random_label(model, task, order="in turns", epochs=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_pixel_of_a_mask_draws_its_own_label(channels):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 6, 6, generator=source)
    y = (x > 0.5).float() if channels == 1 else (x[:, 0] * 3).long().clamp(max=2)
    data = TensorImages(x, y)
    task = UnlearnTask.forget_samples(data, data, [0, 1, 2], num_classes=max(channels, 2))
    model = nn.Conv2d(1, channels, 1)
    with torch.no_grad():
        model.weight.mul_(5)
    found = fitted(task, model, wrong_only=False)(load_tensors(task.forget)[0])
    p = found.sigmoid() if channels == 1 else found.softmax(1)
    assert (p - 1 / max(channels, 2)).abs().mean() < 0.12
