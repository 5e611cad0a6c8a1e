"""Forgetting a class of the masks: its pixels, not the images they are in.

The retain data of such a task are all images, with the labels of every other class as ever. So what is asked of the
forget data is asked of the pixels of the class alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.gradients import SampleLoss
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.losses.targets import one_of
from unlearn_kit.metrics import accuracy
from unlearn_kit.metrics.evaluate import forgets_mask_class
from unlearn_kit.metrics.predict import class_labels, map_batches
from unlearn_kit.outputs import per_sample, predicted_labels


def mask_classes(task: UnlearnTask) -> tuple[int, ...]:
    """Return the classes of the masks that are to be forgotten; none where whole samples are."""
    return task.forget_classes if forgets_mask_class(task) else ()


def to_forget(task: UnlearnTask, target: L.Target | None = None) -> L.Target:
    """Return ``target`` (default: the labels) as the forget data are asked: of mask classes, at their pixels alone."""
    target, labels = L.Labels() if target is None else target, mask_classes(task)
    if not labels:
        return target
    if isinstance(target, L.Cached):
        return L.Cached(to_forget(task, target.target), target.refresh)
    return L.Within(target, labels[0] if len(labels) == 1 else labels)


def forget_loss(task: UnlearnTask, otherwise: SampleLoss = label_cross_entropy) -> SampleLoss:
    """Return the loss ``(B,)`` whose gradients tell which weights the forget data need.

    Of mask classes it is their pixels' part of the mean over all pixels: gradients of a mean over fewer pixels would
    not compare with those of the retain data.
    """
    labels = mask_classes(task)
    if not labels:
        return otherwise

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        asked = one_of(targets, labels)
        share = per_sample(asked.to(logits), targets)
        return share * label_cross_entropy(logits, torch.where(asked, targets, L.IGNORE))

    return loss


def within(outputs: Tensor, targets: Tensor, labels: tuple[int, ...]) -> Tensor:
    """Return ``outputs (B, C, ...)``, as they are without ``labels``.

    Else with 0 wherever the target is none of them.
    """
    if not labels:
        return outputs
    return torch.where(one_of(targets, labels).reshape(outputs[:, :1].shape), outputs, 0.0)


def accuracy_within(model: nn.Module, dataset: Any, labels: tuple[int, ...]) -> float | None:
    """Return accuracy in [0, 1].

    With ``labels``, the share of their pixels predicted right, a mean over the images that have
    any. None without samples, or without such images.
    """
    if not labels:
        return accuracy(model, dataset)

    def count(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        truth = class_labels(logits, targets)
        asked = one_of(truth, labels)
        right = asked & (predicted_labels(logits) == truth)
        return right.flatten(1).sum(1), asked.flatten(1).sum(1)

    found = map_batches([model], dataset, count)
    if found is None or not found[1].any():
        return None
    right, asked = found
    return float((right / asked)[asked > 0].double().mean())
