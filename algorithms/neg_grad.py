"""Gradient ascent on the forget data, alone (NegGrad) or beside the retain data (NegGrad+)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.balance import Balance
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.errors import check_number
from unlearn_kit.schedules import ScalarOrSchedule, cosine

from .masks import to_forget


@revision
def neg_grad(
    model: nn.Module,
    task: UnlearnTask,
    *,
    epochs: int | None = None,
    steps: int = 20,
    batch_size: int = 64,
    lr: ScalarOrSchedule = 1e-2,
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    clip: float | None = 0.1,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Maximise ``CE(forget)``; the retain data are not read.

    Published defaults: lr 1e-4, 5 epochs, no clipping. Here steps instead of epochs, since every step past the one that
    forgets costs the classes that are kept; a larger lr, to leave samples the model is certain of; and clipped
    gradients, since the loss has no upper bound and the step would grow with it.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget.
        epochs, steps: passes over the forget data, or steps; ``epochs`` replaces ``steps``.
        batch_size, lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError when lr is too large.

    Source: Golatkar et al. 2020, arXiv 1911.04933; settings of Kurmanji et al. 2023, arXiv 2302.09880.
    """
    objective = -L.cross_entropy(on="forget", to=to_forget(task))
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
        name="ascend",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)


@revision
def neg_grad_plus(
    model: nn.Module,
    task: UnlearnTask,
    *,
    alpha: float = 0.995,
    epochs: int | None = None,
    steps: int = 40,
    batch_size: int | Mapping[str, int] = {"forget": 64, "retain": 256},
    lr: ScalarOrSchedule = cosine(1e-3, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "adam",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    clip: float | None = None,
    balance: Balance | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Minimise ``alpha CE(retain) - (1 - alpha) CE(forget)``.

    Published defaults: alpha .95 on small data and .9999 on large, SGD lr .01, 5 to 10 passes over the retain data.
    Here forty steps with a falling lr: the second term has no lower bound, so that what long training adds is damage.
    And Adam, with an alpha between the two: where the model is certain of every forget sample the gradient that lifts
    it off is orders of magnitude below the one a little later, and no lr of SGD suits both.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        alpha: weight in (0, 1) of the retain term.
        epochs, steps: passes over the retain data (the forget data are cycled), or steps; ``epochs`` replaces
            ``steps``.
        batch_size: samples a step, of both streams or by stream.
        lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``.
        balance: None combines the gradients by ``alpha``; "nash" whatever alpha, "pcgrad" without conflict, as in
            ``engine.Phase``. Adam divides the length of a step out again: use SGD to tell their lengths apart.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError when lr is too large.

    Source: Kurmanji et al. 2023, arXiv 2302.09880.
    """
    check_number("alpha", alpha, low=0, high=1, open_low=True, open_high=True)
    forget = L.cross_entropy(on="forget", to=to_forget(task))
    objective = alpha * L.cross_entropy(on="retain") - (1 - alpha) * forget
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
        balance=balance,
        lead="retain",
        name="unlearn",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
