"""Tables of a user's own: read as they are written, ids as text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ..errors import DataWarning, nearest
from .csv_files import read_rows
from .mask_pairs import list_names

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
# Numbers as a program writes them. "07", "1.10", "1E5" and what no float holds are names, and two spellings of one
# number tell two things apart.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,9})\.([0-9]{0,4}[1-9]|0)")
FLAGS = {"True": True, "False": False}


def read_table(
    path: Path,
    text: Sequence[str],
    files: str = "file",
    *,
    encoding: str | None = None,
    separator: str | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table of a CSV file with a column of files, whose paths are normalised, under ``file``.

    A guess about the file that may be wrong warns (``errors.DataWarning``).

    Args:
        path: The file.
        text: Columns that are text and have no missing value: "NA" is a name there.
        files: What the column of files is called; the table gets them under ``file`` too.
        encoding, separator: As for :func:`.csv_files.read_rows`; None to find out.

    Returns:
        One row a line. A column all of whose cells are numbers as a program writes them holds numbers, one of ``True``
        and ``False`` alone holds bools, and any other text; an empty cell is a missing value. And what was found out
        about the file, in words.

    Raises:
        ValueError: Naming the file, where it is no such table: columns of one name, rows of another length than the
            header, a file that is named twice or lies outside the folder.
    """
    import pandas as pd

    header, rows, notes, guess = read_rows(path, files, encoding, separator)
    if files not in header:
        hint = nearest(files, header).replace("did you mean ", "did you mean file_column=")
        raise ValueError(f"expected {path} to have a column {files!r}, but got {header}{hint}")
    if files != "file" and "file" in header:
        raise ValueError(f"expected {path} to have no column 'file' beside {files!r}, which holds the files")
    if guess:
        warnings.warn(guess, DataWarning, stacklevel=2)
    columns: dict[str, Any] = {}
    for name, cells in zip(header, zip(*rows, strict=True) if rows else ((),) * len(header), strict=True):
        plain = [cell.strip() for cell in cells]
        columns[name] = pd.Series(plain, dtype=object) if name in (*text, files) else _typed(plain)
    columns["file"] = pd.Series([_inside(path, file) for file in columns[files]], dtype=object)
    table = pd.DataFrame(columns)
    twice = sorted(table.loc[table["file"].duplicated(), "file"].unique())
    if twice:
        raise ValueError(f"expected {path} to have one row an image, but got several for {list_names(twice)}")
    return table, notes


def _typed(cells: Sequence[str]) -> pd.Series:
    """Return a column of numbers or bools where the text of each cell is how these are written, else of text."""
    import pandas as pd

    known = {cell for cell in cells if cell not in MISSING}
    values: dict[str, Any] = {cell: cell for cell in known}
    dtype: Any = object
    if known and known <= FLAGS.keys() and not set(cells) & set(MISSING):
        values, dtype = FLAGS, bool
    elif known and all(INTEGER.fullmatch(cell) or DECIMAL.fullmatch(cell) for cell in known):
        numbers = {cell: float(cell) if "." in cell else int(cell) for cell in known}
        if len(set(numbers.values())) == len(known):
            values, dtype = numbers, None
    return pd.Series([values.get(cell, float("nan")) for cell in cells], dtype=dtype)


def _inside(path: Path, file: str) -> str:
    """Return the path of an image relative to the folder, which it may not leave."""
    if not file:
        raise ValueError(f"expected every row of {path} to name a file, but got an empty one")
    own = PurePosixPath(file.replace("\\", "/"))
    if own.is_absolute() or ".." in own.parts or PureWindowsPath(file).drive:
        raise ValueError(f"expected the files of {path} to be paths inside the folder of the images, but got {file!r}")
    return own.as_posix()
