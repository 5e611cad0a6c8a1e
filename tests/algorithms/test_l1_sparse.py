"""The l1 schedule against a few lines of plain torch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import finetune, l1_sparse
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.schedules import constant


def setting():
    source = torch.Generator().manual_seed(0)
    data = TensorImages(torch.rand(24, 6, generator=source), torch.arange(24) % 3)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_the_penalty_falls_to_zero_on_a_straight_line():
    task, model = setting()
    x, y = load_tensors(task.retain)
    options = {"steps": 5, "lr": constant(0.1), "weight_decay": 1e-2, "batch_size": 32}
    found = l1_sparse(model, task, gamma=0.04, **options).model
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for weight in (0.04, 0.03, 0.02, 0.01, 0.0):
        optimizer.zero_grad()
        loss = F.cross_entropy(own(x), y) + weight * sum(p.abs().sum() for p in own.parameters())
        loss.backward()
        optimizer.step()
    for a, b in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_without_a_weight_it_is_finetuning():
    task, model = setting()
    options = {"steps": 3, "lr": 0.1, "batch_size": 32}  # Whole: the phases' names shuffle otherwise
    mine, plain = l1_sparse(model, task, gamma=0.0, **options).model, finetune(model, task, **options).model
    for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_large_weight_makes_small_weights():
    task, model = setting()
    sizes = [
        sum(p.abs().sum() for p in l1_sparse(model, task, gamma=g, steps=60, lr=0.05).model.parameters())
        for g in (0.0, 1e-2, 1e-1)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_negative_weight_is_refused():
    task, model = setting()
    with pytest.raises(ValueError, match=r"expected gamma in \[0, inf\), but got -0.1"):
        l1_sparse(model, task, gamma=-0.1)


def test_l1_sparse_trains_on_masks():
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 6, 6, generator=source)
    data = TensorImages(x, (x > 0.5).float())
    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 1)
    found = l1_sparse(model, UnlearnTask.forget_samples(data, data, [0]), steps=30, lr=1.0)
    assert found.history[-1]["cross_entropy(retain -> Labels)"] < found.history[0]["cross_entropy(retain -> Labels)"]
