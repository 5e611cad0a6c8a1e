"""Fisher forgetting: noise on the weights that the retain data do not need."""

from __future__ import annotations

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import Count, NonNegative, Positive
from unlearn_kit.data import in_order
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, revision
from unlearn_kit.gradients import mean_squared_gradients
from unlearn_kit.heads import head_parameters
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.seeding import generator


@revision(source="Golatkar et al. 2020, arXiv 1911.04933")
def fisher_forgetting(
    model: nn.Module,
    task: UnlearnTask,
    *,
    alpha: NonNegative = 1e-6,
    cap: Positive = 1e3,
    reset_head: bool = True,
    head_variance: NonNegative = 1e-4,
    samples: Count | None = 2048,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """``theta + sqrt(var) e`` with normal e and ``var = alpha min(1 / (F_R + 1e-8), cap)``.

    ``F_R`` is the mean squared gradient of each retain sample's own cross-entropy. Where whole classes are forgotten,
    their rows of the head are drawn anew, with mean 0 and variance ``head_variance``.

    Published defaults: alpha 1e-6, cap 1e3, as here. What forgets a class is mostly its row of the head; the noise of
    this size hides what else the weights hold.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep; classes or masks.
        alpha: at least 0; scale of the variance.
        cap: positive; largest inverse of an importance.
        reset_head: draw the rows of forgotten classes anew. The model must then declare its head; a head with one
            row for two classes has none to draw.
        head_variance: of those rows, at least 0.
        samples: how many retain samples ``F_R`` is measured on, drawn once; None for all.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name. When a head is needed and not declared.
        TypeError: When an argument is of another type, by its name.

    Source: Golatkar et al. 2020, arXiv 1911.04933; variances as in arXiv 2304.04934.
    """
    rows = list(task.forget_classes) if reset_head else []
    head = head_parameters(model) if rows else []
    retain = in_order(random_subset(task.retain, samples, seed=seed), device=device)
    needed = mean_squared_gradients(model, retain, loss=label_cross_entropy)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, importance in needed.items():
            mean, variance = parameters[name].clone(), alpha * (1 / (importance + 1e-8)).clamp(max=cap)
            if name in head and len(mean) == task.num_classes:
                mean[rows], variance[rows] = 0.0, head_variance
            noise = torch.randn(mean.shape, generator=generator(seed, "noise", name)).to(mean)
            parameters[name].copy_(mean + variance.sqrt() * noise)
    return FitResult(model)
