"""The barrier between two models, and the bound that smoothness puts on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from ..arguments import checked
from ..data.tensors import in_order, subset
from ..errors import check_count
from ..gradients import cross_entropy, plain_attention
from ..logits import giving_logits
from ..metrics.predict import mean_score
from ..modules import BATCH_NORM, blank_copy, device_of, evaluating
from ..outputs import check_finite, decisions
from ..seeding import standardized
from .merge import interpolate
from .state import check_match, layout_of, retain_of


def mean_loss(model: nn.Module, data: Any) -> float | None:
    """Return mean cross-entropy in nats over ``data``, in eval mode; None when it is empty."""
    return mean_score([model], data, lambda logits, targets: cross_entropy(logits, targets).double())


@checked
def barrier(ts: Sequence[float], losses: Sequence[float]) -> float:
    """Return how far a path's loss rises above the straight line between its ends, at most: at least 0; ideal 0.

    ``max_t f(t) - (1 - t) f(0) - t f(1)`` over the points given, the first at 0 and the last at 1.

    Raises:
        ValueError: When they are not.

    Source: linear mode connectivity, arXiv 1912.05671.
    """
    if len(ts) != len(losses) or len(ts) < 2 or ts[0] != 0 or ts[-1] != 1:
        raise ValueError(f"expected as many losses as points from 0 to 1, but got {list(ts)} and {list(losses)}")
    return max(0.0, max(f - chord(t, losses[0], losses[-1]) for t, f in zip(ts, losses, strict=True)))


def chord(t: float, first: float, last: float) -> float:
    """Return the straight line between the values of both ends."""
    return (1 - t) * first + t * last


@dataclass(frozen=True)
class BarrierBound:
    """The loss on the straight segment from a to b beside ``(1 - t) f(a) + t f(b) + t (1 - t) L |a - b|^2 / 2``.

    With h(t) the loss on the segment, ``h(t) - (1 - t) h(0) - t h(1)`` is ``-integral k(t, s) dh'(s)``, where
    ``k(t, s) = min(t, s) (1 - max(t, s))`` is at least 0 and integrates to ``t (1 - t) / 2``: where the slope h' grows,
    the loss is only lowered, and the fastest fall of h' bounds its rise.

    Attributes:
        ts: points in [0, 1].
        losses: f there, mean cross-entropy in nats over ``samples`` samples.
        bounds: the bound there.
        smoothness: L: the fastest fall of the slope of f along d = b - a, over ``|d|^2``, at least 0: ``-d' H d`` where
            it was taken, H the Hessian of f, and the mean fall between neighbours, which sees the kinks on the way.
        curvature: the largest ``|d' H d| / |d|^2`` there: the L of the classical bound, for smooth functions.
        distance: ``|a - b|`` over all floating-point tensors.
        samples: how many samples f is the mean over.
    """

    ts: tuple[float, ...]
    losses: tuple[float, ...]
    bounds: tuple[float, ...]
    smoothness: float
    curvature: float
    distance: float
    samples: int

    @property
    def barrier(self) -> float:
        """See :func:`barrier`."""
        return barrier(self.ts, self.losses)

    @property
    def barrier_bound(self) -> float:
        """What the bound allows the barrier to be: ``L |a - b|^2 / 8``; 0 where the slope never falls."""
        return self.smoothness * self.distance**2 / 8

    @property
    def classical_bound(self) -> float:
        """The same with curvature of either sign, and without kinks, in L."""
        return self.curvature * self.distance**2 / 8

    @property
    def holds(self) -> bool:
        """Whether the loss is below the bound at every point, up to rounding."""
        return all(f <= bound + 1e-6 * (1 + abs(bound)) for f, bound in zip(self.losses, self.bounds, strict=True))


@checked
@standardized
def barrier_bound(
    a: nn.Module, b: nn.Module, data: Any, *, points: int = 11, samples: int = 512, slopes: int = 21
) -> BarrierBound:
    """Measure the loss on the segment between two models and bound it by how fast its slope falls along the segment.

    The bound needs no more than a slope that nowhere falls faster than ``L |d|^2``. L is the largest value at and
    between some places, so the bound is an estimate: between them the slope may fall and rise again. Second derivatives
    alone would not do, since they see no kink: networks with ReLU rise above the line by their kinks.
    Buffers are part of the segment, and so are parameters that take no gradient; nothing is recalibrated.

    Args:
        a, b: models of one architecture.
        data: the loss is the mean over ``samples`` of it, evenly spaced.
        points: evenly spaced from 0 to 1, at least 3.
        samples: at most.
        slopes: places, at least, at which derivatives are taken: the points, and evenly spaced ones between them.

    Raises:
        ValueError: Naming what differs in the models, or the argument.
    """
    check_count("points", points, low=3)
    check_count("samples", samples)
    check_count("slopes", slopes, low=3)
    data = retain_of("data", data)
    if len(data) == 0:
        raise ValueError("expected data to hold at least one sample, but got none")
    layout = check_match({"a": a, "b": b})
    count = min(samples, len(data))
    part = subset(data, torch.linspace(0, len(data) - 1, count, dtype=torch.float64).round().long())
    names = (*layout.parameters, *layout.buffers)
    ends = [{name: value for name, value in _tensors(model).items() if name in names} for model in (a, b)]
    direction = {name: ends[1][name].to(ends[0][name].device) - ends[0][name] for name in names}
    distance = float(torch.stack([d.double().square().sum().cpu() for d in direction.values()]).sum().sqrt())
    ts = [i / (points - 1) for i in range(points)]
    share = ceil((slopes - 1) / (points - 1))
    places = (points - 1) * share
    losses, firsts, curvatures = [], [], []
    for place in range(places + 1):
        model = interpolate(a, b, place / places)
        if place % share == 0:
            value = mean_loss(model, part)
            losses.append(0.0 if value is None else value)
        first, second = _derivatives(model, direction, part)
        firsts.append(first)
        curvatures.append(second)
    between = [(before - after) * places for before, after in pairwise(firsts)]
    fall, largest = max(0.0, -min(curvatures), *between), max(map(abs, curvatures))
    bounds = [chord(t, losses[0], losses[-1]) + t * (1 - t) * fall / 2 for t in ts]
    smoothness, curvature = (value / distance**2 if distance > 0 else 0.0 for value in (fall, largest))
    return BarrierBound(tuple(ts), tuple(losses), tuple(bounds), smoothness, curvature, distance, count)


def directional_curvature(model: nn.Module, direction: dict[str, Tensor], data: Any) -> float:
    """Return ``d' H d`` of the mean cross-entropy over ``data``: its second derivative along ``direction``.

    Args:
        model: where it is taken.
        direction: d, by name of a floating-point parameter or buffer; of others it is 0.
        data: map-style, of ``(input, target)``.

    Raises:
        ValueError: When it is not finite.
    """
    return _derivatives(model, direction, data)[1]


@standardized
def _derivatives(model: nn.Module, direction: dict[str, Tensor], data: Any) -> tuple[float, float]:
    """Return the first and the second derivative along ``direction``."""
    model = _differentiable(model)
    start, device = {name: _tensors(model)[name] for name in direction}, device_of(model)

    def total(step: Tensor, x: Tensor, y: Tensor) -> Tensor:
        moved = {name: value + step.to(value.dtype) * direction[name] for name, value in start.items()}
        return cross_entropy(decisions(functional_call(model, moved, (x,)), y), y).sum()

    def slope(step: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first = grad(total)(step, x, y)
        return first, first

    # The derivative in one number, taken twice: the Hessian is never there, and buffers have their part in it.
    both = grad(slope, has_aux=True)
    here = torch.zeros((), device=device, dtype=next(iter(start.values())).dtype)
    result = torch.zeros(2, dtype=torch.float64)
    with giving_logits(model), evaluating(model), plain_attention():
        for x, y in in_order(data, batch_size=128):
            second, first = both(here, x.to(device), y.to(device))
            result += torch.stack([first, second]).detach().cpu()
    check_finite("the curvature", result)
    first, second = (result / len(data)).tolist()
    return first, second


def _differentiable(model: nn.Module) -> nn.Module:
    """Return a copy whose batch norm is written out: torch's has no derivative by its running statistics."""
    model = blank_copy(model)
    for module in model.modules():
        if isinstance(module, BATCH_NORM) and module.running_mean is not None:
            module.forward = partial(_normalize, module)  # type: ignore[method-assign]
    return model


def _normalize(layer: Any, x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = (x - layer.running_mean.view(shape)) * (layer.running_var.view(shape) + layer.eps).rsqrt()
    return y if layer.weight is None else y * layer.weight.view(shape) + layer.bias.view(shape)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    aliases = layout_of(model).aliases
    return {name: value.detach() for name, value in model.state_dict().items() if aliases.get(name) == name}
