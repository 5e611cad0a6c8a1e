"""What a network's output means, in one place.

Logits have the classes at dimension 1: ``(B, C)`` for classification, ``(B, C, H, W)`` for segmentation with C >= 2
classes, ``(B, 1, H, W)`` (or ``(B, 1)``) for a binary decision whose single logit is positive for class 1.

A multi-label head gives ``(B, K)``, one logit a finding, beside multi-hot targets ``(B, K)``. These are K binary
decisions a sample, and wherever targets are at hand they are read as such, ``(B, 1, K)``: see :func:`decisions`.
Losses, searches and metrics need to know of nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# The label of a decision that asks for nothing, such as a pixel that nobody labelled: losses, searches and metrics
# leave it out. Data that call it otherwise (255) say so once, with ``ignore_index=``, and are read with this label.
IGNORE = -1


def is_binary(logits: Tensor) -> bool:
    """Return whether a single logit decides between two classes.

    Raises:
        ValueError: When the logits have no dimension of classes.
    """
    if logits.dim() < 2:
        raise ValueError(f"expected logits of shape (B, C, ...), but got {tuple(logits.shape)}")
    return logits.shape[1] == 1


def is_multi_hot(targets: Tensor) -> bool:
    """Return whether targets ``(B, ...)`` are rows of several findings, ``(B, K)``: class labels and masks are not."""
    return targets.dim() == 2 and targets.shape[1] > 1


def decisions(logits: Tensor, targets: Tensor) -> Tensor:
    """Return logits ``(B, K)`` beside multi-hot targets ``(B, K)`` as K binary decisions, ``(B, 1, K)``.

    All other logits are returned as they are.
    """
    return logits.unsqueeze(1) if is_multi_hot(targets) and logits.shape == targets.shape else logits


def predicted_labels(logits: Tensor) -> Tensor:
    """Return class indices ``(B, ...)`` (int64) of logits ``(B, C, ...)``.

    Raises:
        ValueError: On non-finite logits (the argmax of NaN is class 0: it must never count as a prediction).
    """
    check_finite("logits", logits)
    return (logits[:, 0] > 0).long() if is_binary(logits) else logits.argmax(dim=1)


def probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return probabilities of the shape of ``logits``: softmax over dimension 1, or the sigmoid of a single logit."""
    scaled = logits / temperature
    return scaled.sigmoid() if is_binary(logits) else scaled.softmax(dim=1)


def is_ignored(labels: Tensor) -> Tensor:
    """Return where ``labels`` are ``IGNORE``: bool, of their shape."""
    # As a byte, -1 is 255.
    return torch.zeros_like(labels, dtype=torch.bool) if labels.dtype == torch.uint8 else labels == IGNORE


def per_sample(values: Tensor, labels: Tensor | None = None, *, empty: float = 0.0) -> Tensor:
    """Return the mean over everything but the batch, ``(B,)``, of decisions ``(B, ...)``.

    Args:
        values: One value a decision.
        labels: Of the shape of ``values``, or with a channel more; decisions whose label is ``IGNORE`` are left out.
        empty: What a sample gets all of whose decisions are left out.
    """
    if labels is None:
        return values.flatten(1).mean(dim=1) if values.dim() > 1 else values
    kept = ~is_ignored(labels).reshape(values.shape)
    if values.dim() == 1:  # one decision a sample
        return torch.where(kept, values, empty)
    count = kept.unsqueeze(-1).flatten(1).sum(1)
    total = torch.where(kept, values, 0.0).unsqueeze(-1).flatten(1).sum(1)
    return torch.where(count > 0, total / count.clamp(min=1), empty)


def hard_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as class indices ``(B, ...)`` (int64) of logits ``(B, C, ...)``; ``IGNORE`` stays.

    Of two classes, a fraction above one half is class 1: what a resize leaves of a binary mask.
    """
    shaped = labels.reshape(logits[:, 0].shape)
    if not shaped.is_floating_point() or logits.shape[1] > 2:
        return shaped.long()
    return torch.where(shaped == IGNORE, IGNORE, (shaped > 0.5).long())


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``z_y - logsumexp of the other logits`` at every decision: ``(B, ...)`` for logits ``(B, C, ...)``.

    ``softplus(-margin)`` is the cross-entropy and ``sigmoid(-margin)`` is ``1 - p_y``, both exact down to the smallest
    float; ``softmax - onehot`` instead rounds ``1 - p_y`` to 0 once it is below 6e-8. It is infinite at ``IGNORE``,
    where the loss is 0.
    """
    y = hard_labels(labels, logits)
    if is_binary(logits):
        z = logits[:, 0]
        margin = torch.where(y == 1, z, -z)
    else:
        index = y.clamp(min=0).unsqueeze(1)
        margin = logits.gather(1, index).squeeze(1) - logits.scatter(1, index, -torch.inf).logsumexp(dim=1)
    return torch.where(y == IGNORE, torch.inf, margin)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy of hard labels at every decision, ``(B, ...)``; gradients are exact to the smallest float.

    In single precision that is at margins of about 90: beyond, see :func:`lifted_loss`.
    """
    return F.softplus(-label_margin(logits, labels))


def lifted_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy over a weight a sample, and the weight ``(B,)``: gradients whose sign never rounds away.

    The weight is 1, and the loss :func:`label_loss` bit for bit, unless every decision of the sample has a margin that
    is large for its dtype. There the cross-entropy is ``exp(-margin)`` to the last bit, the weight is that of the
    decision nearest to a change, ``exp(-m)``, and the loss over it is ``exp(m - margin)``.
    """
    margins = label_margin(logits, labels)
    least = margins.detach().reshape(len(margins), -1).amin(1)
    # Factors of down to e^-26 are left for what else makes a gradient small, before it rounds.
    certain = (least > -math.log(torch.finfo(margins.dtype).tiny) - 26) & least.isfinite()
    losses = F.softplus(-margins)
    if not certain.any():
        return losses, torch.ones_like(least)
    m = torch.where(certain, least, 0.0)
    shape = (-1, *[1] * (margins.dim() - 1))
    lifted = certain.reshape(shape)
    # Twice: an exponential that is too large would make a gradient of NaN even where it is not chosen.
    over = torch.where(lifted, m.reshape(shape) - margins, 0.0).exp()
    return torch.where(lifted, over, losses), (-m).exp()


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError unless every number in ``values`` is finite."""
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"expected {name} to be finite, but got {bad} NaN or infinite of {values.numel()} values")


def ends_in(outputs: Tensor, *, apart: bool = False) -> str | None:
    """Return by which function of the logits outputs ``(B, C, ...)`` are probabilities already; None for logits.

    Args:
        outputs: Of many samples.
        apart: Whether each of the C outputs decides by itself, on a finding.
    """
    if not outputs.numel() or not bool(((outputs >= 0) & (outputs <= 1)).all()):
        return None
    if apart or outputs.shape[1] == 1:
        return "sigmoid"
    return "softmax" if torch.allclose(outputs.sum(dim=1), torch.ones(()).to(outputs), atol=1e-3) else None


def check_classes(logits: Tensor, num_classes: int, kind: str) -> None:
    """Refuse outputs ``(B, C, ...)`` that have not one channel a class or finding; of two classes one is enough.

    Args:
        logits: The outputs.
        num_classes: How many classes, or findings, the task has.
        kind: Of the task: "classification", "segmentation" or "multilabel".

    Raises:
        ValueError: With the shape that came.
    """
    findings = kind == "multilabel"
    widths = (1, 2) if num_classes == 2 and not findings else (num_classes,)
    if logits.dim() < 2 or logits.shape[1] not in widths:
        raise ValueError(
            f"expected model to have {num_classes} outputs, one a {'finding' if findings else 'class'} of the task, "
            f"but got outputs of shape {tuple(logits.shape)}; num_classes= says how many there are where the labels do "
            "not tell"
        )
