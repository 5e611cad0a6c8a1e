"""Models and other tensors on disk: safetensors only, written whole or not at all.

A pickled file can run any code when it is opened; a safetensors file holds numbers and a text header, nothing
else.
"""

from __future__ import annotations

import copy
import importlib.metadata
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import CheckpointError, check_path_exists

FORMAT_VERSION = "1"

# How files of other kinds begin: torch.save's zip, and pickle protocols 2 to 5 (the older torch.save).
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def save_model(model: nn.Module, path: str | Path) -> Path:
    """Write the ``state_dict`` of ``model`` to ``path`` (safetensors); returns the path.

    The header says the format's version, the class of ``model`` and the version of unlearn-kit. Tied tensors
    are written under each of their names. A file that is already there is replaced in one step, or stays as
    it was.

    Raises:
        TypeError: When ``model`` is no module or its state holds more than tensors.
        FileNotFoundError: When the folder is missing.
        CheckpointError: When a tensor cannot be written.
    """
    _check_module(model)
    kind = type(model)
    return save_tensors(model.state_dict(), path, {"class": f"{kind.__module__}.{kind.__qualname__}"})


def load_model(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a new module: the architecture of ``model`` with the weights of ``path``, bit for bit.

    ``model`` is copied and left untouched; the copy keeps its device and modes.

    Raises:
        TypeError: When ``model`` is no module.
        FileNotFoundError: When there is no file.
        CheckpointError: When it is pickled, cut short, or not of this architecture (naming the tensors).
    """
    _check_module(model)
    tensors, _ = load_tensors_file(path)
    own = model.state_dict()
    problems = [f"missing {name!r}" for name in own if name not in tensors]
    problems += [f"unexpected {name!r}" for name in tensors if name not in own]
    for name in own.keys() & tensors.keys():
        mine, given = own[name], tensors[name]
        if mine.shape != given.shape or mine.dtype != given.dtype:
            problems.append(f"{name!r} is {_describe(given)} in the file and {_describe(mine)} in the model")
    if problems:
        raise CheckpointError(f"{str(path)!r} does not fit this {type(model).__name__}: {'; '.join(sorted(problems))}")
    loaded = copy.deepcopy(model)
    loaded.load_state_dict(tensors)
    # Only tensors that are tied here, and were not where the file was written, can differ now.
    clashing = [name for name, tensor in loaded.state_dict().items() if not _same_bits(tensor.cpu(), tensors[name])]
    if clashing:
        raise CheckpointError(
            f"{str(path)!r} does not fit this {type(model).__name__}: tensors that are tied in the model "
            f"differ in the file: {clashing}"
        )
    return loaded


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write named tensors of any device, layout and sharing to ``path`` (safetensors); returns the path.

    Written to a temporary name in the same folder, then moved over ``path``: a reader, or a crash, finds the
    old file or the new one, never half of one. ``metadata`` joins the format's and the toolkit's version in
    the header.

    Raises:
        TypeError: On anything but tensors and strings.
        FileNotFoundError: When the folder is missing.
        CheckpointError: When a tensor cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"expected path to be in an existing folder, but got {str(path)!r}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"expected {name!r} to be a Tensor, but got {type(tensor).__name__}")
    header = {**(metadata or {}), "format_version": FORMAT_VERSION, "unlearn_kit_version": _version()}
    for key, text in header.items():
        if not isinstance(text, str):
            raise TypeError(f"expected metadata {key!r} to be a str, but got {type(text).__name__}: {text!r}")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            # Clones, because the format refuses tensors that share memory, as tied weights and views do.
            owned = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            save_file(owned, temporary, metadata=header)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"cannot write {str(path)!r}: {error}") from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def load_tensors_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors (on the CPU, in memory of their own) and the metadata of the safetensors file ``path``.

    Raises:
        FileNotFoundError: When there is no file.
        CheckpointError: When it is pickled, cut short or otherwise not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    source = check_path_exists("path", path)
    if not source.is_file():
        raise CheckpointError(f"cannot read {str(path)!r}: it is not a file")
    try:
        with safe_open(source, framework="pt") as file:
            # Clones, because the tensors would otherwise be windows into the file.
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        # Only now: a good file may begin with any byte, since its first eight are the length of its header.
        with source.open("rb") as start:
            if start.read(4).startswith(PICKLED):
                raise CheckpointError(
                    f"{str(path)!r} is a pickle file and is refused, because opening one can run any code; "
                    "save the weights as safetensors instead"
                ) from None
        raise CheckpointError(
            f"cannot read {str(path)!r}: it is cut short or not a safetensors file ({error})"
        ) from error


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # As bytes, so that NaN equals itself and -0.0 is not 0.0.
    return torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def _version() -> str:
    try:
        return importlib.metadata.version("unlearn-kit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
