"""What to forget, what to keep, on which held-out data one may choose, and on which a revision is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .data.relabel import without_class
from .data.tensors import as_tensor, in_order, labels_of, subset
from .errors import check_choice, check_count, check_number
from .seeding import generator, isolated

Kind = Literal["classification", "segmentation"]

# Of held-out data without a validation split of their own: enough to place a stop by, and most are left to judge.
VALIDATION_SHARE = 0.25


@dataclass(frozen=True)
class UnlearnTask:
    """Training data to forget and to retain, and held-out data split by the same rule.

    Held-out data serve two purposes, which never share a sample: validation data may be looked at by whatever chooses
    (a stop, a rewind, a search, a dial), and test data judge alone. The constructors take ``validation=``, a data set
    of its own; without one they set a quarter of ``test`` aside, drawn from each class (of masks: from all images) by
    ``validation_seed`` alone, so that no rule changes which samples judge, and ``rule`` says how many. A class with a
    single held-out sample keeps it for the test.

    Attributes:
        forget, retain: training data, map-style, of ``(input, target)``.
        forget_test, retain_test: held-out data that judge. ``forget_test`` is empty where the rule names training
            samples only.
        forget_validation, retain_validation: held-out data to choose by, split by the same rule.
        num_classes: number of classes, background included.
        kind: "classification" or "segmentation".
        rule: what is forgotten, in words.
        forget_classes: classes whose training data are forgotten as a whole.
        forget_indices: positions of the forget data in the training set, ``(F,)`` int64; None when not built from one.

    Raises:
        ValueError: When there is nothing to forget.
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
    forget_validation: Any = ()
    retain_validation: Any = ()

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("classification", "segmentation"))
        check_count("num_classes", self.num_classes, low=2)
        if len(self.forget) == 0:
            raise ValueError(f"expected at least one sample to forget, but got an empty forget set ({self.rule})")

    def on_validation(self) -> UnlearnTask:
        """Return the task with its validation data in the place of its test data: what a choice is measured on."""
        return replace(
            self,
            forget_test=self.forget_validation,
            retain_test=self.retain_validation,
            forget_validation=(),
            retain_validation=(),
        )

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
        validation: Any = None,
        validation_seed: int = 0,
    ) -> UnlearnTask:
        """Forget class ``label``, or a random ``fraction`` in (0, 1] of its training samples.

        The whole class: its held-out samples are ``forget_test``. A fraction: a model trained without it still knows
        the class, so held-out data hold nothing to forget and ``forget_test`` is empty.

        Raises:
            ValueError: On an unknown class or fraction.
            TypeError: On a label, or labels, that are not integers.
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True)
        labels = _class_labels("train", train)
        held_out = _HeldOut(test, validation, _class_labels)
        classes = _count_classes(num_classes, labels, *held_out.labels)
        label = check_count("label", label, low=0)
        if label >= classes:
            raise ValueError(f"expected label to be a class in [0, {classes - 1}], but got {label}")
        members = (labels == label).nonzero().flatten()
        if fraction < 1:
            members = _draw(members, max(1, round(fraction * len(members))), seed)
        whole = fraction == 1
        selected = [(own == label) & whole for own in held_out.labels]
        return cls._split(
            train,
            held_out.parts(selected, validation_seed),
            members,
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
        validation: Any = None,
        validation_seed: int = 0,
    ) -> UnlearnTask:
        """Forget the training samples at ``indices``; ``forget_test`` is empty.

        Raises:
            ValueError: On an empty, repeated or out-of-range index.
            TypeError: When one is not an integer.
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
        rule = f"{len(chosen)} chosen samples"
        return cls._from_train(train, test, chosen, rule, num_classes, validation, validation_seed)

    @classmethod
    def forget_random(
        cls,
        train: Any,
        test: Any,
        fraction: float,
        *,
        seed: int = 0,
        num_classes: int | None = None,
        validation: Any = None,
        validation_seed: int = 0,
    ) -> UnlearnTask:
        """Forget a random ``fraction`` in (0, 1) of the training samples; ``forget_test`` is empty.

        Raises:
            ValueError: On a fraction outside (0, 1).
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True, open_high=True)
        chosen = _draw(torch.arange(len(train)), round(fraction * len(train)), seed)
        rule = f"{fraction:g} of all samples, seed {seed}"
        return cls._from_train(train, test, chosen, rule, num_classes, validation, validation_seed)

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
        validation: Any = None,
        validation_metadata: Any = None,
        validation_seed: int = 0,
    ) -> UnlearnTask:
        """Forget every sample whose metadata satisfy ``predicate``, in training and held-out data alike.

        Args:
            train, test: the data sets.
            train_metadata, test_metadata: tables with one row a sample, in order (pandas, or a dict of arrays).
            predicate: called once with each table; returns one bool a row: ``lambda t: t["device"] == "B"``.
            num_classes: number of classes, where the labels do not tell.
            validation, validation_metadata: held-out data to choose by, and their table.
            validation_seed: of the share of ``test`` that is set aside without them.

        Raises:
            ValueError: When the predicate does not return one bool a sample, or selects nothing.
            TypeError: When there is no table.
        """
        given = [("train", train, train_metadata), ("test", test, test_metadata)]
        if validation is not None:
            given.append(("validation", validation, validation_metadata))
        masks = [_selected(name, data, table, predicate) for name, data, table in given]
        kind, classes, held_out = _kind_and_classes(train, test, num_classes, validation)
        return cls._split(
            train,
            held_out.parts(masks[1:], validation_seed),
            masks[0].nonzero().flatten(),
            classes,
            "metadata predicate",
            (),
            kind,
        )

    @classmethod
    def forget_mask_class(
        cls,
        train: Any,
        test: Any,
        label: int,
        *,
        num_classes: int | None = None,
        validation: Any = None,
        validation_seed: int = 0,
    ) -> UnlearnTask:
        """Forget class ``label`` of the masks: its pixels, not the images they are in.

        ``forget`` holds the images in which the class occurs, with their masks. ``retain`` holds all images, with the
        class called background (0): what a model that was never taught it would have been given. Held-out data alike.

        Raises:
            ValueError: On an unknown class, the background, or data that are not masks.
        """
        kind, classes, held_out = _kind_and_classes(train, test, num_classes, validation)
        if kind != "segmentation":
            raise ValueError("expected train to have masks, but its targets are class labels; use forget_class")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 < label < classes:
            raise ValueError(f"expected label to be a foreground class in [1, {classes - 1}], but got {label!r}")
        holding = [
            (_targets(name, data) == label).flatten(1).any(dim=1) if len(data) else torch.zeros(0, dtype=torch.bool)
            for name, data in (("train", train), *held_out.sources)
        ]
        (judged, asked), (chosen_by, wanted), words = held_out.parts(holding[1:], validation_seed)
        indices = holding[0].nonzero().flatten()
        return cls(
            subset(train, indices),
            without_class(train, label),
            subset(judged, asked),
            without_class(judged, label),
            classes,
            kind,
            f"mask class {label}{words}",
            (label,),
            indices,
            subset(chosen_by, wanted),
            without_class(chosen_by, label),
        )

    @classmethod
    def _from_train(
        cls, train: Any, test: Any, chosen: Tensor, rule: str, num_classes: int | None, validation: Any, seed: int
    ) -> UnlearnTask:
        kind, classes, held_out = _kind_and_classes(train, test, num_classes, validation)
        nothing = [torch.zeros(len(data), dtype=torch.bool) for _, data in held_out.sources]
        return cls._split(train, held_out.parts(nothing, seed), chosen, classes, rule, (), kind)

    @classmethod
    def _split(
        cls,
        train: Any,
        held_out: _Parts,
        chosen: Tensor,
        num_classes: int,
        rule: str,
        forget_classes: tuple[int, ...],
        kind: Kind = "classification",
    ) -> UnlearnTask:
        (test, test_selected), (validation, validation_selected), words = held_out
        selected = torch.zeros(len(train), dtype=torch.bool)
        selected[chosen] = True
        return cls(
            subset(train, selected),
            subset(train, ~selected),
            subset(test, test_selected),
            subset(test, ~test_selected),
            num_classes,
            kind,
            rule + words,
            forget_classes,
            chosen.sort().values,
            subset(validation, validation_selected),
            subset(validation, ~validation_selected),
        )


# Data that judge and data to choose by, each with what the rule selects of them, and how many are set aside in words.
_Parts = tuple[tuple[Any, Tensor], tuple[Any, Tensor], str]


class _HeldOut:
    """Held-out data of a task: those that judge, and those to choose by, which are set aside where none are given."""

    def __init__(self, test: Any, validation: Any, read: Callable[[str, Any], Tensor] | None) -> None:
        self.test, self.validation = test, validation
        self.sources = [("test", test)] if validation is None else [("test", test), ("validation", validation)]
        self.labels = [] if read is None else [read(name, data) for name, data in self.sources]

    def parts(self, selected: Sequence[Tensor], seed: int) -> _Parts:
        """Return both parts, each beside its share of ``selected``: one bool mask for each source."""
        if self.validation is not None:
            words = f" (validation: {len(self.validation)} samples of their own)"
            return (self.test, selected[0]), (self.validation, selected[1]), words
        mask = selected[0]
        # By the labels alone: of several requests on the same data, what one judges by no other chooses by.
        aside = _set_aside(self.labels[0] if self.labels else torch.zeros_like(mask, dtype=torch.int64), seed)
        words = f" (validation: {int(aside.sum())} of {len(aside)} held-out samples, seed {seed})"
        return (subset(self.test, ~aside), mask[~aside]), (subset(self.test, aside), mask[aside]), words


def _set_aside(labels: Tensor, seed: int) -> Tensor:
    """Return a bool mask ``(N,)`` of a random quarter of each class; of two or more, some are on either side."""
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        count = max(1, round(VALIDATION_SHARE * len(members))) if len(members) > 1 else 0
        aside[members[torch.randperm(len(members), generator=generator(seed, "validation", label))[:count]]] = True
    return aside


def _selected(name: str, data: Any, table: Any, predicate: Callable[[Any], Any]) -> Tensor:
    if table is None:
        raise TypeError(f"expected {name}_metadata to be a table with one row a sample, but got None")
    mask = np.asarray(predicate(table))
    if mask.dtype != bool or mask.shape != (len(data),):
        raise ValueError(
            f"expected predicate to return {len(data)} bools for {name}_metadata, "
            f"but got {mask.dtype} of shape {mask.shape}"
        )
    return torch.from_numpy(mask.copy())


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


def _kind_and_classes(train: Any, test: Any, num_classes: int | None, validation: Any) -> tuple[Kind, int, _HeldOut]:
    """Return masks are recognised by one sample's target; only class labels are counted without being asked to."""
    if len(train) == 0:
        raise ValueError("expected train to hold at least one sample, but got an empty data set")
    labels = labels_of(train)
    with isolated(0):
        first = labels[0] if labels is not None else torch.as_tensor(train[0][1])
    # A mask has two dimensions at least; a row of numbers is a mistake, which the check of class labels names.
    if first.dim() < 2:
        own = _class_labels("train", train)
        held_out = _HeldOut(test, validation, _class_labels)
        return "classification", _count_classes(num_classes, own, *held_out.labels), held_out
    held_out = _HeldOut(test, validation, None)
    if first.is_floating_point():
        return "segmentation", num_classes or 2, held_out
    if num_classes is None:
        exposed = [known for _, data in held_out.sources if (known := labels_of(data)) is not None]
        return "segmentation", _count_classes(None, _targets("train", train), *exposed), held_out
    return "segmentation", check_count("num_classes", num_classes, low=2), held_out


def check_task(task: object) -> None:
    """Refuse what has not the splits of a task, which is all that a metric asks for.

    Raises:
        TypeError: When it has not.
    """
    if not all(hasattr(task, split) for split in ("forget", "retain", "forget_test", "retain_test")):
        raise TypeError(f"expected task to be an UnlearnTask, but got {type(task).__name__}")
