"""Curvature and slope of a network as a function of its input, sample by sample, on ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp

from ..gradients import plain_attention
from ..outputs import is_binary

Loss = Callable[[Tensor], Tensor]
# How much steeper a slope must be to count as such, and how often a way to another label is halved.
STEEPER, HALVINGS = 1e-3, 10


class Extremes(NamedTuple):
    """The ends of each sample's spectrum.

    Attributes:
        largest: The largest absolute eigenvalue of the Hessian, ``(B,)``.
        top: The largest eigenvalue with its sign, ``(B,)``.
    """

    largest: Tensor
    top: Tensor


class Surroundings(NamedTuple):
    """What was met around points.

    Attributes:
        slopes: Those of the logit differences, ``(B, C)``.
        changed: A Euclidean distance just short of the nearest point seen to have another label, infinite where none
            was seen, ``(B,)``.
    """

    slopes: Tensor
    changed: Tensor

    def radius(self, lead: Tensor) -> Tensor:
        """Return the radius ``(B,)`` within which no label changes if no slope is steeper, by the points' ``lead``."""
        crossing = (lead / self.slopes).nan_to_num(nan=torch.inf, posinf=torch.inf)
        return torch.minimum(crossing.amin(1), self.changed)


def input_gradient(loss: Loss, points: Tensor) -> Tensor:
    """Return the gradient of each sample's own loss at ``points``; ``loss`` returns ``(B,)``, samples by themselves."""
    gradient: Tensor = grad(lambda u: loss(u).sum())(points)
    return gradient.detach()


def extremes(loss: Loss, points: Tensor, closeness: float, *, iterations: int, generator: torch.Generator) -> Extremes:
    """Estimate the spectrum of the Hessian of ``loss(u) - closeness / 2 ||u - x||^2`` by each sample's input.

    Rayleigh quotients of a power iteration never exceed the largest eigenvalue: both figures are estimates from below.

    Args:
        loss: Returns ``(B,)`` of inputs ``(B, ...)``, the samples by themselves (batch norm in eval mode).
        points: Where, ``(B, ...)``.
        closeness: The weight of the pull, whose Hessian is known.
        iterations: Products of Hessian and vector for each of the two.
        generator: The source of the first vector, on the device of the points.
    """

    def total(u: Tensor) -> Tensor:
        return loss(u).sum()

    with plain_attention():
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
    """Return the Euclidean norm of the input's gradient of ``z_label - z_j``, ``(B, C)``; 0 at the label."""
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


def leads(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the label's logit less each other one, ``(B, C)``; infinite at the label itself."""
    z = torch.cat([torch.zeros_like(logits), logits], 1) if is_binary(logits) else logits
    own = labels.unsqueeze(1)
    return (z.gather(1, own) - z).scatter(1, own, torch.inf)


def nearest_change(
    model: nn.Module, points: Tensor, labels: Tensor, seen: Iterable[tuple[Tensor, Tensor]], *, halvings: int = HALVINGS
) -> Tensor:
    """Return a distance ``(B,)`` just short of the nearest other label on the way from ``points`` to those ``seen``.

    Args:
        model: The model.
        points: Points ``(B, ...)``.
        labels: The model's labels there, ``(B,)``.
        seen: Points ``(B, ...)`` with the logits there. Only the nearest with another label is followed back.
        halvings: Of that way, a forward pass each; what is returned is less than ``2 ** -halvings`` of it too short.
    """
    shift, nearest = torch.zeros_like(points), torch.full_like(points.flatten(1)[:, 0], torch.inf)
    for u, logits in seen:
        shift, nearest = _nearer(shift, nearest, u - points, logits, labels)
    return _crossing(model, points, labels, shift, nearest, halvings)


def challenge(
    model: nn.Module,
    points: Tensor,
    labels: Tensor,
    known: Surroundings,
    reach: Tensor,
    *,
    rounds: int,
    rivals: int,
    steps: int,
    halvings: int = HALVINGS,
) -> Surroundings:
    """Look for other labels in the ball that the ``known`` slopes allow each point, and for steeper slopes on the way.

    Each round goes ``steps`` normalised gradient steps toward each of the nearest rivals, as far as the ball goes, and
    then shrinks the ball by the steeper slopes it met; a label that changes is followed back to where it does. A later
    round goes on where the last one ended. A sample is done after a round that met neither. Slopes of a function that
    is linear are the same everywhere: there, nothing changes.

    Args:
        model: As of ``nearest_change``.
        points: As of ``nearest_change``.
        labels: As of ``nearest_change``.
        known: What was met before.
        reach: The radius of the ball where ``known`` sets no limit, ``(B,)``.
        rounds: The most rounds. Each costs at most ``rivals * (steps + 1)`` forward and backward passes, and
            ``halvings`` forward passes.
        rivals: Other labels that are tried in each round, nearest first by lead over slope.
        steps: Of each ascent, of a length that crosses the ball.
        halvings: As of ``nearest_change``.
    """
    slopes, changed = known.slopes.clone(), known.changed.clone()
    with torch.no_grad():
        lead = leads(model(points), labels)
    active = torch.arange(len(points), device=points.device)
    starts = [torch.zeros_like(points) for _ in range(min(rivals, lead.shape[1] - 1))]
    for _ in range(rounds):
        u, label, met = points[active], labels[active], Surroundings(slopes[active], changed[active])
        ball = met.radius(lead[active])
        # Just inside: on the ball itself rounding alone might change the label.
        ball = 0.999 * torch.where(ball.isfinite(), ball, reach[active])
        order = (lead[active] / met.slopes).nan_to_num(nan=torch.inf, posinf=torch.inf).argsort(1)
        steepest, shift, nearest = met.slopes, torch.zeros_like(u), torch.full_like(ball, torch.inf)
        for rank, offset in enumerate(starts):
            rival = order[:, rank : rank + 1]
            for step in range(steps + 1):
                offset = _inside(offset, ball)
                gradient, logits = _lead_gradient(model, u + offset, label, rival)
                steepest = steepest.scatter_reduce(1, rival, _norm(gradient).unsqueeze(1), "amax")
                shift, nearest = _nearer(shift, nearest, offset, logits, label)
                if step < steps:
                    offset = offset - _scaled(_unit(gradient), 2 * ball / steps)
            starts[rank] = offset
        slopes[active] = steepest
        changed[active] = torch.minimum(met.changed, _crossing(model, u, label, shift, nearest, halvings))
        unsettled = nearest.isfinite() | (steepest > (1 + STEEPER) * met.slopes).any(1)
        active, starts = active[unsettled], [start[unsettled] for start in starts]
        if len(active) == 0:
            break
    return Surroundings(slopes, changed)


def _lead_gradient(model: nn.Module, points: Tensor, labels: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of each label's lead over its rival ``(B, 1)``, and the logits."""
    with torch.enable_grad():
        u = points.detach().requires_grad_(True)
        logits = model(u)
        (gradient,) = torch.autograd.grad(leads(logits, labels).gather(1, rival).sum(), u)
    return gradient, logits.detach()


def _nearer(shift: Tensor, nearest: Tensor, other: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest shift to another label so far, and its length, after ``other``, where the logits are."""
    length = _norm(other)
    better = (leads(logits, labels).amin(1) < 0) & (length < nearest)
    return torch.where(better.reshape(-1, *[1] * (shift.dim() - 1)), other, shift), torch.where(better, length, nearest)


def _crossing(model: nn.Module, points: Tensor, labels: Tensor, shift: Tensor, length: Tensor, halvings: int) -> Tensor:
    """Return how far along ``shift`` the label was last seen unchanged, by halving; infinite where ``length`` is."""
    low, high = torch.zeros_like(length), torch.ones_like(length)
    if length.isfinite().any():
        for _ in range(halvings):
            middle = (low + high) / 2
            with torch.no_grad():
                other = leads(model(points + _scaled(shift, middle)), labels).amin(1) < 0
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
    return torch.where(length.isfinite(), low * length, length)


def _inside(offset: Tensor, ball: Tensor) -> Tensor:
    length = _norm(offset).clamp(min=torch.finfo(offset.dtype).tiny)
    return _scaled(offset, (ball / length).clamp(max=1))


def _norm(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1)


def _scaled(v: Tensor, factor: Tensor) -> Tensor:
    return v * factor.reshape(-1, *[1] * (v.dim() - 1))


def _unit(v: Tensor) -> Tensor:
    length = _norm(v).clamp(min=torch.finfo(v.dtype).tiny)
    return v / length.reshape(-1, *[1] * (v.dim() - 1))
