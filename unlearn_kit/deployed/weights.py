"""The weights of a deployed model: read from whatever file serves it, and written back in the same form.

A training script keeps more in a file than weights, and wrappers put prefixes before their names. What is read here
remembers both, so that the revised file loads where the old one did. Pickled files are opened as ``torch.load(...,
weights_only=True)`` alone, which runs no code.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..checkpoints import (
    WRAPPERS,
    check_tied,
    load_tensors_file,
    misfits,
    plain_name,
    refuse_other_files,
    save_tensors,
)
from ..errors import CheckpointError, check_choice, check_path_exists
from ..files import replacing

FORMATS = ("safetensors", "pth")

# Where training scripts keep the weights.
KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "model_ema",
    "ema",
    "ema_state_dict",
)

COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights

CONVERT = (
    "content = torch.load(PATH, weights_only=False)  # where you trust the file, in the environment that wrote it",
    'torch.save(content["state_dict"], "weights.pth")  # of a whole model: content.state_dict()',
)


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: Where it is.
        form: "safetensors" or "pth".
        tensors: The tensors by name, on the CPU.
        key: Under which keys of the file they lie, outermost first; empty where the file is the state dict itself.
        content: The whole of a pickled file; a safetensors file's header.
    """

    path: Path
    form: str
    tensors: dict[str, Tensor]
    key: tuple[str, ...] = ()
    content: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class FittedWeights:
    """How the tensors of a file belong to a model.

    Attributes:
        file: The file.
        names: The file's name of each of the model's own names.
        stripped: What was taken off the names, in words; the empty string for nothing.
        beside: Names of tensors that are no part of the model, and stay as they are.
    """

    file: WeightsFile
    names: Mapping[str, str]
    stripped: str
    beside: tuple[str, ...]


@checked
def read_weights(path: str | Path, *, key: str | None = None) -> WeightsFile:
    """Read a file of weights: safetensors, or what ``torch.save`` wrote of tensors and plain values.

    Args:
        path: The file.
        key: The key under which a pickled file keeps the weights, dotted where they lie deeper; found by itself among
            the customary ones otherwise.

    Raises:
        FileNotFoundError: When there is no file.
        CheckpointError: When it cannot be read, runs code to be opened, or holds no weights where they were sought.
        ValueError: When ``key`` is not in the file, naming those that are.
    """
    source = check_path_exists("weights", path)
    if not source.is_file():
        raise CheckpointError(f"cannot read {str(path)!r}: it is not a file")
    with source.open("rb") as start:
        begins = start.read(4)
    if source.suffix == ".safetensors" or not (begins.startswith(b"PK") or begins[:1] == b"\x80"):
        tensors, header = load_tensors_file(source)
        return WeightsFile(source, "safetensors", tensors, (), header)
    content = _unpickled(source)
    place = tuple(key.split(".")) if key is not None else _find(content, source)
    found = content
    for part in place:
        found = _item(found, part, source)
    if not _is_state(found):
        kinds = {name: type(value).__name__ for name, value in content.items()} if isinstance(content, Mapping) else {}
        raise CheckpointError(
            f"expected {str(path)!r} to hold named tensors{' under ' + key if key else ''}, but got "
            f"{kinds or type(content).__name__}; say under which key they lie"
        )
    return WeightsFile(source, "pth", {name: tensor.detach() for name, tensor in found.items()}, place, content)


@checked
def fit_weights(file: WeightsFile, model: nn.Module) -> FittedWeights:
    """Find the model's tensors in a file, whatever stands before their names.

    Raises:
        CheckpointError: When names, shapes or dtypes do not fit, naming them; when the file holds the whole model
            several times, as of a student and its teacher, of which one serves.
    """
    own = model.state_dict()
    plain = {plain_name(name): name for name in own}
    there = {plain_name(name): name for name in file.tensors}
    prefixes = _prefixes(plain, there)
    prefix = max(prefixes, key=lambda text: sum(text + short in there for short in plain), default="")
    given_shapes = {short: file.tensors[name].shape for short, name in there.items()}
    whole = [
        text
        for text in prefixes
        if all(given_shapes.get(text + short) == own[name].shape for short, name in plain.items())
    ]
    if len(whole) > 1:
        raise CheckpointError(
            f"expected one set of weights in {str(file.path)!r}, but it holds the whole model after each of {whole}; "
            "leave the others out of the file: they are copies, and remember what is to be forgotten"
        )
    names = {name: there[prefix + short] for short, name in plain.items() if prefix + short in there}
    inside = {name for short, name in there.items() if short.startswith(prefix)}
    inside -= {there[COUNTER]} if COUNTER in there.keys() - plain.keys() else set()
    beside = tuple(name for name in file.tensors if name not in inside)
    given = {mine: file.tensors[theirs] for mine, theirs in names.items()}
    given |= {name: file.tensors[name] for name in inside - set(names.values())}
    # A model is served in half precision and built in single: its dtype is the file's.
    given = {name: t.to(own[name].dtype) if name in own and _floats(t, own[name]) else t for name, t in given.items()}
    problems = misfits(own, given)
    if problems:
        refuse_other_files(file.path, file.tensors, file.content if file.form == "safetensors" else {})
        said = f", without {prefix!r} before their names" if prefix else ""
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"{str(file.path)!r} does not fit this {type(model).__name__}{said}: {shown}")
    wrapped = [f"{part}." for part in WRAPPERS if any(part in name.split(".") for name in names.values())]
    stripped = " and ".join(repr(text) for text in dict.fromkeys([*([prefix] if prefix else []), *wrapped]))
    return FittedWeights(file, names, stripped, beside)


@checked
def load_into(fitted: FittedWeights, model: nn.Module) -> nn.Module:
    """Give ``model`` the weights of the file, in the dtypes of the file, and return it.

    Raises:
        CheckpointError: When tensors that are tied in the model differ in the file.
    """
    given = {mine: fitted.file.tensors[theirs] for mine, theirs in fitted.names.items()}
    owned = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in owned:
        if name in given:
            tensor.data = tensor.data.to(given[name].dtype)
    model.load_state_dict(given)
    check_tied(model, given, fitted.file.path)
    return model


@checked
def write_weights(
    fitted: FittedWeights, state: Mapping[str, Tensor], path: str | Path, *, form: str | None = None
) -> tuple[str, ...]:
    """Write a revised model's weights under the names and in the form of the file that the original came from.

    Of a training checkpoint the weights and the plain values beside them are written. What else holds tensors (an
    optimiser's state, averaged weights, other copies) remembers the data that were forgotten, and is left out.

    Args:
        fitted: How the original's file belongs to the model.
        state: The revised model's ``state_dict``.
        path: The file to write; one that is there is replaced whole, or stays as it was.
        form: "safetensors" or "pth"; the original's by default.

    Returns:
        The keys that were left out.

    Raises:
        ValueError: When ``state`` is not of this model, or ``form`` is none of them.
        FileNotFoundError: When the folder is missing.
        CheckpointError: When the file cannot be written.
    """
    kind = check_choice("form", fitted.file.form if form is None else form, FORMATS)
    unfit = sorted(set(state) ^ set(fitted.names))
    if unfit:
        raise ValueError(
            f"expected state to have the names of the original's, but got {unfit[:8]} in one of them alone"
        )
    old = fitted.file.tensors
    tensors = dict(old)  # in their order
    for mine, theirs in fitted.names.items():
        tensors[theirs] = state[mine].detach().to("cpu", old[theirs].dtype).clone(memory_format=torch.contiguous_format)
    if kind == "safetensors":
        header = fitted.file.content if fitted.file.form == "safetensors" else {"format": "pt"}
        save_tensors(tensors, path, {**header})
        return () if fitted.file.form == "safetensors" else _outside(fitted.file)
    content: Any = _tied_again(tensors, old)
    left_out: tuple[str, ...] = ()
    if fitted.file.form == "pth":
        left_out = _outside(fitted.file)
        for depth in range(len(fitted.file.key) - 1, -1, -1):
            around = fitted.file.content
            for part in fitted.file.key[:depth]:
                around = around[part]
            content = {
                name: content if name == fitted.file.key[depth] else value
                for name, value in around.items()
                if name == fitted.file.key[depth] or not _holds_tensors(value)
            }
    buffer = io.BytesIO()  # to a buffer, since the file's own name would become part of its bytes
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return left_out


def _unpickled(source: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what it cannot read it refuses
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first, second = CONVERT
        raise CheckpointError(
            f"{str(source)!r} is a pickle of more than tensors and plain values and is refused, because opening it can "
            f"run any code. Convert it by these two lines:\n{first.replace('PATH', repr(str(source)))}\n{second}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"cannot read {str(source)!r}: {error}") from error


def _find(content: Any, source: Path) -> tuple[str, ...]:
    """Return under which of the customary keys a file keeps its weights; empty where it is the weights itself, or none.

    Raises:
        CheckpointError: When there are several, of which only one can be what serves.
    """
    found = _places(content)
    if len(found) > 1:
        raise CheckpointError(
            f"expected one set of weights in {str(source)!r}, but it holds some under each of "
            f"{['.'.join(place) for place in found]}; say by key= which of them serves"
        )
    return found[0] if found else ()


def _places(content: Any) -> list[tuple[str, ...]]:
    if _is_state(content):
        return [()]
    found = []
    for key in KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            found += [(key, *deeper) for deeper in _places(content[key])]
    return found


def _item(found: Any, part: str, source: Path) -> Any:
    if not isinstance(found, Mapping) or part not in found:
        known = [str(name) for name in found] if isinstance(found, Mapping) else []
        check_choice(f"the key in {str(source)!r}", part, known)
    return found[part]


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 1
    if isinstance(value, Mapping):
        return any(_holds_tensors(item) for item in value.values())
    return isinstance(value, (list, tuple, set)) and any(_holds_tensors(item) for item in value)


def _outside(file: WeightsFile) -> tuple[str, ...]:
    """Return the keys of a training checkpoint that hold tensors and are not the weights."""
    found: list[str] = []
    around = file.content
    for depth, key in enumerate(file.key):
        found += [
            ".".join((*file.key[:depth], str(name)))
            for name, value in around.items()
            if name != key and _holds_tensors(value)
        ]
        around = around[key]
    return tuple(found)


def _prefixes(own: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return what may stand before the model's names in the file, the shortest first."""
    first = next(iter(own), "")
    return sorted(
        {name[: -len(first)] for name in there if name == first or name.endswith(f".{first}")},
        key=lambda text: (len(text), text),
    )


def _floats(a: Tensor, b: Tensor) -> bool:
    return a.is_floating_point() and b.is_floating_point() and a.shape == b.shape


def _tied_again(tensors: dict[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with those that were one in the old file as one again."""
    first: dict[tuple[int, ...], str] = {}
    for name, tensor in old.items():
        place = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), *tensor.shape)
        earlier = first.setdefault(place, name)
        if earlier != name and tensor.numel() and torch.equal(tensors[earlier], tensors[name]):
            tensors[name] = tensors[earlier]
    return tensors
