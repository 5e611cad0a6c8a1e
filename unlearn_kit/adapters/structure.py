"""How an adapted model is made up: the original inside it, and the adapters by name."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice


@checked
def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of the adapters, in the order they were attached.

    Raises:
        TypeError: When the model has no adapters.
    """
    return list(check_adapted(model).peft_config)


@checked
def base_state(model: nn.Module, *, buffers: bool = True) -> dict[str, Tensor]:
    """Return the original's parameters (and buffers) inside an adapted model, under the names they had.

    Raises:
        TypeError: When ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")
    keys = set(dict(model.named_parameters()))
    state = {}
    for key, value in model.state_dict().items():
        own = not re.search(r"\.(lora_\w+|modules_to_save)\.", f".{key}")
        if own and (buffers or key in keys):
            state[plain_name(key)] = value
    return state


@checked
def count_trainable(model: nn.Module) -> tuple[int, int]:
    """Return the number of parameters that take gradients, and of the original's parameters.

    Raises:
        TypeError: When ``model`` is no module.
    """
    original = sum(value.numel() for value in base_state(model, buffers=False).values())
    return sum(p.numel() for p in model.parameters() if p.requires_grad), original


def is_adapted(model: object) -> bool:
    """Return whether a model has adapters, without importing ``peft``, which takes seconds, for one that has none."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def check_adapted(model: nn.Module) -> Any:
    """Return the model, as the ``peft.PeftModel`` it is.

    Raises:
        TypeError: When the model has no adapters.
    """
    if not is_adapted(model):
        raise TypeError(f"expected model to have adapters (see adapters.attach), but got {type(model).__name__}")
    return model


def adapted_layers(model: nn.Module) -> list[Any]:
    """Return the layers that have adapters, as the ``peft`` layers they are."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def check_names(model: nn.Module, names: Iterable[str]) -> Any:
    """Return the model, as the ``peft.PeftModel`` it is, when it has adapters of all these names.

    Raises:
        TypeError: When it has no adapters, or ``names`` is no collection of names.
        ValueError: When no adapter has one of the names.
    """
    adapted = check_adapted(model)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"expected names to be names of adapters, but got {type(names).__name__}: {names!r}")
    for name in names:
        check_choice("name", name, adapted.peft_config)
    return adapted


def activate(model: Any, names: list[str]) -> None:
    """Let just these adapters act, at least one; they alone take gradients."""
    model.base_model.set_adapter(names if len(names) > 1 else names[0])


def plain_name(key: str) -> str:
    """Return a name inside an adapted model as it was in the original."""
    key = re.sub(r"^base_model\.model\.?", "", key)
    return re.sub(r"\.(base_layer|original_module)(?=\.|$)", "", key)


def plain_names(model: nn.Module) -> dict[str, nn.Module]:
    """Return the original's modules by the names they had there, without those that adapters brought."""
    modules = {}
    for key, module in model.named_modules():
        if key and not re.search(r"\.(lora_\w+|modules_to_save)(\.|$)", f".{key}"):
            modules[plain_name(key)] = module
    return modules


def digest(state: dict[str, Tensor]) -> str:
    """Return what tells an original from others: 32 hexadecimal digits of its names, shapes and values."""
    hasher = hashlib.blake2b(digest_size=16)
    for key in sorted(state):
        value = state[key].detach().to("cpu").contiguous()
        hasher.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
