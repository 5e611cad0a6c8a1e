"""The perturbations of the perturbed sign: four symmetric distributions, drawn from a given generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


def _laplace(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    magnitude = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return magnitude * _uniform(shape, generator).sign()


def _cauchy(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.tan(math.pi / 2 * _uniform(shape, generator))


# Scale 1 each: N(0, 1), U(-1, 1), Laplace(0, 1), Cauchy(0, 1).
DISTRIBUTIONS: dict[str, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "normal": _normal,
    "uniform": _uniform,
    "laplace": _laplace,
    "cauchy": _cauchy,
}


def draw(distribution: str, steps: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Perturbations ``(steps, *shape)`` of scale 1 from one of ``DISTRIBUTIONS``."""
    return DISTRIBUTIONS[distribution]((steps, *shape), generator)
