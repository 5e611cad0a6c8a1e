"""A run on disk: enough to continue it with the same bits as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import load_tensors_file, save_tensors
from ..errors import CheckpointError
from .callbacks import Callback, Run
from .fingerprint import Mark

Numbers = (bool, int, float, str)


@dataclasses.dataclass
class OptimizerState:
    """What an optimiser has to be given back.

    Attributes:
        state: Tensors and numbers by name, for each parameter's place.
        groups: The numbers of each group of parameters.
    """

    state: dict[int, dict[str, Any]]
    groups: list[dict[str, Any]]

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> OptimizerState:
        """Take the state of ``optimizer``.

        Raises:
            CheckpointError: When its state holds more than tensors and numbers.
        """
        held = optimizer.state_dict()
        for state in held["state"].values():
            for name, value in state.items():
                if value is not None and not isinstance(value, (Tensor, *Numbers)):
                    raise CheckpointError(
                        f"expected the state of {type(optimizer).__name__} to be tensors and numbers, but {name!r} is "
                        f"{type(value).__name__}: this optimiser cannot be resumed"
                    )
        groups = [{k: v for k, v in group.items() if isinstance(v, Numbers)} for group in held["param_groups"]]
        return cls(held["state"], groups)

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the state back to a new optimiser of the same kind."""
        groups = optimizer.state_dict()["param_groups"]
        merged = [{**group, **saved} for group, saved in zip(groups, self.groups, strict=True)]
        optimizer.load_state_dict({"state": self.state, "param_groups": merged})


def save_run(
    path: Path, mark: Mark, run: Run, optimizers: Mapping[str, OptimizerState], callbacks: Sequence[Callback]
) -> None:
    """Write the run to ``path``, in one piece or not at all."""
    tensors = {f"model/{name}": value for name, value in run.model.state_dict().items()}
    numbers: dict[str, Any] = {}
    for key, saved in optimizers.items():
        for place, state in saved.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{key}/{place}/{name}"] = value
                else:
                    numbers[f"{key}/{place}/{name}"] = value
    states = []
    for number, callback in enumerate(callbacks):
        state = dict(callback.state())
        held: dict[str, Tensor] = state.pop("tensors", {})
        tensors |= {f"callback/{number}/{name}": value for name, value in held.items()}
        states.append([type(callback).__name__, state])
    header = {
        "done": run.done,
        "stopping": run.stopping,
        "history": run.history,
        "callbacks": states,
        "groups": {key: saved.groups for key, saved in optimizers.items()},
        "numbers": numbers,
    }
    metadata = {**{f"run/{part}": text for part, text in mark.items()}, "run": json.dumps(header)}
    save_tensors(tensors, path, metadata)


def load_run(path: Path, mark: Mark, run: Run, callbacks: Sequence[Callback]) -> dict[str, OptimizerState]:
    """Read a run back into ``run`` with its model, and into the callbacks.

    Returns:
        The optimisers' states by key.

    Raises:
        CheckpointError: When the file is unreadable, or of another run.
    """
    tensors, metadata = load_tensors_file(path)
    others = [part for part, text in mark.items() if metadata.get(f"run/{part}") != text]
    header = json.loads(metadata.get("run", "{}"))
    kinds = [type(callback).__name__ for callback in callbacks]
    if not others and [kind for kind, _ in header["callbacks"]] != kinds:
        others = [f"callbacks, {[kind for kind, _ in header['callbacks']]} rather than {kinds}"]
    if others:
        what = f"another {' and '.join(others)}" if "run" in metadata else "no run"
        raise CheckpointError(
            f"expected {str(path)!r} to hold a run with this model, program, data, seed and callbacks, but it holds "
            f"{what}; remove it, or name another checkpoint"
        )
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "callback": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor
    run.model.load_state_dict(groups["model"])
    run.done, run.stopping, run.history[:] = header["done"], header["stopping"], header["history"]
    for number, (callback, (_, state)) in enumerate(zip(callbacks, header["callbacks"], strict=True)):
        own = {n.partition("/")[2]: v for n, v in groups["callback"].items() if n.startswith(f"{number}/")}
        callback.load_state({**state, "tensors": own})
    saved = {key: OptimizerState({}, parts) for key, parts in header["groups"].items()}
    for name, value in (groups["optimizer"] | header["numbers"]).items():
        key, place, field = name.rsplit("/", 2)
        saved[key].state.setdefault(int(place), {})[field] = value
    return saved
