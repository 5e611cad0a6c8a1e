"""How far each sample is from where the model's label changes, along the path that a search takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import check_number
from ..logits import giving_logits
from ..modules import evaluating
from ..outputs import predicted_labels
from .noise import draw

if TYPE_CHECKING:
    from .search import PerturbedSign

COARSE = 8  # radii tried from small to large, each half the next


class BoundaryRadii(NamedTuple):
    """How far samples are from a change of label.

    Attributes:
        radii: The smallest radius at which the label is not y, ``(B,)``, in pixel units, to the tolerance; 0 for
            samples whose label differs by itself, and the search's own radius for those that keep theirs up to there.
        labels: The label at that radius, ``(B,)`` int64.
        flipped: Where it is not y, ``(B,)`` bool.
    """

    radii: Tensor
    labels: Tensor
    flipped: Tensor


def boundary_radii(
    search: PerturbedSign, model: nn.Module, x: Tensor, y: Tensor, *, tolerance: float = 1e-3
) -> BoundaryRadii:
    """Return the smallest radius at which ``search`` finds a label other than y, by bisection of all samples at once.

    Radii are tried from small to large, doubling; the first that changes the label and the last that does not are then
    bisected. At the radius that is returned the label is another, and at one less by ``tolerance`` it is y. A search
    with noise takes one draw for all radii; step sizes are in proportion to the radius.

    Args:
        search: The inner problem; its radius is the largest that is tried.
        model: The original model, which returns logits ``(B, C)``.
        x: Inputs ``(B, ...)`` within the search's bounds.
        y: Labels ``(B,)``.
        tolerance: In pixel units, above 0.

    Raises:
        ValueError: On a tolerance or a radius of the search that is not above 0; as ``PerturbedSign.search``.
        TypeError: As ``PerturbedSign.search``.
    """
    check_number("tolerance", tolerance, low=0, open_low=True)
    check_number("radius of the search", search.radius, low=0, open_low=True)
    if y.dim() != 1:
        raise ValueError(f"expected y to hold one label a sample, but got shape {tuple(y.shape)}")
    labels_at = _labels_at(search, model, x, y)
    with torch.no_grad(), giving_logits(model), evaluating(model):
        labels = predicted_labels(model(x))
    low, high = torch.zeros(len(x), device=x.device), torch.full((len(x),), search.radius, device=x.device)
    flipped = labels != y
    high[flipped] = 0.0
    for place in reversed(range(COARSE)):
        open_ = (~flipped).nonzero().flatten()
        radius = torch.full((len(open_),), search.radius / 2**place, device=x.device)
        _try(labels_at, open_, radius, y, low, high, labels, flipped)
    while len(open_ := (flipped & (high - low > tolerance)).nonzero().flatten()):
        _try(labels_at, open_, (low[open_] + high[open_]) / 2, y, low, high, labels, flipped)
    return BoundaryRadii(high, labels, flipped)


LabelsAt = Callable[[Tensor, Tensor], Tensor]


def _try(
    labels_at: LabelsAt,
    at: Tensor,
    radius: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    labels: Tensor,
    flipped: Tensor,
) -> None:
    """Narrow the intervals of the samples ``at`` by whether their label changes at ``radius``, in place."""
    if len(at) == 0:
        return
    found = labels_at(at, radius)
    changed = found != y[at]
    high[at[changed]], labels[at[changed]], flipped[at[changed]] = radius[changed], found[changed], True
    low[at[~changed]] = radius[~changed]


def _labels_at(search: PerturbedSign, model: nn.Module, x: Tensor, y: Tensor) -> LabelsAt:
    """Return a function of positions and radii, both ``(b,)``, that gives the labels the search ends at."""
    z = None
    if not search.deterministic:
        source = torch.Generator().manual_seed(search.seed or 0)
        z = draw(search.noise_distribution, search.steps, tuple(x.shape), source).to(x)
    if search.steps > 1 or search.step_size is not None:
        return lambda at, radius: (
            search.search(model, x[at], y[at], perturbations=None if z is None else z[:, at], radii=radius).labels
        )
    # Of a single step the direction is the same at every radius: one gradient serves all.
    far = search.search(model, x, y, perturbations=z).inputs
    sign = (far - x).sign()

    def one_step(at: Tensor, radius: Tensor) -> Tensor:
        low, high = search.box(x[at], radius.reshape(-1, *[1] * (x.dim() - 1)))
        points = torch.where(sign[at] > 0, high, torch.where(sign[at] < 0, low, x[at]))
        with torch.no_grad(), giving_logits(model), evaluating(model):
            return predicted_labels(model(points))

    return one_step
