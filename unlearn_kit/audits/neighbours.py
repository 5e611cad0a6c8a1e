"""Where a whole class was forgotten: do its images go to the neighbouring classes as a retrained model sends them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..arguments import checked
from ..data.sampling import random_subset
from ..errors import check_count
from ..metrics.membership import attacker, probability_smaller
from ..metrics.predict import Reading, map_batches
from ..seeding import derive, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NeighbourLeakage:
    """What :func:`neighbour_leakage` found.

    Attributes:
        auc: How well the model is told from a reference by the neighbours' probabilities, in [0, 1]; the mean over the
            references. Ideal: ``floor``.
        floor: The same between two references, the mean over the pairs; None with a single one.
        floor_highest: The largest of the pairs: what chance alone may give.
        neighbours: The classes that were looked at, nearest first.
        judged_on: How many images of the forgotten classes.
    """

    auc: float
    floor: float | None
    floor_highest: float | None
    neighbours: tuple[int, ...]
    judged_on: int


@checked
@standardized
def neighbour_leakage(
    model: nn.Module,
    task: UnlearnTask,
    references: Sequence[nn.Module],
    *,
    neighbours: int = 3,
    limit: int = 500,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> NeighbourLeakage | None:
    """Tell the model from retrained ones by the probabilities it gives the classes next to the forgotten one.

    A model that never saw a class shares its images out among the classes that look like it; one that was made to
    forget the class may put them elsewhere, which tells that there was a class, though its own logit does not.

    1. The neighbours are the remaining classes to which the references give most probability on the forget images.
    2. An image is the log-odds of each neighbour among the remaining classes: the logits of the forgotten classes are
       left out, so that nothing of the head's row of the class counts.
    3. Of a pair of models, a support vector classifier (C = 3, rbf, standardised) is fitted to tell one's outputs on
       half of the images from the other's on the same half, and judged by its AUC on the other half; the halves
       change places. It is the distribution over the images that is judged, not any single one.
    4. The figure is the mean of that AUC over the references; the floor is that of the references among themselves.

    Args:
        model: The model to audit; untouched.
        task: A class, or several, forgotten as a whole; classification.
        references: Models retrained without the class, with other seeds; two at least give a floor.
        neighbours: How many classes are looked at.
        limit: Most forget images that are used.
        seed: Of the images and the halves.
        **reading: See :class:`.predict.Reading`.

    Returns:
        A report; None where no whole class is forgotten, fewer than two classes remain, or there are fewer than four
        images.

    Raises:
        ValueError: Without a reference, or when the logits are not one a class.

    Source: the idea is that of the class membership attack of arXiv 2506.20893, whose attacker learns from other
    classes of the same model; the comparison with references, and its floor, are a classifier two-sample test (arXiv
    1610.06545).
    """
    check_count("neighbours", neighbours)
    check_count("limit", limit, low=4)
    if not len(references):
        raise ValueError("expected references to hold at least one model, but got none")
    remaining = [label for label in range(task.num_classes) if label not in task.forget_classes]
    if task.kind != "classification" or not task.forget_classes or len(remaining) < 2 or len(task.forget) < 4:
        return None

    def restricted(*outputs: Tensor) -> tuple[Tensor, ...]:
        for z in outputs[:-1]:
            if z.shape[1:] != (task.num_classes,):
                raise ValueError(f"expected logits (B, {task.num_classes}) of every model, but got {tuple(z.shape)}")
        return tuple(z[:, remaining].double().log_softmax(dim=1) for z in outputs[:-1])

    some = random_subset(task.forget, limit, seed=derive(seed, "neighbours"))
    found = map_batches([model, *references], some, restricted, **reading)
    if found is None:
        return None
    shares = [table.exp().mean(dim=0) for table in found[1:]]
    nearest = torch.stack(shares).mean(dim=0).argsort(descending=True, stable=True)[:neighbours]
    tables = [_log_odds(table[:, nearest]).numpy() for table in found]
    halves = np.random.default_rng(derive(seed, "neighbours", "halves")).permutation(len(tables[0])) % 2
    aucs = [_told_apart(tables[0], theirs, halves) for theirs in tables[1:]]
    floors = [_told_apart(one, other, halves) for one, other in combinations(tables[1:], 2)]
    return NeighbourLeakage(
        auc=float(np.mean(aucs)),
        floor=float(np.mean(floors)) if floors else None,
        floor_highest=max(floors) if floors else None,
        neighbours=tuple(remaining[place] for place in nearest.tolist()),
        judged_on=len(tables[0]),
    )


def _log_odds(log_p: Tensor) -> Tensor:
    # Rounded probabilities of 1 would be infinitely sure.
    log_p = log_p.clamp(max=-1e-12)
    return log_p - torch.log(-torch.expm1(log_p))


def _told_apart(one: Array, other: Array, halves: NDArray[np.int64]) -> float:
    """Return the mean AUC, over both halves, of telling the rows of one table from those of another."""
    found = []
    for fit in (0, 1):
        classifier = attacker("svc")
        seen = halves == fit
        classifier.fit(np.concatenate([one[seen], other[seen]]), np.repeat([1, 0], seen.sum()))
        mine, theirs = (torch.from_numpy(classifier.decision_function(t[~seen])) for t in (one, other))
        auc = probability_smaller(theirs, mine)
        if auc is not None:  # as each half has images
            found.append(auc)
    return float(np.mean(found))
