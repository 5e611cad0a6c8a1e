"""Means of models: along a line, along an arc, of several, weighted by Fisher information.

Each returns a new model and leaves the others as they are. In memory are the models, the result and some chunks: a
merge of two needs three copies. See :mod:`.state` for what happens to buffers, :mod:`.batch_norm` for ``recalibrate``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_number
from ..modules import blank_copy, unwrapped
from ..outputs import check_finite
from ..seeding import standardized
from .batch_norm import settle
from .state import Layout, Piece, Weight, check_match, merge_into, numbered, pieces, weigher, weighers


@checked
def interpolate(a: nn.Module, b: nn.Module, t: Weight, *, recalibrate: Any = None) -> nn.Module:
    """Return ``(1 - t) a + t b``: bitwise ``a`` at 0, ``b`` at 1, and equal to ``interpolate(b, a, 1 - t)``.

    Args:
        a, b: models of one architecture.
        t: in [0, 1], or one a module: ``{"": 0.2, "head": 1.0}``, where the longest prefix of a name counts.
        recalibrate: retain data, or a task, on which the statistics of batch norm are then measured.

    Raises:
        ValueError: Naming what differs in the models, or the argument.
    """
    layout = check_match({"a": a, "b": b})
    share = weigher("t", t, layout, low=0, high=1)

    def rule(name: str, _: list[Tensor]) -> Piece:
        return _pair(*_shares(share(name)))

    return _between(a, b, layout, share, rule, recalibrate)


@checked
def slerp(
    a: nn.Module, b: nn.Module, t: Weight, *, base: nn.Module | None = None, recalibrate: Any = None
) -> nn.Module:
    """Return each parameter along the arc from ``a`` to ``b``: ``sin((1 - t) w)/sin w a + sin(t w)/sin w b``.

    ``w`` is the angle between the two tensors, each seen as one vector. Where that is 0, 180 degrees (the arc is not
    unique) or not defined, and for buffers, :func:`interpolate`. Between vectors of one length the length is kept,
    where a straight line would shorten them.

    Args:
        a, b: models of one architecture.
        t: in [0, 1], or one a module; as in :func:`interpolate`.
        base: the model both started from: the arc is then between their differences to it, whose angle is large where
            that of the weights themselves is nearly 0.
        recalibrate: as in :func:`interpolate`.

    Raises:
        ValueError: Naming what differs in the models, or the argument.
    """
    layout = check_match({"a": a, "b": b} | ({} if base is None else {"base": base}))
    share = weigher("t", t, layout, low=0, high=1)

    def rule(name: str, tensors: list[Tensor]) -> Piece:
        straight = _shares(share(name))
        if name not in layout.parameters or 0 in straight:
            return _pair(*straight)
        angle = _angle(tensors)
        sine = math.sin(angle)
        if sine < 1e-6:
            return _pair(*straight)
        left, right = (math.sin(part * angle) / sine for part in straight)
        if base is None:
            return _pair(left, right)
        return lambda x: x[2] + (left * (x[0] - x[2]) + right * (x[1] - x[2]))

    return _between(a, b, layout, share, rule, recalibrate, *([] if base is None else [base]))


@checked
def average(
    models: Sequence[nn.Module], weights: Sequence[Weight] | Weight = 1.0, *, recalibrate: Any = None
) -> nn.Module:
    """Return ``sum w_i m_i / sum w_i``: a uniform soup by default.

    Args:
        models: of one architecture.
        weights: at least 0 and not all 0; one a model, or one a module of each (see :func:`interpolate`).
        recalibrate: as in :func:`interpolate`.

    Raises:
        ValueError: Naming what differs in the models, or the argument.

    Source: model soups, arXiv 2203.05482.
    """
    layout = check_match(numbered(models))
    shares = weighers(weights, len(models), layout, low=0)

    def rule(name: str, _: list[Tensor]) -> Piece:
        return _weighted(_normalized(name, [share(name) for share in shares]))

    return _several(models, layout, dict.fromkeys((*layout.parameters, *layout.buffers), rule), recalibrate)


@checked
@standardized
def fisher_merge(
    models: Sequence[nn.Module],
    fishers: Sequence[Mapping[str, Tensor]],
    weights: Sequence[Weight] | Weight = 1.0,
    *,
    recalibrate: Any = None,
) -> nn.Module:
    """Return ``sum w_i F_i m_i / sum w_i F_i``, entry by entry: each weight from the run that is certain of it.

    Where no run has information (0), and for buffers, the plain weighted mean.

    Args:
        models: of one architecture.
        fishers: one a model, by parameter name: ``gradients.mean_squared_gradients(model, batches)``, on retain data
            for what is to be kept. Parameters that all of them leave out have no information.
        weights: at least 0 and not all 0; as in :func:`average`.
        recalibrate: as in :func:`interpolate`.

    Raises:
        ValueError: Naming what differs in the models, or a Fisher of other names or shapes, negative or not finite.

    Source: arXiv 2111.09832.
    """
    layout = check_match(numbered(models))
    shares = weighers(weights, len(models), layout, low=0)
    shapes = {name: p.shape for name, p in unwrapped(models[0]).named_parameters()}
    given = _check_fishers(fishers, len(models), shapes)

    def rule(name: str, _: list[Tensor]) -> Piece:
        weight = _normalized(name, [share(name) for share in shares])
        if name not in given:
            return _weighted(weight)
        plain = _weighted(weight)
        rows = iter(list(pieces([fisher[name] for fisher in fishers])))

        def merged(chunks: list[Tensor]) -> Tensor:
            first, others = next(rows)
            scaled = [
                w * f.to(x.device, torch.float64) for w, f, x in zip(weight, [first, *others], chunks, strict=True)
            ]
            total = torch.stack(scaled).sum(0)
            mean = torch.stack([f * x for f, x in zip(scaled, chunks, strict=True)]).sum(0) / total
            return torch.where(total > 0, mean, plain(chunks))

        return merged

    return _several(models, layout, dict.fromkeys((*layout.parameters, *layout.buffers), rule), recalibrate)


@standardized
def _between(
    a: nn.Module,
    b: nn.Module,
    layout: Layout,
    share: Any,
    rule: Any,
    recalibrate: Any,
    *others: nn.Module,
) -> nn.Module:
    """Merge two models of which each tensor is taken whole where its share is 0 or 1."""
    names = (*layout.parameters, *layout.buffers)
    shares = {_shares(share(name))[1] for name in names}
    if shares <= {0.0} or shares == {1.0}:
        taken = b if shares == {1.0} else a
        return settle(blank_copy(taken), [taken], recalibrate)
    out = blank_copy(a)
    merge_into(out, [a, b, *others], layout, dict.fromkeys(names, rule), [0, 1])
    return settle(out, [a, b], recalibrate)


@standardized
def _several(models: Sequence[nn.Module], layout: Layout, rules: Any, recalibrate: Any) -> nn.Module:
    out = blank_copy(models[0])
    merge_into(out, models, layout, rules, range(len(models)))
    return settle(out, models, recalibrate)


def _shares(t: float) -> tuple[float, float]:
    # 1 - (1 - t) rather than t: then swapping the models and the shares gives the same two numbers.
    return 1 - t, 1 - (1 - t)


def _pair(left: float, right: float) -> Piece:
    if right == 0:
        return lambda x: x[0]  # not 1 x + 0 y, which loses the sign of a zero
    if left == 0:
        return lambda x: x[1]
    return lambda x: left * x[0] + right * x[1]


def _weighted(weights: Sequence[float]) -> Piece:
    return lambda x: torch.stack([w * chunk for w, chunk in zip(weights, x, strict=True)]).sum(0)


def _normalized(name: str, weights: list[float]) -> list[float]:
    total = sum(weights)
    if total <= 0:
        raise ValueError(f"expected weights of a positive sum, but those of {name!r} are {weights}")
    return [weight / total for weight in weights]


def _angle(tensors: list[Tensor]) -> float:
    """Interpolate between the first two tensors, or between their differences to a third."""
    dot = left = right = 0.0
    for first, others in pieces(tensors):
        x, y, *base = (chunk.to(torch.float64) for chunk in (first, *others))
        if base:
            x, y = x - base[0].to(x.device), y - base[0].to(y.device)
        y = y.to(x.device)
        dot, left, right = dot + float((x * y).sum()), left + float((x * x).sum()), right + float((y * y).sum())
    scale = math.sqrt(left * right)
    return math.acos(max(-1.0, min(1.0, dot / scale))) if scale > 0 else 0.0


def _check_fishers(
    fishers: Sequence[Mapping[str, Tensor]], count: int, shapes: Mapping[str, torch.Size]
) -> frozenset[str]:
    if len(fishers) != count:
        raise ValueError(f"expected fishers to hold {count}, one a model, but got {len(fishers)}")
    for i, fisher in enumerate(fishers):
        if fisher.keys() != fishers[0].keys():
            odd = sorted(fisher.keys() ^ fishers[0].keys())
            raise ValueError(f"expected all fishers to name the same parameters, but {odd[0]!r} is not in all of them")
        for name, value in fisher.items():
            if name not in shapes or value.shape != shapes[name]:
                wanted = tuple(shapes[name]) if name in shapes else "no such parameter"
                raise ValueError(f"expected fishers[{i}][{name!r}] to be {wanted}, but got {tuple(value.shape)}")
            check_finite(f"fishers[{i}][{name!r}]", value)
            check_number(f"the least of fishers[{i}][{name!r}]", float(value.min()) if value.numel() else 0.0, low=0)
    return frozenset(fishers[0])
