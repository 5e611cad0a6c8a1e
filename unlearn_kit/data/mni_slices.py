"""Slices of real MRI: the ICBM 152 template, which the nilearn package carries; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import check_choice, check_count, check_number
from ..seeding import isolated
from .bundle import DataBundle
from .mask_pairs import check_no_root
from .tensors import TensorImages

Volume = NDArray[np.float32]
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
CLASS_NAMES = {"grey": ("background", "grey matter"), "tissue": ("background", "grey matter", "white matter")}
BLOCKS = 3  # each plane is cut into three parts; the middle of each is held out
MARGIN = 8  # millimetres, in all
BRAIN = 0.2  # intensity above which a voxel is brain (nilearn's own threshold)


def load(
    root: str | Path | None = None,
    *,
    size: int = 64,
    planes: Sequence[str] = ("axial", "coronal", "sagittal"),
    classes: str = "grey",
    spacing: int = 1,
    gap: int = 4,
    share: float = 0.3,
    min_brain: float = 0.1,
) -> DataBundle:
    """Cut the T1 template of the ICBM 152 average brain (1 mm) into 2-D slices, with their tissue as masks.

    Images are ``(1, size, size)`` in [0, 1]: every plane is centred on the brain in a square of the same
    width in millimetres. A pixel is grey (white) matter where that is more probable than the other and than
    neither. Masks are ``(1, size, size)`` float in {0, 1} for "grey", and ``(size, size)`` int64 in {0, 1, 2}
    for "tissue".

    Neighbouring slices are nearly equal, so held-out slices are not drawn at random: each plane is cut into
    three contiguous parts, the middle ``share`` of each is held out, and ``gap`` mm on both sides of it are
    dropped. The template is exactly left-right symmetric, so only its left half gives sagittal slices. One
    average brain is one subject: held-out slices are new positions, not a new person, and slices of other
    planes cross them.
    Metadata: ``plane`` and ``position`` (mm in MNI space).

    Args:
        root: must be None; the template comes with nilearn (``pip install 'unlearn-kit[medical]'``).
        size: height and width, at least 16.
        planes: of "axial", "coronal", "sagittal".
        classes: "grey" (grey matter or not) or "tissue" (background, grey, white).
        spacing: millimetres between slices.
        gap: millimetres dropped between trained-on and held-out slices.
        share: the part of each plane that is held out (before the gap), in (0, 1).
        min_brain: slices with a smaller share of brain are left out, in [0, 1).

    Raises:
        ImportError: Without nilearn.
        TypeError: On a wrong option.
        ValueError: On a wrong option.

    Source: Fonov et al. 2011, NeuroImage 54 (ICBM 152 nonlinear symmetric 2009a).
    """
    check_no_root("mni-slices", root, "comes with the nilearn package")
    check_count("size", size, low=16)
    check_choice("classes", classes, CLASS_NAMES)
    check_count("spacing", spacing)
    check_count("gap", gap, low=0)
    check_number("share", share, low=0, high=1, open_low=True, open_high=True)
    check_number("min_brain", min_brain, low=0, high=1, open_high=True)
    if not planes or len(set(planes)) < len(planes):
        raise ValueError(f"expected planes to name each of {list(AXES)} at most once, but got {planes!r}")
    for plane in planes:
        check_choice("planes", plane, AXES)
    maps, origin = read_template()

    import pandas as pd

    images: dict[str, list[Tensor]] = {"train": [], "test": []}
    masks: dict[str, list[Tensor]] = {"train": [], "test": []}
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for plane in planes:
        slices = np.moveaxis(maps, AXES[plane] + 1, 0)  # (position, map, ., .)
        positions = np.arange(len(slices)) + origin[AXES[plane]]
        wanted = (slices[:, 0] > BRAIN).mean(axis=(1, 2)) >= min_brain
        wanted &= (positions % spacing == 0) & ((positions <= 0) | (plane != "sagittal"))
        for split, chosen in split_positions(positions[wanted], share, gap).items():
            image, mask = render(slices[np.isin(positions, chosen)], max(maps.shape) + MARGIN, size, classes)
            images[split].append(image)
            masks[split].append(mask)
            rows[split] += [(plane, int(position)) for position in chosen]
    for split, name in (("train", "training"), ("test", "held-out")):
        if not rows[split]:
            raise ValueError(f"no {name} slices are left; a smaller spacing, gap or min_brain leaves more")
    columns = ["plane", "position"]
    return DataBundle(
        name="mni-slices",
        train=TensorImages(torch.cat(images["train"]), torch.cat(masks["train"])),
        test=TensorImages(torch.cat(images["test"]), torch.cat(masks["test"])),
        num_classes=len(CLASS_NAMES[classes]),
        task="segmentation",
        class_names=CLASS_NAMES[classes],
        train_metadata=pd.DataFrame(rows["train"], columns=columns),
        test_metadata=pd.DataFrame(rows["test"], columns=columns),
    )


def read_template() -> tuple[Volume, NDArray[np.int64]]:
    """Return T1 and the probabilities of neither, grey and white matter ``(4, X, Y, Z)``, cropped to the brain.

    All in [0, 1]. Also the position of the first voxel, in millimetres of MNI space.

    Raises:
        ImportError: Without nilearn.
    """
    with isolated(0):  # importing nilearn draws from Python's global random state
        try:
            from nilearn import datasets
        except ImportError as error:
            raise ImportError("mni-slices needs nilearn: pip install 'unlearn-kit[medical]'") from error
    readers = (
        datasets.load_mni152_template,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
    )
    files = [reader(resolution=1) for reader in readers]
    t1, grey, white = (np.asarray(file.dataobj, dtype=np.float32) for file in files)
    maps = np.stack([t1, np.clip(1 - grey - white, 0, 1), grey, white])
    corners = [(where.min(), where.max() + 1) for where in np.nonzero(t1 > BRAIN)]
    box = (slice(None), *(slice(low, high) for low, high in corners))
    return maps[box], np.round(files[0].affine[:3, 3]).astype(np.int64) + [low for low, _ in corners]


def split_positions(positions: NDArray[np.int64], share: float, gap: int) -> dict[str, NDArray[np.int64]]:
    """Split ascending positions (mm): the middle of each block is held out, what is near to it is dropped."""
    middles = []
    for block in np.array_split(positions, BLOCKS):
        count = round(share * len(block))
        start = (len(block) - count) // 2
        middles.append(block[start : start + count])
    held = np.concatenate(middles)
    near = (np.abs(positions[:, None] - held) <= gap).any(axis=1)
    return {"train": positions[~near], "test": held}


def render(slices: Volume, width: int, size: int, classes: str) -> tuple[Tensor, Tensor]:
    """Return images ``(N, 1, size, size)`` uint8 and masks of ``(N, 4, ., .)`` maps in a square of ``width`` mm."""
    # The front (axial) or the top of the head points upwards.
    upright = np.ascontiguousarray(slices.swapaxes(2, 3)[:, :, ::-1])
    height, breadth = upright.shape[2:]
    top, left = (width - height) // 2, (width - breadth) // 2
    padded = F.pad(torch.from_numpy(upright), (left, width - breadth - left, top, width - height - top))
    small = F.interpolate(padded, size=(size, size), mode="bilinear", antialias=True)
    image = (small[:, :1] * 255).round().clamp(0, 255).to(torch.uint8)
    tissue = small[:, 1:].argmax(dim=1)
    return image, (tissue == 1).float().unsqueeze(1) if classes == "grey" else tissue
