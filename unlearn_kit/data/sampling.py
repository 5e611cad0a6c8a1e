"""A seeded share of a data set, for what need not be measured on all of it."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import check_count
from ..seeding import generator
from .tensors import subset


def random_subset(dataset: Any, samples: int | None, *, seed: int) -> Any:
    """Return ``samples`` of the data set's samples, drawn without repetition.

    All of them, in order, when None or too many.

    Raises:
        ValueError: On a number that is no count.
        TypeError: On a number that is no count.
    """
    if samples is None or check_count("samples", samples) >= len(dataset):
        return dataset
    order = torch.randperm(len(dataset), generator=generator(seed, "random subset"))
    return subset(dataset, order[:samples].sort().values)
