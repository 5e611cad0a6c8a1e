"""Curvature and slope of a network as a function of its input, sample by sample, on ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp

from ..outputs import is_binary

Loss = Callable[[Tensor], Tensor]


class Extremes(NamedTuple):
    """Of each sample's Hessian, ``(B,)``: the largest absolute eigenvalue, and the largest one with its sign."""

    largest: Tensor
    top: Tensor


def input_gradient(loss: Loss, points: Tensor) -> Tensor:
    """The gradient of each sample's own loss at ``points``; ``loss`` returns ``(B,)``, the samples by themselves."""
    gradient: Tensor = grad(lambda u: loss(u).sum())(points)
    return gradient.detach()


def extremes(loss: Loss, points: Tensor, closeness: float, *, iterations: int, generator: torch.Generator) -> Extremes:
    """Power iteration for the Hessian of ``loss(u) - closeness / 2 ||u - x||^2`` with respect to each sample's input.

    Rayleigh quotients never exceed the largest eigenvalue: both figures are estimates from below.

    Args:
        loss: ``(B,)`` of inputs ``(B, ...)``, the samples by themselves (batch norm in eval mode).
        points: where, ``(B, ...)``.
        closeness: of the pull, whose Hessian is known.
        iterations: products of Hessian and vector for each of the two.
        generator: of the first vector, on the device of the points.
    """

    def total(u: Tensor) -> Tensor:
        return loss(u).sum()

    pull = vjp(grad(total), points)[1]

    def product(v: Tensor) -> Tensor:
        # vjp is jvp, the Hessian being symmetric.
        curved: Tensor = pull(v)[0]
        return curved.detach() - closeness * v

    start = torch.randn(points.shape, generator=generator, device=points.device).to(points)
    v = _unit(start)
    size = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    for _ in range(iterations):
        moved = product(v)
        size = torch.maximum(size, _norm(moved))
        v = _unit(moved)
    shift = size.reshape(-1, *[1] * (points.dim() - 1))
    v, top = _unit(start), torch.full_like(size, -torch.inf)
    for _ in range(iterations):
        moved = product(v)
        top = torch.maximum(top, (moved * v).flatten(1).sum(1))
        # Shifted, no eigenvalue is negative, and the largest with its sign is the largest there is.
        v = _unit(moved + shift * v)
    return Extremes(size, top)


def difference_slopes(model: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """Euclidean norm of the gradient of ``z_label - z_j`` with respect to the input, ``(B, C)``; 0 at the label."""
    with torch.enable_grad():
        u = points.detach().requires_grad_(True)
        logits = model(u)
        columns = logits.unbind(1)
        rows = [torch.autograd.grad(column.sum(), u, retain_graph=True)[0].flatten(1) for column in columns]
    slopes = torch.stack(rows, 1)
    if is_binary(logits):
        slopes = torch.cat([torch.zeros_like(slopes), slopes], 1)
    own = slopes.gather(1, labels.reshape(-1, 1, 1).expand(-1, 1, slopes.shape[2]))
    return (own - slopes).norm(dim=2)


def _norm(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1)


def _unit(v: Tensor) -> Tensor:
    length = _norm(v).clamp(min=torch.finfo(v.dtype).tiny)
    return v / length.reshape(-1, *[1] * (v.dim() - 1))
