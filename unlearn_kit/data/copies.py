"""The same picture twice: in what is to be forgotten and in what stays, in training and in what judges."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import checked
from ..errors import check_count
from ..seeding import generator, isolated
from .checks import check_dataset
from .sample_files import files_of
from .tensors import in_order, subset

SIDE = 16  # of the small picture whose brightness is compared
NAMED = 5  # pairs that are named before the rest is counted


@dataclass(frozen=True)
class Duplicate:
    """One picture that is in two places.

    Attributes:
        first, second: the name of a data set and the position in it.
        same_target: whether both have the same target.
        exact: whether every pixel is equal; else they look alike.
        files: their file names, empty where the data sets do not know them.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    same_target: bool
    exact: bool = True
    files: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        both = zip((self.first, self.second), self.files, strict=True)
        places = " is ".join(f"{name}[{place}]{f' ({file})' if file else ''}" for (name, place), file in both)
        return places + ("" if self.exact else " nearly") + ("" if self.same_target else " with another target")


@dataclass(frozen=True)
class Duplicates:
    """What :func:`duplicates` found, in the order of the data sets.

    Attributes:
        pairs: each later copy beside the first.
        read: number of samples that were looked at.
        total: number of samples that there are.
    """

    pairs: tuple[Duplicate, ...]
    read: int = 0
    total: int = 0

    def between(self, first: str, second: str) -> tuple[Duplicate, ...]:
        """Return the pairs of one data set and another, or within one where both names are the same."""
        return tuple(pair for pair in self.pairs if {pair.first[0], pair.second[0]} == {first, second})

    def by_sets(self) -> dict[tuple[str, str], str]:
        """Return of each two data sets that share pictures how many these are, and which, in words."""
        found: dict[tuple[str, str], list[Duplicate]] = {}
        for pair in self.pairs:
            found.setdefault((pair.first[0], pair.second[0]), []).append(pair)
        words = {}
        for (first, second), pairs in found.items():
            where = f"within {first}" if first == second else f"of {first} in {second}"
            near = sum(not pair.exact for pair in pairs)
            alike = f" ({near} of them look alike)" if near else ""
            more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
            named = ", ".join(str(pair) for pair in pairs[:NAMED])
            words[first, second] = f"{len(pairs)} copies {where}{alike}: {named}{more}"
        return words

    def __str__(self) -> str:
        """Return a line for each two data sets that share pictures: how many, and which."""
        return "\n".join(self.by_sets().values())


@checked
def duplicates(
    datasets: Mapping[str, Any], *, distance: int | None = None, limit: int | None = None, workers: int = 0
) -> Duplicates:
    """Find pictures that are there twice, within one data set or in two.

    Every sample is read once, which takes milliseconds for a picture that is decoded. A picture that is to be forgotten
    and stays in the retain data is not forgotten; one that was trained on and judges, flatters.

    Args:
        datasets: Data sets by name; an earlier one has the first of two copies.
        distance: None for pictures that are equal in every pixel. Otherwise also pictures that look alike: whose small
            grey pictures (16 x 16, each pixel brighter or darker than its right neighbour) differ in at most so many of
            their 256 bits, such as 8, or fewer in proportion where large areas are even. Pictures of fewer than 16 x 17
            pixels are left out. The time to compare them grows with the square of their number: seconds for 20,000.
        limit: None to read everything. Otherwise the number of samples to read, at least one a data set: up to half of
            them of the first, and of the others in proportion, drawn at random.
        workers: Processes that decode.

    Returns:
        Each later copy beside the first, with whether their targets agree.

    Raises:
        TypeError: When one is no data set of ``(input, target)``.
        ValueError: When ``distance`` is negative, or ``limit`` is below 1.
    """
    if distance is not None:
        check_count("distance", distance, low=0)
    for name, dataset in datasets.items():
        check_dataset(f"datasets[{name!r}]", dataset)
    drawn = _drawn([len(dataset) for dataset in datasets.values()], limit)
    first: dict[bytes, int] = {}
    places: list[tuple[str, int]] = []
    targets: list[bytes] = []
    exact: list[tuple[int, int]] = []
    looks: list[Tensor] = []
    files: list[str] = []
    for (name, dataset), chosen in zip(datasets.items(), drawn, strict=True):
        known = files_of(dataset)
        files += ["" if known is None else known[place][0].name for place in chosen.tolist()]
        start = len(places)
        with isolated(0):  # a random transform of the inputs would draw from the caller
            for x, y in in_order(subset(dataset, chosen), workers=workers):
                looks += [] if distance is None else [_look(x)]
                targets += _digests(y)
                for digest in _digests(x):
                    own = first.setdefault(digest, len(places))
                    exact += [(own, len(places))] if own < len(places) else []
                    places.append((name, int(chosen[len(places) - start])))
    alike: list[tuple[int, int]] = []
    if distance is not None and places:
        copies = {later for _, later in exact}
        alike = [pair for pair in _alike(torch.cat(looks), distance) if not copies & set(pair)]
    pairs = tuple(
        Duplicate(places[i], places[j], targets[i] == targets[j], found is exact, (files[i], files[j]))
        for found in (exact, alike)
        for i, j in found
    )
    return Duplicates(pairs, len(places), sum(map(len, datasets.values())))


def _drawn(sizes: Sequence[int], limit: int | None) -> list[Tensor]:
    """Return the positions to read of data sets of these sizes, in order."""
    wanted = list(sizes)
    if limit is not None and sum(sizes) > check_count("limit", limit):
        wanted[0] = min(sizes[0], max(limit // 2, limit - sum(sizes[1:])))
        others = sum(sizes[1:])
        wanted[1:] = [(limit - wanted[0]) * size // others for size in sizes[1:]] if others else []
    return [
        torch.arange(size)
        if count == size
        else torch.randperm(size, generator=generator(0, "copies", place))[: min(size, max(count, 1))].sort().values
        for place, (size, count) in enumerate(zip(sizes, wanted, strict=True))
    ]


def _digests(values: Tensor) -> list[bytes]:
    """Return a digest of each sample's numbers and their shape."""
    # In one type, so that a label is the same in a byte as in an int.
    rows = (values.float() if values.is_floating_point() else values.long()).cpu().numpy()
    shape = f"{rows.shape[1:]}".encode()
    return [hashlib.blake2b(shape + np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in rows]


def _look(x: Tensor) -> Tensor:
    """Return where the small grey picture of each image gets brighter to the right: bool ``(B, 256)``."""
    flat = x if x.dim() > 2 else x.unsqueeze(1)
    if flat.shape[-2] < SIDE or flat.shape[-1] <= SIDE:  # such small pictures of different things look alike
        return torch.zeros(len(x), SIDE * SIDE, dtype=torch.bool)
    grey = flat.float().reshape(len(x), -1, *flat.shape[-2:]).mean(1, keepdim=True)
    small = F.adaptive_avg_pool2d(grey, (SIDE, SIDE + 1))[:, 0]
    return (small[..., 1:] > small[..., :-1]).flatten(1).cpu()


def _alike(looks: Tensor, distance: int) -> list[tuple[int, int]]:
    """Return pairs ``i < j`` of looks that differ in at most ``distance`` bits, each j beside its first i."""
    signs, found = looks.float() * 2 - 1, []
    # Even areas have no bits and differ in none: what is left to compare is less than the half of a usual picture.
    bits = looks.sum(1)
    for start in range(0, len(looks), 1024):
        own = bits[start : start + 1024, None]
        # Of +-1 vectors of n numbers, the product is n less twice the number that differ.
        apart = (looks.shape[1] - signs[start : start + 1024] @ signs.T) / 2
        near = (apart <= distance) & (apart * looks.shape[1] <= distance * (bits + own)) & (bits > 0) & (own > 0)
        rows = torch.arange(start, start + len(near))[:, None]
        near &= torch.arange(len(looks)) < rows
        hits = near.any(1).nonzero().flatten()
        found += [(int(near[row].nonzero()[0]), start + int(row)) for row in hits]
    return found
