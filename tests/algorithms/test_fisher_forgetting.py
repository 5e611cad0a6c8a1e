"""Fisher forgetting: the size of its noise, and the rows of the head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import fisher_forgetting
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.models import declare_head


def setting(forget_class=True, inputs=40):
    source = torch.Generator().manual_seed(0)
    data = TensorImages(torch.rand(24, inputs, generator=source), torch.arange(24) % 4)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, 60), nn.Tanh(), nn.Linear(60, 4))
    if forget_class:
        return UnlearnTask.forget_class(data, data, 1), declare_head(model, "2")
    return UnlearnTask.forget_samples(data, data, [0, 1, 5]), model


def fisher(model, task):
    totals = [torch.zeros_like(p) for p in model.parameters()]
    for x, y in zip(*load_tensors(task.retain), strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), list(model.parameters()))
        for total, g in zip(totals, gradients, strict=True):
            total += g**2 / len(task.retain)
    return totals


def test_the_noise_is_normal_with_the_inverse_importance_as_variance():
    task, model = setting(forget_class=False)
    standardised = []
    for seed in range(4):
        found = fisher_forgetting(model, task, alpha=1e-4, cap=1e5, samples=None, seed=seed).model
        for after, before, f in zip(found.parameters(), model.parameters(), fisher(model, task), strict=True):
            variance = 1e-4 * torch.clamp(1 / (f + 1e-8), max=1e5)
            standardised.append(((after - before) / variance.sqrt()).flatten().detach())
    z = torch.cat(standardised)
    assert len(z) > 10_000
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert z.var() == pytest.approx(1, abs=0.06)
    assert (z.abs() < 1.96).float().mean() == pytest.approx(0.95, abs=0.01)


def test_the_cap_bounds_the_variance():
    task, model = setting(forget_class=False)
    found = fisher_forgetting(model, task, alpha=1e-2, cap=1.0, samples=None).model
    moves = torch.cat([(a - b).flatten() for a, b in zip(found.parameters(), model.parameters(), strict=True)])
    assert moves.var().item() == pytest.approx(1e-2, rel=0.1)  # No importance here is near 1.


def test_the_rows_of_a_forgotten_class_are_drawn_anew_and_no_others():
    task, model = setting()
    found = fisher_forgetting(model, task, alpha=0.0, samples=None, head_variance=0.04).model
    row = torch.cat([found[2].weight[1], found[2].bias[1:2]])
    assert row.var().item() == pytest.approx(0.04, rel=0.5)
    assert abs(row.mean()) < 0.1
    assert not torch.equal(found[2].weight[1], model[2].weight[1])
    others = [0, 2, 3]
    assert torch.equal(found[2].weight[others], model[2].weight[others])
    assert torch.equal(found[0].weight, model[0].weight)


def test_single_samples_leave_the_head_to_the_noise_alone():
    task, model = setting(forget_class=False)
    with pytest.warns(UserWarning, match="changed no weight"):
        found = fisher_forgetting(model, task, alpha=0.0).model
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True))


def test_a_class_needs_a_head_unless_it_is_left_alone():
    task, model = setting()
    del model.unlearn_kit_head
    model.append(nn.Softplus())
    with pytest.raises(ValueError, match="does not declare which submodule is its head"):
        fisher_forgetting(model, task)
    with pytest.warns(UserWarning, match="changed no weight"):
        kept = fisher_forgetting(model, task, alpha=0.0, reset_head=False).model
    assert torch.equal(kept[2].weight, model[2].weight)
    with pytest.raises(ValueError, match=r"expected alpha in \[0, inf\), but got -1"):
        fisher_forgetting(model, task, alpha=-1)
