"""Image and mask files that are decoded when asked for, and the checks their loaders share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..errors import DataNotFoundError, check_count, check_number
from ..seeding import derive
from .files import check_root
from .mask_levels import LOSSY, read_foreground, upright_pair
from .pictures import load_picture, to_tensor

if TYPE_CHECKING:
    import pandas as pd

NAMED = 10  # names of missing files that an error lists before it counts the rest


class MaskPairs(Dataset[tuple[Tensor, Tensor]]):
    """Images with binary masks, decoded one at a time.

    Yields ``(channels, H, W)`` float32 in [0, 1] and ``(1, H, W)`` float32 in {0, 1}, both upright. Masks written as
    0/255, as 0/1, by a palette or in the transparency all read right (see :func:`.mask_levels.read_foreground`).

    Args:
        images, masks: files, one mask an image, in the same order.
        size: (H, W) to resize to (images bilinear with antialiasing, masks nearest); None keeps the sizes.
        channels: 1 for grey, 3 for RGB.
        metadata: a table with a row for each image; None where there is none.

    Raises:
        ValueError: When there are not as many masks as images, or, on reading, when an image and its mask differ in
            size or one of them is damaged.
    """

    def __init__(
        self,
        images: Sequence[Path],
        masks: Sequence[Path],
        *,
        size: Sequence[int] | None = None,
        channels: int = 3,
        metadata: pd.DataFrame | None = None,
    ) -> None:
        if len(images) != len(masks):
            raise ValueError(f"expected one mask an image, but got {len(images)} images and {len(masks)} masks")
        self.images, self.masks, self.size = tuple(images), tuple(masks), check_size(size)
        self.channels, self.metadata = channels, metadata

    @property
    def files(self) -> list[tuple[Path, ...]]:
        """The files of each image and its mask."""
        return list(zip(self.images, self.masks, strict=True))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_file, mask_file = self.images[index], self.masks[index]
        image, mask = load_picture(image_file), load_picture(mask_file)
        lossy = mask.format in LOSSY
        image, mask = upright_pair(image_file, image, mask_file, mask)
        if image.size != mask.size:
            raise ValueError(
                f"expected the mask {mask_file.name} to have the size of its image {image_file.name}, "
                f"(H, W) = {image.size[::-1]}, but got {mask.size[::-1]}"
            )
        foreground = read_foreground(mask_file, mask, lossy=lossy)
        if self.size is not None:
            foreground = F.interpolate(foreground[None], size=self.size, mode="nearest-exact")[0]
        return to_tensor(image_file, image, self.size, self.channels), foreground


def check_size(size: object) -> tuple[int, int] | None:
    """Return ``size`` as a tuple (H, W), or None.

    Raises:
        TypeError: When it is not two positive ints.
        ValueError: When it is not two positive ints.
    """
    if size is None:
        return None
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(f"expected size to be (H, W) or None, but got {size!r}")
    return check_count("size[0]", size[0]), check_count("size[1]", size[1])


def check_no_root(name: str, root: str | Path | None, source: str) -> None:
    """Refuse a ``root`` where nothing would be read from it.

    Raises:
        ValueError: When one is given.
    """
    if root is not None:
        raise ValueError(f"expected root to be None, since {name} {source}, but got {str(root)!r}")


def find_root(name: str, root: str | Path | None, needed: Iterable[str], layout: str) -> Path:
    """Return the folder of the data set ``name``, when everything ``needed`` (relative names) is in it.

    Raises:
        DataNotFoundError: That shows what is missing and the expected ``layout``.
    """
    folder = check_root(root)
    if folder is None:
        raise DataNotFoundError(f"expected root to be the folder of {name}, but got None; its layout is:\n{layout}")
    missing = [part for part in needed if not (folder / part).exists()] if folder.is_dir() else [str(folder)]
    if missing:
        raise DataNotFoundError(f"{name} was not found in {folder}: {list_names(missing)} missing; expected:\n{layout}")
    return folder


def require_files(what: str, files: Sequence[Path]) -> list[Path]:
    """Return ``files`` when every one exists.

    Raises:
        DataNotFoundError: That names the missing files.
    """
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataNotFoundError(
            f"expected {len(files)} {what} in {files[0].parent}, but {len(missing)} are missing: {list_names(missing)}"
        )
    return list(files)


def list_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def hold_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split ``range(count)`` at random into a rest and a held-out ``share``, both sorted and non-empty.

    Raises:
        ValueError: On a share outside (0, 1), or fewer than two samples.
    """
    check_number("share", share, low=0, high=1, open_low=True, open_high=True)
    check_count("the number of images to hold a share out of", count, low=2)
    held = min(max(round(share * count), 1), count - 1)
    order = np.random.default_rng(derive(seed, "hold out")).permutation(count).tolist()
    return sorted(order[held:]), sorted(order[:held])
