"""Augmentation matching: forget images by what the original says of them when they are mirrored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Positive, Share
from unlearn_kit.data import in_order
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.metrics import iou_scores
from unlearn_kit.metrics.utility import mean_of_present
from unlearn_kit.modules import device_of, evaluating
from unlearn_kit.outputs import hard_labels, is_binary
from unlearn_kit.schedules import cosine

from .masks import to_forget


@revision(
    Training(steps=120, batch_size={"forget": 16, "retain": 32}, lr=cosine(1e-3, 0.0), optimizer="adam", clip=1.0),
    findings=False,
)
def augmentation_matching(
    model: nn.Module,
    task: UnlearnTask,
    *,
    transforms: Sequence[L.Transform] = L.FLIPS,
    tolerance: Share = 0.02,
    sharpness: Positive = 5.0,
    distill: Share = 0.2,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Lead the forget data to what the original says of them once mirrored, undone: its skill without its memory.

    q is the original's mean prediction over the transformations, the image as it is left out (``losses.Transformed``).
    Minimised is ``w CE(f(x) -> q) + Dice(f(x), q > .5) + w ((1 - d) CE(f(x_r) -> y_r) + d CE(f(x_r) -> f0(x_r))) +
    Dice(f(x_r), y_r)``, w the sharpness and d the share of distillation; of classes, without Dice.

    Whether the transformations are symmetries of the data is decided on validation data: their predictions there must
    score what the original's do. Where they do not, only those transformations are taken that do by themselves.

    What a group shares (one scanner's look) survives mirroring: forgetting a device or a site is not what this is for.

    Args:
        model: the original; images ``(B, C, H, W)``.
        task: what to forget and what to keep: masks or classes. Its validation data are read, its test data are not.
        transforms: what images are put through.
        tolerance: how much lower the mean validation score (IoU, or accuracy) may be under the transformations, in
            [0, 1]; 1 takes them all, without a look.
        sharpness: weight of the pixel-wise terms beside Dice; of classes it is 1.
        distill: share of the retain term that is distillation from the original, in [0, 1].
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``transforms`` (the names of those that were taken), ``validation`` (the original's score
    and the score under them; None where nothing was looked at).

    Raises:
        ValueError: When no transformation is a symmetry of the data, without validation data, and when an argument is
            out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.
    """
    training = Training(**options)
    if task.kind == "multilabel":
        raise ValueError(
            "expected a classification or segmentation task for augmentation_matching, whose soft labels are of one "
            "decision, but got multilabel"
        )
    target, scores = symmetries(model, task, L.Transformed(model, tuple(transforms)), tolerance)
    asked = to_forget(task, L.Cached(target))
    masks = task.kind == "segmentation"
    weight = sharpness if masks else 1.0
    objective = L.Objective((weight * L.cross_entropy(on="forget", to=asked),))
    if distill < 1:
        objective = objective + weight * (1 - distill) * L.cross_entropy(on="retain")
    if distill > 0:
        objective = objective + weight * distill * L.cross_entropy(on="retain", to=L.Teacher(model))
    if masks:
        objective = objective + L.dice(on="forget", to=asked) + L.dice(on="retain")
    streams = {"forget": task.forget, "retain": task.retain}
    # Uniformly with replacement: every batch has the same size, however few are to be forgotten.
    uniform = {name: torch.ones(len(data)) for name, data in streams.items()}
    phase = training.phase(objective, task, name="unlearn", sampling=uniform, joint=True)
    fitted = training.fit(model, phase, seed=seed, device=device)
    told = {"transforms": [transform.name for transform in target.transforms], "validation": scores}
    return replace(fitted, details=fitted.details | told)


def symmetries(
    model: nn.Module, task: UnlearnTask, target: L.Transformed, tolerance: float
) -> tuple[L.Transformed, list[float] | None]:
    """Return the target with the transformations under which validation scores hold, and the scores without and with.

    All of them together, or else those that hold by themselves.

    Raises:
        ValueError: When there are none, and without validation data.
    """
    if tolerance == 1:
        return target, None
    if len(task.retain_validation) == 0:
        raise ValueError(
            "expected validation data to tell whether transforms are symmetries of the data, but the task has none; "
            "tolerance=1 takes them as they are"
        )
    plain = _score(model, task, None)
    together = _score(model, task, target)
    if together >= plain - tolerance:
        return target, [plain, together]
    alone = {one: _score(model, task, replace(target, transforms=(one,))) for one in target.transforms}
    kept = tuple(one for one, score in alone.items() if score >= plain - tolerance)
    if not kept:
        told = ", ".join(f"{one} {score:.3f}" for one, score in alone.items())
        raise ValueError(
            f"expected transforms under which the validation score stays at {plain:.3f} to within "
            f"tolerance={tolerance:g}, but got {told}: they are no symmetries of these data"
        )
    chosen = replace(target, transforms=kept)
    return chosen, [plain, _score(model, task, chosen)]


def _score(model: nn.Module, task: UnlearnTask, target: L.Transformed | None) -> float:
    """Return the mean validation score of the model, or of the target: IoU of images, or accuracy."""
    parts = []
    for x, y in in_order(task.retain_validation, device=device_of(model)):
        with torch.no_grad(), evaluating(model):
            said = model(x) if target is None else _as_logits(target.predictions(x))
        parts.append(_scores(said, y, task))
    found = torch.cat(parts)
    return float(found[~found.isnan()].double().mean())


def _scores(logits: Tensor, y: Tensor, task: UnlearnTask) -> Tensor:
    if task.kind == "segmentation":
        scores = iou_scores(logits.cpu(), y.cpu(), absent=math.nan)
        return torch.where(scores.isnan().all(1), math.nan, mean_of_present(scores[:, 1:]))
    labels = (logits[:, 0] > 0).long() if is_binary(logits) else logits.argmax(1)
    return (labels == hard_labels(y, logits)).double().cpu()


def _as_logits(p: Tensor) -> Tensor:
    return p.clamp(1e-6, 1 - 1e-6).logit() if p.shape[1] == 1 else p.clamp(min=1e-12).log()
