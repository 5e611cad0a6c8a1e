"""Unlearned models against models that never saw the data: per example, by their margins.

Margins ``(models, samples)`` are ``log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits`` (``margins.margins``).
Unlearned models were trained with the examples and then made to forget them; oracles never saw them. Both differ among
themselves by their seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arguments import checked
from ..errors import check_count, check_number
from ..seeding import derive
from .membership import probability_smaller, true_positive_rate

Array = NDArray[np.float64]

# Standard deviations below this are rounding: a constant margin is told from another constant, and from nothing else.
_TINY = 1e-6


@dataclass(frozen=True)
class ULira:
    """What :func:`u_lira` found.

    Attributes:
        accuracy: mean over examples of ``per_example``, in [0, 1]; ideal .5.
        interval: 95 % interval of it over models (t, Welch), as wide as one half's: the models that judge one fit are
            those the other was made of, so both may be wrong together.
        auc: chance that the likelihood ratio ranks an unlearned model's margin above an oracle's, over all examples;
            ideal .5.
        tpr: share of unlearned models' margins recognised at 1 % false positives; ideal .01.
        per_example: balanced accuracy of telling unlearned models from oracles by this example, ``(S,)``.
        unlearned, oracles: models; half of each fitted the Gaussians that judged the other half.
        examples: S.
    """

    accuracy: float
    interval: tuple[float, float]
    auc: float
    tpr: float
    per_example: Array = field(repr=False)
    unlearned: int = 0
    oracles: int = 0
    examples: int = 0


@checked
def u_lira(unlearned: Any, oracles: Any) -> ULira | None:
    """Return Can a likelihood ratio tell from one example's margin whether a model forgot it or never saw it?

    For every example a Gaussian is fitted to the margins of half of the unlearned models (the example was in) and one
    to those of half of the oracles (models never trained on it); the ratio of their densities then judges the models
    of the other half, and the halves change places. A tie counts half. Models of even place are one half.

    Args:
        unlearned, oracles: margins on the forget set, ``(N, S)`` and ``(M, S)``, of at least 4 models each.

    Returns:
        None where there is no example.

    Raises:
        ValueError: On fewer models, other shapes or margins that are not finite. Source: arXiv 2403.01218, with the
            request fixed: every unlearned model forgot the same set, and the oracles are the models retrained without
            it.
    """
    a, b = _table("unlearned", unlearned, 4), _table("oracles", oracles, 4)
    _check_columns(a, b)
    if a.shape[1] == 0:
        return None
    score_a, score_b = np.empty_like(a), np.empty_like(b)
    for fit, judge in ((0, 1), (1, 0)):
        member, other = _gaussian(a[fit::2]), _gaussian(b[fit::2])
        for score, table in ((score_a, a), (score_b, b)):
            score[judge::2] = _log_density(table[judge::2], *member) - _log_density(table[judge::2], *other)
    right_a, right_b = (np.sign(score_a) + 1) / 2, (1 - np.sign(score_b)) / 2
    per_example = (right_a.mean(axis=0) + right_b.mean(axis=0)) / 2
    members, others = (torch.from_numpy(score.ravel()) for score in (score_a, score_b))
    return ULira(
        accuracy=float(per_example.mean()),
        interval=_interval(right_a.mean(axis=1), right_b.mean(axis=1)),
        auc=_known(probability_smaller(others, members)),
        tpr=_known(true_positive_rate(members, others)),
        per_example=per_example,
        unlearned=len(a),
        oracles=len(b),
        examples=a.shape[1],
    )


def _gaussian(table: Array) -> tuple[Array, Array]:
    return table.mean(axis=0), np.maximum(table.std(axis=0, ddof=1), _TINY)


def _log_density(values: Array, mean: Array, std: Array) -> Array:
    return -0.5 * ((values - mean) / std) ** 2 - np.log(std)


def _interval(first: Array, second: Array) -> tuple[float, float]:
    """Return 95 % interval of the mean of two means (Welch's degrees of freedom), within [0, 1]."""
    from scipy.stats import t

    # Over 2 rather than 4: half as many models count.
    parts = [values.var(ddof=1) / len(values) / 2 for values in (first, second)]
    middle, total = float(first.mean() + second.mean()) / 2, sum(parts)
    if total == 0:
        return middle, middle
    degrees = total**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    reach = float(t.ppf(0.975, degrees)) * math.sqrt(total)
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True)
class Klom:
    """What :func:`klom` found, in nats; ideal: the floor.

    Attributes:
        median, p95: of ``per_example`` over examples.
        floor_median, floor_p95: the same of oracles against oracles.
        per_example, floor_per_example: ``(S,)``.
        models: on each side of every comparison, of the figure and of the floor alike.
        examples: S.
        p_value: how often the mean of ``per_example`` is at least as far from that of ``floor_per_example`` once models
            are exchanged at random between the four halves: whether the two sets of models differ at all.
    """

    median: float
    p95: float
    floor_median: float
    floor_p95: float
    per_example: Array = field(repr=False)
    floor_per_example: Array = field(repr=False)
    models: int = 0
    examples: int = 0
    p_value: float = 1.0


@checked
def klom(
    unlearned: Any,
    oracles: Any,
    *,
    bins: int = 20,
    clip: float = 100.0,
    floor: float = 1e-5,
    exchanges: int = 199,
    seed: int = 0,
) -> Klom | None:
    """Return KL(unlearned || oracle) of each example's margins, in nats, beside its floor.

    The direction and the bins are to be told with every figure, since others take the other direction, or fixed bins:
    here the unlearned models' histogram is the first, and the bins are equal ones over the range of both
    (:func:`klom_values`).

    A histogram of k models is noisy, and the divergence of two of them is above 0 even where nothing differs, more so
    for small k. So figure and floor are taken at the same k: both sets are split into halves of k models (even and odd
    places); the figure is the mean of the four comparisons of an unlearned half with an oracle half, the floor the mean
    of the two comparisons of the oracle halves.

    Args:
        unlearned, oracles: margins ``(N, S)`` and ``(M, S)``, at least 2 models each; of the larger set only as many
            models count as the smaller has.
        bins, clip, floor: see :func:`klom_values`.
        exchanges: of models, behind ``p_value``, which is at least 1 / (exchanges + 1). Models and not examples are
            exchanged, since the examples of one model share its luck.
        seed: draws the exchanges.

    Returns:
        None where there is no example.

    Raises:
        ValueError: As :func:`klom_values`. Source: arXiv 2410.23232.
    """
    a, b = _table("unlearned", unlearned, 2), _table("oracles", oracles, 2)
    _check_columns(a, b)
    if a.shape[1] == 0:
        return None
    check_count("exchanges", exchanges)
    k = min(len(a), len(b)) // 2
    options: dict[str, Any] = {"bins": bins, "clip": clip, "floor": floor}
    models = np.stack([table[place::2][:k] for table in (a, b) for place in (0, 1)])
    values, base = _beside_floor(models, options)
    found, random = abs(np.mean(values - base)), np.random.default_rng(derive(seed, "exchange models"))
    beyond = 0
    for _ in range(exchanges):
        exchanged = random.permutation(models.reshape(4 * k, -1)).reshape(models.shape)
        difference = np.subtract(*_beside_floor(exchanged, options)).mean()
        beyond += bool(abs(difference) >= found - 1e-12)  # ties are exact but for rounding
    return Klom(
        float(np.median(values)),
        float(np.percentile(values, 95)),
        float(np.median(base)),
        float(np.percentile(base, 95)),
        values,
        base,
        k,
        a.shape[1],
        (1 + beyond) / (1 + exchanges),
    )


def _beside_floor(halves: Array, options: dict[str, Any]) -> tuple[Array, Array]:
    """Return the divergence of the first two halves from the last two, and between these: twice ``(S,)``."""
    mine, theirs = halves[:2], halves[2:]
    values = np.mean([klom_values(u, o, **options) for u in mine for o in theirs], axis=0)
    return values, _both_ways(theirs[0], theirs[1], options)


def _both_ways(one: Array, two: Array, options: dict[str, Any]) -> Array:
    return (klom_values(one, two, **options) + klom_values(two, one, **options)) / 2


@checked
def klom_floor(oracles: Any, *, bins: int = 20, clip: float = 100.0, floor: float = 1e-5) -> Array:
    """Return divergence between two halves (even and odd places) of the oracles, both ways, the mean: ``(S,)``, nats.

    What :func:`klom_values` says at half as many models where nothing differs but seeds. Options and errors as there.
    """
    table = _table("oracles", oracles, 2)
    k = len(table) // 2
    one, two = table[0::2][:k], table[1::2][:k]
    options: dict[str, Any] = {"bins": bins, "clip": clip, "floor": floor}
    return _both_ways(one, two, options)


@checked
def klom_values(unlearned: Any, oracles: Any, *, bins: int = 20, clip: float = 100.0, floor: float = 1e-5) -> Array:
    """Return KL(unlearned || oracles) of each example's histogram of margins, ``(S,)`` in nats, in [0, log(1/floor)).

    Args:
        unlearned, oracles: margins ``(N, S)`` and ``(M, S)``.
        bins: equal ones, over the range of both sets of models together, for each example; the maximum is in the last.
        clip: margins are cut to plus or minus this.
        floor: the smallest probability of a bin, before all are scaled to sum to 1.

    A margin that is the same in all models has divergence 0.

    Raises:
        ValueError: On no model, other shapes, margins that are not finite or options out of range.
    """
    check_count("bins", bins)
    check_number("clip", clip, low=0, open_low=True)
    check_number("floor", floor, low=0, high=1, open_low=True, open_high=True)
    a, b = (np.clip(_table(name, v, 1), -clip, clip) for name, v in (("unlearned", unlearned), ("oracles", oracles)))
    _check_columns(a, b)
    low = np.minimum(a.min(axis=0), b.min(axis=0))
    width = np.maximum(a.max(axis=0), b.max(axis=0)) - low
    p, q = (_shares(table, low, width, bins, floor) for table in (a, b))
    return np.maximum((p * np.log(p / q)).sum(axis=0), 0.0)


def _shares(table: Array, low: Array, width: Array, bins: int, floor: float) -> Array:
    """Return shares ``(bins, S)`` of the models in each bin, none below the floor, summing to 1."""
    place = np.floor((table - low) / np.where(width > 0, width, 1.0) * bins).astype(np.int64).clip(0, bins - 1)
    samples = place.shape[1]
    counts = np.bincount((place * samples + np.arange(samples)).ravel(), minlength=bins * samples)
    shares = np.maximum(counts.reshape(bins, samples) / len(table), floor)
    return shares / shares.sum(axis=0)


def _table(name: str, values: Any, least: int) -> Array:
    held = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    try:
        table = np.asarray(held, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"expected {name} to be numbers (models, samples), but got {type(values).__name__}") from None
    if table.ndim != 2:
        raise ValueError(f"expected {name} to have shape (models, samples), but got {table.shape}")
    if len(table) < least:
        raise ValueError(f"expected {name} to hold at least {least} models, but got {len(table)}")
    if not np.isfinite(table).all():
        raise ValueError(f"expected {name} to be finite, but got {int((~np.isfinite(table)).sum())} that are not")
    return table


def _check_columns(a: Array, b: Array) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"expected unlearned and oracles to hold the same samples, but got {a.shape[1]} and {b.shape[1]}"
        )


def _known(value: float | None) -> float:
    return math.nan if value is None else value
