"""The checks: what passes comes back as a plain number, what does not is named with what was expected and what came."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_kit import CheckpointError, DataNotFoundError, DivergenceError
from unlearn_kit.errors import check_choice, check_count, check_number, check_path_exists, shown

bounds = st.floats(-100, 100)


@given(value=st.floats(-200, 200), low=bounds, high=bounds, open_low=st.booleans(), open_high=st.booleans())
def test_a_number_passes_exactly_when_it_is_in_the_interval(value, low, high, open_low, open_high):
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    options = {"low": low, "high": high, "open_low": open_low, "open_high": open_high}
    if inside:
        assert check_number("radius", value, **options) == value
    else:
        with pytest.raises(ValueError, match="expected radius in "):
            check_number("radius", value, **options)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, r"\(-inf, inf\)"),
        ({"low": 0}, r"\[0, inf\)"),
        ({"low": 0, "high": 1, "open_low": True}, r"\(0, 1\]"),
        ({"low": 0, "high": 1, "open_high": True}, r"\[0, 1\)"),
    ],
)
def test_the_interval_is_shown_as_mathematicians_write_it(options, shown):
    with pytest.raises(ValueError, match=rf"^expected lr in {shown}, but got nan$"):
        check_number("lr", math.nan, **options)


@pytest.mark.parametrize("value", [3, np.int64(3), np.float32(3), np.float64(3), Fraction(3)])
def test_numbers_of_any_make_become_python_floats(value):
    assert type(check_number("lr", value)) is float
    assert check_number("lr", value) == 3.0


@pytest.mark.parametrize("value", ["3", None, True, np.True_, 1j, torch.tensor(3.0), [3]])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match=f"^expected lr to be a number, but got {type(value).__name__}"):
        check_number("lr", value)


@pytest.mark.parametrize("value", [10**400, -(10**4000), Fraction(10**400)])
def test_a_number_is_one_that_a_float_can_hold(value):
    with pytest.raises(ValueError, match="expected lr in"):
        check_number("lr", value)


def test_what_came_is_shown_in_brief_whatever_it_is():
    class Silent:
        def __repr__(self):
            raise RuntimeError

    assert shown(0.1) == "0.1"
    assert shown(10**5000) == "an int of 16610 bits"
    assert len(shown("x" * 10**6)) == 200
    assert len(shown([["x" * 10**6] * 10**6] * 10**6)) == 503
    assert shown([Silent()]).startswith("[<Silent instance at")
    for check in (check_number, check_count):
        with pytest.raises(TypeError, match="expected lr to be a"):
            check("lr", Silent())
    with pytest.raises(ValueError, match="expected lr to be at least 1, but got an int of 16610 bits"):
        check_count("lr", -(10**5000))
    with pytest.raises(TypeError, match="expected out to be a path, but got int: 3"):
        check_path_exists("out", 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("inf")])
def test_a_number_is_finite(value):
    with pytest.raises(ValueError, match="expected lr in"):
        check_number("lr", value)


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_counts_of_any_make_become_python_ints(value):
    assert type(check_count("steps", value)) is int
    assert check_count("steps", value) == 2


@pytest.mark.parametrize("value", [2.0, True, "2", None, np.float64(2)])
def test_what_is_no_int_is_no_count(value):
    with pytest.raises(TypeError, match=r"^expected steps to be an int, but got "):
        check_count("steps", value)


def test_a_count_has_a_least_value():
    assert check_count("steps", 0, low=0) == 0
    with pytest.raises(ValueError, match=r"^expected steps to be at least 1, but got 0$"):
        check_count("steps", 0)


def test_a_choice_comes_back_and_a_typo_is_told_the_nearest():
    assert check_choice("update", "projected", ("projected", "frank-wolfe")) == "projected"
    text = r"^expected update to be one of \['projected', .*\], but got 'frankwolf'; did you mean 'frank-wolfe'\?$"
    with pytest.raises(ValueError, match=text):
        check_choice("update", "frankwolf", ("projected", "frank-wolfe"))


def test_of_many_choices_the_nearest_alone_is_told():
    with pytest.raises(ValueError, match=r"^expected model to be one of 1,200 names, but got 'm7x'; did you mean 'm7"):
        check_choice("model", "m7x", [f"m{k}" for k in range(1200)])


@pytest.mark.parametrize("value", ["xyz", 3, None, [1]])
def test_a_choice_near_nothing_gets_no_suggestion(value):
    with pytest.raises(ValueError, match=r"but got .*[^?]$"):
        check_choice("update", value, ("projected",))


def test_an_existing_path_comes_back_and_a_missing_one_is_named(tmp_path):
    assert check_path_exists("root", str(tmp_path)) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"^expected root to be an existing path, but got .*nowhere'$"):
        check_path_exists("root", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("error", "base"),
    [(CheckpointError, ValueError), (DataNotFoundError, FileNotFoundError), (DivergenceError, RuntimeError)],
)
def test_errors_are_caught_by_their_builtin_kind(error, base):
    assert issubclass(error, base)


def test_divergence_survives_the_way_back_from_a_worker_process():
    error = DivergenceError("erase", 7, "kl", {"w": torch.ones(2)})
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error)
    assert "phase 'erase' diverged at step 7: 'kl' is not finite" in str(back)
    assert (back.phase, back.step, back.part) == ("erase", 7, "kl")
    assert torch.equal(back.state["w"], torch.ones(2))
