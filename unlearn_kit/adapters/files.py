"""Adapters in a file of their own, which is held against the model before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..checkpoints import FORMAT_VERSION, load_tensors_file, save_tensors
from ..errors import CheckpointError, check_count, check_number
from ..modules import check_model
from .moving import give, take
from .structure import base_state, check_adapted, digest, plain_names

# What the file says of an adapter.
ROW = ("targets", "rank", "alpha", "dropout", "full", "scaling")


@checked
def save(model: nn.Module, path: str | Path) -> Path:
    """Write all adapters of ``model`` to one safetensors file, without the original's weights.

    Raises:
        TypeError: When the model has no adapters.
        FileNotFoundError: When the folder is missing.
    """
    adapted = check_adapted(model)
    tensors: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in adapted.peft_config:
        rows[name], held = take(adapted, name)
        tensors |= {f"{name}/{key}": value.detach().to("cpu").contiguous() for key, value in held.items()}
    shapes = {key: list(value.shape) for key, value in base_state(adapted).items()}
    metadata = {"adapters": json.dumps(rows), "shapes": json.dumps(shapes), "base": digest(base_state(adapted))}
    return save_tensors(tensors, path, metadata)


@checked
def load(model: nn.Module, path: str | Path, *, any_weights: bool = False) -> nn.Module:
    """Return a copy of ``model`` with the adapters in ``path`` attached and active.

    Args:
        model: The original the adapters were trained on.
        path: A file written by :func:`save`.
        any_weights: Accept an original of the same architecture with other weights or buffers.

    Raises:
        TypeError: When ``model`` is no module.
        FileNotFoundError: When there is no file.
        CheckpointError: When the file is unreadable, of another version, incomplete or altered (naming what), or of
            another architecture (naming what differs) or other weights.
    """
    check_model(model)
    tensors, metadata = load_tensors_file(path)
    if "adapters" not in metadata:
        hint = "; a whole model is read by load_model" if "class" in metadata else ""
        raise CheckpointError(f"expected {str(path)!r} to hold adapters, but it holds {sorted(tensors)[:3]} ...{hint}")
    try:
        rows = _read(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"cannot read the adapters in {str(path)!r}: {error}") from error
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
    if not any_weights and metadata["base"] != digest(base_state(model)):
        raise CheckpointError(
            f"expected the weights and buffers that {str(path)!r} was trained on, but got others; "
            "any_weights=True attaches it all the same"
        )
    # Before anything is made: a rank in the header must not decide how much memory is asked for.
    problems = list(_problems(model, rows, tensors))
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{str(path)!r} does not fit this {type(model).__name__}: {shown}")
    adapted = model
    for name, row in rows.items():
        own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        try:
            adapted = give(adapted, row, own, name)
        except ValueError as error:
            raise CheckpointError(f"cannot attach {name!r} of {str(path)!r}: {error}") from error
    return adapted


def _read(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what the header says of each adapter.

    Raises:
        ValueError: When a key is missing, a value is out of range, or the format is of another version.
        TypeError: When a value is of another type.
    """
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"expected format_version {FORMAT_VERSION!r}, but got {version!r}")
    for key in ("shapes", "base"):
        if key not in metadata:
            raise ValueError(f"expected a header with {key!r}, but got {sorted(metadata)}")
    shapes, rows = (_parsed(metadata, key) for key in ("shapes", "adapters"))
    for key, shape in shapes.items():
        _check_list(f"shapes[{key!r}]", shape, int)
    if not rows:
        raise ValueError("expected at least one adapter, but got none")
    for name, row in rows.items():
        if not isinstance(row, dict) or set(row) != set(ROW):
            raise ValueError(f"expected adapter {name!r} to have {sorted(ROW)}, but got {row!r:.200}")
        for key in ("targets", "full"):
            _check_list(f"{key} of adapter {name!r}", row[key], str)
        check_count(f"rank of adapter {name!r}", row["rank"])
        check_number(f"alpha of adapter {name!r}", row["alpha"], low=0, open_low=True)
        check_number(f"dropout of adapter {name!r}", row["dropout"], low=0, high=1, open_high=True)
        check_number(f"scaling of adapter {name!r}", row["scaling"])
    return rows


def _parsed(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except ValueError as error:
        raise ValueError(f"expected {key!r} in the header to be JSON, but got {metadata[key]!r:.200}") from error
    if not isinstance(value, dict):
        raise TypeError(f"expected {key!r} in the header to be a dict, but got {type(value).__name__}")
    return value


def _check_list(name: str, value: object, kind: type) -> None:
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise TypeError(f"expected {name} to be a list of {kind.__name__}, but got {value!r:.200}")
    if kind is str and len(set(value)) < len(value):
        raise ValueError(f"expected {name} to be different names, but got {value!r:.200}")


def _problems(model: nn.Module, rows: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what keeps the tensors from being those of the adapters ``rows`` on ``model``, each by its name."""
    modules = plain_names(model)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, row in rows.items():
        for key in (*row["targets"], *row["full"]):
            if key not in modules:
                yield f"there is no module {key!r} for adapter {name!r}"
        for key in row["targets"]:
            weight = getattr(modules.get(key), "weight", None)
            if isinstance(weight, Tensor):
                # peft keeps the adapters of half precision in single precision.
                dtype = torch.float32 if weight.dtype in (torch.half, torch.bfloat16) else weight.dtype
                ones = (1,) * (weight.dim() - 2)
                inside = f"{name}/base_model.model.{key}"
                expected[f"{inside}.lora_A.weight"] = dtype, (row["rank"], *weight.shape[1:])
                expected[f"{inside}.lora_B.weight"] = dtype, (weight.shape[0], row["rank"], *ones)
        for key in row["full"]:
            if key in modules:
                for part, value in modules[key].state_dict().items():
                    expected[f"{name}/base_model.model.{key}.{part}"] = value.dtype, tuple(value.shape)
    yield from (f"missing {key!r}" for key in expected if key not in tensors)
    yield from (f"unexpected {key!r}" for key in tensors if key not in expected)
    for key in expected.keys() & tensors.keys():
        tensor = tensors[key]
        if (tensor.dtype, tuple(tensor.shape)) != expected[key]:
            dtype, shape = expected[key]
            yield f"{key!r} is {tensor.dtype} {tuple(tensor.shape)} in the file and {dtype} {shape} for the model"
        elif not torch.isfinite(tensor).all():
            yield f"{key!r} is not finite"
