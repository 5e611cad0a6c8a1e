"""Streams: which samples come in which step, as a pure function of the seed and the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..data.checks import check_dataset
from ..data.tensors import Drawn, held_in_tensors, iterate
from ..errors import check_count
from ..seeding import derive, generator


@checked
class Stream:
    """A data set drawn from in shuffled passes, cycled without end.

    Batch number n belongs to pass ``n // batches_per_epoch`` and depends on the seed, the stream's name and n alone, so
    a resumed run reads the same samples. The last batch of a pass may be smaller; nothing is dropped.

    A data set that draws random numbers when it is read (an augmentation) finds the global random states of Python,
    NumPy and torch seeded for the seed, the stream's name, the pass and the sample, with any number of workers.

    Args:
        name: The name of the stream.
        dataset: Map-style, of ``(input, target)``.
        batch_size: Samples a batch, at least 1.
        seed: The seed of the order, and of what the data set draws.
        workers: Processes that decode; ignored for data held in tensors.

    Raises:
        ValueError: When the data set is empty, or an input is not finite.
        TypeError: When it is no data set of ``(input, target)``.
    """

    def __init__(self, name: str, dataset: Any, batch_size: int, seed: int, *, workers: int = 0) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        check_dataset(f"dataset of stream {name!r}", dataset, empty=False)
        self.name, self.dataset, self.seed, self.workers = name, dataset, seed, workers
        self.batches_per_epoch = math.ceil(len(dataset) / batch_size)
        self._order: tuple[int, Tensor] | None = None

    def indices(self, number: int) -> Tensor:
        """Return the positions ``(B,)`` of batch ``number`` (0-based)."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, "order", self.name, epoch)
            self._order = (epoch, torch.randperm(len(self.dataset), generator=source))
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def read(self, start: int, stop: int, part: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield ``(indices, inputs, targets)`` of batches ``start`` to ``stop - 1``.

        ``part=(i, n)`` yields the i-th of n interleaved shares of each batch: one process's share among n. A batch that
        does not divide evenly is read whole by all of them, so that the mean over processes is the mean over the batch.
        """
        rank, world = part
        numbers = range(start, stop)
        batches = (self.indices(number) for number in numbers)
        shares = (batch[rank::world] if len(batch) % world == 0 else batch for batch in batches)
        asked, told = itertools.tee(shares)
        passes = (number // self.batches_per_epoch for number in numbers)
        for indices, (x, y) in zip(told, self.samples(zip(passes, asked, strict=True)), strict=True):
            yield indices, x, y

    def samples(self, batches: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(inputs, targets)`` of each ``(pass, positions)``; inside ``seeding.isolated`` only."""
        if held_in_tensors(self.dataset):
            return iterate(self.dataset, (positions for _, positions in batches))
        size = len(self.dataset)
        drawn = Drawn(self.dataset, derive(self.seed, "draws", self.name))
        return iterate(drawn, (epoch * size + positions for epoch, positions in batches), workers=self.workers)
