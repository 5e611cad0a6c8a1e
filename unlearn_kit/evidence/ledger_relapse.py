"""Whether a request that was served still holds: its data scored again after every later step, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..data.tensors import subset
from ..judging import MARGIN, auc_margin
from ..metrics import correct, iou_scores, paired_comparison
from ..metrics.membership import loss
from ..metrics.predict import map_batches
from ..metrics.utility import mean_of_present
from ..seeding import standardized
from .ledger_samples import RequestSamples, find_samples

# A relapse is a rise: of a two-sided 90 % interval the lower end alone counts, which noise passes once in twenty times.
CONFIDENCE, Z = 0.9, 1.645


@dataclass(frozen=True)
class SampleScores:
    """What a model does on single samples, by the hash of their input: score in [0, 1] and loss in nats."""

    forget: Mapping[str, tuple[float, float]]
    unseen: Mapping[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {name: {sha: list(pair) for sha, pair in part.items()} for name, part in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SampleScores:
        """Return what :meth:`as_dict` wrote."""
        return cls(*({sha: (pair[0], pair[1]) for sha, pair in values[part].items()} for part in ("forget", "unseen")))


@dataclass(frozen=True)
class Rise:
    """How far a figure rose since a request was served.

    Attributes:
        rise: By how much.
        low, high: The 90 % interval of that; None where there is none.
        relapse: Whether that is a relapse, see :func:`standing`; None where it cannot be told.
    """

    rise: float
    low: float | None
    high: float | None
    relapse: bool | None


@dataclass(frozen=True)
class Standing:
    """How one request stands after a step. None is n/a.

    Attributes:
        forget: The score on its own forget data, as ``metrics.evaluate`` gives it.
        unseen: The same on data like them that no training saw: what a model without the data may reach.
        membership: Probability that a forget sample has a smaller loss than an unseen one.
        found: How many of its samples the data at hand hold.
        of: How many they are.
        score_rise: Of ``forget`` since the request was served; None at its own step.
        membership_rise: Of ``membership``, likewise.
        relapse: True when one of them came back beyond noise, False when none rose; None at the request's own step, and
            when one rose by two points or more and so few samples cannot tell that from noise.
    """

    forget: float | None
    unseen: float | None
    membership: float | None
    found: int
    of: int
    score_rise: Rise | None = None
    membership_rise: Rise | None = None
    relapse: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Standing:
        """Return what :meth:`as_dict` wrote."""
        rises = {name: None if values[name] is None else Rise(**values[name]) for name in RISES}
        return cls(**{**values, **rises})


RISES = ("score_rise", "membership_rise")


@standardized
def score_samples(
    model: nn.Module, data: Sequence[Any], requests: Mapping[str, RequestSamples]
) -> dict[str, SampleScores]:
    """Score the samples of several requests, as far as the data sets hold them; each is read once to find them."""
    lists = [row for samples in requests.values() for row in (samples.forget, samples.unseen)]
    found = iter(find_samples(data, lists))
    scores = {}
    for name, samples in requests.items():
        parts = []
        for places in (next(found), next(found)):
            part: dict[str, tuple[float, float]] = {}
            for dataset, chosen, hashes in places:
                part |= dict(zip(hashes, _pairs(model, subset(dataset, chosen), samples), strict=True))
            # A picture none of whose pixels has a label is right or wrong in nothing.
            parts.append({sha: pair for sha, pair in part.items() if not math.isnan(pair[1])})
        scores[name] = SampleScores(*parts)
    return scores


def standing(samples: RequestSamples, now: SampleScores, then: SampleScores | None) -> Standing:
    """Return how a request stands, and whether it relapsed since it was served.

    A rise of the score is a relapse where it is at least two points and the 90 % bootstrap interval of the mean of the
    differences, sample by sample, is above 0. A rise of the membership AUC is one where the same holds of the interval
    of its difference (DeLong, DeLong and Clarke-Pearson 1988) and the AUC is above one half by more than chance.

    Args:
        samples: Of the request.
        now: The scores of the model of this step.
        then: Those of the model by which the request was served; None at that step itself.
    """
    figures = _mean(now.forget), _mean(now.unseen), _auc(now)
    counts = len(now.forget), len(set(samples.forget))
    if then is None:
        return Standing(*figures, *counts)
    if not then.forget.keys() & now.forget.keys():
        return Standing(*figures, *counts)  # no sample to compare
    above = (figures[2] or 0.0) - 0.5 > auc_margin(len(now.forget), max(1, len(now.unseen)))
    score, member = _score_rise(then, now), _membership_rise(then, now, above)
    told = [one.relapse for one in (score, member) if one is not None]
    relapse = True if True in told else None if None in told else False
    return Standing(*figures, *counts, score, member, relapse)


def relapse_words(name: str, then: Standing, now: Standing) -> str:
    """Return what came back in words, from where to where, and what unseen data score; the empty text for nothing."""
    said = []
    unseen = "" if now.unseen is None else f"; unseen data {now.unseen:.2f}"
    rows = (
        ("score on its forget data", then.forget, now.forget, now.score_rise, unseen),
        ("membership AUC", then.membership, now.membership, now.membership_rise, "; without the data .50"),
    )
    for words, before, after, rise, beside in rows:
        if before is None or after is None or rise is None or rise.relapse is not now.relapse:
            continue
        ends = "" if rise.low is None else f", 90 % interval {rise.low:+.2f} to {rise.high:+.2f}"
        said.append(f"{words} {before:.2f} when it was served, {after:.2f} now ({rise.rise:+.2f}{ends}{beside})")
    if not said or now.relapse is False:
        return ""
    if now.relapse:
        return f"relapse of {name!r}: {'; '.join(said)}"
    return f"{name!r} rose, which {now.found} samples cannot tell from noise: {'; '.join(said)}"


def _pairs(model: nn.Module, dataset: Any, samples: RequestSamples) -> list[tuple[float, float]]:
    columns = list(samples.forget_classes) if samples.of_pixels else list(range(1, samples.num_classes))

    def both(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        if samples.kind == "segmentation":
            scores = mean_of_present(iou_scores(logits, targets, absent=math.nan)[:, columns])
        else:
            scores = correct(logits, targets)
        return scores, loss(logits, targets)

    found = map_batches([model], dataset, both)
    return [] if found is None else [(float(score), float(value)) for score, value in zip(*found, strict=True)]


def _mean(part: Mapping[str, tuple[float, float]]) -> float | None:
    return float(np.mean([score for score, _ in part.values()])) if part else None


def _wins(forget: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Return 1 where a forget sample has the smaller loss, one half for ties, ``(F, U)``."""
    return (forget[:, None] < unseen).astype(float) + 0.5 * (forget[:, None] == unseen)


def _losses(scores: SampleScores, forget: Sequence[str], unseen: Sequence[str]) -> np.ndarray:
    own = np.array([scores.forget[sha][1] for sha in forget])
    return _wins(own, np.array([scores.unseen[sha][1] for sha in unseen]))


def _auc(scores: SampleScores) -> float | None:
    if not scores.forget or not scores.unseen:
        return None
    return float(_losses(scores, list(scores.forget), list(scores.unseen)).mean())


def _score_rise(then: SampleScores, now: SampleScores) -> Rise:
    shared = [sha for sha in then.forget if sha in now.forget]
    after, before = ([part.forget[sha][0] for sha in shared] for part in (now, then))
    found = paired_comparison(after, before, confidence=CONFIDENCE)
    rise, low, high = (0.0, None, None) if found is None else (found.difference, found.low, found.high)
    return Rise(rise, low, high, _beyond(rise, low))


def _membership_rise(then: SampleScores, now: SampleScores, above: bool) -> Rise | None:
    """Return the rise of the AUC, a relapse only where it is ``above`` one half now."""
    forget = [sha for sha in then.forget if sha in now.forget]
    unseen = [sha for sha in then.unseen if sha in now.unseen]
    if not forget or not unseen:
        return None
    moved = _losses(now, forget, unseen) - _losses(then, forget, unseen)
    rise = float(moved.mean())
    if len(forget) < 2 or len(unseen) < 2:
        return Rise(rise, None, None, _beyond(rise, None) if above else False)
    error = math.sqrt(moved.mean(1).var(ddof=1) / len(forget) + moved.mean(0).var(ddof=1) / len(unseen))
    low, high = rise - Z * error, rise + Z * error
    return Rise(rise, low, high, _beyond(rise, low) if above else False)


def _beyond(rise: float, low: float | None) -> bool | None:
    """Return whether a figure rose beyond noise; None where it rose and that cannot be told."""
    if rise < MARGIN:
        return False
    return True if low is not None and low > 0 else None
