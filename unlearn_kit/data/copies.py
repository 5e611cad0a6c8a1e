"""The same picture twice: in what is to be forgotten and in what stays, in training and in what judges."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import checked
from ..errors import check_count
from ..seeding import isolated
from .checks import check_dataset
from .tensors import in_order

SIDE = 16  # of the small picture whose brightness is compared
NAMED = 5  # pairs that are named before the rest is counted


@dataclass(frozen=True)
class Duplicate:
    """One picture that is in two places.

    Attributes:
        first, second: the name of a data set and the position in it.
        same_target: whether both have the same target.
        exact: whether every pixel is equal; else they look alike.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    same_target: bool
    exact: bool = True

    def __str__(self) -> str:
        places = " is ".join(f"{name}[{position}]" for name, position in (self.first, self.second))
        return places + ("" if self.exact else " nearly") + ("" if self.same_target else " with another target")


@dataclass(frozen=True)
class Duplicates:
    """What :func:`duplicates` found, in the order of the data sets.

    Attributes:
        pairs: each later copy beside the first.
    """

    pairs: tuple[Duplicate, ...]

    def between(self, first: str, second: str) -> tuple[Duplicate, ...]:
        """Return the pairs of one data set and another, or within one where both names are the same."""
        return tuple(pair for pair in self.pairs if {pair.first[0], pair.second[0]} == {first, second})

    def __str__(self) -> str:
        """Return a line for each two data sets that share pictures: how many, and which."""
        names = dict.fromkeys((pair.first[0], pair.second[0]) for pair in self.pairs)
        lines = []
        for first, second in names:
            pairs = [pair for pair in self.pairs if (pair.first[0], pair.second[0]) == (first, second)]
            where = f"within {first}" if first == second else f"of {first} in {second}"
            more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
            named = ", ".join(str(pair) for pair in pairs[:NAMED])
            lines.append(f"{len(pairs)} copies {where}: {named}{more}")
        return "\n".join(lines)


@checked
def duplicates(datasets: Mapping[str, Any], *, distance: int | None = None, workers: int = 0) -> Duplicates:
    """Find pictures that are there twice, within one data set or in two.

    Every sample is read once. A picture that is to be forgotten and stays in the retain data is not forgotten; one that
    was trained on and judges, flatters.

    Args:
        datasets: Data sets by name; an earlier one has the first of two copies.
        distance: None for pictures that are equal in every pixel. Otherwise also pictures that look alike: whose small
            grey pictures (16 x 16, each pixel brighter or darker than its right neighbour) differ in at most so many of
            their 256 bits, such as 8; pictures of one even brightness are left out.
        workers: Processes that decode.

    Returns:
        Each later copy beside the first, with whether their targets agree.

    Raises:
        TypeError: When one is no data set of ``(input, target)``.
        ValueError: When ``distance`` is negative.
    """
    if distance is not None:
        check_count("distance", distance, low=0)
    first: dict[bytes, int] = {}
    places: list[tuple[str, int]] = []
    targets: list[bytes] = []
    exact: list[tuple[int, int]] = []
    looks: list[Tensor] = []
    for name, dataset in datasets.items():
        check_dataset(f"datasets[{name!r}]", dataset)
        start = len(places)
        with isolated(0):  # a random transform of the inputs would draw from the caller
            for x, y in in_order(dataset, workers=workers):
                looks += [] if distance is None else [_look(x)]
                targets += _digests(y)
                for digest in _digests(x):
                    own = first.setdefault(digest, len(places))
                    exact += [(own, len(places))] if own < len(places) else []
                    places.append((name, len(places) - start))
    alike: list[tuple[int, int]] = []
    if distance is not None and places:
        copies = {later for _, later in exact}
        alike = [pair for pair in _alike(torch.cat(looks), distance) if not copies & set(pair)]
    return Duplicates(
        tuple(
            Duplicate(places[i], places[j], targets[i] == targets[j], exact=found is exact)
            for found in (exact, alike)
            for i, j in found
        )
    )


def _digests(values: Tensor) -> list[bytes]:
    """Return a digest of each sample's numbers and their shape."""
    # In one type, so that a label is the same in a byte as in an int.
    rows = (values.float() if values.is_floating_point() else values.long()).cpu().numpy()
    shape = f"{rows.shape[1:]}".encode()
    return [hashlib.blake2b(shape + np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in rows]


def _look(x: Tensor) -> Tensor:
    """Return where the small grey picture of each image gets brighter to the right: bool ``(B, 256)``."""
    flat = x if x.dim() > 2 else x.unsqueeze(1)
    grey = flat.float().reshape(len(x), -1, *flat.shape[-2:]).mean(1, keepdim=True)
    small = F.adaptive_avg_pool2d(grey, (SIDE, SIDE + 1))[:, 0]
    return (small[..., 1:] > small[..., :-1]).flatten(1).cpu()


def _alike(looks: Tensor, distance: int) -> list[tuple[int, int]]:
    """Return pairs ``i < j`` of looks that differ in at most ``distance`` bits, each j beside its first i."""
    signs, found = looks.float() * 2 - 1, []
    plain = ~looks.any(1)
    for start in range(0, len(looks), 1024):
        # Of +-1 vectors of n numbers, the product is n less twice the number that differ.
        apart = (looks.shape[1] - signs[start : start + 1024] @ signs.T) / 2
        near = (apart <= distance) & ~plain & ~plain[start : start + 1024, None]
        rows = torch.arange(start, start + len(near))[:, None]
        near &= torch.arange(len(looks)) < rows
        hits = near.any(1).nonzero().flatten()
        found += [(int(near[row].nonzero()[0]), start + int(row)) for row in hits]
    return found
