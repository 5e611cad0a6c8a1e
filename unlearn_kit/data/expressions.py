"""Which rows of a table are meant, in words: ``device == "B" and year < 2019``. Nothing is executed.

The grammar, from the loosest to the tightest::

    either:     both ("or" both)*
    both:       negated ("and" negated)*
    negated:    "not" negated | "(" either ")" | comparison
    comparison: COLUMN ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE
              | COLUMN ["not"] "in" "(" VALUE ("," VALUE)* ")"
              | COLUMN "is" ["not"] "missing"

A column is a name, in backquotes where it has other characters than letters, digits, ``_``, ``.`` and ``-``. A value is
text in quotes, a number or a bare word. ``==``, ``!=`` and ``in`` compare text, so that the ids 07 and 7 are two, and
numbers where the column holds numbers; the four orders compare numbers.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..arguments import checked
from ..errors import nearest
from .columns import RESERVED, Columns, Mask, is_number, listed, quoted

ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MAX_LENGTH = 10_000  # characters: a person wrote it
MAX_DEPTH = 50  # parentheses and negations within each other

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<operator>==|!=|<=|>=|<|>)
  | (?P<mark>[(),])
  | "(?P<double>[^"]*)" | '(?P<single>[^']*)' | `(?P<column>[^`]+)`
  | (?P<word>[^\s()<>=!,"'`&|]+)
    )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str  # "operator", "mark", "text", "column", "word" or "end"
    text: str
    place: int


class _Node(ABC):
    """A part of an expression: which rows it is true of, and which it cannot tell."""

    @abstractmethod
    def rows(self, columns: Columns) -> tuple[Mask, Mask]:
        """Return the rows that are meant, and those where a missing value leaves it open."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the columns that are asked for."""

    def check(self, columns: Columns) -> None:  # noqa: B027 - most parts compare nothing
        """Refuse a value that occurs nowhere in its column."""


@dataclass(frozen=True)
class _Compared(_Node):
    column: str
    operator: str
    values: tuple[str, ...]

    def rows(self, columns: Columns) -> tuple[Mask, Mask]:
        text, missing = columns.text(self.column)
        if self.operator in ORDERS:
            numbers = self._numbers(text, missing)
            with np.errstate(invalid="ignore"):
                found = ORDERS[self.operator](numbers, float(self.values[0]))
            return found & ~missing, missing
        found = np.isin(text, columns.literals(self.column, self.values))
        return (found if self.operator in ("==", "in") else ~found) & ~missing, missing

    def names(self) -> list[str]:
        return [self.column]

    def check(self, columns: Columns) -> None:
        if self.operator in ORDERS:
            return
        text, missing = columns.text(self.column)
        known = sorted(set(text[~missing]))
        for value, written in zip(self.values, columns.literals(self.column, self.values), strict=True):
            if written not in known:
                raise ValueError(
                    f"expected the expression to compare {self.column!r} with a value that occurs, one of "
                    f"{listed(known)}, but got {value!r}{nearest(value, known)}"
                )

    def _numbers(self, text: np.ndarray[Any, Any], missing: Mask) -> np.ndarray[Any, Any]:
        numbers = np.full(len(text), np.nan)
        held = text[~missing]
        known: dict[str, float] = {}
        for value in dict.fromkeys(held):
            if not is_number(value):
                raise ValueError(
                    f"expected {self.column!r} to hold numbers where {self.operator!r} compares it, but got {value!r}"
                )
            known[value] = float(value)
        numbers[~missing] = [known[value] for value in held]
        return numbers


@dataclass(frozen=True)
class _Missing(_Node):
    column: str

    def rows(self, columns: Columns) -> tuple[Mask, Mask]:
        _, missing = columns.text(self.column)
        return missing, np.zeros_like(missing)

    def names(self) -> list[str]:
        return [self.column]


@dataclass(frozen=True)
class _Not(_Node):
    part: _Node

    def rows(self, columns: Columns) -> tuple[Mask, Mask]:
        found, open_ = self.part.rows(columns)
        return ~found & ~open_, open_

    def names(self) -> list[str]:
        return self.part.names()

    def check(self, columns: Columns) -> None:
        self.part.check(columns)


@dataclass(frozen=True)
class _Joined(_Node):
    word: str  # "and" or "or"
    parts: tuple[_Node, ...]

    def rows(self, columns: Columns) -> tuple[Mask, Mask]:
        # Three values, as in SQL: what is false by one part stays false whatever another part lacks.
        found, open_ = self.parts[0].rows(columns)
        for part in self.parts[1:]:
            more, more_open = part.rows(columns)
            if self.word == "and":
                both = found & more
                open_ = (found | open_) & (more | more_open) & ~both
                found = both
            else:
                found = found | more
                open_ = (open_ | more_open) & ~found
        return found, open_

    def names(self) -> list[str]:
        return [name for part in self.parts for name in part.names()]

    def check(self, columns: Columns) -> None:
        for part in self.parts:
            part.check(columns)


@dataclass(frozen=True)
class Where:
    """Rows of a table chosen by an expression: a predicate for :meth:`UnlearnTask.forget_where`.

    Called with a table (pandas, or a mapping of arrays) it returns a bool mask ``(N,)``. A row where a missing value
    leaves the answer open is not selected; :meth:`undecided` counts them.

    Attributes:
        text: The expression, as it was given.
    """

    text: str
    _root: _Node = field(repr=False)

    def __call__(self, table: Any) -> Mask:
        """Return which rows are meant, ``(N,)``.

        Raises:
            ValueError: On an unknown column, naming those there are, or text where numbers are compared.
        """
        return self._root.rows(Columns(table))[0]

    def check(self, table: Any) -> None:
        """Refuse an expression that compares a column with a value that occurs nowhere in it: a slip of the pen.

        A device may be missing from the held-out data, so this is asked of the training data alone.

        Raises:
            ValueError: On such a value or an unknown column, naming what there is.
        """
        self._root.check(Columns(table))

    @property
    def columns(self) -> list[str]:
        """The columns that the expression asks for."""
        return list(dict.fromkeys(self._root.names()))

    def undecided(self, table: Any) -> int:
        """Return how many rows are left out because of a missing value."""
        return int(self._root.rows(Columns(table))[1].sum())

    def note(self, name: str, table: Any) -> str:
        """Return how many rows of the table ``name`` a missing value leaves out, with the remedy; empty for none."""
        columns = Columns(table)
        open_ = self._root.rows(columns)[1]
        lacking = {column: int((columns.text(column)[1] & open_).sum()) for column in self.columns}
        named = {column: count for column, count in lacking.items() if count}
        if not named:
            return ""
        counts = ", ".join(f"{column!r} in {count}" for column, count in named.items())
        first = quoted(next(iter(named)))
        return (
            f"{int(open_.sum())} rows of {name} are not forgotten, since what is asked for is missing: {counts}. "
            f"'(... or {first} is missing)' around what is asked forgets them, "
            f"'and {first} is not missing' says that they stay"
        )

    def __str__(self) -> str:
        """Return the expression."""
        return self.text


@checked
def where(expression: str) -> Where:
    """Return the predicate that an expression such as ``device == "B" and year < 2019`` describes.

    Raises:
        TypeError: When it is no text.
        ValueError: Where it cannot be read, with the place and what was expected there.
    """
    if not isinstance(expression, str):
        raise TypeError(f"expected expression to be a str, but got {type(expression).__name__}")
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"expected expression to have at most {MAX_LENGTH} characters, but got {len(expression)}")
    return Where(expression.strip(), _Reader(expression).read())


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0
        self.tokens = _tokens(text)

    def read(self) -> _Node:
        root = self._joined("or")
        if self.token.kind != "end":
            raise self._unexpected("'and', 'or' or the end")
        return root

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def _take(self) -> _Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def _is(self, text: str) -> bool:
        """Return whether the next token is this word or mark, and take it then."""
        if self.token.kind in ("word", "mark") and self.token.text == text:
            self.place += 1
            return True
        return False

    def _joined(self, word: str) -> _Node:
        parts = [self._joined("and") if word == "or" else self._negated()]
        while self._is(word):
            parts.append(self._joined("and") if word == "or" else self._negated())
        return parts[0] if len(parts) == 1 else _Joined(word, tuple(parts))

    def _negated(self) -> _Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"expected expression to be nested at most {MAX_DEPTH} deep: {self._quoted()}")
        try:
            if self._is("not"):
                return _Not(self._negated())
            if self._is("("):
                inner = self._joined("or")
                if not self._is(")"):
                    raise self._unexpected("')'")
                return inner
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> _Node:
        token = self.token
        if token.kind not in ("word", "column") or (token.kind == "word" and token.text in RESERVED):
            raise self._unexpected("the name of a column")
        column = self._take().text
        if self.token.kind == "operator":
            name = self._take().text
            value = self._value()
            if name in ORDERS and not is_number(value):
                raise ValueError(f"expected a number after {name!r} in expression, but got {value!r}: {self._quoted()}")
            return _Compared(column, name, (value,))
        if self._is("is"):
            negated = self._is("not")
            if not self._is("missing"):
                raise self._unexpected("'missing'")
            return _Not(_Missing(column)) if negated else _Missing(column)
        name = "not in" if self._is("not") else "in"
        if not self._is("in"):
            raise self._unexpected("one of == != < <= > >= 'in' 'is'")
        if not self._is("("):
            raise self._unexpected("'('")
        values = [self._value()]
        while self._is(","):
            values.append(self._value())
        if not self._is(")"):
            raise self._unexpected("',' or ')'")
        return _Compared(column, name, tuple(values))

    def _value(self) -> str:
        if self.token.kind not in ("text", "word") or (self.token.kind == "word" and self.token.text in RESERVED):
            raise self._unexpected("a value")
        return self._take().text

    def _unexpected(self, wanted: str) -> ValueError:
        token = self.token
        came = "its end" if token.kind == "end" else repr(token.text)
        hint = "; join comparisons by 'and' and 'or'" if token.text in ("&", "|", "&&", "||") else ""
        return ValueError(
            f"expected {wanted} at character {token.place + 1} of expression, but got {came}{hint}: {self._quoted()}"
        )

    def _quoted(self) -> str:
        return repr(self.text if len(self.text) <= 200 else self.text[:200] + "...")


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        start = place + len(text[place:]) - len(text[place:].lstrip())
        if match is None:
            found.append(_Token("other", text[start], start))
            place = start + 1
            continue
        kind = str(match.lastgroup)
        found.append(_Token("text" if kind in ("double", "single") else kind, match[kind], start))
        place = match.end()
    return [*found, _Token("end", "", len(text.rstrip()))]
