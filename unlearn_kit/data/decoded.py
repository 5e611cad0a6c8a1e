"""Files decoded once: a data set of images or volumes held in memory, with the numbers that reading it anew gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .loading import UnequalSamplesError
from .mask_pairs import MaskPairs
from .pictures import PictureFiles
from .tensors import TensorImages, in_order
from .volumes import VolumeFiles

BYTES = 2**31  # of memory, at most, unless told otherwise
BATCH = 64


class DecodedFiles(TensorImages):
    """Files held in memory.

    Attributes:
        files: The files of each sample.
        metadata: The table with a row for each sample; None where there is none.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, files: list[tuple[Path, ...]], metadata: Any = None) -> None:
        super().__init__(inputs, targets)
        self.files, self.metadata = files, metadata


def reads_files(dataset: Any) -> bool:
    """Return whether a data set decodes a file each time a sample is read, and the same numbers each time."""
    return type(dataset) in (PictureFiles, MaskPairs, VolumeFiles)  # a subclass may draw what it yields


def decoded(dataset: Any, *, limit: int = BYTES) -> DecodedFiles | None:
    """Return a data set of files with every sample decoded; None where samples differ in shape or need more memory.

    Images of bytes are held as bytes, a quarter of the memory; samples are equal in every bit either way.

    Args:
        dataset: One that :func:`reads_files`.
        limit: Bytes, at most.

    Raises:
        ValueError: When a file is damaged.
    """
    x, y = dataset[0]
    others = y.numel() * y.element_size() * len(dataset)
    if x.numel() * len(dataset) + others > limit:
        return None
    inputs = torch.empty((len(dataset), *x.shape), dtype=torch.uint8)
    targets = torch.empty((len(dataset), *y.shape), dtype=y.dtype)
    done = 0
    try:
        for images, labels in in_order(dataset, BATCH):
            rows = slice(done, done + len(images))
            if inputs.dtype == torch.uint8:
                whole = images.mul(255).round_().byte()
                if not torch.equal(whole.float().div_(255), images):  # as of 16 bits, or resized as numbers
                    if 4 * x.numel() * len(dataset) + others > limit:
                        return None
                    inputs = inputs.float().div_(255)
            inputs[rows] = whole if inputs.dtype == torch.uint8 else images
            targets[rows] = labels
            done += len(images)
    except UnequalSamplesError:
        return None
    return DecodedFiles(inputs, targets, dataset.files, getattr(dataset, "metadata", None))
