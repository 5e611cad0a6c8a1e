"""A user's own images in class folders or by a table, with metadata to forget by device, site, year, ...

Where a table has its own names of columns, they are said; where there is no split, one is made, whole groups at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataNotFoundError, check_choice, check_count, check_number, check_path_exists
from ..seeding import derive, isolated
from .bundle import DataBundle
from .classification import limit_train
from .files import check_root
from .groups import GROUP, shared
from .mask_pairs import MaskPairs, check_size, hold_out, list_names
from .pictures import PictureFiles, is_picture
from .tables import read_table

if TYPE_CHECKING:
    import pandas as pd

# What a folder or a row calls a split.
NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
NEEDED = ("train", "test")
HOW = (
    "expected train/CLASS/IMAGE and test/CLASS/IMAGE below root, or a table root/metadata.csv with the "
    "columns file, label and split ('train' or 'test'); without a split say held_out=0.25"
)


@dataclass
class _Part:
    """The samples of a split: their files, what each is (a class, or the file of its mask), and their rows."""

    files: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class _Columns:
    """The names that a table gives to what the loader reads of it."""

    file: str
    label: str
    mask: str | None
    split: str

    @property
    def target(self) -> str:
        return self.label if self.mask is None else self.mask


def load(
    root: str | Path | None = None,
    *,
    metadata: str | Path | None = None,
    size: Sequence[int] | None = None,
    channels: int = 3,
    file_column: str = "file",
    label_column: str = "label",
    mask_column: str | None = None,
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
    columns = _Columns(file_column, label_column, mask_column, split_column)
    table, notes = _read_table(folder, metadata, columns, encoding, separator)
    if group is not None:
        if table is None:
            raise ValueError(f"expected a table with the column {group!r} for group, but there is no table")
        table.attrs[GROUP] = check_choice("group", group, [str(name) for name in table.columns])
    parts = _parts(folder, table, columns, held_out, group, seed)
    make = _classes if mask_column is None else _masks
    bundle = make(folder, parts, shape, channels)
    held = {"train": bundle.train, "validation": bundle.validation, "test": bundle.test}
    twice = shared({name: data for name, data in held.items() if data is not None})
    bundle = replace(bundle, notes=(*notes, twice) if twice else notes)
    return limit_train(bundle, train_size, seed)


def _parts(
    folder: Path, table: pd.DataFrame | None, columns: _Columns, held_out: float | None, group: str | None, seed: int
) -> dict[str, _Part]:
    """Return the samples by split: train, test and, where there are any, validation."""
    below = _split_folders(folder)
    in_folders = columns.mask is None and set(NEEDED) <= below.keys()
    in_table = table if table is not None and {columns.target, columns.split} <= set(table.columns) else None
    if held_out is not None:
        if in_folders or in_table is not None:
            raise ValueError(f"expected no held_out where {folder} has a split of its own, but got {held_out}")
        if table is not None and columns.target in table.columns:
            every = _checked(folder, table, columns)
        elif columns.mask is None:
            every = _class_folders(folder, "")
            every.table = None if table is None else _join(table, {"": every})[0]
        else:
            raise ValueError(f"expected a table with the column {columns.mask!r}, but got {_known(table)}")
        return _drawn(every, held_out, group, seed)
    if in_folders:
        parts = {split: _class_folders(folder, name) for split, name in sorted(below.items())}
        if table is not None:
            for part, own in zip(parts.values(), _join(table, parts), strict=True):
                part.table = own
        return parts
    if in_table is not None:
        return _split_rows(folder, in_table, columns)
    more = "" if table is None else f"; the table has the columns {_known(table)}"
    raise DataNotFoundError(f"no data in the layout of 'image-folder' below {folder}: {HOW}{more}")


def _classes(folder: Path, parts: dict[str, _Part], size: tuple[int, int] | None, channels: int) -> DataBundle:
    names = tuple(sorted(set(parts["train"].targets)))
    for split, part in parts.items():
        only = sorted(set(part.targets) - set(names))
        if only:
            raise ValueError(
                f"expected every class of the {split} images to have a training image, but got none for {only}"
            )
    number = {name: index for index, name in enumerate(names)}

    def images(part: _Part) -> PictureFiles:
        labels = torch.tensor([number[label] for label in part.targets], dtype=torch.int64)
        files = [folder / file for file in part.files]
        return PictureFiles(files, labels, size=size, channels=channels, metadata=part.table)

    data = {split: images(part) for split, part in parts.items()}
    return _bundle(parts, data, "classification", names)


def _masks(folder: Path, parts: dict[str, _Part], size: tuple[int, int] | None, channels: int) -> DataBundle:
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
    return _bundle(parts, data, "segmentation", ("background", "foreground"))


def _bundle(parts: dict[str, _Part], data: dict[str, Any], task: Any, names: tuple[str, ...]) -> DataBundle:
    validation = parts.get("validation")
    return DataBundle(
        "image-folder",
        data["train"],
        data["test"],
        len(names),
        task,
        names,
        parts["train"].table,
        parts["test"].table,
        data.get("validation"),
        None if validation is None else validation.table,
    )


def _split_folders(folder: Path) -> dict[str, str]:
    """Return the folders of the splits that hold folders of classes, by split."""
    found: dict[str, str] = {}
    for name, split in NAMES.items():
        below = folder / name
        if below.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in below.iterdir()):
            if split in found:
                raise ValueError(
                    f"expected one folder of {split} images in {folder}, but got {found[split]} and {name}"
                )
            found[split] = name
    return found


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


def _class_folders(folder: Path, name: str) -> _Part:
    """Return the images of a split's folder, of which the folders are classes, sorted by path."""
    root, depth = (folder / name, 3) if name else (folder, 2)
    files = sorted(path.relative_to(folder).as_posix() for path in _files_below(root) if is_picture(path))
    parts = [PurePosixPath(file).parts for file in files]
    stray = [file for file, own in zip(files, parts, strict=True) if len(own) < depth]
    if stray:
        raise ValueError(f"expected every image in {root} to be in a class folder, but got {list_names(stray)}")
    if not files:
        raise DataNotFoundError(f"no images in {root}: {HOW}")
    return _Part(files, [own[depth - 2] for own in parts])


def _read_table(
    folder: Path, metadata: str | Path | None, columns: _Columns, encoding: str | None, separator: str | None
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """Return the table, or None when there is none, and what was found out about its file."""
    if metadata is None and not (folder / "metadata.csv").exists():
        return None, ()
    path = check_path_exists("metadata", folder / (metadata or "metadata.csv"))
    text = [columns.label, columns.split, *([] if columns.mask is None else [columns.mask])]
    return read_table(path, text=text, files=columns.file, encoding=encoding, separator=separator)


def _join(table: pd.DataFrame, parts: dict[str, _Part]) -> list[pd.DataFrame]:
    """Return the rows of the files of each part, in their order."""
    by_file = table.set_index("file", drop=False)
    every = [file for part in parts.values() for file in part.files]
    lacking = [file for file in every if file not in by_file.index]
    if lacking:
        raise ValueError(f"expected a row of metadata for every image, but got none for {list_names(lacking)}")
    unused = sorted(set(by_file.index) - set(every))
    if unused:
        raise ValueError(f"expected an image for every row of metadata, but got none for {list_names(unused)}")
    return [by_file.loc[part.files].reset_index(drop=True) for part in parts.values()]


def _split_rows(folder: Path, table: pd.DataFrame, columns: _Columns) -> dict[str, _Part]:
    """Return the rows of each split, in their order."""
    unknown = sorted(set(table[columns.split]) - NAMES.keys())
    if unknown:
        raise ValueError(
            f"expected the column {columns.split} to hold 'train', 'test', 'val' or 'valid', but got {unknown}"
        )
    every = _checked(folder, table, columns)
    splits = np.array([NAMES[name] for name in table[columns.split]])
    if "train" not in splits:
        raise ValueError(f"expected at least one row with {columns.split} 'train', but got none")
    wanted = [*NEEDED, *(["validation"] if "validation" in splits else [])]
    return {split: _taken(every, np.flatnonzero(splits == split).tolist()) for split in wanted}


def _checked(folder: Path, table: pd.DataFrame, columns: _Columns) -> _Part:
    """Return every row, when each has a target and its files are there."""
    what = "label" if columns.mask is None else "mask"
    lacking = list(table.loc[table[columns.target] == "", "file"])
    if lacking:
        raise ValueError(f"expected a {what} for every image, but got none for {list_names(lacking)}")
    unused = [file for file in table["file"] if not (folder / file).is_file()]
    if unused:
        raise ValueError(f"expected an image for every row of metadata, but got none for {list_names(unused)}")
    return _Part(list(table["file"]), list(table[columns.target]), table)


def _taken(part: _Part, rows: Sequence[int]) -> _Part:
    table = None if part.table is None else part.table.iloc[list(rows)].reset_index(drop=True)
    return _Part([part.files[row] for row in rows], [part.targets[row] for row in rows], table)


def _drawn(every: _Part, share: float, group: str | None, seed: int) -> dict[str, _Part]:
    """Return a split at random: of each class by itself, or of whole groups."""
    if group is None:
        kept, held = _by_class(every.targets, share, seed)
    else:
        kept, held = _by_group(every.table, group, share, seed)
    return {"train": _taken(every, kept), "test": _taken(every, held)}


def _by_class(targets: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    labels = np.array(targets)
    # Every mask has a file of its own: there are no classes to draw from.
    strata = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    if all(len(rows) == 1 for rows in strata):
        strata = [np.arange(len(labels))]
    kept: list[int] = []
    held: list[int] = []
    for rows in strata:
        inside, outside = hold_out(len(rows), share, seed) if len(rows) > 1 else ([0], [])
        kept += rows[inside].tolist()
        held += rows[outside].tolist()
    return sorted(kept), sorted(held)


def _by_group(table: Any, group: str, share: float, seed: int) -> tuple[list[int], list[int]]:
    names = table[group]
    missing = names.isna() | (names == "")
    if missing.any():
        lost = list(table.loc[missing, "file"])
        raise ValueError(f"expected a {group} for every image, of group, but got none for {list_names(lost)}")
    groups = names.astype(str).to_numpy()
    count = len(set(groups))
    if count < 2:
        raise ValueError(f"expected {group!r} to have two groups at least, to hold one out, but got {count}")
    with isolated(0):  # importing scikit-learn draws from the caller's random state
        from sklearn.model_selection import GroupShuffleSplit

    wanted = min(max(round(share * count), 1), count - 1)
    splitter = GroupShuffleSplit(1, test_size=wanted, random_state=derive(seed, "hold out groups") % 2**32)
    kept, held = next(splitter.split(groups, groups=groups))
    return sorted(kept.tolist()), sorted(held.tolist())


def _known(table: pd.DataFrame | None) -> str:
    return "no table" if table is None else str([str(name) for name in table.columns])
