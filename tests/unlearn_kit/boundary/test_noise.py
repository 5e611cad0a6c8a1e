"""The four perturbations against scipy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from unlearn_kit.boundary import DISTRIBUTIONS
from unlearn_kit.boundary.noise import draw

KNOWN = {
    "normal": stats.norm(),
    "uniform": stats.uniform(-1, 2),
    "laplace": stats.laplace(),
    "cauchy": stats.cauchy(),
}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_distribution_has_an_oracle():
    assert set(KNOWN) == set(DISTRIBUTIONS)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_draws_follow_their_distribution_and_no_other(name):
    values = draw(name, 4, (5000,), source()).numpy().ravel()
    assert np.isfinite(values).all()
    for other, distribution in KNOWN.items():
        p = stats.kstest(values, distribution.cdf).pvalue
        assert p > 0.01 if other == name else p < 1e-6


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_steps_and_samples_get_draws_of_their_own(name):
    values = draw(name, 3, (2, 1, 4, 4), source())
    assert values.shape == (3, 2, 1, 4, 4)
    assert len(values.unique()) == values.numel()
    correlation = stats.spearmanr(*draw(name, 2, (4000,), source()).numpy()).statistic
    assert abs(correlation) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_generator_is_the_only_source(name):
    before = torch.get_rng_state()
    first, again, other = (draw(name, 1, (8,), source(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
