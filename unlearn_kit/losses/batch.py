"""What a target sees: one batch of one stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

    def without(self, ignored: Tensor) -> Goal:
        """Return the goal with the decisions left out where ``ignored`` is True, ``(B, ...)`` or ``(B, 1, ...)``."""
        shape = self.values.shape if self.kind == "labels" else self.values[:, :1].shape
        if ignored.numel() != shape.numel() or not ignored.any():
            return self
        return Goal(
            self.kind, torch.where(ignored.reshape(shape), math.nan if self.kind == "logits" else IGNORE, self.values)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of one stream.

    Attributes:
        inputs: ``(B, ...)``, pixels in [0, 1].
        targets: ``(B,)`` labels or masks.
        indices: ``(B,)`` positions in the stream's data set.
        stream: its name.
        generator: source of random numbers for targets that draw any.
        tables: goals computed beforehand for the whole stream, by target (see ``Cached``).
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor | None = None
    stream: str = "forget"
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    tables: Mapping[Target, Goal] = field(default_factory=dict)
