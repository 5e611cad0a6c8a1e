"""Image files as data: decoded one by one when read, never all at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**26  # 8192 x 8192: some 0.8 GiB of float32 RGB


def is_picture(path: Path) -> bool:
    """Return whether ``path`` is a visible file with the ending of an image (in either case)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def load_picture(path: Path) -> Image.Image:
    """Decode an image file as it is stored: EXIF may say that it lies on its side.

    Raises:
        ValueError: Naming the file when it is damaged, or has more than ``MAX_PIXELS`` pixels, which are not decoded.
    """
    try:
        with Image.open(path) as opened:
            small = opened.width * opened.height <= MAX_PIXELS
            if small:
                opened.load()
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise ValueError(f"expected {path} to be a complete image file, but got: {error}") from error
    if not small:
        raise ValueError(
            f"expected {path} to have at most {MAX_PIXELS} pixels (MAX_PIXELS), but got "
            f"{opened.width} x {opened.height}; make it smaller or cut it into tiles"
        )
    return opened


def read_picture(path: Path, size: tuple[int, int] | None = None, channels: int = 3) -> Tensor:
    """Decode an image file to float32 ``(channels, H, W)`` in [0, 1], upright as EXIF says.

    16-bit grey images keep their precision (value / 65535); transparency is dropped.

    Args:
        path: the file.
        size: ``(H, W)`` to resize to, antialiased bilinear; None keeps the file's own.
        channels: 1 for grey (luma of a colour image), 3 for RGB (grey repeated).

    Raises:
        ValueError: Naming the file when it is damaged, too large or holds floating point numbers.
    """
    return to_tensor(path, ImageOps.exif_transpose(load_picture(path)), size, channels)


def to_tensor(path: Path, picture: Image.Image, size: tuple[int, int] | None = None, channels: int = 3) -> Tensor:
    """Return a decoded image as :func:`read_picture` does."""
    if picture.mode == "F":
        raise ValueError(f"expected {path} to hold integer pixels, but got floating point ones")
    deep = picture.mode.startswith("I")
    picture = _deep(path, picture) if deep else picture.convert("RGB" if channels == 3 else "L")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture, np.float32)).div_(65535 if deep else 255)
    if pixels.dim() == 3:
        return pixels.permute(2, 0, 1).contiguous()
    return pixels.unsqueeze(0).repeat(channels, 1, 1)


def _deep(path: Path, opened: Image.Image) -> Image.Image:
    """Return a 16-bit grey image as floating point 0..65535: a plain conversion to 8 bits would saturate."""
    pixels = np.asarray(opened)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"expected {path} in 0..65535, but got pixels in {pixels.min()}..{pixels.max()}")
    return Image.fromarray(pixels.astype(np.float32))


class PictureFiles(Dataset[tuple[Tensor, Tensor]]):
    """Image files and their class indices, map-style; ``.targets`` holds the labels without any decoding.

    Args:
        paths: the files.
        targets: a class index each, int64 ``(N,)``.
        size, channels: as for :func:`read_picture`. Without ``size`` every image must have the size of the
            first.
        metadata: a table with a row for each image; None where there is none.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        *,
        size: tuple[int, int] | None = None,
        channels: int = 3,
        metadata: pd.DataFrame | None = None,
    ) -> None:
        self.paths, self.targets, self.size, self.channels = list(paths), targets, size, channels
        self.metadata = metadata
        self._first: torch.Size | None = None

    @property
    def files(self) -> list[tuple[Path, ...]]:
        """The file of each image."""
        return [(path,) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.paths[index]
        picture = read_picture(path, self.size, self.channels)
        if self.size is None:
            if self._first is None:
                self._first = read_picture(self.paths[0], None, self.channels).shape
            if picture.shape != self._first:
                raise ValueError(
                    f"expected every image to be {tuple(self._first[1:])} as {self.paths[0]} is, but got "
                    f"{tuple(picture.shape[1:])} in {path}; pass size=(H, W) to resize"
                )
        return picture, self.targets[index]
