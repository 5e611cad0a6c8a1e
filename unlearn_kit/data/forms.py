"""What form a data set has, told without reading a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

FORM = "a map-style data set of (input, target)"


def check_form(name: str, dataset: Any) -> None:
    """Refuse what is no map-style data set, without reading a sample.

    Args:
        name: The argument, for the error.
        dataset: What came as one.

    Raises:
        TypeError: With the form expected, the form that came and what to do.
    """
    if isinstance(dataset, DataLoader):
        raise TypeError(f"expected {name} to be {FORM}, but got a DataLoader; pass its .dataset")
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"expected {name} to be {FORM}, but got {type(dataset).__name__}, an IterableDataset, whose samples have "
            "no positions; read it into a list of pairs or a TensorDataset"
        )
    if isinstance(dataset, (Tensor, np.ndarray)) or _are_arrays(dataset):
        raise TypeError(
            f"expected {name} to be {FORM}, but got {form_of(dataset)}; pass TensorDataset(inputs, targets)"
        )
    mapped = isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")
    if not mapped or isinstance(dataset, (str, bytes, Mapping)):
        raise TypeError(f"expected {name} to be {FORM}, but got {form_of(dataset)}")


def check_pair(name: str, sample: Any) -> None:
    """Refuse a sample of the data set ``name`` that is no pair.

    Raises:
        TypeError: With what came and what to do.
    """
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise TypeError(
            f"expected every sample of {name} to be a pair (input, target), but got {form_of(sample)}; wrap it in "
            "a data set whose __getitem__ returns the pair"
        )


def form_of(value: Any) -> str:
    """Return what came, in words."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with the keys {[str(key) for key in value][:6]}"
    if isinstance(value, (tuple, list)) and len(value) <= 6:
        return f"{type(value).__name__} of ({', '.join(type(part).__name__ for part in value)})"
    return "None" if value is None else f"{type(value).__name__}"


def _are_arrays(dataset: Any) -> bool:
    """Return whether it is inputs and targets side by side, ``(X, Y)``, rather than pairs."""
    return (
        isinstance(dataset, (tuple, list))
        and 0 < len(dataset) <= 3
        and all(isinstance(part, (Tensor, np.ndarray)) for part in dataset)
    )
