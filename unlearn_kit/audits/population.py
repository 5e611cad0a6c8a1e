"""Membership against a population, with a few reference models: cheaper than shadow models (RMIA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from ..arguments import checked
from ..data.tensors import read_labels, subset
from ..errors import check_number
from ..metrics.membership import class_matched, confidence, probability_smaller, true_positive_rate
from ..metrics.predict import Reading, map_batches
from ..seeding import derive, isolated, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceMembership:
    """What :func:`reference_membership` found. Rates are in [0, 1]; ideal: those of a further reference.

    Attributes:
        auc: Probability that a forget sample scores above a held-out one.
        tpr: The share of the forget samples recognised at 1 % false positives on the held-out ones.
        tpr_strict: The same at .1 %, which takes a thousand held-out samples to have more than one step.
        attack_auc: The ``auc`` of the model before the revision, which did see the forget samples: how good the attack
            is at all. Near that of a reference, the figures say nothing. None where it was not given.
        per_sample: The score of each forget sample that counts, in [0, 1].
        references: How many reference models stand behind it.
        population: How many samples the scores are ranked among.
        held_out: How many held-out samples the forget samples are told from.
    """

    auc: float | None
    tpr: float | None
    tpr_strict: float | None
    attack_auc: float | None
    per_sample: Array = field(repr=False)
    references: int
    population: int
    held_out: int


@checked
@standardized
def reference_membership(
    model: nn.Module,
    task: UnlearnTask,
    references: Sequence[nn.Module],
    *,
    original: nn.Module | None = None,
    offline_a: float = 0.3,
    gamma: float = 1.0,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> ReferenceMembership | None:
    """Tell forget samples from held-out ones by how much likelier the model makes their labels than references do.

    The score of a sample x is the share of population samples z with ``r(x) >= gamma r(z)``, where ``r(x) = p(x |
    model) / p(x)``, p the probability of the true label. What p(x) would be over models that saw x and models that did
    not is guessed from the references, which saw neither x nor z: ``p(x) = ((1 + a) m + 1 - a) / 2`` with their mean
    m. At a = 1 models that saw x are taken to do as those that did not; at a = 0 to be certain of it.

    A half of the held-out samples that the request names is told from the forget samples, and all others are the
    population; where it names none, a class-matched part of one half of the rest, and the other half.

    Args:
        model: The model to audit; untouched. It must be none of the references.
        task: What was forgotten.
        references: Models retrained without the forget data, with other seeds; four are usual.
        original: The model before the revision, for ``attack_auc``.
        offline_a: a, in [0, 1). The authors chose .3 on CIFAR-10 by an attack between two references.
        gamma: How much larger the ratio must be, positive. The paper has 2, the released code 1, which ranks finer.
        seed: Of the halves and of the matching.
        **reading: See :class:`.predict.Reading`.

    Returns:
        A report; None where there are no held-out samples to tell the forget samples from, or no population.

    Raises:
        ValueError: Without a reference, when the model is one of them, or a setting is out of range.

    Source: arXiv 2312.03262, the offline form.
    """
    check_number("offline_a", offline_a, low=0, high=1, open_high=True)
    check_number("gamma", gamma, low=0, open_low=True)
    if not len(references):
        raise ValueError("expected references to hold at least one model, but got none")
    if any(one is model for one in references):
        raise ValueError("expected a model that is none of the references, but got one of them")
    parts = _parts(task, seed)
    if parts is None:
        return None
    models = [model, *references] if original is None else [model, *references, original]
    tables = [_confidences(models, data, reading) for data in parts]
    if not all(map(len, tables)):
        return None

    def ratios(table: Array, place: int) -> Array:
        mean = table[:, 1 : 1 + len(references)].mean(axis=1)
        ratio: Array = table[:, place] / (((1 + offline_a) * mean + 1 - offline_a) / 2)
        return ratio

    def scores(place: int) -> tuple[Tensor, Tensor]:
        forget, held_out, population = (ratios(table, place) for table in tables)
        ranked = np.sort(gamma * population)
        mine, theirs = (np.searchsorted(ranked, some, side="right") / len(ranked) for some in (forget, held_out))
        return torch.from_numpy(mine), torch.from_numpy(theirs)

    mine, theirs = scores(0)
    before = None
    if original is not None:
        of_original = scores(len(models) - 1)
        before = probability_smaller(of_original[1], of_original[0])
    return ReferenceMembership(
        auc=probability_smaller(theirs, mine),
        tpr=true_positive_rate(mine, theirs),
        tpr_strict=true_positive_rate(mine, theirs, at=0.001),
        attack_auc=before,
        per_sample=mine.numpy(),
        references=len(references),
        population=len(tables[2]),
        held_out=len(theirs),
    )


def _parts(task: UnlearnTask, seed: int) -> tuple[Any, Any, Any] | None:
    """Return forget samples, held-out samples to tell them from, and the population; None where there are none."""
    held_out = task.forget_test if len(task.forget_test) else task.retain_test
    order = np.random.default_rng(derive(seed, "population")).permutation(len(held_out))
    compared, rest = (subset(held_out, np.sort(half)) for half in (order[::2], order[1::2]))
    if held_out is task.forget_test:
        return task.forget, compared, ConcatDataset([rest, task.retain_test])
    if task.kind != "classification":
        return task.forget, compared, rest
    with isolated(0):  # a random transform of the inputs would draw from the caller
        wanted, available = (read_labels(data).flatten().long() for data in (task.forget, compared))
    matched, present = class_matched(wanted, available, seed), torch.isin(wanted, available).nonzero().flatten()
    return (subset(task.forget, present), subset(compared, matched), rest) if len(matched) else None


def _confidences(models: Sequence[nn.Module], dataset: Any, reading: Reading) -> Array:
    """Return the probability that each model gives the true label of each sample that has one, ``(N, models)``."""

    def batch(*outputs: Tensor) -> tuple[Tensor]:
        return (torch.stack([confidence(logits, outputs[-1]) for logits in outputs[:-1]], dim=1),)

    found = map_batches(models, dataset, batch, **reading)
    table: Array = np.empty((0, len(models))) if found is None else found[0].numpy()
    return table[~np.isnan(table).any(axis=1)]
