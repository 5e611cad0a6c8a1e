"""What an algorithm returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class UnlearnResult:
    """A revised model and how it came to be.

    Attributes:
        model: the revised model, on the device it was revised on, each module in the mode it was given in.
        history: one record a logged step: phase, step, epoch, total, and the value of each part of the objective.
        seconds: wall time of the whole revision.
        method: name of the algorithm.
        config: its options, as given or by default.
        details: what else a method has to tell (by its own docstring).
    """

    model: nn.Module
    history: list[dict[str, Any]]
    seconds: float
    method: str
    config: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
