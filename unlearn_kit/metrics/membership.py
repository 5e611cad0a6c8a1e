"""Can one tell from the model's outputs whether an image was trained on?

Members are training images. Ideal is never a fixed number: it is what the same audit says of the retrained
reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import checked
from ..data.checks import check_dataset
from ..data.tensors import read_labels, subset
from ..errors import check_choice, check_count, check_number
from ..outputs import decisions, label_margin, per_sample
from ..seeding import derive, isolated, standardized
from ..tasks import UnlearnTask, check_task
from .predict import Reading, class_labels, class_logits, map_batches
from .utility import correct


def confidence(logits: Tensor, targets: Tensor) -> Tensor:
    """Return probability of the true class, ``(B,)`` in [0, 1], float64; of masks and findings their mean."""
    logits = decisions(logits, targets)
    labels = class_labels(logits, targets)
    return per_sample(label_margin(logits.double(), labels).sigmoid(), labels, empty=math.nan)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return cross-entropy in nats, ``(B,)``, float64, exact when saturated; of masks and findings their mean."""
    logits = decisions(logits, targets)
    labels = class_labels(logits, targets)
    return per_sample(-F.logsigmoid(label_margin(logits.double(), labels)), labels, empty=math.nan)


def entropy(logits: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return entropy of the prediction in nats, ``(B,)`` in [0, log C], float64; of masks and findings their mean."""
    logits = logits if targets is None else decisions(logits, targets)
    log_p, _ = _log_probabilities(logits)
    labels = None if targets is None else class_labels(logits, targets)
    return per_sample(-(log_p.exp() * log_p).sum(dim=1), labels, empty=math.nan)


def modified_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``-(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i)``: small only where confident and right.

    Nats, ``(B,)`` in [0, inf), float64, exact when saturated; for masks the mean over pixels. Source: arXiv
    2003.10595.
    """
    logits = decisions(logits, targets)
    log_p, log_not = _log_probabilities(logits)
    labels = class_labels(logits, targets)
    index = labels.clamp(min=0).unsqueeze(1)
    terms = (log_p.exp() * log_not).scatter(1, index, (log_not.exp() * log_p).gather(1, index))
    return per_sample(-terms.sum(dim=1), labels, empty=math.nan)


def _log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log p`` and ``log(1 - p)`` of every class, without cancellation: two float64 ``(B, C, ...)``."""
    z = class_logits(logits)
    top = z.argmax(dim=1)
    margin = label_margin(z, top).unsqueeze(1)
    # Only the largest probability can round to 1; everywhere else both logarithms are safe as they stand.
    index = top.unsqueeze(1)
    log_p = z.log_softmax(dim=1).scatter(1, index, F.logsigmoid(margin))
    log_not = torch.log1p(-log_p.exp()).scatter(1, index, F.logsigmoid(-margin))
    return log_p, log_not


FEATURES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "correctness": correct,
    "confidence": confidence,
    "loss": loss,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
}


@dataclass(frozen=True)
class MembershipReport:
    """What :func:`membership_inference` found. Rates are in [0, 1]; None where there is nothing to judge on.

    Attributes:
        forget_share: share of the forget set called member (the "MIA score"); ideal: the reference's. Of an attack
            whose ``attack_auc`` is near .5 it says nothing: tell both.
        auc: probability that the attack ranks a random forget image above a random held-out one; held out is
            ``forget_test``, or where that is empty a class-matched part of ``retain_test`` not in the
            attack's fit (:func:`class_matched`; forget images of a class that is not there do not count).
        tpr: share of those forget images recognised at 1 % false positives on those same held-out images.
        attack_auc, attack_tpr: the same of retain images against held-out ones, neither in the attack's fit:
            how good the attack is at all. Near .5 and .01, the figures on the forget set say nothing.
        fitted_on: images the attack was fitted on (half of them members).
        attack, features: what was asked for.
    """

    forget_share: float
    auc: float | None
    tpr: float | None
    attack_auc: float | None
    attack_tpr: float | None
    fitted_on: int
    attack: str
    features: tuple[str, ...]

    def __str__(self) -> str:
        told = "n/a" if self.attack_auc is None else f"{self.attack_auc:.3f}"
        return f"{self.forget_share:.3f} of the forget set called members, by an attack whose own AUC is {told}"


@checked
@standardized
def membership_inference(
    model: nn.Module,
    task: UnlearnTask,
    *,
    features: str | Sequence[str] = tuple(FEATURES),
    attack: str = "logistic",
    limit: int = 10_000,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> MembershipReport | None:
    """Fit a classifier of member against non-member on the model's outputs, then ask it about the forget set.

    Members are ``task.retain``, non-members ``task.retain_test``, drawn in pairs of one class, so that
    neither size nor class gives membership away; half of the pairs fit the attack, half judge it. Masks count
    as one class, and their features are means over pixels.

    Args:
        model: the model to audit; untouched.
        task: what was forgotten and what was kept.
        features: names out of ``FEATURES``; one or several.
        attack: "logistic" regression or "svc" (C = 3, rbf), on standardised features.
        limit: most pairs that are used (an "svc" on more than a few thousand is slow).
        seed: of the drawing of pairs; the caller's random state is untouched.
        **reading: see :class:`.predict.Reading`.

    Returns:
        A report, or None where the forget set is empty or no member and non-member share a class.

    Raises:
        ValueError: On unknown features or attacks. Source: arXiv 2003.10595 (features), 2310.12508 (SVC).
    """
    check_task(task)
    if not isinstance(features, Sequence):
        raise TypeError(f"expected features to be a name or a list of names, but got {type(features).__name__}")
    names = (features,) if isinstance(features, str) else tuple(features)
    if not names:
        raise ValueError(f"expected features to name one or more of {list(FEATURES)}, but got none")
    for name in names:
        check_choice("features", name, FEATURES)
    check_choice("attack", attack, ("logistic", "svc"))
    check_count("limit", limit)
    pairs = _class_pairs(_classes(task.retain), _classes(task.retain_test), seed)[:limit]
    if len(task.forget) == 0 or len(pairs) == 0:
        return None

    def measure(dataset: Any, indices: np.ndarray | None = None) -> np.ndarray:
        chosen = dataset if indices is None else subset(dataset, indices)
        found = map_batches([model], chosen, lambda *o: tuple(FEATURES[name](*o) for name in names), **reading)
        table = torch.stack(found, dim=1).numpy() if found else np.empty((0, len(names)))
        unlabelled = int(np.isnan(table).any(axis=1).sum())
        if unlabelled:
            raise ValueError(
                f"expected each image to have a pixel or a finding with a label, but got {unlabelled} without"
            )
        return table

    fit, judge = pairs[0::2], pairs[1::2]
    classifier = attacker(attack)
    classifier.fit(
        np.concatenate([measure(task.retain, fit[:, 0]), measure(task.retain_test, fit[:, 1])]),
        np.repeat([1, 0], len(fit)),
    )

    def score(table: np.ndarray) -> Tensor:
        return torch.from_numpy(classifier.decision_function(table) if len(table) else np.empty(0))

    forget = compared = score(measure(task.forget))
    if len(task.forget_test):
        held_out = score(measure(task.forget_test))
    else:
        unseen = np.setdiff1d(np.arange(len(task.retain_test)), fit[:, 1])
        wanted, available = _classes(task.forget), _classes(task.retain_test)[unseen]
        held_out = score(measure(task.retain_test, unseen[class_matched(wanted, available, seed).numpy()]))
        compared = forget[torch.isin(wanted, available)]
    members, others = score(measure(task.retain, judge[:, 0])), score(measure(task.retain_test, judge[:, 1]))
    return MembershipReport(
        forget_share=float((forget > 0).double().mean()),
        auc=probability_smaller(held_out, compared),
        tpr=true_positive_rate(compared, held_out),
        attack_auc=probability_smaller(others, members),
        attack_tpr=true_positive_rate(members, others),
        fitted_on=2 * len(fit),
        attack=attack,
        features=names,
    )


def attacker(attack: str) -> Any:
    """Return a classifier that is yet to be fitted: "logistic" regression or "svc", on standardised features."""
    with isolated(0):  # importing scikit-learn draws from the caller's random state
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

    # Without a state of its own, fitting an SVC draws from the caller's.
    classifier = LogisticRegression() if attack == "logistic" else SVC(C=3, kernel="rbf", random_state=0)
    return make_pipeline(StandardScaler(), classifier)


@checked
@standardized
def loss_auc(model: nn.Module, members: Any, non_members: Any, **reading: Unpack[Reading]) -> float | None:
    """Return probability that a random member has a smaller :func:`loss` than a random non-member; ties count half.

    In [0, 1]; at .5 the loss does not leak membership, ideal is the reference's value. None where a set is
    empty.
    """
    check_dataset("members", members, finite=False)
    check_dataset("non_members", non_members, finite=False)
    found = [map_batches([model], data, lambda *o: (loss(*o),), **reading) for data in (members, non_members)]
    if found[0] is None or found[1] is None:
        return None
    first, second = (losses[~losses.isnan()] for (losses,) in (found[0], found[1]))
    return probability_smaller(first, second)


@checked
def probability_smaller(first: Tensor | Sequence[float], second: Tensor | Sequence[float]) -> float | None:
    """Return P(a < b) + P(a = b) / 2 over all pairs of ``first`` ``(N,)`` and ``second`` ``(M,)``, in [0, 1].

    It is the area under the ROC curve of telling ``second`` by its larger values. None where one is empty.

    Raises:
        ValueError: On NaN, which is neither smaller nor larger than anything, or more than one dimension.
        TypeError: On what is no sequence of numbers.
    """
    first, second = _comparable(first=first, second=second)
    if not len(first) or not len(second):
        return None
    ordered, values = second.sort().values, first.contiguous()
    above = len(second) - torch.searchsorted(ordered, values, right=True)
    ties = len(second) - above - torch.searchsorted(ordered, values)
    return float((above.double() + ties.double() / 2).mean() / len(second))


@checked
def true_positive_rate(
    members: Tensor | Sequence[float], non_members: Tensor | Sequence[float], *, at: float = 0.01
) -> float | None:
    """Return largest share of ``members`` above a threshold that at most a share ``at`` of ``non_members`` exceeds.

    Both are scores, ``(N,)`` and ``(M,)``, large for members. In [0, 1]; None where one is empty.

    Raises:
        ValueError: On a share outside [0, 1], on NaN, or more than one dimension.
        TypeError: On what is no number, or no sequence of numbers.

    Source: arXiv 2112.03570.
    """
    check_number("at", at, low=0, high=1)
    members, non_members = _comparable(members=members, non_members=non_members)
    if not len(members) or not len(non_members):
        return None
    # The small addition undoes rounding: .01 * 2900 is 28.999..., and 29 false positives are allowed.
    allowed = min(math.floor(at * len(non_members) + 1e-9), len(non_members) - 1)
    threshold = non_members.sort(descending=True).values[allowed]
    return float((members > threshold).double().mean())


def _comparable(**scores: Any) -> list[Tensor]:
    """Return scores by their argument's name as tensors ``(N,)`` of one type, on the CPU."""
    found = []
    for name, values in scores.items():
        try:
            tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError):
            raise TypeError(f"expected {name} to be numbers (N,), but got {type(values).__name__}") from None
        if tensor.dim() != 1 or tensor.is_complex():
            came = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
            raise ValueError(f"expected {name} to be real numbers of shape (N,), but got {came}")
        if tensor.isnan().any():
            count = int(tensor.isnan().sum())
            raise ValueError(f"expected {name} to hold no NaN, but got {count} of {tensor.numel()} values")
        found.append(tensor.detach().cpu())
    alike = len({tensor.dtype for tensor in found}) == 1
    return found if alike else [tensor.double() for tensor in found]


@checked
def class_matched(wanted: Tensor, available: Tensor, seed: int = 0) -> Tensor:
    """Draw the largest sample of ``available`` that has the class proportions of ``wanted``.

    The scarcest class, measured by how many samples are wanted, is used up, and sets the size of all others, each
    to the nearest whole sample and at least one. A class that is absent cannot be matched and is left out: compare
    with those samples of ``wanted`` alone whose class is there.

    Args:
        wanted: Class indices ``(M,)`` whose proportions are wanted.
        available: Class indices ``(N,)`` of the samples to draw from.
        seed: Of the draw; the caller's random state is untouched.

    Returns:
        Positions in ``available``, int64 ``(K,)``, ascending; K is 0 where no class is shared.

    Raises:
        TypeError: When one is no tensor of integers.
        ValueError: When one has more dimensions.
    """
    for name, labels in (("wanted", wanted), ("available", available)):
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
            came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(f"expected {name} to be a Tensor of class indices, but got {came}")
        if labels.dim() != 1:
            raise ValueError(f"expected {name} to have shape (N,), but got {tuple(labels.shape)}")
    rng = np.random.default_rng(derive(seed, "class_matched"))
    counts = {int(label): int((wanted == label).sum()) for label in wanted.unique()}
    places = {label: (available == label).nonzero()[:, 0].numpy() for label in counts}
    present = [label for label in counts if len(places[label])]
    if not present:
        return torch.empty(0, dtype=torch.int64)
    scarce = min(present, key=lambda label: len(places[label]) / counts[label])
    # In integers, so that the scarcest class is used up exactly and no size exceeds what is there.
    up, down = len(places[scarce]), counts[scarce]
    sizes = {label: max(1, (2 * counts[label] * up + down) // (2 * down)) for label in present}
    chosen = [rng.choice(places[label], size, replace=False) for label, size in sizes.items()]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def _classes(dataset: Any) -> Tensor:
    """Return class indices ``(N,)`` of a data set, without running a model; all 0 where targets are masks."""
    if len(dataset) == 0:
        return torch.empty(0, dtype=torch.int64)
    with isolated(0):  # a random transform of the inputs would draw from the caller
        if torch.as_tensor(dataset[0][1]).numel() > 1:
            return torch.zeros(len(dataset), dtype=torch.int64)
    return read_labels(dataset).flatten().long()


def _class_pairs(members: Tensor, non_members: Tensor, seed: int) -> np.ndarray:
    """Return pairs ``(P, 2)`` of a member and a non-member of one class, in random order; nobody is in two."""
    rng = np.random.default_rng(derive(seed, "class_pairs"))
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for label in members.unique():
        left, right = (rng.permutation((side == label).nonzero()[:, 0].numpy()) for side in (members, non_members))
        size = min(len(left), len(right))
        pairs.append(np.stack([left[:size], right[:size]], axis=1))
    together = np.concatenate(pairs)
    return together[rng.permutation(len(together))]
