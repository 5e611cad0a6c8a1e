"""How hard samples are for a model, told so that having seen them matters little; ranks, and whether they can be used.

A score is a function ``(model, task) -> Scores``; a larger number is harder. Forget samples are ranked among all
training samples, which the model has seen as often, so that a memorised sample keeps its place in the order although
its loss is small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import checked
from .boundary import PerturbedSign
from .data.tensors import in_order, read_labels
from .errors import check_number
from .heads import head_name
from .losses import Calibration, Matched, RunnerUp, Target
from .metrics.features import captured
from .metrics.predict import class_labels, map_batches
from .modules import device_of
from .outputs import label_loss, label_margin
from .tasks import UnlearnTask


class Scores(NamedTuple):
    """The difficulty of each sample of a task's forget, retain and validation data, larger is harder.

    ``(F,)``, ``(R,)`` and ``(V,)``; validation data are those that the task's rule does not name.
    """

    forget: Tensor
    retain: Tensor
    validation: Tensor


# Pairs of samples up to which the test is exact; beyond, its limit for many samples is as good.
EXACT = 10_000

Difficulty = Callable[[nn.Module, UnlearnTask], Scores]


class Exchange(NamedTuple):
    """Whether forget data are told from validation data by being harder.

    Attributes:
        statistic: How far the distribution function of the forget data lies below the other at most (Kolmogorov and
            Smirnov, one-sided), in [0, 1].
        p_value: How likely as much would be if they were no harder.
        holds: Whether the difference may be chance.
    """

    statistic: float
    p_value: float
    holds: bool


@checked
def own_loss(model: nn.Module, task: UnlearnTask) -> Scores:
    """Return the model's cross-entropy of each sample's own label.

    Memorising lowers it for all training samples alike, so it ranks them; it is of no use beside validation data.
    """
    return Scores(*(_by_label(model, data, label_loss)[0] for data in _data(task)))


@checked
def ridge_loss(
    model: nn.Module,
    task: UnlearnTask,
    *,
    layer: str | None = None,
    penalty: float = 1e-2,
    sharpness: float = 5.0,
) -> Scores:
    """Return the cross-entropy under a linear head on early features, fitted to the retain data in closed form.

    Early features know little of single samples, and the head has seen no forget sample at all, so this score tells
    forget from validation data only where they differ by nature. Retain samples are scored by the head that would be
    fitted without them (the closed form of leaving one out).

    Args:
        model: The original.
        task: Whose forget, retain and validation data are scored; classification.
        layer: The submodule whose output is used (default: two fifths of the way, by the modules of the trunk); maps
            are averaged over a grid of 2 x 2, tokens over their positions.
        penalty: Of the squared weights, a sample; features are standardised.
        sharpness: What the head's scores are multiplied by before their softmax.

    Raises:
        ValueError: When an argument is out of range, by its name; on an unknown layer.
    """
    check_number("penalty", penalty, low=0, open_low=True)
    check_number("sharpness", sharpness, low=0, open_low=True)
    name = early_layer(model) if layer is None else layer
    (forget, own), (retain, kept), (validation, held) = (_features(model, data, name) for data in _data(task))
    mean, std = retain.mean(0), retain.std(0).clamp(min=1e-6)
    x, fx, vx = (
        torch.cat([(part.reshape(len(part), len(mean)) - mean) / std, torch.ones(len(part), 1)], dim=1).double()
        for part in (retain, forget, validation)
    )
    wanted = F.one_hot(kept, task.num_classes).double()
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ wanted)
    leverage = (torch.linalg.solve(gram, x.T) * x.T).sum(0).unsqueeze(1)
    alone = wanted - (wanted - x @ weights) / (1 - leverage)
    return Scores(
        *(
            F.cross_entropy(sharpness * scores, labels, reduction="none")
            for scores, labels in ((fx @ weights, own), (alone, kept), (vx @ weights, held))
        )
    )


@checked
def boundary_radius(search: PerturbedSign, *, tolerance: float = 1e-3) -> Difficulty:
    """Return the score that is minus the smallest radius at which the search changes a sample's label.

    Samples whose label no radius up to the search's own changes share the lowest score.
    """

    def score(model: nn.Module, task: UnlearnTask) -> Scores:
        def radii(data: Any) -> Tensor:
            parts = [
                -search.radii(model, x, y, tolerance=tolerance).radii.cpu()
                for x, y in in_order(data, device=device_of(model))
            ]
            return torch.cat(parts) if parts else torch.empty(0)

        return Scores(*(radii(data) for data in _data(task)))

    return score


def mean_rank(*scores: Difficulty) -> Difficulty:
    """Return the score that is the sum of a sample's ranks among the training samples under several scores, over N."""
    if not scores:
        raise ValueError("expected at least one score to rank by, but got none")

    def score(model: nn.Module, task: UnlearnTask) -> Scores:
        parts = []
        for one in scores:
            found = one(model, task)
            training = torch.cat([found.forget, found.retain])
            parts.append([_places(part, training) for part in found])
        return Scores(*(torch.stack(same).sum(0) for same in zip(*parts, strict=True)))

    return score


@checked
def percentiles(scores: Scores, labels: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the share of the training samples that each forget sample is harder than, ``(F,)`` in (0, 1).

    Args:
        scores: Of the task's data.
        labels: Of the forget and of the retain samples, to rank each among those of its own class; None for all.
    """
    if labels is None:
        return _places(scores.forget, torch.cat([scores.forget, scores.retain]))
    own, kept = labels
    found = torch.empty(len(own), dtype=torch.float64)
    for label in own.unique().tolist():
        at = own == label
        found[at] = _places(scores.forget[at], torch.cat([scores.forget[at], scores.retain[kept == label]]))
    return found


@checked
def exchange(scores: Scores, *, level: float = 0.01) -> Exchange:
    """Return whether forget samples are no harder than validation samples, by the two-sample test of scipy.

    Only scores that a sample's membership leaves alone can be asked (:func:`ridge_loss`); what features remember of a
    sample makes it easier, so the test is one-sided. Wrong labels, outliers and the images of one device fail; so few
    samples that nothing can be told pass.

    Args:
        scores: Of the task's data.
        level: The p-value below which they are told apart, in (0, 1).

    Raises:
        ValueError: On a level out of range, and without validation data.
    """
    check_number("level", level, low=0, high=1, open_low=True, open_high=True)
    if len(scores.validation) == 0:
        raise ValueError("expected scores of validation data, but got none")
    # "less": of the distribution function, so that the forget samples' scores are larger.
    forget, validation = scores.forget.numpy(), scores.validation.numpy()
    method = "exact" if len(forget) * len(validation) <= EXACT else "asymp"
    found = ks_2samp(forget, validation, alternative="less", method=method)
    return Exchange(float(found.statistic), float(found.pvalue), bool(found.pvalue >= level))


@checked
def unbalanced(labels: Tensor, *, ratio: float = 2.0) -> bool:
    """Return whether the largest class has more than ``ratio`` times the samples of the smallest that occurs.

    Then difficulty is a matter of the class as much as of the sample, and ranks belong within classes.
    """
    counts = labels.unique(return_counts=True)[1]
    return bool(counts.max() > check_number("ratio", ratio, low=1) * counts.min())


@checked
def calibrate(
    model: nn.Module, validation: Any, *, within_class: bool = False, shrink: float = 0.6, least: int = 10
) -> Calibration:
    """Return the margins that the model has on samples it never saw.

    Args:
        model: The original.
        validation: Data that it was neither trained nor will be judged on.
        within_class: Whether samples are compared with those of their own class; classes with fewer than ``least``
            validation samples are compared with all.
        shrink: As in ``losses.Calibration``.
        least: Validation samples that a class needs.

    Raises:
        ValueError: Without validation data, or when an argument is out of range.
    """
    if len(validation) == 0:
        raise ValueError("expected validation data to tell how unseen samples are predicted, but the task has none")
    margins, labels = _by_label(model, validation, label_margin)
    if not within_class:
        return Calibration(margins, shrink=shrink)
    counts = torch.bincount(labels)
    return Calibration(margins, torch.where(counts[labels] >= least, labels, -1), shrink)


@checked
def matched(
    model: nn.Module,
    task: UnlearnTask,
    *,
    scores: Scores | None = None,
    rest: Target | None = None,
    within_class: bool | None = None,
    shrink: float = 0.6,
) -> Matched:
    """Return the target that gives each forget sample the confidence of an unseen one of the same difficulty.

    Args:
        model: The original.
        task: Whose forget data are to be forgotten; its validation data tell how unseen samples are predicted.
        scores: How hard the samples are (default: the mean rank of the model's own loss and of :func:`ridge_loss`).
        rest: As in ``losses.Matched`` (default: the model's runner-up).
        within_class: Whether ranks and quantiles are those of the sample's own class (default: where the training
            data are :func:`unbalanced`).
        shrink: As in ``losses.Calibration``.

    Raises:
        ValueError: On masks, and without validation data.
    """
    found = mean_rank(own_loss, ridge_loss)(model, task) if scores is None else scores
    labels = read_labels(task.forget), read_labels(task.retain)
    within = unbalanced(torch.cat(labels)) if within_class is None else within_class
    return Matched(
        percentiles(found, labels if within else None),
        calibrate(model, task.retain_validation, within_class=within, shrink=shrink),
        RunnerUp(model) if rest is None else rest,
        task.num_classes,
    )


def early_layer(model: nn.Module) -> str:
    """Return the submodule two fifths of the way to the head, of those that a network's trunk is made of.

    Raises:
        ValueError: When the network is a single layer.
    """
    prefix, module = "", model
    while True:
        parts = [(name, part) for name, part in module.named_children() if any(True for _ in part.parameters())]
        if len(parts) != 1:
            break
        prefix, module = f"{prefix}{parts[0][0]}.", parts[0][1]
    try:
        head = head_name(model)
    except ValueError:
        head = f"{prefix}{parts[-1][0]}" if parts else ""
    names = [f"{prefix}{name}" for name, _ in parts if not f"{head}.".startswith(f"{prefix}{name}.")]
    if not names:
        raise ValueError(f"expected layer= with {type(model).__name__}, which has no layers before its head")
    return names[max(0, round(0.4 * len(names)) - 1)]


def _data(task: UnlearnTask) -> tuple[Any, Any, Any]:
    """Return the data that scores are told of.

    Raises:
        ValueError: On masks, which are no matter of single labels.
    """
    if task.kind != "classification":
        raise ValueError(f"expected a classification task to rank samples by difficulty, but got {task.kind}")
    return task.forget, task.retain, task.retain_validation


def _by_label(model: nn.Module, data: Any, function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return ``function(logits, labels)`` of every sample, ``(N,)``, and the labels."""

    def both(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        labels = class_labels(logits, targets)
        return function(logits, labels), labels

    return _pair(map_batches([model], data, both))


def _features(model: nn.Module, data: Any, layer: str) -> tuple[Tensor, Tensor]:
    """Return pooled features ``(N, D)`` of the submodule ``layer`` and the labels."""
    with captured(model, [layer]) as held:

        def both(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return _pooled(held.pop(layer).cpu()), class_labels(logits, targets)

        return _pair(map_batches([model], data, both))


def _pooled(features: Tensor) -> Tensor:
    if features.dim() == 4:
        return F.adaptive_avg_pool2d(features, 2).flatten(1)
    return features.mean(1) if features.dim() == 3 else features.flatten(1)


def _pair(found: tuple[Tensor, ...] | None) -> tuple[Tensor, Tensor]:
    return (torch.empty(0), torch.empty(0, dtype=torch.int64)) if found is None else (found[0], found[1])


def _places(scores: Tensor, among: Tensor) -> Tensor:
    """Return the share of ``among`` below each score, ties counting half, ``(N,)`` float64."""
    order = among.sort().values
    below, up_to = torch.searchsorted(order, scores), torch.searchsorted(order, scores, right=True)
    return (below + up_to).double() / (2 * len(among))
