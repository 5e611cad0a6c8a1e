"""Columns of any table as text, in which ids stay apart and what is missing is known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import nearest

RESERVED = ("and", "or", "not", "in", "is")  # words of an expression
EXACT = 2**53  # up to here a float holds every whole number
SHOWN = 12  # values or columns that an error lists

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Columns:
    """The columns of a table as an expression reads them: text, with what is missing apart."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self._texts: dict[str, tuple[np.ndarray[Any, Any], Mask]] = {}
        self.names = [str(name) for name in (table.columns if hasattr(table, "columns") else table)]

    def values(self, name: str) -> np.ndarray[Any, Any]:
        """Return the values of a column as they are.

        Raises:
            ValueError: On an unknown column, naming those there are.
        """
        if self.names.count(name) != 1:
            raise ValueError(
                f"expected the expression to name a column of the table, one of {listed(self.names)}, but got {name!r}"
                + (f", which {self.names.count(name)} columns are called" if name in self.names else "")
                + ("" if name in self.names else nearest(name, self.names))
            )
        return np.asarray(self.table[name], dtype=object)

    def text(self, name: str) -> tuple[np.ndarray[Any, Any], Mask]:
        """Return the values of a column as text, and which are missing.

        Raises:
            ValueError: On an unknown column, naming those there are, or numbers too large to be told apart.
        """
        if name not in self._texts:
            self._texts[name] = self._text(name)
        return self._texts[name]

    def _text(self, name: str) -> tuple[np.ndarray[Any, Any], Mask]:
        import pandas as pd

        # A column of a million rows holds few values: each is written once. 1, 1.0 and True are apart.
        places: dict[tuple[type, Any], int] = {}
        distinct: list[Any] = []
        codes = np.empty(len(values := self.values(name)), dtype=np.int64)
        for row, value in enumerate(values):
            try:
                place = places.setdefault((type(value), value), len(distinct))
            except TypeError:  # a list, which cannot be looked up
                place = len(distinct)
            if place == len(distinct):
                distinct.append(value)
            codes[row] = place
        held = np.empty(len(distinct), dtype=object)
        held[:] = distinct
        gone = np.asarray(pd.isna(held), dtype=bool)
        gone |= np.array([isinstance(value, str) and not value.strip() for value in distinct], dtype=bool)
        written = np.empty(len(distinct), dtype=object)
        written[:] = ["" if lost else _text(name, value) for value, lost in zip(distinct, gone, strict=True)]
        return written[codes], gone[codes]

    def literals(self, name: str, values: tuple[str, ...]) -> tuple[str, ...]:
        """Return the values of an expression as the column writes them: numbers where it holds numbers."""
        values = tuple(_composed(value) for value in values)
        kinds = set(map(type, self.values(name)[~self.text(name)[1]]))
        if not all(issubclass(kind, (int, float, np.number)) and not issubclass(kind, bool) for kind in kinds):
            return values
        return tuple(_text(name, _number(value)) if is_number(value) else value for value in values)


def quoted(column: str) -> str:
    """Return the name of a column as an expression writes it: in backquotes where it must be."""
    return column if re.fullmatch(r"[\w.-]+", column) and column not in RESERVED else f"`{column}`"


def _text(column: str, value: Any) -> str:
    """Return a value as text; a whole number without a fraction, since a column with missing values holds floats."""
    if not isinstance(value, (float, np.floating)) or not float(value).is_integer():
        return _composed(str(value))
    number = int(float(value))
    if abs(number) > EXACT:
        raise ValueError(
            f"expected {column!r} to hold numbers that a float tells apart, but got {number}; read it as text"
        )
    return str(number)


def _composed(text: str) -> str:
    """Return a text whose letters with accents are one letter each, however they were typed."""
    return unicodedata.normalize("NFC", text)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def is_number(text: str) -> bool:
    """Return whether a text is a finite number."""
    try:
        return "_" not in text and bool(np.isfinite(float(text)))
    except ValueError:
        return False


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more
