"""Samples that are decoded one by one, by worker processes where asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from .forms import check_pair


class BatchReader:
    """A reader of one data set, whose worker processes may live from one reading to the next.

    Args:
        dataset: Map-style, of ``(input, target)``.
        workers: Processes that decode; 0 decodes in this one.
        kept: Whether they live on between readings: to start them takes seconds where they import much. One reading at
            a time.
        pinned: Whether batches are put into memory from which a GPU copies while it works.
    """

    def __init__(self, dataset: Any, workers: int, *, kept: bool = False, pinned: bool = False) -> None:
        self._asked = _Asked()
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._asked,
            num_workers=workers,
            collate_fn=collated,
            persistent_workers=kept and workers > 0,
            pin_memory=pinned,
            # Its own keeps it from drawing the seeds of workers out of the caller's random state.
            generator=torch.Generator().manual_seed(0),
        )

    def read(self, batches: Iterable[list[int]]) -> Iterator[Any]:
        """Yield the batches of samples at these positions, asked for as they are read."""
        self._asked.batches = batches
        return iter(self._loader)


class _Asked:
    """The positions of the reading that is under way."""

    batches: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class UnequalSamplesError(ValueError):
    """Samples of several shapes make no batch."""


def collated(samples: Sequence[Any]) -> Any:
    """Return a batch of samples ``(input, target)``.

    Raises:
        TypeError: When one is no pair, or not of numbers.
        UnequalSamplesError: When they differ in shape.
    """
    for sample in samples:
        check_pair("dataset", sample)
    try:
        return default_collate(list(samples))
    except (TypeError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else UnequalSamplesError
        raise kind(f"expected samples of dataset that make a batch, but got: {error}") from error
