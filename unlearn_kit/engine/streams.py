"""Streams: which samples come in which step, as a pure function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..data.tensors import iterate
from ..errors import check_count
from ..seeding import generator


class Stream:
    """A data set drawn from in shuffled passes, cycled without end.

    Batch number n belongs to pass ``n // batches_per_epoch`` and depends on the seed, the stream's name and n alone, so
    a resumed run reads the same samples. The last batch of a pass may be smaller; nothing is dropped.

    Raises: ValueError when the data set is empty.
    """

    def __init__(self, name: str, dataset: Any, batch_size: int, seed: int, *, workers: int = 0) -> None:
        check_count("batch_size", batch_size)
        if len(dataset) == 0:
            raise ValueError(f"expected stream {name!r} to hold at least one sample, but got an empty data set")
        self.name, self.dataset, self.batch_size, self.seed, self.workers = (
            name,
            dataset,
            batch_size,
            seed,
            workers,
        )
        self.batches_per_epoch = math.ceil(len(dataset) / batch_size)
        self._order: tuple[int, Tensor] | None = None

    def indices(self, number: int) -> Tensor:
        """Positions ``(B,)`` of batch ``number`` (0-based)."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, "order", self.name, epoch)
            self._order = (epoch, torch.randperm(len(self.dataset), generator=source))
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def read(self, start: int, stop: int, part: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield ``(indices, inputs, targets)`` of batches ``start`` to ``stop - 1``.

        ``part=(i, n)`` yields the i-th of n interleaved shares of each batch: one process's share among n. A batch too
        small to share is read whole by all of them.
        """
        rank, world = part
        batches = [self.indices(number) for number in range(start, stop)]
        chosen = [batch[rank::world] if len(batch) >= world else batch for batch in batches]
        for index, (x, y) in zip(chosen, iterate(self.dataset, chosen, workers=self.workers), strict=True):
            yield index, x, y
