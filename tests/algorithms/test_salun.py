"""SalUn's mask, and that nothing outside it moves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import random_label, salun
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors


def setting():
    source = torch.Generator().manual_seed(0)
    data = TensorImages(torch.rand(32, 6, generator=source), torch.arange(32) % 4)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))
    model[1].running_mean.uniform_(-0.5, 0.5)
    return UnlearnTask.forget_class(data, data, 2), model


def mask_by_hand(model, task, density):
    """The largest entries of the summed gradient, by sorting all of them."""
    x, y = load_tensors(task.forget)
    model.eval()
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), list(model.parameters()))
    flat = torch.cat([g.abs().flatten() for g in gradients])
    threshold = flat.sort(descending=True).values[round(density * len(flat)) - 1]
    return [g.abs() >= threshold for g in gradients]


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_only_the_most_salient_weights_move(density):
    task, model = setting()
    masks = mask_by_hand(model, task, density)
    found = salun(model, task, density=density, steps=5, weight_decay=0.1, lr=0.05).model
    for mask, before, after in zip(masks, model.parameters(), found.parameters(), strict=True):
        assert torch.equal(after[~mask], before[~mask])
        assert (after[mask] != before[mask]).all()


def test_the_mask_is_taken_in_eval_mode():
    task, model = setting()
    model.eval()
    calm = salun(model, task, steps=2, seed=1).model.state_dict()
    model.train()
    assert all(torch.equal(v, calm[k]) for k, v in salun(model, task, steps=2, seed=1).model.state_dict().items())


def test_a_full_mask_is_random_label():
    task, model = setting()
    options = {"steps": 4, "weight_decay": 0.01, "seed": 5}
    expected = random_label(model, task, **options).model.state_dict()
    found = salun(model, task, density=1.0, **options).model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_salun_in_turn_needs_epochs_and_a_density():
    task, model = setting()
    with pytest.raises(ValueError, match="expected epochs with order='in turn', but got None"):
        salun(model, task, order="in turn")
    with pytest.raises(ValueError, match=r"expected density in \(0, 1\], but got 0"):
        salun(model, task, density=0)
