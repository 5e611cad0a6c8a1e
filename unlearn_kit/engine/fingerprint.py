"""What tells runs apart that cannot continue one another: texts of a model, a program, its data and its seed.

They are the same in every process of one version of Python, and made of contents, never of addresses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.tensors import iterate, labels_of
from ..hashing import hash_model, hash_tensor
from ..seeding import isolated
from .phases import Leg, Phase

Mark = dict[str, str]

# So many samples of a stream, evenly spread over it, stand for all of them.
SPREAD = 16
# Told apart by its repr alone; all else is taken apart.
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
# Functions and classes of these are known by their names, all others by their code.
LIBRARIES = {"numpy", "torch", *sys.stdlib_module_names}


def fingerprint(legs: Sequence[Leg], model: nn.Module, seed: int) -> Mark:
    """Return texts that differ between runs which cannot continue one another.

    Of the data: the length, the labels where they are exposed, and ``SPREAD`` samples of each stream.

    Args:
        legs: The program.
        model: The model it starts from.
        seed: The seed of the run.

    Returns:
        A text for each of "model", "program", "data" and "seed".

    Raises:
        TypeError: When something in the program cannot be told apart from others, naming the argument.
    """
    phases = {leg.key: leg.phase for leg in legs}
    program = [
        [[leg.key, leg.optimizer_key, leg.start, leg.stop, leg.total] for leg in legs],
        {key: _options(phase, model) for key, phase in phases.items()},
    ]
    data = [[key, name, _samples(held)] for key, phase in phases.items() for name, held in phase.streams.items()]
    texts = {"program": repr(program), "data": repr(data)}
    return {"model": hash_model(model), **{part: _digest(text) for part, text in texts.items()}, "seed": str(seed)}


def describe(value: Any, name: str) -> str:
    """Return a text that tells a value apart from others.

    A function is described by its bytecode, defaults and closure, and by the numbers, texts, tensors and functions of
    its own module that it names; an object by its class and by what ``pickle`` would save of it.

    Args:
        value: The value.
        name: What it is called in the error.

    Returns:
        32 hexadecimal digits.

    Raises:
        TypeError: When the value, or a part of it, such as an open file or a generator, hides what it holds.
    """
    return _Describer(name).text(value)


def _options(phase: Phase, model: nn.Module) -> dict[str, Any]:
    """Describe all that a phase is but its data, and the number of workers, which changes no bit."""
    own = [f.name for f in dataclasses.fields(phase) if f.name not in ("streams", "workers", "trainable")]
    options = {option: describe(getattr(phase, option), f"{option} of phase {phase.name!r}") for option in own}
    # What a function chooses says all about it.
    return {**options, "trainable": list(phase.trains(model))}


def _samples(dataset: Any) -> list[str]:
    """Describe a data set by its length, its labels and a spread of its samples."""
    count, labels = len(dataset), labels_of(dataset)
    positions = sorted({place * (count - 1) // (SPREAD - 1) for place in range(SPREAD)})
    with isolated(0):  # A data set may draw random numbers when it is read.
        # One by one, since samples of several sizes make no batch.
        spread = [hash_tensor(part) for pair in iterate(dataset, torch.tensor(positions).split(1)) for part in pair]
    return [str(count), "" if labels is None else hash_tensor(labels), *spread]


class _Describer:
    """Describe values by their contents; one that comes again, as in a circle, costs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: dict[int, tuple[Any, str]] = {}  # The values are held, or others could take their ids.
        self._open: list[int] = []

    def text(self, value: Any) -> str:
        """Return a short text for ``value``."""
        if type(value) in PLAIN:
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._open:
            return f"circle {self._open.index(id(value))}"
        if id(value) not in self._known:
            self._open.append(id(value))
            self._known[id(value)] = value, _digest(repr(self._parts(value)))
            self._open.pop()
        return self._known[id(value)][1]

    def _texts(self, values: Any) -> list[str]:
        return [self.text(value) for value in values]

    def _parts(self, value: Any) -> list[str]:
        kind = type(value).__name__
        if isinstance(value, nn.Module):
            return [hash_model(value)]
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and not value.dtype.hasobject):
            return [hash_tensor(value)]
        if isinstance(value, ModuleType):
            return [kind, value.__name__]
        if isinstance(value, (FunctionType, type)) and value.__module__.partition(".")[0] in LIBRARIES:
            return [kind, value.__module__, value.__qualname__]
        if isinstance(value, CodeType):
            return [kind, value.co_code.hex(), *value.co_names, *self._texts(value.co_consts)]
        if isinstance(value, FunctionType):
            return [kind, *self._texts(_parts_of_function(value))]
        if isinstance(value, type):
            return [kind, value.__module__, value.__qualname__, *self._texts(_parts_of_class(value))]
        if isinstance(value, (list, tuple)):
            return [kind, *self._texts(value)]
        if isinstance(value, (set, frozenset)):
            return [kind, *sorted(self._texts(value))]
        if isinstance(value, Mapping):
            return [kind, *self._texts(item for pair in value.items() for item in pair)]
        if dataclasses.is_dataclass(value):
            return self._texts([type(value), *(getattr(value, f.name) for f in dataclasses.fields(value))])
        return self._texts(self._saved(value))

    def _saved(self, value: Any) -> list[Any]:
        """Return what ``pickle`` would save of an object."""
        try:
            saved = value.__reduce_ex__(4)
        except Exception as error:
            raise TypeError(
                f"expected {self.name} to hold what can be told apart from others with checkpoint=, but it holds "
                f"{type(value).__name__}: {value!r}"
            ) from error
        if isinstance(saved, str):  # The name of a global, or of a function that something is wrapped around.
            return [type(value), getattr(value, "__module__", None), saved, getattr(value, "__wrapped__", None)]
        return [part if place < 3 or part is None else list(part) for place, part in enumerate(saved[:5])]


def _parts_of_function(function: FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append([cell.cell_contents])
        except ValueError:  # Not assigned yet.
            cells.append([])
    names = {name for code in _codes(function.__code__) for name in code.co_names} & function.__globals__.keys()
    used = {name: function.__globals__[name] for name in sorted(names)}
    # Lists and the like are left out: they may change while the run goes on.
    held = {
        name: item
        for name, item in used.items()
        if isinstance(item, (*PLAIN, tuple, Tensor))
        or (isinstance(item, FunctionType) and item.__module__ == function.__module__)
    }
    return [function.__code__, function.__defaults__, function.__kwdefaults__, cells, held]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of the functions within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _parts_of_class(kind: type) -> list[Any]:
    """Return the functions and plain values of a class and of its bases, down to those of libraries."""
    parts: list[Any] = []
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in LIBRARIES:
            parts.append(base)
            continue
        for name, item in sorted(vars(base).items()):
            # Static and class methods and properties are functions within.
            inner = getattr(item, "__func__", getattr(item, "fget", item))
            if isinstance(inner, FunctionType) or (isinstance(inner, PLAIN) and not name.startswith("__")):
                parts += [name, inner]
    return parts


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
