"""How far to forget: the level a model that never saw the forget data would score at, and ending there."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data import in_order, labels_of
from unlearn_kit.engine import StopWhen
from unlearn_kit.errors import check_number
from unlearn_kit.metrics import accuracy, iou, per_class_accuracy

StopAt = float | Literal["held-out"]


def stop_level(model: nn.Module, task: UnlearnTask, stop_at: StopAt) -> float:
    """The forget score (mean IoU, or accuracy) at which erasing ends.

    "held-out" is the score of ``model`` on held-out data like the forget data: of ``forget_test`` where the rule names
    such data (a device, a plane), else of ``retain_test``; for classes weighted as they are among the forget data. A
    model that never saw the forget data would score about that.

    Raises: ValueError where a whole class is to be forgotten, so that no held-out score is a goal.
    """
    check_stop(task, stop_at)
    if stop_at != "held-out":
        return float(stop_at)
    held_out = held_out_alike(task)
    if task.kind == "segmentation":
        return iou(model, held_out) or 0.0
    by_class = per_class_accuracy(model, held_out) or {}
    labels = labels_of(task.forget)
    if labels is None:
        labels = torch.cat([y for _, y in in_order(task.forget)])
    known = [value for label in labels.tolist() if (value := by_class.get(label)) is not None]
    return sum(known) / len(known) if known else 0.0


def check_stop(task: UnlearnTask, stop_at: StopAt) -> None:
    """Refuse a level that is none, before the model is run on anything."""
    if stop_at != "held-out":
        check_number("stop_at", stop_at, low=0, high=1)
    elif held_out_alike(task) is None:
        raise ValueError(
            "expected a number or 'never' for stop_at, but got 'held-out': this task has no held-out data whose score "
            "a model that never saw the forget data would reach"
        )


def held_out_alike(task: UnlearnTask) -> Any:
    """Held-out data like the forget data: of the same device or plane, where that is the rule; of a class, None."""
    if task.forget_classes:
        return None
    held_out = task.forget_test if len(task.forget_test) else task.retain_test
    return held_out if len(held_out) else None


def forget_score(model: nn.Module, task: UnlearnTask) -> float:
    """Mean IoU of the forget data (of the classes of the masks that are forgotten), or their accuracy; in [0, 1]."""
    if task.kind == "classification":
        return accuracy(model, task.forget) or 0.0
    if task.forget_classes:
        found = iou(model, task.forget, per_class=True) or {}
        return sum(found[label] for label in task.forget_classes) / len(task.forget_classes)
    return iou(model, task.forget) or 0.0


def stop_when(task: UnlearnTask, stop_at: StopAt, *, every: int) -> StopWhen:
    """Ends a phase at that level; looks each ``every`` steps."""
    if stop_at == "held-out":
        # Of the model as it is: what erasing costs on unseen data lowers what is left to reach.
        return StopWhen(
            lambda model: forget_score(model, task) - stop_level(model, task, stop_at),
            lambda above: above <= 0,
            every=every,
            name="forget score above held-out",
        )
    return StopWhen(
        lambda model: forget_score(model, task), lambda score: score <= stop_at, every=every, name="forget score"
    )
