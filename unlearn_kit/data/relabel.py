"""Masks of which one label is read as another: a class taken out, pixels that nobody labelled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from ..arguments import checked
from ..errors import check_count
from ..outputs import IGNORE
from .tensors import TensorImages, binarized, computable, resolve


class _Relabelled(Dataset[tuple[Tensor, Tensor]]):
    """Decodes a sample when asked for it, and changes its mask."""

    def __init__(self, dataset: Any, label: int, by: int) -> None:
        self.dataset, self.label, self.by = dataset, label, by

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.dataset[index]
        return x, _replace(torch.as_tensor(y), self.label, self.by)


@checked
def without_class(dataset: Any, label: int, by: int = 0) -> Any:
    """Return the same images with every pixel of class ``label`` called ``by`` (the background).

    Data held in tensors share their images; the masks are new.
    """
    base, indices = resolve(dataset)
    if type(base) is TensorImages:  # A subclass may yield other samples than it holds.
        changed: Any = TensorImages(base.inputs, _replace(base.targets, label, by))
    elif type(base) is TensorDataset and len(base.tensors) == 2:
        changed = TensorDataset(base.tensors[0], _replace(base.tensors[1], label, by))
    else:
        changed = _Relabelled(base, label, by)
    changed.ignore_index = getattr(base, "ignore_index", None)
    return changed if indices is None else Subset(changed, indices.tolist())


@checked
def with_ignore_index(dataset: Any, ignore_index: int | None) -> Any:
    """Return the same images with every pixel of label ``ignore_index`` read as ``IGNORE``: it has no label.

    Losses, searches and metrics leave such pixels out. Data that were read so already, and all data where
    ``ignore_index`` is None, are returned as they are.

    Raises:
        TypeError: When it is no int.
    """
    if ignore_index is None:
        return dataset
    label = check_count("ignore_index", ignore_index, low=-(2**31))
    base, indices = resolve(dataset)
    if getattr(base, "ignore_index", None) == label:
        return dataset
    changed = without_class(base, label, IGNORE)
    changed.ignore_index = label
    return changed if indices is None else Subset(changed, indices.tolist())


def _replace(mask: Tensor, label: int, by: int) -> Tensor:
    mask = computable(mask)
    if by < 0 and not mask.dtype.is_signed:
        mask = mask.short()
    return binarized(torch.where(mask == label, torch.full_like(mask, by), mask))
