"""Choosing layers: by name, part, pattern or module, and never one whose adapter could not act or be merged."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable

from torch import Tensor, nn

from ..arguments import checked
from ..heads import head_name
from ..modules import check_model
from ..stages import LAST, parameters_of
from .activity import unreached
from .layers import ADAPTABLE, kind_of
from .structure import plain_name, plain_names

Where = str | nn.Module | Iterable[str | nn.Module]

EXPECTED = "expected where to choose convolutions or linear layers"


@checked
def select(model: nn.Module, where: Where, *, example: Tensor | None = None) -> list[str]:
    """Return the names of the layers that get an adapter from ``where``, in order (see :func:`attach`).

    Raises:
        ValueError: When a part of ``where`` chooses no layer, or names one that can have no adapter.
        TypeError: When a part of ``where`` is neither a name nor a module.
    """
    return choose(model, where, example)[0]


@checked
def skipped(model: nn.Module, where: Where = "all", *, example: Tensor | None = None) -> dict[str, str]:
    """Return why each layer that ``where`` covers without naming it gets no adapter, by the layer's name.

    Raises:
        ValueError: When a part of ``where`` chooses no layer, or names one that can have no adapter.
        TypeError: When a part of ``where`` is neither a name nor a module.
    """
    return choose(model, where, example)[1]


def choose(
    model: nn.Module, where: Where, example: Tensor | None = None, apart: Iterable[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Return the layers that ``where`` chooses, in order, and why others that it covers are skipped.

    Layers of the modules ``apart``, and of those that an adapter replaces already, are left out of both.
    """
    modules = plain_names(check_model(model))
    replaced = [name for config in getattr(model, "peft_config", {}).values() for name in config.modules_to_save or ()]
    apart = [*apart, *replaced]
    layers: dict[str, nn.Module] = {key: module for key, module in modules.items() if isinstance(module, ADAPTABLE)}
    parts = list(where) if isinstance(where, Iterable) and not isinstance(where, (str, nn.Module)) else [where]
    covered: set[str] = set()
    named: set[str] = set()
    for part in parts:
        if not isinstance(part, (str, nn.Module)):
            raise TypeError(f"expected where to hold names and modules, but got {type(part).__name__}: {part!r}")
        found = _covered(model, layers, part)
        if not found:
            raise ValueError(f"{EXPECTED}, but {_told(part)} chooses none{_kind_told(modules, part)}")
        covered |= found
        named |= {key for key in found if part == key or getattr(part, "base_layer", part) is layers[key]}
    outside = [key for key in layers if key in covered and not any(f"{key}.".startswith(f"{name}.") for name in apart)]
    counts = _counts(model)
    reasons = {key: reason for key in outside if (reason := _obstacle(layers[key], *counts))}
    if example is not None:
        for key in unreached(model, [key for key in outside if key not in reasons], example):
            reasons[key] = "the output does not depend on it"
    for key in outside:
        if key in named and key in reasons:
            raise ValueError(f"expected where to name layers that can have an adapter, but {key!r}: {reasons[key]}")
    chosen = [key for key in outside if key not in reasons]
    if not chosen:
        why = f": {summary(reasons)}" if reasons else ": those it covers are replaced as a whole" if covered else ""
        raise ValueError(f"{EXPECTED}, but {_told(where)} chooses none{why}")
    return chosen, reasons


def summary(reasons: dict[str, str], at_most: int = 3) -> str:
    """Return the first few of the layers with their reasons, and how many more there are."""
    shown = "; ".join(f"{key!r}: {reason}" for key, reason in list(reasons.items())[:at_most])
    return shown + (f"; and {len(reasons) - at_most} more" if len(reasons) > at_most else "")


def _covered(model: nn.Module, layers: dict[str, nn.Module], part: str | nn.Module) -> set[str]:
    if isinstance(part, nn.Module):
        members = {id(module) for module in part.modules()}
        return {key for key, layer in layers.items() if id(layer) in members}
    if part == "all":
        return set(layers)
    if LAST.fullmatch(part):
        inside = {f"{plain_name(name)}." for name in parameters_of(model, part)}
        return {key for key in layers if any(name.startswith(f"{key}.") for name in inside)}
    if part == "head":
        head = plain_name(head_name(model))
        return {key for key in layers if key == head or key.startswith(f"{head}.")}
    return {key for key in layers if f".{part}." in f".{key}." or fnmatch.fnmatch(key, part)}


def _told(where: Where) -> str:
    return f"a {type(where).__name__}" if isinstance(where, nn.Module) else repr(where)


def _kind_told(modules: dict[str, nn.Module], part: str | nn.Module) -> str:
    """Return what a module is that was named in vain."""
    if isinstance(part, nn.Module):
        return "" if any(part is module for module in modules.values()) else ": it is no module of this model"
    return f": it is a {type(modules[part]).__name__}" if part in modules else ""


def _counts(model: nn.Module) -> tuple[Counter[int], Counter[int]]:
    """Return how many modules hold each module, and each parameter, by their ids."""
    owners = list(model.modules())
    return (
        Counter(id(child) for owner in owners for child in owner._modules.values() if child is not None),
        Counter(id(value) for owner in owners for value in owner._parameters.values() if value is not None),
    )


def _obstacle(layer: nn.Module, places: Counter[int], shares: Counter[int]) -> str | None:
    """Return why a layer can have no adapter; None where it can."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return "its weight is computed (by weight or spectral norm, or pruning) or a buffer"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}"
    if getattr(layer, "groups", 1) > 1:
        return f"a {kind_of(layer).__name__} of {layer.groups} groups, into which no update of low rank merges"
    if shares[id(weight)] > 1:
        return "its weight is tied to another module's"
    if places[id(layer)] > 1:
        return "it is registered more than once"
    return None
