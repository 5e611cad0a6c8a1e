"""AMUN: fine-tuning on the nearest adversarial examples of the forget data, with the model's own wrong labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Between, Count, Positive
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data.tensors import in_order
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.errors import check_number
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule

from .masks import check_one_label


def _fitting(options: Mapping[str, Any]) -> None:
    check_number("max_radius", options["max_radius"], low=options["radius"])


@revision(
    Training(
        steps=100,
        batch_size={"adversarial": 128, "forget": 64, "retain": 256},
        lr=cosine(0.1, 0.0),
        weight_decay=5e-4,
        clip=1.0,
    ),
    source="Ebrahimpour-Boroojeny et al. 2025, arXiv 2503.00917",
    masks=False,
    fitting=_fitting,
)
def amun(
    model: nn.Module,
    task: UnlearnTask,
    *,
    radius: Positive = 0.01,
    growth: Annotated[float, Between(1, open_low=True)] = 2.0,
    max_radius: Positive = 1.0,
    search_steps: Count = 3,
    forget_weight: NonNegativeSchedule = 0.0,
    retain_weight: NonNegativeSchedule = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(x' -> f0(x')) + forget_weight CE(x -> y) + retain_weight CE(x_r -> y_r)``.

    x' is the adversarial example of x at the smallest radius of ``radius, radius growth, radius growth^2, ...`` where
    the original ``f0`` gives a label other than y; samples that keep theirs up to ``max_radius`` have none.

    Published defaults: ``forget_weight=1``, 50 gradient steps in a Euclidean ball whose radius doubles, 10 epochs of
    all data, lr .01 falling to a tenth each five epochs, no clipping, batch norm updating; these come from memory. Here
    a hundred steps, a box, and the forget data left out: with their true labels in the mix, as many steps forget
    nothing. For single samples that a network has memorised, ``batch_norm="update"`` is worth its price: with frozen
    statistics the wrong labels are taken in without letting go of the right ones.

    Args:
        model: the original; logits ``(B, C)``; pixels in [0, 1].
        task: what to forget and what to keep; classification.
        radius, growth, max_radius: the radii that are tried, in pixel units (half the width of a box); the largest at
            least the first.
        search_steps: sign-gradient steps at each radius.
        forget_weight, retain_weight: at least 0, or schedules; at 0 the data are not trained on.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``adversarial_examples``, how many were found, and ``median_radius``.

    Raises:
        ValueError: On masks, and when no sample has an adversarial example. When an argument is out of range, by its
            name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Ebrahimpour-Boroojeny et al. 2025, arXiv 2503.00917.
    """
    training = Training(**options)
    check_one_label(task, "amun")
    x, y, radii = adversarial_set(
        model, task.forget, radius=radius, growth=growth, max_radius=max_radius, steps=search_steps
    )
    objective = L.Objective((L.cross_entropy(on="adversarial"),))
    for stream, weight in (("forget", forget_weight), ("retain", retain_weight)):
        if is_schedule(weight) or weight:
            objective = objective + weight * L.cross_entropy(on=stream)
    phase = training.phase(
        objective, task, name="unlearn", streams={"adversarial": TensorDataset(x, y)}, lead="adversarial"
    )
    fitted = training.fit(model, phase, seed=seed, device=device)
    fitted.details.update(adversarial_examples=len(x), median_radius=float(radii.median()))
    return fitted


def adversarial_set(
    model: nn.Module, dataset: object, *, radius: float, growth: float, max_radius: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest adversarial examples: inputs ``(N, ...)``, the model's wrong labels and radii ``(N,)``.

    A sample that is wrong by itself is its own example, at radius 0.

    Raises:
        ValueError: When an argument is out of range, by its name, and when no sample has one.
        TypeError: When an argument is of another type, by its name, and when no sample has one.
    """
    check_number("radius", radius, low=0, open_low=True)
    check_number("growth", growth, low=1, open_low=True)
    check_number("max_radius", max_radius, low=radius)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for inputs, targets in in_order(dataset, device=next(model.parameters()).device):
        x, y, size = inputs, targets.long(), 0.0
        while len(x) and size <= max_radius:
            at = PerturbedSign(radius=size, steps=steps if size else 1).search(model, x, y)
            wrong = at.labels != y
            radii = torch.full((int(wrong.sum()),), size)
            found.append((at.inputs[wrong].cpu(), at.labels[wrong].cpu(), radii))
            x, y, size = x[~wrong], y[~wrong], size * growth or radius
    x, y, radii = (torch.cat(parts) for parts in zip(*found, strict=True))
    if len(x) == 0:
        raise ValueError(
            f"expected an adversarial example of some forget sample within max_radius={max_radius:g}, but got none; "
            "more search_steps usually help"
        )
    return x, y, radii
