"""What the classification loaders share: checked arrays to a data set, and smaller training sets."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..errors import check_count
from ..seeding import generator
from .bundle import DataBundle
from .tensors import TensorImages, subset


def class_images(source: object, images: np.ndarray, labels: np.ndarray, num_classes: int) -> TensorImages:
    """Return images ``(N, C, H, W)`` uint8 and class indices ``(N,)`` as a data set; errors name ``source``.

    Raises:
        ValueError: When they are no such images, do not fit together, or a label is outside 0..num_classes - 1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"expected {source} to hold uint8 images (N, 1 or 3, H, W), but got {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),):
        raise ValueError(
            f"expected {source} to hold one label an image, but got {len(images)} images and {len(labels)} labels"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected the labels of {source} to be integers, but got {labels.dtype}")
    # As Python ints: an unsigned 64-bit label would otherwise wrap around to a valid one.
    wrong = [label for label in np.unique(labels).tolist() if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f"expected the labels of {source} in 0..{num_classes - 1}, but got {wrong[:5]}")
    return TensorImages(
        torch.from_numpy(np.array(images, order="C")), torch.from_numpy(labels.astype(np.int64, copy=True))
    )


def limit_train(bundle: DataBundle, train_size: int | None, seed: int) -> DataBundle:
    """Return ``bundle`` with ``train_size`` of its training samples, drawn at random by ``seed`` and kept in order.

    With one seed, a smaller draw is part of a larger one. None keeps everything.

    Raises:
        TypeError: When ``train_size`` is no int from 1 to the number of training samples.
        ValueError: When ``train_size`` is no int from 1 to the number of training samples.
    """
    check_count("seed", seed, low=0)
    if train_size is None:
        return bundle
    available = len(bundle.train)
    if check_count("train_size", train_size) > available:
        raise ValueError(f"expected train_size to be at most the {available} training samples, but got {train_size}")
    drawn = torch.randperm(available, generator=generator(seed, "train_size"))[:train_size].sort().values
    table = bundle.train_metadata
    return dataclasses.replace(
        bundle,
        train=subset(bundle.train, drawn),
        train_metadata=None if table is None else table.iloc[drawn.numpy()].reset_index(drop=True),
    )
