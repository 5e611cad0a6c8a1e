"""Names for contents: what a cached result was computed from. SHA-256 in hex, the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .data.tensors import held_in_tensors, in_order, labels_of, subset
from .errors import check_count
from .seeding import isolated

LARGE = 100_000  # samples: to decode more than so many takes minutes
SPREAD = 1024


def hash_tensor(tensor: Tensor | np.ndarray) -> str:
    """Hash dtype, shape and every bit of a tensor; the same on any device and in any memory layout.

    Raises:
        TypeError: When it is no tensor or array of numbers.
    """
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.hasobject:
            raise TypeError(f"expected an array of numbers, but got dtype {tensor.dtype}")
        return _digest(f"{tensor.dtype.name} {tuple(tensor.shape)}".encode(), np.ascontiguousarray(tensor).tobytes())
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a Tensor or an array, but got {type(tensor).__name__}")
    name = str(tensor.dtype).removeprefix("torch.")
    return _digest(f"{name} {tuple(tensor.shape)}".encode(), _bytes(tensor))


def hash_model(model: nn.Module) -> str:
    """Hash a model's architecture (as printed, and the source of its own modules' classes), parameters and buffers.

    Modes and devices do not count.

    Raises:
        TypeError: When it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, but got {type(model).__name__}")
    kinds = sorted({type(module) for module in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__))
    parts = [str(model), *(f"{kind.__module__}.{kind.__qualname__} {_source(kind)}" for kind in kinds)]
    held = [*model.named_parameters(), *model.named_buffers()]
    return _digest(*(part.encode() for part in (*parts, *(f"{name} {hash_tensor(value)}" for name, value in held))))


def hash_dataset(dataset: Any, *, samples: int | None = None) -> str:
    """Hash every input and target of a data set, in order; how they are stored does not count.

    Reads the whole data set once. One that draws random numbers when read is read with a fixed random state.

    Args:
        dataset: A data set of `(input, target)`.
        samples: None for all of them. Otherwise so many, evenly spread, with the number of all and the labels, where
            the data set exposes them: a change of another sample goes unseen.
    """
    if samples is not None and check_count("samples", samples) < len(dataset):
        last = len(dataset) - 1
        spread = [place * last // max(samples - 1, 1) for place in range(samples)]
        labels = labels_of(dataset)
        told = "" if labels is None else hash_tensor(labels)
        return _digest(*(part.encode() for part in (str(len(dataset)), told, hash_dataset(subset(dataset, spread)))))
    inputs, targets, shapes = hashlib.sha256(), hashlib.sha256(), set()
    with isolated(0):
        for x, y in in_order(dataset):
            inputs.update(_bytes(x))
            targets.update(_bytes(y))
            shapes.add(f"{x.dtype} {tuple(x.shape[1:])} {y.dtype} {tuple(y.shape[1:])}")
    return _digest(*(t.encode() for t in (str(len(dataset)), *sorted(shapes), inputs.hexdigest(), targets.hexdigest())))


def known_by(dataset: Any) -> str:
    """Return the hash by which a cached result knows its data: of every sample, or of some where that takes too long.

    Those are data that are decoded when they are read, more than ``LARGE`` of them: of ``SPREAD`` samples and all
    labels, as :func:`hash_dataset` says.
    """
    sampled = len(dataset) > LARGE and not held_in_tensors(dataset)
    return hash_dataset(dataset, samples=SPREAD if sampled else None)


def hash_file(path: str | Path) -> str:
    """Hash the bytes of a file: SHA-256, as ``sha256sum`` prints it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_hashes(dataset: Any) -> list[str]:
    """Return the SHA-256 of each sample, input and target, in order: whoever holds a sample can look for its hash.

    Reads the whole data set once. One that draws random numbers when read is read with a fixed random state.

    Args:
        dataset: A data set of `(input, target)`.

    Returns:
        One hash in hex per sample.
    """
    with isolated(0):
        return [
            hashlib.sha256(f"{hash_tensor(one)} {hash_tensor(target)}".encode()).hexdigest()
            for x, y in in_order(dataset)
            for one, target in zip(x, y, strict=True)
        ]


def hash_config(value: Any) -> str:
    """Hash settings: numbers, texts, None, paths, tensors, networks, named functions; collections, dataclasses of them.

    The order of a mapping does not count; ``1``, ``1.0``, ``True`` and ``"1"`` differ.

    Raises:
        TypeError: On anything else, such as a lambda: its address would differ in every process.
    """
    return _digest(json.dumps(_plain(value)).encode())


def hash_code(*packages: str) -> str:
    """Hash the Python source of whole packages or modules, named as they are imported.

    A result that is cached under it is computed again after any change of the code. A process reads each source once,
    when it first asks, since it goes on with the code that it has imported.

    Raises:
        ModuleNotFoundError: On a package that does not exist.
    """
    return _digest(*(_package_source(name).encode() for name in packages))


@functools.cache
def _package_source(name: str) -> str:
    module = importlib.import_module(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", [])]
    files = [(p.relative_to(root).as_posix(), p) for root in folders for p in root.rglob("*.py")]
    if not folders and module.__file__ is not None:
        files = [(Path(module.__file__).name, Path(module.__file__))]
    return _digest(name.encode(), *(part for key, path in sorted(files) for part in (key.encode(), path.read_bytes())))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return [type(value).__name__, value]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, (list, tuple)):
        return ["list", [_plain(item) for item in value]]
    if isinstance(value, Mapping):
        pairs = [[_plain(key), _plain(item)] for key, item in value.items()]
        return ["mapping", sorted(pairs, key=json.dumps)]
    if isinstance(value, (Tensor, np.ndarray)):
        return ["tensor", hash_tensor(value)]
    if isinstance(value, nn.Module):
        return ["model", hash_model(value)]
    if isinstance(value, Path):
        return ["path", value.as_posix()]
    if isinstance(value, (torch.device, torch.dtype)):
        return ["torch", str(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [[field.name, _plain(getattr(value, field.name))] for field in dataclasses.fields(value)]
        return [f"{type(value).__module__}.{type(value).__qualname__}", fields]
    if isinstance(value, functools.partial):
        return ["partial", _plain(value.func), _plain(value.args), _plain(value.keywords)]
    name = getattr(value, "__qualname__", "<")
    if callable(value) and "<" not in name:
        return ["function", f"{value.__module__}.{name}", _source(value)]
    raise TypeError(
        "expected settings of numbers, texts, tensors, networks, named functions and collections of them, "
        f"but got {type(value).__name__}: {value!r}"
    )


def _source(value: Any) -> str:
    """Return the source where there is some; torch's own code is known by torch's version."""
    if value.__module__.split(".")[0] == "torch":
        return str(torch.__version__)
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return ""


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:  # Lengths, so that no two lists of parts read the same.
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()
