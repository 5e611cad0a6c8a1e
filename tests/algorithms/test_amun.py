from __future__ import annotations

import pytest
import torch
from torch import nn

from algorithms.amun import adversarial_set, amun
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.models import mlp

SOURCE = torch.Generator().manual_seed(0)
INPUTS = torch.rand(24, 1, 3, 3, generator=SOURCE)


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above one half."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-z, z], dim=1)


def test_the_smallest_radius_that_works_is_found_for_each_sample() -> None:
    model, means = Threshold().eval(), INPUTS.flatten(1).mean(1)
    labels = (means > 0.5).long()
    x, y, radii = adversarial_set(model, TensorImages(INPUTS, labels), radius=0.01, growth=2, max_radius=1, steps=1)
    assert len(x) == 24
    expected = []
    for image, own in zip(INPUTS, labels, strict=True):  # One full step moves every pixel, up to the bounds.
        for size in (0.01 * 2**k for k in range(7)):
            if ((image + size * (1 - 2 * own)).clamp(0, 1).mean() > 0.5).long() != own:
                expected.append(size)
                break
    assert sorted(radii.tolist()) == pytest.approx(sorted(expected))
    torch.testing.assert_close(model(x).argmax(1), y)


def test_examples_bear_the_original_models_own_wrong_labels() -> None:
    torch.manual_seed(0)
    model = mlp(4, input_shape=(1, 3, 3), hidden=(16,)).eval()
    labels = model(INPUTS).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    x, y, radii = adversarial_set(model, TensorImages(INPUTS, labels), radius=0.02, growth=1.5, max_radius=0.8, steps=3)
    assert torch.equal(model(x).argmax(1), y)
    # What is wrong by itself is its own example.
    assert int((radii == 0).sum()) == 3
    assert torch.equal(x[radii == 0], INPUTS[:3])
    assert torch.equal(y[radii == 0], model(INPUTS[:3]).argmax(1))


def test_one_step_is_that_of_the_three_cross_entropies() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    data = TensorImages(INPUTS, torch.arange(24) % 3)
    task = UnlearnTask.forget_class(data, data, 0)
    result = amun(
        model, task, steps=1, batch_size=30, lr=0.1, weight_decay=0.0, clip=None, forget_weight=0.5, retain_weight=2.0
    )
    x, y, radii = adversarial_set(model, task.forget, radius=0.01, growth=2, max_radius=1, steps=3)
    loss = nn.functional.cross_entropy
    old, own = model[1].weight, data.targets
    kept, forgot = own > 0, own == 0
    total = loss(model(x), y) + 0.5 * loss(model(INPUTS[forgot]), own[forgot])
    (gradient,) = torch.autograd.grad(total + 2 * loss(model(INPUTS[kept]), own[kept]), old)
    torch.testing.assert_close(result.model[1].weight, old - 0.1 * gradient)
    assert result.details["adversarial_examples"] == len(x)
    assert result.details["median_radius"] == pytest.approx(float(radii.median()))


def test_without_the_retain_data_they_are_not_read() -> None:
    data = TensorImages(INPUTS, torch.arange(24) % 3)
    given = UnlearnTask.forget_class(data, data, 0)

    class Unread:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> None:
            raise RuntimeError("read")

    blind = UnlearnTask(given.forget, Unread(), given.forget_test, given.retain_test, 3)
    amun(mlp(3, input_shape=(1, 3, 3)), blind, retain_weight=0, steps=1)


def test_a_forget_set_without_examples_is_refused() -> None:
    model, labels = Threshold(), (INPUTS.flatten(1).mean(1) > 0.5).long()
    data = TensorImages(torch.where(labels.view(-1, 1, 1, 1) == 1, 1.0, 0.0).expand(INPUTS.shape).clone(), labels)
    with pytest.raises(
        ValueError, match=r"expected an adversarial example of some forget sample within max_radius=0.1"
    ):
        amun(model, UnlearnTask.forget_samples(data, data, [0, 1]), max_radius=0.1)


@pytest.mark.parametrize(
    ("option", "value"), [("radius", 0.0), ("growth", 1.0), ("max_radius", 0.001), ("forget_weight", -1.0)]
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    data = TensorImages(INPUTS, torch.arange(24) % 3)
    with pytest.raises(ValueError, match=f"expected {option} in"):
        amun(mlp(3, input_shape=(1, 3, 3)), UnlearnTask.forget_class(data, data, 0), **{option: value})  # type: ignore[arg-type]


def test_masks_are_refused() -> None:
    masks = TensorImages(torch.rand(4, 1, 5, 5), torch.ones(4, 1, 5, 5))
    with pytest.raises(ValueError, match=r"expected a classification task for amun, .* but got segmentation"):
        amun(nn.Conv2d(1, 1, 1), UnlearnTask.forget_samples(masks, masks, [0]))
