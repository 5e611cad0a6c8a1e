"""Estimates and their intervals, held against scikit-learn, scipy and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

from unlearn_kit.evidence.estimates import (
    advantages,
    differences,
    gap,
    holm,
    mean,
    mean_change,
    p_of_drop,
    share,
    side,
)


def drawn(forget: int, unseen: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(-shift, 1, (2, forget)), rng.normal(0, 1, (2, unseen))


def test_an_advantage_is_the_area_under_the_roc_curve_within_classes() -> None:
    f, u = drawn(40, 90, 0.5)
    f, u = f.round(1), u.round(1)  # ties
    fl, ul = np.arange(40) % 3, np.arange(90) % 4 % 3
    found = gap(side(f, fl), side(u, ul), advantages)
    for estimate, mine, theirs in ((found.before, f[0], u[0]), (found.after, f[1], u[1])):
        by_class = [
            roc_auc_score(
                np.r_[np.zeros((fl == c).sum()), np.ones((ul == c).sum())], np.r_[mine[fl == c], theirs[ul == c]]
            )
            for c in range(3)
        ]
        wanted = np.average(by_class, weights=np.bincount(fl)) - 0.5
        assert estimate.value == pytest.approx(wanted, abs=1e-12)
        assert estimate.low < wanted < estimate.high
    assert found.left.value == pytest.approx(found.after.value / found.before.value)


def test_a_difference_is_weighted_as_the_forget_samples() -> None:
    f, u = np.array([[1.0, 0, 1, 1]] * 2), np.array([[0.0, 1, 0, 0, 1]] * 2)
    found = gap(side(f, [0, 0, 1, 1]), side(u, [0, 0, 1, 1, 1]), differences)
    assert found.before.value == pytest.approx((2 * (1 / 2 - 1 / 2) + 2 * (1 - 1 / 3)) / 4)


def test_its_interval_is_as_wide_as_theory_says() -> None:
    f, u = drawn(150, 300, 0.0)
    found = gap(side(f), side(u), advantages)
    sd = np.sqrt((150 + 300 + 1) / (12 * 150 * 300))  # of Mann-Whitney, without ties and without a difference
    assert found.after.high - found.after.low == pytest.approx(2 * norm.ppf(0.975) * sd, rel=0.15)
    assert gap(side(f, np.zeros(150)), side(u, np.ones(300)), advantages) is None


def test_many_samples_of_one_group_count_as_little_as_the_group() -> None:
    f, u = drawn(40, 60, 0.3)
    alone = gap(side(f), side(u), advantages)
    f10, u10 = np.repeat(f, 10, axis=1), np.repeat(u, 10, axis=1)
    grouped = gap(
        side(f10, None, np.repeat(np.arange(40), 10)), side(u10, None, np.repeat(np.arange(60), 10)), advantages
    )
    assert grouped.after.value == pytest.approx(alone.after.value)
    assert grouped.after.half_width == pytest.approx(alone.after.half_width, rel=0.1)
    assert gap(side(f10), side(u10), advantages).after.half_width < alone.after.half_width / 2


def test_one_forget_group_is_judged_by_how_unseen_groups_differ() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(0, 2, 40)  # groups differ by more than samples do
    u = np.repeat(own, 20) + rng.normal(0, 1, 800)
    f = rng.normal(0, 1, (2, 20)) - 1.5  # an easy patient, such as some unseen ones are
    groups = np.repeat(np.arange(40), 20)
    found = gap(side(f, None, [77] * 20), side(np.stack([u, u]), None, groups), advantages)
    assert found.after.low < 0 < found.after.value
    assert gap(side(f), side(np.stack([u, u])), advantages).after.low > 0  # as if every image were a patient
    few = gap(side(f, None, [77] * 20), side(np.stack([u, u])[:, :60], None, groups[:60]), advantages)
    assert few.after.half_width == 1.0


def test_one_forgotten_sample_shows_nothing_of_a_model_that_never_saw_it() -> None:
    for seed in range(20):  # any rank among the unseen ones is as likely as another
        f, u = drawn(1, 200, 0.0, seed)
        found = gap(side(f), side(u), advantages)
        assert found.after.low < 0 < found.after.high
        # A rank is uniform: its standard deviation is that of [-1/2, 1/2].
        assert found.after.half_width == pytest.approx(norm.ppf(0.975) / np.sqrt(12), rel=0.02)
    u = drawn(1, 1200, 0.0)[1]  # of many unseen samples some stand for all
    assert gap(side(f), side(u), advantages).after.half_width == pytest.approx(norm.ppf(0.975) / np.sqrt(12), rel=0.05)


def test_what_is_left_is_sharper_than_what_there_is() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 3, 200)  # how hard a sample is, common to both models
    f = np.stack([hard[:100] - 1.5, hard[:100]])
    u = np.stack([hard[100:], hard[100:]])
    found = gap(side(f), side(u), advantages)
    same = gap(side(np.stack([f[0], f[0]])), side(u), advantages)
    assert (same.left.low, same.left.high) == (1.0, 1.0)
    assert found.left.value == pytest.approx(found.after.value / found.before.value)


def test_a_mean_change_knows_that_nothing_seen_is_not_nothing() -> None:
    found = mean_change(side(np.zeros(60)))
    assert (found.value, found.low, found.high) == (0.0, -0.05, 0.05)
    changes = np.r_[-np.ones(30), np.ones(10), np.zeros(160)]
    found = mean_change(side(changes))
    half = norm.ppf(0.975) * changes.std(ddof=1) / np.sqrt(200)
    assert found.half_width == pytest.approx(half, rel=0.1)
    assert mean_change(side(np.zeros(0))) is None
    assert (mean(np.ones(20)).high, mean(np.zeros(20)).low) == (1.0, 0.0)


def test_a_share_has_its_exact_interval() -> None:
    found = share(3, 40)
    assert binom.sf(2, 40, found.low) == pytest.approx(0.025)
    assert binom.cdf(3, 40, found.high) == pytest.approx(0.025)


def test_p_values() -> None:
    assert p_of_drop([-1] * 8 + [1] * 2 + [0] * 50) == pytest.approx(binom.sf(7, 10, 0.5))
    assert p_of_drop([0.0, 0.0]) == 1.0
    assert p_of_drop([-0.2, -0.1, -0.3, -0.15, -0.05, -0.25]) == pytest.approx(1 / 64)  # every sign pattern but one
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
