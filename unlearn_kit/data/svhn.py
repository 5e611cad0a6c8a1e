"""Street View House Numbers: 73,257 training and 26,032 test digits, 32x32 colour, in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .bundle import DataBundle
from .classification import class_images, limit_train
from .files import cache_folder, check_flag, check_root, find_or_download
from .tensors import TensorImages

WANTED = (("train_32x32.mat",), ("test_32x32.mat",))
HOW = (
    "pass download=True, or download train_32x32.mat and test_32x32.mat from "
    "http://ufldl.stanford.edu/housenumbers and give their folder as root"
)


def load(
    root: str | Path | None = None, *, train_size: int | None = None, seed: int = 0, download: bool = False
) -> DataBundle:
    """Load SVHN: ``(3, 32, 32)``, 10 classes; class d is the digit d (the files call the digit 0 "10").

    Args:
        root: the folder of the ``.mat`` files; ``svhn`` in the toolkit's cache folder when None.
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw.
        download: fetch missing files with torchvision.

    Raises:
        DataNotFoundError: When the files are missing.
        ValueError: Naming a file that is damaged.
    """
    folder = check_root(root) or cache_folder() / "svhn"

    def fetch() -> None:
        from torchvision.datasets import SVHN

        for split in ("train", "test"):
            SVHN(str(folder), split=split, download=True)

    paths = find_or_download("svhn", [(folder, WANTED)], HOW, fetch if check_flag("download", download) else None)
    train, test = (_read(path) for path in paths)
    names = tuple(str(digit) for digit in range(10))
    return limit_train(DataBundle("svhn", train, test, 10, "classification", names), train_size, seed)


def _read(path: Path) -> TensorImages:
    """Return images ``X`` uint8 (32, 32, 3, N) and labels ``y`` (N, 1) in 1..10."""
    from scipy.io import loadmat

    try:
        held = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"expected {path} to be a MATLAB 5 file, but got: {error}") from error
    if not {"X", "y"} <= held.keys():
        raise ValueError(f"expected {path} to hold 'X' and 'y', but got {[k for k in held if not k.startswith('__')]}")
    images, labels = held["X"], held["y"].reshape(-1)
    if images.ndim != 4 or images.shape[2] != 3:
        raise ValueError(f"expected 'X' of {path} to have the shape (H, W, 3, N), but got {images.shape}")
    wrong = np.setdiff1d(labels, np.arange(1, 11))
    if len(wrong):
        raise ValueError(f"expected the labels of {path} in 1..10, but got {wrong[:5].tolist()}")
    return class_images(path, images.transpose(3, 2, 0, 1), labels.astype(np.int64) % 10, 10)
