"""How far along a direction of weights to go: as far as it takes to forget, and no further than the rest allows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.gradients import Named
from unlearn_kit.metrics import split_score
from unlearn_kit.modules import blank_copy
from unlearn_kit.seeding import derive

from .stopping import held_out_alike, stop_level

SMALLEST, LARGEST, HALVINGS = -12.0, 10.0, 9  # In powers of two.


def forget_aim(model: nn.Module, task: UnlearnTask) -> float | None:
    """Return the forget score of a model that never saw the data; None where no validation data tell."""
    if task.kind != "segmentation" and task.forget_classes:
        return 0.02
    return None if held_out_alike(task) is None else stop_level(model, task, "held-out")


def step_length(
    model: nn.Module, task: UnlearnTask, direction: Named, aim: float, drop: float, samples: int, seed: int
) -> float:
    """Return the smallest step along ``direction`` that forgets as far as ``aim``, between 2^-12 and 2^10.

    Args:
        model: Where it starts.
        task: Whose forget and retain data it looks at.
        direction: By name of parameter.
        aim: The forget score (accuracy, or mean IoU) at most which is asked for.
        drop: What the retain score may fall by; where no step forgets within it, the largest that keeps it.
        samples: Of either data set, at most.
        seed: Of which samples.

    Raises:
        ValueError: When even the smallest step costs more than ``drop``.
    """
    forget = random_subset(task.forget, samples, seed=derive(seed, "search forget"))
    retain = random_subset(task.retain, samples, seed=derive(seed, "search retain"))
    part = replace(task, forget=forget, retain=retain, forget_indices=None)
    floor = (split_score(model, part, "retain") or 0.0) - drop

    def judge(power: float) -> tuple[bool, bool]:
        """Return whether it forgets, and whether it retains."""
        moved = moved_along(model, direction, 2.0**power)
        try:
            forgets, retains = (split_score(moved, part, split) or 0.0 for split in ("forget", "retain"))
            return forgets <= aim, retains >= floor
        except ValueError:  # Logits that are not finite.
            return True, False

    low, high, found = SMALLEST, LARGEST, None
    _, retains = judge(low)
    if not retains:
        raise ValueError(f"expected retain_drop that some step of the search keeps within, but got {drop!r}")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        forgets, retains = judge(middle)
        if forgets and retains:
            found = middle
        low, high = (low, middle) if forgets or not retains else (middle, high)
    return 2.0 ** (low if found is None else found)


def moved_along(model: nn.Module, direction: Named, step: float) -> nn.Module:
    """Return a copy whose parameters are ``step`` times ``direction`` further."""
    moved = blank_copy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in direction:
                parameter.add_(step * direction[name])
    return moved
