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
