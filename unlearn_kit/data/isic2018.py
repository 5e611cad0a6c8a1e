"""ISIC 2018, Task 1: skin lesion boundaries in dermoscopic images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataNotFoundError, check_choice
from .bundle import DataBundle
from .mask_pairs import MaskPairs, find_root, hold_out, require_files

LAYOUT = """\
  ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg ...
  ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png ...
  and the same two folders for Validation and Test where they are held (https://challenge.isic-archive.com/data)"""


def load(
    root: str | Path | None = None,
    *,
    size: Sequence[int] | None = (256, 256),
    held_out: str = "auto",
    share: float = 0.2,
    seed: int = 0,
) -> DataBundle:
    """Load ISIC 2018 Task 1; images ``(3, H, W)`` in [0, 1], masks ``(1, H, W)`` in {0, 1}.

    Metadata: ``image`` (the ISIC name, to join with clinical tables) and ``split`` (the folder it came from).

    Args:
        root: the folder that holds ``ISIC2018_Task1-2_Training_Input`` and its masks.
        size: (H, W) to resize to; None keeps each image's own size (they differ, so they cannot be batched).
        held_out: what ``.test`` is: "test" or "validation" (their folders), "share" (a random share of the
            training images), or "auto": the first of these whose images and masks are both there.
        share: the part of the training images held out by "share", in (0, 1).
        seed: draws the share.

    Raises:
        DataNotFoundError: When folders or masks are missing, naming them.
        ValueError: On a wrong option.
    """
    check_choice("held_out", held_out, ("auto", "test", "validation", "share"))
    needed = ["Training"] if held_out in ("auto", "share") else ["Training", held_out.capitalize()]
    folder = find_root("isic2018", root, [name for split in needed for name in folders(split)], LAYOUT)
    if held_out == "auto":
        present = [s for s in ("Test", "Validation") if all((folder / name).is_dir() for name in folders(s))]
        held_out = present[0].lower() if present else "share"
    images, masks = read_split(folder, "Training")
    if held_out == "share":
        kept, held = hold_out(len(images), share, seed)
        test_images, test_masks = [images[i] for i in held], [masks[i] for i in held]
        images, masks = [images[i] for i in kept], [masks[i] for i in kept]
        test_split = "training"
    else:
        test_images, test_masks = read_split(folder, held_out.capitalize())
        test_split = held_out

    import pandas as pd

    return DataBundle(
        name="isic2018",
        train=MaskPairs(images, masks, size=size),
        test=MaskPairs(test_images, test_masks, size=size),
        num_classes=2,
        task="segmentation",
        class_names=("background", "lesion"),
        train_metadata=pd.DataFrame({"image": [f.stem for f in images], "split": "training"}),
        test_metadata=pd.DataFrame({"image": [f.stem for f in test_images], "split": test_split}),
    )


def folders(split: str) -> tuple[str, str]:
    """Return the folders of images and masks of "Training", "Validation" or "Test"."""
    return f"ISIC2018_Task1-2_{split}_Input", f"ISIC2018_Task1_{split}_GroundTruth"


def read_split(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Return sorted images of one split, and their masks."""
    inputs, truths = (root / name for name in folders(split))
    images = sorted(inputs.glob("ISIC_*.jpg"))
    if not images:
        raise DataNotFoundError(f"expected images ISIC_*.jpg in {inputs}, but there are none; expected:\n{LAYOUT}")
    return images, require_files("masks", [truths / f"{image.stem}_segmentation.png" for image in images])
