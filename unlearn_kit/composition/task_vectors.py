"""What each run changed, added up: task arithmetic, TIES, DARE, NegMerge.

A task vector is a run minus the base it started from. Each method is a way to thin out single task vectors, and a way
to bring them together; buffers are neither thinned out nor elected, they are ``base + sum w_i (m_i - base)``, variances
no smaller than the least of all the models'. Each returns a new model and leaves the others as they are; in memory are
the models, the result and some chunks. See :mod:`.batch_norm` for ``recalibrate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_number
from ..modules import blank_copy
from ..seeding import standardized
from .batch_norm import settle
from .sparsify import keep_largest, keep_random
from .state import Layout, Piece, Weight, check_match, merge_into, numbered, weighers

Thin = Callable[[str], Callable[[list[Tensor]], list[Tensor]]]  # a tensor's name -> task vectors, thinned out
Meet = Callable[[list[Tensor], Sequence[float]], Tensor]  # task vectors and their weights -> one


@checked
def task_arithmetic(
    base: nn.Module, models: Sequence[nn.Module], weights: Sequence[Weight] | Weight = 1.0, *, recalibrate: Any = None
) -> nn.Module:
    """Return ``base + sum w_i (m_i - base)``; a negative weight takes what a run learnt away again.

    Args:
        base: the model all runs started from.
        models: the runs.
        weights: any numbers; one for all, one a model, or one a module of each (``{"": 0.5, "head": 1.0}``, where the
            longest prefix of a name counts).
        recalibrate: retain data, or a task, on which the statistics of batch norm are then measured.

    Raises:
        ValueError: Naming what differs in the models, or the argument.

    Source: arXiv 2212.04089.
    """
    return _merge(base, models, weights, None, _sum, recalibrate)


@checked
def ties(
    base: nn.Module,
    models: Sequence[nn.Module],
    weights: Sequence[Weight] | Weight = 1.0,
    density: float = 0.2,
    *,
    scale: float = 1.0,
    per_tensor: bool = False,
    recalibrate: Any = None,
) -> nn.Module:
    """Trim each task vector, elect a sign for each entry, and average those that agree with it.

    An entry of the result is ``base + scale sum w_i v_i / sum |w_i|`` over the runs whose ``w_i v_i`` has the sign of
    the sum over all runs; 0 where that sum is 0. At density 1 nothing is trimmed, and runs that agree everywhere give
    their weighted mean.

    Args:
        base, models, weights, recalibrate: as in :func:`task_arithmetic`; weights say how much each run counts, not how
            far the base is moved, which is ``scale``.
        density: share in (0, 1] of the entries of each task vector that are kept: those of largest magnitude, over all
            parameters together (and every one that is as large as the last of them).
        scale: of the merged task vector.
        per_tensor: Keep that share of each parameter by itself, so that a layer whose weights move little keeps its
            part: of all together, small ones may be trimmed whole.

    Raises:
        ValueError: Naming what differs in the models, or the argument.

    Source: arXiv 2306.01708.
    """
    check_number("scale", scale)
    check_number("density", density, low=0, high=1, open_low=True)

    def meet(vectors: list[Tensor], shares: Sequence[float]) -> Tensor:
        return scale * _elected(vectors, shares)

    return _merge(
        base, models, weights, lambda layout: keep_largest(base, models, layout, density, per_tensor), meet, recalibrate
    )


@checked
def dare(
    base: nn.Module,
    models: Sequence[nn.Module],
    weights: Sequence[Weight] | Weight = 1.0,
    density: float = 0.5,
    seed: int = 0,
    *,
    elect_signs: bool = False,
    scale: float = 1.0,
    recalibrate: Any = None,
) -> nn.Module:
    """Drop entries of each task vector at random, divide the others by ``density``, and add up.

    On average over seeds it is :func:`task_arithmetic`, and at density 1 it is that bit for bit.

    Args:
        base, models, weights, recalibrate: as in :func:`task_arithmetic`.
        density: the chance in (0, 1] that an entry is kept; drawn for each run and entry by itself.
        seed: of the draws, which depend on nothing else but the place of a run and the name of a tensor.
        elect_signs: bring the runs together as :func:`ties` does.
        scale: of the merged task vector.

    Raises:
        ValueError: Naming what differs in the models, or the argument.

    Source: arXiv 2311.03099.
    """
    check_number("scale", scale)
    check_number("density", density, low=0, high=1, open_low=True)
    together = _elected if elect_signs else _sum

    def meet(vectors: list[Tensor], shares: Sequence[float]) -> Tensor:
        return scale * together(vectors, shares)

    return _merge(base, models, weights, lambda _: keep_random(len(models), density, seed), meet, recalibrate)


@checked
def neg_merge(
    base: nn.Module, models: Sequence[nn.Module], weight: Weight = 1.0, *, recalibrate: Any = None
) -> nn.Module:
    """Return ``base + weight c``: ``c`` is the mean of the task vectors where all runs agree in sign, and 0 elsewhere.

    With runs that unlearn, ``weight`` 1 goes where all of them go. With runs trained *on* the forget data, as
    published, a negative weight takes away what all of them learnt.

    Args:
        base, models, recalibrate: as in :func:`task_arithmetic`; at least two runs, such as one with several settings.
        weight: any number, or one a module.

    Raises:
        ValueError: Naming what differs in the models, or the argument.

    Source: arXiv 2410.05583.
    """
    numbered(models, least=2)
    if not isinstance(weight, Mapping):
        check_number("weight", weight)

    def meet(vectors: list[Tensor], shares: Sequence[float]) -> Tensor:
        stacked = torch.stack(vectors)
        agree = (stacked > 0).all(0) | (stacked < 0).all(0)
        return torch.where(agree, shares[0] * stacked.mean(0), 0.0)

    return _merge(base, models, weight, None, meet, recalibrate, buffer_share=1 / len(models))


def _sum(vectors: list[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([w * v for w, v in zip(weights, vectors, strict=True)]).sum(0)


def _elected(vectors: list[Tensor], weights: Sequence[float]) -> Tensor:
    weighted = torch.stack([w * v for w, v in zip(weights, vectors, strict=True)])
    agree = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    sizes = weighted.new_tensor([abs(w) for w in weights]).view(-1, *[1] * vectors[0].dim())
    return (weighted * agree).sum(0) / (sizes * agree).sum(0).clamp(min=torch.finfo(torch.float64).tiny)


@standardized
def _merge(
    base: nn.Module,
    models: Sequence[nn.Module],
    weights: Sequence[Weight] | Weight,
    thinning: Callable[[Layout], Thin] | None,
    meet: Meet,
    recalibrate: Any,
    *,
    buffer_share: float = 1.0,
) -> nn.Module:
    layout = check_match(numbered(models, base))
    shares = weighers(weights, len(models), layout)
    thin = None if thinning is None else thinning(layout)

    def parameter(name: str, _: list[Tensor]) -> Piece:
        own, thinned = [share(name) for share in shares], None if thin is None else thin(name)

        def piece(chunks: list[Tensor]) -> Tensor:
            vectors = [chunk - chunks[0] for chunk in chunks[1:]]
            return chunks[0] + meet(vectors if thinned is None else thinned(vectors), own)

        return piece

    def buffer(name: str, _: list[Tensor]) -> Piece:
        own = [buffer_share * share(name) for share in shares]

        def piece(chunks: list[Tensor]) -> Tensor:
            moved = chunks[0] + _sum([chunk - chunks[0] for chunk in chunks[1:]], own)
            # A sum with negative weights may fall below 0, where no variance is.
            return torch.maximum(moved, torch.stack(chunks).amin(0)) if name in layout.variances else moved

        return piece

    out = blank_copy(base)
    rules = dict.fromkeys(layout.parameters, parameter) | dict.fromkeys(layout.buffers, buffer)
    merge_into(out, [base, *models], layout, rules, range(len(models) + 1))
    return settle(out, [base, *models], recalibrate)
