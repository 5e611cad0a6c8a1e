from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearn_kit.metrics import independent_seeds, paired_comparison, summary, variance_components

RNG = np.random.default_rng


@pytest.mark.parametrize(("n", "confidence"), [(2, 0.95), (5, 0.95), (40, 0.9)])
def test_a_summary_is_the_t_interval_of_scipy(n: int, confidence: float) -> None:
    x = RNG(n).normal(3, 2, n)
    found = summary(x, confidence=confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert found.interval == pytest.approx((low, high))
    assert found.mean == pytest.approx(math.fsum(x) / n)
    assert (found.n, found.confidence) == (n, confidence)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = RNG(0).normal(size=(1000, 4))
    covered = sum(low <= 0 <= high for low, high in (summary(row).interval for row in draws))
    assert covered / 1000 == pytest.approx(0.95, abs=0.025)


def test_one_value_none_and_equal_ones() -> None:
    assert summary([]) is None
    one = summary([0.25])
    assert (one.mean, one.half_width, one.interval, one.n) == (0.25, None, None, 1)
    assert str(one) == "0.250 no interval, n = 1"
    equal = summary([0.5, 0.5, 0.5])
    assert equal.half_width == 0
    assert str(equal) == "0.500 [0.500, 0.500], n = 3"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(0.1, 10), st.floats(-10, 10))
def test_summaries_scale_and_shift_with_the_values(x: list[float], scale: float, shift: float) -> None:
    plain, moved = summary(x), summary(scale * np.array(x) + shift)
    assert moved.mean == pytest.approx(scale * plain.mean + shift, abs=1e-9)
    assert moved.half_width == pytest.approx(scale * plain.half_width, abs=1e-9)


def test_variance_components_agree_with_the_analysis_of_variance() -> None:
    x = RNG(1).normal(size=(6, 4)) + 2 * RNG(2).normal(size=(6, 1))
    found = variance_components(x)
    within = np.mean([np.var(row, ddof=1) for row in x])
    f, _ = stats.f_oneway(*x)
    assert found.unlearning == pytest.approx(within)
    assert found.training == pytest.approx((f - 1) * within / 4)
    # What scipy's F says the mean square between trainings is, spread over all runs.
    assert found.variance_of_mean == pytest.approx(f * within / 24)
    low, high = stats.t.interval(0.95, 5, loc=x.mean(), scale=stats.sem(x.mean(axis=1)))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.mean == pytest.approx(x.mean())
    assert (found.trainings, found.unlearnings) == (6, 4)


def test_variance_components_are_right_on_average() -> None:
    rng, found = RNG(3), []
    for _ in range(700):
        x = rng.normal(0, 2, (5, 1)) + rng.normal(0, 1, (5, 3))
        part = variance_components(x)
        found.append((part.training, part.unlearning, part.variance_of_mean))
    assert np.mean(found, axis=0) == pytest.approx([4, 1, 4 / 5 + 1 / 15], rel=0.1)


def test_what_a_table_cannot_tell_is_n_a() -> None:
    row = variance_components([[1.0, 2.0, 4.0]])
    assert (row.training, row.variance_of_mean, row.half_width) == (None, None, None)
    assert row.unlearning == pytest.approx(np.var([1, 2, 4], ddof=1))
    column = variance_components([[1.0], [2.0], [4.0]])
    assert (column.training, column.unlearning) == (None, None)
    assert column.variance_of_mean == pytest.approx(stats.sem([1, 2, 4]) ** 2)
    single = variance_components([[0.5]])
    assert (single.mean, single.half_width, single.unlearning) == (0.5, None, None)
    # Rows that differ less than chance: the estimate is cut at 0, never negative.
    alike = variance_components([[0.0, 2.0], [2.0, 0.0]])
    assert alike.training == 0
    assert alike.variance_of_mean == pytest.approx(2 / 4)


def sign_flips(differences: list[float]) -> float:
    """Two-sided p value of the rank sum over all 2**n signs."""
    ranks = stats.rankdata(np.abs(differences))
    signs = np.array(list(itertools.product([0, 1], repeat=len(ranks))))
    sums = signs @ ranks
    centre = ranks.sum() / 2
    observed = abs(ranks[np.array(differences) > 0].sum() - centre)
    return float((np.abs(sums - centre) >= observed - 1e-9).mean())


@pytest.mark.parametrize(
    "differences", [[0.1, 0.2, -0.3, 0.5, 0.7], [1, 1, 2, 2, -1, 3], [4, 0, 0, 2, -1], [1, 1, 1], [0.5], [1, -1]]
)
def test_the_p_value_is_that_of_all_sign_flips(differences: list[float]) -> None:
    found = paired_comparison(differences, np.zeros(len(differences)))
    assert found.p_value == pytest.approx(sign_flips([d for d in differences if d]))
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.n == len(differences)


def test_the_interval_is_that_of_resampled_pairs() -> None:
    a = RNG(4).normal(1, 1, 30)
    b = a - RNG(5).normal(0.3, 0.5, 30)
    found = paired_comparison(a, b)
    picks = RNG(6).integers(30, size=(20_000, 30))
    low, high = np.percentile((a - b)[picks].mean(axis=1), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    # Pairs, not two samples: what both share cancels.
    assert found.high - found.low < 0.6 * (2 * 1.96 * math.sqrt(2 / 30))
    assert found == paired_comparison(a, b)
    assert found != paired_comparison(a, b, seed=1)
    assert found.low < found.difference < found.high


def test_methods_that_never_differ_and_single_pairs() -> None:
    same = paired_comparison([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    always = paired_comparison([1.5] * 6, [1.0] * 6)
    assert (always.low, always.high) == (0.5, 0.5)
    assert always.p_value == pytest.approx(2 / 2**6)
    one = paired_comparison([1.0], [0.0])
    assert (one.difference, one.low, one.high, one.p_value, one.n) == (1.0, None, None, 1.0, 1)
    assert paired_comparison([], []) is None


def test_seeds_are_independent() -> None:
    base, other = independent_seeds(0), independent_seeds(0, unlearning=1)
    assert base.training == other.training
    assert base.unlearning != other.unlearning
    assert base == independent_seeds(0)
    runs = [independent_seeds(seed, training=i, unlearning=j) for seed in range(3) for i in range(4) for j in range(4)]
    assert len({run.unlearning for run in runs}) == len({run.evaluation for run in runs}) == 48
    assert len({run.training for run in runs}) == 12
    everything = [number for run in runs for number in set(run)]
    assert len(set(everything)) == 48 + 48 + 12
    assert all(0 <= number < 2**63 for number in everything)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: summary([1.0, math.nan]), "expected values to be finite, but got 1 NaN or infinite of 2 values"),
        (lambda: summary([[1.0]]), r"expected values to have 1 dimension\(s\), but got shape \(1, 1\)"),
        (lambda: summary(["a"]), r"expected values to be numbers in 1 dimension\(s\), but got \['a'\]"),
        (lambda: summary([1.0, None]), "expected values to be finite"),
        (lambda: summary([1.0], confidence=1.0), r"expected confidence in \(0, 1\), but got 1\.0"),
        (lambda: variance_components([1.0]), r"expected table to have 2 dimension\(s\), but got shape \(1,\)"),
        (
            lambda: variance_components(np.empty((0, 3))),
            r"expected table to hold at least one value, but got shape \(0, 3\)",
        ),
        (
            lambda: paired_comparison([1.0], [1.0, 2.0]),
            "expected a and b to hold one value a run each, but got 1 and 2",
        ),
        (lambda: paired_comparison([1.0], [math.inf]), "expected b to be finite"),
        (lambda: paired_comparison([1.0], [1.0], resamples=0), "expected resamples to be at least 1, but got 0"),
        (lambda: independent_seeds(0, training=-1), "expected training to be at least 0, but got -1"),
    ],
)
def test_bad_numbers_are_refused(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
