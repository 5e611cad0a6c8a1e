"""A folder of samples in its splits: by folders of classes, or by a table; where there is none, one is made.

Images and volumes are found so alike; whoever loads them says how a file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataNotFoundError, check_choice, check_path_exists
from ..seeding import derive, isolated
from . import finding_tables
from .bundle import DataBundle
from .groups import GROUP, shared
from .mask_pairs import hold_out, list_names
from .pictures import is_picture
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
class FolderPart:
    """The samples of a split: their files, what each is (a class, or the file of its mask), and their rows."""

    files: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class FolderColumns:
    """The names that a table gives to what the loader reads of it."""

    file: str
    label: str
    mask: str | None
    split: str
    findings: tuple[str, ...] = ()
    between: str | None = None

    @property
    def folders(self) -> bool:
        """Whether names of folders may be the classes."""
        return self.mask is None and self.between is None

    @property
    def target(self) -> str:
        """The column that says what each sample is."""
        return self.label if self.mask is None else self.mask


def split_folder(
    folder: Path,
    table: pd.DataFrame | None,
    columns: FolderColumns,
    held_out: float | None,
    group: str | None,
    seed: int,
) -> dict[str, FolderPart]:
    """Return the samples by split: train, test and, where there are any, validation."""
    below = _split_folders(folder)
    in_folders = columns.folders and set(NEEDED) <= below.keys()
    in_table = table if table is not None and {columns.target, columns.split} <= set(table.columns) else None
    if held_out is not None:
        if in_folders or in_table is not None:
            raise ValueError(f"expected no held_out where {folder} has a split of its own, but got {held_out}")
        if table is not None and columns.target in table.columns:
            every = _checked(folder, table, columns)
        elif columns.folders:
            every = _class_folders(folder, "")
            every.table = None if table is None else _join(table, {"": every})[0]
        else:
            raise ValueError(f"expected a table with the column {columns.target!r}, but got {known_columns(table)}")
        return _drawn(every, held_out, group, seed, columns.between)
    if in_folders:
        parts = {split: _class_folders(folder, name) for split, name in sorted(below.items())}
        if table is not None:
            for part, own in zip(parts.values(), _join(table, parts), strict=True):
                part.table = own
        return parts
    if in_table is not None:
        return _split_rows(folder, in_table, columns)
    more = "" if table is None else f"; the table has the columns {known_columns(table)}"
    raise DataNotFoundError(f"no data in the layout of 'image-folder' below {folder}: {HOW}{more}")


def bundle_of(parts: dict[str, FolderPart], data: dict[str, Any], task: Any, names: tuple[str, ...]) -> DataBundle:
    """Return the data sets of the splits as a bundle, with their tables."""
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


def with_notes(bundle: DataBundle, notes: tuple[str, ...]) -> DataBundle:
    """Return a bundle with what was found out of its table, and which groups are in several of its splits."""
    held = {"train": bundle.train, "validation": bundle.validation, "test": bundle.test}
    twice = shared({name: data for name, data in held.items() if data is not None})
    return replace(bundle, notes=(*notes, twice) if twice else notes)


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


def _class_folders(folder: Path, name: str) -> FolderPart:
    """Return the images of a split's folder, of which the folders are classes, sorted by path."""
    root, depth = (folder / name, 3) if name else (folder, 2)
    files = sorted(path.relative_to(folder).as_posix() for path in _files_below(root) if is_picture(path))
    parts = [PurePosixPath(file).parts for file in files]
    stray = [file for file, own in zip(files, parts, strict=True) if len(own) < depth]
    if stray:
        raise ValueError(f"expected every image in {root} to be in a class folder, but got {list_names(stray)}")
    if not files:
        raise DataNotFoundError(f"no images in {root}: {HOW}")
    return FolderPart(files, [own[depth - 2] for own in parts])


def read_folder_table(
    folder: Path, metadata: str | Path | None, columns: FolderColumns, encoding: str | None, separator: str | None
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """Return the table, or None when there is none, and what was found out about its file."""
    if metadata is None and not (folder / "metadata.csv").exists():
        return None, ()
    path = check_path_exists("metadata", folder / (metadata or "metadata.csv"))
    text = [columns.label, columns.split, *([] if columns.mask is None else [columns.mask])]
    return read_table(path, text=text, files=columns.file, encoding=encoding, separator=separator)


def mark_group(table: pd.DataFrame | None, group: str | None) -> None:
    """Let a table remember which column says what belongs together.

    Raises:
        ValueError: When there is no table, or no such column.
    """
    if group is None:
        return
    if table is None:
        raise ValueError(f"expected a table with the column {group!r} for group, but there is no table")
    table.attrs[GROUP] = check_choice("group", group, [str(name) for name in table.columns])


def _join(table: pd.DataFrame, parts: dict[str, FolderPart]) -> list[pd.DataFrame]:
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


def _split_rows(folder: Path, table: pd.DataFrame, columns: FolderColumns) -> dict[str, FolderPart]:
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


def _checked(folder: Path, table: pd.DataFrame, columns: FolderColumns) -> FolderPart:
    """Return every row, when each has a target and its files are there."""
    what = "label" if columns.mask is None else "mask"
    lacking = list(table.loc[table[columns.target] == "", "file"])
    if lacking:
        raise ValueError(f"expected a {what} for every image, but got none for {list_names(lacking)}")
    unused = [file for file in table["file"] if not (folder / file).is_file()]
    if unused:
        raise ValueError(f"expected an image for every row of metadata, but got none for {list_names(unused)}")
    return FolderPart(list(table["file"]), list(table[columns.target]), table)


def _taken(part: FolderPart, rows: Sequence[int]) -> FolderPart:
    table = None if part.table is None else part.table.iloc[list(rows)].reset_index(drop=True)
    return FolderPart([part.files[row] for row in rows], [part.targets[row] for row in rows], table)


def _drawn(every: FolderPart, share: float, group: str | None, seed: int, between: str | None) -> dict[str, FolderPart]:
    """Return a split at random: of each class (or rarest finding) by itself, or of whole groups."""
    if group is None:
        drawn_by = every.targets if between is None else finding_tables.rarest(every.targets, between)
        kept, held = _by_class(drawn_by, share, seed)
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


def known_columns(table: pd.DataFrame | None) -> str:
    """Return the columns of a table in words."""
    return "no table" if table is None else str([str(name) for name in table.columns])
