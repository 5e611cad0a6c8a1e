"""What is guaranteed of boundary points: measured gaps, the bound on them, and labels that cannot change."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import check_count
from ..modules import evaluating
from ..outputs import label_loss, per_sample
from ..seeding import generator
from . import curvature
from .noise import ORACLE_LOSS

if TYPE_CHECKING:
    from .search import BoundaryPoints, PerturbedSign


class Step(NamedTuple):
    """One step of a search, before it was taken: of the samples ``active``, with the scale of the noise on each."""

    active: Tensor
    points: Tensor
    gradient: Tensor
    noise: Tensor
    closeness: float
    size: float


@dataclass
class Trace:
    """The way of a search."""

    steps: list[Step] = field(default_factory=list)

    def add(
        self, active: Tensor, points: Tensor, gradient: Tensor, noise: Tensor, closeness: float, size: float
    ) -> None:
        """Remember a step; the points are about to be written to."""
        scale = noise.flatten().expand(len(active))
        self.steps.append(Step(active, points.clone(), gradient, scale, closeness, size))


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is known of each boundary point; every tensor is ``(B,)``.

    The inner problem maximises ``phi(u) = CE(f0(u), y) - closeness / 2 ||u - x||^2`` over the box of the search, of
    widths w. Its Frank-Wolfe gap at u, ``max_v <grad phi(u), v - u>`` over the box, is 0 at a stationary point and
    positive elsewhere.

    Attributes:
        gap: the gap at the found point, in nats; ideal 0. Measured.
        average_gap: the mean of the gaps at the points each step started from, weighted by the steps. Measured.
        bound: what the theory says ``average_gap`` is at most, in expectation over the noise. Made of the measured
            climb of phi and the estimated ``smoothness``. Where a sample stops early, its steps are random: the two
            sums over steps are then ordered in expectation, not their ratio.
        noise_floor: the part of ``bound`` that no number of steps removes, proportional to noise and widths.
        smoothness: largest curvature of phi met, an ESTIMATE of its smoothness constant from below.
        concavity: least concavity of phi met, an ESTIMATE from above; negative where phi is not concave.
        margin: the logit of the found label less the largest other, at the found point. Measured.
        lipschitz: Lipschitz constant (Euclidean norm) of the differences of logits, an ESTIMATE from below: the
            steepest slope met on the way, in the box, and on ascents from the found point toward other labels.
        nearest_change: Euclidean distance just short of the nearest point that was seen to have another label;
            infinite where none was seen. Measured.
        stability_radius: Euclidean distance within which the found label cannot change, given ``lipschitz``; at most
            ``nearest_change``.
        inner_error: Euclidean distance to the exact solution of the inner problem, at most: ``sqrt(gap / concavity)``
            where phi is concave, else that of the farthest point of the box.
        reach: that of the farthest point of the box.
        steps: how many steps the sample took.
        flipped: bool, whether the label differs from the one at x.

    Source: Frank-Wolfe gap, arXiv 1607.00345; sign steps with noise, arXiv 1802.04434 and 2302.02589.
    """

    gap: Tensor
    average_gap: Tensor
    bound: Tensor
    noise_floor: Tensor
    smoothness: Tensor
    concavity: Tensor
    margin: Tensor
    lipschitz: Tensor
    nearest_change: Tensor
    stability_radius: Tensor
    inner_error: Tensor
    reach: Tensor
    steps: Tensor
    flipped: Tensor

    def stable_within(self, error: float | Tensor) -> Tensor:
        """Return whether an inner error of at most ``error`` (Euclidean; a number or ``(B,)``) leaves the label."""
        return self.stability_radius > error

    @property
    def stable(self) -> Tensor:
        """Return whether the exact solution of the inner problem has the found label, ``(B,)``."""
        return self.stable_within(self.inner_error)

    def summary(self) -> str:
        """Say in words what is guaranteed for how many of the samples, and what is not."""
        count, most = len(self.gap), int(self.steps.max())
        within = int((self.average_gap <= self.bound).sum())
        concave, stable = int((self.concavity > 0).sum()), int(self.stable.sum())
        lines = (
            f"{int(self.flipped.sum())} of {count} samples have another label, in at most {most} steps.",
            f"Measured: the gap of the inner problem at the found points (0: stationary) has median "
            f"{_median(self.gap)} nats; on the way there, {_median(self.average_gap)}.",
            f"Guaranteed in expectation over the noise, if the smoothness constants are no larger than estimated "
            f"(median {_median(self.smoothness)}): on the way the gap averages at most {_median(self.bound)} (median), "
            f"of which the noise makes {_median(self.noise_floor)}. In this draw that held for {within} of {count}.",
            f"Guaranteed, if the Lipschitz constants are no larger than estimated (median {_median(self.lipschitz)}): "
            f"no point within {_median(self.stability_radius)} (median) of the found one has another label. Ascents "
            "toward other labels were tried: where one changed the label, the radius ends short of that.",
            f"With that, {stable} of {count} found labels are those of the exact inner solution. Its distance is known "
            f"for {concave} of {count} samples, whose inner problem is concave as far as was seen; for the others it "
            f"is taken to be anywhere in the box.",
            "Not guaranteed: that a point is the best in the box rather than stationary, where the inner problem is "
            "not concave; and the constants, which are estimates from sampled points: a network with kinks has no "
            "smoothness constant at all.",
        )
        return "\n".join(lines)

    def rows(self, chosen: Tensor) -> Certificate:
        """Return the certificate of the samples ``chosen`` alone (indices or a bool mask)."""
        return Certificate(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


def certify(
    search: PerturbedSign,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    found: BoundaryPoints,
    trace: Trace,
    *,
    samples: int = 3,
    iterations: int = 10,
    rounds: int = 4,
    rivals: int = 4,
    pushes: int = 8,
    seed: int = 0,
) -> Certificate:
    """Certify what ``search`` found near ``x``, by the way it went.

    Args:
        search: The search.
        model: As of the search, as are the inputs and the labels.
        x: Inputs ``(B, ...)``.
        y: Labels ``(B,)``.
        found: What the search returned.
        trace: The steps of the search.
        samples: How many points of each way, and of the box at random, curvature and slopes are looked at.
        iterations: Of the power iteration for each curvature.
        rounds: Of ascents toward other labels, at most; 0 leaves the slopes to the sampled points. A round costs at
            most ``rivals * (pushes + 1)`` forward and backward passes.
        rivals: Other labels tried in each round, nearest first.
        pushes: Steps of each ascent.
        seed: Of the random points.

    Raises:
        ValueError: When the model makes several decisions a sample.
    """
    check_count("samples", samples)
    check_count("iterations", iterations)
    check_count("rounds", rounds, low=0)
    check_count("rivals", rivals)
    check_count("pushes", pushes)
    if found.logits.dim() != 2:
        raise ValueError(
            f"expected a model with one decision a sample for a certificate, but got logits {tuple(found.logits.shape)}"
        )
    points = found.inputs
    low, high = search.box(x)
    widths = (high - low).flatten(1)

    def loss(u: Tensor) -> Tensor:
        return per_sample(label_loss(model(u), y))

    with evaluating(model), torch.no_grad():
        last = curvature.input_gradient(loss, points)
        # One row a step and one for the end; a sample that stopped rests at its found point.
        way = [_spread(step.points, step.active, points) for step in trace.steps] + [points]
        slopes = [_spread(step.gradient, step.active, last) for step in trace.steps] + [last]
        outputs = [model(u) for u in way]
        losses = torch.stack([per_sample(label_loss(logits, y)) for logits in outputs])
        pulls = [step.closeness for step in trace.steps]
        pulls.append(pulls[-1])
        gaps = torch.stack([gap(g - c * (u - x), u, low, high) for u, g, c in zip(way, slopes, pulls, strict=True)])

        source = generator(seed, "certificate", device=x.device)
        on_way = sorted({round(i * (len(way) - 1) / samples) for i in range(samples + 1)})
        drawn = [torch.rand(x.shape, generator=source, device=x.device).to(x) for _ in range(samples)]
        anywhere = [low + (high - low) * share for share in drawn]
        seen = [(way[i], pulls[i]) for i in on_way] + [(u, pulls[-1]) for u in anywhere]
        spectrum = [curvature.extremes(loss, u, c, iterations=iterations, generator=source) for u, c in seen]
        slope = torch.stack([curvature.difference_slopes(model, u, found.labels) for u, _ in seen]).amax(0)
        others = [(u, model(u)) for u in anywhere] + list(zip(way, outputs, strict=True))
        met = curvature.Surroundings(slope, curvature.nearest_change(model, points, found.labels, others))
        reach = torch.maximum(high - points, points - low).flatten(1).norm(dim=1)
        met = curvature.challenge(model, points, found.labels, met, reach, rounds=rounds, rivals=rivals, steps=pushes)
    smoothness = torch.stack([s.largest for s in spectrum] + _secants(x, way, slopes, pulls)).amax(0)
    concavity = -torch.stack([s.top for s in spectrum]).amax(0)

    climb = losses[-1] - losses[0]
    total = _Sums.zeros(climb)
    for number, step in enumerate(trace.steps):
        moved = way[number + 1] - x, way[number] - x
        pull = step.closeness / 2 * (_square(moved[0]) - _square(moved[1]))
        total.add(search.update, step, widths, smoothness, ORACLE_LOSS[search.noise_distribution], gaps[number], pull)
    weight = total.weight.clamp(min=torch.finfo(x.dtype).tiny)

    lead = curvature.leads(found.logits, found.labels)
    error = (gaps[-1] / concavity.clamp(min=torch.finfo(x.dtype).tiny)).sqrt()
    return Certificate(
        gap=gaps[-1],
        average_gap=total.gaps / weight,
        bound=(climb - total.pulls + total.curvature + total.noise) / weight,
        noise_floor=total.noise / weight,
        smoothness=smoothness,
        concavity=concavity,
        margin=lead.amin(1),
        lipschitz=met.slopes.amax(1),
        nearest_change=met.changed,
        stability_radius=met.radius(lead),
        inner_error=torch.where(concavity > 0, torch.minimum(error, reach), reach),
        reach=reach,
        steps=total.count,
        flipped=found.flipped,
    )


def gap(direction: Tensor, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the Frank-Wolfe gap ``max_v <direction, v - points>`` over the box from ``low`` to ``high``, ``(B,)``.

    ``direction`` is the gradient of what is MAXIMISED; all are ``(B, ...)``. Never negative; 0 at a stationary point.

    Source: arXiv 1607.00345.
    """
    room = torch.where(direction > 0, high - points, points - low)
    return (direction.abs() * room).flatten(1).sum(1)


@dataclass
class _Sums:
    """The two sides of the bound, summed over the steps.

    A step that on average gains ``weight * gap - noise - curvature`` telescopes into
    ``sum weight * gap <= climb + sum noise + sum curvature``. For Frank-Wolfe shares s: weight s, curvature
    ``s^2 L ||w||^2 / 2``, noise ``s k c ||w||_1``. For projected steps d, which move each pixel toward its vertex by d
    or the room there is, at least the share ``min(1, d / max w)`` of it: that weight, curvature
    ``L ||min(d, w)||^2 / 2``, and noise ``k c sum min(2 d, w)``, since a wrong sign loses what the right one gains,
    and as much again. k is ``noise.ORACLE_LOSS``, c the scale of the noise, L the smoothness.
    """

    weight: Tensor
    gaps: Tensor
    curvature: Tensor
    noise: Tensor
    pulls: Tensor
    count: Tensor

    @classmethod
    def zeros(cls, like: Tensor) -> _Sums:
        zero = torch.zeros_like
        return cls(zero(like), zero(like), zero(like), zero(like), zero(like), torch.zeros_like(like).long())

    def add(
        self, update: str, step: Step, widths: Tensor, smoothness: Tensor, loss: float, gaps: Tensor, pull: Tensor
    ) -> None:
        at, w = step.active, widths[step.active]
        if update == "frank-wolfe":
            weight = torch.full_like(step.noise, step.size)
            moves, stakes = step.size * w, step.size * w
        else:
            weight = (step.size / w.amax(1)).clamp(max=1)
            moves, stakes = w.clamp(max=step.size), w.clamp(max=2 * step.size)
        self.weight[at] += weight
        self.gaps[at] += weight * gaps[at]
        self.curvature[at] += smoothness[at] / 2 * moves.square().sum(1)
        self.noise[at] += loss * step.noise * stakes.sum(1)
        self.pulls[at] += pull[at]
        self.count[at] += 1


def _secants(x: Tensor, way: list[Tensor], slopes: list[Tensor], pulls: list[float]) -> list[Tensor]:
    """Return ``||grad phi(v) - grad phi(u)|| / ||v - u||`` of each step: a curvature that sees kinks, too."""
    found = []
    for number, closeness in enumerate(pulls[:-1]):
        moved = way[number + 1] - way[number]
        turned = slopes[number + 1] - slopes[number] - closeness * moved
        length = _square(moved).sqrt()
        found.append(torch.where(length > 0, _square(turned).sqrt() / length, torch.zeros_like(length)))
    return found or [torch.zeros(len(x), dtype=x.dtype, device=x.device)]


def _spread(values: Tensor, active: Tensor, rest: Tensor) -> Tensor:
    if len(active) == len(rest):
        return values
    full = rest.clone()
    full[active] = values
    return full


def _square(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(1)


def _median(values: Tensor) -> str:
    return f"{float(values.median()):.3g}"
