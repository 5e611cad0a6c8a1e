"""CHASE-DB1: retinal vessels of both eyes of 14 children, annotated twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .bundle import DataBundle
from .mask_pairs import MaskPairs, find_root, require_files

LAYOUT = """\
  Image_01L.jpg  Image_01L_1stHO.png  Image_01L_2ndHO.png
  Image_01R.jpg ... Image_14R.jpg (28 images in one folder, each with its masks)"""
SUFFIXES = {1: "1stHO", 2: "2ndHO"}
EYES = [(patient, eye) for patient in range(1, 15) for eye in "LR"]
TRAIN_IMAGES = 20


def load(root: str | Path | None = None, *, size: Sequence[int] | None = (256, 256), annotator: int = 1) -> DataBundle:
    """Load CHASE-DB1; images ``(3, H, W)`` in [0, 1], masks ``(1, H, W)`` in {0, 1}.

    The usual split: the first 20 images in name order (patients 1-10) train, the last 8 (patients 11-14) are
    held out, so no patient is in both. Metadata: ``image``, ``patient`` (1-14) and ``eye`` ("L" or "R").

    Args:
        root: the folder of the 28 images and their masks.
        size: (H, W) to resize to; None keeps 960 x 999, where the thinnest vessels survive.
        annotator: whose masks: 1 (``_1stHO``, the usual reference) or 2 (``_2ndHO``).

    Raises:
        DataNotFoundError: When files are missing, naming them.
        ValueError: On a wrong option.
    """
    if annotator not in SUFFIXES:
        raise ValueError(f"expected annotator to be 1 or 2, but got {annotator!r}")
    names = [f"Image_{patient:02d}{eye}" for patient, eye in EYES]
    folder = find_root("chase-db1", root, [f"{names[0]}.jpg"], LAYOUT)
    images = require_files("images", [folder / f"{name}.jpg" for name in names])
    masks = require_files("masks", [folder / f"{name}_{SUFFIXES[annotator]}.png" for name in names])

    import pandas as pd

    table = pd.DataFrame({"image": names, "patient": [p for p, _ in EYES], "eye": [e for _, e in EYES]})
    return DataBundle(
        name="chase-db1",
        train=MaskPairs(images[:TRAIN_IMAGES], masks[:TRAIN_IMAGES], size=size),
        test=MaskPairs(images[TRAIN_IMAGES:], masks[TRAIN_IMAGES:], size=size),
        num_classes=2,
        task="segmentation",
        class_names=("background", "vessel"),
        train_metadata=table.iloc[:TRAIN_IMAGES].reset_index(drop=True),
        test_metadata=table.iloc[TRAIN_IMAGES:].reset_index(drop=True),
    )
