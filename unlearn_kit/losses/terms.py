"""Factories of terms. Each built-in distance, and each of a user's own, is one decorated function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from ..arguments import check_type, checked
from ..errors import check_choice, check_number
from . import distances, overlap
from .batch import GoalKind
from .objective import Reduction, Term
from .targets import Labels, Target

ANY: tuple[GoalKind, ...] = ("labels", "probabilities", "logits")


class TermFactory(Protocol):
    """Makes terms of one distance."""

    def __call__(self, *, on: str, to: Target = ..., name: str | None = None, **options: Any) -> Term:
        """Return a term on stream ``on`` toward ``to`` (default: the data's own labels)."""
        ...


@checked
@overload
def term(function: Callable[..., Tensor], /) -> TermFactory: ...
@checked
@overload
def term(
    function: None = None, /, *, takes: tuple[GoalKind, ...] = ..., reduction: Reduction = ...
) -> Callable[[Callable[..., Tensor]], TermFactory]: ...
@checked
def term(
    function: Callable[..., Tensor] | None = None,
    /,
    *,
    takes: tuple[GoalKind, ...] = ANY,
    reduction: Reduction = "sample",
) -> TermFactory | Callable[[Callable[..., Tensor]], TermFactory]:
    """Make a distance usable in objectives.

    The function is called as ``function(outputs, goal, **options)`` and returns one value a sample ``(B,)``
    (``reduction="batch"``: a scalar). Its parameters after the first two, and its keyword-only ones, are options of the
    factory. A function without a second positional parameter has no target. With ``reduction="forward"`` it is called
    as ``function(forward, batch, **options)``, where ``forward(inputs)`` are the outputs of the model in training, and
    has no target either.

    Example:
        >>> from unlearn_kit import losses as L
        >>> @L.term(takes=("probabilities",))
        ... def brier(logits, goal):
        ...     return (logits.softmax(1) - goal.values).square().sum(1)
        >>> print(0.5 * brier(on="forget", to=L.Uniform(10)))
        0.5 * brier(forget -> Uniform(num_classes=10))

    Raises (the factory): ValueError on an option the function does not have; TypeError on one that it needs and does
        not get, and on a target it has no use for.
    """
    if function is None:
        return lambda decorated: _factory(decorated, takes, reduction)
    return _factory(function, takes, reduction)


def _factory(function: Callable[..., Tensor], takes: tuple[GoalKind, ...], reduction: Reduction) -> TermFactory:
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    choices = [*places[2:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    known = [p.name for p in choices]
    needed = [p.name for p in choices if p.default is p.empty]
    needs_target = len(places) > 1 and reduction != "forward"
    title = function.__name__

    def make(*, on: str, to: Target | None = None, name: str | None = None, **options: Any) -> Term:
        check_type("on", on, str)
        check_type("to", to, Target | None)
        check_type("name", name, str | None)
        for option in options:
            check_choice(f"option of {title}", option, known)
        missing = [option for option in needed if option not in options]
        if missing:
            raise TypeError(f"expected {title} to be given its options {needed}, but got no {missing}")
        target: Target | None = (Labels() if to is None else to) if needs_target else None
        if to is not None and not needs_target:
            raise TypeError(f"expected no to=: {title} has no target, but got {to}")
        shown = "".join(f", {key}={_shown(value)}" for key, value in options.items())
        led = "" if target is None else f" -> {_shown(target).removesuffix('()')}"
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


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    # A name tells terms and runs apart: an address would be another in every process.
    return type(value).__name__ if type(value).__repr__ is object.__repr__ else str(value)


def _weighted(factory: TermFactory) -> TermFactory:
    """Return a factory that looks at class weights when the term is made."""

    @functools.wraps(factory)
    def make(*, on: str, to: Target | None = None, name: str | None = None, **options: Any) -> Term:
        for option in ("weight", "pos_weight"):
            weights = options.pop(option, None)
            if weights is not None:
                options[option] = distances.check_weights(option, weights)
        return factory(on=on, name=name, **({} if to is None else {"to": to}), **options)

    return make


cross_entropy = _weighted(term(distances.cross_entropy))
mse = term(takes=("logits",))(distances.mse)
bce = _weighted(term(takes=("labels", "probabilities"))(distances.bce))
_kl = term(takes=("probabilities", "logits"))(distances.kl)
dice = _weighted(term(takes=("labels", "probabilities"), reduction="batch")(overlap.dice))
dice_bce = _weighted(term(takes=("labels", "probabilities"), reduction="batch")(overlap.dice_bce))


@checked
def kl(*, on: str, to: Target, temperature: float = 1.0, name: str | None = None) -> Term:
    """Return ``T^2 KL(target || outputs)`` in nats at temperature T > 0.

    Raises:
        ValueError: On a temperature that is not positive.
    """
    check_number("temperature", temperature, low=0, open_low=True)
    # At 1 it does nothing, and the formula is easier to read without it.
    options = {} if temperature == 1 else {"temperature": temperature}
    return _kl(on=on, to=to, name=name, **options)


@checked
def parameter_norm(p: float = 1.0, *, name: str | None = None) -> Term:
    """Return ``sum |theta|^p`` over the trainable parameters, p >= 1: a term of the parameters alone.

    Raises:
        ValueError: On p < 1.
    """
    check_number("p", p, low=1)

    def norm(parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([q.abs().pow(p).sum() for q in parameters.values()]).sum()

    return Term(name or f"parameter_norm(p={p:g})", norm, None, None, reduction="parameters")


@checked
def weight_distance(model: nn.Module, *, name: str | None = None) -> Term:
    """Return ``sum (theta - theta_0)^2`` of the trainable parameters to those of ``model``, e.g. the starting weights.

    Raises (when evaluated): ValueError naming a trainable parameter that ``model`` does not have.
    """
    start = {key: value.detach().clone() for key, value in model.named_parameters()}

    def distance(parameters: Mapping[str, Tensor]) -> Tensor:
        unknown = sorted(set(parameters) - set(start))
        if unknown:
            raise ValueError(
                f"expected model of weight_distance to have the trainable parameters, but it lacks {unknown}"
            )
        for key, p in parameters.items():
            start[key] = start[key].to(p.device)  # Once: later this is a look-up.
        return torch.stack([(p - start[key]).square().sum() for key, p in parameters.items()]).sum()

    return Term(name or "weight_distance", distance, None, None, reduction="parameters")
