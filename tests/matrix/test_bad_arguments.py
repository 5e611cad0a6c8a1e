"""One wrong argument at a time, in every public function: a right result, or an error that names the argument."""

from __future__ import annotations

import itertools
import math
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from calls import CALLS, RECORDS, ROOMS, Things
from cells import alike, snapshot, surroundings
from unlearn_kit import CheckpointError, DataNotFoundError, DivergenceError, adapters, save_model

NAMED = (ValueError, TypeError, CheckpointError, DataNotFoundError, DivergenceError, FileNotFoundError)

# Calls with a wrong argument a room: more than 500 in all.
EXAMPLES = 180

# Functions that change a model they are given, and say so.
CHANGES = {"adapters.switch_", "models.declare_head", "models.reinitialize_", "tuning.scale_adapters"}
# Networks draw their weights from torch's random state, as all of torch's modules do.
DRAWS = {f"models.{name}" for name in ("all_cnn", "build", "mlp", "resnet", "small_cnn", "unet")}

WRONG: dict[str, Callable[[Things], Any]] = {
    "None": lambda t: None,
    "''": lambda t: "",
    "'abc'": lambda t: "abc",
    "bytes": lambda t: b"abc",
    "[]": lambda t: [],
    "[None]": lambda t: [None],
    "{}": lambda t: {},
    "{1, 2}": lambda t: {1, 2},
    "object()": lambda t: object(),
    "nan": lambda t: math.nan,
    "inf": lambda t: math.inf,
    "-1": lambda t: -1,
    "0": lambda t: 0,
    "0.5": lambda t: 0.5,
    "1j": lambda t: 1j,
    "-10**400": lambda t: -(10**400),
    "10**400": lambda t: 10**400,
    "True": lambda t: True,
    "int": lambda t: int,
    "a function": lambda t: lambda *arguments: None,
    "a model": lambda t: t.other,
    "a data set": lambda t: t.task.retain,
    "a task": lambda t: t.task,
    "an empty tensor": lambda t: torch.empty(0),
    "a tensor of nan": lambda t: torch.full((4, 3), math.nan),
    "a tensor": lambda t: torch.full((4, 3), 0.5),
    "an array of text": lambda t: np.array(["a", "b"]),
    "-0.5": lambda t: -0.5,
    "2": lambda t: 2,
    "[nan]": lambda t: [math.nan],
    "[-1]": lambda t: [-1],
    "{'a': None}": lambda t: {"a": None},
    "{3: 4}": lambda t: {3: 4},
    "a generator": lambda t: (number for number in ()),
}


# What samples are read by, batch by batch: their data sets and indices are looked at by those who call them.
EXEMPT = (
    # What a batch is, the loss that is given with it says.
    "tuning.unroll",
    "data.in_order",
    "data.iterate",
    "data.load_tensors",
)


def wrong_values(valid: Any) -> list[str]:
    """Return the values to try in the place of a valid one: no endless runs, and nothing of its own kind."""
    left = {"True"} if isinstance(valid, bool) else set()
    if valid is None or isinstance(valid, int):
        left |= {"10**400", "-10**400"}  # An int may be as large as it likes; of steps, so many would take for ever.
    if callable(valid):
        left |= {"int", "a model", "a function"}  # They can be called.
    return [name for name in WRONG if name not in left]


def fault(key: str, wrong: Mapping[str, Any]) -> str | None:
    """Return what is wrong with what a call does with wrong arguments; None when nothing is."""
    function, arguments = CALLS[key]
    values = arguments(Things()) | wrong
    models = [value for value in _flat(values.values()) if isinstance(value, nn.Module)]
    before, world, raised = [snapshot(model) for model in models], surroundings(), False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".* changed no weight")  # as a rate of 0 does
            function(**values)
    except NAMED as error:
        raised, text = True, str(error)
        # Of arguments that do not fit together, either may be named; "to" and "on" are words of any sentence.
        others = [name for name in values if len(name) > 3]
        file = isinstance(error, CheckpointError) and any(
            repr(value) in text for value in wrong.values()
        )  # Of files the path is told instead.
        words = "|".join(map(re.escape, [*wrong, *(name.removesuffix("s") for name in wrong), *others]))
        if not file and not re.search(rf"\b({words})\b", text):
            return f"{type(error).__name__} names no argument: {text.splitlines()[0] if text else ''}"
    except Exception as error:  # Whatever else comes is what is looked for
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    changed = [what for what, value in surroundings().items() if not alike(value, world[what])]
    if key in DRAWS and not raised:
        changed = [what for what in changed if what != "torch's random state"]
    if raised or key not in CHANGES:
        after = [snapshot(model) for model in models]
        changed += [
            what for old, new in zip(before, after, strict=True) for what in old if not alike(new[what], old[what])
        ]
    return f"changed the caller's {', '.join(changed)}" if changed else None


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        elif isinstance(value, dict):
            yield from _flat(value.values())
        else:
            yield value


@pytest.fixture(autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder that holds the files that valid calls read."""
    monkeypatch.chdir(tmp_path_factory.mktemp("calls"))
    model = Things().model
    save_model(model, "saved.safetensors")
    with torch.random.fork_rng(devices=[]):
        adapters.save(adapters.attach(model, "head", rank=1), "saved-adapters.safetensors")


def test_every_public_function_is_called() -> None:
    missing = {
        f"{room}.{name}"
        for room, module in ROOMS.items()
        for name in module.__all__
        if callable(getattr(module, name)) and name not in RECORDS.get(room, ()) and f"{room}.{name}" not in CALLS
    }
    assert missing == set()


@pytest.mark.parametrize("key", CALLS)
def test_a_valid_call_is_right(key: str) -> None:
    function, arguments = CALLS[key]
    function(**arguments(Things()))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_wrong_argument_is_named(room: str) -> None:
    valid = {
        key: arguments(Things())
        for key, (_, arguments) in CALLS.items()
        if key.startswith(f"{room}.") and key not in EXEMPT
    }
    places = [(key, argument) for key, values in valid.items() for argument in values]
    found = {}

    # Every draw counts: what falls is collected, so that one run names all of it. Drawn by a seed of the room's own,
    # so that every run and every machine draws the same.
    every = [(key, argument, name) for key, argument in places for name in WRONG]
    for key, argument, name in random.Random(room).sample(every, min(EXAMPLES, len(every))):
        if (
            name in wrong_values(valid[key][argument])
            and (words := fault(key, {argument: WRONG[name](Things())})) is not None
        ):
            found[f"{key}({argument}={name})"] = words
    assert found == {}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_swapped_arguments_are_named(room: str) -> None:
    # The first two are what people swap: model and task, model and data set; of the others some are drawn.
    pairs = {key: list(swaps(key)) for key in CALLS if key.startswith(f"{room}.") and key not in EXEMPT}
    first = [(key, *some[0]) for key, some in pairs.items() if some]
    others = [(key, *pair) for key, some in pairs.items() for pair in some[1:]]
    found = {}
    for key, a, b in first + random.Random(room).sample(others, min(EXAMPLES // 3, len(others))):
        values = CALLS[key][1](Things())
        if (words := fault(key, {a: values[b], b: values[a]})) is not None:
            found[f"{key}({a} and {b})"] = words
    assert found == {}


def swaps(key: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of arguments of a call whose values are of different kinds."""
    values = CALLS[key][1](Things())
    for a, b in itertools.combinations(values, 2):
        if type(values[a]) is not type(values[b]) and {type(values[a]), type(values[b])} != {int, float}:
            yield a, b
