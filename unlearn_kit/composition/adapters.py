"""Several unlearning requests as low-rank adapters on one model: on, off, weighted, combined, withdrawn.

Adapters that act together add up: ``W + sum_i w_i dW_i``. They are always added in the order they were attached in, so
the order in which they are named never changes a bit.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from ..adapters import adapter_names, gather, is_on, scale, switch_
from ..arguments import checked
from ..errors import check_choice, check_count, check_number
from ..seeding import isolated

How = Literal["sum", "svd", "ties", "dare", "dare_ties", "prune", "factors"]

# name here -> peft's. The thinning ones work on the updates and return to factors by SVD; peft's "linear" adds up the
# factors A and B by themselves, whose product is not the sum of the updates.
COMBINATIONS: dict[str, str] = {
    "sum": "cat",
    "svd": "svd",
    "ties": "ties_svd",
    "dare": "dare_linear_svd",
    "dare_ties": "dare_ties_svd",
    "prune": "magnitude_prune_svd",
    "factors": "linear",
}


@checked
def join_requests(models: Mapping[str, nn.Module]) -> nn.Module:
    """Return one model with the adapters of several, which were trained on copies of one original, all acting.

    Args:
        models: adapted models by the name their adapter gets; each has one adapter.

    Raises:
        TypeError: On a model without adapters.
        ValueError: When one has several, when two replace the same module (``full=``), or when the originals differ.
    """
    return gather(models)


@checked
def weigh(model: nn.Module, weights: Mapping[str, float]) -> nn.Module:
    """Return a copy in which just the adapters named act, ``weights[name]`` times as strongly (-1: in reverse).

    Weights multiply what an adapter has (see ``adapters.scale``).

    Raises:
        ValueError: On an unknown adapter or a weight that is not finite.
        TypeError: On a model without adapters.
    """
    names = adapter_names(model)
    for name, weight in weights.items():
        check_choice("every name in weights", name, names)
        check_number(f"weights[{name!r}]", weight)
    acting = [name for name in names if weights.get(name, 0) != 0]
    weighted = copy.deepcopy(model)
    for name in acting:
        if weights[name] != 1:
            weighted = scale(weighted, weights[name], name)
    return switch_(weighted, acting)


@checked
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
    """Return a copy with one more adapter, made of those named in ``weights``, which alone acts; made by ``peft``.

    ======== =========================================================================================================
    sum      ``sum w_i dW_i`` exactly: the factors side by side, the ranks add up (peft: cat)
    svd      the best approximation of that sum at ``rank``
    ties     trimmed to ``density``, signs elected, averaged (as ``composition.ties``, layer by layer); then by SVD
    dare     entries dropped at random, the rest divided by ``density``; then by SVD
    dare_ties both
    prune    trimmed to ``density`` and added; then by SVD
    factors  the factors A and B added up by themselves: cheap, and not the sum of the updates (peft: linear)
    ======== =========================================================================================================

    Args:
        model: with the adapters.
        weights: any numbers, at least two of them; a negative one takes an adapter's effect away.
        how: see above.
        name: of the new adapter.
        rank: of the SVD ones (default: the largest of the adapters' own).
        density: share of entries kept, in (0, 1], where any are dropped.
        seed: of "dare".

    Raises:
        ValueError: On an unknown adapter, a name that is taken, adapters of different rank with "factors", or one that
            replaces a module (``full=``).
        TypeError: On a model without adapters.
    """
    names = adapter_names(model)
    check_choice("how", how, get_args(How))
    for key, weight in weights.items():
        check_choice("every name in weights", key, names)
        check_number(f"weights[{key!r}]", weight)
    if len(weights) < 2:
        raise ValueError(f"expected weights of at least two adapters, but got {dict(weights)}")
    if name in names:
        raise ValueError(f"expected name to be new, but the model has adapters {names}")
    check_number("density", density, low=0, high=1, open_low=True)
    if rank is not None:
        check_count("rank", rank)
        if "svd" not in COMBINATIONS[how]:
            raise ValueError(f"expected rank with an SVD, but how={how!r} settles it")
    ordered = [key for key in names if key in weights]
    combined: Any = copy.deepcopy(model)
    for key in ordered:
        if combined.peft_config[key].modules_to_save:
            replaced = list(combined.peft_config[key].modules_to_save)
            raise ValueError(f"expected adapters that replace no module, but {key!r} replaces {replaced}")
    with isolated(seed), warnings.catch_warnings():
        # At density 1 nothing is dropped, as asked for.
        warnings.filterwarnings("ignore", message="The density 1.0 is greater than or equal to 1")
        combined.base_model.add_weighted_adapter(
            ordered,
            [float(weights[key]) for key in ordered],
            name,
            combination_type=COMBINATIONS[how],
            svd_rank=rank,
            svd_full_matrices=False,
            density=density,
        )
    return switch_(combined, [name])


@checked
def withdraw(model: nn.Module, name: str) -> nn.Module:
    """Return a copy without the adapter ``name``: the request is withdrawn, and the others act as if it had never been.

    Raises:
        ValueError: On an unknown adapter, or the only one (see ``adapters.switched_off``).
        TypeError: On a model without adapters.
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
