"""Schedules against their formulas, written out."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_kit import schedules
from unlearn_kit.schedules import (
    Schedule,
    check_scalar_or_schedule,
    cosine,
    every,
    exponential,
    formula,
    inverse,
    inverse_sqrt,
    is_schedule,
    linear,
    progress,
    value_at,
)

numbers = st.floats(-100, 100)
places = st.integers(2, 50).flatmap(lambda total: st.tuples(st.integers(0, total - 1), st.just(total)))


def ramp(share: float) -> float:
    return 2 * share


class Ramp:
    def __call__(self, share: float) -> float:
        return 2 * share


@given(place=places)
def test_progress_runs_from_zero_to_one(place):
    step, total = place
    assert progress(step, total) == pytest.approx(np.linspace(0, 1, total)[step])


def test_progress_of_a_single_step_is_zero():
    assert progress(0, 1) == 0
    assert value_at(linear(3, 1), 0, 1) == 3


@given(start=numbers, end=numbers, place=places)
def test_linear_and_cosine_interpolate(start, end, place):
    step, total = place
    s = step / (total - 1)
    assert value_at(linear(start, end), step, total) == pytest.approx(np.interp(s, [0, 1], [start, end]), abs=1e-9)
    half = (start + end) / 2 + (start - end) / 2 * np.cos(np.pi * s)
    assert value_at(cosine(start, end), step, total) == pytest.approx(half, abs=1e-9)


@given(start=numbers, rate=st.floats(0, 2), place=places)
def test_decays_depend_on_the_step_alone(start, rate, place):
    step, total = place
    t = step + 1
    expected = {
        inverse(start): start / t,
        inverse_sqrt(start): start * t**-0.5,
        exponential(start, rate): start * np.exp(-rate * t),
    }
    for schedule, value in expected.items():
        assert value_at(schedule, step, total) == pytest.approx(value)
        assert value_at(schedule, step, 10 * total) == value_at(schedule, step, total)


def test_every_is_one_on_each_last_step_of_a_period():
    assert [value_at(every(3), step, 7) for step in range(7)] == [0, 0, 1, 0, 0, 1, 0]
    assert [value_at(every(1), step, 3) for step in range(3)] == [1, 1, 1]


def test_floats_and_functions_of_progress_count_as_schedules_do():
    assert [value_at(ramp, step, 5) for step in range(5)] == [0, 0.5, 1, 1.5, 2]
    assert value_at(2, 3, 5) == 2.0
    assert [is_schedule(value) for value in (1.0, ramp, linear(0, 1), Ramp())] == [False, True, True, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (1e-5, "1e-05"),
        (linear(3.0, 1), "linear(3, 1)"),
        (cosine(0, 0.5), "cosine(0, 0.5)"),
        (inverse(2), "inverse(2)"),
        (inverse_sqrt(0.1), "inverse_sqrt(0.1)"),
        (exponential(1.0), "exponential(1, 0.01)"),
        (every(5), "every(5)"),
        (Schedule("mine", lambda _step, _total: 0.0), "mine"),
        (ramp, "ramp"),
        (lambda share: share, "f(progress)"),
        (partial(ramp), "ramp"),
        (Ramp(), "Ramp"),
        (math.sqrt, "sqrt"),
    ],
)
def test_formulas_are_readable_and_the_same_in_every_process(value, text):
    assert formula(value) == text
    if isinstance(value, Schedule):
        assert repr(value) == str(value) == text


def test_schedules_of_one_formula_are_equal():
    assert linear(3, 1) == linear(3.0, 1.0)
    assert hash(linear(3, 1)) == hash(linear(3.0, 1.0))
    assert linear(3, 1) != linear(1, 3)
    assert linear(3, 1) != cosine(3, 1)


def test_a_weight_is_a_number_a_schedule_or_a_function():
    assert check_scalar_or_schedule("noise", 0.5, low=0) == 0.5
    assert check_scalar_or_schedule("noise", np.float32(0.5)) == 0.5
    for value in (linear(0, 1), ramp):
        assert check_scalar_or_schedule("noise", value, low=0) is value
    with pytest.raises(ValueError, match=r"^expected noise in \[0, inf\), but got -1$"):
        check_scalar_or_schedule("noise", -1, low=0)
    with pytest.raises(TypeError, match=r"^expected noise to be a number, but got str: 'much'$"):
        check_scalar_or_schedule("noise", "much")


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: linear("a", 1), TypeError, "expected start to be a number, but got str"),
        (lambda: linear(1, math.nan), ValueError, "expected end in"),
        (lambda: cosine(math.inf, 1), ValueError, "expected start in"),
        (lambda: inverse(None), TypeError, "expected start to be a number, but got NoneType"),
        (lambda: inverse_sqrt(math.nan), ValueError, "expected start in"),
        (lambda: exponential(1, -0.1), ValueError, r"expected rate in \[0, inf\), but got -0.1"),
        (lambda: every(0), ValueError, "expected period to be at least 1, but got 0"),
        (lambda: every(2.5), TypeError, "expected period to be an int, but got float"),
    ],
)
def test_wrong_numbers_are_refused_when_the_schedule_is_built(build, error, text):
    with pytest.raises(error, match=text):
        build()


def test_a_rate_falls_along_its_shape_and_does_not_reach_the_end():
    cosine = schedules.cosine(0.2, 0.0)
    found = [schedules.rate_at(cosine, step, 4) for step in range(4)]
    assert found == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])
    assert schedules.rate_at(0.1, 3, 4) == schedules.rate_at(schedules.constant(0.1), 3, 4) == 0.1
    assert schedules.rate_at(schedules.inverse(1.0), 3, 4) == 0.25
    assert schedules.rate_at(lambda progress: 1 - progress, 3, 4) == 0.25


def test_a_peak_scales_the_shape():
    assert schedules.with_peak(schedules.cosine(0.2, 0.1), 0.4) == schedules.cosine(0.4, 0.2)
    assert schedules.with_peak(schedules.linear(2.0, 0.0), 1.0).at(1, 3) == 0.5
    assert schedules.with_peak(schedules.inverse(2.0), 1.0).at(3, 4) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="expected a schedule that does not start at 0"):
        schedules.with_peak(schedules.linear(0.0, 1.0), 1.0)
