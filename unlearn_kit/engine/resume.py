"""A run on disk: enough to continue it with the same bits as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import load_tensors_file, misfits, save_tensors, versions
from ..errors import CheckpointError
from ..hashing import hash_config
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
    """Write the run to ``path``, in one piece or not at all.

    Raises:
        TypeError: When the state of a callback is not what JSON holds, with tensors under the key "tensors".
    """
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
        state, held = _state_of(callback)
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
    metadata = {**{f"run/{part}": text for part, text in mark.items()}, "run": json.dumps(header), **versions()}
    save_tensors(tensors, path, metadata | {"run/checksum": _checksum(metadata, tensors)})


def load_run(path: Path, mark: Mark, run: Run, callbacks: Sequence[Callback]) -> dict[str, OptimizerState]:
    """Read a run back into ``run`` with its model, and into the callbacks; all of the file is checked first.

    Returns:
        The optimisers' states by key.

    Raises:
        CheckpointError: When the file is unreadable, or altered since it was written, or of another run.
    """
    tensors, metadata = load_tensors_file(path)
    if "run" not in metadata:
        raise _another(path, "no run")
    if metadata.pop("run/checksum", None) != _checksum(metadata, tensors):
        raise CheckpointError(
            f"cannot continue from {str(path)!r}: its checksum does not fit what it holds, so that it was altered "
            "since it was written; remove it, or name another checkpoint"
        )
    others = [part for part, text in mark.items() if metadata.get(f"run/{part}") != text]
    if others:
        raise _another(path, f"another {' and '.join(others)}")
    try:
        return _restore(tensors, json.loads(metadata["run"]), path, run, callbacks)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot continue from {str(path)!r}: it holds no whole run ({error!r})") from error


def _restore(
    tensors: dict[str, Tensor], header: dict[str, Any], path: Path, run: Run, callbacks: Sequence[Callback]
) -> dict[str, OptimizerState]:
    kinds = [type(callback).__name__ for callback in callbacks]
    if [kind for kind, _ in header["callbacks"]] != kinds:
        raise _another(path, f"another callbacks, {[kind for kind, _ in header['callbacks']]} rather than {kinds}")
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "callback": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor
    done, problems = header["done"], misfits(run.model.state_dict(), groups["model"])
    if isinstance(done, bool) or not isinstance(done, int) or not 0 <= done <= run.planned:
        problems.append(f"{done!r} steps done of {run.planned}")
    if problems:
        raise CheckpointError(f"cannot continue from {str(path)!r}: {'; '.join(problems)}")
    saved = {key: OptimizerState({}, parts) for key, parts in header["groups"].items()}
    for name, value in (groups["optimizer"] | header["numbers"]).items():
        key, place, field = name.rsplit("/", 2)
        saved[key].state.setdefault(int(place), {})[field] = value
    for number, (callback, (_, state)) in enumerate(zip(callbacks, header["callbacks"], strict=True)):
        own = {n.partition("/")[2]: v for n, v in groups["callback"].items() if n.startswith(f"{number}/")}
        callback.load_state({**state, "tensors": own})
    run.model.load_state_dict(groups["model"])
    run.done, run.stopping, run.history[:] = done, header["stopping"], header["history"]
    return saved


def _state_of(callback: Callback) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a callback has to have saved: what JSON holds, and its tensors."""
    kind, whole = type(callback).__name__, callback.state()
    try:
        state = dict(whole)
        tensors = dict(state.pop("tensors", {}))
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"expected the state of callback {kind} to be a dict of what JSON holds, with tensors under the key "
            f'"tensors", but got {whole!r}'
        ) from error
    return state, tensors


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return hash_config([metadata, tensors])


def _another(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"expected {str(path)!r} to hold a run with this model, program, data, seed and callbacks, but it holds "
        f"{what}; remove it, or name another checkpoint"
    )
