"""Verdicts say what the intervals carry, and that nothing can be concluded where doing nothing goes unseen."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.audit.verdicts import differences, klom_verdict, paired_verdict, told_apart, u_lira_verdict
from unlearn_kit.metrics import klom, u_lira

RNG = np.random.default_rng(0)


def margins(models, samples, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(models, samples)) + shift


def test_differences_leave_out_what_is_missing_on_either_side():
    found = differences([1.0, None, 3.0, 5.0], [0.5, 1.0, None, 1.0])
    assert found.n == 2
    assert found.mean == pytest.approx((0.5 + 4.0) / 2)
    expected = stats.t.interval(0.95, 1, loc=2.25, scale=stats.sem([0.5, 4.0]))
    assert found.interval == pytest.approx(expected)


def test_told_apart_needs_an_interval_that_leaves_zero_out():
    assert told_apart(differences([1.0, 1.1, 0.9], [0.0, 0.0, 0.0])) is True
    assert told_apart(differences([-1.0, -1.1, -0.9], [0.0, 0.0, 0.0])) is True
    assert told_apart(differences([1.0, -1.0, 0.1], [0.0, 0.0, 0.0])) is False
    assert told_apart(differences([1.0], [0.0])) is None
    assert told_apart(None) is None


def test_a_figure_like_the_second_reference_is_not_told_apart():
    nothing = [0.9, 0.92, 0.88]
    reference = [0.5, 0.52, 0.48]
    assert paired_verdict([0.52, 0.5, 0.49], reference, nothing).startswith("not told apart from a second reference")
    assert "shows little" not in paired_verdict([0.52, 0.5, 0.49], reference, nothing)
    assert paired_verdict([0.7, 0.73, 0.69], reference, nothing).startswith("above a second reference by [+0.1")
    assert paired_verdict([0.2, 0.23, 0.19], reference, nothing).startswith("below a second reference by [-0.3")


def test_a_figure_that_does_not_see_doing_nothing_says_little():
    same = [0.5, 0.52, 0.48]
    assert "nor is doing nothing, so this shows little" in paired_verdict([0.52, 0.5, 0.49], same, [0.51, 0.5, 0.5])


def test_missing_figures_and_single_pairs():
    assert paired_verdict([None, None], [1.0, 1.0], [1.0, 1.0]) == "n/a"
    assert "one pair has no interval" in paired_verdict([0.5], [0.2], [0.9])


def test_u_lira_in_words():
    oracles = margins(64, 40, seed=1)
    nothing = u_lira(margins(64, 40, shift=3, seed=2), oracles)
    good = u_lira(margins(64, 40, seed=3), oracles)
    assert u_lira_verdict(nothing, nothing).startswith("distinguishable from the reference at n = 64")
    assert u_lira_verdict(good, nothing).startswith("indistinguishable from the reference at n = 64")
    assert u_lira_verdict(good, good).startswith("doing nothing is not detected either")
    assert u_lira_verdict(None, nothing) == "n/a"


def test_klom_in_words():
    oracles = margins(64, 200, seed=1)
    assert klom_verdict(klom(margins(64, 200, shift=3, seed=2), oracles)).startswith("above its floor by ")
    assert "not told apart from its floor" in klom_verdict(klom(margins(64, 200, seed=3), oracles))
    assert klom_verdict(None) == "n/a"


def test_examples_that_share_a_models_luck_are_no_evidence():
    """Of sets of models that differ in nothing, about one in twenty is called different: however alike the examples."""
    luck = np.random.default_rng(5)
    called = 0
    for draw in range(40):
        one, other = (margins(16, 60, seed=2 * draw + side) + 2 * luck.normal(size=(16, 1)) for side in (0, 1))
        called += "not told apart" not in klom_verdict(klom(one, other, exchanges=99))
    assert called <= stats.binom.ppf(0.999, 40, 0.05)
