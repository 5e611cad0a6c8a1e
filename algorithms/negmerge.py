"""NegMerge: what fine-tunings on the forget data agree on, taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count, NonNegative, Positive, Share
from unlearn_kit.composition import neg_merge
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import ScalarOrSchedule, Schedule, formula, rate_at
from unlearn_kit.seeding import derive

from .masks import to_forget
from .step_length import forget_aim, step_length


@revision(
    Training(steps=20, batch_size=64, lr=1e-4, optimizer="adam"),
    source="Kim et al. 2024, arXiv 2410.05583",
)
def negmerge(
    model: nn.Module,
    task: UnlearnTask,
    *,
    rates: Sequence[Positive] = (0.25, 0.5, 1.0, 2.0, 4.0),
    strength: NonNegative | None = None,
    forget_to: Share | None = None,
    retain_drop: Share = 0.05,
    search_samples: Count = 1024,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """``theta - strength c``, c being the mean of the task vectors where all agree in sign, and 0 elsewhere.

    A task vector is what a fine-tuning of the original on the forget data changed; each has another learning rate,
    ``rates`` times ``lr``, and another order of the data. What all of them moved alike is what the forget data ask for;
    what they moved apart is chance, and stays (:func:`unlearn_kit.composition.neg_merge`).

    Published defaults: some thirty fine-tunings that differ in rates, weight decay and augmentation, and a strength
    chosen on validation data. Here five, with Adam, since the gradients of samples that a model is certain of are too
    small for SGD to move float32 weights by; and the strength searched as ``influence`` searches its step.

    Args:
        model: The original; logits ``(B, C, ...)``.
        task: What to forget and what to keep; classes or masks.
        rates: By what ``lr`` is multiplied, a fine-tuning each; at least two.
        strength: At least 0; None searches it, between 2^-12 and 2^10: the smallest at which the score on forget
            samples is at most ``forget_to``, as long as that on retain samples has not fallen by more than
            ``retain_drop``, else the largest for which it has not.
        forget_to: Default: .02 where a class is forgotten, else the score on validation data like the forget data;
            where there are none, the strength is 1.
        retain_drop, search_samples: Of the search; samples of either data set it looks at.
        **options: How each fine-tuning trains, as in ``engine.Training``.
        seed, device: Of the run.

    The result's details: ``strength``, and ``agreement``, the share of weights whose sign all fine-tunings agree on.

    Raises:
        ValueError: On fewer than two rates; when no strength of the search keeps the retain score. When an argument is
            out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Kim et al. 2024, arXiv 2410.05583.
    """
    training = Training(**options)
    if len(rates) < 2:
        raise ValueError(f"expected rates to hold at least two, one a fine-tuning, but got {list(rates)}")
    phase = training.phase(L.cross_entropy(on="forget", to=to_forget(task)), task, name="finetune")
    runs, history = [], []
    for place, rate in enumerate(rates):
        own = replace(phase, lr=None if phase.lr is None else _times(rate, phase.lr), name=f"finetune {place}")
        fitted = training.fit(model, own, seed=derive(seed, "finetune", place), device=device)
        runs.append(fitted.model)
        history += fitted.history
    negated = dict(neg_merge(model, runs, -1.0).named_parameters())
    direction = {name: negated[name].detach() - p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if strength is None:
        aim = forget_aim(model, task) if forget_to is None else forget_to
        strength = 1.0 if aim is None else step_length(model, task, direction, aim, retain_drop, search_samples, seed)
    agreed = torch.cat([(change != 0).flatten() for change in direction.values()])
    details = {"strength": strength, "agreement": float(agreed.float().mean())}
    return FitResult(neg_merge(model, runs, -strength), history, details=details)


def _times(rate: float, lr: ScalarOrSchedule) -> ScalarOrSchedule:
    if isinstance(lr, (int, float)):
        return rate * lr
    return Schedule(f"{rate:g} * {formula(lr)}", lambda step, total: rate * rate_at(lr, step, total))
