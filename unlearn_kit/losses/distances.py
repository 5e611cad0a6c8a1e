"""Distances between outputs and what they are led toward: pure functions, one value a sample ``(B,)``.

Outputs are logits ``(B, C, ...)``, of K findings ``(B, 1, K)`` (see ``unlearn_kit.outputs``); a sample with many
decisions (pixels, findings) gets their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import check_number
from ..outputs import IGNORE, hard_labels, is_binary, per_sample
from .batch import Goal, GoalKind


def _binary_cross_entropy(
    logits: Tensor, goal: Goal, weight: Sequence[float] | None = None, pos_weight: Sequence[float] | None = None
) -> Tensor:
    wanted = hard_labels(goal.values, logits) if goal.kind == "labels" else goal.values
    wanted = wanted.reshape(logits.shape).to(logits)
    if weight is None and pos_weight is None:
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    absent, present = _outcome_weights(logits, weight, pos_weight)
    return present * wanted * F.softplus(-logits) + absent * (1 - wanted) * F.softplus(logits)


def _outcome_weights(
    logits: Tensor, weight: Sequence[float] | None, pos_weight: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """Return what class 0 and class 1 of each sigmoid weigh, in a shape that broadcasts with ``logits (B, C, ...)``."""
    findings = logits.dim() == 3 and is_binary(logits)
    count = logits.shape[2] if findings else logits.shape[1]
    shape = (1, 1, -1) if findings else (1, -1, *[1] * (logits.dim() - 2))
    positive = as_weights("pos_weight", (1.0,) * count if pos_weight is None else pos_weight, logits, count)
    positive = positive.reshape(shape)
    if is_binary(logits) and not findings:
        of_classes = as_weights("weight", (1.0, 1.0) if weight is None else weight, logits, 2)
        return of_classes[0], of_classes[1] * positive
    own = as_weights("weight", (1.0,) * count if weight is None else weight, logits, count).reshape(shape)
    return own, own * positive


def as_weights(name: str, weights: Sequence[float], logits: Tensor, count: int) -> Tensor:
    """Return ``count`` weights as a tensor beside ``logits``.

    Raises:
        ValueError: When there are more or fewer.
    """
    if len(weights) != count:
        raise ValueError(
            f"expected {name} to hold {count} numbers for outputs {tuple(logits.shape)}, but got {len(weights)}"
        )
    return torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)


def check_weights(name: str, weights: Any) -> tuple[float, ...]:
    """Return class weights as a tuple of floats.

    Raises:
        TypeError: When they are no sequence of numbers.
        ValueError: When one is negative or not finite, or all are 0.
    """
    if isinstance(weights, Tensor) or hasattr(weights, "tolist"):
        weights = weights.tolist()
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Sequence):
        raise TypeError(f"expected {name} to be a list of numbers, but got {type(weights).__name__}")
    found = tuple(check_number(name, weight, low=0) for weight in weights)
    if not any(found):
        raise ValueError(f"expected {name} to hold a number above 0, but got {list(found)}")
    return found


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


def cross_entropy(
    logits: Tensor,
    goal: Goal,
    *,
    weight: Sequence[float] | None = None,
    pos_weight: Sequence[float] | None = None,
) -> Tensor:
    """Return ``-sum_i w_i q_i log p_i`` in nats for a goal q of labels, probabilities or logits (by their softmax).

    A sample's value is the mean over its decisions of the weighted values, and an objective's the mean over samples:
    torch's ``reduction="none"`` and its mean. Torch's own weighted mean over classes divides by the sum of the weights
    of the labels that a batch happens to hold; here rare and common batches weigh alike.

    Args:
        logits: ``(B, C, ...)``.
        goal: What they are led toward.
        weight: One number a class, ``(C,)``; two of a single logit; of K findings one each.
        pos_weight: Of sigmoids: how much more it costs to miss what is there, one number each (a single logit's, or
            ``(K,)`` of findings), as in ``torch.nn.BCEWithLogitsLoss``.

    Raises:
        ValueError: When there are other numbers of weights, or ``pos_weight`` is given for a softmax.
    """
    if is_binary(logits):
        if goal.kind == "labels" or weight is not None or pos_weight is not None:
            soft = goal if goal.kind != "logits" else Goal("probabilities", goal.values.nan_to_num().sigmoid())
            return per_sample(_binary_cross_entropy(logits, soft, weight, pos_weight), goal.asked())
    elif pos_weight is not None:
        raise ValueError(f"expected weight, one number a class, for {logits.shape[1]} outputs, but got pos_weight")
    own = None if weight is None else as_weights("weight", weight, logits, logits.shape[1])
    if goal.kind == "labels":
        labels = hard_labels(goal.values, logits)
        return per_sample(F.cross_entropy(logits, labels, weight=own, ignore_index=IGNORE, reduction="none"), labels)
    values = _tempered(goal, 1.0) * _log_probabilities(logits)
    if own is not None:
        values = values * own.reshape(1, -1, *[1] * (logits.dim() - 2))
    return per_sample(-values.sum(1), goal.asked())


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


def bce(
    logits: Tensor,
    goal: Goal,
    *,
    weight: Sequence[float] | None = None,
    pos_weight: Sequence[float] | None = None,
) -> Tensor:
    """Return binary cross-entropy of every output by itself.

    Labels of several classes are taken one against the rest. Weights as in :func:`cross_entropy`, ``pos_weight`` with
    one number an output.
    """
    if goal.kind == "probabilities":
        return per_sample(_binary_cross_entropy(logits, goal, weight, pos_weight).mean(1), goal.asked())
    if is_binary(logits):
        return per_sample(_binary_cross_entropy(logits, goal, weight, pos_weight), goal.asked())
    labels = hard_labels(goal.values, logits)
    onehot = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits)
    values = _binary_cross_entropy(logits, Goal("probabilities", onehot), weight, pos_weight).mean(1)
    return per_sample(values, labels)


def fit_goal(goal: Goal, logits: Tensor) -> Goal:
    """Return the goal in the form of the outputs: of two outcomes' probabilities, a single logit gets the second's."""
    values = goal.values
    if goal.kind == "probabilities" and is_binary(logits) and values.dim() == logits.dim() and values.shape[1] == 2:
        return Goal("probabilities", values[:, 1:])
    return goal


def check_goal(
    distance: str, takes: Sequence[GoalKind], goal: Goal, logits: Tensor, target: object, *, look: bool = True
) -> None:
    """Refuse a goal that does not fit the outputs or the distance, by its numbers too where asked to ``look``.

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
        if not look:
            return
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
    elif kind == "probabilities" and look:
        least, most = (float(v) for v in values.aminmax())
        if most > 1 + 1e-5 or (least < -1e-5 and bool(((values < -1e-5) & (values != IGNORE)).any())):
            raise ValueError(f"expected probabilities from {target} in [0, 1], but got {least:g} to {most:g}")
