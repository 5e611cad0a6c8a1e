"""What to forget, what to keep, and on which held-out data a revision is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .data.relabel import without_class
from .data.tensors import as_tensor, in_order, labels_of, subset
from .errors import check_count, check_number
from .seeding import generator, isolated

Kind = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class UnlearnTask:
    """Training data to forget and to retain, and held-out data split by the same rule.

    Attributes:
        forget, retain: training data, map-style, of ``(input, target)``.
        forget_test, retain_test: held-out data. ``forget_test`` is empty where the rule names training samples only.
        num_classes: number of classes, background included.
        kind: "classification" or "segmentation".
        rule: what is forgotten, in words.
        forget_classes: classes whose training data are forgotten as a whole.
        forget_indices: positions of the forget data in the training set, ``(F,)`` int64; None when not built from one.

    Raises: ValueError when there is nothing to forget.
    """

    forget: Any
    retain: Any
    forget_test: Any
    retain_test: Any
    num_classes: int
    kind: Kind = "classification"
    rule: str = "given splits"
    forget_classes: tuple[int, ...] = ()
    forget_indices: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes, low=2)
        if len(self.forget) == 0:
            raise ValueError(f"expected at least one sample to forget, but got an empty forget set ({self.rule})")

    @classmethod
    def forget_class(
        cls,
        train: Any,
        test: Any,
        label: int,
        *,
        fraction: float = 1.0,
        seed: int = 0,
        num_classes: int | None = None,
    ) -> UnlearnTask:
        """Forget class ``label``, or a random ``fraction`` in (0, 1] of its training samples.

        The whole class: its held-out samples are ``forget_test``. A fraction: a model trained without it still knows
        the class, so held-out data hold nothing to forget and ``forget_test`` is empty.

        Raises: ValueError on an unknown class or fraction; TypeError on a label, or labels, that are not integers.
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True)
        labels, test_labels = _class_labels("train", train), _class_labels("test", test)
        classes = _count_classes(num_classes, labels, test_labels)
        label = check_count("label", label, low=0)
        if label >= classes:
            raise ValueError(f"expected label to be a class in [0, {classes - 1}], but got {label}")
        members = (labels == label).nonzero().flatten()
        if fraction < 1:
            members = _draw(members, max(1, round(fraction * len(members))), seed)
        whole = fraction == 1
        return cls._split(
            train,
            test,
            members,
            (test_labels == label).nonzero().flatten() if whole else None,
            classes,
            f"class {label}" if whole else f"{fraction:g} of class {label}, seed {seed}",
            (label,) if whole else (),
        )

    @classmethod
    def forget_samples(
        cls,
        train: Any,
        test: Any,
        indices: Sequence[int] | np.ndarray | Tensor,
        *,
        num_classes: int | None = None,
    ) -> UnlearnTask:
        """Forget the training samples at ``indices``; ``forget_test`` is empty.

        Raises: ValueError on an empty, repeated or out-of-range index; TypeError when one is not an integer.
        """
        chosen = as_tensor(indices)
        if chosen.numel() and (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool):
            raise TypeError(f"expected indices to be integers, but got {chosen.dtype}")
        chosen = chosen.to("cpu", torch.int64).flatten()
        outside = chosen[(chosen < 0) | (chosen >= len(train))]
        if len(outside):
            raise ValueError(f"expected indices in [0, {len(train) - 1}], but got {outside[:5].tolist()}")
        if len(chosen.unique()) < len(chosen):
            raise ValueError(
                f"expected indices without repetition, but got {len(chosen) - len(chosen.unique())} repeated"
            )
        return cls._from_train(train, test, chosen, f"{len(chosen)} chosen samples", num_classes)

    @classmethod
    def forget_random(
        cls, train: Any, test: Any, fraction: float, *, seed: int = 0, num_classes: int | None = None
    ) -> UnlearnTask:
        """Forget a random ``fraction`` in (0, 1) of the training samples; ``forget_test`` is empty.

        Raises: ValueError on a fraction outside (0, 1).
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True, open_high=True)
        chosen = _draw(torch.arange(len(train)), round(fraction * len(train)), seed)
        return cls._from_train(train, test, chosen, f"{fraction:g} of all samples, seed {seed}", num_classes)

    @classmethod
    def forget_where(
        cls,
        train: Any,
        test: Any,
        train_metadata: Any,
        test_metadata: Any,
        predicate: Callable[[Any], Any],
        *,
        num_classes: int | None = None,
    ) -> UnlearnTask:
        """Forget every sample whose metadata satisfy ``predicate``, in training and held-out data alike.

        Args:
            train, test: the data sets.
            train_metadata, test_metadata: tables with one row a sample, in order (pandas, or a dict of arrays).
            predicate: called once with each table; returns one bool a row: ``lambda t: t["device"] == "B"``.
            num_classes: number of classes, where the labels do not tell.

        Raises: ValueError when the predicate does not return one bool a sample, or selects nothing; TypeError when
            there is no table.
        """
        masks = []
        for name, data, table in (("train", train, train_metadata), ("test", test, test_metadata)):
            if table is None:
                raise TypeError(f"expected {name}_metadata to be a table with one row a sample, but got None")
            mask = np.asarray(predicate(table))
            if mask.dtype != bool or mask.shape != (len(data),):
                raise ValueError(
                    f"expected predicate to return {len(data)} bools for {name}_metadata, "
                    f"but got {mask.dtype} of shape {mask.shape}"
                )
            masks.append(torch.from_numpy(mask.nonzero()[0]))
        kind, classes = _kind_and_classes(train, test, num_classes)
        return cls._split(train, test, masks[0], masks[1], classes, "metadata predicate", (), kind)

    @classmethod
    def forget_mask_class(cls, train: Any, test: Any, label: int, *, num_classes: int | None = None) -> UnlearnTask:
        """Forget class ``label`` of the masks: its pixels, not the images they are in.

        ``forget`` holds the images in which the class occurs, with their masks. ``retain`` holds all images, with the
        class called background (0): what a model that was never taught it would have been given. Held-out data alike.

        Raises: ValueError on an unknown class, the background, or data that are not masks.
        """
        kind, classes = _kind_and_classes(train, test, num_classes)
        if kind != "segmentation":
            raise ValueError("expected train to have masks, but its targets are class labels; use forget_class")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 < label < classes:
            raise ValueError(f"expected label to be a foreground class in [1, {classes - 1}], but got {label!r}")
        holding = [
            (_targets(name, data) == label).flatten(1).any(dim=1).nonzero().flatten()
            for name, data in (("train", train), ("test", test))
        ]
        return cls(
            subset(train, holding[0]),
            without_class(train, label),
            subset(test, holding[1]),
            without_class(test, label),
            classes,
            kind,
            f"mask class {label}",
            (label,),
            holding[0],
        )

    @classmethod
    def _from_train(cls, train: Any, test: Any, chosen: Tensor, rule: str, num_classes: int | None) -> UnlearnTask:
        kind, classes = _kind_and_classes(train, test, num_classes)
        return cls._split(train, test, chosen, None, classes, rule, (), kind)

    @classmethod
    def _split(
        cls,
        train: Any,
        test: Any,
        chosen: Tensor,
        chosen_test: Tensor | None,
        num_classes: int,
        rule: str,
        forget_classes: tuple[int, ...],
        kind: Kind = "classification",
    ) -> UnlearnTask:
        forget, retain = _halves(train, chosen)
        forget_test, retain_test = _halves(test, chosen_test if chosen_test is not None else torch.empty(0).long())
        return cls(
            forget,
            retain,
            forget_test,
            retain_test,
            num_classes,
            kind,
            rule,
            forget_classes,
            chosen.sort().values,
        )


def _halves(dataset: Any, chosen: Tensor) -> tuple[Any, Any]:
    keep = torch.ones(len(dataset), dtype=torch.bool)
    keep[chosen] = False
    return subset(dataset, (~keep).nonzero().flatten()), subset(dataset, keep.nonzero().flatten())


def _draw(members: Tensor, count: int, seed: int) -> Tensor:
    return members[torch.randperm(len(members), generator=generator(seed, "forget"))[:count]]


def _targets(name: str, dataset: Any) -> Tensor:
    labels = labels_of(dataset)
    if labels is None:
        # The data set hides its labels: the only way to them is to read it once.
        with isolated(0):  # a random transform of the inputs would draw from the caller
            labels = torch.cat([y.cpu() for _, y in in_order(dataset)]) if len(dataset) else torch.empty(0).long()
    if len(labels) != len(dataset):
        raise ValueError(f"expected one label a sample of {name}, but got {len(labels)} for {len(dataset)}")
    return labels


def _class_labels(name: str, dataset: Any) -> Tensor:
    labels = _targets(name, dataset)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"expected the labels of {name} to be integers, but got {labels.dtype}")
    if labels.dim() != 1:
        raise ValueError(
            f"expected the labels of {name} to be one class index a sample, but got shape {tuple(labels.shape)}"
        )
    return labels


def _count_classes(given: int | None, *labels: Tensor) -> int:
    found = max((int(part.max()) for part in labels if part.numel()), default=-1) + 1
    lowest = min((int(part.min()) for part in labels if part.numel()), default=0)
    if lowest < 0:
        raise ValueError(f"expected labels of at least 0, but got {lowest}")
    if given is not None and check_count("num_classes", given, low=2) < found:
        raise ValueError(f"expected num_classes to cover label {found - 1}, but got {given}")
    return given if given is not None else max(found, 2)


def _kind_and_classes(train: Any, test: Any, num_classes: int | None) -> tuple[Kind, int]:
    """Masks are recognised by one sample's target; only class labels are counted without being asked to."""
    if len(train) == 0:
        raise ValueError("expected train to hold at least one sample, but got an empty data set")
    labels = labels_of(train)
    with isolated(0):
        first = labels[0] if labels is not None else torch.as_tensor(train[0][1])
    # A mask has two dimensions at least; a row of numbers is a mistake, which the check of class labels names.
    if first.dim() < 2:
        return "classification", _count_classes(num_classes, _class_labels("train", train), _class_labels("test", test))
    if first.is_floating_point():
        return "segmentation", num_classes or 2
    if num_classes is None:
        exposed = labels_of(test)
        held_out = () if exposed is None else (exposed,)
        return "segmentation", _count_classes(None, _targets("train", train), *held_out)
    return "segmentation", check_count("num_classes", num_classes, low=2)
