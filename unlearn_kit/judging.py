"""What a table of figures says in words: pure functions, so that the rules can be read and tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from .scores import Evaluation, FindingScores, average_gap, tug_of_war, tug_of_war_mia

MARGIN = 0.02  # differences below two points are never called one


def margin(share: float, count: int) -> float:
    """Return how far a share of ``count`` samples may be off by chance: two standard errors, at least two points.

    For a mean of other scores in [0, 1], such as the IoU of images, it is an upper bound, since none spread more than
    zeros and ones of the same mean: over few images only a large difference counts as one.
    """
    return max(MARGIN, 2 * math.sqrt(share * (1 - share) / count))


def auc_margin(members: int, others: int) -> float:
    """Return how far an AUC near one half may be off by chance: two standard errors of Mann-Whitney, at least .02."""
    return max(MARGIN, 2 * math.sqrt((members + others + 1) / (12 * members * others)))


def nothing_to_forget(original: Evaluation, reference: Evaluation) -> bool:
    """Return whether the original and the retrained reference cannot be told apart on the forget set.

    Both the score there (held-out data where the rule names a class, else training data) and the membership AUC must be
    within the margin; then ranking methods would rank noise.
    """
    mine, theirs, count = forget_score(original), forget_score(reference), forget_count(reference)
    if mine is None or theirs is None or abs(mine - theirs) >= margin(theirs, count):
        return False
    if original.membership is None or reference.membership is None:
        return True
    members, others = reference.sizes["forget"], reference.sizes["forget_test"] or reference.sizes["retain_test"]
    return abs(original.membership - reference.membership) < auc_margin(members, others)


def over_forgets(scores: Evaluation, reference: Evaluation) -> bool:
    """Return whether a model is clearly worse on the forget set than the reference, which marks those samples."""
    if scores.forget is None or reference.forget is None:
        return False
    return scores.forget < reference.forget - margin(reference.forget, reference.sizes["forget"])


def beside(scores: Evaluation, reference: Evaluation) -> Evaluation:
    """Return the scores with their distances to the reference's."""
    mine, theirs = (
        {"forget": one.forget, "retain": one.retain, "test": one.retain_test, "membership": one.membership}
        for one in (scores, reference)
    )
    return replace(
        scores,
        reference=reference,
        average_gap=average_gap(mine, theirs),
        tug_of_war=tug_of_war(mine, theirs),
        tug_of_war_mia=tug_of_war_mia(mine, theirs),
    )


def beside_itself(scores: Evaluation) -> Evaluation:
    """Return the reference's scores with its distances to itself filled in: 0 and 1, where they are defined."""
    return replace(beside(scores, scores), reference=scores.reference)


def evaluation_of(scores: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation whose ``as_dict`` is ``scores``."""
    values = dict(scores)
    if values["per_class"] is not None:
        values["per_class"] = {int(label): score for label, score in values["per_class"].items()}
    if values.get("findings") is not None:
        values["findings"] = {int(finding): FindingScores(**own) for finding, own in values["findings"].items()}
    return Evaluation(**values)


def forget_score(scores: Evaluation) -> float | None:
    """Return the score on held-out forget data where there are any, else on the training data."""
    return scores.forget_test if scores.sizes["forget_test"] else scores.forget


def retain_score(scores: Evaluation) -> float | None:
    """Return the score on retained data, held out or trained on as in :func:`forget_score`."""
    return scores.retain_test if scores.sizes["forget_test"] else scores.retain


def forget_count(scores: Evaluation) -> int:
    """Return the number of samples behind :func:`forget_score`."""
    return scores.sizes["forget_test"] or scores.sizes["forget"]


class ScoredCandidate(Protocol):
    """A point to choose from: accuracies in [0, 1]; neither says anything about the reference."""

    @property
    def forget(self) -> float:
        """Return the accuracy on the forget data."""
        ...

    @property
    def validation(self) -> float:
        """Return the accuracy on the validation data, which choices are made on."""
        ...


def choose_by_held_out(candidates: Sequence[ScoredCandidate], original: float, *, within: float = 0.02) -> int | None:
    """Return the place of the candidate whose forget accuracy is nearest to its own accuracy on unseen data.

    A model without those samples would treat them as unseen, so no reference is needed to choose. Only candidates whose
    validation accuracy is at most ``within`` below the original's are looked at; ties go to the first.

    Args:
        candidates: What to choose from.
        original: The original model's validation accuracy, in [0, 1].
        within: The accuracy one may pay.

    Returns:
        The place in ``candidates``; None when no candidate is good enough.
    """
    useful = [place for place, point in enumerate(candidates) if point.validation >= original - within - 1e-12]
    return min(useful, key=lambda place: abs(candidates[place].forget - candidates[place].validation), default=None)


def within(gap: float | None, resolution: float | None) -> bool | None:
    """Return whether a distance to a reference is at most that between references; None where one is unknown."""
    if gap is None or resolution is None:
        return None
    # Equal differences of equal figures may round apart.
    return gap <= resolution or math.isclose(gap, resolution, rel_tol=1e-9, abs_tol=1e-12)


def farthest(gaps: Iterable[float | None]) -> float | None:
    """Return the largest of the distances that are known; None where there are none."""
    return max((gap for gap in gaps if gap is not None), default=None)
