"""A run on disk: enough to continue it with the same bits as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load_tensors_file, save_tensors
from ..errors import CheckpointError
from .callbacks import Callback, Run
from .phases import Leg


@dataclass(frozen=True)
class Saved:
    """A run read back: where it was, and optimiser states by key."""

    done: int
    optimizers: dict[str, dict[int, dict[str, Any]]]


def fingerprint(legs: Sequence[Leg], seed: int) -> str:
    """A text that differs between runs which cannot continue one another."""
    rows = [
        [
            leg.key, leg.start, leg.stop, str(leg.phase.terms), str(leg.phase.optimizer), str(leg.phase.lr),
            leg.phase.momentum, leg.phase.weight_decay, leg.phase.clip, leg.phase.batch_norm, str(leg.phase.batch_size),
            {name: len(data) for name, data in leg.phase.streams.items()},
        ]
        for leg in legs
    ]  # fmt: skip
    return json.dumps([seed, rows])


def save_run(
    path: Path,
    mark: str,
    run: Run,
    optimizers: Mapping[str, torch.optim.Optimizer],
    callbacks: Sequence[Callback],
) -> None:
    """Write the run to ``path``, in one piece or not at all.

    Raises: CheckpointError naming an optimiser whose state holds more than tensors.
    """
    tensors = {f"model/{name}": value for name, value in run.model.state_dict().items()}
    for key, optimizer in optimizers.items():
        for place, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{key}/{place}/{name}"] = value
                elif value is not None:
                    raise CheckpointError(
                        f"expected the state of {type(optimizer).__name__} to be tensors, but {name!r} is "
                        f"{type(value).__name__}: this optimiser cannot be resumed"
                    )
    states = []
    for place, callback in enumerate(callbacks):
        state = dict(callback.state())
        held: dict[str, Tensor] = state.pop("tensors", {})
        tensors |= {f"callback/{place}/{name}": value for name, value in held.items()}
        states.append(state)
    metadata = {
        "run": mark,
        "done": str(run.done),
        "history": json.dumps(run.history),
        "callbacks": json.dumps(states),
    }
    # Clones, since tensors that share memory cannot be written; on the CPU, since a file has no device.
    save_tensors({name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}, path, metadata)


def load_run(path: Path, mark: str, run: Run, callbacks: Sequence[Callback]) -> Saved:
    """Read a run back into ``run.model``, ``run.history`` and the callbacks.

    Raises: CheckpointError when the file is unreadable, or of another run.
    """
    tensors, metadata = load_tensors_file(path)
    if metadata.get("run") != mark:
        raise CheckpointError(
            f"expected {str(path)!r} to hold a run with this model, program and seed, but it holds another; "
            "remove it, or name another checkpoint"
        )
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "callback": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    _restore(run.model, groups["model"], path)
    optimizers: dict[str, dict[int, dict[str, Any]]] = {}
    for name, value in groups["optimizer"].items():
        key, place, field = name.rsplit("/", 2)
        optimizers.setdefault(key, {}).setdefault(int(place), {})[field] = value
    run.history[:] = json.loads(metadata["history"])
    for number, (callback, state) in enumerate(zip(callbacks, json.loads(metadata["callbacks"]), strict=True)):
        own = {n.partition("/")[2]: v for n, v in groups["callback"].items() if n.startswith(f"{number}/")}
        callback.load_state({**state, "tensors": own})
    return Saved(int(metadata["done"]), optimizers)


def _restore(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"expected {str(path)!r} to hold this network, but: {error}") from error
