"""Multi-hot targets: several findings a sample, each present (1), absent (0) or unknown (``IGNORE``)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..outputs import IGNORE, is_ignored
from ..seeding import isolated

UNKNOWN = f"an unknown finding is {IGNORE}, or what ignore_index= names"


def is_row(target: Any) -> bool:
    """Return whether a sample's target is a row of several numbers: neither a class label nor a mask."""
    return np.ndim(target) == 1 and np.shape(target)[0] > 1


def holds_rows(dataset: Any) -> bool:
    """Return whether the targets of a data set are rows of findings, by its first sample."""
    if len(dataset) == 0:
        return False
    with isolated(0):  # a random transform of the inputs would draw from the caller
        return is_row(torch.as_tensor(dataset[0][1]))


def check_row(name: str, target: Tensor, count: int | None) -> None:
    """Refuse a sample's target that is no row of findings.

    Args:
        name: The data set, for the error.
        target: What came, ``(K,)``.
        count: The number of findings; None where it is not known yet.

    Raises:
        ValueError: When one is neither 0, 1 nor ``IGNORE``, or there is another number of them.
    """
    if target.is_floating_point() and target.isnan().any():
        raise ValueError(f"expected the findings of {name} to be 0 or 1, but got NaN; {UNKNOWN}")
    known = target[~is_ignored(target)]
    wrong = known[(known != 0) & (known != 1)]
    if len(wrong):
        raise ValueError(f"expected the findings of {name} to be 0 or 1, but got {wrong[0].item():g}; {UNKNOWN}")
    if count is not None and len(target) != count:
        raise ValueError(f"expected every target of {name} to hold {count} findings, but got {len(target)}")


def check_rows(name: str, targets: Tensor) -> Tensor:
    """Return all targets ``(N, K)`` of a data set when they are findings, and warn where they look like classes.

    Raises:
        ValueError: When a finding is neither 0, 1 nor ``IGNORE``.
    """
    check_row(name, targets.flatten(), None)
    if name == "train" and len(targets) > 1 and bool(((targets == 1).sum(1) == 1).all()) and bool((targets >= 0).all()):
        warnings.warn(
            f"every target of {name} has exactly one 1 of {targets.shape[1]}: it is read as findings that do not "
            "exclude each other, one sigmoid each. Of a head with a softmax, give class indices (targets.argmax(1))",
            stacklevel=4,
        )
    return targets


def present(targets: Tensor, finding: int) -> Tensor:
    """Return where ``finding`` is known to be present in targets ``(N, K)``, ``(N,)`` bool."""
    return targets[:, finding] == 1


def strata(targets: Tensor) -> Tensor:
    """Return for each row of ``(N, K)`` the rarest finding that is present, K where none is: ``(N,)`` int64.

    A share drawn from each stratum by itself holds some of every finding, which a share of all would miss of rare ones.
    """
    there = targets == 1
    counts = there.sum(0).double()
    K = targets.shape[1]
    # Of two findings as rare as each other, the first.
    rarity = torch.where(there, counts, torch.inf)
    return torch.where(there.any(1), rarity.argmin(1), K) if len(targets) else torch.empty(0, dtype=torch.int64)


@checked
def finding_counts(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return in how many rows of ``(N, K)`` each finding is present and absent, two ``(K,)`` int64."""
    return (targets == 1).sum(0), (targets == 0).sum(0)
