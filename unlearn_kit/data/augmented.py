"""Samples that a transform changes when they are read: torchvision's v2 transforms, or any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .checks import is_mask

Augment = Callable[..., Any]


class Augmented(Dataset[tuple[Tensor, Any]]):
    """A data set whose inputs, and with them its masks, a transform changes anew whenever one is read.

    Args:
        dataset: Map-style, of ``(input, target)``.
        augment: Called as ``augment(x)``, or of masks as ``augment(x, mask)`` with torchvision's ``tv_tensors``, by
            which its v2 transforms move both alike. It may draw from the global random states of Python, NumPy, torch.

    Raises (when read):
        TypeError: When it raises, returns no tensor, or of masks no pair of them.
    """

    def __init__(self, dataset: Any, augment: Augment) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        x, y = self.dataset[index]
        if not is_mask(y):
            return _plain(self._changed(x)), y
        from torchvision import tv_tensors

        made = self._changed(tv_tensors.Image(x), tv_tensors.Mask(torch.as_tensor(y)))
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            raise TypeError(f"expected augment to return an image and its mask, but got {type(made).__name__}")
        return _plain(made[0]), _plain(made[1])

    def _changed(self, *parts: Tensor) -> Any:
        try:
            return self.augment(*parts)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise TypeError(f"expected augment to take what has shape {shapes}, but it raised {error!r}") from error


def _plain(made: Any) -> Tensor:
    """Return a tensor without torchvision's class."""
    if not isinstance(made, (Tensor, np.ndarray)):
        raise TypeError(f"expected augment to return a Tensor, but got {type(made).__name__}")
    return torch.as_tensor(made).as_subclass(Tensor)
