"""Gradient ascent on the forget data, alone (NegGrad) or beside the retain data (NegGrad+)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Between, CountOrZero
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine

from .doubling import doubled, farther, times
from .masks import to_forget


@revision(
    Training(steps=20, batch_size=64, lr=1e-2, clip=0.1),
    source="Golatkar et al. 2020, arXiv 1911.04933",
    reads_retain=False,
)
def neg_grad(
    model: nn.Module,
    task: UnlearnTask,
    *,
    doublings: CountOrZero = 3,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Maximise ``CE(forget)``; the retain data are not read.

    Published defaults: lr 1e-4, 5 epochs, no clipping. Here steps instead of epochs, since every step past the one that
    forgets costs the classes that are kept; a larger lr, to leave samples the model is certain of; and clipped
    gradients, since the loss has no upper bound and the step would grow with it.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget.
        doublings: how often ``clip`` may double, and lr grow by sqrt 2, while a class that is to be forgotten is still
            recognised (``doubling.doubled``).
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``strength``, 1 or what ``clip`` was multiplied by.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When lr is too large.

    Source: Golatkar et al. 2020, arXiv 1911.04933; settings of Kurmanji et al. 2023, arXiv 2302.09880.
    """
    training = Training(**options)
    objective = -L.cross_entropy(on="forget", to=to_forget(task))

    def run(strength: float) -> FitResult:
        stronger = farther(training, strength)
        phase = stronger.phase(objective, task, name="ascend")
        return stronger.fit(model, phase, seed=seed, device=device)

    return doubled(run, task, doublings)


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(1e-3, 0.0), optimizer="adam"),
    source="Kurmanji et al. 2023, arXiv 2302.09880",
)
def neg_grad_plus(
    model: nn.Module,
    task: UnlearnTask,
    *,
    alpha: Annotated[float, Between(0, 1, open_low=True, open_high=True)] = 0.995,
    doublings: CountOrZero = 3,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
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
        doublings: how often the learning rate may double while a class that is to be forgotten is still recognised
            (``doubling.doubled``): how far the ascent must go follows the data. 0 where alpha is to decide.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``strength``, 1 or what the learning rate was multiplied by.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When lr is too large.

    Source: Kurmanji et al. 2023, arXiv 2302.09880.
    """
    training = Training(**options)
    forget = L.cross_entropy(on="forget", to=to_forget(task))
    objective = alpha * L.cross_entropy(on="retain") - (1 - alpha) * forget

    def run(strength: float) -> FitResult:
        stronger = replace(training, lr=times(strength, training.lr))
        phase = stronger.phase(objective, task, name="unlearn", lead="retain")
        return stronger.fit(model, phase, seed=seed, device=device)

    return doubled(run, task, 0 if training.lr is None else doublings)
