"""A seeded share of a data set."""

import pytest
import torch

from unlearn_kit.data import load_tensors
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.data.tensors import TensorImages


def test_a_random_subset_is_seeded_distinct_and_of_the_size_asked_for():
    data = TensorImages(torch.rand(50, 2), torch.arange(50))
    rows = [load_tensors(random_subset(data, 20, seed=seed))[1].tolist() for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]
    assert len(set(rows[0])) == 20
    state = torch.get_rng_state()
    random_subset(data, 5, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_none_or_too_many_is_all_of_it():
    data = TensorImages(torch.rand(5, 2), torch.arange(5))
    assert random_subset(data, None, seed=0) is data
    assert random_subset(data, 5, seed=0) is data
    assert random_subset(data, 9, seed=0) is data
    with pytest.raises(ValueError, match="expected samples to be at least 1, but got 0"):
        random_subset(data, 0, seed=0)
