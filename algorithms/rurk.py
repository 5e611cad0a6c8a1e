"""RURK: what lies close to the forget data must not be recognised either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count, NonNegative
from unlearn_kit.boundary import DISTRIBUTIONS
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.outputs import hard_labels, predicted_labels
from unlearn_kit.schedules import NonNegativeSchedule, cosine

from .masks import check_one_label


@L.term(reduction="forward")
def recognition(forward: Callable[[Tensor], Tensor], batch: L.Batch, *, radius: float, draws: int) -> Tensor:
    """Return minus the cross-entropy of each sample's perturbed copies that are still recognised, over ``draws``.

    Copies differ by uniform noise in ``[-radius, radius]``. One that the model gets wrong counts 0: there is nothing
    left to forget there, and the loss has a lower bound.
    """
    x, y = batch.inputs, batch.targets
    total = torch.zeros(len(x), device=x.device)
    for _ in range(draws):
        noise = radius * batch.draw(DISTRIBUTIONS["uniform"], tuple(x.shape)).to(x)
        logits = forward(x + noise)
        right = (predicted_labels(logits) == hard_labels(y, logits)).reshape(len(x))
        total = total - torch.where(right, label_cross_entropy(logits, y), 0.0)
    return total / draws


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    source="Hsu et al. 2025, arXiv 2601.22359",
    masks=False,
)
def rurk(
    model: nn.Module,
    task: UnlearnTask,
    *,
    radius: NonNegative = 0.03,
    draws: Count = 2,
    forget_weight: NonNegativeSchedule = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(retain) - forget_weight mean_j CE(x_f + u_j -> y_f) [x_f + u_j is recognised]``.

    u_j is uniform in a box of half width ``radius``, in pixel units. A retrained model knows the neighbourhood of a
    forget sample as little as the sample; many revised models fail on the sample alone.

    Published defaults: a ball of about .03, one to ten epochs, the weight by data set. Here forty steps, two copies a
    sample, a falling rate and clipped gradients.

    Args:
        model: The original; logits ``(B, C)``; pixels in [0, 1].
        task: What to forget and what to keep; classification.
        radius: At least 0; half the width of the box.
        draws: Perturbed copies of a sample in each step.
        forget_weight: At least 0, or a schedule.
        **options: How it trains, as in ``engine.Training``.
        seed, device: Of the run.

    Raises:
        ValueError: On masks. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Hsu et al. 2025, arXiv 2601.22359.
    """
    training = Training(**options)
    check_one_label(task, "rurk")
    objective = forget_weight * recognition(on="forget", radius=radius, draws=draws) + L.cross_entropy(on="retain")
    return training.fit(model, training.phase(objective, task, name="unlearn"), seed=seed, device=device)
