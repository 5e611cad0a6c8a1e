"""A user's own images in class folders or by a table, with metadata to forget by device, site, year, ...

Where a table has its own names of columns, they are said; where there is no split, one is made, whole groups at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import DataNotFoundError, check_choice, check_count, check_number
from . import finding_tables
from .bundle import DataBundle
from .classification import limit_train
from .files import check_root
from .folder_splits import (
    HOW,
    FolderColumns,
    FolderPart,
    bundle_of,
    known_columns,
    mark_group,
    read_folder_table,
    split_folder,
    with_notes,
)
from .mask_pairs import MaskPairs, check_size
from .pictures import PictureFiles

if TYPE_CHECKING:
    import pandas as pd


def load(
    root: str | Path | None = None,
    *,
    metadata: str | Path | None = None,
    size: Sequence[int] | None = None,
    channels: int = 3,
    file_column: str = "file",
    label_column: str = "label",
    mask_column: str | None = None,
    label_separator: str | None = None,
    finding_columns: Sequence[str] | None = None,
    blank: finding_tables.Blank = "unknown",
    split_column: str = "split",
    held_out: float | None = None,
    group: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    train_size: int | None = None,
    seed: int = 0,
) -> DataBundle:
    """Load images from ``root``: ``(channels, H, W)``, decoded when read.

    Two layouts:

    - class folders ``root/train/CLASS/...`` and ``root/test/CLASS/...``, and ``root/val/CLASS/...`` where there are
      validation data, in the sorted order of their paths. A table, where there is one, has a row for each image and
      no other, in any order.
    - a table with a row for each image, in the order of its rows: its file, its class or its mask, and its split
      (``train``, ``val`` or ``valid``, ``test``); images it does not list are not used.

    Without a split, ``held_out`` makes one: of the table's rows, or of class folders ``root/CLASS/...``.

    Classes are the sorted folder names or labels. The bundle's metadata tables hold the table's columns; ids such as
    ``07``, ``1.10`` and ``1E5`` are text (see :func:`.tables.read_table`).

    Args:
        root: the folder.
        metadata: a CSV (paths relative to ``root``), itself relative to ``root``; ``metadata.csv`` is used when None
            and present.
        size: ``(H, W)`` to resize to; None requires images of one size.
        channels: 1 for grey, 3 for RGB.
        file_column, label_column, split_column: what the table calls them. The bundle's tables have the files under
            ``file`` too.
        mask_column: the column with the files of binary masks: targets are masks then, and ``label_column`` is not
            needed.
        label_separator: what stands between several findings in one label, such as ``"|"``: targets are rows of 0 and
            1 then, one a finding, in the sorted order of their names. "No Finding" is none of them.
        finding_columns: columns of 1 (present), 0 (absent) and -1 (unknown), one a finding, in place of labels: targets
            are rows of them. The bundle's tables say in words what is present, in a column ``findings``.
        blank: what an empty cell of such a column says: "unknown", so that nothing is learned from it, or "absent".
        held_out: the share of the images to judge by, in (0, 1), where there is no split.
        group: the column whose samples belong together, such as the patient: its groups are held out whole, and a
            request that divides them says so, as do the bundle's ``notes`` of a split. Without it, a column
            ``patient``, ``subject_id``, ... is looked for.
        encoding, separator: of the table, such as ``"cp1252"`` and ``";"``; found out when None, and told in the
            bundle's ``notes``, by a warning where it may be wrong (see :func:`.csv_files.read_rows`).
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw, and of what is held out.

    Raises:
        DataNotFoundError: When there is no such folder or layout.
        ValueError: Naming images without a row, rows without an image, held-out classes without a training image, a
            link that leads into a folder again, and what is wrong with the table.
    """
    folder = check_root(root)
    if folder is None:
        raise ValueError("expected root to be the folder of the images, but got None")
    if not folder.is_dir():
        raise DataNotFoundError(f"expected root to be a folder, but got {str(folder)!r}, which is none: {HOW}")
    if check_count("channels", channels) not in (1, 3):
        raise ValueError(f"expected channels to be 1 or 3, but got {channels!r}")
    if held_out is not None:
        check_number("held_out", held_out, low=0, high=1, open_low=True, open_high=True)
    shape = check_size(size)
    columns = FolderColumns(file_column, label_column, mask_column, split_column)
    if label_separator is not None or finding_columns is not None:
        columns = _of_findings(columns, label_separator, finding_columns)
    check_choice("blank", blank, ("unknown", "absent"))
    table, notes = read_folder_table(folder, metadata, columns, encoding, separator)
    table = _with_findings(table, columns, blank) if columns.findings else table
    mark_group(table, group)
    parts = split_folder(folder, table, columns, held_out, group, seed)
    make = _classes if mask_column is None else _masks
    if columns.between is not None:
        make = partial(_findings, columns=columns, blank=blank)
    bundle = with_notes(make(folder, parts, shape, channels), notes)
    return limit_train(bundle, train_size, seed)


def _classes(folder: Path, parts: dict[str, FolderPart], size: tuple[int, int] | None, channels: int) -> DataBundle:
    names = tuple(sorted(set(parts["train"].targets)))
    for split, part in parts.items():
        only = sorted(set(part.targets) - set(names))
        if only:
            raise ValueError(
                f"expected every class of the {split} images to have a training image, but got none for {only}"
            )
    number = {name: index for index, name in enumerate(names)}

    def images(part: FolderPart) -> PictureFiles:
        labels = torch.tensor([number[label] for label in part.targets], dtype=torch.int64)
        files = [folder / file for file in part.files]
        return PictureFiles(files, labels, size=size, channels=channels, metadata=part.table)

    data = {split: images(part) for split, part in parts.items()}
    return bundle_of(parts, data, "classification", names)


def _of_findings(columns: FolderColumns, separator: str | None, names: Sequence[str] | None) -> FolderColumns:
    """Return the columns of a table whose images have several findings.

    Raises:
        ValueError: When it is said in two ways how they are held, or there are too few.
    """
    if columns.mask is not None or (separator is not None and names is not None):
        raise ValueError("expected one of mask_column, label_separator and finding_columns, but got two of them")
    if names is None:
        if not separator:
            raise ValueError(f"expected label_separator to be some text, but got {separator!r}")
        return replace(columns, between=separator)
    if isinstance(names, str) or len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"expected finding_columns to be two columns at least, each once, but got {names!r}")
    return replace(columns, label="findings", findings=tuple(names), between=finding_tables.BETWEEN)


def _with_findings(table: pd.DataFrame | None, columns: FolderColumns, blank: finding_tables.Blank) -> pd.DataFrame:
    """Return the table with a column that says in words what is present."""
    names = list(columns.findings)
    if table is None or not set(names) <= set(table.columns):
        raise ValueError(f"expected a table with the columns {names}, but got {known_columns(table)}")
    if columns.label in table.columns:
        raise ValueError(f"expected no column {columns.label!r} beside finding_columns, which are told there in words")
    return table.assign(**{columns.label: finding_tables.in_words(finding_tables.rows_in(table, names, blank), names)})


def _findings(
    folder: Path,
    parts: dict[str, FolderPart],
    size: tuple[int, int] | None,
    channels: int,
    *,
    columns: FolderColumns,
    blank: finding_tables.Blank,
) -> DataBundle:
    names: tuple[str, ...] = columns.findings
    if names:
        rows = {split: finding_tables.rows_in(part.table, names, blank) for split, part in parts.items()}
    else:
        texts = {split: part.targets for split, part in parts.items()}
        names, rows = finding_tables.rows_of(texts, columns.between or finding_tables.BETWEEN)
    data = {
        split: PictureFiles(
            [folder / file for file in part.files], rows[split], size=size, channels=channels, metadata=part.table
        )
        for split, part in parts.items()
    }
    return bundle_of(parts, data, "multilabel", names)


def _masks(folder: Path, parts: dict[str, FolderPart], size: tuple[int, int] | None, channels: int) -> DataBundle:
    data = {
        split: MaskPairs(
            [folder / file for file in part.files],
            [folder / file for file in part.targets],
            size=size,
            channels=channels,
            metadata=part.table,
        )
        for split, part in parts.items()
    }
    return bundle_of(parts, data, "segmentation", ("background", "foreground"))
