"""What a data set yields, looked at before anything is made of it: a few samples, never a pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..errors import check_choice, check_count
from ..outputs import IGNORE, check_finite, is_ignored
from ..seeding import generator, isolated
from .findings import check_row, is_row
from .forms import check_form, check_pair, form_of
from .tensors import computable

KINDS = ("classification", "segmentation", "multilabel")
# What a target of each kind is, and what to do where another is meant.
WORDS = {
    "classification": "class labels (of findings that do not exclude each other, give one 0 or 1 each)",
    "segmentation": "masks",
    "multilabel": "rows of findings, one 0 or 1 each (of classes that do, give their index, such as row.argmax())",
}
# Labels of masks count classes where at least one in so many occurs, and the largest number of a byte is a mark.
SPARSE = 8
MARKS = (255, 65535)
REMEDY = "; ignore_index= names the label of pixels that nobody labelled"


@checked
def check_dataset(
    name: str,
    dataset: Any,
    *,
    kind: str | None = None,
    num_classes: int | None = None,
    finite: bool = True,
    empty: bool = True,
) -> None:
    """Refuse what is no data set of ``(input, target)``, by its first, its last and one other sample.

    Args:
        name: The argument, for the error.
        dataset: What came as one.
        kind: "classification", "segmentation" or "multilabel", where the targets must be class labels, masks or rows of
            findings.
        num_classes: The number of classes, where the labels must be among them.
        finite: Whether inputs must be finite; False where the outputs are looked at anyway.
        empty: Whether one without samples passes.

    Raises:
        TypeError: As :func:`check_form`, or when a sample is no pair of numbers.
        ValueError: When an input is not finite, a label is out of range, or there is no sample and must be one.
    """
    check_form(name, dataset)
    if not empty and len(dataset) == 0:
        raise ValueError(f"expected {name} to hold at least one sample, but got an empty data set")
    with isolated(0):  # a random transform of the inputs would draw from the caller
        for sample in _some(dataset):
            check_pair(name, sample)
            x, y = sample
            _check_input(name, x, finite)
            _check_target(name, y, kind, num_classes)


def is_mask(target: Any) -> bool:
    """Return whether a target is a mask: it has two dimensions at least; a row of numbers is a mistake."""
    return np.ndim(target) >= 2


def kind_of(target: Any) -> str:
    """Return the kind of task that a sample's target is of."""
    return "segmentation" if is_mask(target) else "multilabel" if is_row(target) else "classification"


def check_kind(kind: Any) -> None:
    """Refuse a kind of task that there is none of.

    Raises:
        ValueError: With the nearest kind.
    """
    check_choice("kind", kind, KINDS)


def _some(dataset: Any) -> Iterator[Any]:
    count = len(dataset)
    if count:
        other = int(torch.randint(count, (1,), generator=generator(0, "check", count)))
        yield from (dataset[position] for position in sorted({0, other, count - 1}))


def _check_input(name: str, x: Any, finite: bool) -> None:
    if not isinstance(x, (Tensor, np.ndarray, np.generic, int, float)):
        remedy = "; turn it into one with a transform, such as torchvision's ToTensor" if _is_picture(x) else ""
        raise TypeError(f"expected every input of {name} to be a Tensor, but got {form_of(x)}{remedy}")
    values = torch.as_tensor(x)
    if values.layout != torch.strided:
        raise TypeError(f"expected every input of {name} to be a dense tensor, but got {values.layout}; x.to_dense()")
    if values.dim() >= 3 and not values.is_floating_point():
        raise TypeError(
            f"expected the images of {name} to be floating point in [0, 1], but got {values.dtype}; convert them "
            "(x.float() / 255), or hold them in data.TensorImages, which does"
        )
    if finite and values.is_floating_point():
        check_finite(f"every input of {name}", values)


def _check_target(name: str, y: Any, kind: str | None, num_classes: int | None) -> None:
    if isinstance(y, str):
        raise TypeError(
            f"expected every target of {name} to be a class index or a mask, but got the text {y!r}; number the classes"
        )
    if not isinstance(y, (Tensor, np.ndarray, np.generic, int, float)):
        remedy = "; turn it into a Tensor with a target_transform" if _is_picture(y) else ""
        remedy = "; a row of findings is a Tensor of one 0 or 1 each" if isinstance(y, (list, tuple)) else remedy
        raise TypeError(f"expected every target of {name} to be a class index or a mask, but got {form_of(y)}{remedy}")
    target = computable(torch.as_tensor(y))
    own = kind_of(target)
    if kind is not None and own != kind:
        raise ValueError(f"expected kind to be what {name} yields, which are {WORDS[own]}, but got {kind!r}")
    if own == "multilabel":
        check_row(name, target, num_classes)
        return
    if target.is_complex() or (target.is_floating_point() and not is_mask(target) and bool((target % 1).any())):
        raise TypeError(f"expected the labels of {name} to be integers, but got {target.item():g}")
    if num_classes is not None and target.numel():
        known = target[~is_ignored(target)] if is_mask(target) else target
        _check_range(name, known, num_classes)


def _check_range(name: str, labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside ``0..num_classes - 1``.

    Raises:
        ValueError: Naming the data.
    """
    low, high = (labels.amin().item(), labels.amax().item()) if labels.numel() else (0, 0)
    if not (low >= 0 and high < num_classes):
        raise ValueError(
            f"expected the labels of {name} in 0..{num_classes - 1}, but got {low:g}..{high:g}"
            + (REMEDY if labels.dim() else "")
        )


def count_classes(given: int | None, *labels: Tensor) -> int:
    """Return the number of classes: as told, or one more than the largest label, and two at least.

    Args:
        given: What the caller said; None to count.
        *labels: All targets that are known: class labels ``(N,)``, or masks, whose ``IGNORE`` does not count.

    Raises:
        ValueError: On labels below 0, on more classes than told, and on masks with a label far above all others, which
            is no class but a mark.
    """
    values = [part.unique() for part in labels if part.numel()]
    dense = any(part.dim() > 1 for part in labels)
    found = torch.cat([part.double() for part in values]).unique() if values else torch.empty(0)
    found = found[found != IGNORE] if dense else found
    low, high = (int(found.amin()), int(found.amax())) if len(found) else (0, -1)
    remedy = REMEDY if dense else ""
    if low < 0:
        raise ValueError(f"expected labels of at least 0, but got {low}{remedy}")
    if given is not None:
        if check_count("num_classes", given, low=2) <= high:
            raise ValueError(f"expected num_classes to cover label {high}, but got {given}{remedy}")
        return given
    if dense and (SPARSE * len(found) < high + 1 or (high in MARKS and high - 1 not in found)):
        raise ValueError(
            f"expected masks whose labels count classes, but got label {high} beside {found[:-1].long().tolist()[-5:]}"
            f"{remedy}; if it is a class, pass num_classes={high + 1}"
        )
    return max(high + 1, 2)


def _is_picture(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.")
