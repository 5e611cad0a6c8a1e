"""Which adapters act, and how strongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..arguments import checked
from ..errors import check_number
from ..modules import blank_copy
from ..seeding import standardized
from .structure import activate, adapted_layers, check_adapted, check_names, is_adapted, plain_name


@checked
@contextmanager
def only(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """Let just the adapters ``names`` act inside the block; what acted before acts again after it.

    Raises:
        ValueError: When an adapter is unknown.
        TypeError: When the model has no adapters.
    """
    adapted = check_names(model, names)
    before = list(adapted.base_model.active_adapters)
    was_on = is_on(adapted)
    gradients = [(p, p.requires_grad) for p in adapted.parameters()]
    try:
        if names:
            adapted.base_model.enable_adapter_layers()
            activate(adapted, list(names))
        else:
            adapted.base_model.disable_adapter_layers()
            # torch multiplies in another order where a weight takes gradients, even under no_grad.
            flags = getattr(adapted, "original_flags", {})
            for key, parameter in adapted.named_parameters():
                parameter.requires_grad_(flags.get(plain_name(key), False))
        yield model
    finally:
        adapted.base_model.enable_adapter_layers()
        activate(adapted, before)
        if not was_on:
            adapted.base_model.disable_adapter_layers()
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)


@checked
def switched_off(model: nn.Module) -> Any:
    """Let no adapter act inside the block: the original function returns, bit for bit.

    Its parameters take gradients there as they did when the first adapter was attached; no adapter's does.

    Raises:
        TypeError: When the model has no adapters.
    """
    return only(model, ())


@checked
def switch_(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Let just the adapters ``names`` act from now on, added up in the order they were attached; none: the original.

    Changes and returns ``model``; those that act take gradients, and the original's weights stay frozen. See
    :func:`only` for a while.

    Raises:
        ValueError: When an adapter is unknown.
        TypeError: When the model has no adapters.
    """
    adapted = check_names(model, names)
    ordered = [name for name in adapted.peft_config if name in names]
    adapted.base_model.enable_adapter_layers()
    if ordered:
        activate(adapted, ordered)
    else:
        adapted.base_model.disable_adapter_layers()
    return model


@checked
def is_on(model: nn.Module) -> bool:
    """Return whether adapters act at all: False inside ``switched_off``.

    Raises:
        TypeError: When the model has no adapters.
    """
    return not any(layer.disable_adapters for layer in adapted_layers(check_adapted(model)))


@checked
def scale(model: nn.Module, factor: float, name: str = "default") -> nn.Module:
    """Return a copy in which the adapter ``name`` acts ``factor`` times as strongly: 0 not at all, -1 in reverse.

    Modules the adapter replaces move along the line from the original's weights.

    Raises:
        ValueError: When the adapter is unknown, or the factor is not finite.
    """
    from peft.utils import ModulesToSaveWrapper

    check_number("factor", factor)
    scaled: nn.Module = blank_copy(check_names(model, [name]))
    for layer in adapted_layers(scaled):
        if name in layer.scaling:
            layer.scaling[name] *= factor
    for module in scaled.modules():
        if isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            start = dict(module.original_module.named_parameters())
            with torch.no_grad():
                for key, weight in module.modules_to_save[name].named_parameters():
                    weight.copy_(start[key] + factor * (weight - start[key]))
    return scaled


@checked
def negate(model: nn.Module, name: str = "default") -> nn.Module:
    """Return a copy in which the adapter ``name`` acts in reverse: :func:`scale` by -1."""
    return scale(model, -1.0, name)


@checked
@standardized
def merge(model: nn.Module) -> nn.Module:
    """Return a plain module with the adapters that act added into its weights; no longer reversible.

    Its parameters take gradients as those of the original did.

    Raises:
        TypeError: When the model has no adapters.
    """
    if not is_on(check_adapted(model)):
        return without_adapters(model)  # peft would merge what acted before it was switched off
    adapted: Any = blank_copy(model)
    return _with_flags(adapted.merge_and_unload(), model)


def without_adapters(model: nn.Module) -> nn.Module:
    """Return a copy of the original inside an adapted model.

    Raises:
        TypeError: When the model has no adapters.
    """
    from peft.utils import ModulesToSaveWrapper

    held: Any = blank_copy(check_adapted(model))
    for module in held.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.set_adapter([])  # or peft would leave the adapter's own copy of the module in the place of it
    return _with_flags(held.unload(), model)


def _with_flags(original: nn.Module, adapted: nn.Module) -> nn.Module:
    """Let parameters take gradients as they did before adapters were attached."""
    flags = getattr(adapted, "original_flags", {})
    for key, parameter in original.named_parameters():
        parameter.requires_grad_(flags.get(key, True))
    return original


@checked
def plain(model: nn.Module) -> nn.Module:
    """Return ``model`` itself where it has no adapters, else :func:`merge` of it."""
    return merge(model) if is_adapted(model) else model
