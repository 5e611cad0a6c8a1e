from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unlearn_kit import UnlearnTask, data
from unlearn_kit.data import load_tensors
from unlearn_kit.data.simulated_scanners import SCANNERS, simulate


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_each_scanner_gets_its_share_and_targets_stay(digits) -> None:
    found = simulate(digits, ("A", "B", "C"))
    assert found.name == "simulated-scanners"
    counts = found.train_metadata["scanner"].value_counts()
    assert set(counts.index) == {"A", "B", "C"}
    assert counts.sum() == len(digits.train)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(load_tensors(found.train)[1], load_tensors(digits.train)[1])
    assert found.train.inputs.dtype == torch.uint8


def test_blur_gain_and_noise_are_the_documented_ones(digits) -> None:
    before, after = load_tensors(digits.train)[0].numpy(), simulate(digits, ("A", "D"), seed=3)
    pictures, names = load_tensors(after.train)[0].numpy(), after.train_metadata["scanner"].to_numpy()
    # Scanner A neither blurs nor amplifies: away from the clipping bounds only its noise is left, and rounding.
    middle = (names == "A")[:, None, None, None] & (before > 0.2) & (before < 0.8)
    assert np.std((pictures - before)[middle]) == pytest.approx(SCANNERS["A"].noise, rel=0.1)
    # The blur conserves the light, up to the border: D's images keep the share of it that its gain says.
    dark = names == "D"
    inner = before[dark][:, :, 2:-2, 2:-2].mean(), pictures[dark][:, :, 2:-2, 2:-2].mean()
    assert inner[1] < 0.8 * inner[0]
    gradient = [np.abs(np.diff(x[dark], axis=3)).mean() for x in (before, pictures)]
    assert gradient[1] < 0.65 * 0.7 * gradient[0]  # less than the gain alone would leave


def test_same_seed_same_bits_and_leaving_a_scanner_out_is_an_attribute_task(digits) -> None:
    first, again, other = (simulate(digits, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    task = UnlearnTask.forget_where(
        first.train, first.test, first.train_metadata, first.test_metadata, lambda t: t["scanner"] == "B"
    )
    assert len(task.forget) == (first.train_metadata["scanner"] == "B").sum()
    assert len(task.forget_test) > 0


def test_wrong_scanners_are_refused(digits) -> None:
    with pytest.raises(ValueError, match="expected scanners to name at least two of"):
        simulate(digits, ("A",))
    with pytest.raises(ValueError, match="expected scanners to be one of"):
        simulate(digits, ("A", "Z"))
    with pytest.raises(ValueError, match="expected seed to be at least 0"):
        simulate(digits, seed=-1)


def test_it_loads_by_name(tmp_path: Path) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("fashion-mnist is not on this machine")
    found = data.load("simulated-scanners", train_size=30)
    assert (len(found.train), found.num_classes, found.train[0][0].shape) == (30, 10, (1, 28, 28))
    assert len(found.test_metadata) == len(found.test) == 10_000
