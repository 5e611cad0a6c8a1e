"""How well a multi-label model does, finding by finding: AUROC, sensitivity, specificity, accuracy at .5.

Findings that are unknown in a sample (``IGNORE``) count nowhere. A figure that the data cannot give, such as the AUROC
of a finding that no sample has, is None, never 0, and means leave it out.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..outputs import decisions, predicted_labels
from ..scores import FindingScores
from .membership import probability_smaller
from .predict import Reading, class_labels, mean_score, predict


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the decision on a finding is right, 0 where wrong, NaN where it is unknown: ``(B, K)`` float64."""
    truth = class_labels(logits, targets)
    return torch.where(truth < 0, math.nan, (predicted_labels(logits) == truth).double())


def table(logits: Tensor, targets: Tensor) -> dict[int, FindingScores]:
    """Return the scores of each finding, from logits ``(N, K)`` and targets ``(N, K)``."""
    logits = decisions(logits, targets)
    truth, marks, ranks = class_labels(logits, targets), right(logits, targets), logits[:, 0].double()
    found = {}
    for k in range(truth.shape[1]):
        there, gone = truth[:, k] == 1, truth[:, k] == 0
        found[k] = FindingScores(
            int(there.sum()),
            int(gone.sum()),
            _mean(marks[there | gone, k]),
            _mean(marks[there, k]),
            _mean(marks[gone, k]),
            probability_smaller(ranks[gone, k], ranks[there, k]),
        )
    return found


def macro_auroc(scores: dict[int, FindingScores]) -> float | None:
    """Return the mean AUROC of the findings that have one; None where none has."""
    known = [own.auroc for own in scores.values() if own.auroc is not None]
    return sum(known) / len(known) if known else None


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


@checked
def finding_scores(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> dict[int, FindingScores] | None:
    """Return the scores of each finding of a multi-label data set; None of an empty one.

    Raises:
        ValueError: On targets that are no rows of findings.
    """
    logits, targets = predict(model, dataset, **reading)
    if len(logits) == 0:
        return None
    if targets.dim() != 2:
        raise ValueError(f"expected targets (N, K), one 0 or 1 a finding, but got shape {tuple(targets.shape)}")
    return table(logits, targets)


@checked
@overload
def auroc(
    model: nn.Module, dataset: Any, *, per_finding: Literal[False] = False, **reading: Unpack[Reading]
) -> float | None: ...
@checked
@overload
def auroc(
    model: nn.Module, dataset: Any, *, per_finding: Literal[True], **reading: Unpack[Reading]
) -> dict[int, float | None] | None: ...
@checked
def auroc(
    model: nn.Module, dataset: Any, *, per_finding: bool = False, **reading: Unpack[Reading]
) -> float | dict[int, float | None] | None:
    """Return the area under the ROC curve, the mean over the findings that have one (macro), in [0, 1].

    ``per_finding=True`` gives ``{finding: value}``, None for a finding that all samples have, or none. Ideal: the
    reference's value. None on an empty data set, and where no finding has one.
    """
    scores = finding_scores(model, dataset, **reading)
    if scores is None:
        return None
    return {k: own.auroc for k, own in scores.items()} if per_finding else macro_auroc(scores)


@checked
def exact_match(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> float | None:
    """Return the share of samples all of whose known findings are predicted right (subset accuracy), in [0, 1].

    Ideal: the reference's value. None on an empty data set.
    """
    return mean_score([model], dataset, all_right, **reading)


def all_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where every known decision is right, else 0, NaN where none is known: ``(B,)`` float64."""
    marks = right(logits, targets).flatten(1)
    return torch.where(marks.isnan().all(1), math.nan, (marks.nan_to_num(nan=1.0) == 1).all(1).double())
