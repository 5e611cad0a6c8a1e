"""Models and other tensors on disk: safetensors only, written whole or not at all.

A pickled file can run any code when it is opened; a safetensors file holds numbers and a text header, nothing
else.
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .arguments import checked
from .errors import CheckpointError, check_path_exists
from .files import replacing

FORMAT_VERSION = "1"

# How files of other kinds begin: torch.save's zip, and pickle protocols 2 to 5 (the older torch.save).
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

# What wrappers put into the names of tensors: torch.compile, and the parallel modules.
WRAPPERS = ("_orig_mod", "module")

# Files of the toolkit that hold no model, by a key of their header.
OTHER_FILES = {
    "adapters": "adapters alone: adapters.load attaches those that adapters.save wrote to their original",
    "run": "a run to resume: give it to the call that wrote it as checkpoint=",
}


@checked
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


@checked
def load_model(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a new module: the architecture of ``model`` with the weights of ``path``, bit for bit.

    ``model`` is copied and left untouched; the copy keeps its device and modes. What ``torch.compile`` and
    ``DataParallel`` put into the names of tensors (``_orig_mod.``, ``module.``) does not count where names differ in
    nothing else, so that the file of a wrapped model fits the plain one, and the other way round.

    Raises:
        TypeError: When ``model`` is no module.
        FileNotFoundError: When there is no file.
        CheckpointError: When it is pickled, cut short, or not of this architecture (naming the tensors), or holds
            adapters or a run to resume.
    """
    _check_module(model)
    tensors, metadata = load_tensors_file(path)
    own = model.state_dict()
    tensors, said = _renamed(tensors, own)
    problems = misfits(own, tensors)
    if problems:
        refuse_other_files(path, tensors, metadata)
        raise CheckpointError(f"{str(path)!r} does not fit this {type(model).__name__}{said}: {'; '.join(problems)}")
    loaded = copy.deepcopy(model)
    loaded.load_state_dict(tensors)
    check_tied(loaded, tensors, path)
    return loaded


def refuse_other_files(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Refuse a file of adapters, peft's own included, or of a run, by what it is.

    Raises:
        CheckpointError: When it is one.
    """
    kinds = {*metadata, *(["adapters"] if tensors and all(".lora_" in name for name in tensors) else [])}
    for kind in OTHER_FILES.keys() & kinds:
        raise CheckpointError(
            f"expected {str(path)!r} to hold the weights of a model, but it holds {OTHER_FILES[kind]}"
        )


def check_tied(loaded: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse a file that gave a model other tensors than it now holds.

    Only tensors that are tied in the model, and were not where the file was written, can differ.

    Raises:
        CheckpointError: Naming them.
    """
    clashing = [name for name, tensor in loaded.state_dict().items() if not same_bits(tensor.cpu(), tensors[name])]
    if clashing:
        raise CheckpointError(
            f"{str(path)!r} does not fit this {type(loaded).__name__}: tensors that are tied in the model "
            f"differ in the file: {clashing}"
        )


def _renamed(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a file's tensors under a model's ``own`` names, and what to say of names that only a wrapper makes differ.

    Where names differ in more than that, they stay as they are; those without the wrapper's part say more then.
    """
    if tensors.keys() == own.keys():
        return tensors, ""
    plain, there = {plain_name(name): name for name in own}, {plain_name(name): name for name in tensors}
    told_apart = len(plain) == len(own) and len(there) == len(tensors)
    if told_apart and plain.keys() == there.keys():
        return {plain[name]: tensors[full] for name, full in there.items()}, ""
    wrappers = [f"{part}." for part in WRAPPERS if any(part in name.split(".") for name in tensors)]
    if not told_apart or not wrappers or not plain.keys() & there.keys():
        return tensors, ""
    renamed = {plain.get(name, name): tensors[full] for name, full in there.items()}
    return renamed, f", also without {' and '.join(map(repr, wrappers))} in the names of the file"


def plain_name(name: str) -> str:
    """Return the name of a tensor without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return where the ``tensors`` of a file differ from a model's ``own`` in name, shape or dtype, in words."""
    problems = [f"missing {name!r}" for name in own if name not in tensors]
    problems += [f"unexpected {name!r}" for name in tensors if name not in own]
    for name in own.keys() & tensors.keys():
        mine, given = own[name], tensors[name]
        if mine.shape != given.shape or mine.dtype != given.dtype:
            problems.append(f"{name!r} is {_describe(given)} in the file and {_describe(mine)} in the model")
    return sorted(problems)


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
    header = {**(metadata or {}), **versions()}
    for key, text in header.items():
        if not isinstance(text, str):
            raise TypeError(f"expected metadata {key!r} to be a str, but got {type(text).__name__}: {text!r}")
    with replacing(target) as temporary:
        try:
            # Clones, because the format refuses tensors that share memory, as tied weights and views do.
            owned = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            save_file(owned, temporary, metadata=header)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"cannot write {str(path)!r}: {error}") from error
    return target


def load_tensors_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors (on the CPU, in memory of their own) and the metadata of the safetensors file ``path``.

    Raises:
        FileNotFoundError: When there is no file.
        CheckpointError: When it is pickled, cut short or otherwise not a safetensors file, or of another version of
            the toolkit's format.
    """
    from safetensors import SafetensorError, safe_open

    source = check_path_exists("path", path)
    if not source.is_file():
        raise CheckpointError(f"cannot read {str(path)!r}: it is not a file")
    try:
        with safe_open(source, framework="pt") as file:
            # Clones, because the tensors would otherwise be windows into the file.
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
            metadata = dict(file.metadata() or {})
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
    version = metadata.get("format_version", FORMAT_VERSION)  # Files of other writers have none.
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"cannot read {str(path)!r}: expected format_version {FORMAT_VERSION!r}, but got {version!r}"
        )
    return tensors, metadata


def versions() -> dict[str, str]:
    """Return what every header says of its writer: the versions of the format and of unlearn-kit."""
    try:
        own = importlib.metadata.version("unlearn-kit")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"format_version": FORMAT_VERSION, "unlearn_kit_version": own}


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape and dtype hold the same bits."""
    # As bytes, so that NaN equals itself and -0.0 is not 0.0.
    return torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
