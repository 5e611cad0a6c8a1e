"""How well a model does its job: accuracy, Dice and IoU, and how far that is from the reference.

Functions of logits return one value per sample; functions of a model and a data set return the mean over
samples (never of batch means) and None, "n/a", where there is no sample. ``**reading`` is
:class:`.predict.Reading`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..outputs import IGNORE, decisions, is_multi_hot, per_sample, predicted_labels
from ..seeding import standardized
from .predict import Reading, class_labels, map_batches, mean_score, predict


@checked
def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the predicted class is the target, else 0, ``(B,)`` float64; for masks the share of pixels.

    Of masks the pixels that have a label count, of findings the known ones; an image without any gets NaN, which means
    over images leave out.

    Raises:
        ValueError: On non-finite logits, or targets that do not fit them.
    """
    logits = decisions(logits, targets)
    labels = class_labels(logits, targets)
    return per_sample((predicted_labels(logits) == labels).double(), labels, empty=math.nan)


@checked
def accuracy(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> float | None:
    """Return the share of samples (of masks: of pixels, a mean over images) predicted right, in [0, 1].

    Ideal: the retrained reference's value on the same data. None on an empty data set.
    """
    return mean_score([model], dataset, correct, **reading)


@checked
@standardized
def per_class_accuracy(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> dict[int, float | None] | None:
    """Return accuracy in [0, 1] among the samples of each class; None for a class without samples.

    Ideal: the reference's values. None on an empty data set.

    Raises:
        ValueError: On masks (see ``iou(per_class=True)``).
    """
    logits, targets = predict(model, dataset, **reading)
    if len(logits) == 0:
        return None
    if logits.dim() > 2 or is_multi_hot(targets):
        what = "findings use finding_scores" if logits.dim() == 2 else "masks use iou(..., per_class=True)"
        raise ValueError(f"expected one label a sample, but got logits of shape {tuple(logits.shape)}; for {what}")
    return class_means(correct(logits, targets), class_labels(logits, targets), max(logits.shape[1], 2))


def class_means(values: Tensor, labels: Tensor, num_classes: int) -> dict[int, float | None]:
    """Return mean of ``values`` ``(N,)`` in each class of ``labels`` ``(N,)``; None for a class without samples."""
    counts = torch.bincount(labels, minlength=num_classes)
    sums = torch.bincount(labels, weights=values.double(), minlength=num_classes)
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return {label: total / count if count else None for label, (total, count) in enumerate(pairs)}


@checked
def iou_scores(logits: Tensor, targets: Tensor, *, absent: float = 1.0) -> Tensor:
    """Return the intersection over union of each image and class.

    Args:
        logits: Of masks, ``(B, C, H, W)``; a single logit counts as two classes.
        targets: Masks, ``(B, H, W)`` or ``(B, 1, H, W)``.
        absent: What a class scores that is empty in prediction and target alike; NaN for :func:`mean_of_present`.

    Returns:
        Scores ``(B, C)`` in [0, 1], float64; column 0 is the background.

    Raises:
        ValueError: On non-finite logits, on anything but masks, on targets that do not fit.
    """
    overlap, predicted, true = _areas(logits, targets)
    return _ratio(overlap, predicted + true - overlap, absent)


@checked
def dice_scores(logits: Tensor, targets: Tensor, *, absent: float = 1.0) -> Tensor:
    """Return the Dice coefficient (the F1 of pixels) of each image and class; all else as :func:`iou_scores`."""
    overlap, predicted, true = _areas(logits, targets)
    return _ratio(2 * overlap, predicted + true, absent)


def mean_of_present(scores: Tensor) -> Tensor:
    """Return each image's mean over the classes that it shows or is said to show, ``(B,)``; 1 where there are none.

    To count an absent class as right would hide a missed object behind all the classes that an image lacks.

    Args:
        scores: Of the classes that count, ``(B, C)``, NaN where a class is empty in prediction and target alike.
    """
    return scores.nanmean(dim=1).nan_to_num(nan=1.0)


def _areas(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels of overlap, prediction and target of each image and class: three ``(B, C)``."""
    if logits.dim() < 3 or is_multi_hot(targets):
        raise ValueError(f"expected logits of masks, (B, C, H, W), but got shape {tuple(logits.shape)}")
    found, labels = predicted_labels(logits).flatten(1), class_labels(logits, targets).flatten(1)
    B, C = len(logits), max(logits.shape[1], 2)
    cell = (torch.arange(B, device=found.device)[:, None] * C + labels) * C + found
    confusion = torch.bincount(cell[labels != IGNORE], minlength=B * C * C).view(B, C, C).double()
    # An image none of whose pixels has a label is right or wrong in nothing.
    confusion[(labels == IGNORE).all(1)] = math.nan
    return confusion.diagonal(dim1=1, dim2=2), confusion.sum(dim=1), confusion.sum(dim=2)


def _ratio(part: Tensor, whole: Tensor, absent: float) -> Tensor:
    return torch.where(whole == 0, absent, part / whole.clamp(min=1))


@checked
@overload
def iou(
    model: nn.Module, dataset: Any, *, per_class: Literal[False] = False, **reading: Unpack[Reading]
) -> float | None: ...
@checked
@overload
def iou(
    model: nn.Module, dataset: Any, *, per_class: Literal[True], **reading: Unpack[Reading]
) -> dict[int, float] | None: ...
@checked
def iou(
    model: nn.Module, dataset: Any, *, per_class: bool = False, **reading: Unpack[Reading]
) -> float | dict[int, float] | None:
    """Return the intersection over union per image, then the mean over images, in [0, 1].

    Of the foreground; of several foreground classes the mean over those that the image or its prediction holds,
    and 1 where neither holds any. ``per_class=True`` gives ``{class: value}`` with the background as class 0, where
    an image without the class, in truth and prediction, counts 1. Ideal: the reference's value. None on an empty
    data set.
    """
    return _mask_score(iou_scores, model, dataset, per_class, reading)


@checked
@overload
def dice(
    model: nn.Module, dataset: Any, *, per_class: Literal[False] = False, **reading: Unpack[Reading]
) -> float | None: ...
@checked
@overload
def dice(
    model: nn.Module, dataset: Any, *, per_class: Literal[True], **reading: Unpack[Reading]
) -> dict[int, float] | None: ...
@checked
def dice(
    model: nn.Module, dataset: Any, *, per_class: bool = False, **reading: Unpack[Reading]
) -> float | dict[int, float] | None:
    """Return the Dice coefficient per image, then the mean over images, in [0, 1]; all else as :func:`iou`."""
    return _mask_score(dice_scores, model, dataset, per_class, reading)


@standardized
def _mask_score(
    score: Callable[..., Tensor],
    model: nn.Module,
    dataset: Any,
    per_class: bool,
    reading: Reading,
) -> Any:
    absent = 1.0 if per_class else math.nan
    found = map_batches([model], dataset, lambda logits, targets: (score(logits, targets, absent=absent),), **reading)
    if found is None:
        return None
    scores = found[0][~found[0].isnan().all(dim=1)]  # without images none of whose pixels has a label
    if len(scores) == 0:
        return None
    return dict(enumerate(scores.mean(dim=0).tolist())) if per_class else float(mean_of_present(scores[:, 1:]).mean())
