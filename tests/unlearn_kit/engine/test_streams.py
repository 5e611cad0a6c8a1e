"""Which samples come in which step: checked against sets, slices and data sets that say what they were asked."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages, load_tensors, subset
from unlearn_kit.engine import Phase, Stream, fit
from unlearn_kit.engine.devices import Devices
from unlearn_kit.models import build
from unlearn_kit.seeding import isolated, seed_draws, seed_everything


def numbered(count: int) -> TensorImages:
    """Sample i is the number i, with target i."""
    return TensorImages(torch.arange(float(count)).reshape(-1, 1), torch.arange(count))


class Jittered(Dataset):
    """Sample i is i plus noise from all three global random states."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.tensor([torch.rand(()).item(), float(np.random.rand()), random.random()])  # noqa: NPY002
        return index + noise, index


def jittered_batches(start: int, stop: int, *, workers: int = 0, batch_size: int = 4, seed: int = 3) -> list[Tensor]:
    with isolated(0):
        stream = Stream("forget", Jittered(10), batch_size, seed, workers=workers)
        return [x for _, x, _ in stream.read(start, stop)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_every_pass_yields_each_sample_once_in_batches_of_the_size_asked_for(n: int, batch: int, seed: int) -> None:
    stream = Stream("retain", numbered(n), batch, seed)
    for epoch in range(2):
        first = epoch * stream.batches_per_epoch
        batches = [stream.indices(k) for k in range(first, first + stream.batches_per_epoch)]
        assert sorted(torch.cat(batches).tolist()) == list(range(n))
        assert [len(b) for b in batches] == [batch] * (n // batch) + ([n % batch] if n % batch else [])


def test_a_batch_depends_on_seed_name_and_number_alone() -> None:
    stream, again = Stream("retain", numbered(50), 20, 1), Stream("retain", numbered(50), 20, 1)
    late = again.indices(7)
    assert torch.equal(late, [stream.indices(k) for k in range(8)][7])
    assert not torch.equal(stream.indices(0), stream.indices(3)), "passes are shuffled anew"
    assert not torch.equal(stream.indices(0), Stream("forget", numbered(50), 20, 1).indices(0))
    assert not torch.equal(stream.indices(0), Stream("retain", numbered(50), 20, 2).indices(0))


@pytest.mark.parametrize(
    "dataset",
    [
        numbered(9),
        TensorDataset(torch.arange(9.0).reshape(-1, 1), torch.arange(9)),
        subset(numbered(20), range(9)),
        [(torch.tensor([float(i)]), i) for i in range(9)],
    ],
    ids=["images", "tensors", "subset", "list"],
)
def test_what_is_read_is_what_the_indices_say(dataset: object) -> None:
    stream = Stream("retain", dataset, 4, 0)
    with isolated(0):
        read = list(stream.read(2, 7))
    assert len(read) == 5
    for number, (indices, x, y) in zip(range(2, 7), read, strict=True):
        assert torch.equal(indices, stream.indices(number))
        assert x.flatten().tolist() == y.tolist() == indices.tolist()


@pytest.mark.parametrize(("dataset", "workers"), [(numbered(5), 0), (Jittered(5), 0), (Jittered(5), 2)])
def test_reading_is_lazy(dataset: Dataset, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, asked = Stream("retain", dataset, 2, 0, workers=workers), []
    own = stream.indices
    monkeypatch.setattr(stream, "indices", lambda number: asked.append(number) or own(number))
    with isolated(0):
        reading = stream.read(0, 1000)
        assert [len(next(reading)[0]) for _ in range(4)] == [2, 2, 1, 2]
        reading.close()
    # A worker may have two more waiting for it.
    assert len(asked) <= 4 + 2 * workers + 1


class Doubled(TensorDataset):
    """Yields other samples than it holds."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(index)
        return 2 * x, y


def test_training_reads_what_evaluation_reads() -> None:
    dataset = Doubled(torch.arange(9.0).reshape(-1, 1), torch.arange(9))
    with isolated(0):
        batches = [(x, y) for _, x, y in Stream("retain", dataset, 4, 0).read(0, 3)]
    trained, evaluated = (torch.cat(parts) for parts in zip(*batches, strict=True)), load_tensors(dataset)
    for x, y in (trained, evaluated):
        assert sorted(y.tolist()) == list(range(9))
        assert torch.equal(x.flatten(), 2.0 * y)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5))
def test_shares_of_processes_are_even_and_make_up_the_batch(n: int, batch: int, world: int) -> None:
    stream = Stream("retain", numbered(n), batch, 0)
    for number in range(stream.batches_per_epoch):
        whole = stream.indices(number).tolist()
        shares = [next(stream.read(number, number + 1, (rank, world)))[0].tolist() for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        if len(whole) % world == 0:
            assert sorted(index for share in shares for index in share) == sorted(whole)
        else:
            assert all(share == whole for share in shares)


def test_augmentations_are_the_same_from_the_middle_and_with_workers() -> None:
    whole = jittered_batches(0, 7)
    for again in (jittered_batches(3, 7), jittered_batches(3, 7, workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(whole[3:], again, strict=True))


def test_augmentations_differ_between_passes_seeds_and_samples() -> None:
    first = {round(x[0].item()): x for x in torch.cat(jittered_batches(0, 3)).floor().unique(dim=0)}
    noise = torch.cat(jittered_batches(0, 3)).frac()
    assert len(noise.unique()) == 30, "every number of every sample is drawn anew"
    assert len(first) == 10
    later, other = torch.cat(jittered_batches(3, 6)).frac(), torch.cat(jittered_batches(0, 3, seed=4)).frac()
    assert not set(noise.flatten().tolist()) & set(later.flatten().tolist())
    assert not set(noise.flatten().tolist()) & set(other.flatten().tolist())


def test_an_augmented_sample_does_not_depend_on_the_batch_size() -> None:
    small, large = torch.cat(jittered_batches(0, 5, batch_size=2)), torch.cat(jittered_batches(0, 1, batch_size=10))
    assert torch.equal(small.sort(0).values, large.sort(0).values)


def test_draws_are_seeded_as_everywhere_else() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002

    with isolated(0):
        seed_everything(2**61 + 5)
        expected = drawn()
        seed_draws(2**61 + 5)
        assert drawn() == expected


def test_a_stream_without_samples_or_batch_size_is_refused() -> None:
    with pytest.raises(
        ValueError, match="expected dataset of stream 'retain' to hold at least one sample, but got an empty"
    ):
        Stream("retain", Subset(numbered(3), []), 4, 0)
    with pytest.raises(ValueError, match="expected batch_size to be at least 1, but got 0"):
        Stream("retain", numbered(3), 0, 0)


def test_weighted_draws_come_in_proportion_and_depend_on_seed_name_and_number_alone() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0, 6.0])
    stream = Stream("forget", numbered(4), 50, 1, weights=weights)
    drawn = torch.cat([stream.indices(k) for k in range(200)])
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == 0
    expected = weights[1:] / weights.sum() * len(drawn)
    assert chisquare(counts[1:].numpy(), expected.numpy()).pvalue > 1e-3
    again = Stream("forget", numbered(4), 50, 1, weights=10 * weights)
    assert torch.equal(again.indices(7), stream.indices(7))
    assert not torch.equal(stream.indices(0), stream.indices(1))
    assert not torch.equal(stream.indices(0), Stream("retain", numbered(4), 50, 1, weights=weights).indices(0))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [0.0] * 4, [1.0, -1.0, 1.0, 1.0], [1.0, float("nan"), 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused_by_the_stream_s_name(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="'forget'"):
        Stream("forget", numbered(4), 2, 0, weights=torch.tensor(weights))


def test_workers_live_from_one_reading_to_the_next_and_give_the_same_samples() -> None:
    class Told(Dataset):
        """Tells which process decodes, and draws numbers."""

        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.tensor([index, os.getpid(), torch.rand(())], dtype=torch.float64), index

    def readings(workers: int) -> list[torch.Tensor]:
        stream = Stream("train", Told(), 2, 0, workers=workers)
        with isolated(0):
            first = torch.cat([x for _, x, _ in stream.read(0, 3)])
            next(broken := stream.read(3, 5))  # a phase that was stopped
            del broken
            return [first, torch.cat([x for _, x, _ in stream.read(3, 9)])]

    alone, kept = readings(0), readings(1)
    for one, other in zip(alone, kept, strict=True):
        assert torch.equal(one[:, [0, 2]], other[:, [0, 2]])
    processes = {part[:, 1].unique().item() for part in kept}
    assert len(processes) == 1
    assert processes != {os.getpid()}


def test_images_cross_the_bus_as_the_bytes_they_are_held_in(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    held = TensorImages(x, torch.arange(20) % 3)
    placed: list[torch.dtype] = []
    place = Devices.place

    def watched(self: Devices, x: torch.Tensor, y: torch.Tensor, **options: bool) -> Any:
        placed.append(x.dtype)
        return place(self, x, y, **options)

    monkeypatch.setattr(Devices, "place", watched)
    made = []
    for waits in (False, True):
        monkeypatch.setattr(Devices, "waits", waits)
        program = Phase(L.cross_entropy(on="train"), {"train": subset(held, range(15))}, steps=3, batch_size=4)
        made.append(fit(build("small-cnn", 3, seed=0, width=2), program).model.state_dict())
    assert placed == 3 * [torch.float32] + 3 * [torch.uint8]
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
    assert not Stream("train", TensorDataset(x.flatten(1), held.targets), 4, 0, scaled=False).as_bytes
