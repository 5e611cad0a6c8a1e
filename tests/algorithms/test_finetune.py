"""Fine-tuning against a few lines of plain torch, and the bound on its gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import catastrophic_forget_k, finetune, l1_sparse
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.schedules import constant


def setting(scale=1.0):
    source = torch.Generator().manual_seed(0)
    data = TensorImages(scale * torch.rand(24, 6, generator=source), torch.arange(24) % 3)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def moved(before, after):
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return torch.cat([(b - a).detach().flatten() for a, b in pairs]).norm().item()


def test_it_is_gradient_descent_on_the_retain_data():
    task, model = setting()
    x, y = load_tensors(task.retain)
    found = finetune(model, task, steps=4, lr=constant(0.1), weight_decay=1e-2, batch_size=32).model
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(own(x), y).backward()
        optimizer.step()
    for a, b in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("method", [finetune, l1_sparse, catastrophic_forget_k])
def test_a_steep_batch_moves_the_weights_no_further_than_the_bound(method):
    task, model = setting(scale=200.0)  # gradients of length 100 and more
    options = {"steps": 1, "lr": 0.01, "weight_decay": 0.0, "batch_size": 32}
    assert moved(model, method(model, task, clip=None, **options).model) > 0.5
    assert moved(model, method(model, task, **options).model) == pytest.approx(0.01 * 5.0, rel=1e-3)
    assert moved(model, method(model, task, clip=0.5, **options).model) == pytest.approx(0.01 * 0.5, rel=1e-3)


@pytest.mark.parametrize("method", [finetune, l1_sparse, catastrophic_forget_k])
def test_a_bound_of_zero_is_refused(method):
    task, model = setting()
    with pytest.raises(ValueError, match=r"expected clip in \(0, inf\), but got 0"):
        method(model, task, clip=0)


def test_the_last_step_of_a_falling_rate_is_a_step():
    task, model = setting()
    one, two = (finetune(model, task, steps=steps, batch_size=32).model for steps in (1, 2))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
