from __future__ import annotations

import copy

import pytest

from benchmarks.audit import figures as audit_figures
from benchmarks.audit.figures import FIGURES
from benchmarks.studies import known_cases
from benchmarks.studies.known_cases import CASES, DEEP, HEAD, JUDGED, ORIGINAL, REFERENCE, SECOND, told
from benchmarks.studies.known_cases_tables import tables


def values(**by_case: list[float | None]) -> dict[str, list[dict[str, float | None]]]:
    names = {"reference": REFERENCE, "second": SECOND, "case": ORIGINAL}
    return {names[name]: [{"f": value} for value in column] for name, column in by_case.items()}


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ([0.5, 0.6, 0.7], "yes"),  # .5 away at least; the second at most .2
        ([0.1, 0.6, 0.7], "in part"),
        ([0.1, 0.1, 0.0], "no"),
        ([-0.3, 0.3, -0.4], "yes"),  # on either side
        ([None, None, None], "n/a"),
        ([0.2, 0.2, 0.2], "in part"),  # as far as the second once is
    ],
)
def test_a_case_is_told_where_it_is_farther_than_a_second_reference(case: list[float | None], word: str) -> None:
    assert told("f", values(reference=[0.0] * 3, second=[0.1, -0.2, 0.1], case=case), ORIGINAL) == word


@pytest.fixture(scope="module")
def found() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_figures, "CUT", 5)
        return known_cases.study(4, 1, network="mlp", epochs=2, say=lambda _: None, train_size=200)


def test_every_figure_of_every_case_is_there(found: dict) -> None:
    assert set(found["values"]) == set(CASES)
    assert set(found["values"][HEAD][0]) == {figure.key for figure in FIGURES}
    assert set(found["over_many"]) == {*JUDGED, SECOND}
    assert all(set(found["told"][key]) == set(JUDGED) for key in found["titles"])


def test_a_head_alone_changes_no_feature_and_names_no_image(found: dict) -> None:
    original, edited, deep = (found["values"][case][0] for case in (ORIGINAL, HEAD, DEEP))
    for key in ("features_1", "features_5", "probe", "cka", "neighbours", "leak_js"):
        # The outputs of the head are a layer, too: of a bias the likeness shows no more than the rounding.
        assert [edited[key], deep[key]] == pytest.approx([original[key]] * 2, rel=1e-4), key
    assert edited["forget"] == deep["forget"] == 0.0
    assert deep["margin"] == pytest.approx(edited["margin"] - known_cases.FAR_DOWN, rel=1e-5)


def test_the_reference_is_no_distance_from_itself(found: dict) -> None:
    itself = found["values"][REFERENCE][0]
    assert {key: itself[key] for key in ("average_gap", "js", "leak_js", "neighbours", "weights")} == {
        **{"average_gap": 0.0, "js": pytest.approx(0.0, abs=1e-9), "leak_js": pytest.approx(0.0, abs=1e-9)},
        **{"neighbours": 0.5, "weights": 0.0},
    }


def test_the_table_marks_what_is_told(found: dict) -> None:
    shown = copy.deepcopy(found)
    shown["told"]["forget"] = {**found["told"]["forget"], ORIGINAL: "yes", HEAD: "no"}
    text = tables(shown)
    (row,) = [line for line in text.splitlines() if line.startswith("| forget score, training data |")]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[2] == f"**{found['values'][ORIGINAL][0]['forget']:.3f}**"
    assert cells[3] == f"{found['values'][HEAD][0]['forget']:.3f}"
    assert "KL(unlearned || oracle)" in text
