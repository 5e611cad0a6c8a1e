"""Boundary shrink: the ancestor of the perturbed sign method, one noiseless step."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import NonNegative
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import NonNegativeSchedule, cosine

from .perturbed_sign import boundary_objective


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(1e-2, 0.0), clip=1.0),
    source="Chen et al. 2023, arXiv 2303.11570",
)
def boundary_shrink(
    model: nn.Module,
    task: UnlearnTask,
    *,
    radius: NonNegative = 0.1,
    retain_weight: NonNegativeSchedule = 3.0,
    uncrossed: Literal["keep", "runner-up"] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(f(x) -> argmax f0(x + radius sign grad CE(f0(x), y))) + retain_weight CE(f(x_r) -> y_r)``.

    Published defaults: the forget data alone (``retain_weight=0``), radius .1, lr 1e-5, 10 epochs, batch 64, no
    clipping, batch norm updating, and samples whose label the step does not change keep it. Here with the retain data
    and a large, falling lr, as in ``boundary_expand``: on the forget data alone no rate or length that was tried
    forgets a class of ten and costs the others less than seven points of accuracy, since nothing holds the classes that
    the forget data are led to.

    Args:
        model: the original; logits ``(B, C, ...)``; pixels in [0, 1].
        task: what to forget and what to keep.
        radius: length of the step, in pixel units.
        retain_weight: at least 0, or a schedule; at 0 the retain data are not read.
        uncrossed: the label of samples that keep their own at the end of the step: "keep" or "runner-up", see
            ``losses.Boundary``. None: the runner-up where a whole class is to be forgotten, since a network that is
            certain of its samples would be trained to stay so; single samples, masks and findings keep it.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Chen et al. 2023, arXiv 2303.11570, section 3.
    """
    training = Training(**options)
    if uncrossed is None:
        uncrossed = "runner-up" if task.kind == "classification" and task.forget_classes else "keep"
    search = PerturbedSign(radius=radius)
    objective = boundary_objective(model, search, retain_weight=retain_weight, uncrossed=uncrossed, task=task)
    phase = training.phase(objective, task, name="unlearn")
    return training.fit(model, phase, seed=seed, device=device)
