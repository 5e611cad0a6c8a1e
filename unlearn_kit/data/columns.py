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
        import pandas as pd

        values = self.values(name)
        blank = [isinstance(value, str) and not value.strip() for value in values]
        missing = np.asarray(pd.isna(values), dtype=bool) | np.array(blank, dtype=bool)
        written = ["" if gone else _text(name, value) for value, gone in zip(values, missing, strict=True)]
        return np.array(written, dtype=object), missing

    def literals(self, name: str, values: tuple[str, ...]) -> tuple[str, ...]:
        """Return the values of an expression as the column writes them: numbers where it holds numbers."""
        values = tuple(_composed(value) for value in values)
        held = self.values(name)[~self.text(name)[1]]
        if not all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in held):
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
