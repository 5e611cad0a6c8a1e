"""The goals of cached targets, computed once a run or once an epoch, by all processes together."""

from __future__ import annotations

import torch

from ..losses import Batch, Cached, Goal, Target
from ..losses.batch import Share
from ..seeding import generator
from .devices import Devices
from .phases import Leg
from .streams import Stream

# Cached targets are computed for so many samples at once, or for fewer whose inputs hold so many numbers: what a target
# keeps of each, such as the noise of every step of a search, grows with both. The batch size plays no part: random
# numbers are drawn for the samples of a chunk together.
CHUNK, CHUNK_NUMBERS = 512, 2**22


class Tables:
    """What cached targets say of the samples of a run's streams, computed when it is first asked for.

    Args:
        seed: The seed of the run.
        devices: Where targets are computed; of several processes, each computes its share of every chunk.
    """

    def __init__(self, seed: int, devices: Devices) -> None:
        self.seed, self.devices = seed, devices
        self._held: dict[tuple[str, str], dict[Target, Goal]] = {}
        self._cached: dict[tuple[str, str], tuple[Cached, ...]] = {}

    def of(self, leg: Leg, stream: Stream, step: int) -> dict[Target, Goal]:
        """Return the goals of a stream's cached targets, for its current epoch or for the whole run."""
        place = (leg.key, stream.name)
        if place not in self._cached:
            self._cached[place] = leg.phase.terms.cached_targets(stream.name)
        cached = self._cached[place]
        if not cached:
            return {}
        tables = self._held.setdefault(place, {})
        for target in cached:
            due = target.refresh == "epoch" and step % stream.batches_per_epoch == 0
            if target not in tables or due:
                epoch = step // stream.batches_per_epoch if target.refresh == "epoch" else 0
                keys = (leg.key, stream.name, "table", epoch)
                tables[target] = self._compute(stream, target.target, keys, epoch, leg.total)
        return tables

    def _compute(self, stream: Stream, target: Target, keys: tuple[object, ...], epoch: int, total: int) -> Goal:
        """Compute the target's goals for the samples that the stream may yield in one of its passes.

        Others stay zero.
        """
        first = epoch * stream.batches_per_epoch
        passed = [stream.indices(n) for n in range(first, min(first + stream.batches_per_epoch, total))]
        rows = torch.cat(passed).sort().values if stream.weights is None else torch.arange(len(stream.dataset))
        chunks = rows.split(chunk_size(torch.as_tensor(stream.dataset[int(rows[0])][0]).numel()))
        place, processes = self.devices.part
        common = generator(self.seed, *keys)
        own = common if place == 0 else generator(self.seed, *keys, place)
        # A chunk of fewer samples than there are processes is computed by all of them.
        shared = [len(chunk) >= processes > 1 for chunk in chunks]
        parts = [chunk[place::processes] if split else chunk for chunk, split in zip(chunks, shared, strict=True)]
        table, kind = None, None
        samples = stream.samples((epoch, positions) for positions in parts)
        for chunk, at, split, (x, y) in zip(chunks, parts, shared, samples, strict=True):
            share = Share(place, processes, len(chunk), common) if split else None
            x, y = x.to(self.devices.device), y.to(self.devices.device)
            kind, values = target(Batch(x, y, at, stream.name, own if split else common, share=share))
            if table is None:
                table = values.new_zeros(len(stream.dataset), *values.shape[1:])
            if split or place == 0:
                table[at.to(table.device)] = values
        if table is None or kind is None:
            raise ValueError(f"expected stream {stream.name!r} to yield samples, but got none")
        return Goal(kind, self.devices.joined(table))


def chunk_size(numbers: int) -> int:
    """Return how many samples' cached targets to compute at once, where one sample's input has so many numbers."""
    return max(1, min(CHUNK, CHUNK_NUMBERS // max(1, numbers)))
