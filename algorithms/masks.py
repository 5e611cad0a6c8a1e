"""Forgetting a part of what a sample is labelled with: a class of the masks, or a finding.

Of a class of the masks its pixels are forgotten, not the images they are in: the retain data of such a task are all
images, with the labels of every other class as ever. Of a finding the images that hold it are forgotten, by what they
teach of the finding: what else they show, others show as well. So what is asked of the forget data is asked of some of
their decisions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.gradients import SampleLoss
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.losses.wrapping import one_of
from unlearn_kit.metrics import accuracy
from unlearn_kit.metrics.evaluate import forgets_mask_class
from unlearn_kit.metrics.predict import class_labels, map_batches
from unlearn_kit.outputs import per_sample, predicted_labels


@dataclass(frozen=True)
class Part:
    """The decisions of the forget data that are to be forgotten; all of them where both are empty, which is False.

    Attributes:
        labels: Classes of the masks: the decisions with one of these labels.
        findings: Places in the rows of a multi-label task: the decisions there on findings that are present.
    """

    labels: tuple[int, ...] = ()
    findings: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.findings)

    def __str__(self) -> str:
        if self.labels:
            return f"pixels of mask classes {list(self.labels)}"
        return f"findings {list(self.findings)}" if self.findings else "known decisions"

    def of(self, targets: Tensor) -> Tensor:
        """Return which decisions they are: bool, of the shape of ``targets``."""
        if self.labels:
            return one_of(targets, self.labels)
        chosen = torch.zeros(targets.shape, dtype=torch.bool, device=targets.device)
        chosen[:, list(self.findings)] = True
        return chosen & (targets == 1)


EVERYTHING = Part()


def part_to_forget(task: UnlearnTask) -> Part:
    """Return which decisions of the forget data ``task`` wants forgotten."""
    findings = task.forget_classes if task.kind == "multilabel" else ()
    return Part(task.forget_classes if forgets_mask_class(task) else (), findings)


def check_one_label(task: UnlearnTask, method: str) -> None:
    """Refuse a task whose samples have more than one label for a method that has no use for such.

    Raises:
        ValueError: Naming the method.
    """
    if task.kind != "classification":
        what = "masks" if task.kind == "segmentation" else "several findings a sample"
        raise ValueError(
            f"expected a classification task for {method}, which makes no sense for {what}, but got {task.kind}"
        )


def to_forget(task: UnlearnTask, target: L.Target | None = None) -> L.Target:
    """Return ``target`` (default: the labels) as the forget data are asked: at the part to forget alone."""
    target, part = L.Labels() if target is None else target, part_to_forget(task)
    if not part:
        return target
    if isinstance(target, L.Cached):
        return L.Cached(to_forget(task, target.target), target.refresh)
    if part.findings:
        return L.Findings(target, part.findings, label=1)
    return L.Within(target, part.labels[0] if len(part.labels) == 1 else part.labels)


def forget_loss(task: UnlearnTask, otherwise: SampleLoss = label_cross_entropy) -> SampleLoss:
    """Return the loss ``(B,)`` whose gradients tell which weights the forget data need.

    Of a part of the decisions it is their part of the mean over all: gradients of a mean over fewer decisions would not
    compare with those of the retain data.
    """
    part = part_to_forget(task)
    if not part:
        return otherwise

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        asked = part.of(targets)
        share = per_sample(asked.to(logits), targets)
        return share * label_cross_entropy(logits, torch.where(asked, targets, L.IGNORE))

    return loss


def within(outputs: Tensor, targets: Tensor, part: Part) -> Tensor:
    """Return ``outputs (B, C, ...)``, as they are without a ``part``, else with 0 at every other decision."""
    if not part:
        return outputs
    return torch.where(part.of(targets).reshape(outputs[:, :1].shape), outputs, 0.0)


def accuracy_within(model: nn.Module, dataset: Any, part: Part) -> float | None:
    """Return accuracy in [0, 1].

    With a ``part``, the share of its decisions that are right, a mean over the images that have any. None without
    samples, or without such images.
    """
    if not part:
        return accuracy(model, dataset)

    def count(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        truth = class_labels(logits, targets)
        asked = part.of(truth) & (truth != L.IGNORE)
        right = asked & (predicted_labels(logits) == truth)
        return right.flatten(1).sum(1), asked.flatten(1).sum(1)

    found = map_batches([model], dataset, count)
    if found is None or not found[1].any():
        return None
    right, asked = found
    return float((right / asked)[asked > 0].double().mean())
