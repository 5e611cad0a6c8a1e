"""Boundary shrink: one step by hand, and the published form that reads the forget data alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import boundary_shrink
from unlearn_kit import UnlearnTask
from unlearn_kit.data import TensorImages


class Unreadable(TensorImages):
    """Data that may be counted, and nothing else."""

    def batch(self, indices):
        raise AssertionError("the retain data were read")


@pytest.fixture
def setting():
    torch.manual_seed(7)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.rand(9, 1, 4, 4), torch.arange(9) % 3
    return network, x, y


@pytest.mark.parametrize("uncrossed", ["keep", "runner-up"])
def test_one_step_by_hand(setting, uncrossed):
    """SGD on CE toward the label of x + radius sign(grad), and 2 CE on what is kept."""
    network, x, y = setting
    forget, retain = (x[y == 0], y[y == 0]), (x[y != 0], y[y != 0])
    task = UnlearnTask.forget_class(TensorImages(x, y), TensorImages(x, y), 0)

    inputs = forget[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(network(inputs), forget[1]), inputs)
    logits = network((forget[0] + 0.3 * slope.sign()).clamp(0, 1)).detach()
    labels = logits.argmax(1)
    assert 0 < (labels == 0).sum() < 3  # some cross, and some do not
    if uncrossed == "runner-up":
        labels = torch.where(labels == 0, 1 + logits[:, 1:].argmax(1), labels)
    loss = F.cross_entropy(network(forget[0]), labels) + 2 * F.cross_entropy(network(retain[0]), retain[1])
    weights = list(network.parameters())
    wanted = [p - 0.1 * g for p, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]

    options = {"radius": 0.3, "retain_weight": 2.0, "steps": 1, "batch_size": 9, "lr": 0.1, "clip": None}
    found = boundary_shrink(network, task, uncrossed=uncrossed, **options).model
    for mine, theirs in zip(found.parameters(), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_class_that_the_network_is_certain_of_is_forgotten_by_default_and_all_else_keeps_its_labels(setting):
    network, x, y = setting
    with torch.no_grad():
        network[3].bias[0] += 100.0  # no step of the search leaves class 0
    task = UnlearnTask.forget_class(TensorImages(x, y), TensorImages(x, y), 0)
    options = {"steps": 1, "batch_size": 9, "seed": 1}
    default, crossed, kept = (
        boundary_shrink(network, task, **options, **more).model.state_dict()
        for more in ({}, {"uncrossed": "runner-up"}, {"uncrossed": "keep"})
    )
    assert all(torch.equal(default[name], crossed[name]) for name in default)
    assert any(not torch.equal(default[name], kept[name]) for name in default)
    masks = TensorImages(x, (x > 0.5).float())
    some = UnlearnTask.forget_samples(TensorImages(x, y), TensorImages(x, y), [0, 3])
    for model, other in (
        (network, some),
        (nn.Conv2d(1, 1, 3, padding=1), UnlearnTask.forget_samples(masks, masks, [0, 1])),
    ):
        default, kept = (
            boundary_shrink(model, other, **options, **more).model.state_dict() for more in ({}, {"uncrossed": "keep"})
        )
        assert all(torch.equal(default[name], kept[name]) for name in default)


def test_published_form_reads_no_retain_data(setting):
    network, x, y = setting
    task = UnlearnTask(TensorImages(x, y), Unreadable(x, y), TensorImages(x, y), TensorImages(x, y), num_classes=3)
    found = boundary_shrink(network, task, retain_weight=0, steps=2, batch_size=4).model
    moved = [not torch.equal(a, b) for a, b in zip(found.parameters(), network.parameters(), strict=True)]
    assert any(moved)
    with pytest.raises(AssertionError, match="were read"):
        boundary_shrink(network, task, steps=1, batch_size=4)


def test_a_negative_weight_is_refused(setting):
    network, x, y = setting
    task = UnlearnTask.forget_class(TensorImages(x, y), TensorImages(x, y), 0)
    with pytest.raises(ValueError, match="expected retain_weight in"):
        boundary_shrink(network, task, retain_weight=-1.0)
