"""Conjugate gradients for many small systems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Tensor, *, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve ``A v = b`` for the symmetric positive definite ``A`` of each sample.

    Args:
        apply: Returns ``A v`` for ``v`` of the shape of ``b``, each sample by itself.
        b: Right sides ``(B, ...)``.
        tolerance: The largest residual, relative to the right side (Euclidean).
        iterations: The most iterations.

    Returns:
        Solutions of the shape of ``b``, and which of them were found, ``(B,)`` bool: not those of a system that is not
        positive definite, or did not converge.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1)

    def per(values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (b.dim() - 1))

    v, r = torch.zeros_like(b), b.clone()
    p, rr = r, dot(b, b)
    wanted = tolerance**2 * rr
    indefinite = torch.zeros_like(rr, dtype=torch.bool)
    for _ in range(iterations):
        going = (rr > wanted) & ~indefinite
        if not going.any():
            break
        q = apply(p)
        curvature = dot(p, q)
        indefinite |= going & (curvature <= 0)
        going &= curvature > 0
        step = torch.where(going, rr / torch.where(going, curvature, 1.0), 0.0)
        v, r = v + per(step) * p, r - per(step) * q
        after = dot(r, r)
        turn = torch.where(going, after / torch.where(going, rr, 1.0), 0.0)
        p = torch.where(per(going), r + per(turn) * p, p)
        rr = torch.where(going, after, rr)
    return v, (rr <= wanted) & ~indefinite
