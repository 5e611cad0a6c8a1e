"""Quantile matching: forget single samples so that their losses are distributed as those of unseen ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask, difficulty
from unlearn_kit import losses as L
from unlearn_kit.arguments import Positive, PositiveShare, Share
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine

from .masks import check_one_label
from .matching import MATCHING, MEASURED_SHARE, check_share, fitting_shrink, matching_phase
from .proxy import proxy_predictions

# Toward a proxy's predictions, which of wrong labels are far from the original's: unless another rate is asked for.
PROXY_LR = cosine(0.1, 0.0)


@revision(MATCHING, masks=False)
def quantile_matching(
    model: nn.Module,
    task: UnlearnTask,
    *,
    targets: L.Target | Literal["quantiles", "proxy"] | None = None,
    level: Share = 0.01,
    within_class: bool | None = None,
    shrink: PositiveShare | None = None,
    max_share: PositiveShare = MEASURED_SHARE,
    distill: Share | None = None,
    temperature: Positive = 2.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Lead each forget sample to the confidence that an unseen sample of the same difficulty gets.

    What a model that never saw a sample would say of it is unknown, but how such losses are distributed is known from
    validation data. Forget samples are ranked by difficulty among all training samples; each is given the validation
    margin of the same rank as a soft label q, and the model is led there:
    ``CE(f(x) -> q) + (1 - distill) CE(f(x_r) -> y_r) + distill T^2 KL(p0(x_r) || p(x_r))``.

    It holds where forget and validation data are exchangeable. Samples with wrong labels, outliers, and the images of
    one device are not, which a two-sample test on their difficulty tells (``unlearn_kit.difficulty.exchange``); they
    get the predictions of a small proxy instead, a network trained from fresh weights on the retain data for a few
    passes, and where no ``lr`` is asked for, one that falls from .1. And quantiles are those of a model trained on
    everything: for more than ``max_share`` of the training data they are refused, since a model without so many would
    be worse than they say.

    Batches are drawn with replacement: forget samples the more often the farther they are from their target, retain
    samples the more often the less sure the original is of them once shifted by one pixel.

    Args:
        model: the original; logits ``(B, C)``.
        task: what to forget and what to keep; classification. Its validation data are read, its test data are not.
        targets: "quantiles", "proxy", or any target of one's own; None for what the test decides.
        level: of that test: the p-value below which the data are told apart.
        within_class: whether ranks and quantiles are those of the sample's own class; None where the largest class of
            the training data has more than twice the samples of the smallest.
        shrink: what positive margins are multiplied by, in (0, 1]; None for .6 to .9 by how often a sample is drawn.
        max_share: of the training data that quantiles are taken for, in (0, 1]; a proxy and targets of one's own are
            taken for any.
        distill: share of the retain term that is distillation from the original, in [0, 1]; None for .8, and for 0
            beside a proxy, since wrong labels make the original unsure of all data.
        temperature: of the distillation.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``targets`` ("quantiles", "proxy" or "given"), ``exchangeable`` (None where nothing was
    tested), ``statistic`` and ``p_value`` of the test, ``within_class`` and ``shrink``.

    Raises:
        ValueError: On masks, without validation data, beyond ``max_share``, and when an argument is out of range, by
            its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.
    """
    training = Training(**options)
    check_one_label(task, "quantile_matching")
    shrunk = shrink or fitting_shrink(task, training)
    target, details = _target(model, task, targets, level, within_class, shrunk, max_share, seed)
    # Where the forget data are unlike all others, what they did to the original's other predictions goes as well.
    share_distilled = distill if distill is not None else 0.0 if details["targets"] == "proxy" else 0.8
    if details["targets"] == "proxy" and training.lr == MATCHING.lr:
        training = replace(training, lr=PROXY_LR)
    phase = matching_phase(model, task, target, training, distill=share_distilled, temperature=temperature)
    fitted = training.fit(model, phase, seed=seed, device=device)
    return replace(fitted, details=fitted.details | details)


def _target(
    model: nn.Module,
    task: UnlearnTask,
    targets: L.Target | str | None,
    level: float,
    within_class: bool | None,
    shrink: float,
    max_share: float,
    seed: int,
) -> tuple[L.Target, dict[str, Any]]:
    """Return what the forget data are led toward, and what is to be told of the choice."""
    if isinstance(targets, L.Target):
        return targets, {"targets": "given", "exchangeable": None}
    if targets not in (None, "quantiles", "proxy"):
        raise ValueError(f"expected targets to be 'quantiles', 'proxy', a target or None, but got {targets!r}")
    ridge = difficulty.ridge_loss(model, task)
    found = difficulty.exchange(ridge, level=level)
    chosen = targets or ("quantiles" if found.holds else "proxy")
    details = {
        "targets": chosen,
        "exchangeable": found.holds,
        "statistic": found.statistic,
        "p_value": found.p_value,
    }
    if chosen == "proxy":
        return proxy_predictions(model, task, seed=seed), details
    check_share(task, max_share, "max_share=1 takes them nevertheless, and targets='proxy' needs none")
    scores = difficulty.mean_rank(difficulty.own_loss, lambda _model, _task: ridge)(model, task)
    matched = difficulty.matched(model, task, scores=scores, within_class=within_class, shrink=shrink)
    within = matched.calibration.labels is not None
    return matched, details | {"within_class": within, "shrink": shrink}
