"""Boundary shrink: the ancestor of the perturbed sign method, one noiseless step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for

from .perturbed_sign import boundary_objective


@revision
def boundary_shrink(
    model: nn.Module,
    task: UnlearnTask,
    *,
    radius: float = 0.1,
    epochs: int = 10,
    steps: int | None = None,
    batch_size: int = 64,
    lr: float = 1e-4,
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Minimise ``CE(f(x) -> argmax f0(x + radius sign grad CE(f0(x), y)))`` on the forget data alone.

    Published defaults: radius .1, lr 1e-5, 10 epochs, batch 64, with batch norm updating. Here lr is 1e-4, since batch
    norm is frozen by default: most of what the published rate forgets comes from statistics that drift toward the
    forget class, and the classes that are kept pay for it.

    Args:
        model: the original; logits ``(B, C, ...)``; pixels in [0, 1].
        task: what to forget.
        radius: length of the step, in pixel units.
        epochs, steps: passes over the forget data; ``steps`` replaces ``epochs``.
        batch_size, lr, optimizer, weight_decay, batch_norm: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Chen et al. 2023, arXiv 2303.11570, section 3.
    """
    objective = boundary_objective(model, PerturbedSign(radius=radius), retain_weight=0.0)
    phase = Phase(
        objective,
        streams_for(task, objective),
        epochs=epochs if steps is None else None,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        batch_norm=batch_norm,
        name="unlearn",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
