"""Masked small gradients: which weights are drawn anew, and how slowly the others follow."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import masked_small_gradient
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors


def setting(kind="convolutional"):
    source = torch.Generator().manual_seed(0)
    data = TensorImages(torch.rand(24, 1, 6, 6, generator=source), torch.arange(24) % 2)
    torch.manual_seed(0)
    # Tanh: a dead ReLU would give many weights the same gradient, zero.
    if kind == "linear":
        body = [nn.Flatten(), nn.Linear(36, 2)]
    else:
        body = [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)]
    if kind == "tied":
        body[3:3] = [nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1)]
        body[4].weight = body[2].weight
    model = nn.Sequential(*body)
    # Half of the data: the retain sample of its size is all of the rest.
    return UnlearnTask.forget_class(data, data, 0), model


KINDS = {"convolutional": ["0.weight", "2.weight"], "linear": ["1.weight"], "tied": ["0.weight", "2.weight"]}


def smallest_by_hand(model, task, share):
    gradients = []
    for data in (task.forget, task.retain):
        x, y = load_tensors(data)
        gradients.append(torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), list(model.parameters())))
    masks = []
    for forget, retain in zip(*gradients, strict=True):
        difference = (retain - forget).abs()
        masks.append(difference <= difference.flatten().sort().values[round(share * difference.numel()) - 1])
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_with_the_smallest_difference_of_gradients_are_drawn_anew(kind):
    task, model = setting(kind)
    found = masked_small_gradient(model, task, share=0.5, steps=0).model
    masks = dict(zip(dict(model.named_parameters()), smallest_by_hand(model, task, 0.5), strict=True))
    for name, before in model.named_parameters():
        changed = found.get_parameter(name) != before
        assert torch.equal(changed, masks[name] if name in KINDS[kind] else torch.zeros_like(changed))


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_weights_follow_slowly_or_not_at_all(kind):
    task, model = setting(kind)
    masks = dict(zip(dict(model.named_parameters()), smallest_by_hand(model, task, 0.5), strict=True))
    options = {"share": 0.5, "batch_size": 24, "lr": 0.1, "clip": None, "doublings": 0}
    start = masked_small_gradient(model, task, steps=0, **options).model
    moves = {}
    for slow in (1.0, 0.1, 0.0):
        after = masked_small_gradient(model, task, steps=1, slow=slow, **options).model
        moves[slow] = {name: p - start.get_parameter(name) for name, p in after.named_parameters()}
    for name, full in moves[1.0].items():
        free = masks[name] if name in KINDS[kind] else torch.zeros_like(masks[name])
        torch.testing.assert_close(moves[0.1][name], torch.where(free, full, 0.1 * full), atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(moves[0.0][name], torch.where(free, full, 0.0), atol=1e-7, rtol=1e-5)


def test_masked_small_gradient_works_on_masks_and_refuses_bad_options():
    x = torch.rand(8, 1, 6, 6)
    data = TensorImages(x, (x > 0.5).float())
    task = UnlearnTask.forget_samples(data, data, [0, 1])
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    assert masked_small_gradient(model, task, steps=2).history[0]["total"] > 0
    with pytest.raises(ValueError, match=r"expected share in \[0, 1\], but got 1.5"):
        masked_small_gradient(model, task, share=1.5)
    with pytest.raises(ValueError, match=r"expected slow in \[0, 1\], but got -1"):
        masked_small_gradient(model, task, slow=-1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="expected model to have convolutions or linear layers that may change"):
        masked_small_gradient(model, task)
