"""What a handful of forgotten samples bring back without any training: of the features, and of the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.tensors import in_order, subset
from ..errors import check_count
from ..heads import head_name
from ..metrics.features import captured
from ..metrics.predict import Reading, map_batches
from ..modules import check_model, device_of
from ..seeding import derive, isolated, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask


@dataclass(frozen=True)
class FewShotReport:
    """What :func:`few_shot_recovery` found. Shares are of held-out samples of the forgotten classes, in [0, 1].

    Attributes:
        features: By number of samples: the share that a linear discriminant on the features assigns to its class. The
            head plays no part, so that an edit of the head alone leaves it at the original's.
        head: By number of samples: the share that the model itself assigns to its class once their mean feature is the
            row of the head; None where the head is no linear layer. It follows ``margin``, and can be lowered by an
            edit of the head alone.
        margin: The mean over these samples of the logit of their class above the largest other one.
        judged_on: How many samples there are.
        reference: The same of the retrained model: what good features of other classes allow anyone.
    """

    features: dict[int, float]
    head: dict[int, float] | None
    margin: float
    judged_on: int
    reference: FewShotReport | None = None


@checked
@standardized
def few_shot_recovery(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | FewShotReport | None = None,
    *,
    shots: Sequence[int] = (1, 5),
    draws: int = 20,
    limit: int = 5_000,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> FewShotReport | None:
    """Give a model a few forgotten samples, train nothing, and see how much of their class it knows again.

    Twice, for each number of samples: by a linear discriminant on the input of the head, with the class means and the
    pooled covariance (shrunk after Ledoit and Wolf) of the retain data and the mean of the few as the mean of their
    class; and by the head itself, whose row of that class becomes the mean feature of the few, with the length and the
    bias that the other rows have on average. Relearning, and prototypes in the head, can be passed by the head alone:
    read them beside ``features`` and ``margin``.

    Args:
        model: The model to audit; untouched.
        task: A class, or several, forgotten as a whole; classification, with held-out samples of them.
        reference: The retrained model, or its own report, so that it need not run again.
        shots: Numbers of forgotten samples of a class.
        draws: How often so many are drawn; the shares are means.
        limit: Most samples that are used, of the forget data and of the retain data each.
        seed: Of what is drawn; the same samples for every model.
        **reading: See :class:`.predict.Reading`.

    Returns:
        A report; None where there are no held-out samples of the classes, or too few forget samples of one for the
        largest of ``shots``.

    Raises:
        ValueError: When the task forgets no whole class or is of another kind, or no head is found.
    """
    if task.kind != "classification" or not task.forget_classes:
        raise ValueError(f"expected task to forget whole classes of a classification, but got {task.rule!r}")
    counts = sorted({check_count("every number in shots", count) for count in shots})
    if not counts:
        raise ValueError("expected shots to hold at least one number, but got none")
    check_count("draws", draws)
    check_count("limit", limit)
    if isinstance(reference, nn.Module):
        reference = few_shot_recovery(reference, task, shots=counts, draws=draws, limit=limit, seed=seed, **reading)
    rng = np.random.default_rng(derive(seed, "few shots"))
    parts = {}
    for name in ("retain", "forget", "forget_test"):
        size = len(getattr(task, name))
        parts[name] = _features(model, getattr(task, name), np.sort(rng.permutation(size)[:limit]), reading)
    if any(part is None for part in parts.values()):
        return None
    known, few, unseen = (part for part in parts.values() if part is not None)
    places = {label: np.flatnonzero(few.labels == label) for label in task.forget_classes}
    if min(map(len, places.values())) < counts[-1]:
        return None

    discriminant = _Discriminant(known)
    own = unseen.logits[np.arange(len(unseen.labels)), unseen.labels]
    others = unseen.logits.copy()
    others[np.arange(len(unseen.labels)), unseen.labels] = -np.inf
    by_features, by_head = {}, {}
    for count in counts:
        hits_features, hits_head = [], []
        for _ in range(draws):
            means = {
                label: few.features[rng.choice(rows, count, replace=False)].mean(0) for label, rows in places.items()
            }
            hits_features.append(discriminant.share(means, unseen))
            if unseen.head is not None:
                hits_head.append(_head_share(unseen, means))
        by_features[count] = float(np.mean(hits_features))
        if hits_head:
            by_head[count] = float(np.mean(hits_head))
    return FewShotReport(
        by_features, by_head or None, float((own - others.max(1)).mean()), len(unseen.labels), reference
    )


@dataclass(frozen=True)
class _Part:
    """Features ``(N, P)``, labels ``(N,)`` and logits ``(N, C)`` of samples, and weight and bias of the head."""

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    head: tuple[np.ndarray, np.ndarray] | None


class _Discriminant:
    """Linear discriminant analysis with equal priors over the classes of the retain data and a few new ones."""

    def __init__(self, known: _Part) -> None:
        with isolated(0):  # importing scikit-learn draws from the caller's random state
            from sklearn.covariance import ledoit_wolf
        self.labels = np.unique(known.labels)
        self.means = np.stack([known.features[known.labels == label].mean(0) for label in self.labels])
        centred = known.features - self.means[np.searchsorted(self.labels, known.labels)]
        self.covariance = ledoit_wolf(centred, assume_centered=True)[0]

    def share(self, means: dict[int, np.ndarray], judged: _Part) -> float:
        """Return the share of the judged samples that are nearest, in the metric of the covariance, to their class."""
        kept = ~np.isin(self.labels, list(means))
        labels = np.concatenate([self.labels[kept], list(means)])
        centres = np.concatenate([self.means[kept], np.stack(list(means.values()))])
        # Features that never vary have no variance to divide by, and tell no classes apart.
        weights = np.linalg.lstsq(self.covariance, centres.T, rcond=None)[0]
        scores = judged.features @ weights - 0.5 * (centres * weights.T).sum(1)
        return float((labels[scores.argmax(1)] == judged.labels).mean())


def _head_share(judged: _Part, means: dict[int, np.ndarray]) -> float:
    """Return the share of the judged samples that the head assigns to their class with mean features as its rows."""
    if judged.head is None:
        raise ValueError("expected a linear head, but got another")
    weight, bias = judged.head
    others = [row for row in range(len(weight)) if row not in means]
    length, level = np.linalg.norm(weight[others], axis=1).mean(), bias[others].mean()
    logits = judged.logits.copy()
    for label, mean in means.items():
        logits[:, label] = judged.features @ (mean * length / max(np.linalg.norm(mean), 1e-12)) + level
    return float((logits.argmax(1) == judged.labels).mean())


def _features(model: nn.Module, dataset: Any, rows: np.ndarray, reading: Reading) -> _Part | None:
    """Return what the head is given and what it makes of it; None without samples."""
    model = check_model(model)
    if len(rows) == 0:
        return None
    some = subset(dataset, rows)
    with isolated(0):
        first, _ = next(iter(in_order(subset(dataset, rows[:1]))))
    name = head_name(model, first.to(device_of(model)))
    with captured(model, [name], side="input") as held:

        def batch(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return held[name].flatten(1).cpu().double(), targets.flatten().long(), logits.double()

        found = map_batches([model], some, batch, **reading)
    if found is None:
        return None
    module = model.get_submodule(name)
    head = None
    if isinstance(module, nn.Linear):
        bias = torch.zeros(module.out_features) if module.bias is None else module.bias.detach()
        head = (module.weight.detach().cpu().double().numpy(), bias.cpu().double().numpy())
    features, labels, logits = (value.cpu().numpy() for value in found)
    return _Part(features, labels, logits, head)
