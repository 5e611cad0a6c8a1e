"""Oracle matching: the model led to what models retrained without the data say. A ceiling for audits, no method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.losses.batch import GoalKind
from unlearn_kit.losses.targets import outputs_of
from unlearn_kit.modules import check_model, frozen_copy
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule


@dataclass(frozen=True, eq=False)
class MeanLogits:
    """The mean of the logits of several models, which do not change."""

    models: tuple[nn.Module, ...]
    gives: ClassVar[tuple[GoalKind, ...]] = ("logits",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        """Return the mean logits of every decision of ``batch``."""
        return L.Goal("logits", torch.stack([outputs_of(model, batch) for model in self.models]).mean(0))

    def __repr__(self) -> str:
        return f"MeanLogits({len(self.models)} models)"


@revision(
    Training(steps=200, batch_size={"forget": 64, "retain": 256}, lr=cosine(1e-3, 0.0), optimizer="adam", clip=1.0),
    source="Georgiev et al. 2024, arXiv 2410.23232",
    reads_reference=True,
)
def oracle_matching(
    model: nn.Module,
    task: UnlearnTask,
    *,
    references: Sequence[nn.Module] = (),
    retain_weight: NonNegativeSchedule = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """For audits only, it needs retrained models: minimise ``|z(x_f) - r(x_f)|^2 + retain_weight |z(x_r) - r(x_r)|^2``.

    r is the mean of the logits of ``references``, each retrained without the forget data. Whoever has those has no use
    for the result, which says how much of the way fine-tuning of the original's weights can go at all, when it is told
    where to: what an audit still finds here it holds against every method that starts from the original.

    Judge it by a reference that it was not given: beside its own the distances are what it was trained to make small.

    Published defaults: targets from many retrained models, on the forget data and a part of the retain data that is
    drawn once. Here all of the retain data, two hundred steps.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        references: Models retrained without the forget data, at least one, of the original's outputs.
        retain_weight: Weight of the retain term, at least 0, or a schedule; at 0 the retain data are not read.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    Raises:
        ValueError: Without references. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Georgiev et al. 2024, arXiv 2410.23232, section 4.
    """
    training = Training(**options)
    if not references:
        raise ValueError(
            "expected references to hold at least one model retrained without the forget data, but got none"
        )
    oracles = (frozen_copy(check_model(one, "a model of references")).to(device) for one in references)
    target = MeanLogits(tuple(oracles))
    objective = L.Objective((L.mse(on="forget", to=target),))
    if is_schedule(retain_weight) or retain_weight:
        objective = objective + retain_weight * L.mse(on="retain", to=target)
    return training.fit(model, training.phase(objective, task, name="match"), seed=seed, device=device)
