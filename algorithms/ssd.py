"""Selective synaptic dampening: weights that matter more to the forget data than to all data are made small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import Count, CountOrZero, NonNegative
from unlearn_kit.data import in_order
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, revision
from unlearn_kit.gradients import Named, SampleLoss, mean_absolute_gradients, mean_squared_gradients
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.modules import blank_copy

from .doubling import doubled
from .masks import forget_loss, part_to_forget, within

MILDEST = 1 / 8  # of the strength that forgets a class of Fashion-MNIST: where the halving begins


@revision(source="Foster et al. 2024, arXiv 2308.07707")
def ssd(
    model: nn.Module,
    task: UnlearnTask,
    *,
    alpha: NonNegative | None = None,
    dampening: NonNegative = 1.0,
    samples: Count | None = 2048,
    doublings: CountOrZero = 5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Where ``I_F > alpha I_D``: ``theta *= min(dampening I_D / I_F, 1)``, in one closed-form edit.

    ``I_F`` and ``I_D`` are the mean squared gradients of each sample's own cross-entropy over the forget data and over
    all training data. Published defaults: alpha 10, dampening 1 (ViT: alpha 5 for a class, 25 for a subclass), both
    measured on all data. Since ``I_D`` holds the forget data itself, ``I_F / I_D`` never exceeds ``|D| / |F|``: alpha
    10 selects nothing where one class of ten is forgotten. Here alpha follows the share s = |F| / |D| of the forget
    data, ``5 / (1 - s + 5 s)``: weights that matter five times more to the forget than to the retain data are selected.
    Of many samples drawn at random no weight matters so much more, and nothing changes. Nor is five right for every
    network that forgets a class: small data have shown both that it leaves a tenth and that it costs half of what is
    kept. With validation data of the class it begins at forty and is halved until the class is forgotten.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep; classes or masks.
        alpha: at least 0; how many times more than to all data a weight must matter to the forget data (None: above).
        dampening: at least 0; factor of what is left of a selected weight.
        samples: how many samples of either data set the importances are measured on, drawn once; None for all. A
            thousand images take about a second.
        doublings: how often the forty may be halved while a class that is to be forgotten is still recognised
            (``doubling.doubled``); at 0, or without validation data, five is taken, and alpha where it is given.
        seed, device: of the run.

    The result's details: ``changed``, the share of trainable weights that were selected, ``alpha``, and ``strength``,
    by which the default's multiple was divided.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.

    Source: Foster et al. 2024, arXiv 2308.07707.
    """
    forget = in_order(random_subset(task.forget, samples, seed=seed), device=device)
    retain = in_order(random_subset(task.retain, samples, seed=seed), device=device)
    own = mean_squared_gradients(model, forget, loss=forget_loss(task))
    kept = mean_squared_gradients(model, retain, loss=label_cross_entropy)
    return _dampened(model, task, own, kept, alpha, 5.0, dampening, doublings)


@revision(source="Foster et al. 2024, arXiv 2402.19308")
def lfssd(
    model: nn.Module,
    task: UnlearnTask,
    *,
    alpha: NonNegative | None = None,
    dampening: NonNegative = 1.0,
    samples: Count | None = 2048,
    doublings: CountOrZero = 5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """``ssd`` without labels: the importances are ``mean |grad ||f(x)||^2|``, each sample's own gradient.

    Published default: alpha 10. Here it follows the share of the forget data and the validation data as in ``ssd``, for
    weights that matter nine times more, or 72 times and its halves. The absolute value is taken sample by sample, so
    that nothing depends on a batch size and opposite samples do not cancel.

    Args:
        model: the original; outputs ``(B, C, ...)``.
        task: what to forget and what to keep; classes or masks. No target is used, but for where a class of the masks
            is, if it is one of them that is to be forgotten.
        alpha: at least 0; how many times more than to all data a weight must matter to the forget data (None: above).
        dampening: at least 0; factor of what is left of a selected weight.
        samples: how many samples of either data set the importances are measured on, drawn once; None for all.
        doublings: how often the 72 may be halved, as in ``ssd``; only this reads labels.
        seed, device: of the run.

    The result's details: ``changed``, the share of trainable weights that were selected, ``alpha``, and ``strength``,
    by which the default's multiple was divided.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.

    Source: Foster et al. 2024, arXiv 2402.19308.
    """
    forget = in_order(random_subset(task.forget, samples, seed=seed), device=device)
    retain = in_order(random_subset(task.retain, samples, seed=seed), device=device)
    own = mean_absolute_gradients(model, forget, loss=_own_norm(task))
    kept = mean_absolute_gradients(model, retain, loss=squared_norm)
    return _dampened(model, task, own, kept, alpha, 9.0, dampening, doublings)


def squared_norm(logits: Tensor, _targets: Tensor) -> Tensor:
    """Return ``||f(x)||^2`` of each sample: ``(B, C, ...)`` to ``(B,)``."""
    return logits.square().flatten(1).sum(1)


def _own_norm(task: UnlearnTask) -> SampleLoss:
    """Return ``squared_norm`` on the forget data: of a part of their decisions, at these."""
    part = part_to_forget(task)
    return lambda logits, targets: squared_norm(within(logits, targets, part), targets)


def _dampened(
    model: nn.Module,
    task: UnlearnTask,
    own: Named,
    kept: Named,
    alpha: float | None,
    times: float,
    dampening: float,
    doublings: int,
) -> FitResult:
    share = len(task.forget) / (len(task.forget) + len(task.retain))
    everything = {name: share * own[name] + (1 - share) * kept[name] for name in own}

    def dampen(strength: float) -> FitResult:
        more = times / strength
        # I_F > alpha I_D is then I_F > more I_R.
        threshold = more / (1 - share + more * share) if alpha is None else alpha
        return _dampen(blank_copy(model), own, everything, threshold, dampening)

    return doubled(dampen, task, doublings if alpha is None else 0, start=MILDEST)


@torch.no_grad()
def _dampen(model: nn.Module, own: Named, everything: Named, alpha: float, dampening: float) -> FitResult:
    parameters, changed, count = dict(model.named_parameters()), 0, 0
    for name, importance in own.items():
        chosen = importance > alpha * everything[name]
        factor = (dampening * everything[name] / importance).clamp(max=1)  # 0 / 0 is never chosen.
        parameters[name].copy_(torch.where(chosen, parameters[name] * factor, parameters[name]))
        changed, count = changed + int(chosen.sum()), count + chosen.numel()
    return FitResult(model, details={"changed": changed / count, "alpha": alpha})
