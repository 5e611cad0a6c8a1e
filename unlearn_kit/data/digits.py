"""The handwritten digits bundled with scikit-learn: 1,797 real 8x8 grey images, nothing to download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import check_count, check_number
from ..seeding import derive, isolated
from .bundle import DataBundle
from .classification import limit_train
from .mask_pairs import check_no_root
from .tensors import TensorImages


def load(
    root: str | Path | None = None, *, test_share: float = 0.2, train_size: int | None = None, seed: int = 0
) -> DataBundle:
    """Load the digits, ``(1, 8, 8)`` float32: the recorded values 0..16 divided by 16, which is exact.

    They come unsplit, so a fixed stratified split is drawn: 1,437 training and 360 test images by default,
    each part in the original order.

    Args:
        root: must be None, since the images come with scikit-learn.
        test_share: share held out for testing, in [0.01, 0.99].
        train_size: keep only that many training images, drawn at random.
        seed: draws the split, and the training images that are kept.

    Raises:
        ValueError: On options outside their range.
        TypeError: On options outside their range.
    """
    with isolated(0):  # importing scikit-learn draws from the caller's random state
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    check_no_root("digits", root, "come with scikit-learn")
    check_number("test_share", test_share, low=0.01, high=0.99)
    check_count("seed", seed, low=0)
    raw = load_digits()
    inputs = torch.from_numpy((raw.images / 16).astype(np.float32)).unsqueeze(1)
    targets = torch.from_numpy(raw.target.astype(np.int64))
    # scikit-learn takes 32-bit seeds only.
    parts = train_test_split(
        np.arange(len(targets)),
        test_size=test_share,
        stratify=raw.target,
        random_state=derive(seed, "digits") % 2**32,
    )
    train, test = (TensorImages(inputs[part], targets[part]) for part in (np.sort(indices) for indices in parts))
    names = tuple(str(digit) for digit in range(10))
    return limit_train(DataBundle("digits", train, test, 10, "classification", names), train_size, seed)
