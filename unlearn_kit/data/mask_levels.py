"""What the pixels of a mask's file mean: which way up it is, and which of them are foreground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from .pictures import to_tensor

LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")
UPRIGHT = 1
VOID = 255  # the index that palette masks give to pixels nobody labelled
# In noise most neighbours differ; in labels few do.
NOISY = 0.25


def upright_pair(
    image_file: Path, image: Image.Image, mask_file: Path, mask: Image.Image
) -> tuple[Image.Image, Image.Image]:
    """Return an image and its mask, both turned as EXIF says.

    A mask that says nothing is turned with its image where it has the size of the stored pixels, and is upright already
    where it has the size of the turned ones.

    Raises:
        ValueError: When its size does not tell, so that it may lie either way.
    """
    turn, own = (_orientation(picture) for picture in (image, mask))
    upright = ImageOps.exif_transpose(image)
    if turn != UPRIGHT and own == UPRIGHT and mask.size == image.size:
        if upright.size == image.size:
            raise ValueError(
                f"expected the mask {mask_file.name} to say which way up it is, as its image {image_file.name} does by "
                f"EXIF orientation {turn}, but got none; save both upright"
            )
        mask.getexif()[ExifTags.Base.Orientation] = turn
    return upright, ImageOps.exif_transpose(mask)


def _orientation(picture: Image.Image) -> int:
    return int(picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT))


def read_foreground(path: Path, mask: Image.Image, *, lossy: bool) -> Tensor:
    """Return where a binary mask is foreground: float32 ``(1, H, W)`` in {0, 1}.

    - A palette's colours are for looking at: foreground is every index but the background's, which is the black one, or
      0 where not exactly one that occurs is black.
    - Transparent pixels are background; where the colours tell nothing, the mask is the opacity.
    - Of grey levels, two are background and foreground (0/1 as well as 0/255). Of more, those above half of the
      brightest are foreground; where none is bright they are noise of compression, and nothing is.

    Args:
        path: The file, for errors.
        mask: Its decoded image.
        lossy: Whether it comes from a format that does not keep levels exactly.

    Raises:
        ValueError: Naming the file when it shows more than a binary mask can hold: a palette's index 255 beside other
            classes, or several dark levels, which may be classes.
    """
    if mask.mode == "P":
        return _of_palette(path, mask)
    if mask.has_transparency_data:
        rgba = np.asarray(mask.convert("RGBA"), np.float32) / 255
        opacity = rgba[..., 3]
        levels = to_tensor(path, mask.convert("RGBA"), channels=1)[0].numpy()
        if opacity.min() < opacity.max():
            levels = levels * opacity if (levels * opacity).max() > 0 else opacity
    else:
        levels = to_tensor(path, mask, channels=1)[0].numpy()
    return torch.from_numpy(_bright(path, levels, lossy)).float().unsqueeze(0)


def _of_palette(path: Path, mask: Image.Image) -> Tensor:
    indices = np.asarray(mask)
    used = np.unique(indices).tolist()
    colours = np.asarray(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
    black = [index for index in used if index < len(colours) and not colours[index].any()]
    background = black[0] if len(black) == 1 else 0
    classes = [index for index in used if index != background]
    if len(classes) > 1 and VOID in classes:
        raise ValueError(
            f"expected {path} to be a binary mask, but got the palette's indices {used}: {VOID} commonly means pixels "
            "that nobody labelled"
        )
    return torch.from_numpy(indices != background).float().unsqueeze(0)


def _bright(path: Path, levels: np.ndarray, lossy: bool) -> np.ndarray:
    """Return where ``levels`` ``(H, W)`` in [0, 1] are foreground."""
    values, brightest = np.unique(levels), float(levels.max())
    exact = not lossy and (len(values) == 1 or (len(values) == 2 and values[0] == 0))
    if exact or brightest > 0.5:
        return levels > brightest / 2
    changes = np.mean(levels[:, 1:] != levels[:, :-1]) if levels.shape[1] > 1 else 0.0
    if not lossy and changes < NOISY:
        raise ValueError(
            f"expected {path} to be a binary mask, but got {len(values)} levels of at most {round(255 * brightest)} of "
            "255, which may be classes; write foreground as 255 and all else as 0"
        )
    return np.zeros(levels.shape, bool)
