"""Streams: which samples come in which step, as a pure function of the seed and the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..data.augmented import Augment, Augmented
from ..data.checks import check_dataset
from ..data.loading import BatchReader
from ..data.tensors import Drawn, held_in_tensors, holds_bytes, iterate
from ..errors import check_count
from ..seeding import derive, generator


@checked
class Stream:
    """A data set drawn from in shuffled passes, cycled without end, or by weight with replacement.

    Batch number n belongs to pass ``n // batches_per_epoch`` and depends on the seed, the stream's name and n alone, so
    a resumed run reads the same samples. The last batch of a pass may be smaller; nothing is dropped.

    A data set that draws random numbers when it is read (an augmentation) finds the global random states of Python,
    NumPy and torch seeded for the seed, the stream's name, the pass and the sample, with any number of workers.

    Args:
        name: The name of the stream.
        dataset: Map-style, of ``(input, target)``.
        batch_size: Samples a batch, at least 1.
        seed: The seed of the order, and of what the data set draws.
        workers: Processes that decode, from the first batch to the last; ignored for data held in tensors.
        weights: How often each sample is drawn, ``(N,)``, at least 0, by their ratios; None for shuffled passes.
        augment: What changes samples when they are read for training, as ``data.augmented.Augmented`` says;
            :meth:`samples` yields them as they are.
        pinned: Whether what is decoded is put into memory from which a GPU copies while it works.
        scaled: False to yield images that are held as bytes as they are.

    Raises:
        ValueError: When the data set is empty, an input is not finite, or the weights do not fit.
        TypeError: When it is no data set of ``(input, target)``.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        batch_size: int,
        seed: int,
        *,
        workers: int = 0,
        weights: Tensor | None = None,
        augment: Augment | None = None,
        pinned: bool = False,
        scaled: bool = True,
    ) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        check_dataset(f"dataset of stream {name!r}", dataset, empty=False)
        self.name, self.dataset, self.seed, self.workers = name, dataset, seed, workers
        self.weights = None if weights is None else check_weights(name, weights, len(dataset))
        self.batches_per_epoch = math.ceil(len(dataset) / batch_size)
        self.trained_on = dataset if augment is None else Augmented(dataset, augment)
        if augment is not None:
            check_dataset(f"what augment makes of stream {name!r}", self.trained_on)
        self.pinned, self.as_bytes = pinned, not scaled and holds_bytes(self.trained_on)
        self._loader: BatchReader | None = None
        self._order: tuple[int, Tensor] | None = None

    def indices(self, number: int) -> Tensor:
        """Return the positions ``(B,)`` of batch ``number`` (0-based)."""
        if self.weights is not None:
            source = generator(self.seed, "draw", self.name, number)
            return torch.multinomial(self.weights, self.batch_size, replacement=True, generator=source)
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, "order", self.name, epoch)
            self._order = (epoch, torch.randperm(len(self.dataset), generator=source))
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def divides(self, number: int, world: int) -> bool:
        """Return whether batch ``number`` is read in shares by so many processes."""
        return self.size(number) % world == 0

    def size(self, number: int) -> int:
        """Return the samples of batch ``number``."""
        if self.weights is not None or (number + 1) % self.batches_per_epoch:
            return self.batch_size
        return len(self.dataset) - (self.batches_per_epoch - 1) * self.batch_size

    def read(self, start: int, stop: int, part: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield ``(indices, inputs, targets)`` of batches ``start`` to ``stop - 1``.

        ``part=(i, n)`` yields the i-th of n interleaved shares of each batch: one process's share among n. A batch that
        does not divide evenly is read whole by all of them, so that the mean over processes is the mean over the batch.
        """
        rank, world = part
        numbers = range(start, stop)
        batches = ((self.indices(number), self.divides(number, world)) for number in numbers)
        shares = (batch[rank::world] if divides else batch for batch, divides in batches)
        asked, told = itertools.tee(shares)
        passes = (number // self.batches_per_epoch for number in numbers)
        for indices, (x, y) in zip(told, self._kept(zip(passes, asked, strict=True)), strict=True):
            yield indices, x, y

    def _kept(self, batches: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield as :meth:`samples`, by workers that stay for the next reading: phases that take turns read often."""
        if held_in_tensors(self.trained_on):
            return iterate(self.trained_on, (positions for _, positions in batches), scaled=not self.as_bytes)
        drawn = Drawn(self.trained_on, derive(self.seed, "draws", self.name))
        if self._loader is None:
            self._loader = BatchReader(drawn, self.workers, kept=True, pinned=self.pinned)
        size = len(self.dataset)
        return iterate(drawn, (epoch * size + positions for epoch, positions in batches), loader=self._loader)

    def samples(self, batches: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(inputs, targets)`` of each ``(pass, positions)``; inside ``seeding.isolated`` only."""
        if held_in_tensors(self.dataset):
            return iterate(self.dataset, (positions for _, positions in batches))
        size = len(self.dataset)
        drawn = Drawn(self.dataset, derive(self.seed, "draws", self.name))
        return iterate(drawn, (epoch * size + positions for epoch, positions in batches), workers=self.workers)


def check_weights(name: str, weights: Tensor, samples: int) -> Tensor:
    """Return the weights by which the samples of a stream are drawn, ``(N,)`` float64 on the CPU.

    Raises:
        ValueError: When there is not one a sample, one is negative or not finite, or all are 0.
    """
    if weights.shape != (samples,):
        raise ValueError(
            f"expected sampling of stream {name!r} to hold one weight for each of its {samples} samples, "
            f"but got shape {tuple(weights.shape)}"
        )
    found = weights.detach().double().cpu()
    if not (torch.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise ValueError(f"expected weights of stream {name!r} of at least 0, not all of them 0, but got others")
    return found
