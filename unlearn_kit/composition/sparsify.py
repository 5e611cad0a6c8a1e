"""Which entries of a task vector are kept: the largest, or some at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..seeding import generator
from .state import Layout, pieces, tensors_of

Thinned = Callable[[list[Tensor]], list[Tensor]]
DIGIT = 16  # bits that one pass over the numbers settles


def keep_largest(
    base: nn.Module, models: Sequence[nn.Module], layout: Layout, density: float, per_tensor: bool = False
) -> Callable[[str], Thinned]:
    """Return task vectors with 0 in place of all but the ``density`` of largest magnitude.

    Of all parameters together, or ``per_tensor`` of each by itself.
    """
    start = tensors_of(base)
    groups = [(name,) for name in layout.parameters] if per_tensor else [tuple(layout.parameters)]
    least: dict[str, list[float]] = {name: [] for name in layout.parameters}
    for model in models:
        own = tensors_of(model)
        for group in groups:

            def magnitudes(own: dict[str, Tensor] = own, group: tuple[str, ...] = group) -> Iterator[Tensor]:
                for name in group:
                    for x, (y,) in pieces([own[name], start[name]]):
                        yield (x.to(y.device, torch.float64) - y.to(torch.float64)).abs().flatten()

            count = sum(own[name].numel() for name in group)
            bound = 0.0 if density == 1 or count == 0 else kth_largest(magnitudes, max(1, round(density * count)))
            for name in group:
                least[name].append(bound)

    def rule(name: str) -> Thinned:
        def thinned(vectors: list[Tensor]) -> list[Tensor]:
            return [v.where(v.abs() >= bound, 0.0) for v, bound in zip(vectors, least[name], strict=True)]

        return thinned

    return rule


def keep_random(count: int, density: float, seed: int) -> Callable[[str], Thinned]:
    """Return task vectors of which each entry is kept with the chance ``density``, and then divided by it."""

    def rule(name: str) -> Thinned:
        # Drawn on the CPU, so that every device sees the same entries.
        draws = [generator(seed, "dare", place, name) for place in range(count)]

        def thinned(vectors: list[Tensor]) -> list[Tensor]:
            if density == 1:
                return vectors
            kept = [torch.rand(v.shape, generator=draw) < density for v, draw in zip(vectors, draws, strict=True)]
            return [(v / density).where(keep.to(v.device), 0.0) for v, keep in zip(vectors, kept, strict=True)]

        return thinned

    return rule


def kth_largest(numbers: Callable[[], Iterator[Tensor]], k: int) -> float:
    """Return the k-th largest (from 1) of non-negative float64 numbers that come in chunks, without holding them.

    The bits of such numbers, read as integers, are in the order of the numbers: each pass counts the next digit of
    those that begin like the answer.
    """
    prefix = 0
    for shift in range(64 - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64)
        for chunk in numbers():
            bits = chunk.contiguous().view(torch.int64)
            alike = bits if shift + DIGIT == 64 else bits[bits >> (shift + DIGIT) == prefix]
            counts += torch.bincount((alike >> shift) & (2**DIGIT - 1), minlength=2**DIGIT).cpu()
        at_least = counts.flip(0).cumsum(0)
        place = int((at_least < k).sum())
        k -= int(at_least[place - 1]) if place else 0
        prefix = prefix << DIGIT | (2**DIGIT - 1 - place)
    return torch.tensor(prefix, dtype=torch.int64).view(torch.float64).item()
