"""A model that normalises pixels in [0, 1] is given such pixels, or refuses at every door."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torchvision import transforms

import algorithms
from unlearn_kit import UnlearnTask, engine, metrics, models
from unlearn_kit import losses as L
from unlearn_kit.pixel_range import check_pixels, normalizes_unit_pixels

X, Y = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
X[0] = 0  # a black image has no range to tell by


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def normalizing() -> nn.Module:
    return models.with_normalization(network(), [0.5, 0.4, 0.3], [0.2, 0.2, 0.2])


class Own(nn.Module):
    """As people write it: buffers of the network itself."""

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), mean))
        self.register_buffer("std", torch.full((1, 3, 1, 1), std))
        self.inside = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside((x - self.mean) / self.std)


@pytest.mark.parametrize(
    ("model", "normalizes"),
    [
        (normalizing(), True),
        (nn.Sequential(transforms.Normalize([0.5] * 3, [0.2] * 3), network()), True),
        (nn.Sequential(nn.Identity(), nn.Sequential(transforms.Normalize([0.5] * 3, [0.2] * 3)), network()), True),
        (Own(), True),
        (Own(123.0, 58.0), False),  # of pixels in 0..255
        (models.with_normalization(network(), 0.0, 1.0), False),  # which does nothing
        (network(), False),
        (nn.Sequential(nn.BatchNorm2d(3), network()), False),
        (nn.Sequential(network(), transforms.Normalize([0.5] * 3, [0.2] * 3)), False),  # of what it returns
    ],
)
def test_models_that_normalise_are_known(model: nn.Module, normalizes: bool) -> None:
    assert normalizes_unit_pixels(model) == normalizes
    check_pixels(model, X)
    check_pixels(model, X * 1.2 - 0.1)  # an augmentation
    check_pixels(model, X[:0])
    check_pixels(model, 9 * torch.ones(4, 3))  # vectors are no pixels
    for wrong in (X * 255, (X - 0.5) / 0.2, X * 2 - 1):
        if normalizes:
            with pytest.raises(ValueError, match=r"expected images with pixels in \[0, 1\]"):
                check_pixels(model, wrong)
        else:
            check_pixels(model, wrong)


KINDS = {
    "0..255": (lambda x: x * 255, r"got .*: divide pixels of 0..255 by 255, or give a model without"),
    "standardised": (lambda x: (x - 0.5) / 0.2, "got -2.5 to .*: give raw pixels, not normalised ones"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_door_refuses_other_pixels(kind: str) -> None:
    change, message = KINDS[kind]
    data, right = TensorDataset(change(X), Y), TensorDataset(X, Y)
    task = UnlearnTask.forget_samples(data, data, [0, 4, 5], validation=())
    model = normalizing()
    with pytest.raises(ValueError, match="the images of forget with pixels in"):
        algorithms.finetune(model, task, steps=1)
    for name in ("ssd", "fisher_forgetting", "perturbed_sign", "retrain", "damp", "neg_grad"):
        with pytest.raises(ValueError, match="the images of forget with pixels in"):
            getattr(algorithms, name)(model, task)
    with pytest.raises(ValueError, match=message):
        engine.train(model, data, epochs=1)
    with pytest.raises(ValueError, match="the images of retain with pixels in"):
        engine.fit(model, engine.Phase(L.cross_entropy(on="retain"), {"retain": data}, steps=1))
    for call in (
        lambda: metrics.evaluate(model, task),
        lambda: metrics.accuracy(model, data),
        lambda: metrics.evaluate(model, UnlearnTask.forget_samples(right, data, [0], validation=())),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    # Of a network that normalises nothing nobody can tell.
    metrics.evaluate(network(), task)
    metrics.evaluate(model, UnlearnTask.forget_samples(right, right, [0], validation=()))


class Counting(Dataset):
    """Counts what is read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read += 1
        return X[index % 12], index % 3


def test_the_check_reads_a_few_samples_and_none_where_nothing_is_normalised() -> None:
    data = Counting()
    engine.door.check_sample(network(), data, "train")
    assert data.read == 0
    engine.door.check_sample(normalizing(), data, "train")
    assert data.read == 3
