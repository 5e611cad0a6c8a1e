"""Just in time: forgetting by making the network flat around the forget images, without labels or retain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count, Positive
from unlearn_kit.boundary import DISTRIBUTIONS
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.errors import check_count, check_number

from .masks import EVERYTHING, Part, part_to_forget, within


@L.term(reduction="forward")
def roughness(
    forward: Callable[[Tensor], Tensor], batch: L.Batch, *, std: float, draws: int, part: Part = EVERYTHING
) -> Tensor:
    """Return ``mean_j ||f(x) - sg f(x + std e_j)|| / ||std e_j||`` of each sample, over ``draws`` normal e_j.

    With a ``part`` of the decisions: of the outputs at these.
    """
    x = batch.inputs
    outputs = within(forward(x), batch.targets, part).flatten(1)
    ratios = []
    for _ in range(draws):
        noise = std * batch.draw(DISTRIBUTIONS["normal"], tuple(x.shape)).to(x)
        with torch.no_grad():
            there = within(forward(x + noise), batch.targets, part).flatten(1)
        ratios.append((outputs - there).norm(dim=1) / noise.flatten(1).norm(dim=1))
    return torch.stack(ratios).mean(0)


@revision(
    Training(steps=20, batch_size=64, lr=3e-4, clip=1.0),
    without=("class_weight",),
    source="Foster et al. 2024, arXiv 2402.01401",
    reads_retain=False,
)
def jit(
    model: nn.Module,
    task: UnlearnTask,
    *,
    std: Positive = 0.05,
    draws: Count = 8,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``mean_j ||f(x) - sg f(x + std e_j)|| / ||std e_j||`` on the forget inputs alone.

    sg stops the gradient, so this is no descent on a roughness: what x is led toward moves along, without end. Few
    steps, and clipped ones, are part of the method; with more of them the retain data, which are never seen, suffer.

    Published defaults: std .5, 25 draws, one pass, lr 3e-4 (ViT: std .8, lr 1.5). Here std is .05 in pixels of [0, 1]
    (with .5 every image is led toward what the network says of noise), 8 draws, 20 steps.

    Args:
        model: the original; outputs ``(B, C, ...)``; pixels in [0, 1].
        task: what to forget; classes or masks. Neither targets nor retain data are read, but for where a class of the
            masks is, if it is one of them that is to be forgotten.
        std: positive; of the noise, in pixel units.
        draws: of noise a sample.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Foster et al. 2024, arXiv 2402.01401.
    """
    training = Training(**options)
    check_number("std", std, low=0, open_low=True)
    check_count("draws", draws)
    noise: dict[str, Any] = {"std": std, "draws": draws}
    if part := part_to_forget(task):  # Else unnamed: options are part of the term's name, a key of the history.
        noise["part"] = part
    objective = roughness(on="forget", **noise)
    phase = training.phase(objective, task, name="smooth")
    return training.fit(model, phase, seed=seed, device=device)
