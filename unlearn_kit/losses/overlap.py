"""Overlap of masks, over a whole batch: Dice as segmentation-models-pytorch computes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..outputs import IGNORE, hard_labels, is_binary
from .batch import Goal
from .distances import as_weights, bce, cross_entropy


@cache
def _dice_loss(binary: bool, label: int | None = None) -> Any:
    # A large library: imported when the first Dice is computed, not with the algebra.
    from segmentation_models_pytorch.losses import BINARY_MODE, MULTICLASS_MODE, DiceLoss

    mode, classes = (BINARY_MODE, None) if binary else (MULTICLASS_MODE, None if label is None else [label])
    return DiceLoss(mode=mode, classes=classes, from_logits=True, ignore_index=IGNORE)


def dice(logits: Tensor, goal: Goal, *, weight: Sequence[float] | None = None) -> Tensor:
    """Return ``1 - soft Dice`` of the batch as a whole, in [0, 1]; for several classes the mean over those that occur.

    Pixels are pooled over the batch, so large objects weigh more, and there is no value a sample. A goal without
    foreground gives 0: use it beside a pixel-wise term. Of probabilities the overlap is that with the likeliest label.

    Args:
        logits: ``(B, C, ...)``.
        goal: Labels or probabilities.
        weight: One number a class, ``(C,)``, that its part of the mean is multiplied by (the sum of the weights divides
            nothing); of a single logit two, of which the second is the foreground's.

    Raises:
        ValueError: When there are other numbers of weights.
    """
    labels = hard_labels(_likeliest(goal), logits)
    own = None if weight is None else as_weights("weight", weight, logits, max(2, logits.shape[1]))
    value: Tensor
    if own is None or is_binary(logits):
        value = _dice_loss(is_binary(logits))(logits, labels)
    else:
        value = torch.stack([w * _dice_loss(False, c)(logits, labels) for c, w in enumerate(own)]).mean()
    if is_binary(logits):
        return value if own is None else own[1] * value
    # The library counts a class that does not occur as 0, among all of them.
    occurring = len(labels[labels != IGNORE].unique())
    return value * (logits.shape[1] / max(occurring, 1))


def dice_bce(logits: Tensor, goal: Goal, *, weight: Sequence[float] | None = None) -> Tensor:
    """Return :func:`dice` plus the pixels' mean binary cross-entropy (cross-entropy for several classes), in nats.

    Both with the same class weights. The pixel-wise loss takes probabilities as they are.
    """
    pixelwise = bce if is_binary(logits) else cross_entropy
    return dice(logits, goal, weight=weight) + pixelwise(logits, goal, weight=weight).mean()


def _likeliest(goal: Goal) -> Tensor:
    """Return labels ``(B, ...)`` of a goal of labels or probabilities."""
    if goal.kind == "labels":
        return goal.values
    p, left_out = goal.values, goal.asked() == IGNORE
    labels = (p[:, 0] > 0.5).long() if is_binary(p) else p.argmax(1)
    return torch.where(left_out, IGNORE, labels)
