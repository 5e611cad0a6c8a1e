"""Factories of terms. Each built-in distance, and each of a user's own, is one decorated function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from ..errors import check_choice, check_number
from . import distances
from .batch import GoalKind
from .objective import Reduction, Term
from .targets import Labels, Target

ANY: tuple[GoalKind, ...] = ("labels", "probabilities", "logits")


class TermFactory(Protocol):
    """Makes terms of one distance."""

    def __call__(self, *, on: str, to: Target = ..., name: str | None = None, **options: Any) -> Term:
        """A term on stream ``on`` toward ``to`` (default: the data's own labels)."""
        ...


@overload
def term(function: Callable[..., Tensor], /) -> TermFactory: ...
@overload
def term(
    function: None = None, /, *, takes: tuple[GoalKind, ...] = ..., reduction: Reduction = ...
) -> Callable[[Callable[..., Tensor]], TermFactory]: ...
def term(
    function: Callable[..., Tensor] | None = None,
    /,
    *,
    takes: tuple[GoalKind, ...] = ANY,
    reduction: Reduction = "sample",
) -> TermFactory | Callable[[Callable[..., Tensor]], TermFactory]:
    """Make a distance usable in objectives.

    The function is called as ``function(outputs, goal, **options)`` and returns one value a sample ``(B,)``
    (``reduction="batch"``: a scalar). A function without a second positional parameter has no target.

    Example:
        >>> @term
        ... def brier(logits, goal):
        ...     return (logits.softmax(1) - goal.values).square().sum(1)
        >>> objective = 0.5 * brier(on="forget", to=Uniform(10))  # doctest: +SKIP

    Raises (the factory): TypeError on an option the function does not have.
    """
    if function is None:
        return lambda decorated: _factory(decorated, takes, reduction)
    return _factory(function, takes, reduction)


def _factory(function: Callable[..., Tensor], takes: tuple[GoalKind, ...], reduction: Reduction) -> TermFactory:
    signature = inspect.signature(function)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    known = [n for n, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    needs_target = sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds) > 1
    title = function.__name__

    def make(*, on: str, to: Target | None = None, name: str | None = None, **options: Any) -> Term:
        for option in options:
            check_choice(f"option of {title}", option, known)
        target: Target | None = (to or Labels()) if needs_target else None
        if to is not None and not needs_target:
            raise TypeError(f"expected no to=: {title} has no target, but got {to}")
        shown = "".join(f", {key}={value:g}" for key, value in options.items())
        led = "" if target is None else f" -> {str(target).removesuffix('()')}"
        return Term(
            name or f"{title}({on}{led}{shown})",
            function,
            on,
            target,
            takes,
            tuple(options.items()),
            reduction,
        )

    make.__name__ = make.__qualname__ = title
    make.__doc__ = function.__doc__
    return make


cross_entropy = term(distances.cross_entropy)
mse = term(takes=("logits",))(distances.mse)
bce = term(takes=("labels", "probabilities"))(distances.bce)
_kl = term(takes=("probabilities", "logits"))(distances.kl)


def kl(*, on: str, to: Target, temperature: float = 1.0, name: str | None = None) -> Term:
    """``T^2 KL(target || outputs)`` in nats at temperature T > 0.

    Raises: ValueError on a temperature that is not positive.
    """
    check_number("temperature", temperature, low=0, open_low=True)
    return _kl(on=on, to=to, name=name, temperature=temperature)


def parameter_norm(p: float = 1.0, *, name: str | None = None) -> Term:
    """``sum |theta|^p`` over the trainable parameters, p >= 1: a term of the parameters alone.

    Raises: ValueError on p < 1.
    """
    check_number("p", p, low=1)

    def norm(parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([q.abs().pow(p).sum() for q in parameters.values()]).sum()

    return Term(name or f"parameter_norm(p={p:g})", norm, None, None, reduction="parameters")


def weight_distance(model: nn.Module, *, name: str | None = None) -> Term:
    """``sum (theta - theta_0)^2`` of the trainable parameters to those of ``model``, e.g. the starting weights.

    Raises (when evaluated): ValueError naming a trainable parameter that ``model`` does not have.
    """
    start = {key: value.detach().clone() for key, value in model.named_parameters()}

    def distance(parameters: Mapping[str, Tensor]) -> Tensor:
        unknown = sorted(set(parameters) - set(start))
        if unknown:
            raise ValueError(
                f"expected model of weight_distance to have the trainable parameters, but it lacks {unknown}"
            )
        return torch.stack([(p - start[key].to(p)).square().sum() for key, p in parameters.items()]).sum()

    return Term(name or "weight_distance", distance, None, None, reduction="parameters")
