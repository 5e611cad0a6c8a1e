"""Masked small gradients: weights on which forget and retain data agree are drawn anew, the rest follows slowly."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import CountOrZero, Share
from unlearn_kit.data import in_order
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.gradients import mean_gradients
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.models import fresh_copy
from unlearn_kit.modules import blank_copy, check_own_weight
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive

from .doubling import doubled
from .masks import forget_loss

CONVOLUTION = nn.modules.conv._ConvNd


@revision(
    Training(steps=100, batch_size=256, lr=cosine(0.2, 0.0), batch_norm="update", clip=1.0),
    source="NeurIPS 2023 machine unlearning challenge, arXiv 2406.09073",
    reinitializes=True,
)
def masked_small_gradient(
    model: nn.Module,
    task: UnlearnTask,
    *,
    share: Share = 0.45,
    slow: Share = 0.1,
    objective: L.Objective | L.Term | None = None,
    doublings: CountOrZero = 1,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Draw anew the ``share`` of each convolution's weights with the smallest ``|g_R - g_F|``, then finetune on R.

    ``g_F`` is the sum of the cross-entropy gradients over the forget data, ``g_R`` over as many retain samples, both of
    the original. While finetuning, gradients of all other weights are multiplied by ``slow``. A weight that several
    layers share is one weight: it is drawn anew as of the first of them.

    Published defaults: share .3, slow .1, 5 epochs; batch norm trains, since new weights need new statistics. Here
    share .45: with .3 a tenth of a forgotten class is still recognised after a hundred steps at a large, falling lr.

    Args:
        model: The original; logits ``(B, C, ...)``. Where it has no convolutions, its linear layers are taken.
        task: What to forget and what to keep; classes or masks.
        share: Part of each layer's weights, in [0, 1].
        slow: In [0, 1]; at 0 only what was drawn anew is trained.
        objective: What is minimised; reads the stream "retain" (default: cross-entropy).
        doublings: How often ``share`` may double, to all weights at most, while a class that is to be forgotten is
            still recognised (``doubling.doubled``).
        **options: How it trains, as in ``engine.Training``.
        seed: Of the retain samples, of the new weights and of the order of the samples.
        device: Where it runs; None for the model's own.

    The result's details: ``strength``, 1 or what ``share`` was multiplied by.

    Raises:
        ValueError: When an option is out of its range, and when no layer can be drawn anew.
        TypeError: When an option is of another type.
        DivergenceError: When training produces a non-finite number.

    Source: the masked small gradients entry of the NeurIPS 2023 machine unlearning challenge (arXiv 2406.09073).
    """
    training = Training(**options)
    loss = objective if objective is not None else L.cross_entropy(on="retain")

    def run(strength: float) -> FitResult:
        start, masks = drawn_anew(model, task, min(1.0, strength * share), slow, seed, device)
        phase = training.phase(loss, task, name="finetune", masks=masks)
        return training.fit(start, phase, seed=seed, device=device)

    return doubled(run, task, doublings)


def drawn_anew(
    model: nn.Module, task: UnlearnTask, share: float, slow: float, seed: int, device: torch.device | str | None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model with ``share`` of each layer's weights fresh, and how far every weight may move, by name."""
    start = blank_copy(model)
    masks = {name: torch.full_like(p, slow) for name, p in start.named_parameters()}
    for name, mask in small_gradients(model, task, share, seed, device).items():
        layer = name.rpartition(".")[0]
        fresh = fresh_copy(model.get_submodule(layer), seed=derive(seed, "fresh", layer))
        weight = start.get_parameter(name)
        masks[name][mask] = 1.0
        with torch.no_grad():
            weight.copy_(torch.where(mask, fresh.get_parameter("weight").to(weight), weight))
    return start, masks


def small_gradients(
    model: nn.Module, task: UnlearnTask, share: float, seed: int, device: torch.device | str | None
) -> dict[str, Tensor]:
    """Return masks, by name, of the ``share`` of each layer's weights with the smallest ``|g_R - g_F|``.

    Raises:
        ValueError: When the model has neither convolutions nor linear layers that may change, or weights of them are
            computed.
    """
    named = list(model.named_modules())
    layers = [(name, module) for name, module in named if isinstance(module, (CONVOLUTION, nn.Linear))]
    if any(isinstance(module, CONVOLUTION) for _, module in layers):
        layers = [(name, module) for name, module in layers if isinstance(module, CONVOLUTION)]
    for name, layer in layers:
        check_own_weight(name, layer, "masked_small_gradient")
    weights = {id(layer.get_parameter("weight")) for _, layer in layers}
    # By the parameters, not the layers: a weight that several layers share has one name, and one gradient.
    names = [name for name, p in model.named_parameters() if id(p) in weights and p.requires_grad]
    if not names:
        raise ValueError("expected model to have convolutions or linear layers that may change, but got none")
    retain = random_subset(task.retain, len(task.forget), seed=seed)
    own, kept = (
        mean_gradients(model, in_order(data, 256, device=device), loss=loss)
        for data, loss in ((task.forget, forget_loss(task)), (retain, label_cross_entropy))
    )
    masks = {}
    for name in names:
        size = (kept[name] - own[name]).abs().flatten()
        mask = torch.zeros_like(size, dtype=torch.bool)
        mask[size.topk(round(share * len(size)), largest=False).indices] = True
        masks[name] = mask.view_as(kept[name])
    return masks
