"""Tables beside data: whatever form they have, with a row for each sample, in the order of the samples."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import check_choice
from .columns import Columns
from .groups import table_of
from .mask_pairs import list_names
from .pictures import SUFFIXES
from .sample_files import files_of
from .tensors import resolve

OTHER = "is it the table of another split?"


def aligned(name: str, dataset: Any, table: Any, key: str | None = None) -> Any:
    """Return a table with its rows in the order of the samples.

    Args:
        name: Of the data set, for errors; its table is ``{name}_metadata``.
        dataset: Its samples are what the rows describe.
        table: pandas, a dict of columns, a list of dicts, polars, Arrow or a structured array; None for the one that
            the data set keeps. Where the data set knows its files and the table has a column with their names, rows are
            matched by file; otherwise they count by their place.
        key: The column that names the samples, for rows in any order, also of other samples. The data set must know the
            names: by its files (with or without their ending), or by a table ``.metadata`` with the same column.

    Returns:
        pandas, or a dict of columns where that was given.

    Raises:
        TypeError: When there is no table.
        ValueError: When rows and samples do not fit together, or the index says that the rows were shuffled.
    """
    own = table_of(dataset)
    if table is None:
        if own is None:
            raise TypeError(f"expected {name}_metadata to be a table with one row a sample, but got None")
        return own
    table = _as_table(name, table)
    columns = Columns(table)
    if key is not None:
        check_choice("key", key, columns.names)
        wanted = _names(name, dataset, own, key)
        return _taken(table, _matched(name, columns.text(key)[0].tolist(), wanted, exact=False))
    files = files_of(dataset)
    found = None if files is None else _naming(name, columns, [list(own) for own in zip(*files, strict=True)])
    _check_rows(name, len(dataset), table, columns, None if found is None else found[0])
    if found is not None:
        return _taken(table, _matched(name, columns.text(found[0])[0].tolist(), _parts(found[1])))
    _check_index(name, dataset, table)
    return table


def _check_rows(name: str, count: int, table: Any, columns: Columns, naming: str | None) -> None:
    """Refuse a table, or a column of a dict, that has not a row for each sample."""
    wanted = f"expected {name}_metadata to have one row for each of {count} samples, but got"
    if not columns.names:
        raise ValueError(f"{wanted} no columns")
    rows = {column: len(values) for column, values in table.items()} if isinstance(table, Mapping) else {}
    first = next(iter(rows.values()), None) if rows else len(table)
    if first != count:
        hint = "" if naming is None else f" key={naming!r} takes the rows of these files alone"
        raise ValueError(f"{wanted} {first} rows; {OTHER}{hint}")
    for column, length in rows.items():
        if length != count:
            raise ValueError(f"{wanted} {length} in the column {column!r}")


def index_of(table: Any) -> Any:
    """Return the index of a pandas table or column; None of anything else (a list has a method of that name)."""
    index = getattr(table, "index", None)
    return index if hasattr(index, "equals") else None


def _as_table(name: str, table: Any) -> Any:
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping):
        return {column: _as_column(name, column, values) for column, values in table.items()}
    if isinstance(table, np.ndarray) and table.dtype.names:
        return {column: table[column] for column in table.dtype.names}
    if isinstance(table, (list, tuple)) and table and all(isinstance(row, Mapping) for row in table):
        return pd.DataFrame(list(table))
    for method, options in (("to_pydict", {}), ("to_dict", {"as_series": False})):  # Arrow; polars
        if hasattr(table, method) and hasattr(table, "columns"):
            return pd.DataFrame(getattr(table, method)(**options))
    hint = "; read it first, as by pandas.read_csv(path, dtype=str)" if isinstance(table, (str, Path)) else ""
    raise TypeError(
        f"expected {name}_metadata to be a table (pandas, a dict of columns or a list of dicts), but got "
        f"{type(table).__name__}{hint}"
    )


def _as_column(name: str, column: Any, values: Any) -> Any:
    """Return a column of a dict, of which a list becomes an array: a list compares as a whole."""
    if isinstance(values, (list, tuple)):
        kinds = {type(value) for value in values}
        values = np.asarray(values) if len(kinds) == 1 else np.array([*values, None], dtype=object)[:-1]
    if np.ndim(values) != 1:
        raise ValueError(
            f"expected every column of {name}_metadata to have one value a sample, but got {column!r} of shape "
            f"{np.shape(values)}"
        )
    return values


def _names(name: str, dataset: Any, own: Any, key: str) -> list[list[str]]:
    """Return what each sample may be called."""
    if own is not None and key in own.columns:
        return [[value] for value in Columns(own).text(key)[0].tolist()]
    files = files_of(dataset)
    if files is None:
        raise ValueError(
            f"expected {name} to know the names of its samples for key, as an image folder does, or to keep a table "
            f".metadata with the column {key!r}, but got {type(resolve(dataset)[0]).__name__}"
        )
    return [[*parts, PurePosixPath(parts[-1]).stem] for parts in _parts([own[0] for own in files])]


def _parts(files: Sequence[Path]) -> list[list[str]]:
    """Return of each file its whole path and the ends of it, down to the name alone."""
    return [["/".join(file.parts[at:]) for at in range(len(file.parts))] for file in files]


def _naming(name: str, columns: Columns, files: list[list[Path]]) -> tuple[str, list[Path]] | None:
    """Return the column that names the files, and which of them; None where no column looks like one.

    Raises:
        ValueError: When one does, but names other files.
    """
    if "file" in columns.names:
        return "file", files[0]
    looks = {column: columns.text(column)[0] for column in columns.names if columns.names.count(column) == 1}
    looks = {column: text for column, text in looks.items() if len(text) and _is_picture(text[0])}
    for own in files:
        known = {part for parts in _parts(own) for part in parts}
        for column, text in looks.items():
            if any(_plain(value) in known for value in text):
                return column, own
    if not looks:
        return None
    column, text = next(iter(looks.items()))
    raise ValueError(
        f"expected {name}_metadata to name the files of {name}, such as {files[0][0].name!r}, but got {text[0]!r} in "
        f"{column!r}; {OTHER} (drop the column if it names something else)"
    )


def _is_picture(text: str) -> bool:
    return text.lower().endswith(SUFFIXES)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(text.replace("\\", "/")).as_posix())


def _matched(name: str, rows: list[str], wanted: list[list[str]], exact: bool = True) -> list[int]:
    """Return the place of the row of each sample.

    Args:
        name: Of the data set.
        rows: What the table calls them.
        wanted: What each sample may be called, the longest first.
        exact: Whether every row must be of a sample.
    """
    place: dict[str, int] = {}
    counts = Counter(map(_plain, rows))
    for at, row in enumerate(map(_plain, rows)):
        place.setdefault(row, at)
    found = [next((key for key in map(_plain, keys) if key in place), None) for keys in wanted]
    lacking = [PurePosixPath(keys[0]).name for keys, key in zip(wanted, found, strict=True) if key is None]
    if lacking:
        raise ValueError(
            f"expected a row of {name}_metadata for every sample, but got none for {list_names(lacking)}; {OTHER}"
        )
    known = [key for key in found if key is not None]
    twice = [row for row, count in counts.items() if count > 1 and (exact or row in known)]
    if twice:
        raise ValueError(f"expected {name}_metadata to have one row a sample, but got several for {list_names(twice)}")
    shared = [key for key, count in Counter(known).items() if count > 1]
    if shared:
        raise ValueError(
            f"expected {name}_metadata to have a row for each sample, but got one for all of {shared[0]!r}"
        )
    return [place[key] for key in known]


def _taken(table: Any, rows: list[int]) -> Any:
    """Return the rows at these places, in that order."""
    if isinstance(table, Mapping):
        return {column: np.asarray(values)[rows] for column, values in table.items()}
    return table if rows == list(range(len(table))) else table.iloc[rows]


def _check_index(name: str, dataset: Any, table: Any) -> None:
    """Refuse a table whose index says that its rows are in another order than the samples, or of others."""
    index = index_of(table)
    places = np.empty(0) if index is None else index.to_numpy()
    if places.dtype.kind not in "iu" or len(set(places.tolist())) != len(places):
        return
    base, chosen = resolve(dataset)
    remedy = "sort the table, or give it reset_index(drop=True) if its rows are in order"
    if chosen is not None and places.tolist() == chosen.tolist():
        return
    if (np.diff(places) < 0).any():
        raise ValueError(
            f"expected the rows of {name}_metadata in the order of the samples, but got an index in disorder, "
            f"{places[:4].tolist()}...; {remedy}"
        )
    numbered = bool((places == np.arange(len(places))).all())
    if chosen is not None and not numbered and len(places) and places[-1] < len(base):
        raise ValueError(
            f"expected the rows of {name}_metadata to be those of its samples, at {chosen[:4].tolist()}... of the data "
            f"below, but got the index {places[:4].tolist()}...; {OTHER} If not, {remedy}"
        )
