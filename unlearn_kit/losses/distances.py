"""Distances between outputs and what they are led toward: pure functions, one value a sample ``(B,)``.

Outputs are logits ``(B, C, ...)`` (see ``unlearn_kit.outputs``); a sample with many decisions (pixels) gets their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..outputs import IGNORE, hard_labels, is_binary, per_sample
from .batch import Goal, GoalKind


def _binary_cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    wanted = hard_labels(goal.values, logits) if goal.kind == "labels" else goal.values
    wanted = wanted.reshape(logits.shape).to(logits)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities ``(B, C, ...)``, of both outcomes ``(B, 2, ...)`` for a single logit."""
    if is_binary(logits):
        z = logits / temperature
        return torch.cat([F.logsigmoid(-z), F.logsigmoid(z)], dim=1)
    return F.log_softmax(logits / temperature, dim=1)


def _tempered(goal: Goal, temperature: float) -> Tensor:
    """Return the goal's probabilities at ``temperature``, both outcomes of a single logit included."""
    if goal.kind == "logits":
        return _log_probabilities(goal.values.nan_to_num(), temperature).exp()
    p = goal.values.clamp(min=0)  # IGNORE is negative: its decisions are left out of the mean.
    both = torch.cat([1 - p, p], dim=1) if is_binary(p) else p
    if temperature == 1:
        return both
    powered = both.pow(1 / temperature)
    return powered / powered.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """Return ``-sum_i q_i log p_i`` in nats for a goal q of labels, probabilities or logits (through their softmax)."""
    if goal.kind == "labels":
        if is_binary(logits):
            return per_sample(_binary_cross_entropy(logits, goal), goal.asked())
        labels = hard_labels(goal.values, logits)
        return per_sample(F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none"), labels)
    return per_sample(-(_tempered(goal, 1.0) * _log_probabilities(logits)).sum(1), goal.asked())


def label_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``cross_entropy`` toward the data's own targets, which ``unlearn_kit.gradients`` differentiates."""
    return cross_entropy(logits, Goal("labels", targets))


def kl(logits: Tensor, goal: Goal, *, temperature: float = 1.0) -> Tensor:
    """Return ``T^2 KL(q || p)`` in nats, both sides at temperature T (the factor keeps gradients comparable over T)."""
    q = _tempered(goal, temperature)
    if goal.kind == "logits":
        log_q = _log_probabilities(goal.values.nan_to_num(), temperature)
    else:
        log_q = q.clamp(min=1e-38).log()
    # 0 log 0 = 0: outcomes without mass contribute nothing, also when the log overflows.
    terms = torch.where(q > 0, q * (log_q - _log_probabilities(logits, temperature)), 0.0)
    return temperature**2 * per_sample(terms.sum(1), goal.asked())


def mse(logits: Tensor, goal: Goal) -> Tensor:
    """Return mean squared difference of logits."""
    difference = logits - goal.values.nan_to_num().to(logits)
    return per_sample(difference.square().mean(1), goal.asked())


def bce(logits: Tensor, goal: Goal) -> Tensor:
    """Return binary cross-entropy of every output by itself.

    Labels of several classes are taken one against the rest.
    """
    if goal.kind == "probabilities":
        return per_sample(_binary_cross_entropy(logits, goal).mean(1), goal.asked())
    if is_binary(logits):
        return per_sample(_binary_cross_entropy(logits, goal), goal.asked())
    labels = hard_labels(goal.values, logits)
    onehot = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits)
    values = F.binary_cross_entropy_with_logits(logits, onehot, reduction="none").mean(1)
    return per_sample(values, labels)


def fit_goal(goal: Goal, logits: Tensor) -> Goal:
    """Return the goal in the form of the outputs: of two outcomes' probabilities, a single logit gets the second's."""
    values = goal.values
    if goal.kind == "probabilities" and is_binary(logits) and values.dim() == logits.dim() and values.shape[1] == 2:
        return Goal("probabilities", values[:, 1:])
    return goal


def check_goal(distance: str, takes: Sequence[GoalKind], goal: Goal, logits: Tensor, target: object) -> None:
    """Refuse a goal that does not fit the outputs or the distance.

    Raises:
        ValueError: Naming the target, what was expected and what came.
        TypeError: Naming the target, what was expected and what came.
    """
    kind, values = goal
    if kind not in takes:
        raise ValueError(
            f"expected the target of {distance} to give {' or '.join(takes)}, but got {kind} from {target}"
        )
    if kind == "labels":
        if values.numel() != logits[:, 0].numel() or len(values) != len(logits):
            raise ValueError(
                f"expected {target} to give one label a decision of outputs {tuple(logits.shape)}, "
                f"but got shape {tuple(values.shape)}"
            )
        if logits.shape[1] > 2 and values.is_floating_point():
            raise TypeError(f"expected {target} to give integer labels, but got {values.dtype}")
        least, most = (float(v) for v in values.aminmax())
        classes = max(logits.shape[1], 2)
        if least < IGNORE or most > classes - 1:
            raise ValueError(
                f"expected labels from {target} in [0, {classes - 1}] (the model has {logits.shape[1]} outputs), "
                f"but got {least:g} to {most:g}"
            )
    elif values.shape != logits.shape:
        raise ValueError(
            f"expected {target} to give {kind} of the outputs' shape {tuple(logits.shape)}, "
            f"but got {tuple(values.shape)}"
        )
    elif kind == "probabilities":
        least, most = (float(v) for v in values.aminmax())
        if most > 1 + 1e-5 or (least < -1e-5 and bool(((values < -1e-5) & (values != IGNORE)).any())):
            raise ValueError(f"expected probabilities from {target} in [0, 1], but got {least:g} to {most:g}")
