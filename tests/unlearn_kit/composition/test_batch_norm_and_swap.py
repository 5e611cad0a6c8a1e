from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from unlearn_kit import UnlearnTask, models
from unlearn_kit.composition import (
    interpolate,
    needs_recalibration,
    recalibrate_batch_norm,
    swap_head,
    task_arithmetic,
)
from unlearn_kit.data import TensorImages
from unlearn_kit.modules import batch_norms


def network(seed: int) -> nn.Module:
    model = models.build("small-cnn", 3, channels=1, width=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return model.eval()


def images(count: int = 30) -> TensorImages:
    generator = torch.Generator().manual_seed(0)
    return TensorImages(torch.rand(count, 1, 16, 16, generator=generator), torch.arange(count) % 3)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


class Told(TensorImages):
    """Remembers which samples came in which batch."""

    def __init__(self, inputs: torch.Tensor) -> None:
        super().__init__(inputs, torch.zeros(len(inputs)).long())
        self.read: list[list[int]] = []

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.read.append(indices.tolist())
        return super().batch(indices)


def test_statistics_are_the_means_of_the_batches_by_their_size() -> None:
    model, data = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.9), nn.BatchNorm2d(2)).train(), torch.rand(7, 2, 3, 3)
    model[0].momentum = 0.3
    told = Told(data)
    found = recalibrate_batch_norm(model, told, batch_size=4)
    assert [len(batch) for batch in told.read] == [4, 3]
    assert sorted(index for batch in told.read for index in batch) == list(range(7))
    parts = [data[batch] for batch in told.read]
    mean = data.mean((0, 2, 3))
    variance = sum(len(p) * p.permute(1, 0, 2, 3).flatten(1).var(1) for p in parts) / 7
    assert torch.allclose(found[0].running_mean, mean, atol=1e-6)
    assert torch.allclose(found[0].running_var, variance, atol=1e-6)
    # The second layer sees the first one's batch-normalised values, and no dropout.
    assert torch.allclose(found[2].running_mean, torch.zeros(2), atol=1e-5)
    assert found[0].momentum == 0.3
    assert found[1].training
    assert found[0].training
    assert model[0].num_batches_tracked == 0


def test_sorted_data_have_the_variance_between_their_classes_too() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(2000, 1, 1, 1, generator=generator)
    data[:1000] -= 3
    data[1000:] += 3
    before = torch.get_rng_state()
    told = Told(data)
    found = recalibrate_batch_norm(nn.BatchNorm2d(1), told, batch_size=100)
    assert torch.equal(torch.get_rng_state(), before)
    x = data.flatten().double().numpy()
    assert found.running_mean.item() == pytest.approx(x.mean(), abs=1e-5)
    # What is exact in batches of n: their biased variances and the variance of their means make up that of the data.
    between = np.mean([(x[batch].mean() - x.mean()) ** 2 for batch in told.read])
    assert found.running_var.item() * 99 / 100 + between == pytest.approx(x.var(), rel=1e-5)
    # The unbiased variance of a batch drawn at random is that of the data, but for chance.
    assert found.running_var.item() == pytest.approx(x.var(), rel=0.02)
    other = Told(data)
    recalibrate_batch_norm(nn.BatchNorm2d(1), other, batch_size=100, seed=1)
    assert other.read != told.read


class Jittered(Dataset):
    """An augmentation, which only the DataLoader can read."""

    def __len__(self) -> int:
        return len(images())

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = images()[index]
        return x + torch.rand(()), y


def test_random_transforms_measure_the_same_with_workers() -> None:
    alone, shared = (recalibrate_batch_norm(network(0), Jittered(), batch_size=8, workers=n) for n in (0, 2))
    assert states_equal(alone, shared)


def test_recalibrating_twice_changes_nothing_and_weights_stay() -> None:
    model = network(1)
    once = recalibrate_batch_norm(model, images())
    assert states_equal(recalibrate_batch_norm(once, images()), once)
    assert not states_equal(once, model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, once.get_parameter(name))
    assert not once.training


def test_forget_data_never_enter() -> None:
    class Recorded(Dataset[tuple[torch.Tensor, int]]):
        def __init__(self) -> None:
            self.read: list[int] = []
            self.targets = [i % 3 for i in range(12)]

        def __len__(self) -> int:
            return 12

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            self.read.append(i)
            return torch.full((1, 16, 16), i / 12), i % 3

    data = Recorded()
    task = UnlearnTask.forget_class(data, data, 1)
    data.read.clear()
    interpolate(network(1), network(2), 0.5, recalibrate=task)
    recalibrate_batch_norm(network(1), task)
    assert set(data.read) == {i for i in range(12) if i % 3 != 1}


def test_a_merge_says_whether_its_statistics_are_of_other_weights() -> None:
    a, b = network(1), network(2)
    mixed = interpolate(a, b, 0.5)
    assert needs_recalibration(mixed)
    assert needs_recalibration(copy.deepcopy(mixed))
    assert needs_recalibration(task_arithmetic(mixed, [a], 0.5))
    assert needs_recalibration(interpolate(mixed, a, 0))
    for model in (a, interpolate(a, b, 0), interpolate(a, b, 1), interpolate(a, b, 0.5, recalibrate=images())):
        assert not needs_recalibration(model)
    assert not needs_recalibration(recalibrate_batch_norm(mixed, images()))
    assert states_equal(recalibrate_batch_norm(mixed, images()), interpolate(a, b, 0.5, recalibrate=images()))
    assert not needs_recalibration(interpolate(nn.Linear(2, 2), nn.Linear(2, 2), 0.5))
    # Runs that were made with batch norm frozen have one set of statistics between them.
    frozen = copy.deepcopy(b)
    for layer, like in zip(batch_norms(frozen), batch_norms(a), strict=True):
        layer.running_mean.copy_(like.running_mean)
    assert not needs_recalibration(interpolate(a, frozen, 0.5))
    assert not needs_recalibration(task_arithmetic(a, [frozen, frozen]))


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_data_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected data to hold at least 2 samples to retain, but got {count}"):
        recalibrate_batch_norm(network(1), images(count))


def test_swap_takes_the_head_and_nothing_else() -> None:
    body, head = network(1), network(2)
    found = swap_head(body, head)
    for name, value in found.state_dict().items():
        assert torch.equal(value, (head if name.startswith("head.") else body).state_dict()[name])
    assert not needs_recalibration(found)
    block = swap_head(body, head, ["block5", "head"])
    assert torch.equal(block.block5[1].running_mean, head.block5[1].running_mean)
    assert torch.equal(block.block4[1].running_mean, body.block4[1].running_mean)
    assert needs_recalibration(block)
    assert states_equal(swap_head(body, body), body)


def test_finetuning_lowers_the_loss_on_retain_data_alone_and_repeats() -> None:
    data = images()
    task = UnlearnTask.forget_class(data, data, 0)
    body, head = network(1), network(2)
    before = copy.deepcopy(body.state_dict())
    options = {"finetune_on": task, "epochs": 3, "lr": 1e-2, "batch_size": 10}
    found = swap_head(body, head, **options)
    assert states_equal(found, swap_head(body, head, **options))
    assert all(torch.equal(before[name], value) for name, value in body.state_dict().items())
    x = torch.stack([x for x, _ in task.retain])
    y = torch.tensor([y for _, y in task.retain])
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), y) for model in (swap_head(body, head), found)]
    assert losses[1] < losses[0] - 0.05
    # Batch norm is frozen.
    assert torch.equal(found.block1[1].running_mean, body.block1[1].running_mean)
    # The forget data play no part: with other forget data the bits are the same.
    other = UnlearnTask(images(3), task.retain, task.forget_test, task.retain_test, 3)
    assert states_equal(found, swap_head(body, head, **{**options, "finetune_on": other}))


def test_a_bad_swap_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
            self.head.weight = self.body.weight

    with pytest.raises(ValueError, match=r"expected module to own its tensors, but 'head.weight' is shared with"):
        swap_head(Tied(), Tied(), "head")
    with pytest.raises(ValueError, match=r"expected module to be one of .* did you mean 'head'"):
        swap_head(Tied(), Tied(), "heads")
    with pytest.raises(ValueError, match="does not declare which submodule is its head"):
        swap_head(Tied(), Tied())
