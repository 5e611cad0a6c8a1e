from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_kit.judging import auc_margin, choose_by_held_out, margin, nothing_to_forget, over_forgets
from unlearn_kit.metrics import Evaluation


@dataclass(frozen=True)
class Point:
    forget: float
    validation: float


def scores(forget: float, *, forget_test: float | None = None, membership: float | None = 0.5) -> Evaluation:
    sizes = {"forget": 1000, "retain": 9000, "forget_test": 0 if forget_test is None else 500, "retain_test": 5000}
    return Evaluation(
        kind="classification",
        sizes=sizes,
        forget=forget,
        retain=1.0,
        forget_test=forget_test,
        retain_test=0.9,
        test=0.9,
        membership=membership,
        per_class=None,
    )


def test_the_mix_whose_forget_accuracy_is_nearest_to_validation_accuracy_is_chosen() -> None:
    points = [Point(1.0, 0.88), Point(0.93, 0.875), Point(0.86, 0.87), Point(0.60, 0.86)]
    assert choose_by_held_out(points, original=0.88) == 2


def test_a_mix_that_costs_more_than_two_points_is_not_chosen_however_near() -> None:
    points = [Point(1.0, 0.88), Point(0.95, 0.86), Point(0.80, 0.80)]
    assert choose_by_held_out(points, original=0.88) == 1  # .86 is exactly two points below
    assert choose_by_held_out(points, original=0.88, within=0.1) == 2


def test_forgetting_too_much_counts_as_much_as_too_little_and_ties_go_to_the_first() -> None:
    assert choose_by_held_out([Point(0.97, 0.87), Point(0.70, 0.87)], original=0.87) == 0
    assert choose_by_held_out([Point(0.75, 0.5), Point(0.25, 0.5)], original=0.5) == 0


def test_nothing_is_chosen_when_every_mix_costs_too_much() -> None:
    assert choose_by_held_out([Point(0.5, 0.5)], original=0.88) is None
    assert choose_by_held_out([], original=0.88) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_the_choice_is_allowed_and_no_allowed_one_is_nearer(pairs: list[tuple[float, float]], original: float) -> None:
    points = [Point(*pair) for pair in pairs]
    chosen = choose_by_held_out(points, original)
    gaps = {i: abs(f - v) for i, (f, v) in enumerate(pairs) if v >= original - 0.02 - 1e-12}
    assert (chosen is None) == (not gaps)
    if chosen is not None:
        assert gaps[chosen] == min(gaps.values())


def test_margins_are_two_standard_errors_but_never_under_two_points() -> None:
    assert margin(0.5, 100) == pytest.approx(0.1)
    assert margin(0.0, 100) == 0.02
    assert margin(0.5, 10**6) == 0.02
    assert auc_margin(100, 100) == pytest.approx(2 * (201 / 120_000) ** 0.5)


def test_nothing_to_forget_needs_both_accuracy_and_membership_alike() -> None:
    assert nothing_to_forget(scores(0.90, membership=0.505), scores(0.89, membership=0.50))
    assert not nothing_to_forget(scores(1.00, membership=0.505), scores(0.89, membership=0.50))
    assert not nothing_to_forget(scores(0.90, membership=0.56), scores(0.89, membership=0.50))
    assert nothing_to_forget(scores(0.90, membership=None), scores(0.89, membership=None))


def test_a_class_is_judged_on_held_out_data() -> None:
    original = scores(1.0, forget_test=0.0, membership=0.5)
    assert nothing_to_forget(original, scores(0.0, forget_test=0.0, membership=0.5))
    assert not nothing_to_forget(scores(1.0, forget_test=0.9), scores(1.0, forget_test=0.0))


def test_over_forgetting_is_being_clearly_worse_than_the_reference() -> None:
    reference = scores(0.86)
    assert over_forgets(scores(0.70), reference)
    assert not over_forgets(scores(0.85), reference)
    assert not over_forgets(scores(1.0), reference)
    assert not over_forgets(scores(0.0), scores(0.0))
