"""Running statistics of batch norm, measured again for weights that no training has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..arguments import checked
from ..data.tensors import drawn, iterate
from ..errors import check_count
from ..logits import giving_logits
from ..modules import BATCH_NORM, blank_copy, check_model, device_of, unwrapped
from ..seeding import generator, isolated, standardized
from .state import retain_of

STALE = "unlearn_kit_stale_statistics"


@checked
def needs_recalibration(model: nn.Module) -> bool:
    """Return whether ``model`` was merged from models of different batch-norm statistics, not measured since.

    An average of running statistics is not what the averaged weights would measure. Where all runs have the same ones,
    as when batch norm was frozen while they were made, nothing was averaged and the answer is False: measuring them on
    retain data then changes what every run was trained with, and can bring back what was forgotten.
    """
    return bool(vars(model).get(STALE, False)) and bool(_tracking(model))


@checked
@standardized
def recalibrate_batch_norm(
    model: nn.Module, data: Any, *, batch_size: int = 256, seed: int = 0, workers: int = 0
) -> nn.Module:
    """Return a copy of ``model`` whose running statistics are means over shuffled batches of all of ``data``.

    Only batch norm is in training mode meanwhile; nothing else is trained, drops out or changes. Its own momentum is
    left as it was; its count of batches becomes the number read.

    Args:
        model: any module; without batch norm the copy is equal.
        data: the retain data, or an :class:`UnlearnTask`, of which only ``retain`` is read. Forget data in it would
            bring back what was forgotten into the statistics.
        batch_size: samples a batch, as near as equal batches allow; a mean of batches weighs them by their samples.
        seed: of the shuffling, and of random transforms that the data may apply.
        workers: processes that decode, for data not held in tensors.

    Raises:
        ValueError: On fewer than two samples, or when the statistics are not finite.
        TypeError: When an argument is of another type, by its name.
    """
    model = check_model(model)
    out = blank_copy(model)
    recalibrate_(out, data, batch_size=batch_size, seed=seed, workers=workers)
    return out


@torch.no_grad()
def recalibrate_(
    model: nn.Module, data: Any, *, batch_size: int = 256, seed: int = 0, workers: int = 0, name: str = "data"
) -> None:
    """:func:`recalibrate_batch_norm` in place; errors call the data ``name``."""
    check_count("batch_size", batch_size, low=2)
    retain = retain_of(name, data)
    if len(retain) < 2:
        raise ValueError(f"expected {name} to hold at least 2 samples to retain, but got {len(retain)}")
    layers = _tracking(model)
    if layers:
        modes = [(module, module.training) for module in model.modules()]
        momenta = [layer.momentum for layer in layers]
        device, seen = device_of(model), 0
        try:
            model.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.train()
            # Shuffled: a batch of one class would know nothing of the variance between classes.
            order = torch.randperm(len(retain), generator=generator(seed, "recalibrate"))
            # Equal batches: a last one of a single sample has no variance.
            batches = order.tensor_split(math.ceil(len(retain) / batch_size))
            with isolated(seed), torch.no_grad(), giving_logits(model):
                for x, _ in iterate(drawn(retain, seed), batches, workers=workers):
                    seen += len(x)
                    for layer in layers:
                        layer.momentum = len(x) / seen
                    model(x.to(device))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            for module, mode in modes:
                module.training = mode
        check_model(model, "the recalibrated model")
    vars(model).pop(STALE, None)


def settle(
    out: nn.Module, models: Sequence[nn.Module], data: Any | None, *, inside: Sequence[str] | None = None
) -> nn.Module:
    """Return the result of a merge: its statistics measured on ``data``, or marked as of other weights.

    ``inside`` names the modules that were merged; None for all of the model.
    """
    if data is not None:
        recalibrate_(out, data, name="recalibrate")
    elif not same_statistics(models, inside) or any(vars(unwrapped(model)).get(STALE, False) for model in models):
        setattr(out, STALE, True)
    return out


def same_statistics(models: Sequence[nn.Module], inside: Sequence[str] | None = None) -> bool:
    """Return whether all models have the same batch-norm statistics, in the modules ``inside`` or anywhere."""
    states = []
    for model in models:
        parts = [model] if inside is None else [model.get_submodule(name) for name in inside]
        states.append([s.cpu() for part in parts for m in _tracking(part) for s in (m.running_mean, m.running_var)])
    return all(torch.equal(a, b) for other in states[1:] for a, b in zip(states[0], other, strict=True))


def _tracking(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, BATCH_NORM) and m.running_mean is not None]
