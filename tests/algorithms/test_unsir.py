from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from algorithms.unsir import noise_images, unsir
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.engine import Callback, Run

SOURCE = torch.Generator().manual_seed(0)
DATA = TensorImages(torch.rand(15, 1, 4, 4, generator=SOURCE), torch.arange(15) % 3)


@pytest.fixture
def task() -> UnlearnTask:
    return UnlearnTask.forget_class(DATA, DATA, 0)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    # Without the normalisation of models.mlp, which would bring images of any dtype to that of the weights.
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def search(model: nn.Module, task: UnlearnTask, steps: int, penalty: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    return noise_images(model, task, 6, steps=steps, lr=0.1, penalty=penalty, seed=0)


def in_dtype(dtype: torch.dtype, model: nn.Module) -> tuple[nn.Module, UnlearnTask]:
    data = TensorImages(DATA.inputs.to(dtype), DATA.targets)
    return copy.deepcopy(model).to(dtype), UnlearnTask.forget_class(data, data, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_that_of_a_plain_adam_over_an_image_parameter(model: nn.Module, dtype: torch.dtype) -> None:
    model, task = in_dtype(dtype, model)
    z = search(model, task, 0)[0].requires_grad_(True)
    adam = torch.optim.Adam([z], lr=0.1)
    for _ in range(4):
        adam.zero_grad()
        norm = ((z - 0.5) ** 2).sum((1, 2, 3)).mean()
        (0.1 * norm - nn.functional.cross_entropy(model(z), torch.zeros(6, dtype=torch.long))).backward()
        adam.step()
        z.data.clamp_(0, 1)
    torch.testing.assert_close(search(model, task, 4)[0], z.detach())


def test_noise_hurts_the_forget_class_and_leaves_the_model_alone(model: nn.Module, task: UnlearnTask) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    start, labels = search(model, task, 0)
    images, _ = search(model, task, 25, penalty=0.0)
    loss = nn.functional.cross_entropy
    assert loss(model(images), labels) > loss(model(start), labels) + 0.1
    assert labels.tolist() == [0] * 6
    assert images.min() >= 0
    assert images.max() <= 1
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_precision_changes_neither_the_draw_nor_what_is_learnt(model: nn.Module, task: UnlearnTask) -> None:
    double, finer = in_dtype(torch.float64, model)
    assert torch.equal(search(double, finer, 0)[0], search(model, task, 0)[0].double())
    options = {"noise_samples": 4, "noise_steps": 0, "steps": 2, "lr": 1e-3, "optimizer": "sgd"}
    found, expected = unsir(double, finer, **options).model, unsir(model, task, **options).model
    for name, value in found.named_parameters():
        assert value.dtype == torch.float64
        # Four small steps of gradients below 1: the roundings of float32, and room for a hundred of them.
        torch.testing.assert_close(value, expected.get_parameter(name).double(), atol=1e-5, rtol=0)


def test_noise_bears_the_labels_of_the_forget_data_in_turn(model: nn.Module) -> None:
    _, labels = search(model, UnlearnTask.forget_samples(DATA, DATA, [1, 2, 4]), 0)
    assert labels.tolist() == [1, 2, 1, 2, 1, 2]


def test_forget_images_are_not_trained_on_and_the_retain_data_are_a_subset(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    batch = TensorImages.batch

    def told(self: TensorImages, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        read.extend(indices.tolist())
        return batch(self, indices)

    task = UnlearnTask.forget_class(TensorImages(DATA.inputs, DATA.targets), DATA, 0)
    monkeypatch.setattr(TensorImages, "batch", told)
    unsir(model, task, noise_samples=4, noise_steps=1, retain_samples=3, epochs=2, batch_size=2)
    kept = [index for index in read if index % 3]
    assert set(read) - set(kept) == {0}  # Its shape, and the check of the model's outputs.
    assert len(set(kept)) == 3


def test_phases_impair_and_then_repair(model: nn.Module, task: UnlearnTask) -> None:
    seen: list[str] = []

    class Names(Callback):
        def on_step(self, run: Run) -> None:
            seen.append(run.phase)

    result = unsir(model, task, noise_samples=4, noise_steps=1, steps=2, callbacks=[Names()])
    assert seen == ["impair", "impair", "repair", "repair"]
    first, last = result.history[0], result.history[-1]
    assert {"cross_entropy(noise -> Labels)", "cross_entropy(retain -> Labels)"} <= set(first)
    assert "cross_entropy(noise -> Labels)" not in last


@pytest.mark.parametrize(
    ("option", "value"), [("noise_samples", 0), ("noise_steps", -1), ("noise_lr", -1.0), ("retain_samples", 0)]
)
def test_options_out_of_range_are_refused(model: nn.Module, task: UnlearnTask, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"expected {option} "):
        unsir(model, task, **{option: value})  # type: ignore[arg-type]


def test_masks_are_refused() -> None:
    masks = TensorImages(torch.rand(4, 1, 5, 5), torch.ones(4, 1, 5, 5))
    with pytest.raises(ValueError, match=r"expected a classification task for unsir, .* but got segmentation"):
        unsir(nn.Conv2d(1, 1, 1), UnlearnTask.forget_samples(masks, masks, [0]))
