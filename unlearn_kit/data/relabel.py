"""Masks with one class taken out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .tensors import TensorImages, resolve


class _Relabelled(Dataset[tuple[Tensor, Tensor]]):
    """Decodes a sample when asked for it, and changes its mask."""

    def __init__(self, dataset: Any, label: int, by: int) -> None:
        self.dataset, self.label, self.by = dataset, label, by

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.dataset[index]
        return x, _replace(torch.as_tensor(y), self.label, self.by)


def without_class(dataset: Any, label: int, by: int = 0) -> Any:
    """Return the same images with every pixel of class ``label`` called ``by`` (the background).

    Data held in tensors share their images; the masks are new.
    """
    base, indices = resolve(dataset)
    if type(base) is TensorImages:  # A subclass may yield other samples than it holds.
        changed: Any = TensorImages(base.inputs, _replace(base.targets, label, by))
    else:
        changed = _Relabelled(base, label, by)
    return changed if indices is None else Subset(changed, indices.tolist())


def _replace(mask: Tensor, label: int, by: int) -> Tensor:
    return torch.where(mask == label, torch.full_like(mask, by), mask)
