"""Overlap of masks, over a whole batch: Dice as segmentation-models-pytorch computes it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..outputs import IGNORE, hard_labels, is_binary
from .batch import Goal
from .distances import bce, cross_entropy


@cache
def _dice_loss(binary: bool) -> Any:
    # A large library: imported when the first Dice is computed, not with the algebra.
    from segmentation_models_pytorch.losses import BINARY_MODE, MULTICLASS_MODE, DiceLoss

    return DiceLoss(mode=BINARY_MODE if binary else MULTICLASS_MODE, from_logits=True, ignore_index=IGNORE)


def dice(logits: Tensor, goal: Goal) -> Tensor:
    """Return ``1 - soft Dice`` of the batch as a whole, in [0, 1]; for several classes the mean over those that occur.

    Pixels are pooled over the batch, so large objects weigh more, and there is no value a sample. A goal without
    foreground gives 0: use it beside a pixel-wise term. Of probabilities the overlap is that with the likeliest label.
    """
    labels = hard_labels(_likeliest(goal), logits)
    value: Tensor = _dice_loss(is_binary(logits))(logits, labels)
    if is_binary(logits):
        return value
    # The library counts a class that does not occur as 0, among all of them.
    occurring = len(labels[labels != IGNORE].unique())
    return value * (logits.shape[1] / max(occurring, 1))


def dice_bce(logits: Tensor, goal: Goal) -> Tensor:
    """Return :func:`dice` plus the pixels' mean binary cross-entropy (cross-entropy for several classes), in nats.

    The pixel-wise loss takes probabilities as they are.
    """
    pixelwise = bce if is_binary(logits) else cross_entropy
    return dice(logits, goal) + pixelwise(logits, goal).mean()


def _likeliest(goal: Goal) -> Tensor:
    """Return labels ``(B, ...)`` of a goal of labels or probabilities."""
    if goal.kind == "labels":
        return goal.values
    p, left_out = goal.values, goal.asked() == IGNORE
    labels = (p[:, 0] > 0.5).long() if is_binary(p) else p.argmax(1)
    return torch.where(left_out, IGNORE, labels)
