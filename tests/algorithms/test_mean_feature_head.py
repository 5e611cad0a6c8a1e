from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.mean_feature_head import class_features, mean_feature_head, mean_head
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.engine import Callback, Run
from unlearn_kit.models import declare_head, mlp, with_normalization

SOURCE = torch.Generator().manual_seed(0)
DATA = TensorImages(torch.rand(30, 1, 4, 4, generator=SOURCE), torch.arange(30) % 3)


@pytest.fixture
def task() -> UnlearnTask:
    return UnlearnTask.forget_class(DATA, DATA, 0)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return mlp(3, input_shape=(1, 4, 4), hidden=(8,))


def expected_head(model: nn.Module, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """By numpy: rows are unit vectors from the centre of the class means to each of them."""
    features = model[:-1](DATA.inputs).detach().double().numpy()
    means = np.stack([features[DATA.targets.numpy() == k].mean(0) for k in range(3)])
    offsets = means - means.mean(0)
    rows = scale * offsets / np.sqrt((offsets**2).sum(1, keepdims=True))
    return rows, -rows @ means.mean(0)


def test_the_head_is_the_centred_normalised_class_means(model: nn.Module, task: UnlearnTask) -> None:
    found = mean_feature_head(model, task, rounds=1, steps=1, lr=0.0).model
    scale = float(np.sqrt((model[-1].weight.detach().numpy() ** 2).sum(1).mean()))
    rows, bias = expected_head(model, scale)
    np.testing.assert_allclose(found[-1].weight.detach(), rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[-1].bias.detach(), bias, rtol=1e-4, atol=1e-6)
    assert torch.equal(next(found.parameters()), next(model.parameters()))


def test_each_round_sets_the_head_from_the_encoder_as_it_is_then(model: nn.Module, task: UnlearnTask) -> None:
    scale = float(model[-1].weight.detach().square().sum(1).mean().sqrt())
    heads: list[torch.Tensor] = []
    encoders: list[nn.Module] = []

    class Watch(Callback):
        def on_step(self, run: Run) -> None:
            heads.append(run.model[-1].weight.detach().clone())
            encoders.append(copy.deepcopy(run.model))

    mean_feature_head(model, task, rounds=2, steps=2, lr=0.5, callbacks=[Watch()])
    assert torch.equal(heads[0], heads[1])  # Frozen within a round.
    assert torch.equal(heads[2], heads[3])
    assert not torch.equal(heads[1], heads[2])
    np.testing.assert_allclose(heads[2], expected_head(encoders[1], scale)[0], rtol=1e-4, atol=1e-6)


def test_any_objective_trains_the_encoder_alone(model: nn.Module, task: UnlearnTask) -> None:
    objective = L.cross_entropy(on="retain")
    found = mean_feature_head(model, task, objective=objective, rounds=1, steps=1, lr=0.1, clip=None, batch_size=30)
    own = mean_feature_head(model, task, rounds=1, steps=1, lr=0.0).model  # The head, and nothing else.
    x, y = load_tensors(task.retain)
    encoder = [p for name, p in own.named_parameters() if "head" not in name]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(own(x), y), encoder)
    trained = [p for name, p in found.model.named_parameters() if "head" not in name]
    for p, q, g in zip(trained, encoder, gradients, strict=True):
        torch.testing.assert_close(p, q - 0.1 * g)
    torch.testing.assert_close(found.model[-1].weight, own[-1].weight)


def test_frozen_encoder_weights_stay(model: nn.Module, task: UnlearnTask) -> None:
    deep = mlp(3, input_shape=(1, 4, 4), hidden=(8, 8))
    frozen = next(deep.parameters()).requires_grad_(False)
    found = mean_feature_head(deep, task, steps=2).model
    assert torch.equal(next(found.parameters()), frozen)
    assert not torch.equal(list(found.parameters())[2], list(deep.parameters())[2])


def test_features_are_found_behind_a_wrapper() -> None:
    inner = declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "1")
    found = class_features(with_normalization(inner, 0.5, 0.25), DATA.inputs, DATA.targets)
    wanted = [((DATA.inputs[DATA.targets == k] - 0.5) / 0.25).flatten(1).mean(0) for k in range(3)]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_a_class_without_samples_keeps_its_row() -> None:
    four = mlp(4, input_shape=(1, 4, 4))
    found = mean_feature_head(four, UnlearnTask.forget_class(DATA, DATA, 0, num_classes=4), rounds=1, steps=1).model
    kept = [torch.equal(found[-1].weight[k], four[-1].weight[k]) for k in range(4)]
    assert kept == [False, False, False, True]


def test_equal_means_give_no_nan() -> None:
    weight, bias = mean_head(torch.ones(3, 4))
    assert torch.equal(weight, torch.zeros(3, 4))
    assert torch.equal(bias, torch.zeros(3))


def test_what_it_cannot_do_is_refused_by_name(model: nn.Module, task: UnlearnTask) -> None:
    bare = declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)), "1")
    with pytest.raises(ValueError, match=r"expected the head '1' to be an nn.Linear with a bias"):
        mean_feature_head(bare, task)
    with pytest.raises(ValueError, match=r"expected the head 'head' to be an nn.Linear with a bias that may change"):
        mean_feature_head(model.requires_grad_(False), task)
    halves = TensorImages(DATA.inputs, DATA.targets % 2)
    two = UnlearnTask.forget_samples(halves, halves, [0, 1])
    single = declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), "1")
    with pytest.raises(
        ValueError, match=r"the head '1' to have one output a class, 2, for mean_feature_head, but got 1"
    ):
        mean_feature_head(single, two)
    with pytest.raises(ValueError, match="expected rounds to be at least 1, but got 0"):
        mean_feature_head(mlp(3, input_shape=(1, 4, 4)), task, rounds=0)
    masks = TensorImages(torch.rand(4, 1, 5, 5), torch.ones(4, 1, 5, 5))
    with pytest.raises(ValueError, match=r"expected a classification task for mean_feature_head, .* segmentation"):
        mean_feature_head(nn.Conv2d(1, 1, 1), UnlearnTask.forget_samples(masks, masks, [0]))
