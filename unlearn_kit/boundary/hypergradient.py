"""Gradients through the inner problem: where a boundary point goes when the weights, or its settings, change.

The sign has derivative 0 wherever it has one. Its expectation over the noise is smooth (``noise.expected_sign``): with
it, the search is a differentiable map of the weights of the model it looks at and of its own settings.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice, check_count, check_number
from ..gradients import plain_attention
from ..logits import giving_logits
from ..modules import evaluating
from ..outputs import decisions, label_loss, per_sample
from ..schedules import is_schedule
from .conjugate import conjugate_gradients
from .noise import check_broadcast, expected_sign
from .search import PerturbedSign, check_labels

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class SmoothPoints:
    """Points that gradients flow through, to the weights of the model and to the settings given as tensors.

    Attributes:
        inputs: The points, of the shape of x.
        logits: The model's logits there, ``(B, C, ...)``.
        converged: Bool ``(B,)``, whether the point is a fixed point (unrolled: always True). The backward pass turns it
            to False in place where the linear system of the derivative is not solved: what is True after it has its
            hypergradient, and what is False got none.
    """

    inputs: Tensor
    logits: Tensor
    converged: Tensor


@checked
def smoothed_search(
    search: PerturbedSign,
    model: nn.Module | Forward,
    x: Tensor,
    y: Tensor,
    *,
    mode: Literal["unrolled", "implicit"] = "unrolled",
    radius: Tensor | None = None,
    closeness: Tensor | None = None,
    noise: Tensor | None = None,
    tolerance: float | None = None,
    iterations: int = 500,
    strict: bool = True,
) -> SmoothPoints:
    """Search with the sign replaced by its expectation over the noise: a differentiable function.

    "unrolled" takes the search's own steps and differentiates through each of them. "implicit" goes on to a fixed point
    and solves there for the derivative, by conjugate gradients on Hessian-vector products: the gradient of the exact
    inner solution, whose memory does not grow with the steps.

    With ``update="projected"`` the fixed points are the stationary points of the inner problem, whatever the noise and
    the step size, since the expected sign is 0 just where its argument is: the derivative with respect to the noise is
    0, pixels at the edge of the box move with the edge alone, and ``H v = q`` is solved on the others. With
    "frank-wolfe" a fixed point is ``u = middle + widths / 2 E sign(grad phi(u) + c z)``: a solution of the inner
    problem that the noise regularises, inside the box, with a derivative with respect to the noise.

    Args:
        search: The settings. ``stop_when_flipped`` is refused: where a sample stops is no smooth function.
        model: A module, evaluated in eval mode; or a function of inputs that returns logits and treats samples by
            themselves.
        x: As of ``PerturbedSign.search``.
        y: As of ``PerturbedSign.search``.
        mode: "unrolled" or "implicit".
        radius: A scalar tensor in place of the search's own setting, as are the next two.
        closeness: In place of the search's own.
        noise: In place of the search's own.
        tolerance: "implicit": the largest residual of a fixed point, in pixels, and of the linear system, relative
            (default: 1e-10 in float64, 1e-5 else).
        iterations: "implicit": the most iterations, of the fixed point and of the conjugate gradients.
        strict: "implicit": refuse samples whose fixed point or linear system does not converge, or that are no maximum,
            rather than give them gradient 0.

    Raises:
        ValueError: When the noise is 0, with ``stop_when_flipped``, when schedules change the noise where a fixed point
            is asked for; when ``strict``, where samples do not converge (of the linear system: in the backward pass).

    Source: implicit differentiation as in arXiv 1909.04630; smoothing over the noise as in arXiv 2302.02589.
    """
    check_choice("mode", mode, ("unrolled", "implicit"))
    check_count("iterations", iterations)
    if search.stop_when_flipped:
        raise ValueError("expected search to have stop_when_flipped=False for a hypergradient, but got True")
    if noise is None and search.deterministic:
        raise ValueError("expected noise above 0 for a hypergradient, since a sign has derivative 0, but got 0")
    search._check(x, y, None)
    for name, value in (("radius", radius), ("closeness", closeness), ("noise", noise)):
        if value is not None:
            check_broadcast(name, value, x)
    tolerance = (1e-10 if x.dtype == torch.float64 else 1e-5) if tolerance is None else tolerance
    check_number("tolerance", tolerance, low=0, open_low=True)
    with ExitStack() as stack, plain_attention(), torch.enable_grad():
        if isinstance(model, nn.Module):
            stack.enter_context(giving_logits(model))
            stack.enter_context(evaluating(model))
        inner = _Inner(search, model, x.detach(), y, radius, closeness, noise)
        if mode == "unrolled":
            points = inner.unrolled()
            return SmoothPoints(points, model(points), torch.ones(len(x), dtype=torch.bool, device=x.device))
        for name, setting in (("closeness", search.closeness), ("noise", search.noise)):
            if is_schedule(setting):
                raise ValueError(f"expected {name} to be a number for an implicit hypergradient, but got {setting}")
        if search.update == "frank-wolfe" and search.noise_scale == "relative":
            raise ValueError(
                "expected noise_scale='absolute' for an implicit hypergradient of frank-wolfe steps, but got 'relative'"
            )
        points, converged = _implicit(inner, tolerance, iterations, strict)
        return SmoothPoints(points, model(points), converged)


class _Inner:
    """The inner problem with every setting a tensor or a number."""

    def __init__(
        self,
        search: PerturbedSign,
        forward: Forward,
        x: Tensor,
        y: Tensor,
        radius: Tensor | None,
        closeness: Tensor | None,
        noise: Tensor | None,
    ) -> None:
        self.search, self.forward, self.x, self.y = search, forward, x, y
        self.radius, self.closeness, self.noise = radius, closeness, noise
        self.low, self.high = search.box(x, radius)
        self.projected = search.update == "projected"

    def pull(self, step: int) -> float | Tensor:
        return self.search.closeness_at(step) if self.closeness is None else self.closeness

    def slope(self, u: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss ``(B,)``, its gradient at u, and the direction of ascent: with a graph of their own."""
        logits = decisions(self.forward(u), self.y)
        check_labels("y", self.y, logits)
        loss = per_sample(label_loss(logits, self.y), self.y)
        (gradient,) = torch.autograd.grad(loss.sum(), u, create_graph=True)
        return loss, gradient, gradient - self.pull(step) * (u - self.x)

    def scale(self, gradient: Tensor, step: int) -> Tensor:
        """Return the scale of the noise on each sample, never quite 0."""
        least = torch.finfo(self.x.dtype).tiny
        c: float | Tensor = self.noise if self.noise is not None else self.search.noise_share(step)
        if self.search.noise_scale == "relative":
            flat = gradient.flatten(1)
            # As the search does, but with a derivative where all of a gradient is 0.
            peak = flat.detach().abs().amax(1, keepdim=True).clamp(min=least)
            rms = ((flat / peak).square().mean(1) + least).sqrt() * peak[:, 0]
            c = c * rms.reshape(-1, *[1] * (gradient.dim() - 1))
        return torch.as_tensor(c, dtype=self.x.dtype, device=self.x.device).clamp(min=least)

    def vertex(self, direction: Tensor, scale: Tensor) -> Tensor:
        """Return where the noisy oracle sends a Frank-Wolfe step, on average."""
        sign = expected_sign(self.search.noise_distribution, direction, scale)
        return self.low + (self.high - self.low) * (1 + sign) / 2

    def unrolled(self) -> Tensor:
        u = self.x.clone()
        for step in range(self.search.steps):
            u = u if u.requires_grad else u.requires_grad_(True)
            _, gradient, direction = self.slope(u, step)
            scale, size = self.scale(gradient, step), self._size(step)
            if self.projected:
                moved = u + size * expected_sign(self.search.noise_distribution, direction, scale)
            else:
                moved = u + size * (self.vertex(direction, scale) - u)
            u = torch.minimum(torch.maximum(moved, self.low), self.high)
        return u

    def _size(self, step: int) -> float | Tensor:
        size = self.search.size_at(step)
        # The default step of a projected search is a share of its radius.
        if self.radius is None or not self.projected or self.search.step_size is not None:
            return size
        return self.radius if self.search.steps == 1 else 2.5 * self.radius / self.search.steps

    def fixed_point(self, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
        """Find points where the smoothed step rests, and which of them do to within ``tolerance``, ``(B,)``.

        Projected steps rest where projected gradient ascent does, which gets there faster. A sample's step is halved
        when it did not climb; one toward the average vertex, when the way that is left got longer.
        """
        low, high = self.low.detach(), self.high.detach()
        pull = float(torch.as_tensor(self.pull(0)).detach())
        eps = 8 * torch.finfo(self.x.dtype).eps

        def look(u: Tensor) -> tuple[Tensor, Tensor]:
            loss, gradient, direction = (v.detach() for v in self.slope(u.detach().requires_grad_(True), 0))
            if self.projected:
                return loss - pull / 2 * (u - self.x).flatten(1).square().sum(1), direction
            rest = self.vertex(direction, self.scale(gradient, 0)).detach() - u
            return -rest.flatten(1).norm(dim=1), rest

        def moved(u: Tensor, direction: Tensor, size: Tensor) -> Tensor:
            return torch.minimum(torch.maximum(u + size * direction, low), high)

        u = self.x.clone()
        merit, direction = look(u)
        shape = (-1, *[1] * (u.dim() - 1))
        if self.projected and pull == 0:
            slope = direction.flatten(1).abs().amax(1).clamp(min=torch.finfo(u.dtype).tiny)
            full = ((high - low).flatten(1).amax(1) / slope).reshape(shape)
        else:
            full = torch.ones_like(merit).reshape(shape) / (pull if self.projected else 1.0)
        size = full
        for _ in range(iterations):
            if bool(((moved(u, direction, full) - u).abs() <= tolerance).all()):
                break
            aim = moved(u, direction, size)
            there, onward = look(aim)
            # Rounding alone must not stop a climb that is about to end.
            better = there >= merit - eps * (1 + merit.abs())
            chosen = better.reshape(shape)
            u, direction = torch.where(chosen, aim, u), torch.where(chosen, onward, direction)
            merit, size = torch.where(better, there, merit), torch.where(chosen, size, size / 2)
        return u, ((moved(u, direction, full) - u).abs() <= tolerance).flatten(1).all(1)


def _implicit(inner: _Inner, tolerance: float, iterations: int, strict: bool) -> tuple[Tensor, Tensor]:
    points, converged = inner.fixed_point(tolerance, iterations)
    if strict and not converged.all():
        raise ValueError(
            f"expected the inner problem to come to rest within {iterations} iterations, but "
            f"{int((~converged).sum())} of {len(points)} samples did not; more closeness or noise makes it easier"
        )
    fixed = points.detach().requires_grad_(True)
    _, gradient, direction = inner.slope(fixed, 0)
    shape = (-1, *[1] * (points.dim() - 1))

    def curved(v: Tensor) -> Tensor:
        """Return the Hessian of what is maximised, times v."""
        (product,) = torch.autograd.grad(direction, fixed, v, retain_graph=True)
        return product

    def solve(apply: Callable[[Tensor], Tensor], q: Tensor) -> Tensor:
        v, solved = conjugate_gradients(apply, q, tolerance=tolerance, iterations=iterations)
        if strict and not solved.all():
            raise ValueError(
                f"expected the fixed points to be strict maxima, but for {int((~solved).sum())} of {len(q)} samples "
                "the linear system was not solved; more closeness or noise makes it easier"
            )
        return v * converged.logical_and_(solved).reshape(shape)

    low, high = inner.low, inner.high
    if inner.projected:
        # What is at the edge moves with it, and what is not moves so that the slope stays 0.
        below, above = fixed <= low, fixed >= high
        free = (~below & ~above).detach()
        start = torch.where(below, low, torch.where(above, high, fixed.detach()))
        start = start if start.requires_grad else start.detach().requires_grad_(True)
        rest = torch.where(free, inner.slope(start, 0)[2], 0.0)
        if rest.requires_grad:
            rest.register_hook(lambda q: solve(lambda v: torch.where(free, -curved(v), 0.0), torch.where(free, q, 0.0)))
        # At a fixed point the rest is 0: it is there for its derivative alone.
        return start.detach() + (start - start.detach()) + rest - rest.detach(), converged
    scale = inner.scale(gradient, 0).detach()
    leaf = direction.detach().requires_grad_(True)
    (bend,) = torch.autograd.grad(inner.vertex(leaf, scale).sum(), leaf)
    root = bend.detach().sqrt()

    def adjoint(q: Tensor) -> Tensor:
        # (I - H D) r = q, made symmetric: with s = D^(1/2) r, (I - D^(1/2) H D^(1/2)) s = D^(1/2) q.
        return q + curved(root * solve(lambda s: s - root * curved(root * s), root * q))

    again = points.detach().requires_grad_(True)
    _, slope, onward = inner.slope(again, 0)
    moved = inner.vertex(onward, inner.scale(slope, 0))
    moved.register_hook(adjoint)
    return points.detach() + moved - moved.detach(), converged
