"""LoTUS: the original's own predictions, made less certain until the forget data are known as unseen ones are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import CountOrZero, NonNegative
from unlearn_kit.engine import Callback, FitResult, Run, Training, TrainingOptions, revision
from unlearn_kit.losses.batch import GoalKind
from unlearn_kit.losses.targets import outputs_of
from unlearn_kit.metrics import accuracy
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule

from .doubling import doubled, times
from .masks import check_one_label
from .stopping import stop_level


class Uncertainty(Callback):
    """The temperature of the forget targets, set before every pass by how much better they are known than unseen data.

    It ends the run where their accuracy is ``end`` or lower.
    """

    def __init__(self, task: UnlearnTask, level: float, strength: float, end: float) -> None:
        self.task, self.level, self.strength, self.end = task, level, strength, end
        self.temperature = 1.0

    def on_start(self, run: Run) -> None:
        """Set the temperature of the first pass."""
        self._look(run)

    def on_epoch(self, run: Run) -> None:
        """Set the temperature of the next pass, or stop."""
        score = self._look(run)
        run.history.append({"phase": run.phase, "step": run.step, "epoch": run.epoch, "forget accuracy": score})
        if score <= self.end:
            run.stop(f"forget accuracy = {score:.4g}")

    def _look(self, run: Run) -> float:
        score = accuracy(run.model, self.task.forget) or 0.0
        self.temperature = math.exp(self.strength * (score - self.level))
        return score


@dataclass(frozen=True, eq=False)
class GumbelSoftmax:
    """The softmax of another model's logits with Gumbel noise, at a temperature, or a draw from it.

    Args:
        model: What is asked; it does not change.
        heat: Says the temperature of the moment; None for a draw, which is a label.
    """

    model: nn.Module
    heat: Uncertainty | None = None
    gives: ClassVar[tuple[GoalKind, ...]] = ("labels", "probabilities")

    def __call__(self, batch: L.Batch) -> L.Goal:
        """Return labels without a temperature, else probabilities."""
        logits = outputs_of(self.model, batch)
        uniform = batch.draw(
            lambda shape, source: torch.rand(shape, generator=source, device=source.device), tuple(logits.shape)
        ).to(logits)
        tiny = torch.finfo(uniform.dtype).tiny
        noisy = logits - (-(uniform.clamp(min=tiny)).log()).clamp(min=tiny).log()
        if self.heat is None:
            return L.Goal("labels", noisy.argmax(1))
        return L.Goal("probabilities", (noisy / self.heat.temperature).softmax(1))

    def __repr__(self) -> str:
        return f"GumbelSoftmax({type(self.model).__name__}{'' if self.heat is None else ', tempered'})"


@revision(
    Training(epochs=20, batch_size={"forget": 64, "retain": 256}, lr=cosine(5e-4, 0.0), optimizer="adamw", clip=1.0),
    without=("steps",),
    source="Spartalis et al. 2025, arXiv 2503.18314",
    masks=False,
)
def lotus(
    model: nn.Module,
    task: UnlearnTask,
    *,
    strength: NonNegative = 8.0,
    tolerance: NonNegative = 0.01,
    retain_weight: NonNegativeSchedule = 1.0,
    doublings: CountOrZero = 3,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(x_f -> softmax((f0(x_f) + gumbel) / t)) + retain_weight CE(x_r -> a draw from softmax f0(x_r))``.

    The temperature is ``t = exp(strength (a - u))``, anew before every pass over the forget data: a is the accuracy of
    the model in training on them, u that of the original on validation data like them
    (:func:`algorithms.stopping.stop_level`). The run ends where a is ``tolerance`` below u. Of a class that is
    forgotten as a whole u is 0, since a model that never saw it knows none of it, and the run ends where a is
    ``tolerance``: any longer, and the temperature, which is 1 there, brings the class back.

    Published defaults: strength 8 with ten classes and 2 with more, tolerance .01, 30 % of the retain data, ten epochs
    of AdamW at 1e-4 with weight decay 5e-4. Here an epoch is a pass over the forget data, beside as many batches of the
    retain data, twenty of them, with a larger and falling rate.

    Args:
        model: The original; logits ``(B, C)`` of two classes or more.
        task: What to forget and what to keep, with validation data; classification.
        strength: At least 0; how much a difference of the two accuracies raises the temperature.
        tolerance: At least 0; how far below unseen data the forget data may fall.
        retain_weight: Weight of the retain term, at least 0, or a schedule; at 0 the retain data are not read.
        doublings: How often lr may double while a class that is to be forgotten is still recognised
            (``doubling.doubled``): twenty passes over a small class are few steps.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    The result's details: ``unseen``, the accuracy u, and ``strength``, 1 or what lr was multiplied by.

    Raises:
        ValueError: On masks, on a single logit, and without validation data. When an argument is out of range.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Spartalis et al. 2025, arXiv 2503.18314.
    """
    training = Training(**options)
    check_one_label(task, "lotus")
    level = 0.0 if task.forget_classes else stop_level(model, task, "held-out")

    def run(factor: float) -> FitResult:
        heat = Uncertainty(task, level, strength, tolerance if task.forget_classes else level - tolerance)
        objective = L.Objective((L.cross_entropy(on="forget", to=GumbelSoftmax(model, heat)),))
        if is_schedule(retain_weight) or retain_weight:
            objective = objective + retain_weight * L.cross_entropy(on="retain", to=GumbelSoftmax(model))
        stronger = replace(training, lr=times(factor, training.lr))
        phase = stronger.phase(objective, task, name="unlearn")
        fitted = stronger.fit(model, phase, seed=seed, device=device, watching=[heat])
        fitted.details.update(unseen=level)
        return fitted

    return doubled(run, task, doublings)
