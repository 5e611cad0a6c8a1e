"""DELETE: forget-only distillation of what the original says about the other classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.schedules import ScalarOrSchedule, cosine

from .masks import to_forget


@revision
def delete(
    model: nn.Module,
    task: UnlearnTask,
    *,
    epochs: int | None = None,
    steps: int = 80,
    batch_size: int = 64,
    lr: ScalarOrSchedule = cosine(1e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    clip: float | None = 1.0,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Minimise ``KL(softmax of f0(x) without the logit of y || softmax of f(x))`` on the forget data alone.

    Published: no retain data; the learning rate and the number of epochs were not readable. Here eighty steps of a
    large, falling lr with clipped gradients: the first steps take the class away, and the later ones bring back the
    order of the others, which no retain data guard.

    Args:
        model: the original; logits ``(B, C, ...)``; of a single logit what remains is the opposite label.
        task: what to forget; the retain data are not read.
        epochs, steps: passes over the forget data, or steps; ``epochs`` replaces ``steps``.
        batch_size, lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Zhou et al. 2025, arXiv 2503.23751.
    """
    objective = L.kl(on="forget", to=to_forget(task, L.OtherClasses(model)))
    phase = Phase(
        objective,
        streams_for(task, objective),
        epochs=epochs,
        steps=steps if epochs is None else None,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        batch_norm=batch_norm,
        clip=clip,
        name="unlearn",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
