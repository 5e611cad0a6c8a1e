"""Finetuning with an l1 penalty: sparse weights forget more easily."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.errors import check_number
from unlearn_kit.schedules import ScalarOrSchedule, cosine


@revision
def l1_sparse(
    model: nn.Module,
    task: UnlearnTask,
    *,
    gamma: float = 5e-4,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 256,
    lr: ScalarOrSchedule = cosine(1e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    clip: float | None = 5.0,
    batch_norm: BatchNorm = "frozen",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Minimise ``CE(retain) + gamma (1 - t/T) |theta|_1`` from the original weights, t from 0 to T.

    Published defaults: gamma about 1e-4 (recalled, not read), lr .01, 10 epochs. Here 1 epoch and a falling rate,
    as in ``finetune``, and gamma five times as large for it.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        gamma: weight of the l1 norm at the first step, at least 0; it falls to 0 on a straight line.
        epochs, steps: passes over the retain data; ``steps`` replaces ``epochs``.
        batch_size, lr, optimizer, weight_decay, clip, batch_norm: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Jia et al. 2023, arXiv 2304.04934, section 4.
    """
    check_number("gamma", gamma, low=0)
    objective = L.cross_entropy(on="retain") + L.linear(gamma, 0.0) * L.parameter_norm()
    phase = Phase(
        objective,
        streams_for(task, objective),
        epochs=epochs if steps is None else None,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        clip=clip,
        batch_norm=batch_norm,
        name="sparsify",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
