"""Class weights that undo the imbalance of a data set, for training and for every term toward its labels."""

from __future__ import annotations

from typing import Any

import torch

from ..arguments import checked
from ..outputs import is_ignored
from .checks import check_dataset, count_classes
from .findings import check_rows, finding_counts
from .tensors import read_labels


@checked
def class_weights(dataset: Any, num_classes: int | None = None) -> tuple[float, ...]:
    """Return weights that give every class the same part in a loss.

    Of C classes ``n / (C n_c)``, as scikit-learn's "balanced": a class that occurs as often as the others weighs 1; n
    counts samples, or the pixels of masks. Of K findings ``absent / present``: what torch calls ``pos_weight``.

    Args:
        dataset: Map-style, of ``(input, target)``; all targets are read.
        num_classes: Number of classes, where the labels do not tell.

    Raises:
        ValueError: When a class, or a finding, occurs nowhere, naming it.
        TypeError: When it is no data set.
    """
    check_dataset("dataset", dataset)
    labels = read_labels(dataset)
    if labels.dim() == 2 and labels.shape[1] > 1:
        present, absent = finding_counts(check_rows("dataset", labels))
        _check_all_occur("finding", present)
        return tuple((absent / present).tolist())
    classes = count_classes(num_classes, labels)
    known = labels[~is_ignored(labels)].long()
    counts = torch.bincount(known, minlength=classes)
    _check_all_occur("class", counts)
    return tuple((len(known) / (classes * counts)).tolist())


def _check_all_occur(word: str, counts: torch.Tensor) -> None:
    none = (counts == 0).nonzero().flatten().tolist()
    if none:
        raise ValueError(f"expected every {word} to occur in dataset, but got no sample of {none}")
