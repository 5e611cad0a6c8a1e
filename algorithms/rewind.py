"""Rewinding: the epoch whose error on the forget data is that of data the model never saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import labels_of, subset
from unlearn_kit.engine import Callback, Run
from unlearn_kit.modules import cpu_state

from .masks import EVERYTHING, Part, accuracy_within, part_to_forget


class Rewind(Callback):
    """Keep each epoch's weights, and in the end choose those whose forget error is nearest the last validation error.

    Args:
        forget, validation: data sets.
        phase, steps: an epoch ends after every ``steps`` steps of this phase.
        part: which decisions alone count; all of them where it is empty.

    Attributes:
        errors: On the forget data, one an epoch.
        chosen: The epoch, from 0.

    Raises:
        ValueError: When ``validation`` is empty.

    Source: Kurmanji et al. 2023, arXiv 2302.09880, SCRUB+R.
    """

    chooses = True

    def __init__(self, forget: Any, validation: Any, phase: str, steps: int, *, part: Part = EVERYTHING) -> None:
        if len(validation) == 0:
            raise ValueError("expected validation to hold at least one sample, but got an empty data set")
        self.forget, self.validation, self.phase, self.steps = forget, validation, phase, steps
        self.part = part
        self.errors: list[float] = []
        self.chosen: int | None = None
        self._weights: list[dict[str, Tensor]] = []

    def on_step(self, run: Run) -> None:
        """Measure at the end of an epoch."""
        if run.phase == self.phase and run.step % self.steps == 0:
            self.errors.append(error(run.model, self.forget, self.part))
            self._weights.append(cpu_state(run.model))

    def on_end(self, run: Run) -> None:
        """Choose."""
        if self._weights:
            wanted = error(run.model, self.validation, self.part)
            self.chosen = min(range(len(self.errors)), key=lambda epoch: abs(self.errors[epoch] - wanted))
            run.chosen = self._weights[self.chosen]


def error(model: nn.Module, dataset: Any, part: Part = EVERYTHING) -> float:
    """Return the share of samples (or of pixels, of findings, of a ``part`` of these) predicted wrong, in [0, 1].

    Raises:
        ValueError: When there is none.
    """
    found = accuracy_within(model, dataset, part)
    if found is None:
        raise ValueError(f"expected data with {part} to rewind by, but got none")
    return 1 - found


def held_out(task: UnlearnTask) -> Any:
    """Return validation data distributed like the forget data.

    Raises:
        ValueError: When the task has none.
    """
    chosen = task.forget_validation
    if len(chosen) == 0 and not part_to_forget(task):  # Of a mask class or a finding, the retained data hold none.
        chosen, labels = task.retain_validation, None
        if task.kind == "classification" and len(chosen):
            labels, forgotten = labels_of(chosen), labels_of(task.forget)
        if labels is not None and forgotten is not None:
            chosen = subset(chosen, torch.isin(labels, forgotten))
    if len(chosen) == 0:
        raise ValueError("expected validation with rewind=True, but got None and a task without validation data")
    return chosen
