"""A user's own images in class folders or by a table, with metadata to forget by device, site, year, ..."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from ..errors import DataNotFoundError, check_count, check_path_exists
from .bundle import DataBundle
from .classification import limit_train
from .files import check_root
from .mask_pairs import check_size, list_names
from .pictures import PictureFiles, is_picture
from .tables import read_table

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "test")
HOW = (
    "expected train/CLASS/IMAGE and test/CLASS/IMAGE below root, or a table root/metadata.csv with the "
    "columns file, label and split ('train' or 'test')"
)


def load(
    root: str | Path | None = None,
    *,
    metadata: str | Path | None = None,
    size: Sequence[int] | None = None,
    channels: int = 3,
    train_size: int | None = None,
    seed: int = 0,
) -> DataBundle:
    """Load images from ``root``: ``(channels, H, W)``, decoded when read.

    Two layouts:

    - class folders ``root/train/CLASS/...`` and ``root/test/CLASS/...``, in the sorted order of their paths.
      A table, where there is one, has a row for each image and no other, in any order.
    - a table with the columns ``file``, ``label`` and ``split``, in the order of its rows; images it does not
      list are not used.

    Classes are the sorted folder names or labels. The bundle's metadata tables hold the table's columns; ids such as
    ``07``, ``1.10`` and ``1E5`` are text (see :func:`.tables.read_table`).

    Args:
        root: the folder.
        metadata: a CSV with a column ``file`` (paths relative to ``root``), itself relative to ``root``;
            ``metadata.csv`` is used when None and present.
        size: ``(H, W)`` to resize to; None requires images of one size.
        channels: 1 for grey, 3 for RGB.
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw.

    Raises:
        DataNotFoundError: When there is no such folder or layout.
        ValueError: Naming images without a row, rows without an image, test classes without a training image, a link
            that leads into a folder again, and what is wrong with the table.
    """
    folder = check_root(root)
    if folder is None:
        raise ValueError("expected root to be the folder of the images, but got None")
    if not folder.is_dir():
        raise DataNotFoundError(f"expected root to be a folder, but got {str(folder)!r}, which is none: {HOW}")
    if check_count("channels", channels) not in (1, 3):
        raise ValueError(f"expected channels to be 1 or 3, but got {channels!r}")

    table = _read_table(folder, metadata)
    tables: list[pd.DataFrame | None]
    if all(_has_folders(folder / split) for split in SPLITS):
        found = [_class_folders(folder, split) for split in SPLITS]
        files, labels = [own for own, _ in found], [own for _, own in found]
        tables = [None, None] if table is None else [*_join(table, files)]
    elif table is not None and {"label", "split"} <= set(table.columns):
        rows = _split_rows(folder, table)
        files, labels = [list(part["file"]) for part in rows], [list(part["label"]) for part in rows]
        tables = [*rows]
    else:
        raise DataNotFoundError(f"no data in the layout of 'image-folder' below {folder}: {HOW}")

    only_test = sorted(set(labels[1]) - set(labels[0]))
    if only_test:
        raise ValueError(
            f"expected every class of the test images to have a training image, but got none for {only_test}"
        )
    names = tuple(sorted(set(labels[0])))
    number = {name: index for index, name in enumerate(names)}
    train, test = (
        PictureFiles(
            [folder / file for file in own],
            torch.tensor([number[label] for label in own_labels], dtype=torch.int64),
            size=check_size(size),
            channels=channels,
        )
        for own, own_labels in zip(files, labels, strict=True)
    )
    bundle = DataBundle("image-folder", train, test, len(names), "classification", names, tables[0], tables[1])
    return limit_train(bundle, train_size, seed)


def _has_folders(split: Path) -> bool:
    return split.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in split.iterdir())


def _files_below(root: Path) -> Iterator[Path]:
    """Yield every file below ``root``, through folders that are links (which ``Path.rglob`` does not follow).

    Raises:
        ValueError: When a link leads to a folder that was gone through already: its images would count twice.
    """
    seen: dict[str, str] = {}
    for below, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(below)
        if place in seen:
            raise ValueError(f"expected every folder once, but got {seen[place]!r} again by the link {below!r}")
        seen[place] = below
        folders.sort()
        yield from (Path(below, name) for name in names)


def _class_folders(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return files of a split, relative to ``folder`` and sorted, and the names of their classes."""
    files = sorted(path.relative_to(folder).as_posix() for path in _files_below(folder / split) if is_picture(path))
    parts = [PurePosixPath(file).parts for file in files]
    stray = [file for file, own in zip(files, parts, strict=True) if len(own) < 3]
    if stray:
        raise ValueError(
            f"expected every image in {folder / split} to be in a class folder, but got {list_names(stray)}"
        )
    if not files:
        raise DataNotFoundError(f"no images in {folder / split}: {HOW}")
    return files, [own[1] for own in parts]


def _read_table(folder: Path, metadata: str | Path | None) -> pd.DataFrame | None:
    """Return the table, or None when there is none."""
    if metadata is None and not (folder / "metadata.csv").exists():
        return None
    path = check_path_exists("metadata", folder / (metadata or "metadata.csv"))
    return read_table(path, text=("file", "label", "split"))


def _join(table: pd.DataFrame, files: Sequence[Sequence[str]]) -> list[pd.DataFrame]:
    """Return the rows of the files of each split, in their order."""
    by_file = table.set_index("file", drop=False)
    every = [file for own in files for file in own]
    lacking = [file for file in every if file not in by_file.index]
    if lacking:
        raise ValueError(f"expected a row of metadata for every image, but got none for {list_names(lacking)}")
    unused = sorted(set(by_file.index) - set(every))
    if unused:
        raise ValueError(f"expected an image for every row of metadata, but got none for {list_names(unused)}")
    return [by_file.loc[list(own)].reset_index(drop=True) for own in files]


def _split_rows(folder: Path, table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each split, in their order."""
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise ValueError(f"expected the column split to hold 'train' or 'test', but got {unknown}")
    unlabelled = list(table.loc[table["label"] == "", "file"])
    if unlabelled:
        raise ValueError(f"expected a label for every image, but got none for {list_names(unlabelled)}")
    unused = [file for file in table["file"] if not (folder / file).is_file()]
    if unused:
        raise ValueError(f"expected an image for every row of metadata, but got none for {list_names(unused)}")
    parts = [table[table["split"] == split].reset_index(drop=True) for split in SPLITS]
    if not len(parts[0]):
        raise ValueError("expected at least one row with split 'train', but got none")
    return parts
