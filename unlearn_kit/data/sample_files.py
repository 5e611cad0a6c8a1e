"""The files that samples are read from, where a data set knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .decoded import DecodedFiles
from .mask_pairs import MaskPairs
from .pictures import PictureFiles
from .tensors import resolve
from .volumes import VolumeFiles


def files_of(dataset: Any) -> list[tuple[Path, ...]] | None:
    """Return the files of each sample, an image or volume and where there is one its mask; None for other data."""
    base, chosen = resolve(dataset)
    if not isinstance(base, (PictureFiles, MaskPairs, VolumeFiles, DecodedFiles)):
        return None
    return base.files if chosen is None else [base.files[place] for place in chosen.tolist()]
