"""How far a model is from another one, usually the retrained reference: in its outputs and in its weights.

Functions of two models' logits return one value per sample (for masks the mean over pixels); functions of
models and a data set the mean over samples, None where there is none. Small is near: two equal models are at
0 (completeness 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..models.reset import fresh_copy
from ..modules import check_model
from ..outputs import check_finite, per_sample, predicted_labels
from ..seeding import standardized
from .predict import Reading, class_logits, mean_score


@checked
def activation_distances(logits: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distance of the two predicted distributions, ``(B,)`` in [0, sqrt 2], float64.

    Raises:
        ValueError: When the logits are not of one shape.
    """
    _check_same_shape(logits, other)
    difference = class_logits(logits).softmax(dim=1) - class_logits(other).softmax(dim=1)
    return per_sample(difference.norm(dim=1))


@checked
def js_divergences(logits: Tensor, other: Tensor) -> Tensor:
    """Return Jensen-Shannon divergence of the two predicted distributions in nats, ``(B,)`` in [0, log 2], float64.

    Summed over classes, finite for saturated logits. Raises: ValueError when the logits are not of one shape.
    """
    _check_same_shape(logits, other)
    log_p, log_q = class_logits(logits).log_softmax(dim=1), class_logits(other).log_softmax(dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return per_sample((halves.sum(dim=1) / 2).clamp(0, math.log(2)))


@checked
def agreement(logits: Tensor, other: Tensor) -> Tensor:
    """Return 1 where both predict the same class, else 0 (for masks the share of such pixels): ``(B,)``, float64.

    Raises:
        ValueError: When the logits are not finite or not of one shape.
    """
    _check_same_shape(logits, other)
    return per_sample((predicted_labels(logits) == predicted_labels(other)).double())


def _check_same_shape(logits: Tensor, other: Tensor) -> None:
    if logits.shape != other.shape:
        raise ValueError(
            f"expected logits of one shape from both models, but got {tuple(logits.shape)} and {tuple(other.shape)}"
        )


@checked
def activation_distance(
    model: nn.Module, reference: nn.Module, dataset: Any, **reading: Unpack[Reading]
) -> float | None:
    """Return mean of :func:`activation_distances` to the reference; ideal: between two references."""
    return mean_score([model, reference], dataset, lambda p, q, _: activation_distances(p, q), **reading)


@checked
def js_divergence(model: nn.Module, reference: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> float | None:
    """Return mean of :func:`js_divergences` to the reference, nats in [0, log 2]; ideal: between two references."""
    return mean_score([model, reference], dataset, lambda p, q, _: js_divergences(p, q), **reading)


@checked
def completeness(model: nn.Module, reference: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> float | None:
    """Return the share of samples on which both predict the same class, in [0, 1]; ideal: between two references."""
    return mean_score([model, reference], dataset, lambda p, q, _: agreement(p, q), **reading)


@checked
@standardized
def zrf(
    model: nn.Module,
    dataset: Any,
    *,
    incompetent: nn.Module | None = None,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> float | None:
    """Return Zero-retrain forgetting: 1 - mean JS divergence to a random network, in [1 - log 2, 1].

    The divergence is in nats; 1 means as ignorant as the random network; ideal is the reference's value. None
    on an empty data set.

    Args:
        model: the model to judge; untouched.
        dataset: the forget set.
        incompetent: the random network; None draws one: a copy of ``model`` with fresh weights.
        seed: of those weights.
        **reading: see :class:`.predict.Reading`.

    Raises:
        ValueError: When a module of ``model`` cannot be given fresh weights. Source: arXiv 2205.08096.
    """
    other = fresh_copy(model, seed=seed) if incompetent is None else incompetent
    divergence = js_divergence(model, other, dataset, **reading)
    return None if divergence is None else 1 - divergence


@dataclass(frozen=True)
class LayerDistances:
    """Euclidean distances of weights: ``layers`` by parameter name, and ``total`` over all together."""

    layers: dict[str, float]
    total: float


@checked
@standardized
def layerwise_distance(model: nn.Module, reference: nn.Module) -> LayerDistances:
    """Return Euclidean distance of each parameter tensor of two models of one architecture, and of all together.

    Both in [0, inf). Says where two models differ; two retrained models are far apart too, so small is not
    the ideal.

    Raises:
        ValueError: When the models' parameters differ in name or shape, or are not finite.
    """
    model, reference = check_model(model), check_model(reference, "reference")
    mine, theirs = dict(model.named_parameters()), dict(reference.named_parameters())
    for name in sorted(mine.keys() ^ theirs.keys()):
        raise ValueError(f"expected model and reference to have the same parameters, but got {name!r} in one only")
    layers = {}
    for name, tensor in mine.items():
        if tensor.shape != theirs[name].shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(theirs[name].shape)}"
            raise ValueError(f"expected {name!r} to have one shape in model and reference, but got {shapes}")
        for side, value in (("model", tensor), ("reference", theirs[name])):
            check_finite(f"{name!r} of {side}", value)
        layers[name] = float((tensor.detach().cpu().double() - theirs[name].detach().cpu().double()).norm())
    return LayerDistances(layers, math.hypot(*layers.values()))
