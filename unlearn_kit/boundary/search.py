"""The inner problem: near each forget sample, a point where the original model changes its mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice, check_count, check_number
from ..logits import giving_logits
from ..modules import evaluating
from ..outputs import (
    decisions,
    is_binary,
    is_ignored,
    label_loss,
    label_margin,
    lifted_loss,
    per_sample,
    predicted_labels,
)
from ..schedules import ScalarOrSchedule, check_scalar_or_schedule, is_schedule, value_at
from ..seeding import standardized
from .certificate import Certificate, Trace, certify
from .noise import DISTRIBUTIONS, draw
from .radius import BoundaryRadii, boundary_radii


@dataclass(frozen=True)
class BoundaryPoints:
    """What a search found.

    Attributes:
        inputs: The points, of the shape of x.
        labels: The model's labels there, ``(B,)``, ``(B, H, W)`` or ``(B, K)``, int64.
        logits: The model's logits there, ``(B, C, ...)``; of K findings ``(B, 1, K)``.
        flipped: Bool, of the shape of ``labels``: whether the label differs from the model's own label at x.
        certificate: What is guaranteed of the points, where it was asked for.
    """

    inputs: Tensor
    labels: Tensor
    logits: Tensor
    flipped: Tensor
    certificate: Certificate | None = None


@checked
@dataclass(frozen=True)
class PerturbedSign:
    """Perturbed sign-gradient ascent on each sample's own loss, inside a box around it.

    Step t moves along ``sign(g - closeness (x' - x) + noise z)``, where g is the gradient of that sample's
    cross-entropy with respect to the input and z a fresh perturbation. ``update="projected"`` adds ``step_size``
    times the sign and projects onto ``[x - radius, x + radius]`` and ``bounds``; ``update="frank-wolfe"`` moves a
    share of the way to the vertex of that box the sign picks.

    Differences from the code released with the paper, on purpose: the proximal term pulls back toward x (there it
    pushes away); gradients are each sample's own, so noise and closeness do not depend on the batch size; the
    loss is written so that its gradient keeps its direction on samples the model is certain of (there
    ``p_y - 1`` rounds to zero in single precision, and the sign is that of a different function). Where it would
    round to zero all the same, at margins of some 60 and more, and nothing is added to it whose size counts (noise
    of absolute scale, closeness away from x), the loss is multiplied by what makes it of the size of 1 there, which
    no sign depends on.

    Args:
        radius: Half width of the box, in pixel units.
        steps: The number K of steps. With one step closeness is inert: x' - x is still zero.
        step_size: Pixel units for "projected" (default: the radius for one step, else 2.5 radius / K); a share in
            (0, 1] for "frank-wolfe" (default 2 / (t + 1), t = 1, 2, ...).
        closeness: The weight of the pull toward x, at least 0.
        noise: The scale of z, at least 0; in gradient units, or in units of each sample's own gradient RMS.
        noise_distribution: "normal", "uniform" (-1, 1), "laplace" or "cauchy".
        noise_scale: "absolute" or "relative".
        update: "projected" or "frank-wolfe".
        bounds: The range of valid pixels, or None.
        seed: Of the perturbations, when ``search`` is given no generator (None: 0).
        stop_when_flipped: Leave a sample alone once its label differs from the one at x (of several decisions: once
            all do, or one does, as ``flips`` says).
        flips: Of several decisions a sample (findings, pixels), "all" climbs their mean loss. "any" climbs the loss of
            the one that is nearest to a change, at every step that which has the smallest margin of those that still
            have their label: it looks for the nearest point where the model changes its mind on anything.

    Step size, closeness and noise may be schedules over the K steps.

    Raises:
        ValueError: When a setting is out of range, by its name.
        TypeError: When a setting is of another type, by its name.

    Source: arXiv 2505.21872, algorithm 1.
    """

    radius: float
    steps: int = 1
    step_size: ScalarOrSchedule | None = None
    closeness: ScalarOrSchedule = 0.0
    noise: ScalarOrSchedule = 0.0
    noise_distribution: str = "normal"
    noise_scale: str = "absolute"
    update: str = "projected"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    seed: int | None = None
    stop_when_flipped: bool = False
    flips: Literal["all", "any"] = "all"

    def __post_init__(self) -> None:
        check_number("radius", self.radius, low=0)
        check_count("steps", self.steps)
        check_scalar_or_schedule("closeness", self.closeness, low=0)
        check_scalar_or_schedule("noise", self.noise, low=0)
        check_choice("noise_distribution", self.noise_distribution, DISTRIBUTIONS)
        check_choice("noise_scale", self.noise_scale, ("absolute", "relative"))
        check_choice("update", self.update, ("projected", "frank-wolfe"))
        check_choice("flips", self.flips, ("all", "any"))
        if self.step_size is not None:
            check_scalar_or_schedule("step_size", self.step_size, low=0)
            if self.update == "frank-wolfe" and not is_schedule(self.step_size):
                check_number("step_size of a frank-wolfe update", self.step_size, low=0, high=1, open_low=True)
        if self.seed is not None:
            check_count("seed", self.seed, low=0)
        if self.bounds is not None:
            if not isinstance(self.bounds, Sequence) or len(self.bounds) != 2:
                raise TypeError(f"expected bounds to be (low, high) or None, but got {self.bounds!r}")
            low, high = (check_number("bounds", bound) for bound in self.bounds)
            if not low < high:
                raise ValueError(f"expected bounds to be (low, high) with low < high, but got {self.bounds}")
            object.__setattr__(self, "bounds", (low, high))

    @property
    def deterministic(self) -> bool:
        """Return whether there is no noise: the points then depend on the model and the sample alone."""
        return not is_schedule(self.noise) and self.noise == 0

    @standardized
    def search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        perturbations: Tensor | None = None,
        certificate: bool = False,
        radii: Tensor | None = None,
    ) -> BoundaryPoints:
        """Search near every sample of a batch.

        The model is evaluated in eval mode and stays as it was.

        Args:
            model: The original model, which returns logits ``(B, C, ...)``.
            x: Inputs ``(B, ...)`` within ``bounds``.
            y: Labels ``(B,)``, masks ``(B, H, W)`` or findings ``(B, K)``; the ascended loss is the cross-entropy
                toward them. What is ``IGNORE`` has no part in it: with all but one finding so, its flip is sought.
            generator: The source of the perturbations.
            perturbations: z itself, ``(steps, *x.shape)``, of scale 1, in place of drawing it.
            certificate: Whether to measure what is guaranteed of each point (see ``boundary.Certificate``); the points
                are the same, and take several times as long.
            radii: Half the width of each sample's own box, ``(B,)``, in place of the search's radius; step sizes are
                then in proportion to it.

        Raises:
            TypeError: When x is not floating point, or class labels are.
            ValueError: When pixels are outside ``bounds``, the model has no output for a label, or logits are not
                finite; with a certificate, when the model makes several decisions a sample.
        """
        self._check(x, y, perturbations)
        x = x.detach()
        share = None if radii is None else (radii / self.radius).reshape(-1, *[1] * (x.dim() - 1)).to(x)
        low, high = self.box(x) if share is None else self.box(x, share * self.radius)
        trace = Trace() if certificate else None
        z = perturbations
        if z is None and not self.deterministic:
            source = generator or torch.Generator().manual_seed(self.seed or 0)
            z = draw(self.noise_distribution, self.steps, tuple(x.shape), source).to(x)
        points = x.clone()
        own = torch.empty(0)
        active = torch.arange(len(x), device=x.device)
        with giving_logits(model), evaluating(model):
            for step in range(self.steps):
                here, weight, logits = self._gradient(model, points[active], y[active], lift=self._scale_free(step))
                if step == 0:
                    own = predicted_labels(logits)
                elif self.stop_when_flipped:
                    moving = self._moving(own[active], predicted_labels(logits), y[active])
                    active, here, weight = active[moving], here[moving], weight[moving]
                    if len(active) == 0:
                        break
                everything = len(active) == len(x)
                at = slice(None) if everything else active
                if trace is not None:
                    slope = weight.reshape(-1, *[1] * (x.dim() - 1)) * here
                    noise = torch.as_tensor(self.noise_at(slope, step), dtype=x.dtype, device=x.device)
                    trace.add(active, points[at], slope, noise, self.closeness_at(step), self.size_at(step))
                direction = self._direction(here, points[at] - x[at], None if z is None else z[step][at], step)
                scale = 1.0 if share is None else share[at]
                points[at] = self._move(points[at], direction, low[at], high[at], step, scale)
            with torch.no_grad():
                logits = decisions(model(points), y)
        labels = predicted_labels(logits)
        found = BoundaryPoints(points, labels, logits, torch.ne(labels, own))
        if trace is None:
            return found
        return replace(found, certificate=certify(self, model, x, y, found, trace))

    @standardized
    def radii(self, model: nn.Module, x: Tensor, y: Tensor, *, tolerance: float = 1e-3) -> BoundaryRadii:
        """Return the smallest radius at which each sample's label is not y, as :func:`boundary_radii` finds it."""
        return boundary_radii(self, model, x, y, tolerance=tolerance)

    def box(self, x: Tensor, radius: float | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest point that may be found near ``x``, of its shape.

        Args:
            x: Inputs ``(B, ...)``.
            radius: Another half width of the box than the search's own.
        """
        reach = self.radius if radius is None else radius
        low, high = x - reach, x + reach
        if self.bounds is not None:
            low, high = low.clamp(min=self.bounds[0]), high.clamp(max=self.bounds[1])
        return low, high

    def _check(self, x: Tensor, y: Tensor, perturbations: Tensor | None) -> None:
        if not x.is_floating_point():
            raise TypeError(f"expected x to be floating point, but got {x.dtype}")
        if len(x) == 0:
            raise ValueError("expected x to hold at least one sample, but got an empty batch")
        if len(y) != len(x):
            raise ValueError(f"expected y to hold one label a sample of x, but got {len(y)} for {len(x)}")
        if self.bounds is not None:
            least, most = (float(v) for v in x.detach().aminmax())
            # Float32 rounding of a clamp or a resize may leave the range by an ulp or two.
            if not (self.bounds[0] - 1e-6 <= least and most <= self.bounds[1] + 1e-6):
                raise ValueError(
                    f"expected pixels of x in bounds {self.bounds}, but got values from {least:g} to {most:g}; "
                    "normalisation belongs into the model (models.with_normalization)"
                )
        if perturbations is not None and perturbations.shape != (self.steps, *x.shape):
            raise ValueError(
                f"expected perturbations of shape {(self.steps, *x.shape)}, but got {tuple(perturbations.shape)}"
            )

    def _moving(self, own: Tensor, labels: Tensor, y: Tensor) -> Tensor:
        """Return which samples have not flipped as far as they should, ``(B,)`` bool."""
        if own.dim() == 1:
            return labels == own
        asked = ~is_ignored(y).reshape(own.shape)
        if self.flips == "any":
            return ~(asked & (labels != own)).flatten(1).any(dim=1)
        return (asked & (labels == own)).flatten(1).any(dim=1)

    def _scale_free(self, step: int) -> bool:
        """Return whether the direction of a step is that of the gradient at any positive multiple of it."""
        inert = step == 0 or self.closeness_at(step) == 0  # at x itself nothing pulls
        return inert and (self.noise_scale == "relative" or self.noise_share(step) == 0)

    def _gradient(self, model: nn.Module, x: Tensor, y: Tensor, *, lift: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient of each sample by itself (a sum over the batch, never a mean) and the logits.

        Between them the weight ``(B,)`` that makes the gradients those of the loss: 1, but with ``lift`` less where the
        loss is so small that its gradients would round to zero.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = decisions(model(x), y)
            check_labels("y", y, logits)
            losses, weight = lifted_loss(logits, y) if lift else (label_loss(logits, y), torch.ones(len(x)).to(x))
            if self.flips == "any" and losses.dim() > 1:
                climbed = losses.flatten(1).gather(1, nearest_change(logits.detach(), y).unsqueeze(1)).sum()
            else:
                climbed = per_sample(losses, y).sum()
            (gradient,) = torch.autograd.grad(climbed, x)
        return gradient, weight, logits.detach()

    def closeness_at(self, step: int) -> float:
        """Return the weight of the pull toward x at ``step`` (0-based)."""
        return value_at(self.closeness, step, self.steps)

    def noise_share(self, step: int) -> float:
        """Return the noise at ``step``, in the units of ``noise_scale``."""
        return value_at(self.noise, step, self.steps)

    def noise_at(self, gradient: Tensor, step: int) -> float | Tensor:
        """Return the scale of z in gradient units: a number, or one a sample in a shape that broadcasts."""
        scale = self.noise_share(step)
        if self.noise_scale == "relative":
            return scale * _rms(gradient).reshape(-1, *[1] * (gradient.dim() - 1))
        return scale

    def size_at(self, step: int) -> float:
        """Return the step size, or for "frank-wolfe" the share of the way."""
        if self.update == "frank-wolfe":
            share = 2 / (step + 2) if self.step_size is None else value_at(self.step_size, step, self.steps)
            return check_number("step_size of a frank-wolfe update", share, low=0, high=1)
        default = self.radius if self.steps == 1 else 2.5 * self.radius / self.steps
        return default if self.step_size is None else value_at(self.step_size, step, self.steps)

    def _direction(self, gradient: Tensor, offset: Tensor, z: Tensor | None, step: int) -> Tensor:
        direction = gradient - self.closeness_at(step) * offset
        if z is not None:
            direction = direction + self.noise_at(gradient, step) * z
        return direction.sign()

    def _move(
        self, points: Tensor, sign: Tensor, low: Tensor, high: Tensor, step: int, scale: float | Tensor
    ) -> Tensor:
        size = self.size_at(step)
        if self.update == "frank-wolfe":
            vertex = torch.where(sign > 0, high, torch.where(sign < 0, low, points))
            moved = points + size * (vertex - points)
        else:
            moved = points + scale * size * sign
        # A share of the way, too, may round to an ulp outside.
        return torch.minimum(torch.maximum(moved, low), high)


def nearest_change(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the decision with the smallest margin of those that still have their label: a place in a row, ``(B,)``."""
    margins = label_margin(logits, labels).flatten(1)
    return torch.where(margins > 0, margins, torch.inf).argmin(1)


def _rms(gradient: Tensor) -> Tensor:
    """Return the root mean square of each sample's gradient, ``(B,)``; squares of small ones would round to zero."""
    flat = gradient.flatten(1)
    peak = flat.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return (flat / peak).square().mean(dim=1).sqrt() * peak[:, 0]


def check_labels(name: str, labels: Tensor, logits: Tensor) -> None:
    """Refuse labels that the logits ``(B, C, ...)`` have no output for.

    Raises:
        ValueError: When a label is out of range, or there is not one a decision.
        TypeError: When class labels are floating point.
    """
    classes = 2 if is_binary(logits) else logits.shape[1]
    if labels.is_floating_point() and logits.shape[1] > 2:
        raise TypeError(f"expected {name} to be integer class labels, but got {labels.dtype}")
    # Pixels may be without a label; a sample without one has nothing to search for.
    known = labels if logits.dim() == 2 else torch.where(is_ignored(labels), 0, labels)
    least, most = (float(v) for v in known.aminmax())
    if least < 0 or most > classes - 1:
        raise ValueError(
            f"expected {name} in [0, {classes - 1}] for a model with {logits.shape[1]} outputs, "
            f"but got labels from {least:g} to {most:g}"
        )
    decisions = logits[:, 0].numel()
    if labels.numel() != decisions:
        raise ValueError(
            f"expected {name} to hold one label a decision of logits {tuple(logits.shape)}, "
            f"but got shape {tuple(labels.shape)}"
        )
