"""Expressions over a table: what they select, what they leave open, and what they refuse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlearn_kit.data import columns, where

TABLE = pd.DataFrame(
    {
        "device": ["A", "B", "B", None, "C"],
        "patient": ["07", "7", "1.10", "1.1", "1E5"],
        "year": ["2018", "2020", "2017", "2016", ""],
        "scan date": ["x", "x", "y", "y", "y"],
    }
)


@pytest.mark.parametrize(
    ("expression", "rows", "undecided"),
    [
        ('device == "B"', [1, 2], 1),
        ("device == B", [1, 2], 1),
        ("device != 'B'", [0, 4], 1),  # a missing device is not another device
        ("not device == B", [0, 4], 1),
        ("device in (A, 'C')", [0, 4], 1),
        ("device not in (A, 'C')", [1, 2], 1),
        ("patient == 7", [1], 0),
        ("patient == 07", [0], 0),
        ("patient == 1.1", [3], 0),
        ("patient == 1.10", [2], 0),
        ("patient == '1E5'", [4], 0),
        ("year < 2019", [0, 2, 3], 1),
        ("year >= 2.017e3", [0, 1, 2], 1),
        ("device == B and year < 2019", [2], 1),  # row 3: its device may be B; row 4 is C, whatever its year
        ("device == C or year < 2017", [3, 4], 0),
        ("device == B or year > 2019", [1, 2], 2),
        ("device is missing", [3], 0),
        ("device is not missing and year is missing", [4], 0),
        ("`scan date` == y and (device == B or device == C)", [2, 4], 1),
        ("not (device == B and year < 2019)", [0, 1, 4], 1),
    ],
)
def test_an_expression_selects_these_rows(expression: str, rows: list[int], undecided: int) -> None:
    chosen = where(expression)
    assert np.flatnonzero(chosen(TABLE)).tolist() == rows
    assert chosen.undecided(TABLE) == undecided
    assert str(chosen) == expression
    # A mapping of arrays is a table too.
    assert np.flatnonzero(chosen({name: TABLE[name].to_numpy() for name in TABLE})).tolist() == rows


def test_and_or_not_have_the_truth_tables_of_three_values() -> None:
    states = {"yes": True, "no": False, "": None}
    table = pd.DataFrame(list(itertools.product(states, repeat=2)), columns=["a", "b"])
    # A column must hold the value that it is compared with, which these do.
    for word, rule in (("and", min), ("or", max)):
        chosen = where(f"a == yes {word} b == yes")
        expected = [
            {0: False, 1: None, 2: True}[rule(1 if states[v] is None else 2 * states[v] for v in row)]
            for row in table.itertuples(index=False)
        ]
        assert chosen(table).tolist() == [value is True for value in expected]
        assert chosen.undecided(table) == sum(value is None for value in expected)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "expected the name of a column at character 1 of expression, but got its end"),
        ("device", "expected one of == != < <= > >= 'in' 'is' at character 7 of expression, but got its end"),
        ("device = B", "expected one of == .* at character 8 of expression, but got '='"),
        ("device == B & year < 3", "expected 'and', 'or' or the end at character 13 .* but got '&'; join comparisons"),
        ("device == B year < 3", "expected 'and', 'or' or the end at character 13 of expression, but got 'year'"),
        ("(device == B", r"expected '\)' at character 13 of expression, but got its end"),
        ("device in B", r"expected '\(' at character 11 of expression, but got 'B'"),
        ("device in (B", r"expected ',' or '\)' at character 13"),
        ("device is B", "expected 'missing' at character 11"),
        ("year < soon", "expected a number after '<' in expression, but got 'soon'"),
        ("year < nan", "expected a number after '<' in expression, but got 'nan'"),
        ('device == "B', "expected a value at character 11 of expression, but got '\"'"),
        ("and == 3", "expected the name of a column at character 1 of expression, but got 'and'"),
        ("__import__('os')", r"expected one of == .* but got '\('"),
        ("not " * 60 + "a == b", "nested at most 50 deep"),
        ("(" * 60 + "a == b" + ")" * 60, "nested at most 50 deep"),
        ("a == b or " * 2000 + "a == b", "expected expression to have at most 10000 characters, but got 20006"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        where(expression)


def test_what_the_table_has_not_is_told_with_what_it_has() -> None:
    with pytest.raises(TypeError, match="expected expression to be a str, but got int"):
        where(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one of 'device', 'patient', 'year', 'scan date', but got 'site'"):
        where("site == 3")(TABLE)
    with pytest.raises(ValueError, match="a value that occurs, one of 'A', 'B', 'C', but got 'b'"):
        where("not (year > 3 and device == b)").check(TABLE)
    assert not where("device == b")(TABLE).any()  # as a held-out table may lack a device
    with pytest.raises(ValueError, match="expected 'device' to hold numbers where '<' compares it, but got 'A'"):
        where("device < 3")(TABLE)
    twice = pd.DataFrame([["A", "B"]], columns=["device", "device"])
    with pytest.raises(ValueError, match="but got 'device', which 2 columns are called"):
        where("device == A")(twice)


def test_columns_of_numbers_compare_numbers() -> None:
    table = pd.DataFrame(
        {"year": [2018, 2020, None], "dose": [0.5, 1.0, 2.0], "count": [1, 2, 3], "new": [True, False, True]}
    )
    for expression, rows in (
        ("year == 2018", [0]),
        ("year == 2018.0", [0]),
        ("year != 2018", [1]),
        ("dose in (.5, 2)", [0, 2]),
        ("count == 2", [1]),
        ("new == True", [0, 2]),
    ):
        chosen = where(expression)
        chosen.check(table)
        assert np.flatnonzero(chosen(table)).tolist() == rows


def test_values_that_python_takes_for_equal_stay_apart_and_each_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed = np.empty(8, dtype=object)
    mixed[:] = [1, True, 1.0, "1", "True", None, [1], np.float32(0.5)]
    text, missing = columns.Columns({"mixed": mixed}).text("mixed")
    assert text.tolist() == ["1", "True", "1", "1", "True", "", "[1]", "0.5"]
    assert missing.tolist() == [False] * 5 + [True] + [False] * 2
    written: list[Any] = []
    known = columns._text
    monkeypatch.setattr(columns, "_text", lambda name, value: written.append(value) or known(name, value))
    years = np.arange(100_000) % 12 + 2010
    table = {"year": years, "device": np.array(["A", "B"])[years % 2]}
    assert (where('year > 2015 and device == "B"')(table) == ((years > 2015) & (years % 2 == 1))).all()
    assert len(written) <= 12 + 2 + 1  # and the value of the expression
