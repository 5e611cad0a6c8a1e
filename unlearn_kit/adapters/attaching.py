"""Attaching adapters to layers of a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_count, check_number
from ..modules import blank_copy, check_model
from ..seeding import isolated, standardized
from .activity import check_merges
from .choosing import Where, choose, summary
from .layers import layer_kinds
from .structure import activate, plain_name, plain_names

logger = logging.getLogger("unlearn_kit")

# Names that peft gives to what it puts into a model, and by which the original's tensors are told from an adapter's.
RESERVED = re.compile(r"(^|\.)(base_layer|original_module|modules_to_save|lora_\w+)(\.|$)|^base_model\.model(\.|$)")


@checked
@standardized
def attach(
    model: nn.Module,
    where: Where,
    rank: int = 8,
    alpha: float = 32,
    dropout: float = 0.0,
    name: str = "default",
    *,
    full: Sequence[str] = (),
    example: Tensor | None = None,
    seed: int | None = 0,
) -> nn.Module:
    """Return a copy of ``model`` with low-rank adapters, which alone take gradients.

    Layers whose adapter could not act, or could not be merged, get none: grouped convolutions, weights that are tied or
    computed (weight and spectral norm, pruning), layers registered twice. Where ``where`` covers them they are skipped,
    and the log says so (see :func:`skipped`); where it names one, it is refused.

    Args:
        model: Any module, or one that is adapted already: the new adapter is added, and all are active.
        where: "all" convolutions and linear layers; "head", the declared head; "last:K", it and the K stages before it
            (see ``models.stages``); a part of their names such as "decoder"; a pattern such as "encoder.*.conv2"; a
            module; or several of these.
        rank: The rank of each update, at least 1.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: On the adapters' input while training, in [0, 1); where a layer's weight is read, by channels for the
            whole batch.
        name: The name of this adapter.
        full: Names of modules that the adapter replaces by a trained copy of their own (such as the head).
        example: A batch of inputs, ``(B, ...)``, by which layers that the output does not depend on are found and
            skipped, and each adapter is seen to act as its merged weight does.
        seed: Of the weights that adapters begin with; None draws them from the caller's random state.

    Raises:
        ValueError: When a part of ``where`` chooses nothing or names a layer that can have no adapter, ``name`` is
            taken, a module of ``full`` cannot be replaced, or an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    model = check_model(model)
    check_count("rank", rank)
    check_number("alpha", alpha, low=0, open_low=True)
    check_number("dropout", dropout, low=0, high=1, open_high=True)
    if example is not None and not isinstance(example, Tensor):
        raise TypeError(f"expected example to be a Tensor, but got {type(example).__name__}")
    _check_name(name)
    base = plain_names(model)
    if any(isinstance(module, torch.fx.GraphModule) for module in model.modules()):
        raise TypeError("expected model to be a torch.nn.Module whose layers can be replaced, but got a torch.fx graph")
    if isinstance(model, PeftModel):
        if name in model.peft_config:
            raise ValueError(f"expected name to be new, but the model has adapters {list(model.peft_config)}")
    else:
        for key in base:
            if RESERVED.search(key):
                raise ValueError(f"expected model to have no module of a name that peft gives, but it has {key!r}")
    _check_full(model, base, full)
    chosen, left_out = choose(model, where, example, full)
    if left_out:
        logger.warning("attach skips %d layers that cannot have an adapter: %s", len(left_out), summary(left_out))
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # annotated int, any number works
        lora_dropout=dropout,
        # A pattern is matched against whole names; a list would match any module whose name ends alike.
        target_modules="|".join(re.escape(key) for key in chosen),
    )
    config._register_custom_module(layer_kinds())
    adapted: Any
    # Adapters begin with random weights, which are the caller's to draw only where asked to.
    with nullcontext() if seed is None else isolated(seed):
        if isinstance(model, PeftModel):
            adapted = blank_copy(model)
            adapted.add_adapter(name, config)
        else:
            adapted = get_peft_model(blank_copy(model), config, adapter_name=name)
    if not isinstance(model, PeftModel):
        adapted.original_flags = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    _replace(adapted, name, full)
    activate(adapted, list(adapted.peft_config))
    adapted.train(model.training)
    for key, module in adapted.named_modules():
        known = base.get(plain_name(key))
        if known is not None:
            module.training = known.training
    if example is not None:
        check_merges(adapted, name, example)
    return adapted


def _replace(adapted: Any, name: str, full: Sequence[str]) -> None:
    """Put copies that the adapter trains beside modules; not by peft, which takes any whose names end alike."""
    from peft.utils import ModulesToSaveWrapper

    original = adapted.base_model.model
    for key in full:
        parent, _, leaf = key.rpartition(".")
        setattr(original.get_submodule(parent), leaf, ModulesToSaveWrapper(original.get_submodule(key), name))
    adapted.peft_config[name].modules_to_save = list(full) or None


def _check_name(name: object) -> None:
    """Refuse what cannot name an adapter: a key of a ``ModuleDict``, and a part of names of tensors and in files."""
    if not isinstance(name, str):
        raise TypeError(f"expected name to be a str, but got {type(name).__name__}: {name!r}")
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"expected name to be letters, digits, '_' and '-', but got {name!r}")
    if hasattr(nn.ModuleDict(), name) or name in "lora_":
        raise ValueError(f"expected name to be no attribute of a ModuleDict and no part of 'lora_', but got {name!r}")


def _check_full(model: nn.Module, base: dict[str, nn.Module], full: Sequence[str]) -> None:
    """Refuse modules that an adapter cannot replace."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(full, str):
        raise TypeError(f"expected full to be a sequence of names, but got the string {full!r}")
    owners = {owner: list(config.modules_to_save or ()) for owner, config in getattr(model, "peft_config", {}).items()}
    slots = [child for owner in model.modules() for child in owner._modules.values()]
    for place, key in enumerate(full):
        if key not in base:
            raise ValueError(f"expected full to name modules of the model, but got {key!r}")
        if isinstance(base[key], (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)):
            raise ValueError(f"expected full to name modules that are called, but {key!r} is a container")
        if sum(child is base[key] for child in slots) > 1:
            raise ValueError(f"expected full to name modules registered once, but {key!r} is registered more than once")
        for owner, replaced in owners.items():
            if any(_overlap(key, other) for other in replaced):
                raise ValueError(f"expected full to name modules not replaced yet, but {owner!r} replaces {key!r}")
        for other in full[:place]:
            if _overlap(key, other):
                raise ValueError(f"expected full to name modules apart from each other, but got {other!r} and {key!r}")
    inside = [plain_name(key) for key, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for layer in inside:
        for key in full:
            if f"{layer}.".startswith(f"{key}."):
                raise ValueError(f"expected full to name modules without adapters, but {layer!r} has one")


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
