"""DELETE: the masked distillation by hand, its target, and that it never reads the retain data."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import delete
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages, load_tensors


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.arange(count) % 4)


def setting():
    data = images(32, 0)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


class Unreadable(TensorImages):
    def batch(self, indices):
        raise AssertionError("the retain data were read")


def test_one_step_distils_the_softmax_over_the_other_classes():
    task, model = setting()
    x, _ = load_tensors(task.forget)
    closed = UnlearnTask(task.forget, Unreadable(*load_tensors(images(4, 1))), task.forget_test, task.retain_test, 4)
    found = delete(model, closed, steps=1, lr=0.3, batch_size=64, clip=None).model
    own = copy.deepcopy(model)
    with torch.no_grad():
        others = model(x)[:, [0, 2, 3]].softmax(1)
    log_p = own(x).log_softmax(1)[:, [0, 2, 3]]
    (others * (others.log() - log_p)).sum(1).mean().backward()
    for a, b in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b - 0.3 * b.grad)


def test_the_forgotten_class_vanishes_and_the_order_of_the_others_stays():
    task, model = setting()
    x, _ = load_tensors(task.forget)
    p, q = delete(model, task, steps=300, lr=0.1).model(x).softmax(1), model(x).softmax(1)
    assert p[:, 1].max() < 0.02
    expected = q[:, [0, 2, 3]] / q[:, [0, 2, 3]].sum(1, keepdim=True)
    torch.testing.assert_close(p[:, [0, 2, 3]], expected, atol=0.05, rtol=0)


def test_the_target_renormalises_what_is_left():
    model = nn.Identity()
    z = torch.tensor([[1.0, 2.0, 4.0], [50.0, -50.0, 0.0]])
    goal = L.OtherClasses(model)(L.Batch(z, torch.tensor([2, 0])))
    assert goal.kind == "probabilities"
    torch.testing.assert_close(goal.values[0], torch.tensor([0.26894143, 0.73105857, 0.0]))
    torch.testing.assert_close(goal.values[1], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6, rtol=0)
    assert str(L.OtherClasses(model)) == "OtherClasses(Identity)"
    with pytest.raises(TypeError, match=r"expected model to be a torch.nn.Module, but got int"):
        L.OtherClasses(3)


def test_of_a_single_logit_the_opposite_label_is_left():
    z, y = torch.randn(2, 1, 3, 3), torch.randint(0, 2, (2, 1, 3, 3)).float()
    goal = L.OtherClasses(nn.Identity())(L.Batch(z, y))
    torch.testing.assert_close(goal.values, 1 - y)
    assert torch.equal(L.OtherClasses(nn.Identity())(L.Batch(z, y[:, 0].long())).values, 1 - y)


@pytest.mark.parametrize("channels", [1, 3])
def test_delete_takes_the_true_label_from_every_pixel(channels):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 6, 6, generator=source)
    y = (x > 0.5).float() if channels == 1 else (x[:, 0] * 3).long().clamp(max=2)
    data = TensorImages(x, y)
    task = UnlearnTask.forget_samples(data, data, [0, 1, 2], num_classes=max(channels, 2))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, channels, 1))
    forgotten, truth = load_tensors(task.forget)
    z = delete(model, task, steps=200, lr=0.1).model(forgotten)
    if channels == 1:
        loss, start = (F.binary_cross_entropy_with_logits(w, truth) for w in (z, model(forgotten)))
    else:
        loss, start = (F.cross_entropy(w, truth) for w in (z, model(forgotten)))
    assert loss > start + 0.1
