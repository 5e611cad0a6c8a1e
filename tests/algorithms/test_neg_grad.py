"""NegGrad and NegGrad+ against one step of plain torch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import neg_grad, neg_grad_plus
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors


class Unreadable(TensorImages):
    def batch(self, indices):
        raise AssertionError("the retain data were read")


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    return torch.rand(count, 6, generator=source), torch.arange(count) % 3


def task_and_model():
    task = UnlearnTask.forget_class(TensorImages(*images(24, 0)), TensorImages(*images(9, 1)), 1)
    torch.manual_seed(0)
    return task, nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def stepped(model, loss_of, lr):
    """A copy after one step of plain gradient descent on ``loss_of(copy)``."""
    own = copy.deepcopy(model)
    loss_of(own).backward()
    with torch.no_grad():
        for p in own.parameters():
            p -= lr * p.grad
    return own


def assert_same(found, expected):
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def masks(count, channels, seed):
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 6, 6, generator=source)
    if channels == 1:
        return TensorImages(x, (x > 0.5).float())
    return TensorImages(x, (x[:, 0] * channels).long().clamp(max=channels - 1))


def test_one_step_of_neg_grad_climbs_the_mean_forget_loss():
    task, model = task_and_model()
    x, y = load_tensors(task.forget)
    found = neg_grad(model, task, steps=1, lr=0.3, clip=None).model
    assert_same(found, stepped(model, lambda m: -F.cross_entropy(m(x), y), 0.3))


def test_neg_grad_clips_the_gradient_norm():
    task, model = task_and_model()
    found = neg_grad(model, task, steps=1, lr=1.0, clip=1e-2).model
    moved = torch.cat([(a - b).flatten() for a, b in zip(found.parameters(), model.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(1e-2, rel=1e-3)


def test_neg_grad_does_not_read_the_retain_data():
    task, model = task_and_model()
    closed = UnlearnTask(task.forget, Unreadable(*images(9, 2)), task.forget_test, task.retain_test, 3)
    assert neg_grad(model, closed, steps=2).model is not model


def test_one_step_of_neg_grad_plus_weighs_both_losses():
    task, model = task_and_model()
    (x, y), (xr, yr) = load_tensors(task.forget), load_tensors(task.retain)
    found = neg_grad_plus(model, task, alpha=0.8, steps=1, lr=0.3, optimizer="sgd").model
    loss = lambda m: 0.8 * F.cross_entropy(m(xr), yr) - 0.2 * F.cross_entropy(m(x), y)  # noqa: E731
    assert_same(found, stepped(model, loss, 0.3))


def test_epochs_of_neg_grad_plus_are_passes_over_the_retain_data():
    task, model = task_and_model()
    ran = neg_grad_plus(model, task, epochs=2, batch_size=5, lr=1e-3)
    assert ran.history[-1]["step"] == 2 * 4 - 1  # 16 retain samples in batches of 5; only 8 to forget
    assert neg_grad(model, task, epochs=3, batch_size=5).history[-1]["step"] == 3 * 2 - 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, float("nan")])
def test_neg_grad_plus_refuses_an_alpha_that_drops_a_term(alpha):
    task, model = task_and_model()
    with pytest.raises(ValueError, match=r"expected alpha in \(0, 1\), but got"):
        neg_grad_plus(model, task, alpha=alpha)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", [neg_grad, neg_grad_plus])
def test_ascent_raises_the_forget_loss_of_masks(method, channels):
    train, test = masks(12, channels, 0), masks(4, channels, 1)
    task = UnlearnTask.forget_samples(train, test, [0, 1, 2], num_classes=max(channels, 2))
    torch.manual_seed(0)
    model = nn.Conv2d(1, channels, 1)
    x, y = load_tensors(task.forget)

    def loss(m):
        z = m(x)
        return F.binary_cross_entropy_with_logits(z, y) if channels == 1 else F.cross_entropy(z, y)

    options = {"alpha": 0.3} if method is neg_grad_plus else {}
    assert loss(method(model, task, steps=5, lr=0.05, **options).model) > loss(model)
