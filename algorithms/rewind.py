"""Rewinding: the epoch whose error on the forget data is that of data the model never saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import labels_of, subset
from unlearn_kit.engine import Callback, Run
from unlearn_kit.modules import cpu_state

from .masks import accuracy_within, mask_classes


class Rewind(Callback):
    """Keep each epoch's weights, and in the end choose those whose forget error is nearest the last validation error.

    Args:
        forget, validation: data sets.
        phase, steps: an epoch ends after every ``steps`` steps of this phase.
        labels: mask classes whose pixels alone count; none for whole samples.

    Attributes:
        errors: On the forget data, one an epoch.
        chosen: The epoch, from 0.

    Raises:
        ValueError: When ``validation`` is empty.

    Source: Kurmanji et al. 2023, arXiv 2302.09880, SCRUB+R.
    """

    chooses = True

    def __init__(self, forget: Any, validation: Any, phase: str, steps: int, *, labels: tuple[int, ...] = ()) -> None:
        if len(validation) == 0:
            raise ValueError("expected validation to hold at least one sample, but got an empty data set")
        self.forget, self.validation, self.phase, self.steps = forget, validation, phase, steps
        self.labels = labels
        self.errors: list[float] = []
        self.chosen: int | None = None
        self._weights: list[dict[str, Tensor]] = []

    def on_step(self, run: Run) -> None:
        """Measure at the end of an epoch."""
        if run.phase == self.phase and run.step % self.steps == 0:
            self.errors.append(error(run.model, self.forget, self.labels))
            self._weights.append(cpu_state(run.model))

    def on_end(self, run: Run) -> None:
        """Choose."""
        if self._weights:
            wanted = error(run.model, self.validation, self.labels)
            self.chosen = min(range(len(self.errors)), key=lambda epoch: abs(self.errors[epoch] - wanted))
            run.chosen = self._weights[self.chosen]


def error(model: nn.Module, dataset: Any, labels: tuple[int, ...] = ()) -> float:
    """Return the share of samples (for masks, of pixels, or those of ``labels``) predicted wrong, in [0, 1].

    Raises:
        ValueError: When there is none.
    """
    found = accuracy_within(model, dataset, labels)
    if found is None:
        raise ValueError(f"expected data with pixels of mask classes {list(labels)} to rewind by, but got none")
    return 1 - found


def held_out(task: UnlearnTask) -> Any:
    """Return validation data distributed like the forget data.

    Raises:
        ValueError: When the task has none.
    """
    chosen = task.forget_validation
    if len(chosen) == 0 and not mask_classes(task):  # Of a mask class, the retained data hold none.
        chosen, labels = task.retain_validation, None
        if task.kind == "classification" and len(chosen):
            labels, forgotten = labels_of(chosen), labels_of(task.forget)
        if labels is not None and forgotten is not None:
            chosen = subset(chosen, torch.isin(labels, forgotten))
    if len(chosen) == 0:
        raise ValueError("expected validation with rewind=True, but got None and a task without validation data")
    return chosen
