"""Audits that look behind a model's answers: rounding, small changes, relearning, a probe, features. Each is optional.

All ask one question: do the forget data fare better than data that no model saw? Where a whole class was forgotten
there are no unseen data of another forgotten class, and what can be asked is whether the class is found again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset

from ..audits.nearby import Nearby
from ..audits.probe import head_inputs, logistic_regression
from ..data.sampling import random_subset
from ..data.tensors import subset
from ..engine import Phase, fit
from ..losses import cross_entropy
from ..metrics import feature_distance
from ..metrics.quantization import quantized
from ..seeding import derive, generator
from .claims import Verdict, advantage_gone, class_forgotten, untested
from .estimates import Array, advantages, differences, gap, mean, share, side
from .readings import Compared, Readings, found_class, loss_gap, read_both

BITS = 8
COPIES = 4  # changed copies of each sample: samples differ more than copies of one do
LIMIT = 512  # samples of each kind that are changed
STEPS = 10  # of relearning
PROBED = 5_000  # samples to keep that a probe is fitted on
NO_OTHER_CLASS = "there is no other class that the model never saw to compare with; a retrained model would tell"

Found = tuple[Verdict, dict[str, Any]]


def rounding(compared: Compared) -> Found:
    """Judge whether 8-bit weights bring the forget data back (arXiv 2410.16454)."""
    name = "not brought back by rounding"
    forget, unseen = _read(compared, quantized(compared.after, BITS))
    if compared.task.forget_classes:
        return class_found(name, compared, forget), {}
    found = loss_gap(forget, unseen, compared.seed)
    return advantage_gone(name, found, compared.thresholds, what=compared.words), {}


def residual_knowledge(compared: Compared) -> Found:
    """Judge whether small random changes of forget samples leave more right answers than those of unseen samples.

    Shares of 4 copies, changed by up to .03 of the range of the inputs, that the model still gets right.
    """
    name, task = "not just across the boundary", compared.task
    if task.kind != "classification":
        return untested(name, "it is defined for labels, not for masks"), {}
    near, groups = {}, {}
    for which, (key, data) in enumerate((("forget", task.forget), ("unseen", compared.unseen_data))):
        source = generator(compared.seed, "residual", key)
        chosen = torch.randperm(len(data), generator=source)[:LIMIT].sort().values
        groups[key] = compared.groups_of(which, chosen)
        if len(chosen):
            near[key] = Nearby(subset(data, chosen), compared.seed, copies=COPIES)
    read = {key: read_both(compared.before, compared.after, data, task) for key, data in near.items()}
    told = {
        f"share right near {key} samples, {when}": float(part.scores[i].mean())
        for key, part in read.items()
        if part is not None
        for i, when in enumerate(("before", "after"))
    }
    forget, unseen = read.get("forget"), read.get("unseen")
    if task.forget_classes:
        return class_found(name, compared, forget, copies=COPIES), told
    if forget is None or unseen is None:
        return untested(name, f"there are no {compared.words} to compare with"), told
    mine, theirs = (
        side(part.scores.view(2, -1, COPIES).mean(dim=2).numpy(), part.labels[::COPIES].numpy(), groups[key])
        for key, part in (("forget", forget), ("unseen", unseen))
    )
    found = gap(mine, theirs, differences, seed=compared.seed)
    return advantage_gone(name, found, compared.thresholds, what=f"changed {compared.words}"), told


def relearning(compared: Compared) -> Found:
    """Judge whether fine-tuning on both brings forget data back faster than it teaches as many unseen ones."""
    name, task = "not relearned faster", compared.task
    if task.forget_classes:
        return untested(name, NO_OTHER_CLASS), {}
    forget, unseen = _read(compared, compared.after)
    if forget is None or unseen is None:
        return untested(name, f"there are no {compared.words} to compare with"), {}
    places = compared.matched(forget, unseen)
    mine, theirs = subset(task.forget, places[0]), subset(compared.unseen_data, places[1])
    phase = Phase(
        cross_entropy(on="forget"),
        {"forget": ConcatDataset([mine, theirs])},
        steps=STEPS,
        batch_size=64,
        lr=1e-2,
        clip=1.0,
        trainable=lambda _, parameter: parameter.is_floating_point(),
        name="relearn",
    )
    relearned = fit(compared.after, phase, seed=derive(compared.seed, "relearn")).model
    forget, unseen = (
        read_both(compared.before, relearned, data, task, compared.groups_of(which, places[which]))
        for which, data in enumerate((mine, theirs))
    )
    found = loss_gap(forget, unseen, compared.seed)
    return advantage_gone(name, found, compared.thresholds, what=f"relearned {compared.words}"), {}


def probe(compared: Compared) -> Found:
    """Judge whether a new last layer, fitted on the data to keep, does better on forget than on unseen data."""
    name, task = "not read off the features", compared.task
    if task.forget_classes:
        return untested(name, NO_OTHER_CLASS), {}
    if task.kind != "classification":
        return untested(name, "without a retrained model it is defined for labels, not for masks"), {}
    if not len(task.retain) or not len(compared.unseen_data):
        return untested(name, f"there are no {compared.words} to compare with"), {}
    kept = random_subset(task.retain, PROBED, seed=derive(compared.seed, "probe"))
    losses: dict[str, list[Array]] = {"forget": [], "unseen": []}
    labels: dict[str, Array] = {}
    for model in (compared.before, compared.after):
        fitted = logistic_regression().fit(*head_inputs(model, kept))
        for key, data in (("forget", task.forget), ("unseen", compared.unseen_data)):
            x, labels[key] = head_inputs(model, data)
            known = np.isin(labels[key], fitted.classes_)
            column = np.searchsorted(fitted.classes_, np.where(known, labels[key], fitted.classes_[0]))
            said = fitted.predict_log_proba(x)[np.arange(len(x)), column]
            losses[key].append(np.where(known, -said, np.inf))
    mine, theirs = (
        side(np.stack(losses[key]), labels[key], compared.groups_of(which))
        for which, key in enumerate(("forget", "unseen"))
    )
    found = gap(mine, theirs, advantages, seed=compared.seed)
    return advantage_gone(name, found, compared.thresholds, what=f"probed {compared.words}"), {}


AUDITS: dict[str, tuple[str, Callable[[Compared], Found]]] = {
    "quantization": ("not brought back by rounding", rounding),
    "residual knowledge": ("not just across the boundary", residual_knowledge),
    "relearning": ("not relearned faster", relearning),
    "probe": ("not read off the features", probe),
}


def features(compared: Compared) -> dict[str, Any]:
    """Return the linear CKA of both models' features, layer by layer, on forget and unseen data.

    It is told and not judged: how far a retrained model's features lie from the original's is not known without one.
    """
    some = {
        "forget": random_subset(compared.task.forget, LIMIT, seed=compared.seed),
        "unseen": random_subset(compared.unseen_data, LIMIT, seed=compared.seed),
    }
    return {
        f"likeness of the features to the original's (CKA), {key} data": feature_distance(
            compared.after, compared.before, data
        )
        for key, data in some.items()
        if len(data)
    }


def class_found(name: str, compared: Compared, readings: Readings | None, *, copies: int = 1) -> Verdict:
    """Judge whether a whole class is found again; ``copies`` rows belong to one sample."""
    if readings is None:
        return untested(name, "no image of it has a label")
    found = found_class(readings, compared.task).view(2, -1, copies).mean(dim=2)
    if copies == 1:
        before, after = (share(int(row.sum()), len(row)) for row in found)
        return class_forgotten(name, before, after, 1 / compared.task.num_classes)
    before, after = (mean(row.numpy(), seed=compared.seed) for row in found)
    return class_forgotten(name, before, after, 1 / compared.task.num_classes)


def _read(compared: Compared, after: nn.Module) -> tuple[Readings | None, Readings | None]:
    """Return what the original and another model in place of the revised one do on forget and unseen data."""
    forget, unseen = (
        read_both(compared.before, after, data, compared.task, compared.groups_of(which))
        for which, data in enumerate((compared.task.forget, compared.unseen_data))
    )
    return forget, unseen
