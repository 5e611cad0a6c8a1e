"""RELOAD: forgetting by a gradient that was stored at the end of training, so that the data can be deleted at once."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import NonNegative, Share
from unlearn_kit.data import in_order
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.gradients import Named, mean_gradients
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.models import fresh_copy
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive

from .masks import forget_loss

TINY = 1e-8  # Added to both magnitudes: weights that neither gradient moves have a ratio of 1.


@revision(
    Training(epochs=1, batch_size=256, lr=cosine(1e-2, 0.0), weight_decay=5e-4, clip=5.0),
    source="Newatia et al. 2026, arXiv 2604.10636",
    reinitializes=True,
)
def reload(
    model: nn.Module,
    task: UnlearnTask,
    *,
    stored: Named | None = None,
    ascent: NonNegative = 0.325,
    share: Share = 0.1,
    reset: Literal["low", "high"] = "high",
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Climb ``g_F``, give ``share`` of the weights fresh values, and fine-tune on the retain data.

    ``stored`` is the gradient g of the mean loss over all training data, at the original's weights; what it holds
    beyond that of the retain data is the forget data's part, ``g_F = g - (1 - s) g_R`` with s the share of the forget
    data. One step ``theta += ascent g_F``, then the ``share`` of the weights at one end of the ratios
    ``(|g_F| + e) / (|g| + e)`` starts afresh, then the retain data are trained on.

    Published defaults: ascent .325, share .1, the same, and the lowest ratios. The authors' released code uses one
    tensor for both gradients, so that the ratio is 1 everywhere and the choice is arbitrary; this is the formula. Here
    the highest ratios start afresh, the weights that the forget data move most of what moves them: with the lowest, a
    class of the digits stays whole (1.0 of it at training seeds 100 and 101, against 0), and of a random tenth it makes
    little difference.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        stored: By name of trainable parameter, as :func:`unlearn_kit.gradients.mean_gradients` makes it of all training
            data; the forget data are then not read. None: made here of both.
        ascent: At least 0, the length of the first step in gradients.
        share: In [0, 1], of all trainable weights.
        reset: Which end of the ratios starts afresh.
        **options: How the fine-tuning trains, as in ``engine.Training``.
        seed, device: Of the run.

    The result's details: ``reset``, the number of weights that started afresh.

    Raises:
        ValueError: When ``stored`` has other names or shapes. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Newatia et al. 2026, arXiv 2604.10636.
    """
    training = Training(**options)
    s = len(task.forget) / (len(task.forget) + len(task.retain))
    kept = mean_gradients(model, in_order(task.retain, 256, device=device), loss=label_cross_entropy)
    if stored is None:
        own = mean_gradients(model, in_order(task.forget, 256, device=device), loss=forget_loss(task))
        whole = {name: s * own[name] + (1 - s) * g for name, g in kept.items()}
    else:
        whole = _fitting(stored, kept)
    part = {name: whole[name] - (1 - s) * g for name, g in kept.items()}
    count = _edit(model, part, whole, ascent, share, reset, derive(seed, "fresh weights"))
    phase = training.phase(L.cross_entropy(on="retain"), task, name="finetune")
    fitted = training.fit(model, phase, seed=seed, device=device)
    fitted.details.update(reset=count)
    return fitted


def _fitting(stored: Named, wanted: Named) -> Named:
    for name, g in wanted.items():
        if name not in stored or stored[name].shape != g.shape:
            came = tuple(stored[name].shape) if name in stored else "nothing"
            raise ValueError(f"expected stored[{name!r}] to be of shape {tuple(g.shape)}, but got {came}")
    return {name: stored[name].to(g) for name, g in wanted.items()}


@torch.no_grad()
def _edit(model: nn.Module, part: Named, whole: Named, ascent: float, share: float, reset: str, seed: int) -> int:
    """Climb, and give fresh values to the weights at one end of the ratios; return how many there are."""
    ratios = torch.cat([((part[n].abs() + TINY) / (whole[n].abs() + TINY)).flatten() for n in part])
    chosen = torch.zeros_like(ratios, dtype=torch.bool)
    count = round(share * len(ratios))
    chosen[ratios.topk(count, largest=reset == "high").indices] = True
    parameters = dict(model.named_parameters())
    fresh = dict(fresh_copy(model, seed=seed).named_parameters()) if count else parameters
    for (name, g), mask in zip(part.items(), chosen.split([p.numel() for p in part.values()]), strict=True):
        p = parameters[name]
        p.copy_(torch.where(mask.view_as(p), fresh[name], p + ascent * g))
    return count
