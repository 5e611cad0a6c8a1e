"""The rules by which figures become verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unlearn_kit.evidence.claims import (
    CLAIMS,
    Change,
    Kept,
    advantage_gone,
    class_forgotten,
    findings,
    kept,
    not_marked,
    of_unchanged,
    share_needs,
    untested,
    weights_changed,
)
from unlearn_kit.evidence.estimates import Figure, Gap, share
from unlearn_kit.evidence.thresholds import DEFAULT


def near(value: float, half: float = 0.02) -> Figure:
    return Figure(value, value - half, value + half, 100)


def gone(before: float, after: float, left: tuple[float, float, float], half: float = 0.02):
    return advantage_gone("forgotten", Gap(near(before, half), near(after, half), Figure(*left, 100)))


@pytest.mark.parametrize(
    ("before", "after", "left", "half", "value", "words"),
    [
        (0.15, 0.01, (0.07, -0.1, 0.3), 0.02, "shown", "at most 30% of the original's advantage is left"),
        (0.15, 0.0, (0.0, -0.4, -0.1), 0.02, "shown", "at most 0% of"),
        (0.15, 0.14, (0.9, 0.8, 1.0), 0.02, "not shown", "still tells the forget data from others"),
        (0.4, 0.12, (0.3, 0.25, 0.35), 0.02, "not shown", "still tells"),  # above .1, though little of .4
        (0.15, 0.01, (0.1, -0.6, 0.8), 0.1, "not tested", "100 samples or groups are too few to tell"),
        (0.15, 0.05, (0.35, 0.1, 0.55), 0.05, "not shown", "up to 55% of the original's advantage may be left"),
        (0.01, 0.0, (0.0, -9.0, 9.0), 0.02, "not tested", "nothing to be seen went"),
        (0.4, 0.0, (0.0, -9.0, 9.0), 0.5, "not tested", "too few to tell whether even the original knew them"),
        (0.01, 0.2, (20.0, 1.0, 99.0), 0.02, "not shown", "as the original did not"),
    ],
)
def test_an_advantage_is_gone_or_not(before, after, left, half, value, words) -> None:
    found = gone(before, after, left, half)
    assert (found.value, words in found.words) == (value, True), found.words
    assert found.claim == CLAIMS["forgotten"]
    assert bool(findings([found])) == ("still tells" in words or "did not" in words)
    assert found.origin in (DEFAULT.left.origin, DEFAULT.share_left.origin)


def test_a_class_is_forgotten_when_it_is_found_as_by_guessing() -> None:
    before = share(95, 100)
    assert class_forgotten("forgotten", before, share(0, 100), 0.1).value == "shown"
    assert class_forgotten("forgotten", before, share(60, 100), 0.1).alarming
    assert class_forgotten("forgotten", before, share(8, 100), 0.1).value == "not shown"
    few = class_forgotten("forgotten", before, share(0, 20), 0.1)
    assert (few.value, f"({share_needs(0.1)} are needed)" in few.words) == ("not tested", True)
    assert share(0, share_needs(0.1)).high <= 0.1 < share(0, share_needs(0.1) - 1).high
    assert class_forgotten("forgotten", share(3, 100), share(0, 100), 0.1).value == "not tested"


def test_forget_data_are_marked_when_they_are_worse() -> None:
    assert not_marked(near(0.0)).value == "shown"
    marked = not_marked(near(-0.2))
    assert (marked.value, marked.alarming, "over-forgetting" in marked.words) == ("not shown", True, True)
    assert not_marked(near(0.0, 0.2)).value == "not tested"
    assert not_marked(near(-0.06, 0.05)).value == "not shown" or not_marked(near(-0.06, 0.05)).alarming
    assert not_marked(None).value == "not tested"


def change(before: float, after: float, p: float, count: int = 100) -> Change:
    return Change("melanoma", count, before, after, round(count * (1 - before)), round(count * (1 - after)), p)


def test_damage_is_named_by_class_and_false_negatives() -> None:
    fell = kept(Kept(near(-0.01, 0.01), (change(0.9, 0.6, 1e-4),)))
    assert (fell.value, fell.alarming) == ("not shown", True)
    assert "damage beyond noise: melanoma: 10 of 100 missed before, 40 after" in fell.words
    assert kept(Kept(near(-0.01, 0.01), (change(0.9, 0.6, 0.2),))).value == "shown"  # may be noise
    assert kept(Kept(near(-0.01, 0.01), (change(0.9, 0.85, 1e-4),))).value == "shown"  # as trainings differ
    assert kept(Kept(near(-0.2, 0.02))).alarming
    assert kept(Kept(near(0.0, 0.2))).value == "not tested"
    assert kept(Kept(near(-0.04, 0.02))).alarming
    assert kept(None).value == "not tested"
    strict = replace(DEFAULT, kept=replace(DEFAULT.kept, value=0.01, origin="asked for"))
    assert kept(Kept(near(0.0, 0.011)), strict).value != "shown"


def test_of_what_was_not_changed_nothing_is_shown() -> None:
    same = weights_changed(True, 0.0)
    assert (same.value, findings([same])[0]) == ("not shown", f"weights changed: not shown: {same.words}")
    assert weights_changed(False, 1e-6).alarming
    assert weights_changed(False, 0.2).value == "shown"
    assert weights_changed(False, None).value == "not tested"
    shown = not_marked(near(0.0))
    assert of_unchanged(shown).value == "not tested"
    assert of_unchanged(untested("kept", "why")).words == "why"
