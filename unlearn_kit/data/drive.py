"""DRIVE: retinal vessels in 40 images of a diabetic retinopathy screening programme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import check_choice
from .bundle import DataBundle
from .mask_pairs import MaskPairs, find_root, hold_out, require_files

LAYOUT = """\
  training/images/21_training.tif ... 40_training.tif
  training/1st_manual/21_manual1.gif ...
  test/images/01_test.tif ... 20_test.tif
  test/1st_manual/01_manual1.gif ...
Some distributions withhold test/1st_manual; held_out="share" splits the training images instead"""
NUMBERS = {"training": range(21, 41), "test": range(1, 21)}


def load(
    root: str | Path | None = None,
    *,
    size: Sequence[int] | None = (256, 256),
    held_out: str = "test",
    share: float = 0.25,
    seed: int = 0,
) -> DataBundle:
    """Load DRIVE; images ``(3, H, W)`` in [0, 1], masks of the first annotator ``(1, H, W)`` in {0, 1}.

    The field-of-view masks (``mask/``) are not read: outside of them images are black and hold no vessel.
    Metadata: ``image`` (its number, 1-40) and ``split`` (the folder it came from).

    Args:
        root: the folder that holds ``training`` and ``test``.
        size: (H, W) to resize to; None keeps 584 x 565, where the thinnest vessels survive.
        held_out: what ``.test`` is: "test" (the 20 test images) or "share" (a part of the training ones).
        share: the part of the training images held out by "share", in (0, 1).
        seed: draws the share.

    Raises:
        DataNotFoundError: When folders or files are missing, naming them.
        ValueError: On a wrong option.
    """
    check_choice("held_out", held_out, ("test", "share"))
    splits = ("training", "test") if held_out == "test" else ("training",)
    needed = [f"{split}/{part}" for split in splits for part in ("images", "1st_manual")]
    folder = find_root("drive", root, needed, LAYOUT)
    numbers, images, masks = read_split(folder, "training")
    if held_out == "share":
        kept, held = hold_out(len(images), share, seed)
    else:
        test_numbers, test_images, test_masks = read_split(folder, "test")
        kept, held = list(range(len(images))), list(range(len(images), len(images) + len(test_images)))
        numbers, images, masks = numbers + test_numbers, images + test_images, masks + test_masks

    import pandas as pd

    table = pd.DataFrame({"image": numbers, "split": [file.parent.parent.name for file in images]})
    return DataBundle(
        name="drive",
        train=MaskPairs([images[i] for i in kept], [masks[i] for i in kept], size=size),
        test=MaskPairs([images[i] for i in held], [masks[i] for i in held], size=size),
        num_classes=2,
        task="segmentation",
        class_names=("background", "vessel"),
        train_metadata=table.iloc[kept].reset_index(drop=True),
        test_metadata=table.iloc[held].reset_index(drop=True),
    )


def read_split(root: Path, split: str) -> tuple[list[int], list[Path], list[Path]]:
    """Return numbers, images and masks of "training" or "test", in order of number."""
    numbers = list(NUMBERS[split])
    images = require_files("images", [root / split / "images" / f"{n:02d}_{split}.tif" for n in numbers])
    masks = require_files("masks", [root / split / "1st_manual" / f"{n:02d}_manual1.gif" for n in numbers])
    return numbers, images, masks
