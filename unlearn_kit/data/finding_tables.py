"""Findings as tables hold them: several in one cell (NIH ChestX-ray14), or a column of 0 and 1 each (CheXpert)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..outputs import IGNORE
from .findings import strata
from .mask_pairs import list_names

if TYPE_CHECKING:
    import pandas as pd

Blank = Literal["unknown", "absent"]

# What both sets call an image without any.
NO_FINDING = "No Finding"
BETWEEN = "|"
NUMBERS = {1: 1, 0: 0, -1: IGNORE}


def named(cells: Sequence[str], separator: str) -> list[list[str]]:
    """Return the findings in each cell.

    Raises:
        ValueError: Where a cell has none beside a separator, or findings beside "No Finding".
    """
    found = []
    for cell in cells:
        names = [name.strip() for name in cell.split(separator)]
        if "" in names:
            raise ValueError(f"expected findings joined by {separator!r}, but got {cell!r}")
        if NO_FINDING in names and len(set(names)) > 1:
            raise ValueError(f"expected {NO_FINDING!r} to stand alone, but got {cell!r}")
        found.append([name for name in names if name != NO_FINDING])
    return found


def rows_of(parts: Mapping[str, Sequence[str]], separator: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the sorted names of all findings, and the targets ``(N, K)`` int64 of each split.

    Args:
        parts: The cells of each split.
        separator: What stands between two findings.

    Raises:
        ValueError: When there are fewer than two findings, or one that no training image has.
    """
    cells = {split: named(own, separator) for split, own in parts.items()}
    names = tuple(sorted({name for cell in cells["train"] for name in cell}))
    for split, own in cells.items():
        only = sorted({name for cell in own for name in cell} - set(names))
        if only:
            raise ValueError(
                f"expected every finding of the {split} images to have a training image, but got none for "
                f"{list_names(only)}"
            )
    if len(names) < 2:
        raise ValueError(f"expected two findings at least, joined by {separator!r}, but got {list(names)}")
    return names, {split: _multi_hot(own, names) for split, own in cells.items()}


def _multi_hot(cells: Sequence[Sequence[str]], names: Sequence[str]) -> Tensor:
    place = {name: k for k, name in enumerate(names)}
    rows = torch.zeros(len(cells), len(names), dtype=torch.int64)
    for row, cell in zip(rows, cells, strict=True):
        row[[place[name] for name in cell]] = 1
    return rows


def rows_in(table: pd.DataFrame | None, columns: Sequence[str], blank: Blank) -> Tensor:
    """Return the targets ``(N, K)`` int64 in columns of 1, 0, -1 (unknown) and empty cells, which are ``blank``.

    Raises:
        ValueError: Naming a column that holds anything else.
    """
    if table is None:
        raise ValueError(f"expected a table with the columns {list(columns)}, but there is none")
    rows = torch.zeros(len(table), len(columns), dtype=torch.int64)
    empty = IGNORE if blank == "unknown" else 0
    for k, name in enumerate(columns):
        for i, value in enumerate(table[name].tolist()):
            if value != value or value == "":  # NaN alone differs from itself
                rows[i, k] = empty
            elif isinstance(value, str) or value not in NUMBERS:
                raise ValueError(
                    f"expected the column {name!r} to hold 1 (present), 0 (absent), -1 (unknown) or nothing, "
                    f"but got {value!r}"
                )
            else:
                rows[i, k] = NUMBERS[value]
    return rows


def in_words(rows: Tensor, names: Sequence[str]) -> list[str]:
    """Return what is present in each row, joined by ``BETWEEN``."""
    return [BETWEEN.join(n for n, v in zip(names, row, strict=True) if v == 1) or NO_FINDING for row in rows.tolist()]


def rarest(cells: Sequence[str], separator: str) -> list[str]:
    """Return for each cell the rarest finding in it: what a share that is held out is drawn by."""
    found = named(cells, separator)
    names = sorted({name for cell in found for name in cell})
    if not names:
        return list(cells)
    places = strata(_multi_hot(found, names)).tolist()
    return [[*names, NO_FINDING][place] for place in places]
