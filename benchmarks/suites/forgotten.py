"""What a result's record holds of the forgotten data beside their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data import DataBundle, load_tensors, subset
from unlearn_kit.data.groups import Division, Groups, divided, groups_of
from unlearn_kit.data.tensors import resolve
from unlearn_kit.metrics import split_score
from unlearn_kit.metrics.membership import loss
from unlearn_kit.metrics.predict import class_labels, map_batches
from unlearn_kit.modules import device_of, evaluating
from unlearn_kit.outputs import predicted_labels

PICTURES = 6  # forgotten images that are kept, with their predicted masks
LOSSES = 100  # forgotten samples whose losses are kept
GROUPS = 20  # groups that are scored
GROUP_SAMPLES = 200  # samples of each that are read
CONFUSED = 10  # most forgotten classes whose predictions are counted


def confusion(model: nn.Module, task: UnlearnTask) -> dict[str, dict[str, int]] | None:
    """Count, of each forgotten class, what the model takes its samples for: held-out ones where there are any."""
    if task.kind != "classification":
        return None
    data = task.forget_test if len(task.forget_test) else task.forget
    found = map_batches(
        [model], data, lambda logits, targets: (class_labels(logits, targets), predicted_labels(logits))
    )
    if found is None or len(found[0].unique()) > CONFUSED:
        return None
    counts: dict[str, dict[str, int]] = {}
    for label in found[0].unique().tolist():
        taken_for, times = found[1][found[0] == label].unique(return_counts=True)
        counts[str(label)] = dict(zip(map(str, taken_for.tolist()), times.tolist(), strict=True))
    return counts


def _groups(bundle: DataBundle, rules: Sequence[str]) -> Groups | None:
    """Return the groups of the training data: of the column that a rule names, else patients, if there are any."""
    named = next((rule.split(":")[1] for rule in rules if rule.startswith("where:")), None)
    return groups_of(bundle.train, named, bundle.train_metadata)


def division(task: UnlearnTask, bundle: DataBundle, rules: Sequence[str]) -> Division | None:
    """Return how the request divides the groups; None where there are none."""
    groups = _groups(bundle, rules)
    if groups is None or task.forget_indices is None:
        return task.division
    selected = torch.zeros(len(bundle.train), dtype=torch.bool)
    selected[task.forget_indices] = True
    return divided(groups, selected)


def group_scores(
    model: nn.Module, task: UnlearnTask, bundle: DataBundle, rules: Sequence[str]
) -> dict[str, dict[str, Any]] | None:
    """Score each of the groups, those of which something is forgotten first; None where there are none."""
    groups = _groups(bundle, rules)
    if groups is None or task.forget_indices is None:
        return None
    unseen = None
    if bundle.test_metadata is not None and groups.name in bundle.test_metadata.columns:
        unseen = groups_of(bundle.test, groups.name, bundle.test_metadata)
    judged = _judged(task, bundle)
    forgotten = Counter(groups.values[task.forget_indices.numpy()].tolist())
    names = sorted(set(groups.values[~groups.missing].tolist()), key=lambda name: (not forgotten[name], name))
    found = {}
    for name in names[:GROUPS]:
        train = np.flatnonzero(groups.values == name)
        test = np.flatnonzero([] if unseen is None else judged & (unseen.values == name))
        found[name] = {
            "forgotten": forgotten[name],
            "train": len(train),
            "train_score": _score_of(model, task, bundle.train, train),
            "test": len(test),
            "test_score": _score_of(model, task, bundle.test, test),
        }
    return found


def _judged(task: UnlearnTask, bundle: DataBundle) -> NDArray[np.bool_]:
    """Return which held-out samples judge, ``(N,)``: those set aside to choose by do not."""
    base, own = resolve(bundle.test)
    places = np.arange(len(bundle.test)) if own is None else own.numpy()
    judged = np.zeros(len(places), dtype=bool)
    for part in (task.forget_test, task.retain_test):
        if len(part):
            below, chosen = resolve(part)
            if below is base:
                judged |= True if chosen is None else np.isin(places, chosen.numpy())
    return judged


def _score_of(model: nn.Module, task: UnlearnTask, dataset: Any, places: NDArray[np.intp]) -> float | None:
    """Return the score on some of the samples at ``places``, evenly spaced; None where there are none."""
    if not len(places):
        return None
    chosen = places[np.linspace(0, len(places) - 1, min(GROUP_SAMPLES, len(places))).astype(int)]
    return split_score(model, replace(task, forget=subset(dataset, chosen)), "forget")


def forget_losses(model: nn.Module, task: UnlearnTask) -> list[float] | None:
    """Return the losses of some forgotten samples, evenly spaced; None where they have none."""
    places = torch.linspace(0, len(task.forget) - 1, min(LOSSES, len(task.forget))).long().tolist()
    found = map_batches([model], subset(task.forget, places), lambda logits, targets: (loss(logits, targets),))
    if found is None or found[0].isnan().any():  # an image without a labelled pixel has none
        return None
    return [float(f"{value:.4g}") for value in found[0].tolist()]


def pictures(model: nn.Module, task: UnlearnTask, *, with_images: bool) -> dict[str, Tensor]:
    """Return the masks predicted for the first forgotten images; with images these and the true masks."""
    masks = task.kind == "segmentation"
    if not (masks or with_images):
        return {}
    x, y = load_tensors(subset(task.forget, range(min(PICTURES, len(task.forget)))))
    found = {}
    if masks:
        with evaluating(model), torch.no_grad():
            found["predicted"] = predicted_labels(model(x.to(device_of(model)))).cpu().to(torch.uint8)
    if with_images and x.dim() == 4 and x.shape[1] in (1, 3):
        found["images"] = (x * 255).round().clamp(0, 255).to(torch.uint8)
    if with_images and masks:
        found["masks"] = y.reshape(len(y), *y.shape[-2:]).to(torch.uint8)
    return found
