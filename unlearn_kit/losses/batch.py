"""What a target sees: one batch of one stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .targets import Target

GoalKind = Literal["labels", "probabilities", "logits"]

# A label, or a probability of every class, that asks for nothing: distances leave such decisions out.
IGNORE = -1


class Goal(NamedTuple):
    """What outputs are led toward.

    ``kind`` is "labels" (int64 ``(B, ...)``, or the float mask of a single-logit output), "probabilities" in [0, 1]
    (``(B, C, ...)``; of both outcomes or of class 1 for a single logit) or "logits" (``(B, C, ...)``). Labels and
    probabilities that are ``IGNORE`` leave a decision out.
    """

    kind: GoalKind
    values: Tensor


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
