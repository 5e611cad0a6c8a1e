"""Choosing layers, and attaching adapters to them."""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..errors import check_count, check_number
from ..heads import head_name
from ..modules import check_model
from .layers import layer_kinds
from .structure import activate, plain_name, plain_names

ADAPTABLE = (nn.Conv2d, nn.Linear)
Where = str | nn.Module | Iterable[str | nn.Module]


def attach(
    model: nn.Module,
    where: Where,
    rank: int = 8,
    alpha: float = 32,
    dropout: float = 0.0,
    name: str = "default",
    *,
    full: Sequence[str] = (),
) -> nn.Module:
    """Return a copy of ``model`` with low-rank adapters, which alone take gradients.

    Args:
        model: Any module, or one that is adapted already: the new adapter is added, and all are active.
        where: "all" convolutions and linear layers; "head", the declared head; a part of their names such as
            "decoder"; a pattern such as "encoder.*.conv2"; a module; or several of these.
        rank: The rank of each update, at least 1.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: On the adapters' input while training, in [0, 1); where a layer's weight is read, by channels for the
            whole batch.
        name: The name of this adapter.
        full: Names of modules that the adapter replaces by a trained copy of their own (such as the head).

    Raises:
        ValueError: When ``where`` chooses nothing, ``name`` is taken, another adapter replaces a module of ``full``, or
            an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    check_model(model)
    check_count("rank", rank)
    check_number("alpha", alpha, low=0, open_low=True)
    check_number("dropout", dropout, low=0, high=1, open_high=True)
    base = plain_names(model)
    for module in full:
        if module not in base:
            raise ValueError(f"expected full to name modules of the model, but got {module!r}")
    for owner, held in getattr(model, "peft_config", {}).items():
        for module in full:
            if module in (held.modules_to_save or ()):
                raise ValueError(f"expected full to name modules not replaced yet, but {owner!r} replaces {module!r}")
    inside = tuple(f"{module}." for module in full)
    chosen = [key for key in select(model, where) if key not in full and not key.startswith(inside)]
    if not chosen:
        raise ValueError(f"expected where to choose convolutions or linear layers, but {where!r} chooses none")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # annotated int, any number works
        lora_dropout=dropout,
        # A pattern is matched against whole names; a list would match any module whose name ends alike.
        target_modules="|".join(re.escape(key) for key in chosen),
        modules_to_save=list(full) or None,
    )
    config._register_custom_module(layer_kinds())
    adapted: Any
    if not isinstance(model, PeftModel):
        adapted = get_peft_model(copy.deepcopy(model), config, adapter_name=name)
    else:
        if name in model.peft_config:
            raise ValueError(f"expected name to be new, but the model has adapters {list(model.peft_config)}")
        adapted = copy.deepcopy(model)
        adapted.add_adapter(name, config)
    activate(adapted, list(adapted.peft_config))
    adapted.train(model.training)
    for key, module in adapted.named_modules():
        known = base.get(plain_name(key))
        if known is not None:
            module.training = known.training
    return adapted


def select(model: nn.Module, where: Where) -> list[str]:
    """Return the names of the convolutions and linear layers that ``where`` chooses (see :func:`attach`), in order."""
    modules = plain_names(model)
    layers = [key for key, module in modules.items() if isinstance(module, ADAPTABLE)]
    wanted = [where] if isinstance(where, (str, nn.Module)) else list(where)
    chosen: set[str] = set()
    for part in wanted:
        if isinstance(part, nn.Module):
            inside = {id(module) for module in part.modules()}
            chosen |= {key for key in layers if id(modules[key]) in inside}
        elif part == "all":
            chosen |= set(layers)
        elif part == "head":
            head = plain_name(head_name(model))
            chosen |= {key for key in layers if key == head or key.startswith(f"{head}.")}
        else:
            dotted = f".{part}."
            chosen |= {key for key in layers if dotted in f".{key}." or fnmatch.fnmatch(key, part)}
    return [key for key in layers if key in chosen]
