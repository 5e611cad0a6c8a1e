"""Adapters taken off one model and put on another, or side by side on one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..arguments import checked
from ..seeding import isolated
from .attaching import attach
from .structure import adapted_layers, adapter_names, base_state, digest, plain_names
from .switching import is_on, without_adapters


@checked
def gather(models: Mapping[str, nn.Module]) -> nn.Module:
    """Return a new model with the adapters of several, trained beside the same original. All of them act.

    Args:
        models: Adapted models by the name that their adapter gets. One that has several, such as what was gathered
            before, brings those of them that act, under the names they have.

    Raises:
        TypeError: When a model has no adapters, or ``models`` is no mapping.
        ValueError: When there is no model, two adapters have one name, or the originals differ in weights or buffers.
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"expected models to be a mapping of names to models, but got {type(models).__name__}")
    if not models:
        raise ValueError("expected at least one adapted model, but got none")
    first, *_ = models
    gathered: Any = None
    for name, model in models.items():
        own = adapter_names(model)
        if gathered is None:
            gathered, base = without_adapters(model), digest(base_state(model))
        elif digest(base_state(model)) != base:
            raise ValueError(f"expected adapters of one original, but those of {first!r} and {name!r} differ")
        several: Any = model
        acting = own if len(own) == 1 else [key for key in own if key in several.base_model.active_adapters]
        for key in acting if len(own) == 1 or is_on(model) else []:
            gathered = give(gathered, *take(model, key), name if len(own) == 1 else key)
    made: nn.Module = gathered
    return made


def take(model: Any, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what it takes to attach an adapter elsewhere: its options and its tensors."""
    from peft import get_peft_model_state_dict

    config = model.peft_config[name]
    scaling, *_ = (float(layer.scaling[name]) for layer in adapted_layers(model) if name in layer.scaling)
    row = {
        "targets": [key for key in plain_names(model) if re.fullmatch(str(config.target_modules), key)],
        "rank": config.r,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "full": list(config.modules_to_save or ()),
        "scaling": scaling,
    }
    return row, get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


def give(model: nn.Module, row: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """Return a copy of ``model`` with an adapter that was taken from another."""
    from peft import set_peft_model_state_dict

    modules = plain_names(model)
    targets = [modules[key] for key in row["targets"]]  # Not by name: "head" would be the declared head, or a part.
    with isolated(0):  # fresh weights that are overwritten at once
        adapted = attach(model, targets, row["rank"], row["alpha"], row["dropout"], name, full=row["full"])
    set_peft_model_state_dict(adapted, dict(tensors), adapter_name=name)
    for layer in adapted_layers(adapted):
        if name in layer.scaling:
            layer.scaling[name] = row["scaling"]
    return adapted
