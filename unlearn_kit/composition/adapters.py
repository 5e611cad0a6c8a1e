"""Several unlearning requests as low-rank adapters on one model: on, off, weighted, combined, withdrawn.

Adapters that act together add up: ``W + sum_i w_i dW_i``. They are always added in the order they were attached in, so
the order in which they are named never changes a bit.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..adapters import adapter_names, attach, gather, is_on, scale, switch_
from ..adapters.structure import adapted_layers, check_adapted
from ..arguments import checked
from ..errors import check_choice, check_count, check_number
from ..seeding import isolated, standardized

How = Literal["sum", "svd", "ties", "dare", "dare_ties", "prune", "factors"]

# What thins and adds up the updates, by its name in ``peft``; they return to factors by SVD.
UPDATES = {
    "svd": "task_arithmetic",
    "ties": "ties",
    "dare": "dare_linear",
    "dare_ties": "dare_ties",
    "prune": "magnitude_prune",
}


@checked
def join_requests(models: Mapping[str, nn.Module]) -> nn.Module:
    """Return one model with the adapters of several, which were trained on copies of one original, all acting.

    Args:
        models: Adapted models by the name that their adapter gets. One that was joined before brings its own, under
            the names they have: later requests join those in service.

    Raises:
        TypeError: When ``models`` is no mapping, or a model has no adapters.
        ValueError: When two have one name, or replace the same module (``full=``), or when the originals differ.
    """
    return gather(models)


@checked
def weigh(model: nn.Module, weights: Mapping[str, float]) -> nn.Module:
    """Return a copy in which just the adapters named act, ``weights[name]`` times as strongly (-1: in reverse).

    Args:
        model: A model with adapters.
        weights: Weights by the adapters' names, which multiply what an adapter has (see ``adapters.scale``).

    Raises:
        ValueError: When an adapter is unknown, or a weight is not finite.
        TypeError: When the model has no adapters, or ``weights`` is no mapping.
    """
    names = adapter_names(model)
    _check_weights(weights, names)
    acting = [name for name in names if weights.get(name, 0) != 0]
    weighted = copy.deepcopy(model)
    for name in acting:
        if weights[name] != 1:
            weighted = scale(weighted, weights[name], name)
    return switch_(weighted, acting)


@checked
@standardized
def combine_adapters(
    model: nn.Module,
    weights: Mapping[str, float],
    *,
    how: How = "sum",
    name: str = "combined",
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> nn.Module:
    """Return a copy with one more adapter, made of those named in ``weights``, which alone acts.

    ========= ========================================================================================================
    sum       ``sum w_i dW_i`` exactly: the factors side by side, the ranks add up
    svd       the best approximation of that sum at ``rank``
    ties      trimmed to ``density``, signs elected, averaged (as ``composition.ties``, layer by layer); then by SVD
    dare      entries dropped at random, the rest divided by ``density``; then by SVD
    dare_ties both
    prune     trimmed to ``density`` and added; then by SVD
    factors   the factors A and B added up by themselves: cheap, and not the sum of the updates
    ========= ========================================================================================================

    Args:
        model: A model with the adapters.
        weights: Any numbers by the adapters' names, at least two; a negative one takes an adapter's effect away.
        how: One of the above.
        name: The name of the new adapter.
        rank: The rank of those by SVD (default: the largest of the adapters' own).
        density: The share of entries kept, in (0, 1], where any are dropped.
        seed: The seed of what "dare" drops.

    Raises:
        ValueError: When an adapter is unknown or replaces a module (``full=``), the name is taken, or the ranks differ
            with "factors".
        TypeError: When the model has no adapters, or ``weights`` is no mapping.
    """
    names = adapter_names(model)
    check_choice("how", how, get_args(How))
    _check_weights(weights, names)
    if len(weights) < 2:
        raise ValueError(f"expected weights of at least two adapters, but got {dict(weights)}")
    if name in names:
        raise ValueError(f"expected name to be new, but the model has adapters {names}")
    check_number("density", density, low=0, high=1, open_low=True)
    if rank is not None:
        check_count("rank", rank)
        if how not in UPDATES:
            raise ValueError(f"expected rank with an SVD, but how={how!r} settles it")
    ordered = [key for key in names if key in weights]
    configs = check_adapted(model).peft_config
    for key in ordered:
        if configs[key].modules_to_save:
            replaced = list(configs[key].modules_to_save)
            raise ValueError(f"expected adapters that replace no module, but {key!r} replaces {replaced}")
    ranks = [configs[key].r for key in ordered]
    if how == "factors" and len(set(ranks)) > 1:
        raise ValueError(f"expected adapters of one rank with how='factors', but got {ranks}")
    made_rank = sum(ranks) if how == "sum" else rank or max(ranks)
    layers = [module for module in adapted_layers(model) if any(key in module.lora_A for key in ordered)]
    with isolated(seed), torch.no_grad(), warnings.catch_warnings():
        # At density 1 nothing is dropped, as asked for.
        warnings.filterwarnings("ignore", message="The density 1.0 is greater than or equal to 1")
        combined = attach(model, [layer.base_layer for layer in layers], made_rank, made_rank, name=name)
        for layer in adapted_layers(combined):
            if name in layer.lora_A:
                _combine(layer, {key: weights[key] for key in ordered if key in layer.lora_A}, how, name, density)
    return switch_(combined, [name])


def _combine(layer: Any, weights: Mapping[str, float], how: How, name: str, density: float) -> None:
    """Make the factors of the adapter ``name`` of one layer of those of others, the rest of them zero."""
    from peft.utils import merge_utils

    scales = [weight * layer.scaling[key] for key, weight in weights.items()]
    downs, ups = ([factors[key].weight for key in weights] for factors in (layer.lora_A, layer.lora_B))
    if how == "sum":
        down, up = torch.cat([scale * part for scale, part in zip(scales, downs, strict=True)]), torch.cat(ups, dim=1)
    elif how == "factors":
        # The sign goes to one side alone, or it would vanish from the product.
        roots = [math.sqrt(abs(scale)) for scale in scales]
        down = sum(math.copysign(r, s) * part for r, s, part in zip(roots, scales, downs, strict=True))
        up = sum(root * part for root, part in zip(roots, ups, strict=True))
    else:
        updates = [layer.get_delta_weight(key) for key in weights]
        options = (torch.tensor([float(weight) for weight in weights.values()], device=updates[0].device),)
        update = getattr(merge_utils, UPDATES[how])(updates, *options, *(() if how == "svd" else (density,)))
        left, values, right = torch.linalg.svd(update.flatten(1), full_matrices=False)
        kept = layer.r[name]
        down, up = right[:kept], (left * values)[:, :kept]
    made_down, made_up = (factors[name].weight.zero_() for factors in (layer.lora_A, layer.lora_B))
    made_down[: len(down)] = down.reshape(-1, *made_down.shape[1:])
    made_up[:, : up.shape[1]] = up.reshape(*up.shape[:2], *made_up.shape[2:])


def _check_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Refuse what is no mapping of names of adapters to finite numbers."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"expected weights to be a mapping of names to numbers, but got {type(weights).__name__}")
    for name, weight in weights.items():
        check_choice("every name in weights", name, names)
        check_number(f"weights[{name!r}]", weight)


@checked
def withdraw(model: nn.Module, name: str) -> nn.Module:
    """Return a copy without the adapter ``name``: the request is withdrawn, and the others act as if it had never been.

    Raises:
        ValueError: When the adapter is unknown, or the only one (see ``adapters.switched_off``).
        TypeError: When the model has no adapters.
    """
    names = adapter_names(model)
    check_choice("name", name, names)
    if len(names) == 1:
        raise ValueError(f"expected another adapter beside {name!r}, but it is the only one")
    left: Any = copy.deepcopy(model)
    acting = [key for key in left.base_model.active_adapters if key != name] if is_on(left) else []
    # peft warns when what it deletes is active, and takes one successor at most for a module that was replaced.
    switch_(left, [next(key for key in names if key != name)])
    left.delete_adapter(name)
    return switch_(left, acting)
