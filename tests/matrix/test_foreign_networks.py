"""Networks from elsewhere: every cell of the matrix is right or refused, and is what the documentation shows."""

from __future__ import annotations

import pytest

from cells import ROWS
from networks import NETWORKS
from table import PAGE, column, read, render


@pytest.fixture(scope="module")
def shown():
    return read(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_shows_what_becomes_of(name, shown):
    assert column(name) == {key: one for key, one in shown.items() if key[1] == name}


def test_no_cell_is_wrong(shown):
    assert {key: one.why for key, one in shown.items() if one.kind == "wrong"} == {}


def test_the_page_is_whole(shown):
    assert shown.keys() == {(row, name) for row in ROWS for name in NETWORKS}
    assert render(shown) == PAGE.read_text(encoding="utf-8")
