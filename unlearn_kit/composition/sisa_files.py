"""A system of shards on disk: requests come months after the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..checkpoints import load_tensors_file, save_tensors
from ..errors import CheckpointError
from ..seeding import standardized
from .sisa import ShardTraining, Sisa

KEY = "sisa"


@checked
def sisa_save(system: Sisa, path: str | Path) -> Path:
    """Write a system to ``path`` (safetensors): every shard's weights after every slice, and who holds which sample.

    No sample is in it, and neither are the network's code and the data, which :func:`sisa_load` is given again. What
    was forgotten has left no trace in it; files of earlier systems have, and are to be deleted.

    Raises:
        FileNotFoundError: When the folder is missing.
        CheckpointError: When a tensor cannot be written.
    """
    tensors = {
        f"states/{shard}/{stage}/{name}": value
        for shard, own in enumerate(system.states)
        for stage, state in enumerate(own)
        for name, value in state.items()
    }
    tensors |= {f"slices/{i}/{k}": one for i, own in enumerate(system.slices) for k, one in enumerate(own)}
    told = {**_told(system.recipe), "retrained": dict(system.retrained), "share": system.share}
    return save_tensors(tensors, path, {KEY: json.dumps(told)})


@checked
@standardized
def sisa_load(
    path: str | Path,
    build: Callable[[], nn.Module],
    dataset: Any,
    *,
    device: torch.device | str | None = None,
    **options: Any,
) -> Sisa:
    """Return the system that :func:`sisa_save` wrote, to be served and to forget.

    Args:
        path: The file.
        build: What made its networks.
        dataset: The data it was trained on, each sample at its old position; forgotten ones are not trained on, and
            may be blank.
        device: Where requests are trained.
        **options: Those of the training: with others a request would not be exact.

    Raises:
        FileNotFoundError: When there is no file.
        CheckpointError: When it holds no system, or one of another network.
        ValueError: When the data are fewer or more, or the options are others, than it was trained with.
    """
    tensors, metadata = load_tensors_file(path)
    if KEY not in metadata:
        raise CheckpointError(f"expected {str(path)!r} to hold a system that sisa_save wrote, but it holds none")
    told = json.loads(metadata[KEY])
    recipe = ShardTraining(build, dataset, told["aggregate"], told["epochs"], told["seed"], device, options)
    for name, value in _told(recipe).items():
        if value != told[name]:
            raise ValueError(f"expected {name} to be those of the training, {told[name]}, but got {value}")
    slices: dict[tuple[int, int], Tensor] = {}
    states: dict[tuple[int, int], dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, shard, stage, *rest = key.split("/", 3)
        place = int(shard), int(stage)
        if kind == "slices":
            slices[place] = value
        else:
            states.setdefault(place, {})[rest[0]] = value
    shards = range(1 + max(shard for shard, _ in slices))
    stages = range(1 + max(stage for _, stage in slices))
    network = recipe.member(0)
    cut = tuple(tuple(slices[shard, stage] for stage in stages) for shard in shards)
    made = tuple(tuple(_fitting(path, network, states[shard, stage]) for stage in stages) for shard in shards)
    retrained = {int(shard): count for shard, count in told["retrained"].items()}
    return Sisa(recipe.aggregated(cut, made), cut, made, retrained, told["share"], recipe)


def _told(recipe: ShardTraining) -> dict[str, Any]:
    """Return what a file says of how a system is trained."""
    options = {name: str(value) for name, value in sorted(recipe.options.items())}
    own = {"aggregate": recipe.aggregate, "epochs": recipe.epochs, "seed": recipe.seed}
    return {**own, "samples": len(recipe.dataset), "options": options}


def _fitting(path: str | Path, network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state in the network's own order, which a file does not keep."""
    own = network.state_dict()
    odd = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if odd:
        raise CheckpointError(f"expected {str(path)!r} to fit the network that build makes, but {odd[:3]} do not")
    return {name: state[name] for name in own if name in state}
