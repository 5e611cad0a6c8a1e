"""SalUn: random labels, learned by the weights that matter most to the forget data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data import in_order
from unlearn_kit.engine import Callback, FitResult, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory
from unlearn_kit.errors import check_number
from unlearn_kit.gradients import Named, mean_gradients
from unlearn_kit.schedules import ScalarOrSchedule, cosine

from .masks import forget_loss
from .random_label import relabelling


@revision
def salun(
    model: nn.Module,
    task: UnlearnTask,
    *,
    density: float = 0.5,
    wrong_only: bool | None = None,
    fixed: bool = False,
    order: Literal["together", "in turn"] = "together",
    retain_weight: ScalarOrSchedule = 3.0,
    epochs: int | None = None,
    steps: int = 40,
    batch_size: int | Mapping[str, int] = {"forget": 64, "retain": 256},
    lr: ScalarOrSchedule = cosine(2e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    clip: float | None = 1.0,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """``random_label`` on the ``density`` of all weights with the largest ``|g|``; no other weight moves at all.

    g is the gradient of the original's summed cross-entropy over the forget data.

    Published defaults: density .5, labels of all classes, ``order="in turn"``, 10 epochs, lr .013. Here the recipe is
    that of ``random_label``, for the reasons given there.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep; classes or masks.
        density: in (0, 1], the share of weights that may move.
        wrong_only, fixed, order, retain_weight, epochs, steps, batch_size: as in ``random_label``.
        lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Fan et al. 2024, arXiv 2310.12508.
    """
    check_number("density", density, low=0, high=1, open_low=True)
    gradients = mean_gradients(model, in_order(task.forget, 256, device=device), loss=forget_loss(task))
    program = relabelling(
        task,
        wrong_only=wrong_only,
        fixed=fixed,
        order=order,
        retain_weight=retain_weight,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        masks=salient(gradients, density),
        batch_norm=batch_norm,
        clip=clip,
    )
    return fit(model, program, seed=seed, device=device, callbacks=callbacks)


def salient(gradients: Named, density: float) -> dict[str, Tensor]:
    """Masks, by name, of the ``density`` of all entries with the largest absolute value."""
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    mask = torch.zeros_like(sizes, dtype=torch.bool)
    mask[sizes.topk(max(1, round(density * len(sizes)))).indices] = True
    parts = mask.split([g.numel() for g in gradients.values()])
    return {name: part.view_as(g) for part, (name, g) in zip(parts, gradients.items(), strict=True)}
