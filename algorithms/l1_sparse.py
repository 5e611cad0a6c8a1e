"""Finetuning with an l1 penalty: sparse weights forget more easily."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import NonNegative
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine


@revision(
    Training(epochs=1, batch_size=256, lr=cosine(1e-2, 0.0), weight_decay=5e-4, clip=5.0),
    source="Jia et al. 2023, arXiv 2304.04934",
)
def l1_sparse(
    model: nn.Module,
    task: UnlearnTask,
    *,
    gamma: NonNegative = 5e-4,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(retain) + gamma (1 - t/T) |theta|_1`` from the original weights, t from 0 to T.

    Published defaults: gamma about 1e-4 (recalled, not read), lr .01, 10 epochs. Here 1 epoch and a falling rate,
    as in ``finetune``, and gamma five times as large for it.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        gamma: weight of the l1 norm at the first step, at least 0; it falls to 0 on a straight line.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Jia et al. 2023, arXiv 2304.04934, section 4.
    """
    training = Training(**options)
    objective = L.cross_entropy(on="retain") + L.linear(gamma, 0.0) * L.parameter_norm()
    phase = training.phase(objective, task, name="sparsify")
    return training.fit(model, phase, seed=seed, device=device)
