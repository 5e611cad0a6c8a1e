from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearn_kit.metrics.shadow import klom, klom_floor, klom_values, u_lira


def draw(seed: int, models: int, samples: int = 5, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 2.0, (models, samples))


def klom_oracle(a: np.ndarray, b: np.ndarray, bins: int = 20) -> list[float]:
    found = []
    for x, y in zip(np.clip(a, -100, 100).T, np.clip(b, -100, 100).T, strict=True):
        ends = (min(*x, *y), max(*x, *y))
        # NumPy's own last bin holds its right edge.
        p, q = (np.maximum(np.histogram(v, bins, ends)[0] / len(v), 1e-5) for v in (x, y))
        found.append(float(stats.entropy(p, q)))  # scales both to sum to 1
    return found


@pytest.mark.parametrize("models", [(7, 7), (40, 25), (1, 3)])
def test_klom_agrees_with_histograms_and_entropy(models: tuple[int, int]) -> None:
    a, b = draw(0, models[0], shift=1.0), draw(1, models[1])
    np.testing.assert_allclose(klom_values(a, b), klom_oracle(a, b), rtol=1e-10)
    np.testing.assert_allclose(klom_values(a, b, bins=7), klom_oracle(a, b, 7), rtol=1e-10)


def test_klom_of_ties_at_edges_puts_the_maximum_in_the_last_bin() -> None:
    a = np.array([[0.0], [20.0], [20.0], [5.0]])
    b = np.array([[0.0], [19.0], [20.0], [19.5]])
    p = np.full(20, 1e-5)
    q = p.copy()
    p[[0, 5, 19]], q[[0, 19]] = [0.25, 0.25, 0.5], [0.25, 0.75]
    p, q = p / p.sum(), q / q.sum()
    assert klom_values(a, b)[0] == pytest.approx(float(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))))


def test_klom_clips_saturated_margins() -> None:
    a = np.array([[1e6, -1e9], [500.0, 30.0]])
    b = np.array([[101.0, -100.0], [100.0, 30.0]])
    np.testing.assert_array_equal(klom_values(a, b), [0.0, 0.0])
    assert klom_values(a, b, clip=1e10)[0] > 1


def test_klom_of_constant_and_of_distinct_margins() -> None:
    assert klom_values(np.full((6, 1), 3.0), np.full((4, 1), 3.0))[0] == 0
    apart = klom_values(np.full((6, 1), 3.0), np.full((4, 1), 4.0))[0]
    top = 1 / (1 + 19e-5)
    assert apart == pytest.approx((top - 1e-5 * top) * math.log(1e5))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 4), st.floats(-50, 50), st.floats(0.1, 10))
def test_klom_is_no_less_than_zero_and_heeds_neither_order_nor_scale(
    seed: int, models: int, samples: int, shift: float, scale: float
) -> None:
    a, b = draw(seed, models, samples), draw(seed + 1, models + 1, samples)
    value = klom_values(a, b)
    assert (value >= 0).all()
    assert (value < math.log(1e5)).all()
    np.testing.assert_array_equal(klom_values(a[::-1], b), value)
    np.testing.assert_array_equal(klom_values(a, a), np.zeros(samples))
    # Powers of two and margins without rounding keep every bin as it was.
    np.testing.assert_allclose(klom_values(a * 0.25, b * 0.25), value, rtol=1e-12)


def test_floor_is_two_halves_both_ways() -> None:
    table = draw(3, 11)
    one, two = table[0:10:2], table[1:10:2]
    expected = (np.array(klom_oracle(one, two)) + klom_oracle(two, one)) / 2
    np.testing.assert_allclose(klom_floor(table), expected, rtol=1e-10)


def test_figure_and_floor_are_taken_at_one_number_of_models() -> None:
    a, b = draw(4, 9), draw(5, 30)
    found = klom(a, b)
    assert found is not None
    assert (found.models, found.examples) == (4, 5)
    halves = [[t[0::2][:4], t[1::2][:4]] for t in (a, b)]
    pairs = [klom_oracle(u, o) for u in halves[0] for o in halves[1]]
    np.testing.assert_allclose(found.per_example, np.mean(pairs, axis=0), rtol=1e-10)
    floor = (np.array(klom_oracle(*halves[1])) + klom_oracle(*halves[1][::-1])) / 2
    np.testing.assert_allclose(found.floor_per_example, floor, rtol=1e-10)
    assert found.median == np.median(found.per_example)
    assert found.p95 == pytest.approx(np.percentile(found.per_example, 95))
    assert found.floor_p95 == pytest.approx(np.percentile(floor, 95))


def test_the_p_value_of_klom_exchanges_models() -> None:
    same, other = draw(6, 40, 20), draw(8, 40, 20, 3.0)
    assert klom(other, same, exchanges=49).p_value == 1 / 50
    assert klom(np.ones((8, 3)), np.ones((8, 3))).p_value == 1
    assert klom(draw(7, 40, 20), same, seed=3).p_value == klom(draw(7, 40, 20), same, seed=3).p_value
    # Four models, one to a half: of their 24 orders the 8 that pair the equal ones are as far from the floor as this.
    found = klom(np.zeros((2, 1)), np.ones((2, 1)), exchanges=4000)
    assert found.p_value == pytest.approx(8 / 24, abs=0.03)


def test_klom_of_equal_sources_is_at_its_floor_and_of_others_above_it() -> None:
    same, other = klom(draw(6, 100, 200), draw(7, 100, 200)), klom(draw(6, 100, 200, 3.0), draw(7, 100, 200))
    assert same is not None
    assert other is not None
    # Means of 200 examples: four standard errors of the difference.
    error = math.hypot(same.per_example.std(), same.floor_per_example.std()) / math.sqrt(200)
    assert abs(same.per_example.mean() - same.floor_per_example.mean()) < 4 * error
    assert other.median > other.floor_p95


def lira_oracle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Each example and each half by itself, with scipy's densities."""
    found = np.zeros(a.shape[1])
    for column in range(a.shape[1]):
        hits = {"in": [], "out": []}
        for fit in (0, 1):
            x, y = (t[:, column][fit::2] for t in (a, b))
            inside, outside = (stats.norm(v.mean(), max(np.std(v, ddof=1), 1e-6)) for v in (x, y))
            for kind, table, wins in (("in", a, 1), ("out", b, -1)):
                for value in table[:, column][1 - fit :: 2]:
                    ratio = inside.logpdf(value) - outside.logpdf(value)
                    hits[kind].append(0.5 if ratio == 0 else float(np.sign(ratio) == wins))
        found[column] = (np.mean(hits["in"]) + np.mean(hits["out"])) / 2
    return found


@pytest.mark.parametrize("models", [(4, 4), (13, 8)])
def test_u_lira_agrees_with_scipy(models: tuple[int, int]) -> None:
    a, b = draw(8, models[0], 6, 2.0), draw(9, models[1], 6)
    found = u_lira(a, torch.from_numpy(b))
    assert found is not None
    np.testing.assert_allclose(found.per_example, lira_oracle(a, b), rtol=1e-12)
    assert found.accuracy == pytest.approx(lira_oracle(a, b).mean())
    assert (found.unlearned, found.oracles, found.examples) == (*models, 6)


def test_u_lira_interval_is_welchs() -> None:
    # One example: right or wrong once a model; the interval of half the sum of two means.
    a, b = draw(10, 20, 1, 1.5), draw(11, 30, 1)
    found = u_lira(a, b)
    assert found is not None
    right_a, right_b = [], []
    for i in range(20):
        x, y = a[1 - i % 2 :: 2, 0], b[1 - i % 2 :: 2, 0]
        right_a.append(stats.norm(*_fit(x)).logpdf(a[i, 0]) > stats.norm(*_fit(y)).logpdf(a[i, 0]))
    for i in range(30):
        x, y = a[1 - i % 2 :: 2, 0], b[1 - i % 2 :: 2, 0]
        right_b.append(stats.norm(*_fit(x)).logpdf(b[i, 0]) < stats.norm(*_fit(y)).logpdf(b[i, 0]))
    # scipy gives the interval of a difference: of hits against misses.
    test = stats.ttest_ind(np.array(right_a, float), 1 - np.array(right_b, float), equal_var=False)
    low, high = test.confidence_interval(0.95)
    # As if half of the models had judged.
    middle, reach = (low + high + 2) / 4, (high - low) / 4 * math.sqrt(2)
    assert found.interval == pytest.approx((max(0, middle - reach), min(1, middle + reach)))


def test_u_lira_interval_holds_one_half_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        # Margins of one model rise and fall together.
        a, b = (rng.normal(size=(16, 10)) + rng.normal(size=(16, 1)) for _ in range(2))
        low, high = u_lira(a, b).interval
        held += low <= 0.5 <= high
    # 190 are expected of an exact interval, with a standard deviation of 3.
    assert held >= 184


def _fit(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1))


def test_u_lira_of_ties_and_constants() -> None:
    same = np.full((6, 3), 2.0)
    found = u_lira(same, same)
    assert found is not None
    assert (found.accuracy, found.auc, found.interval) == (0.5, 0.5, (0.5, 0.5))
    apart = u_lira(same, same + 0.5)
    assert apart is not None
    assert (apart.accuracy, apart.auc, apart.tpr) == (1.0, 1.0, 1.0)


def test_u_lira_of_saturated_margins_is_finite() -> None:
    rng = np.random.default_rng(0)
    found = u_lira(700 + rng.normal(size=(10, 4)), -700 + rng.normal(size=(10, 4)) * 1e-9)
    assert found is not None
    assert found.accuracy == 1
    assert np.isfinite(found.per_example).all()


def test_u_lira_of_equal_sources_is_at_one_half() -> None:
    accuracies = [u_lira(draw(2 * s, 32, 40), draw(2 * s + 1, 32, 40)).accuracy for s in range(20)]
    assert abs(np.mean(accuracies) - 0.5) < 4 * np.std(accuracies) / math.sqrt(20)
    assert u_lira(draw(0, 32, 40, 5.0), draw(1, 32, 40)).accuracy > 0.8


def test_no_example_is_not_applicable() -> None:
    assert u_lira(np.empty((8, 0)), np.empty((8, 0))) is None
    assert klom(np.empty((8, 0)), np.empty((8, 0))) is None
    assert klom_values(np.empty((3, 0)), np.empty((2, 0))).shape == (0,)


def test_bad_margins_are_refused() -> None:
    good = draw(0, 8)
    with pytest.raises(ValueError, match=r"expected unlearned to hold at least 4 models, but got 3"):
        u_lira(good[:3], good)
    with pytest.raises(ValueError, match=r"expected oracles to hold at least 2 models, but got 1"):
        klom(good, good[:1])
    with pytest.raises(ValueError, match=r"expected oracles to have shape \(models, samples\), but got \(8,\)"):
        klom_values(good, good[:, 0])
    with pytest.raises(ValueError, match=r"the same samples, but got 5 and 4"):
        u_lira(good, good[:, :4])
    bad = good.copy()
    bad[0, 0], bad[1, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"expected unlearned to be finite, but got 2 that are not"):
        klom(bad, good)
    with pytest.raises(ValueError, match=r"expected floor in \(0, 1\), but got 0"):
        klom_values(good, good, floor=0)
    with pytest.raises(ValueError, match=r"expected bins to be at least 1, but got 0"):
        klom(good, good, bins=0)


def test_margins_stay_as_they_were() -> None:
    a, b = draw(0, 8), draw(1, 8)
    before = a.copy(), b.copy()
    u_lira(a, b)
    klom(a, b, clip=0.5)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])
