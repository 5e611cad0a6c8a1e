from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from unlearn_kit import hashing, models
from unlearn_kit.data.tensors import TensorImages, subset
from unlearn_kit.hashing import hash_code, hash_config, hash_dataset, hash_model, hash_tensor, sample_hashes
from unlearn_kit.seeding import isolated


def test_a_tensor_is_its_dtype_shape_and_bits() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert hash_tensor(x) == hash_tensor(x.T.contiguous().T) == hash_tensor(x.numpy())
    others = [x.view(3, 2), x.double(), -x, x.flatten(), torch.tensor([0.0]), torch.tensor([-0.0]), torch.tensor(0.0)]
    assert len({hash_tensor(value) for value in (x, *others)}) == 8
    assert hash_tensor(torch.tensor([True])) != hash_tensor(torch.tensor([1], dtype=torch.uint8))
    assert len(hash_tensor(torch.empty(0))) == 64
    with pytest.raises(TypeError, match="expected a Tensor or an array, but got list"):
        hash_tensor([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an array of numbers"):
        hash_tensor(np.array([None]))


def test_a_model_is_its_architecture_and_weights() -> None:
    model = models.build("small-cnn", 3, seed=0)
    assert hash_model(model) == hash_model(models.build("small-cnn", 3, seed=0).eval())
    assert hash_model(model) != hash_model(models.build("small-cnn", 3, seed=1))
    changed = models.build("small-cnn", 3, seed=0)
    changed.block1[1].running_mean[0] = 1
    assert hash_model(changed) != hash_model(model)
    assert hash_model(nn.Sequential(nn.ReLU())) != hash_model(nn.Sequential(nn.Tanh()))


class Stored(Dataset):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], int(self.y[index])


def test_a_data_set_is_its_samples_however_stored() -> None:
    x, y = torch.rand(7, 1, 2, 2), torch.arange(7)
    value = hash_dataset(TensorDataset(x, y))
    assert value == hash_dataset(TensorImages(x, y)) == hash_dataset(Stored(x, y))
    assert value == hash_dataset(subset(TensorDataset(torch.cat([x, x]), torch.cat([y, y])), range(7)))
    assert value != hash_dataset(TensorDataset(x.flip(0), y))
    assert value != hash_dataset(TensorDataset(x, y.flip(0)))
    assert value != hash_dataset(TensorDataset(x.flatten(1), y))


def test_a_hash_of_some_samples_reads_no_others_and_knows_all_labels(monkeypatch) -> None:
    class Counted(Stored):
        reads = 0

        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            super().__init__(x, y)
            self.targets = y

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            Counted.reads += 1
            return super().__getitem__(index)

    x, y = torch.rand(1000, 1, 2, 2), torch.arange(1000) % 3
    held = Counted(x, y)
    sampled = hash_dataset(held, samples=10)
    assert Counted.reads <= 10 + 32  # of which 32 show that it yields the labels that it holds
    assert hash_dataset(held, samples=1000) == hash_dataset(held)
    for place, spotted in ((0, True), (999, True), (500, False)):  # every 111th is looked at
        other = x.clone()
        other[place] += 1
        assert (hash_dataset(Counted(other, y), samples=10) != sampled) == spotted
    relabelled = y.clone()
    relabelled[500] = (y[500] + 1) % 3
    assert hash_dataset(Counted(x, relabelled), samples=10) != sampled
    with pytest.raises(ValueError, match="expected samples to be at least 1, but got 0"):
        hash_dataset(held, samples=0)
    monkeypatch.setattr(hashing, "LARGE", 999)
    monkeypatch.setattr(hashing, "SPREAD", 10)
    assert hashing.known_by(held) == sampled
    assert hashing.known_by(TensorImages(x, y)) == hash_dataset(TensorImages(x, y))
    assert hashing.known_by(Counted(x[:999], y[:999])) == hash_dataset(TensorImages(x[:999], y[:999]))


def test_a_sample_has_one_hash_wherever_it_stands() -> None:
    x, y = torch.rand(5, 1, 2, 2), torch.arange(5)
    hashes = sample_hashes(TensorImages(x, y))
    first = hashlib.sha256(f"{hash_tensor(x[0])} {hash_tensor(y[0])}".encode()).hexdigest()
    assert hashes[0] == first
    assert len(set(hashes)) == 5
    assert sample_hashes(Stored(x.flip(0), y.flip(0))) == hashes[::-1]
    assert sample_hashes(subset(TensorDataset(x, y), [])) == []


class Shaken(Stored):
    """With a random transform, which draws from all three global states when a sample is read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        x, y = super().__getitem__(index)
        return x + torch.rand(()) + random.random() + np.random.rand(), y  # noqa: NPY002 - what old transforms use


@pytest.mark.parametrize("hash_of", [hash_dataset, sample_hashes])
def test_random_transforms_give_the_same_hashes_and_keep_the_random_state(hash_of) -> None:
    def draws() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002

    with isolated(1):
        untouched = draws()
    with isolated(1):
        first = hash_of(Shaken(torch.zeros(4, 1, 2, 2), torch.zeros(4)))
        assert draws() == untouched
    assert hash_of(Shaken(torch.zeros(4, 1, 2, 2), torch.zeros(4))) == first


@dataclass
class Setting:
    a: int = 1


@dataclass
class Other:
    a: int = 1


def test_settings_that_differ_have_different_hashes() -> None:
    values = [
        None, True, 1, 1.0, "1", 0.1, [1], [[1]], {"a": 1}, {"a": [1]}, Setting(), Setting(2), Other(), torch.tensor(1),
        len, partial(len), partial(int, base=2), nn.ReLU(), torch.device("cpu"), torch.float32, float("inf"),
    ]  # fmt: skip
    assert len({hash_config(value) for value in values}) == len(values)
    assert hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1})
    assert hash_config((1, 2)) == hash_config([1, 2])
    assert hash_config(np.float64(0.5)) == hash_config(0.5)
    with pytest.raises(TypeError, match=r"expected settings of numbers.*but got function"):
        hash_config(lambda: 1)
    with pytest.raises(TypeError, match="but got object"):
        hash_config({"a": object()})


def test_code_changes_its_hash(tmp_path, monkeypatch) -> None:
    for name, text in (("ukhash_one", "x = 1"), ("ukhash_two", "x = 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert hash_code("ukhash_one") != hash_code("ukhash_two")
    assert hash_code("ukhash_one") == hash_code("ukhash_one")
    assert hash_code("unlearn_kit") != hash_code("unlearn_kit.hashing")


def test_another_process_finds_the_same() -> None:
    code = """
import torch
from unlearn_kit import hashing, models
from unlearn_kit.hashing import *
print(hash_config({"b": {1: 2.5}, "a": ["x", None]}), hash_model(models.build("mlp", 3, seed=0)))
print(hash_code("unlearn_kit"))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = hash_config({"a": ["x", None], "b": {1: 2.5}}), hash_model(models.build("mlp", 3, seed=0))
    assert run.stdout.split() == [*mine, hash_code("unlearn_kit")]
