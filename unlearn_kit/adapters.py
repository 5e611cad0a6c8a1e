"""Low-rank adapters: small, reversible revisions beside frozen weights (on ``peft``).

An adapted model is a ``peft.PeftModel`` around a copy of the original. ``dW = (alpha / rank) B A`` is added to each
chosen convolution or linear layer; B starts at zero, so a fresh adapter changes nothing. Switched off, the original
function returns bit for bit, provided that no buffer moved: train with batch norm frozen.

Source: LoRA, arXiv 2106.09685; for unlearning, arXiv 2511.16574.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import load_tensors_file, save_tensors
from .errors import CheckpointError, check_count, check_number
from .modules import check_model, head_name

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
    """A copy of ``model`` with low-rank adapters, of which they alone take gradients.

    Args:
        model: any module, or one that is adapted already: the new adapter is added, and all are active.
        where: "all" convolutions and linear layers; "head", the declared head; a part of their names such as
            "decoder"; a pattern such as "encoder.*.conv2"; a module; or several of these.
        rank: of each update, at least 1.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: on the adapters' input while training, in [0, 1).
        name: of this adapter.
        full: names of modules that the adapter replaces by a trained copy of their own (such as the head).

    Raises: ValueError when ``where`` chooses nothing, ``name`` is taken, or another adapter replaces a module of
        ``full``; TypeError, ValueError naming the argument.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    check_model(model)
    check_count("rank", rank)
    check_number("alpha", alpha, low=0, open_low=True)
    check_number("dropout", dropout, low=0, high=1, open_high=True)
    base = _plain_names(model)
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
    adapted: Any
    if not isinstance(model, PeftModel):
        adapted = get_peft_model(copy.deepcopy(model), config, adapter_name=name)
    else:
        if name in model.peft_config:
            raise ValueError(f"expected name to be new, but the model has adapters {list(model.peft_config)}")
        adapted = copy.deepcopy(model)
        adapted.add_adapter(name, config)
    _activate(adapted, list(adapted.peft_config))
    adapted.train(model.training)
    for key, module in adapted.named_modules():
        known = base.get(_plain(key))
        if known is not None:
            module.training = known.training
    return adapted


def select(model: nn.Module, where: Where) -> list[str]:
    """Names of the convolutions and linear layers that ``where`` chooses (see :func:`attach`), in order."""
    modules = _plain_names(model)
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
            head = _plain(head_name(model))
            chosen |= {key for key in layers if key == head or key.startswith(f"{head}.")}
        else:
            dotted = f".{part}."
            chosen |= {key for key in layers if dotted in f".{key}." or fnmatch.fnmatch(key, part)}
    return [key for key in layers if key in chosen]


@contextmanager
def only(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """Let just the adapters ``names`` act inside the block; what acted before acts again after it.

    Raises: ValueError on an unknown adapter; TypeError on a model without adapters.
    """
    adapted = _adapted(model)
    for name in names:
        _check_name(adapted, name)
    before = list(adapted.base_model.active_adapters)
    was_on = is_on(adapted)
    gradients = [(p, p.requires_grad) for p in adapted.parameters()]
    try:
        if names:
            adapted.base_model.enable_adapter_layers()
            _activate(adapted, list(names))
        else:
            adapted.base_model.disable_adapter_layers()
        yield model
    finally:
        adapted.base_model.enable_adapter_layers()
        _activate(adapted, before)
        if not was_on:
            adapted.base_model.disable_adapter_layers()
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)


def switched_off(model: nn.Module) -> Any:
    """A context manager inside which no adapter acts: the original function, bit for bit.

    Raises: TypeError on a model without adapters.
    """
    return only(model, ())


def merge(model: nn.Module) -> nn.Module:
    """A plain module with the active adapters added into its weights; no longer reversible.

    Raises: TypeError on a model without adapters.
    """
    merged: nn.Module = copy.deepcopy(_adapted(model)).merge_and_unload()
    return merged.requires_grad_(True)


def plain(model: nn.Module) -> nn.Module:
    """``model`` itself where it has no adapters, else :func:`merge` of it: what works on any revision needs no more."""
    from peft import PeftModel

    return merge(model) if isinstance(model, PeftModel) else model


def scale(model: nn.Module, factor: float, name: str = "default") -> nn.Module:
    """A copy in which the adapter ``name`` acts ``factor`` times as strongly: 0 not at all, -1 in reverse.

    Modules the adapter replaces move along the line from the original's weights.

    Raises: ValueError on an unknown adapter or a factor that is not finite.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    check_number("factor", factor)
    scaled: nn.Module = copy.deepcopy(_adapted(model))
    _check_name(scaled, name)
    for module in scaled.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            module.scaling[name] *= factor
        elif isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            start = dict(module.original_module.named_parameters())
            with torch.no_grad():
                for key, weight in module.modules_to_save[name].named_parameters():
                    weight.copy_(start[key] + factor * (weight - start[key]))
    return scaled


def negate(model: nn.Module, name: str = "default") -> nn.Module:
    """:func:`scale` by -1."""
    return scale(model, -1.0, name)


def count_trainable(model: nn.Module) -> tuple[int, int]:
    """Number of parameters that take gradients, and of parameters of the original, without adapters."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, sum(value.numel() for value in base_state(model, buffers=False).values())


def base_state(model: nn.Module, *, buffers: bool = True) -> dict[str, Tensor]:
    """The original's parameters (and buffers) inside an adapted model, under the names they had."""
    keys = set(dict(model.named_parameters()))
    state = {}
    for key, value in model.state_dict().items():
        own = not re.search(r"\.(lora_\w+|modules_to_save)\.", f".{key}")
        if own and (buffers or key in keys):
            state[_plain(key)] = value
    return state


def save(model: nn.Module, path: str | Path) -> Path:
    """Write all adapters of ``model`` to one safetensors file, without the original's weights.

    Raises: TypeError on a model without adapters; FileNotFoundError on a missing folder.
    """
    adapted = _adapted(model)
    tensors: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in adapted.peft_config:
        rows[name], held = _take(adapted, name)
        tensors |= {f"{name}/{key}": value.detach().to("cpu").contiguous() for key, value in held.items()}
    shapes = {key: list(value.shape) for key, value in base_state(adapted).items()}
    metadata = {"adapters": json.dumps(rows), "shapes": json.dumps(shapes), "base": _digest(base_state(adapted))}
    return save_tensors(tensors, path, metadata)


def load(model: nn.Module, path: str | Path, *, any_weights: bool = False) -> nn.Module:
    """A copy of ``model`` with the adapters in ``path`` attached and active.

    Args:
        model: the original the adapters were trained on.
        path: written by :func:`save`.
        any_weights: accept an original of the same architecture with other weights or buffers.

    Raises: CheckpointError when the file is unreadable, of another architecture (naming what differs) or
        other weights.
    """
    tensors, metadata = load_tensors_file(path)
    if "adapters" not in metadata:
        raise CheckpointError(f"expected {str(path)!r} to hold adapters, but it holds {sorted(tensors)[:3]} ...")
    here = {key: list(value.shape) for key, value in base_state(model).items()}
    there: dict[str, list[int]] = json.loads(metadata["shapes"])
    differing = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if differing:
        key = differing[0]
        raise CheckpointError(
            f"expected the architecture that {str(path)!r} was trained on, but {len(differing)} tensors differ, "
            f"such as {key!r}: {there.get(key, 'missing')} in the file, "
            f"{here.get(key, 'missing')} in {type(model).__name__}"
        )
    if not any_weights and metadata["base"] != _digest(base_state(model)):
        raise CheckpointError(
            f"expected the weights and buffers that {str(path)!r} was trained on, but got others; "
            "any_weights=True attaches it all the same"
        )
    adapted = model
    for name, row in json.loads(metadata["adapters"]).items():
        own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        adapted = _give(adapted, row, own, name)
    return adapted


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the adapters, in the order they were attached.

    Raises: TypeError on a model without adapters.
    """
    return list(_adapted(model).peft_config)


def switch_(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Let just the adapters ``names`` act from now on, added up in the order they were attached; none: the original.

    Changes and returns ``model``; those that act take gradients. See :func:`only` for a while.

    Raises: ValueError on an unknown adapter; TypeError on a model without adapters.
    """
    adapted = _adapted(model)
    for name in names:
        _check_name(adapted, name)
    ordered = [name for name in adapted.peft_config if name in names]
    adapted.base_model.enable_adapter_layers()
    if ordered:
        _activate(adapted, ordered)
    else:
        adapted.base_model.disable_adapter_layers()
    return model


def gather(models: Mapping[str, nn.Module]) -> nn.Module:
    """One new model with the adapters of several, each of which has one, trained beside the same original.

    Args:
        models: adapted models by the name that their adapter gets. All of them act.

    Raises: TypeError on a model without adapters; ValueError when there is none, one has several, or the originals
        differ in weights or buffers.
    """
    if not models:
        raise ValueError("expected at least one adapted model, but got none")
    first, *_ = models
    gathered: Any = None
    for name, model in models.items():
        own = adapter_names(model)
        if len(own) != 1:
            raise ValueError(f"expected models[{name!r}] to have one adapter, but it has {own}")
        if gathered is None:
            gathered, digest = _without(model), _digest(base_state(model))
        elif _digest(base_state(model)) != digest:
            raise ValueError(f"expected adapters of one original, but those of {first!r} and {name!r} differ")
        gathered = _give(gathered, *_take(model, own[0]), name)
    made: nn.Module = gathered
    return made


def _without(model: nn.Module) -> nn.Module:
    """A copy of the original inside an adapted model."""
    from peft.utils import ModulesToSaveWrapper

    held: Any = copy.deepcopy(_adapted(model))
    for module in held.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.set_adapter([])  # or peft would leave the adapter's own copy of the module in the place of it
    original: nn.Module = held.unload()
    return original


def _take(model: Any, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What it takes to attach an adapter elsewhere: its options and its tensors."""
    from peft import get_peft_model_state_dict

    config = model.peft_config[name]
    row = {
        "targets": [key for key in _plain_names(model) if re.fullmatch(str(config.target_modules), key)],
        "rank": config.r,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "full": list(config.modules_to_save or ()),
        "scaling": _scaling(model, name),
    }
    return row, get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


def _give(model: nn.Module, row: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """A copy of ``model`` with an adapter that was taken from another."""
    from peft import set_peft_model_state_dict

    adapted = attach(model, row["targets"], row["rank"], row["alpha"], row["dropout"], name, full=row["full"])
    set_peft_model_state_dict(adapted, dict(tensors), adapter_name=name)
    if row["scaling"] is not None:
        _set_scaling(adapted, name, row["scaling"])
    return adapted


def _adapted(model: nn.Module) -> Any:
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise TypeError(f"expected model to have adapters (see adapters.attach), but got {type(model).__name__}")
    return model


def _check_name(model: Any, name: str) -> None:
    if name not in model.peft_config:
        raise ValueError(f"expected name to be one of {list(model.peft_config)}, but got {name!r}")


def _activate(model: Any, names: list[str]) -> None:
    model.base_model.set_adapter(names if len(names) > 1 else names[0])


def is_on(model: nn.Module) -> bool:
    """Whether adapters act at all: False inside ``switched_off``."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return not any(module.disable_adapters for module in model.modules() if isinstance(module, BaseTunerLayer))


def _plain(key: str) -> str:
    """A name inside an adapted model, as it was in the original."""
    key = re.sub(r"^base_model\.model\.?", "", key)
    return re.sub(r"\.(base_layer|original_module)(?=\.|$)", "", key)


def _plain_names(model: nn.Module) -> dict[str, nn.Module]:
    """The original's modules by the names they had there, without those that adapters brought."""
    modules = {}
    for key, module in model.named_modules():
        if key and not re.search(r"\.(lora_\w+|modules_to_save)(\.|$)", f".{key}"):
            modules[_plain(key)] = module
    return modules


def _scaling(model: nn.Module, name: str) -> float | None:
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            return float(module.scaling[name])
    return None


def _set_scaling(model: nn.Module, name: str, value: float) -> None:
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            module.scaling[name] = value


def _digest(state: dict[str, Tensor]) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for key in sorted(state):
        value = state[key].detach().to("cpu").contiguous()
        hasher.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
