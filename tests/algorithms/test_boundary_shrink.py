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
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.rand(9, 1, 4, 4), torch.arange(9) % 3
    return network, x, y


def test_one_step_by_hand(setting):
    """SGD on CE toward the label of x + radius sign(grad), and 2 CE on what is kept."""
    network, x, y = setting
    forget, retain = (x[y == 0], y[y == 0]), (x[y != 0], y[y != 0])
    task = UnlearnTask.forget_class(TensorImages(x, y), TensorImages(x, y), 0)

    inputs = forget[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(network(inputs), forget[1]), inputs)
    labels = network((forget[0] + 1.0 * slope.sign()).clamp(0, 1)).argmax(1)
    assert (labels != 0).any()
    loss = F.cross_entropy(network(forget[0]), labels) + 2 * F.cross_entropy(network(retain[0]), retain[1])
    weights = list(network.parameters())
    wanted = [p - 0.1 * g for p, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]

    options = {"radius": 1.0, "retain_weight": 2.0, "steps": 1, "batch_size": 9, "lr": 0.1, "clip": None}
    found = boundary_shrink(network, task, **options).model
    for mine, theirs in zip(found.parameters(), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


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
