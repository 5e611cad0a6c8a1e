"""Two models, before and after, on the same samples: read once, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..metrics import class_matched, correct, iou_scores
from ..metrics.evaluate import forgets_mask_class
from ..metrics.membership import loss
from ..metrics.predict import class_labels, class_logits, map_batches
from ..outputs import predicted_labels
from ..tasks import UnlearnTask
from .estimates import Gap, Side, advantages, gap, side
from .thresholds import Thresholds


@dataclass(frozen=True)
class Readings:
    """What two models, before and after, do on one data set.

    Attributes:
        losses: Of each sample, ``(2, N)``.
        scores: 0 or 1, ``(2, N)``; of masks the IoU by class, ``(2, N, C)``, NaN where one is neither there nor said.
        labels: The class of each sample, ``(N,)``; 0 for masks.
        predicted: The class that each model says, ``(2, N)``; None for masks.
        moved: The largest change of a probability.
        groups: The group of each sample, where groups are known.
    """

    losses: Tensor
    scores: Tensor
    labels: Tensor
    predicted: Tensor | None
    moved: float
    groups: tuple[str, ...] | None = None

    def side(self, values: Tensor, *, clustered: bool = False) -> Side:
        """Return values of both models ``(2, N)`` as a side of a comparison."""
        return side(values.numpy(), self.labels.numpy(), self.groups if clustered else None)


@dataclass(frozen=True)
class Compared:
    """A revision that is looked into.

    Attributes:
        before, after: The models.
        task: What was to be forgotten.
        unseen: The split that stands in for the ideal.
        thresholds: What verdicts are judged by.
        seed: Of all that is drawn.
        groups: The group of each sample of the forget and of the unseen data, where groups are known on both sides and
            none is on both; else empty.
    """

    before: nn.Module
    after: nn.Module
    task: UnlearnTask
    unseen: str
    thresholds: Thresholds
    seed: int
    groups: tuple[tuple[str, ...], ...] = ()

    def groups_of(self, which: int, chosen: Tensor | None = None) -> tuple[str, ...] | None:
        """Return the groups of the forget (0) or the unseen data (1), or of those ``chosen``; None where not known."""
        if not self.groups:
            return None
        return self.groups[which] if chosen is None else tuple(self.groups[which][i] for i in chosen.tolist())

    @property
    def unseen_data(self) -> Any:
        """The data that no model was trained on."""
        return getattr(self.task, self.unseen)

    @property
    def words(self) -> str:
        """Return what the unseen data are."""
        if self.task.forget_classes:
            return "held-out images of the class"
        return (
            "held-out data that the request names"
            if self.unseen == "forget_test"
            else "held-out data of the same classes"
        )

    def matched(self, forget: Readings, unseen: Readings) -> tuple[Tensor, Tensor]:
        """Return the places of as many forget samples as unseen ones, in the same proportions of the classes."""
        theirs = class_matched(forget.labels, unseen.labels, self.seed)
        mine = class_matched(unseen.labels[theirs], forget.labels, self.seed)
        theirs = theirs[class_matched(forget.labels[mine], unseen.labels[theirs], self.seed)]
        return mine, theirs


def read_both(
    before: nn.Module, after: nn.Module, dataset: Any, task: UnlearnTask, groups: Sequence[object] | None = None
) -> Readings | None:
    """Return what two models do on a data set, each sample read once; None where there is none to judge.

    Raises:
        ValueError: On outputs that are not finite, or labels that do not fit them.
    """
    masks = task.kind == "segmentation"

    def look(old: Tensor, new: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        moved = (_probabilities(old) - _probabilities(new)).abs().flatten(1).amax(dim=1)
        losses = torch.stack([loss(old, targets), loss(new, targets)], dim=1)
        if masks:
            scores = torch.stack([iou_scores(z, targets, absent=math.nan) for z in (old, new)], dim=1)
            nothing = torch.zeros(len(old), dtype=torch.int64)
            return losses, scores, nothing, nothing[:, None].expand(-1, 2), moved
        scores = torch.stack([correct(old, targets), correct(new, targets)], dim=1)
        said = torch.stack([predicted_labels(old).reshape(-1), predicted_labels(new).reshape(-1)], dim=1)
        return losses, scores, class_labels(old, targets).reshape(-1), said, moved

    found = map_batches([before, after], dataset, look)
    if found is None:
        return None
    known = ~found[0].isnan().any(dim=1)  # an image none of whose pixels has a label has nothing to judge
    if not known.any():
        return None
    losses, scores, labels, said, moved = (column[known] for column in found)
    names = None if groups is None else tuple(str(groups[i]) for i in known.nonzero().flatten().tolist())
    predicted = None if masks else said.T
    return Readings(losses.T, scores.movedim(1, 0), labels, predicted, float(moved.max()), names)


def loss_gap(forget: Readings | None, unseen: Readings | None, seed: int) -> Gap | None:
    """Return how the losses of forget and unseen data stand to each other; groups count where none is on both sides."""
    if forget is None or unseen is None:
        return None
    apart = bool(apart_groups(forget.groups, unseen.groups))
    mine, theirs = (part.side(part.losses, clustered=apart) for part in (forget, unseen))
    return gap(mine, theirs, advantages, seed=seed)


def apart_groups(
    forget: tuple[str, ...] | None, unseen: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...]] | tuple[()]:
    """Return the groups of both sides where groups are known and none is on both; else nothing: samples count then.

    A device that was forgotten and is held out, too, is no unit that could be drawn again, as a patient is.
    """
    return (forget, unseen) if forget and unseen and not set(forget) & set(unseen) else ()


def found_class(readings: Readings, task: UnlearnTask) -> Tensor:
    """Return whether each model finds what was to be forgotten in each sample, ``(2, N)``: of masks by an IoU of .5."""
    if not forgets_mask_class(task):
        return readings.scores
    return (readings.scores[:, :, list(task.forget_classes)].nan_to_num(nan=0.0).mean(dim=2) >= 0.5).double()


def _probabilities(logits: Tensor) -> Tensor:
    return class_logits(logits).softmax(dim=1)
