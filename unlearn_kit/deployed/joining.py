"""Adapters of several requests, each trained alone on the same weights, in one model that serves."""

from __future__ import annotations

import copy
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import adapters
from ..adapters.moving import give, take
from ..checkpoints import load_tensors_file
from ..composition.adapters import join_requests
from ..errors import CheckpointError
from ..evidence.ledger import ActingAdapter
from ..results import UnlearnResult
from ..tasks import UnlearnTask
from .networks import build_network
from .revision import Method, write_checkpoint
from .serving import Deployed
from .weights import fit_weights, load_into, read_weights


def with_checkpoint(serving: Deployed, path: Path) -> Deployed:
    """Return the same architecture and normalisation with other weights, which it will be written like.

    Raises:
        CheckpointError: When the weights do not fit the architecture.
        FileNotFoundError: When there are none.
    """
    model = copy.deepcopy(serving.model)
    network = model if serving.normalization is None else model.get_submodule("network")
    if serving.weights is None:
        built = build_network(f"hf:{path}", serving.network.options)
        network.load_state_dict(built.model.state_dict())
        return replace(serving, model=model, network=replace(built, model=network))
    key = ".".join(serving.weights.file.key) or None
    try:
        file = read_weights(path, key=key)
    except ValueError:  # written in another form, or by hand under another key
        file = read_weights(path)
    fitted = fit_weights(file, network)
    load_into(fitted, network)
    return replace(serving, model=model, weights=fitted)


def attached(base: nn.Module, acting: Sequence[ActingAdapter]) -> nn.Module:
    """Return a copy of ``base`` with these adapters, each under its request's name; ``base`` itself for none.

    Raises:
        CheckpointError: When a file is not of adapters on these weights.
    """
    model = base
    for one in acting:
        own = adapters.load(base, one.file)
        if one.key not in adapters.adapter_names(own):
            raise CheckpointError(f"expected {str(one.file)!r} to hold the adapter {one.key!r}, but got others")
        model = give(model, *take(own, one.key), one.request)
    return model


def names_in(file: Path) -> list[str]:
    """Return the names of the adapters in a file, in order."""
    _, metadata = load_tensors_file(file)
    return list(json.loads(metadata["adapters"]))


def joining(method: Method, base: nn.Module, acting: Sequence[ActingAdapter], name: str) -> Method:
    """Return the method as one that trains adapters alone on ``base``, and returns them beside those in service."""

    def joined(model: nn.Module, task: UnlearnTask, **options: Any) -> UnlearnResult:
        del model  # it holds what is in service already
        result = method(base, task, **options)
        try:
            (_,) = adapters.adapter_names(result.model)
        except (TypeError, ValueError):
            raise ValueError(
                f"expected method to make one adapter to join those in service, but {result.method} makes none or more"
            ) from None
        beside = {acting[0].request: attached(base, acting)} if acting else {}
        return replace(result, model=join_requests({**beside, name: result.model}))

    joined.__name__ = getattr(method, "__name__", str(method))
    return joined


def write_joined(serving: Deployed, acting: Sequence[ActingAdapter], folder: Path) -> Path:
    """Write the weights of ``serving`` with these adapters added into them, in its own form.

    A folder of that name is what a killed process left, and is replaced.

    Returns:
        Where they are.
    """
    whole = adapters.merge(attached(serving.model, acting))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    unfinished.mkdir()
    try:
        checkpoint, _ = write_checkpoint(serving, whole, unfinished, None)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / checkpoint.name
