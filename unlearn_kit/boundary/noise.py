"""The perturbations of the perturbed sign: four symmetric distributions, drawn from a given generator.

With each come the sign it makes of a number on average, and what it costs a linear oracle at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import checked
from ..errors import check_choice, check_number


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
    """Draw perturbations ``(steps, *shape)`` of scale 1 from one of ``DISTRIBUTIONS``."""
    return DISTRIBUTIONS[distribution]((steps, *shape), generator)


def _erf(t: Tensor) -> Tensor:
    return torch.erf(t / math.sqrt(2))


def _clip(t: Tensor) -> Tensor:
    return t.clamp(-1, 1)


def _exponential_tails(t: Tensor) -> Tensor:
    # Each half by itself: sgn(t) (1 - exp(-|t|)) has a derivative at 0 that autograd takes for 0.
    zero, positive = torch.zeros_like(t), t >= 0
    return torch.expm1(torch.where(positive, zero, t)) - torch.expm1(-torch.where(positive, t, zero))


def _arctan(t: Tensor) -> Tensor:
    return torch.atan(t) * (2 / math.pi)


_EXPECTED: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": _erf,
    "uniform": _clip,
    "laplace": _exponential_tails,
    "cauchy": _arctan,
}

# max over u >= 0 of u P(z > u): times the scale of the noise, the most that one coordinate's wrong sign costs on
# average. Of a normal z at u = .752, uniform at 1/2, Laplace at 1, Cauchy in the limit.
ORACLE_LOSS: dict[str, float] = {
    "normal": 0.16997120747990369,
    "uniform": 1 / 8,
    "laplace": 1 / (2 * math.e),
    "cauchy": 1 / math.pi,
}


@checked
def expected_sign(distribution: str, values: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``E sign(values + scale z)`` for z of one of ``DISTRIBUTIONS``, in [-1, 1], of the shape of ``values``.

    Differentiable in both; ``scale`` must be above 0 and broadcast. Normal: ``erf(g / (sqrt 2 c))``; uniform:
    ``clip(g / c, -1, 1)``; Laplace: ``sgn(g) (1 - exp(-|g| / c))``; Cauchy: ``(2 / pi) arctan(g / c)``.

    Raises:
        ValueError: On an unknown distribution, and on a scale that is not above 0 or does not broadcast.
        TypeError: When an argument is of another type, by its name.
    """
    check_choice("distribution", distribution, _EXPECTED)
    if isinstance(scale, Tensor):
        check_broadcast("scale", scale, values)
    else:
        check_number("scale", scale, low=0, open_low=True)
    return _EXPECTED[distribution](values / scale)


def check_broadcast(name: str, value: Tensor, like: Tensor) -> None:
    """Refuse a tensor that does not broadcast to the shape of ``like``.

    Raises:
        ValueError: When it does not, by its name.
    """
    sizes = (1,) * (like.dim() - value.dim()) + tuple(value.shape)
    if value.dim() > like.dim() or any(size not in (1, whole) for size, whole in zip(sizes, like.shape, strict=True)):
        raise ValueError(f"expected {name} to broadcast to {tuple(like.shape)}, but got {tuple(value.shape)}")
