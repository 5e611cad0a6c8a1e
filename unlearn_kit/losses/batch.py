"""What a target sees: one batch of one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from ..outputs import IGNORE

if TYPE_CHECKING:
    from .targets import Target

GoalKind = Literal["labels", "probabilities", "logits"]


class Goal(NamedTuple):
    """What outputs are led toward.

    ``kind`` is "labels" (int64 ``(B, ...)``, or the float mask of a single-logit output), "probabilities" in [0, 1]
    (``(B, C, ...)``; of both outcomes or of class 1 for a single logit) or "logits" (``(B, C, ...)``). Labels and
    probabilities that are ``IGNORE``, and logits that are NaN, leave a decision out.
    """

    kind: GoalKind
    values: Tensor

    def asked(self) -> Tensor:
        """Return ``IGNORE`` at decisions that are left out, ``(B, ...)``."""
        if self.kind == "labels":
            return self.values
        first = self.values[:, 0]
        return torch.where(first.isnan(), IGNORE, 0) if self.kind == "logits" else first

    def without(self, ignored: Tensor, *, look: bool = True) -> Goal:
        """Return the goal with the decisions left out where ``ignored`` is True, ``(B, ...)`` or ``(B, 1, ...)``.

        ``look`` at whether there are any, for which the host waits for another device, or leave them out unseen.
        """
        shape = self.values.shape if self.kind == "labels" else self.values[:, :1].shape
        if ignored.numel() != shape.numel() or (look and not ignored.any()):
            return self
        return Goal(
            self.kind, torch.where(ignored.reshape(shape), math.nan if self.kind == "logits" else IGNORE, self.values)
        )


Draws = Callable[[tuple[int, ...], torch.Generator], Tensor]


class Share(NamedTuple):
    """One process's part of a batch: the samples at ``place``, ``place + processes``, ... of ``samples``.

    ``generator`` gives the same numbers in every process.
    """

    place: int
    processes: int
    samples: int
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of one stream.

    Attributes:
        inputs: ``(B, ...)``, pixels in [0, 1].
        targets: ``(B,)`` labels or masks.
        indices: ``(B,)`` positions in the stream's data set.
        stream: its name.
        generator: source of random numbers for targets that draw any; another one in each of several processes.
        tables: goals computed beforehand for the whole stream, by target (see ``Cached``).
        share: where these are one process's share of a batch.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor | None = None
    stream: str = "forget"
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    tables: Mapping[Target, Goal] = field(default_factory=dict)
    share: Share | None = None

    def draw(self, numbers: Draws, shape: tuple[int, ...], *, dim: int = 0) -> Tensor:
        """Return random numbers for the samples: where these are a share of a batch, their share of the batch's.

        Several processes then draw what one process would.

        Args:
            numbers: Draws numbers of a shape from a generator, on its device.
            shape: What is wanted, samples along ``dim``.
            dim: The dimension of the samples.
        """
        if self.share is None:
            return numbers(shape, self.generator).to(self.inputs.device)
        whole = (*shape[:dim], self.share.samples, *shape[dim + 1 :])
        places = torch.arange(self.share.place, self.share.samples, self.share.processes)
        return numbers(whole, self.share.generator).index_select(dim, places).to(self.inputs.device)
