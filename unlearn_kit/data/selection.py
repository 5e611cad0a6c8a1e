"""Samples chosen by their metadata: rows in the order of the data, and no choice by a value that is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import nearest
from .alignment import index_of
from .columns import Columns
from .expressions import Where
from .joined import refusing_mixtures
from .mask_pairs import list_names

SHOWN = 6  # columns, and values of each, that an error tells
SHORT = 40  # characters of each
FILLED = 1000  # values, at most, that are tried in the place of a missing one


def rows_where(name: str, count: int, table: Any, predicate: Callable[[Any], Any]) -> Tensor:
    """Return where ``predicate`` holds of a data set's metadata: bool ``(N,)``.

    Args:
        name: Of the data set, for errors; its table is ``{name}_metadata``.
        count: How many samples it has.
        table: One row a sample, in their order, by :func:`.alignment.aligned`.
        predicate: Called with the table; returns one bool a row.

    Raises:
        ValueError: When the predicate does not return one bool a row, or it holds of a row because a value is missing.
    """
    if isinstance(predicate, Where):  # which says by itself what a missing value leaves open
        return torch.from_numpy(_asked(name, count, table, predicate))
    table = refusing_mixtures(table)
    mask = _asked(name, count, table, predicate)
    for column, missing in _missing(table):
        rows = mask & missing
        if not rows.any():
            continue
        # Chosen whatever the value is, or because it is missing (isna): the predicate means it. Chosen by accident is
        # what some values would choose and others not.
        tried = [
            _asked(name, count, _filled(table, column, missing, value), predicate) for value in _values(table, column)
        ]
        accidental = rows & np.any(tried, axis=0) & ~np.all(tried, axis=0)
        if accidental.any():
            raise ValueError(
                f"expected predicate not to choose rows of {name}_metadata whose {column!r} is missing, but got "
                f"{int(accidental.sum())}, at {list_names([str(row) for row in np.flatnonzero(accidental)])}; decide "
                f"them, as in (...) & table[{column!r}].notna()"
            )
    return torch.from_numpy(mask)


def _asked(name: str, count: int, table: Any, predicate: Callable[[Any], Any]) -> np.ndarray:
    try:
        answer = predicate(table)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        if isinstance(predicate, Where):
            raise
        raise ValueError(
            f"expected predicate to return one bool a row of {name}_metadata, but it failed: {_reason(error, table)}"
        ) from error
    index, own = index_of(answer), index_of(table)
    if index is not None and own is not None and len(index) == len(own) and not index.equals(own):
        raise ValueError(f"expected predicate to keep the order of the rows of {name}_metadata, but got another index")
    mask = np.asarray(answer)
    if mask.dtype != bool or mask.shape != (count,):
        raise ValueError(
            f"expected predicate to return {count} bools for {name}_metadata, "
            f"but got {mask.dtype} of shape {mask.shape}"
            + (", as missing values give: fill them or test notna()" if mask.dtype == object else "")
        )
    return mask.copy()


def _reason(error: Exception, table: Any) -> str:
    """Return what a predicate failed of, with the remedy."""
    names = Columns(table).names
    if isinstance(error, KeyError) and error.args and error.args[0] not in names:
        return f"there is no column {error.args[0]!r} among {names}{nearest(error.args[0], names)}"
    return (
        f"{error}; comparisons that are joined by & or | each need parentheses, and 'and', 'or', 'not' are & | ~ there"
    )


def none_chosen(table: Any, predicate: Callable[[Any], Any]) -> str:
    """Return what a predicate that chose no row could have chosen by: columns with some of their values, in words."""
    columns = Columns(table)
    asked = predicate.columns if isinstance(predicate, Where) else columns.names
    parts = []
    for name in asked[:SHOWN]:
        if columns.names.count(name) == 1:
            text, missing = columns.text(name)
            known = list(dict.fromkeys(text[~missing].tolist()))
            some = [*(f"{value[:SHORT]!r}" for value in known[:SHOWN]), *(["..."] if len(known) > SHOWN else [])]
            parts.append(f"{name} ({', '.join(some)})")
    left = predicate.note("these", table) if isinstance(predicate, Where) else ""
    return ", ".join([*parts, *(["..."] if len(asked) > SHOWN else [])]) + (f"; {left}" if left else "")


def _missing(table: Any) -> Iterable[tuple[str, np.ndarray]]:
    """Yield each column that lacks values, and where."""
    import pandas as pd

    columns = table.columns if hasattr(table, "columns") else table if isinstance(table, Mapping) else ()
    for column in columns:
        values = table[column]
        missing = np.asarray(pd.isna(values), bool) if np.ndim(values) == 1 else np.zeros(1, bool)
        if missing.any():
            yield column, missing


def _values(table: Any, column: str) -> list[Any]:
    """Return the distinct values that the column has; of very many, some."""
    import pandas as pd

    known = list(pd.Series(table[column]).dropna().unique())
    return known[:: -(-len(known) // FILLED) or 1]


def _filled(table: Any, column: str, missing: np.ndarray, value: Any) -> Any:
    """Return the table with ``value`` wherever the column lacks one."""
    if isinstance(table, Mapping):
        values = np.array(table[column], dtype=object)
        values[missing] = value
        return {**table, column: values}
    return table.assign(**{column: table[column].fillna(value)})
