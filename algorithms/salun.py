"""SalUn: random labels, learned by the weights that matter most to the forget data."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import PositiveShare
from unlearn_kit.data import in_order
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.gradients import Named, mean_gradients
from unlearn_kit.schedules import NonNegativeSchedule, cosine

from .masks import forget_loss
from .random_label import check_order, relabelling


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    source="Fan et al. 2024, arXiv 2310.12508",
    fitting=check_order,
)
def salun(
    model: nn.Module,
    task: UnlearnTask,
    *,
    density: PositiveShare = 0.5,
    wrong_only: bool | None = None,
    fixed: bool = False,
    order: Literal["together", "in turn"] = "together",
    retain_weight: NonNegativeSchedule = 3.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
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
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Fan et al. 2024, arXiv 2310.12508.
    """
    training = Training(**options)
    gradients = mean_gradients(model, in_order(task.forget, 256, device=device), loss=forget_loss(task))
    program = relabelling(
        task,
        training,
        wrong_only=wrong_only,
        fixed=fixed,
        order=order,
        retain_weight=retain_weight,
        masks=salient(gradients, density),
    )
    return training.fit(model, program, seed=seed, device=device)


def salient(gradients: Named, density: float) -> dict[str, Tensor]:
    """Return masks, by name, of the ``density`` of all entries with the largest absolute value."""
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    mask = torch.zeros_like(sizes, dtype=torch.bool)
    mask[sizes.topk(max(1, round(density * len(sizes)))).indices] = True
    parts = mask.split([g.numel() for g in gradients.values()])
    return {name: part.view_as(g) for part, (name, g) in zip(parts, gradients.items(), strict=True)}
