"""What a model still says just beside the forgotten samples: residual knowledge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from ..arguments import checked
from ..boundary import PerturbedSign
from ..data.sampling import random_subset
from ..data.tensors import drawn, in_order, load_tensors, read_labels, subset
from ..errors import check_count, check_number
from ..metrics.membership import class_matched
from ..metrics.predict import Reading, class_labels, map_batches, placed
from ..metrics.utility import correct
from ..modules import device_of
from ..outputs import predicted_labels
from ..seeding import derive, generator, isolated, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

RADIUS = 0.03  # of small changes, as a share of the range of the inputs
COPIES = 8  # changed copies of each sample
STEPS = 5  # of the search for the nearest boundary


@dataclass(frozen=True)
class ResidualKnowledge:
    """What :func:`residual_knowledge` found. Shares are in [0, 1].

    Attributes:
        forget: The share of points near forget samples on which the model is right; ideal: the reference's.
        unseen: The same near held-out samples like them; None where there are none.
        itself: The share of the forget samples, unchanged, on which it is right.
        searched: The share of the forget samples that it gets right unchanged, or at the point to which the search
            for its nearest boundary leads within the ball.
        per_sample: The share right near each forget sample, ``(N,)``.
        copies: How many points near each sample were looked at.
        reference: The same of the retrained model, on the same points; its search is of its own boundary.
    """

    forget: float
    unseen: float | None
    itself: float
    searched: float
    per_sample: NDArray[np.float64] = field(repr=False)
    copies: int
    reference: ResidualKnowledge | None = None

    @property
    def ratio(self) -> float | None:
        """The share over the reference's, in [0, inf): ideal 1; None without a reference that is ever right."""
        return self.forget / self.reference.forget if self.reference is not None and self.reference.forget else None

    @property
    def above(self) -> float | None:
        """The share of the forget samples near which it is right more often than the reference; None without one."""
        return None if self.reference is None else float((self.per_sample > self.reference.per_sample).mean())


@checked
@standardized
def residual_knowledge(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | ResidualKnowledge | None = None,
    *,
    radius: float = RADIUS,
    copies: int = COPIES,
    limit: int = 256,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> ResidualKnowledge | None:
    """Look just beside the forgotten samples: on which share of the points there is the model still right?

    For each sample, ``copies`` points are drawn evenly from the ball around it (the largest change of an input is at
    most ``radius``), and the boundary that is nearest to it is searched for in the same ball. A method that moves a
    boundary no farther than past the samples leaves what it was to forget on the other side.

    Args:
        model: The model to audit; untouched.
        task: What was forgotten; classification.
        reference: The retrained model, or its own report under the same settings, so that it need not run again.
        radius: Of the ball, as a share of the range of the inputs.
        copies: Points drawn in each.
        limit: Most forget samples that are looked at, and most held-out ones.
        seed: Of the samples and the points; the same for every model.
        **reading: See :class:`.predict.Reading`.

    Returns:
        A report; None for other tasks than classification.

    Raises:
        ValueError: When a setting is out of range, or a report is of other samples.

    Source: arXiv 2601.22359, definition of residual knowledge; the search is the toolkit's own.
    """
    check_number("radius", radius, low=0, open_low=True)
    check_count("copies", copies)
    check_count("limit", limit)
    if task.kind != "classification":
        return None
    if isinstance(reference, nn.Module):
        reference = residual_knowledge(reference, task, radius=radius, copies=copies, limit=limit, seed=seed, **reading)
    forget, unseen = (
        _read_once(random_subset(data, limit, seed=derive(seed, "residual", name)), reading)
        for name, data in (("forget", task.forget), ("unseen", _unseen(task, seed)))
    )
    near = Nearby(forget, seed, radius=radius, copies=copies)
    rights = _right(model, near, reading).reshape(-1, copies).mean(axis=1)
    if reference is not None and (len(reference.per_sample), reference.copies) != (len(rights), copies):
        raise ValueError(
            f"expected reference to be a report of {len(rights)} samples with {copies} points each, "
            f"but got {len(reference.per_sample)} with {reference.copies}"
        )
    around = Nearby(unseen, seed, radius=radius, copies=copies) if len(unseen) else None
    return ResidualKnowledge(
        forget=float(rights.mean()),
        unseen=None if around is None else float(_right(model, around, reading).mean()),
        itself=float(_right(model, forget, reading).mean()),
        searched=float(
            _searched(model, forget, radius * (near.high - near.low), (near.low, near.high), reading).mean()
        ),
        per_sample=rights,
        copies=copies,
        reference=reference,
    )


class Nearby(Dataset[tuple[Tensor, Tensor]]):
    """Changed copies of every sample, the copies of one after another; made when they are read.

    Each input is moved by up to ``radius`` of the range of all of them, and stays in that range.
    """

    def __init__(self, data: Any, seed: int, *, radius: float = RADIUS, copies: int = COPIES) -> None:
        self.data, self.seed, self.radius, self.copies = data, seed, radius, copies
        ranges = [(float(x.min()), float(x.max())) for x, _ in in_order(data)]
        self.low, self.high = min(low for low, _ in ranges), max(high for _, high in ranges)

    def __len__(self) -> int:
        return self.copies * len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.data[index // self.copies]
        noise = 2 * torch.rand(x.shape, generator=generator(self.seed, "residual", index), dtype=x.dtype) - 1
        return (x + noise * self.radius * (self.high - self.low)).clamp(self.low, self.high), y


def _unseen(task: UnlearnTask, seed: int) -> Any:
    """Return held-out samples like the forgotten ones."""
    if len(task.forget_test) or not len(task.retain_test):
        return task.forget_test
    with isolated(0):  # a random transform of the inputs would draw from the caller
        wanted, available = (read_labels(data).flatten().long() for data in (task.forget, task.retain_test))
    return subset(task.retain_test, class_matched(wanted, available, seed))


def _read_once(dataset: Any, reading: Reading) -> Any:
    """Return the same samples in memory: those that draw random numbers when they are read stay where they are."""
    with isolated(0):
        return (
            TensorDataset(*load_tensors(drawn(dataset, 0), workers=reading.get("workers", 0))) if len(dataset) else ()
        )


def _right(model: nn.Module, dataset: Any, reading: Reading) -> NDArray[np.float64]:
    """Return whether the model is right on each sample, ``(N,)``."""
    found = map_batches([model], dataset, lambda *outputs: (correct(*outputs),), **reading)
    return np.empty(0) if found is None else found[0].double().numpy()


def _searched(
    model: nn.Module, dataset: Any, radius: float, bounds: tuple[float, float], reading: Reading
) -> NDArray[np.bool_]:
    """Return whether the model is right on each sample, or where the search for its nearest boundary leads."""
    search = PerturbedSign(
        radius, steps=STEPS, bounds=bounds if bounds[0] < bounds[1] else None, stop_when_flipped=True
    )
    found = map_batches([model], dataset, lambda z, y: (predicted_labels(z), class_labels(z, y)), **reading)
    if found is None:
        return np.empty(0, dtype=bool)
    said, truth = found
    model, places = placed(model, reading.get("device")), torch.arange(len(said))
    reached = []
    with isolated(0):
        for x, _ in in_order(dataset, reading.get("batch_size", 512)):
            own, places = places[: len(x)], places[len(x) :]
            device = device_of(model)
            reached.append(search.search(model, x.to(device), said[own].to(device)).labels.cpu())
    return ((said == truth) | (torch.cat(reached) == truth)).numpy()
