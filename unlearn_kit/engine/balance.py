"""Two objectives, one step: combine the gradients of two streams so that no weight between them needs tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice, check_number
from ..losses import Objective, ObjectiveValue
from .devices import Devices

Gradient = list[Tensor]
Rule = Literal["nash", "pcgrad"]

# Below this, 1 + cos of the angle between two gradients is rounding: they are opposed, and nothing helps both.
OPPOSED = 1e-6


def nash(first: Gradient, second: Gradient) -> Gradient:
    """Return the Nash bargaining solution of two gradients: ``a1 g1 + a2 g2`` with a > 0 and ``G'G a = 1 / a``.

    In closed form ``a_i = 1 / (|g_i| sqrt(1 + cos))``, cos of the angle between them. It helps both equally, in units
    of their own lengths: nothing changes when either is scaled by a positive number, and its norm is sqrt 2 whatever
    theirs, so that the learning rate alone sets the length of the step. Opposed gradients get no step (there is
    nothing to agree on); beside a gradient of zeros the other one is returned as it is.

    Source: arXiv 2411.15537 (MUNBa), arXiv 2202.01017 for any number of players.
    """
    one, two = _norm(first), _norm(second)
    if one == 0 or two == 0:
        return [a + b for a, b in zip(first, second, strict=True)]
    # Of unit vectors: the product of small gradients would round to zero.
    units = [[g / one for g in first], [g / two for g in second]]
    shared = 1 + _dot(*units)
    if shared < OPPOSED:
        return [torch.zeros_like(g) for g in first]
    return [(a + b) / shared.sqrt() for a, b in zip(*units, strict=True)]


def pcgrad(first: Gradient, second: Gradient) -> Gradient:
    """Return the sum of two gradients, each freed of what points against the other where they are in conflict.

    Its product with either is never negative. Without a conflict it is their sum.

    Source: arXiv 2001.06782, algorithm 1.
    """
    return [a + b for a, b in zip(_freed(first, second), _freed(second, first), strict=True)]


@checked
@dataclass(frozen=True)
class Cone:
    """The second gradient, turned toward the first until the cosine between them is ``cosine``, tensor by tensor.

    Of all directions that make at least so much of the first objective it is the one that makes most of the second, and
    each tensor's step keeps the length of the second gradient. With the forget data first, ``cosine`` is the dial
    between forgetting and keeping: at 0 nothing that is kept is given up but what works against forgetting, at 1 the
    second gradient gives the length alone.

    Attributes:
        cosine: In [0, 1].

    Source: HAMU, arXiv 2606.02119, in closed form: ``min g_r d`` under ``g_f d >= Q`` and ``|d| <= R`` with ``R = lr
    |g_r|`` and ``Q = cosine R |g_f|``.
    """

    cosine: float = 0.5

    def __post_init__(self) -> None:
        check_number("cosine", self.cosine, low=0, high=1)

    def __call__(self, first: Gradient, second: Gradient) -> Gradient:
        """Return the second gradient, each tensor of it turned toward the first's."""
        return [self._turned(a, b) for a, b in zip(first, second, strict=True)]

    def _turned(self, first: Tensor, second: Tensor) -> Tensor:
        one, two = first.norm(), second.norm()
        if one == 0 or two == 0:
            return second
        toward, own = first / one, second / two
        along = (toward * own).sum()
        if along >= self.cosine:
            return second
        across = own - along * toward
        length = across.norm()
        if length < OPPOSED:  # Straight against the first: there is no side to turn to.
            return two * self.cosine * toward
        return two * (self.cosine * toward + math.sqrt(1 - self.cosine**2) * across / length)


Balance = Rule | Cone

RULES: Mapping[str, Callable[[Gradient, Gradient], Gradient]] = {"nash": nash, "pcgrad": pcgrad}


def check_rule(balance: object) -> None:
    """Refuse what is no rule.

    Raises:
        ValueError: On an unknown name, suggesting the nearest.
    """
    if not isinstance(balance, Cone):
        check_choice("balance", balance, get_args(Rule))


def check_balance(balance: Balance, objective: Objective) -> None:
    """Refuse an unknown rule, and an objective that does not read just two streams.

    Raises:
        ValueError: When it is refused.
    """
    check_rule(balance)
    if len(objective.streams) != 2:
        raise ValueError(
            f"expected balance={balance!r} with an objective of two streams, but got {list(objective.streams)}"
        )


def balanced_backward(
    balance: Balance,
    objective: Objective,
    evaluation: ObjectiveValue,
    parameters: Sequence[nn.Parameter],
    *,
    step: int,
    total: int,
    devices: Devices,
) -> None:
    """Set the parameters' gradients to the balanced ones of the two streams, and add those of parameter terms.

    Of several processes each stream's gradients are averaged before they are combined.

    A stream whose terms all rest in this step has a gradient of zeros.
    """
    gradients = {}
    for stream in (*objective.streams, None):
        weighted = [
            term.weight.at(step, total) * evaluation.parts[term.name]
            for term in objective.terms
            if term.on == stream and term.name in evaluation.parts
        ]
        loss = torch.stack(weighted).sum() if weighted else None
        if loss is None or not loss.requires_grad:
            gradients[stream] = [torch.zeros_like(p) for p in parameters]
        else:
            gradients[stream] = list(
                torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            )
    for of_stream in gradients.values():
        devices.average(of_stream)
    first, second = (gradients[stream] for stream in objective.streams)
    combined = (balance if isinstance(balance, Cone) else RULES[balance])(first, second)
    for parameter, gradient, own in zip(parameters, combined, gradients[None], strict=True):
        parameter.grad = gradient + own


def _freed(gradient: Gradient, other: Gradient) -> Gradient:
    length = _norm(other)
    if length == 0:
        return gradient
    unit = [g / length for g in other]
    against = _dot(gradient, unit).clamp(max=0)
    return [g - against * u for g, u in zip(gradient, unit, strict=True)]


def _dot(first: Gradient, second: Gradient) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _norm(gradient: Gradient) -> Tensor:
    return torch.stack([g.norm() for g in gradient]).norm()
