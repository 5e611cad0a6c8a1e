"""What would make a revision of a deployed model meaningless, looked for before it begins: on a few hundred samples."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from ..arguments import checked
from ..data.findings import finding_counts
from ..data.tensors import labels_of, load_tensors, subset
from ..engine.door import ENDS
from ..metrics.findings import finding_scores
from ..metrics.predict import predict
from ..metrics.utility import accuracy, iou
from ..modules import check_model
from ..outputs import check_classes, ends_in
from ..pixel_range import check_pixels
from ..seeding import generator
from ..tasks import UnlearnTask, check_task

SAMPLES = 256
PICTURES = 20_000  # that are read, at most, to find copies
ALIKE = 8  # of 256 bits: of the pictures of known sets, all that are so near are views of one scene
RARE = 0.05  # the share of images below which a finding is
REMEDY = "are the weights, the normalisation, the size of the images and the order of the classes as in training?"


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
    model = check_model(model)
    check_task(task)
    count = len(task.retain)
    chosen = torch.randperm(count, generator=generator(seed, "preflight"))[:SAMPLES].sort().values
    some = subset(task.retain, chosen)
    images, _ = load_tensors(some)
    check_pixels(model, images)
    outputs = predict(model, some)[0]
    check_classes(outputs, task.num_classes, task.kind)
    found = list(task.notes)
    if len(task.forget) > count:
        found.append(
            f"more is to be forgotten ({len(task.forget):,} images) than kept ({count:,}): are the two swapped, or "
            "does the rule say the opposite?"
        )
    last = ends_in(outputs, apart=task.kind == "multilabel")
    if last is not None:
        found.append(f"the model's outputs are probabilities: {ENDS.format(last)}")
    if task.kind == "multilabel":
        return [*found, *_findings_at_chance(model, some), *_rare(task), *copies(task)]
    found += _at_chance(model, some, task)
    return [*found, *copies(task)]


def copies(task: UnlearnTask, *, limit: int = PICTURES) -> list[str]:
    """Return which pictures are in two places of a task, equal in every pixel or nearly, in words; see ``duplicates``.

    Copies within one data set do no harm, unless their targets differ.

    Args:
        task: Its data are read once.
        limit: Of pictures to read, at least 1; of larger data some are drawn, which is told.
    """
    found = task.duplicates(distance=ALIKE, limit=limit)
    told = replace(found, pairs=tuple(p for p in found.pairs if p.first[0] != p.second[0] or not p.same_target))
    lines = [f"the same picture twice: {words}{_harm(*names)}" for names, words in told.by_sets().items()]
    if found.read < found.total:
        lines.append(
            f"copies of pictures were looked for in {found.read:,} of {found.total:,}, drawn at random; "
            f"task.duplicates(distance={ALIKE}) reads all of them"
        )
    return lines


def _harm(first: str, second: str) -> str:
    if first == second:
        return ""
    if "retain" in (first, second) and "forget" in (first, second):
        return ". What stays in the data to keep is not forgotten: forget its copies with it, or take them out"
    return ". What was trained on flatters where it judges" if first in ("forget", "retain") else ""


def _findings_at_chance(model: nn.Module, some: object) -> list[str]:
    scores = [own for own in (finding_scores(model, some) or {}).values() if own.auroc is not None]
    if not scores:
        return []
    mean = sum(own.auroc or 0.0 for own in scores) / len(scores)
    # The variance of the area of a ranking that knows nothing (Mann and Whitney 1947).
    variance = sum((own.present + own.absent + 1) / (12 * own.present * own.absent) for own in scores)
    if mean > 0.5 + 2 * math.sqrt(variance) / len(scores):
        return []
    return [f"the model's mean AUROC on the data to keep is {mean:.3f}, no better than guessing (0.500): {REMEDY}"]


def _rare(task: UnlearnTask) -> list[str]:
    """Return which findings are so rare among the training data that to call them absent is nearly always right."""
    known = [labels for data in (task.forget, task.retain) if (labels := labels_of(data)) is not None]
    if not known:
        return []
    present, absent = finding_counts(torch.cat(known))
    told = [
        f"finding {k} in {p:,} of {p + a:,}"
        for k, (p, a) in enumerate(zip(present.tolist(), absent.tolist(), strict=True))
        if p < RARE * (p + a)
    ]
    if not told:
        return []
    return [
        f"rare among the training images: {', '.join(told)}. Their accuracy is high whatever the model says: look at "
        "AUROC and sensitivity; class_weight= of a method counts what is there more"
    ]


def _at_chance(model: nn.Module, some: object, task: UnlearnTask) -> list[str]:
    if task.kind == "segmentation":
        score = iou(model, some)
        if score is not None and score < 0.05:
            return [f"the model's IoU on the data to keep is {score:.3f}: {REMEDY}"]
        return []
    score, total = accuracy(model, some), len(some)  # type: ignore[arg-type]
    chance = 1 / task.num_classes
    if score is not None and score <= chance + 2 * math.sqrt(chance * (1 - chance) / total):
        return [
            f"the model's accuracy on the data to keep is {score:.3f}, no better than guessing among "
            f"{task.num_classes} classes ({chance:.3f}): {REMEDY}"
        ]
    return []
