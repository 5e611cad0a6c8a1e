"""Damping: what the edit leaves alone, what it removes, and patches of convolutions."""

import pytest
import torch
from torch import nn

from algorithms import damp
from algorithms.damp import own_direction
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors


def classes_of(x):
    return TensorImages(x, torch.arange(len(x)) % 4)


class Shared(nn.Module):
    """A linear layer, and a table of the same weight."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(9, 4), nn.Embedding(4, 9)
        self.table.weight = self.layer.weight

    def forward(self, x):
        return self.layer(x)


def vectors():
    source = torch.Generator().manual_seed(0)
    data = classes_of(torch.rand(40, 9, generator=source))
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 2), nn.Sequential(nn.Linear(9, 4))


def class_means(task):
    x, y = load_tensors(task.retain)
    return torch.stack([x[y == label].mean(0) for label in y.unique()])


def test_one_layer_loses_the_residual_of_the_forget_mean_and_keeps_the_retain_means():
    task, model = vectors()
    edited = damp(model, task, strength=1.0).model
    kept = class_means(task)
    torch.testing.assert_close(edited(kept), model(kept), atol=1e-5, rtol=0)
    mean = load_tensors(task.forget)[0].mean(0)
    nearest = kept.T @ torch.linalg.lstsq(kept.T, mean[:, None]).solution[:, 0]
    residual = mean - nearest
    assert residual.norm() > 1e-2
    torch.testing.assert_close(edited(mean[None]), model(nearest[None]), atol=1e-5, rtol=0)
    d = residual / residual.norm()
    projected = model[0].weight @ (torch.eye(9) - torch.outer(d, d))
    torch.testing.assert_close(edited[0].weight, projected, atol=1e-5, rtol=0)


def test_strength_grows_with_depth_and_two_reflects():
    task, _ = vectors()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 4))
    strengths = damp(model, task, strength=0.5, growth=3).details["strengths"]
    assert strengths == pytest.approx({"0": 0.5 / 27, "2": 0.5 * 8 / 27, "4": 0.5})
    task, model = vectors()
    once, twice = damp(model, task, strength=1.0).model[0].weight, damp(model, task, strength=2.0).model[0].weight
    torch.testing.assert_close(model[0].weight - twice, 2 * (model[0].weight - once))


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_weight_is_edited_once_where_it_runs_last_and_keeps_the_retain_means_of_every_run(tied):
    task, _ = vectors()
    torch.manual_seed(0)
    # Two layers with one weight, or one layer that runs twice.
    first, between = nn.Linear(9, 9, bias=False), nn.Linear(9, 9)
    last = nn.Linear(9, 9, bias=False) if tied else first
    last.weight = first.weight
    model = nn.Sequential(first, nn.Tanh(), between, nn.Tanh(), last, nn.Tanh(), nn.Linear(9, 4))
    result = damp(model, task, strength=1.5, growth=2)
    assert result.details["strengths"] == pytest.approx({"2": 1.5 / 9, "0": 1.5 * 4 / 9, "6": 1.5})
    assert result.model[4].weight is result.model[0].weight

    inputs = [(lambda x, depth=depth: model[:depth](x)) for depth in (0, 4)]
    x, y = load_tensors(task.retain)
    kept = torch.cat([torch.stack([run(x)[y == k].mean(0) for k in y.unique()]) for run in inputs]).double()
    mean = inputs[-1](load_tensors(task.forget)[0]).mean(0).double()
    residual = mean - kept.T @ torch.linalg.lstsq(kept.T, mean[:, None]).solution[:, 0]
    assert residual.norm() > 1e-2
    d = residual / residual.norm()
    projected = first.weight.double() @ (torch.eye(9) - 1.5 * 4 / 9 * torch.outer(d, d))
    torch.testing.assert_close(result.model[0].weight.double(), projected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.model[0](kept.float()), first(kept.float()), atol=1e-5, rtol=0)


def test_a_weight_that_another_kind_of_layer_reads_is_refused():
    task, _ = vectors()
    with pytest.raises(ValueError, match=r"layers alone for damp, but 'layer' shares its weight with 'table' \(Embed"):
        damp(Shared(), task)


@pytest.mark.parametrize(
    ("padding", "stride"), [(0, 1), (1, 1), ((0, 2), 1), ("same", 1), ("valid", 1), (0, 2), (1, 2), ("valid", 2)]
)
def test_a_convolution_keeps_its_mean_output_on_the_retain_classes(padding, stride):
    source = torch.Generator().manual_seed(0)
    data = classes_of(torch.rand(24, 2, 7, 6, generator=source))
    task = UnlearnTask.forget_class(data, data, 1)
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 4, (3, 2), stride=stride, padding=padding, dilation=(1, 2))
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    edited = damp(model, task).model
    x, y = load_tensors(task.retain)
    for label in y.unique():
        mean = [network(x[y == label]).mean(0) for network in (edited, model)]
        torch.testing.assert_close(*mean, atol=1e-5, rtol=0)
    forgotten = load_tensors(task.forget)[0]
    assert (edited(forgotten).mean(0) - model(forgotten).mean(0)).abs().max() > 1e-4


def test_there_is_no_direction_where_the_retain_means_span_everything():
    assert own_direction(torch.rand(3).double(), torch.rand(5, 3).double()) is None
    narrow = TensorImages(torch.rand(40, 2), torch.arange(40) % 4)
    with pytest.raises(ValueError, match="expected a layer whose mean input on the forget data is its own"):
        damp(nn.Sequential(nn.Linear(2, 4)), UnlearnTask.forget_class(narrow, narrow, 0))


def test_damp_refuses_masks_and_bad_strengths():
    x = torch.rand(6, 1, 4, 4)
    data = TensorImages(x, (x > 0.5).float())
    with pytest.raises(ValueError, match="damp, which makes no sense for masks, but got segmentation"):
        damp(nn.Conv2d(1, 1, 1), UnlearnTask.forget_samples(data, data, [0]))
    task, model = vectors()
    with pytest.raises(ValueError, match=r"expected strength in \[0, 2\], but got 3"):
        damp(model, task, strength=3)
