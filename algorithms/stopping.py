"""How far to forget: the level a model that never saw the forget data would score at, and ending there."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data import in_order, labels_of
from unlearn_kit.engine import StopWhen
from unlearn_kit.errors import check_number
from unlearn_kit.metrics import accuracy, iou, per_class_accuracy, split_score

StopAt = float | Literal["held-out"]


def stop_level(model: nn.Module, task: UnlearnTask, stop_at: StopAt) -> float:
    """Return the forget score (mean IoU, or accuracy) at which erasing ends.

    "held-out" is the score of ``model`` on validation data like the forget data: of ``forget_validation`` where the
    rule names such data (a device, a plane), else of ``retain_validation``; for classes weighted as they are among the
    forget data. A model that never saw the forget data would score about that.

    Raises:
        ValueError: Where a whole class is to be forgotten, so that no held-out score is a goal.
    """
    check_stop(task, stop_at)
    if stop_at != "held-out":
        return float(stop_at)
    held_out = held_out_alike(task)
    if task.kind == "segmentation":
        return iou(model, held_out) or 0.0
    if task.kind == "multilabel":
        return accuracy(model, held_out) or 0.0
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
            "expected a number or 'never' for stop_at, but got 'held-out': this task has no validation data whose "
            "score a model that never saw the forget data would reach"
        )


def held_out_alike(task: UnlearnTask) -> Any:
    """Return validation data like the forget data: of the same device or plane, where that is the rule; else None."""
    if task.forget_classes:
        return None
    # Whether the rule names held-out data is told by how many there are; none of those that judge is read.
    named = len(task.forget_validation) > 0 or len(task.forget_test) > 0
    held_out = task.forget_validation if named else task.retain_validation
    return held_out if len(held_out) else None


def falls_along(task: UnlearnTask) -> bool:
    """Return whether the validation data like the forget data are of what is to be forgotten: of the same device.

    Erasing then lowers their score with that of the forget data, and a level read off the model in training would sink
    as fast as what is to reach it.
    """
    return len(task.forget_validation) > 0


def forget_score(model: nn.Module, task: UnlearnTask) -> float:
    """Return the mean IoU of the forget data (of forgotten classes of the masks), or their accuracy; in [0, 1].

    Of a multi-label task the accuracy is that over findings, or of a forgotten one.
    """
    if task.kind == "classification":
        return accuracy(model, task.forget) or 0.0
    if task.kind == "multilabel":
        return split_score(model, task, "forget") or 0.0
    if task.forget_classes:
        found = iou(model, task.forget, per_class=True) or {}
        return sum(found[label] for label in task.forget_classes) / len(task.forget_classes)
    return iou(model, task.forget) or 0.0


def stop_when(original: nn.Module, task: UnlearnTask, stop_at: StopAt, *, every: int) -> StopWhen:
    """Return what ends a phase at that level; it looks each ``every`` steps.

    Of single samples the held-out level is that of the model as it is: what erasing costs on unseen data lowers what is
    left to reach. Where that falls along with the forget data (:func:`falls_along`) it is the original's.
    """
    if stop_at == "held-out" and not falls_along(task):
        return StopWhen(
            lambda model: forget_score(model, task) - stop_level(model, task, stop_at),
            lambda above: above <= 0,
            every=every,
            name="forget score above held-out",
        )
    level = stop_level(original, task, stop_at)
    return StopWhen(
        lambda model: forget_score(model, task), lambda score: score <= level, every=every, name="forget score"
    )
