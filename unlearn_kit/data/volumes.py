"""Volumes, ``(C, D, H, W)``: NIfTI and NumPy files with a class or a mask each, read one at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..errors import check_choice, check_count, check_number

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".nii", ".nii.gz", ".npy", ".npz")
MAX_NUMBERS = 2**28  # 512 x 512 x 1024: 1 GiB of float32

Window = tuple[float, float] | str | None


class _Grid(NamedTuple):
    """The numbers of a file, channels first, and where its header places them; None where it has no such header."""

    values: np.ndarray[Any, Any]
    affine: np.ndarray[Any, Any] | None


def is_volume(path: str | Path) -> bool:
    """Return whether a file has the ending of a volume (in either case)."""
    return str(path).lower().endswith(SUFFIXES)


def check_window(window: object) -> Window:
    """Return ``window`` as ``(low, high)``, "each" or None.

    Raises:
        TypeError: When it is something else.
        ValueError: When it is another text, or low is not below high.
    """
    if window is None:
        return None
    if isinstance(window, str):
        return check_choice("window", window, ("each",))
    if not isinstance(window, Sequence) or len(window) != 2:
        raise TypeError(f"expected window to be (low, high), 'each' or None, but got {window!r}")
    low, high = (check_number("window", bound) for bound in window)
    if not low < high:
        raise ValueError(f"expected window to be (low, high) with low < high, but got {(low, high)}")
    return low, high


def check_sides(size: object) -> tuple[int, int, int] | None:
    """Return ``size`` as a tuple (D, H, W), or None.

    Raises:
        TypeError: When it is not three ints.
        ValueError: When one is not positive.
    """
    if size is None:
        return None
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 3:
        raise TypeError(f"expected size to be (D, H, W) or None, but got {size!r}")
    depth, height, width = (check_count(f"size[{place}]", side) for place, side in enumerate(size))
    return depth, height, width


def read_volume(path: Path, size: tuple[int, int, int] | None = None, window: Window = None) -> Tensor:
    """Read a volume as float32 ``(C, D, H, W)`` in [0, 1], its axes in the order of the file.

    Of a NIfTI file a fourth axis holds the channels, of a NumPy file the first of four; so MONAI's ``LoadImage`` and
    ``EnsureChannelFirst`` give the same axes.

    Args:
        path: The file.
        size: ``(D, H, W)`` to resize to, trilinear; None keeps the file's own.
        window: ``(low, high)`` of the values that become 0 and 1, with all beyond cut off, as for Hounsfield units;
            "each" for each volume's own smallest and largest; None for values that are bytes or in [0, 1] already.

    Raises:
        ValueError: Naming the file when it is damaged, too large, of another form, or needs a window.
        ImportError: When a NIfTI file is read without nibabel.
    """
    return _scaled(path, _load(path).values, size, window)


class VolumeFiles(Dataset[tuple[Tensor, Tensor]]):
    """Volumes with a class or a mask each, map-style; every volume must have the channels of the first.

    Args:
        paths: The files.
        targets: A class index each, int64 ``(N,)``, or the file of a mask each.
        size, window: As for :func:`read_volume`. Without ``size`` every volume must have the size of the first.
        classes: How many classes the masks tell apart, the background counted.
        metadata: A table with a row for each volume; None where there is none.

    Raises:
        ValueError: When there are not as many targets as files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor | Sequence[Path],
        *,
        size: tuple[int, int, int] | None = None,
        window: Window = None,
        classes: int = 2,
        metadata: pd.DataFrame | None = None,
    ) -> None:
        if len(paths) != len(targets):
            raise ValueError(f"expected one target a volume, but got {len(paths)} volumes and {len(targets)} targets")
        self.paths, self.size, self.window, self.classes = list(paths), size, window, classes
        self.metadata = metadata
        self.masks = None if isinstance(targets, Tensor) else list(targets)
        if isinstance(targets, Tensor):
            self.targets = targets  # what class labels are read from without opening a volume
        self._first: torch.Size | None = None

    @property
    def files(self) -> list[tuple[Path, ...]]:
        """The file of each volume, and of its mask where it has one."""
        return list(zip(self.paths, *([] if self.masks is None else [self.masks]), strict=True))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.paths[index]
        grid = _load(path)
        volume = _scaled(path, grid.values, self.size, self.window)
        if self._first is None:
            self._first = volume.shape if index == 0 else read_volume(self.paths[0], self.size, self.window).shape
        if volume.shape != self._first:
            raise ValueError(
                f"expected every volume to be {tuple(self._first)}, (C, D, H, W), as {self.paths[0]} is, but got "
                f"{tuple(volume.shape)} in {path}; pass size=(D, H, W) to resize"
            )
        if self.masks is None:
            return volume, self.targets[index]
        return volume, _labels(self.masks[index], path, grid, self.size, self.classes)


def _labels(path: Path, like: Path, volume: _Grid, size: tuple[int, int, int] | None, classes: int) -> Tensor:
    """Read the mask of a volume: float ``(1, D, H, W)`` in {0, 1} for two classes, else int64 ``(D, H, W)``.

    Raises:
        ValueError: Naming the file when it has another shape or place in space than its volume, or other numbers than
            the classes.
    """
    mask = _load(path)
    if mask.values.shape != (1, *volume.values.shape[1:]):
        raise ValueError(
            f"expected the mask {path.name} to have the shape of its volume {like.name}, one channel of "
            f"{volume.values.shape[1:]}, but got {mask.values.shape}"
        )
    if mask.affine is not None and volume.affine is not None and not np.allclose(mask.affine, volume.affine, atol=1e-3):
        raise ValueError(
            f"expected the mask {path.name} to lie where its volume {like.name} does, but their affine matrices differ"
        )
    found = np.unique(mask.values)
    known = set(range(classes)) | ({255} if classes == 2 else set())
    if not set(found.tolist()) <= known or {1, 255} <= set(found.tolist()):
        raise ValueError(
            f"expected the mask {path.name} to hold "
            + ("0 and 1, or 0 and 255" if classes == 2 else f"whole numbers in 0..{classes - 1}")
            + f", but got {found[:6].tolist()}; classes= says how many masks tell apart, the background counted"
        )
    binary = classes == 2
    labels = torch.from_numpy((mask.values != 0).astype(np.float32) if binary else mask.values.astype(np.int64))
    if size is not None and labels.shape[1:] != torch.Size(size):
        labels = F.interpolate(labels[None].double(), size=size, mode="nearest-exact")[0].to(labels.dtype)
    return labels if binary else labels[0]


def _scaled(path: Path, values: np.ndarray[Any, Any], size: tuple[int, int, int] | None, window: Window) -> Tensor:
    if not np.isfinite(values).all():
        raise ValueError(f"expected {path} to hold finite numbers, but some are not")
    least, most = float(values.min()), float(values.max())
    if window is None:
        low, high = (0.0, 255.0) if values.dtype == np.uint8 else (0.0, 1.0)
        if least < low or most > high:
            raise ValueError(
                f"expected {path} to hold bytes or numbers in [0, 1], but got {values.dtype} from {least:g} to "
                f"{most:g}; window=(low, high) says which become 0 and 1, as where the model was trained, and "
                "window='each' takes each volume's own"
            )
    else:
        low, high = (least, most) if isinstance(window, str) else window
    volume = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    volume = volume.sub_(low).div_(high - low if high > low else 1.0).clamp_(0, 1)
    if size is None or volume.shape[1:] == torch.Size(size):
        return volume
    # Interpolation may leave the range by a rounding.
    return F.interpolate(volume[None], size=size, mode="trilinear", align_corners=False)[0].clamp_(0, 1)


def _load(path: Path) -> _Grid:
    try:
        grid = _nifti(path) if str(path).lower().endswith((".nii", ".nii.gz")) else _Grid(_numpy(path), None)
    except ImportError as error:
        raise ImportError(f"{path.name} needs nibabel: pip install 'unlearn-kit[medical]'") from error
    except Exception as error:  # a damaged file can make its reader raise anything
        raise ValueError(f"expected {path} to be a complete file of a volume, but got: {error}") from error
    values = grid.values
    if values.dtype.kind not in "buif" or values.ndim != 4 or not values.size:
        raise ValueError(
            f"expected {path} to hold real numbers of three axes, or four with the channels, but got {values.dtype} of "
            f"shape {values.shape}"
        )
    return grid


def _nifti(path: Path) -> _Grid:
    import nibabel

    image: Any = nibabel.load(path)
    _check_numbers(image.shape)
    values = np.asanyarray(image.dataobj)
    if values.ndim == 5 and values.shape[3] == 1:  # the time axis before the channels
        values = values[:, :, :, 0]
    channels_first = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    return _Grid(channels_first, np.asarray(image.affine))


def _numpy(path: Path) -> np.ndarray[Any, Any]:
    """Return the array of a NumPy file, channels first; of an archive the only one."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            names, content = archive.namelist(), sum(member.file_size for member in archive.infolist())
        if len(names) != 1:
            raise ValueError(f"arrays {names}, where one was expected")
        _check_numbers((content // 8,))
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays[arrays.files[0]]
    else:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        _check_numbers(mapped.shape)
        values = np.array(mapped)
    return values[None] if values.ndim == 3 else values


def _check_numbers(shape: Sequence[int]) -> None:
    count = int(np.prod([int(side) for side in shape], dtype=np.float64))
    if count > MAX_NUMBERS:
        raise ValueError(f"{count} numbers, where {MAX_NUMBERS} (MAX_NUMBERS) are the most that are read")
