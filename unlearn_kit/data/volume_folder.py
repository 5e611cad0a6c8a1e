"""A user's own volumes by a table, with metadata to forget by patient, device, site, year, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import DataNotFoundError, check_count, check_number
from .bundle import DataBundle
from .files import check_root
from .folder_splits import FolderColumns, FolderPart, bundle_of, mark_group, read_folder_table, split_folder, with_notes
from .mask_pairs import list_names
from .tables import read_table
from .volumes import VolumeFiles, check_sides, check_window, is_volume

HOW = (
    "expected a table root/metadata.csv with the columns file, split ('train' or 'test') and label, or one of masks "
    "with mask_column=; without a split say held_out=0.25"
)


def load(
    root: str | Path | None = None,
    *,
    metadata: str | Path | None = None,
    size: Sequence[int] | None = None,
    window: Sequence[float] | str | None = None,
    classes: int = 2,
    file_column: str = "file",
    label_column: str = "label",
    mask_column: str | None = None,
    split_column: str = "split",
    held_out: float | None = None,
    group: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    seed: int = 0,
) -> DataBundle:
    """Load volumes from ``root``: ``(C, D, H, W)``, read when asked for; NIfTI (.nii, .nii.gz) or NumPy (.npy, .npz).

    A table has a row for each volume: its file, its class or the file of its mask, its split, and what else is known of
    it; all as for the loader ``image-folder``.

    Args:
        root: the folder.
        metadata: a CSV (paths relative to ``root``), itself relative to ``root``; default: ``metadata.csv``.
        size: ``(D, H, W)`` to resize to; None requires volumes of one size.
        window: the values ``(low, high)`` that become 0 and 1; "each" for each volume's own; None for volumes of bytes
            or in [0, 1]. As where the model was trained.
        classes: how many classes the masks tell apart, the background counted.
        file_column, label_column, split_column: what the table calls them.
        mask_column: the column with the files of masks: targets are masks then, and ``label_column`` is not needed.
        held_out: the share of the volumes to judge by, in (0, 1), where there is no split.
        group: the column whose samples belong together, such as the patient: its groups are held out whole, and a
            request that divides them says so.
        encoding, separator: of the table, as for ``image-folder``.
        seed: of what is held out.

    Raises:
        DataNotFoundError: When there is no such folder, or no table in it.
        ValueError: Naming files that are no volumes, rows without a file, and what is wrong with the table.
    """
    folder = check_root(root)
    if folder is None:
        raise ValueError("expected root to be the folder of the volumes, but got None")
    if not folder.is_dir():
        raise DataNotFoundError(f"expected root to be a folder, but got {str(folder)!r}, which is none: {HOW}")
    if held_out is not None:
        check_number("held_out", held_out, low=0, high=1, open_low=True, open_high=True)
    check_count("classes", classes, low=2)
    options = {"size": check_sides(size), "window": check_window(window), "classes": classes}
    columns = FolderColumns(file_column, label_column, mask_column, split_column)
    table, notes = read_folder_table(folder, metadata, columns, encoding, separator)
    if table is None:
        raise DataNotFoundError(f"no table of volumes in {folder}: {HOW}")
    mark_group(table, group)
    parts = split_folder(folder, table, columns, held_out, group, seed)
    every = [file for part in parts.values() for file in (*part.files, *(part.targets if mask_column else ()))]
    others = [file for file in every if not is_volume(file)]
    if others:
        raise ValueError(f"expected volumes (.nii, .nii.gz, .npy, .npz), but got {list_names(others)}")
    bundle = (_masks if mask_column else _classes)(folder, parts, options)
    return replace(with_notes(bundle, notes), name="volume-folder")


def holds_volumes(root: str | Path, metadata: str | Path | None = None, file_column: str = "file") -> bool:
    """Return whether a folder's table lists volumes; False where it cannot be read, which a loader says by name."""
    folder = Path(root)
    try:
        table, _ = read_table(folder / (metadata or "metadata.csv"), text=(), files=file_column)
    except (OSError, ValueError):
        return False
    return len(table) > 0 and is_volume(str(table["file"].iloc[0]))


def _masks(folder: Path, parts: dict[str, FolderPart], options: dict[str, Any]) -> DataBundle:
    data = {
        split: VolumeFiles(
            [folder / f for f in part.files], [folder / f for f in part.targets], metadata=part.table, **options
        )
        for split, part in parts.items()
    }
    several = tuple(f"class {label}" for label in range(1, options["classes"]))
    names = ("background", *(("foreground",) if len(several) == 1 else several))
    return bundle_of(parts, data, "segmentation", names)


def _classes(folder: Path, parts: dict[str, FolderPart], options: dict[str, Any]) -> DataBundle:
    names = tuple(sorted(set(parts["train"].targets)))
    only = sorted({label for part in parts.values() for label in part.targets} - set(names))
    if only:
        raise ValueError(f"expected every class to have a training volume, but got none for {only}")
    data = {
        split: VolumeFiles(
            [folder / f for f in part.files],
            torch.tensor([names.index(label) for label in part.targets]),
            metadata=part.table,
            **options,
        )
        for split, part in parts.items()
    }
    return bundle_of(parts, data, "classification", names)
