"""Held-out data of a task: those that judge, and those to choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import check_count
from ..seeding import generator
from .findings import strata
from .tensors import subset

# Of held-out data without a validation split of their own: enough to place a stop by, and most are left to judge.
VALIDATION_SHARE = 0.25

# How the words begin that tell of validation data, after a rule.
WORDS = " (validation: "

# Data that judge and data to choose by, each with what the rule selects of them, and how many are set aside in words.
Parts = tuple[tuple[Any, Tensor], tuple[Any, Tensor], str]


class HeldOut:
    """Held-out data of a task: those that judge, and those to choose by, which are set aside where none are given.

    Args:
        test: The data that judge.
        validation: The data to choose by; None to set a share of ``test`` aside.
        read: How the labels of each are read; None where they do not matter.
    """

    def __init__(self, test: Any, validation: Any, read: Callable[[str, Any], Tensor] | None) -> None:
        self.test, self.validation = test, validation
        self.sources = [("test", test)] if validation is None else [("test", test), ("validation", validation)]
        self.labels = [] if read is None else [read(name, data) for name, data in self.sources]

    def parts(self, selected: Sequence[Tensor], seed: int) -> Parts:
        """Return both parts, each beside its share of ``selected``: one bool mask for each source."""
        check_count("validation_seed", seed, low=-(2**63))
        if self.validation is not None:
            words = f"{WORDS}{len(self.validation)} samples of their own)"
            return (self.test, selected[0]), (self.validation, selected[1]), words
        mask = selected[0]
        # By the labels alone: of several requests on the same data, what one judges by no other chooses by.
        aside = _set_aside(self.labels[0] if self.labels else torch.zeros_like(mask, dtype=torch.int64), seed)
        words = f"{WORDS}{int(aside.sum())} of {len(aside)} held-out samples, seed {seed})"
        return (subset(self.test, ~aside), mask[~aside]), (subset(self.test, aside), mask[aside]), words

    def nothing(self, seed: int) -> Parts:
        """Return both parts, of which nothing is selected."""
        return self.parts([torch.zeros(len(data), dtype=torch.bool) for _, data in self.sources], seed)


def _set_aside(labels: Tensor, seed: int) -> Tensor:
    """Return a bool mask ``(N,)`` of a random quarter of each class; of two or more, some are on either side.

    Of findings ``(N, K)`` the classes are their :func:`.findings.strata`.
    """
    labels = strata(labels) if labels.dim() > 1 else labels
    aside = torch.zeros(len(labels), dtype=torch.bool)
    kinds, counts = labels.unique(return_counts=True)
    # In one pass: classes may be many.
    for label, members in zip(kinds.tolist(), labels.argsort(stable=True).split(counts.tolist()), strict=True):
        count = max(1, round(VALIDATION_SHARE * len(members))) if len(members) > 1 else 0
        aside[members[torch.randperm(len(members), generator=generator(seed, "validation", label))[:count]]] = True
    return aside


def without_words(rule: str) -> str:
    """Return a task's rule without the words on its validation data."""
    return rule.rpartition(WORDS)[0] or rule
