"""Masked small gradients: weights on which forget and retain data agree are drawn anew, the rest follows slowly."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data import in_order
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.errors import check_number
from unlearn_kit.gradients import mean_gradients
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.models import fresh_copy
from unlearn_kit.schedules import ScalarOrSchedule, cosine
from unlearn_kit.seeding import derive

from .masks import forget_loss

CONVOLUTION = nn.modules.conv._ConvNd


@revision
def masked_small_gradient(
    model: nn.Module,
    task: UnlearnTask,
    *,
    share: float = 0.45,
    slow: float = 0.1,
    epochs: int | None = None,
    steps: int = 100,
    batch_size: int = 256,
    lr: ScalarOrSchedule = cosine(0.2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "update",
    clip: float | None = 1.0,
    objective: L.Objective | L.Term | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Draw anew the ``share`` of each convolution's weights with the smallest ``|g_R - g_F|``, then finetune on R.

    ``g_F`` is the sum of the cross-entropy gradients over the forget data, ``g_R`` over as many retain samples, both of
    the original. While finetuning, gradients of all other weights are multiplied by ``slow``.

    Published defaults: share .3, slow .1, 5 epochs; batch norm trains, since new weights need new statistics. Here
    share .45: with .3 a tenth of a forgotten class is still recognised after a hundred steps at a large, falling lr.

    Args:
        model: the original; logits ``(B, C, ...)``. Where it has no convolutions, its linear layers are taken.
        task: what to forget and what to keep; classes or masks.
        share: in [0, 1], of each layer's weights.
        slow: in [0, 1]; at 0 only what was drawn anew is trained.
        epochs, steps: passes over the retain data, or steps; ``epochs`` replaces ``steps``.
        batch_size, lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``; with an optimiser that
            divides by the size of gradients ``slow`` has no effect.
        objective: reads the stream "retain" (default: cross-entropy).
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; ValueError when no layer can be drawn anew; DivergenceError.

    Source: the masked small gradients entry of the NeurIPS 2023 machine unlearning challenge (arXiv 2406.09073).
    """
    check_number("share", share, low=0, high=1)
    check_number("slow", slow, low=0, high=1)
    redrawn = small_gradients(model, task, share, seed, device)
    start = copy.deepcopy(model)
    masks = {name: torch.full_like(p, slow) for name, p in start.named_parameters()}
    for layer in {name.rpartition(".")[0] for name in redrawn}:
        fresh = fresh_copy(model.get_submodule(layer), seed=derive(seed, "fresh", layer))
        name = f"{layer}.weight" if layer else "weight"
        mask, weight = redrawn[name], start.get_parameter(name)
        masks[name][mask] = 1.0
        with torch.no_grad():
            weight.copy_(torch.where(mask, fresh.get_parameter("weight").to(weight), weight))
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = Phase(
        loss,
        streams_for(task, loss),
        epochs=epochs,
        steps=steps if epochs is None else None,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        masks=masks,
        batch_norm=batch_norm,
        clip=clip,
        name="finetune",
    )
    return fit(start, phase, seed=seed, device=device, callbacks=callbacks)


def small_gradients(
    model: nn.Module, task: UnlearnTask, share: float, seed: int, device: torch.device | str | None
) -> dict[str, Tensor]:
    """Masks, by name, of the ``share`` of each layer's weights with the smallest ``|g_R - g_F|``.

    Raises: ValueError when the model has neither convolutions nor linear layers that may change.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTION)]
    layers = layers or [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = [f"{layer}.weight" if layer else "weight" for layer in layers]
    names = [name for name in names if model.get_parameter(name).requires_grad]
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
