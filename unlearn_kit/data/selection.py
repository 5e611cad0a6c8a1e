"""Samples chosen by their metadata: rows in the order of the data, and no choice by a value that is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .expressions import Where
from .mask_pairs import MaskPairs, list_names
from .pictures import PictureFiles
from .tensors import resolve
from .volumes import VolumeFiles

FILLED = 1000  # values, at most, that are tried in the place of a missing one


def rows_where(name: str, dataset: Any, table: Any, predicate: Callable[[Any], Any]) -> Tensor:
    """Return where ``predicate`` holds of a data set's metadata: bool ``(N,)``.

    Args:
        name: Of the data set, for errors; its table is ``{name}_metadata``.
        dataset: Its samples are what the rows describe.
        table: One row a sample (pandas, or a dict of arrays). Where the data set knows the files of its samples and the
            table has a column ``file``, rows are matched by file; otherwise they count by their place.
        predicate: Called with the table; returns one bool a row.

    Raises:
        TypeError: When there is no table.
        ValueError: When rows are not in the order of the data, the predicate does not return one bool a row, or it
            holds of a row because a value is missing.
    """
    if table is None:
        raise TypeError(f"expected {name}_metadata to be a table with one row a sample, but got None")
    table = _in_order(name, dataset, table)
    mask = _asked(name, len(dataset), table, predicate)
    if isinstance(predicate, Where):  # which says by itself what a missing value leaves open
        return torch.from_numpy(mask)
    for column, missing in _missing(table):
        rows = mask & missing
        if not rows.any():
            continue
        # Chosen whatever the value is, or because it is missing (isna): the predicate means it. Chosen by accident is
        # what some values would choose and others not.
        tried = [
            _asked(name, len(dataset), _filled(table, column, missing, value), predicate)
            for value in _values(table, column)
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
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        if isinstance(predicate, Where):
            raise
        raise ValueError(
            f"expected predicate to return one bool a row of {name}_metadata, but it failed: {error}; comparisons that "
            "are joined by & or | each need parentheses"
        ) from error
    index, own = _index(answer), _index(table)
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


def _index(table: Any) -> Any:
    """Return the index of a pandas table or column; None of anything else (a list has a method of that name)."""
    index = getattr(table, "index", None)
    return index if hasattr(index, "equals") else None


def _in_order(name: str, dataset: Any, table: Any) -> Any:
    """Return the table with its rows in the order of the samples.

    Raises:
        ValueError: When rows cannot be matched by file, or the index says that they were shuffled.
    """
    index = _index(table)
    if index is None:
        return table
    base, chosen = resolve(dataset)
    if isinstance(base, (PictureFiles, MaskPairs, VolumeFiles)) and "file" in table.columns:
        every = base.images if isinstance(base, MaskPairs) else base.paths
        files = list(every) if chosen is None else [every[place] for place in chosen.tolist()]
        return _by_file(name, files, table)
    places = index.to_numpy()
    ordinal = places.dtype.kind in "iu" and len(set(places.tolist())) == len(places)
    if ordinal and (np.diff(places) < 0).any() and (chosen is None or places.tolist() != chosen.tolist()):
        raise ValueError(
            f"expected the rows of {name}_metadata in the order of the samples, but got an index in disorder, "
            f"{places[:4].tolist()}...; sort the table, or give it reset_index(drop=True) if its rows are in order"
        )
    return table


def _by_file(name: str, files: list[Path], table: Any) -> Any:
    """Return the rows of ``files``, which the table names by their path or its last parts."""
    rows = [Path(str(file).replace("\\", "/")).as_posix() for file in table["file"]]
    if len(rows) != len(files) or len(set(rows)) != len(rows):
        raise ValueError(
            f"expected {name}_metadata to have one row for each of {len(files)} files, but got {len(rows)} rows of "
            f"{len(set(rows))} files"
        )
    if all(_names(row, file) for row, file in zip(rows, files, strict=True)):
        return table
    place = {row: at for at, row in enumerate(rows)}
    # From the whole path to the name alone: the longest part of it that the table knows.
    found = [
        next((place[key] for key in ("/".join(file.parts[at:]) for at in range(len(file.parts))) if key in place), None)
        for file in files
    ]
    lacking = [file.name for file, at in zip(files, found, strict=True) if at is None]
    if lacking or len(set(found)) != len(found):
        raise ValueError(f"expected a row of {name}_metadata for every file, but got none for {list_names(lacking)}")
    return table.iloc[found]


def _names(row: str, file: Path) -> bool:
    return ("/" + file.as_posix()).endswith("/" + row.lstrip("/"))


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
