"""Training toward a goal for each forget sample, which quantile matching and the boundary's labels share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data import in_order
from unlearn_kit.engine import Phase, Training
from unlearn_kit.losses import distances
from unlearn_kit.modules import device_of, evaluating
from unlearn_kit.outputs import label_loss
from unlearn_kit.schedules import ScalarOrSchedule, cosine, is_schedule

MATCHING = Training(
    steps=100,
    batch_size={"forget": 64, "retain": 256},
    lr=cosine(3e-2, 0.0),
    weight_decay=5e-4,
    clip=1.0,
    batch_norm="update",
)

# Of the training data, up to which the targets were measured to be near enough.
MEASURED_SHARE = 0.2

# Draws of each forget sample in a run, and what positive margins are then multiplied by: training seed 100 of
# Fashion-MNIST with 1,000 samples to forget, and of digits with 40.
DRAWS, SHRINK = (6.4, 160.0), (0.6, 0.9)


def check_share(task: UnlearnTask, largest: float, instead: str) -> None:
    """Refuse the quantiles of the original's validation margins where a large share of its training data is to go.

    Raises:
        ValueError: Naming the share, and what to do ``instead``.
    """
    share = len(task.forget) / (len(task.forget) + len(task.retain))
    if share > largest:
        raise ValueError(
            f"expected at most {largest:.0%} of the training data to be forgotten by quantiles, which are of a model "
            f"that saw them all, but got {share:.0%}: {instead}"
        )


def fitting_shrink(task: UnlearnTask, training: Training) -> float:
    """Return what positive margins are multiplied by, in [.6, .9]: the more, the less often a sample is drawn.

    Training toward a soft label stops short of moderate confidence, and the farther from it the fewer the draws. What
    lies between the two that were measured is on the line over the logarithm of draws a sample.
    """
    phase = training.phase(L.cross_entropy(on="forget"), task, name="unlearn")
    draws = phase.total_steps * phase.batch_of("forget") / max(1, len(task.forget))
    return float(np.interp(np.log(draws), np.log(DRAWS), SHRINK))


def matching_phase(
    model: nn.Module,
    task: UnlearnTask,
    target: L.Target,
    training: Training,
    *,
    retain_weight: ScalarOrSchedule = 1.0,
    distill: float = 0.8,
    temperature: float = 2.0,
) -> Phase:
    """Return the phase that minimises ``CE(F -> target) + retain_weight ((1 - d) CE(R) + d T^2 KL(R -> model))``.

    Both streams go through the network as one batch, and are drawn with replacement: forget samples in proportion to
    ``(min(KL(q || p0), 3) + .05)^.5``, the farther from their target the more often; retain samples in proportion to
    ``(min(CE(x shifted by a pixel), 2) + .05)^.5``, since what the original knows by heart alone it loses first.
    """
    table, weights = _table(model, task.forget, target)
    objective, sampling = L.Objective((L.cross_entropy(on="forget", to=table),)), {"forget": weights}
    if is_schedule(retain_weight) or retain_weight != 0:
        keep = L.Objective(())
        if distill < 1:
            keep = keep + (1 - distill) * L.cross_entropy(on="retain")
        if distill > 0:
            keep = keep + distill * L.kl(on="retain", to=L.Teacher(model), temperature=temperature)
        objective, sampling["retain"] = objective + retain_weight * keep, _shifted_weights(model, task.retain)
    return training.phase(objective, task, name="unlearn", sampling=sampling, joint=True)


def _table(model: nn.Module, forget: Any, target: L.Target) -> tuple[L.Table, Tensor]:
    """Return the target's goals of all forget samples, and how often each is drawn."""
    goals, weights, start = [], [], 0
    for x, y in in_order(forget, device=device_of(model)):
        goal = target(L.Batch(x, y, torch.arange(start, start + len(x))))
        with torch.no_grad(), evaluating(model):
            distance = distances.cross_entropy(model(x), goal) - _entropy(goal)
        goals.append(goal.values)
        weights.append((distance.clamp(0, 3) + 0.05).sqrt().cpu())
        start += len(x)
    return L.Table(torch.cat(goals), goal.kind), torch.cat(weights)


def _entropy(goal: L.Goal) -> Tensor:
    """Return the entropy of each goal, ``(B,)`` in nats: 0 of labels."""
    if goal.kind == "labels":
        return torch.zeros(len(goal.values), device=goal.values.device)
    p = goal.values.softmax(1) if goal.kind == "logits" else goal.values
    if p.shape[1] == 1:
        p = torch.cat([1 - p, p], dim=1)
    return torch.special.entr(p).sum(1)


def _shifted_weights(model: nn.Module, retain: Any) -> Tensor:
    """Return how often each retain sample is drawn; samples that are no images are not shifted."""
    parts = []
    for x, y in in_order(retain, device=device_of(model)):
        shifted = torch.cat([x[..., :1], x[..., :-1]], dim=-1) if x.dim() >= 4 else x
        with torch.no_grad(), evaluating(model):
            parts.append((label_loss(model(shifted), y).clamp(max=2) + 0.05).sqrt().cpu())
    return torch.cat(parts)
