"""What would make a revision of a deployed model meaningless, looked for before it begins: on a few hundred samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.tensors import load_tensors, subset
from ..metrics.predict import predict
from ..metrics.utility import accuracy, iou
from ..models.normalization import Normalize
from ..seeding import generator
from ..tasks import UnlearnTask

SAMPLES = 256


@checked
def preflight(model: nn.Module, task: UnlearnTask, *, seed: int = 0) -> list[str]:
    """Return what is suspicious about a model on its own training data, in words; an empty list for nothing.

    A model that was loaded rightly and is given pixels as it was trained on them knows the data that are to be kept.

    Args:
        model: The model that is to be revised.
        task: Its data.
        seed: Of the samples that are looked at, at most 256.

    Raises:
        ValueError: When images are not in [0, 1] though the model normalises such, or outputs are not finite.
    """
    count = len(task.retain)
    chosen = torch.randperm(count, generator=generator(seed, "preflight"))[:SAMPLES].sort().values
    some = subset(task.retain, chosen)
    images, _ = load_tensors(some)
    _check_range(model, images)
    found = []
    outputs = predict(model, some)[0]
    if outputs.shape[1] > 1 and _sums_to_one(outputs):
        found.append(
            "the model's outputs are in [0, 1] and sum to one: it ends in a softmax, and every loss would "
            "take another. Give the model without its last layer"
        )
    found += _at_chance(model, some, task)
    return found


def _check_range(model: nn.Module, images: Tensor) -> None:
    low, high = float(images.min()), float(images.max())
    if any(isinstance(module, Normalize) for module in model.modules()) and (low < -1e-6 or high > 1 + 1e-6):
        raise ValueError(
            f"expected pixels in [0, 1], which the model's first layer normalises, but got {low:.4g} to {high:.4g}: "
            "give raw pixels divided by 255, or a model without the normalisation"
        )


def _sums_to_one(outputs: Tensor) -> bool:
    inside = bool((outputs >= 0).all()) and bool((outputs <= 1).all())
    return inside and torch.allclose(outputs.sum(dim=1), torch.ones(()), atol=1e-3)


def _at_chance(model: nn.Module, some: object, task: UnlearnTask) -> list[str]:
    remedy = "are the weights, the normalisation, the size of the images and the order of the classes as in training?"
    if task.kind == "segmentation":
        score = iou(model, some)
        if score is not None and score < 0.05:
            return [f"the model's IoU on the data to keep is {score:.3f}: {remedy}"]
        return []
    score, total = accuracy(model, some), len(some)  # type: ignore[arg-type]
    chance = 1 / task.num_classes
    if score is not None and score <= chance + 2 * math.sqrt(chance * (1 - chance) / total):
        return [
            f"the model's accuracy on the data to keep is {score:.3f}, no better than guessing among "
            f"{task.num_classes} classes ({chance:.3f}): {remedy}"
        ]
    return []
