"""Columns that refuse ``flag | year == 2019``, which Python reads as ``(flag | year) == 2019``.

A table with such columns is what a predicate is given. Bools and integers joined by ``&``, ``|`` or ``^`` are integers
to pandas and NumPy, and what compares them is a bool a row again: nobody would see that other rows were chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

JOINS = ("and", "or", "xor")


def refusing_mixtures(table: Any) -> Any:
    """Return ``table``, pandas or a dict of columns, with columns that do not join bools with integers.

    Joining them raises TypeError. Tensors in a dict stay as they are, and so do tables of a class of the caller's.
    """
    import pandas as pd

    frame, column = _classes()
    if isinstance(table, pd.DataFrame):
        return frame(table) if type(table) is pd.DataFrame else table
    if not isinstance(table, Mapping):
        return table
    kinds = ((np.ndarray, lambda values: values.view(_Array)), (pd.Series, column))
    return {
        name: next((make(values) for kind, make in kinds if isinstance(values, kind)), values)
        for name, values in table.items()
    }


def _check(one: Any, other: Any) -> None:
    if {_kind(one), _kind(other)} == {"boolean", "integer"}:
        raise TypeError("a column of bools is joined with integers, not with what is said of them")


def _kind(values: Any) -> str:
    """Return "boolean" or "integer", of a column by what it holds beside missing values; else another word."""
    import pandas as pd

    values = values if np.ndim(values) else [values]
    return str(pd.api.types.infer_dtype(values, skipna=True))


class _Array(np.ndarray):
    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **options: Any) -> Any:
        if ufunc in (np.bitwise_and, np.bitwise_or, np.bitwise_xor) and method == "__call__":
            _check(*inputs)
        plain = [np.asarray(value) if isinstance(value, _Array) else value for value in inputs]
        made = getattr(ufunc, method)(*plain, **options)
        return made.view(_Array) if isinstance(made, np.ndarray) else made


@functools.cache
def _classes() -> tuple[type, type]:
    """Return a kind of table and its kind of column; made late, since pandas takes its time."""
    import pandas as pd

    class _Column(pd.Series):
        @property
        def _constructor(self) -> type[_Column]:
            return _Column

    class _Frame(pd.DataFrame):
        @property
        def _constructor(self) -> type[_Frame]:
            return _Frame

        @property
        def _constructor_sliced(self) -> type[_Column]:
            return _Column

    def joining(name: str) -> Any:
        own = getattr(pd.Series, name)

        @functools.wraps(own)
        def join(self: Any, other: Any) -> Any:
            _check(self, other)
            return own(self, other)

        return join

    for join in JOINS:
        for name in (f"__{join}__", f"__r{join}__"):
            setattr(_Column, name, joining(name))
    return _Frame, _Column
