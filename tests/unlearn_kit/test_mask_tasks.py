"""Forgetting a class of the masks."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from unlearn_kit import UnlearnTask
from unlearn_kit.data import TensorImages, load_tensors, without_class
from unlearn_kit.metrics import evaluate


def tissue(count: int = 6) -> TensorImages:
    """Images of three classes; class 2 occurs in every second one."""
    masks = torch.zeros(count, 4, 4, dtype=torch.int64)
    masks[:, 0] = 1
    masks[::2, 1] = 2
    return TensorImages(torch.arange(count)[:, None, None, None].expand(-1, 1, 4, 4) / count, masks)


class Lazy(Dataset):
    def __init__(self, inner: TensorImages) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner[index]


@pytest.mark.parametrize("wrap", [lambda d: d, Lazy])
def test_the_class_is_forgotten_and_its_images_are_kept(wrap) -> None:
    train, test = tissue(6), tissue(4)
    task = UnlearnTask.forget_mask_class(wrap(train), wrap(test), 2, num_classes=3)
    assert (task.kind, task.num_classes, task.forget_classes) == ("segmentation", 3, (2,))
    assert task.forget_indices is not None
    assert task.forget_indices.tolist() == [0, 2, 4]
    assert torch.equal(load_tensors(task.forget)[1], train.targets[::2])
    x, y = load_tensors(task.retain)
    assert torch.equal(x, train.inputs)
    assert torch.equal(y, torch.where(train.targets == 2, 0, train.targets))
    # One of four images is set aside to choose by; the class is in every other.
    assert (len(task.retain_test), len(task.retain_validation)) == (3, 1)
    assert len(task.forget_test) + len(task.forget_validation) == 2
    for x, y in (load_tensors(task.retain_test), load_tensors(task.retain_validation)):
        places = [next(i for i in range(4) if torch.equal(one, test.inputs[i])) for one in x]
        assert torch.equal(y, torch.where(test.targets == 2, 0, test.targets)[places])
    assert (train.targets == 2).any()


class Constant(torch.nn.Module):
    """Predicts class 1 in the first row, class 2 in the second when told to, background elsewhere."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        logits = torch.zeros(3, 4, 4)
        logits[0] = 1
        logits[1, 0] = 5
        logits[2, 1] = 5.0 * knows
        self.register_buffer("logits", logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.logits.expand(len(x), -1, -1, -1)


def test_evaluation_scores_the_forgotten_class_apart() -> None:
    task = UnlearnTask.forget_mask_class(tissue(6), tissue(4), 2)
    knows, forgot = evaluate(Constant(True), task), evaluate(Constant(False), task)
    assert (knows.forget, knows.forget_test) == (1.0, 1.0)
    assert (forgot.forget, forgot.forget_test) == (0.0, 0.0)
    # Class 1 is right in either model, whatever happens to class 2.
    assert knows.retain == forgot.retain == forgot.test == 1.0


def test_without_class_shares_images_and_leaves_the_data_alone() -> None:
    train = tissue()
    before = train.targets.clone()
    changed = without_class(train, 2)
    assert changed.inputs is train.inputs
    assert torch.equal(train.targets, before)
    assert not (changed.targets == 2).any()


class Halved(TensorImages):
    """Yields images of half the brightness, and masks upside down."""

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().batch(indices)
        return x / 2, y.flip(1)


class HalvedOneByOne(TensorImages):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        return x / 2, y.flip(0)


@pytest.mark.parametrize("kind", [Halved, HalvedOneByOne])
def test_a_subclass_keeps_what_it_yields_but_for_the_class(kind) -> None:
    plain = tissue()
    x, y = load_tensors(without_class(kind(plain.inputs, plain.targets), 2))
    assert torch.equal(x, plain.inputs / 2)
    assert torch.equal(y, torch.where(plain.targets == 2, 0, plain.targets).flip(1))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"label to be a foreground class in \[1, 2\], but got 0"):
        UnlearnTask.forget_mask_class(tissue(), tissue(), 0)
    labels = TensorImages(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="expected train to have masks"):
        UnlearnTask.forget_mask_class(labels, labels, 1)
