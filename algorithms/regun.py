"""ReGUn: the forget data are led toward what the original says of unseen data of their class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.losses.batch import GoalKind
from unlearn_kit.metrics.predict import predict
from unlearn_kit.outputs import is_binary, probabilities
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule

from .masks import check_one_label


@dataclass(frozen=True, eq=False)
class ClassPredictions:
    """One prediction a class: what every sample of that class is led toward.

    Args:
        table: Probabilities ``(classes, C)``, a row a class; ``(2, 1)`` of class 1 for a single logit.
    """

    table: Tensor
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        """Return the row of each sample's label."""
        labels = batch.targets.reshape(len(batch.targets)).long()
        return L.Goal("probabilities", self.table.to(batch.inputs.device)[labels])

    def __repr__(self) -> str:
        return f"ClassPredictions({len(self.table)} classes)"


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    source="arXiv 2603.11210",
    masks=False,
)
def regun(
    model: nn.Module,
    task: UnlearnTask,
    *,
    retain_weight: NonNegativeSchedule = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``KL(q_y || p(x_f)) + retain_weight CE(x_r -> y_r)``; q_y is the original's mean softmax on class y.

    The mean is over the validation data of that class, which the original never saw: a model that never saw the forget
    data would on average say as much of them. Of a class that is forgotten as a whole it would not, so there the class
    is taken out of q and the rest normalised, which is not published. A class without validation data has the mean of
    its forget data, with the class itself taken out.

    Published defaults: both terms weigh one half, SGD with momentum .9 at lr .01, ten epochs. Here forty steps that
    hold a batch of each, a falling rate and clipped gradients.

    Args:
        model: The original; logits ``(B, C)``.
        task: What to forget and what to keep, with validation data; classification.
        retain_weight: Weight of the retain term, at least 0, or a schedule; at 0 the retain data are not read.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    Raises:
        ValueError: On masks. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: arXiv 2603.11210.
    """
    training = Training(**options)
    check_one_label(task, "regun")
    objective = L.Objective((L.kl(on="forget", to=ClassPredictions(class_predictions(model, task))),))
    if is_schedule(retain_weight) or retain_weight:
        objective = objective + retain_weight * L.cross_entropy(on="retain")
    return training.fit(model, training.phase(objective, task, name="unlearn"), seed=seed, device=device)


def class_predictions(model: nn.Module, task: UnlearnTask) -> Tensor:
    """Return the mean softmax of every class on validation data, ``(classes, C)``, as :func:`regun` leads toward it."""
    sums, counts = _sums(model, (task.retain_validation, task.forget_validation), task.num_classes)
    own_sums, own_counts = _sums(model, (task.forget,), task.num_classes)
    without = counts == 0
    without[list(task.forget_classes)] = True
    rows = (
        torch.where((counts > 0)[:, None], sums, own_sums) / counts.where(counts > 0, own_counts).clamp(min=1)[:, None]
    )
    if rows.shape[1] == 1:
        opposite = 1 - torch.arange(2, dtype=rows.dtype)[:, None]
        return torch.where(without[:, None], opposite, rows).float()
    others = rows * (1 - torch.eye(len(rows), dtype=rows.dtype))
    # Where nothing is left of a mean that was certain of its class, all others are as likely.
    others = torch.where(others.sum(1, keepdim=True) > 0, others, 1 - torch.eye(len(rows), dtype=rows.dtype))
    return torch.where(without[:, None], others / others.sum(1, keepdim=True), rows).float()


def _sums(model: nn.Module, datasets: Sequence[object], classes: int) -> tuple[Tensor, Tensor]:
    """Return the sums of the softmax over the samples of each class, ``(classes, C)``, and their numbers."""
    sums, counts = None, torch.zeros(classes, dtype=torch.float64)
    for dataset in datasets:
        if len(dataset) == 0:  # type: ignore[arg-type]
            continue
        logits, targets = predict(model, dataset)
        p, labels = probabilities(logits).double().cpu(), targets.reshape(len(targets)).long().cpu()
        if sums is None:
            sums = torch.zeros(classes, 1 if is_binary(logits) else p.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, p)
        counts += torch.bincount(labels, minlength=classes)
    return (torch.zeros(classes, 1, dtype=torch.float64) if sums is None else sums), counts
