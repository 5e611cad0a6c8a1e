"""What to forget, what to keep, on which held-out data one may choose, and on which a revision is judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .data.alignment import aligned
from .data.checks import check_dataset, check_kind, count_classes, is_mask
from .data.copies import Duplicates, duplicates
from .data.expressions import Where
from .data.findings import check_rows, holds_rows, is_row, present
from .data.forms import check_form
from .data.groups import Division, Groups, divided, groups_of
from .data.held_out import HeldOut, Parts, without_words
from .data.relabel import with_ignore_index, without_class
from .data.selection import none_chosen, rows_where
from .data.tensors import as_tensor, labels_of, read_labels, subset
from .display import html_table
from .errors import DataWarning, check_count, check_number
from .seeding import generator, isolated, standardized

Kind = Literal["classification", "segmentation", "multilabel"]

# The data sets of a task.
DATA = ("forget", "retain", "forget_test", "retain_test", "forget_validation", "retain_validation")


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
        ignore_index: the label of pixels, or findings, that nobody labelled; None where all have one. The data sets
            yield it as ``outputs.IGNORE``, which losses, searches and metrics leave out.
        num_classes: number of classes, background included; of a multi-label task the number of findings.
        kind: "classification", "segmentation" or "multilabel", whose targets are rows ``(K,)`` of findings that do not
            exclude each other: 1 present, 0 absent, ``outputs.IGNORE`` unknown.
        rule: what is forgotten, in words.
        forget_classes: classes, or findings, whose training data are forgotten as a whole.
        forget_indices: positions of the forget data in the training set, ``(F,)`` int64; None when not built from one.
        division: how the request divides groups such as patients; None where none are known.
        notes: what is to be known of the request before anything runs, in words; each was a warning, too.

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
    ignore_index: int | None = None
    division: Division | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind(self.kind)
        check_count("num_classes", self.num_classes, low=2)
        for name in DATA:
            check_form(name, getattr(self, name))
            object.__setattr__(self, name, with_ignore_index(getattr(self, name), self.ignore_index))
        # Of the other data some methods need nothing, which may then be out of reach.
        check_dataset("forget", self.forget, kind=self.kind, num_classes=self.num_classes)
        if len(self.forget) == 0:
            raise ValueError(f"expected at least one sample to forget, but got an empty forget set ({self.rule})")

    @staticmethod
    def _has_splits(task: object) -> bool:
        return all(hasattr(task, split) for split in ("forget", "retain", "forget_test", "retain_test"))

    def __repr__(self) -> str:
        """Return the rule, and how many images and groups it selects of how many."""
        split = self.forget_indices is not None and not (self.kind == "segmentation" and self.forget_classes)
        whole = f" of {len(self.forget) + len(self.retain)}" if split else ""
        groups = "" if self.division is None else f", {self.division.words}"
        unseen = f"validation {len(self.forget_validation)}, test {len(self.forget_test)}"
        return f"<UnlearnTask {without_words(self.rule)}: {len(self.forget)}{whole} images{groups}; {unseen}>"

    def _repr_html_(self) -> str:
        """Return the sizes of the data as a table for a notebook, with what is to be known of the request."""
        kept: dict[str, tuple[int, int]] = {
            use: (len(getattr(self, f"forget{part}")), len(getattr(self, f"retain{part}")))
            for use, part in (("training", ""), ("validation", "_validation"), ("test", "_test"))
        }
        outcomes = f"{self.num_classes:,} {'findings' if self.kind == 'multilabel' else 'classes'}"
        notes = [f"{self.kind}, {outcomes}", *([] if self.division is None else [self.division.words]), *self.notes]
        rows = [(use, *counts) for use, counts in kept.items()]
        return html_table(f"UnlearnTask: {without_words(self.rule)}", rows, ("", "forget", "retain"), notes)

    @property
    def outcomes(self) -> int:
        """Between how many classes one decision decides: those of the task; a finding is there or not."""
        return 2 if self.kind == "multilabel" else self.num_classes

    def on_validation(self) -> UnlearnTask:
        """Return the task with its validation data in the place of its test data: what a choice is measured on."""
        return replace(
            self,
            forget_test=self.forget_validation,
            retain_test=self.retain_validation,
            forget_validation=(),
            retain_validation=(),
        )

    def duplicates(self, *, distance: int | None = None, limit: int | None = None) -> Duplicates:
        """Return the pictures that are in two places of the task, by :func:`unlearn_kit.data.duplicates`.

        A picture that is to be forgotten and stays in ``retain`` is not forgotten. Where one class of the masks is to
        be forgotten, all images stay, and ``forget`` is left out.

        Args:
            distance: For pictures that look alike, as there; None for those that are equal in every pixel.
            limit: Of the samples to read, as there; None for all.
        """
        apart = self.kind != "segmentation" or not self.forget_classes
        names = [name for name in DATA if apart or not name.startswith("forget")]
        return duplicates({name: getattr(self, name) for name in names}, distance=distance, limit=limit)

    @classmethod
    @standardized
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

        Of a multi-label task ``label`` is a finding: the images in which it is known to be present, whatever else they
        show. A model that never saw them was never shown the finding, so the scores of the forget splits are those of
        this finding alone, and those of the retain splits are of all others.

        Raises:
            ValueError: On an unknown class or fraction.
            TypeError: On a label, or labels, that are not integers.
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True)
        label = check_count("label", label, low=0)
        for name, data in (("train", train), ("test", test), ("validation", () if validation is None else validation)):
            check_dataset(name, data)
        kind: Kind = "multilabel" if holds_rows(train) else "classification"
        word = "finding" if kind == "multilabel" else "class"
        labels = _multi_hot("train", train) if kind == "multilabel" else _class_labels("train", train)
        read = partial(_multi_hot, count=labels.shape[1]) if kind == "multilabel" else _class_labels
        held_out = HeldOut(test, validation, read)
        classes = _count(kind, num_classes, labels, held_out)
        if label >= classes:
            raise ValueError(f"expected label to be a {word} in [0, {classes - 1}], but got {label}")

        def asked(own: Tensor) -> Tensor:
            return present(own, label) if own.dim() > 1 else own == label

        members = asked(labels).nonzero().flatten()
        if fraction < 1:
            members = _draw(members, max(1, round(fraction * len(members))), seed)
        whole = fraction == 1
        selected = [asked(own) & whole for own in held_out.labels]
        return cls._split(
            _Source(train, held_out, kind, classes, None),
            held_out.parts(selected, validation_seed),
            members,
            f"{word} {label}" if whole else f"{fraction:g} of {word} {label}, seed {seed}",
            (label,) if whole else (),
            groups=groups_of(train, None),
        )

    @classmethod
    @standardized
    def forget_samples(
        cls,
        train: Any,
        test: Any,
        indices: Collection[int] | np.ndarray | Tensor,
        *,
        num_classes: int | None = None,
        validation: Any = None,
        validation_seed: int = 0,
        ignore_index: int | None = None,
        groups: str | Sequence[Any] | np.ndarray | Tensor | None = None,
    ) -> UnlearnTask:
        """Forget the training samples at ``indices``; ``forget_test`` is empty.

        Where other images of the same patient stay, a warning (``errors.DataWarning``) says so.

        Args:
            train, test: the data sets.
            indices: positions in ``train``.
            num_classes: number of classes, where the labels do not tell.
            validation: held-out data to choose by.
            validation_seed: of the share of ``test`` that is set aside without them.
            ignore_index: the label of pixels that nobody labelled.
            groups: to which group, such as a patient, each training sample belongs, or the column that says so in the
                table that an image folder keeps. None for a column that is called ``patient``, ``subject_id``, ...

        Raises:
            ValueError: On an empty, repeated or out-of-range index, or groups that are not one a sample.
            TypeError: When one is not an integer.
        """
        source = _source(train, test, num_classes, validation, ignore_index)
        chosen = _positions(indices)
        outside = chosen[(chosen < 0) | (chosen >= len(train))]
        if len(outside):
            raise ValueError(f"expected indices in [0, {len(train) - 1}], but got {outside[:5].tolist()}")
        if len(chosen.unique()) < len(chosen):
            raise ValueError(
                f"expected indices without repetition, but got {len(chosen) - len(chosen.unique())} repeated"
            )
        rule = f"{len(chosen)} chosen samples"
        parts = source.held_out.nothing(validation_seed)
        return cls._split(source, parts, chosen, rule, groups=groups_of(train, groups), parted=True)

    @classmethod
    @standardized
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
        ignore_index: int | None = None,
    ) -> UnlearnTask:
        """Forget a random ``fraction`` in (0, 1) of the training samples; ``forget_test`` is empty.

        Raises:
            ValueError: On a fraction outside (0, 1).
        """
        check_number("fraction", fraction, low=0, high=1, open_low=True, open_high=True)
        source = _source(train, test, num_classes, validation, ignore_index)
        chosen = _draw(torch.arange(len(train)), round(fraction * len(train)), seed)
        rule = f"{fraction:g} of all samples, seed {seed}"
        parts = source.held_out.nothing(validation_seed)
        return cls._split(source, parts, chosen, rule, groups=groups_of(train, None))

    @classmethod
    @standardized
    def forget_where(
        cls,
        train: Any,
        test: Any,
        train_metadata: Any,
        test_metadata: Any,
        predicate: Callable[[Any], Any],
        *,
        key: str | None = None,
        num_classes: int | None = None,
        validation: Any = None,
        validation_metadata: Any = None,
        validation_seed: int = 0,
        ignore_index: int | None = None,
        rule: str | None = None,
        groups: str | Sequence[Any] | np.ndarray | Tensor | None = None,
    ) -> UnlearnTask:
        """Forget every sample whose metadata satisfy ``predicate``, in training and held-out data alike.

        Where other images of the same patient stay, a warning (``errors.DataWarning``) says so.

        Args:
            train, test: the data sets.
            train_metadata, test_metadata: tables with one row a sample (pandas, a dict of columns, a list of dicts), in
                the order of the samples, or in any order with a column of their files where the data set knows them
                (image folders). None for the table that the data set keeps as ``.metadata``, as image folders do.
            predicate: called with each table; returns one bool a row: ``data.where('device == "B"')``, or a function
                such as ``lambda t: t["device"] == "B"``. Where a value is missing such a function is called again with
                others in its place: a row is not chosen by accident. ``t["flag"] | t["year"] == 2019``, which lacks
                parentheses, is refused where ``flag`` holds bools; where it holds 0 and 1, ``|`` means their bits.
            key: the column that names the samples, for rows in any order, also of other samples: their files, with or
                without ending, or a column of the same name in the data set's own table.
            num_classes: number of classes, where the labels do not tell.
            validation, validation_metadata: held-out data to choose by, and their table.
            validation_seed: of the share of ``test`` that is set aside without them.
            ignore_index: the label of pixels that nobody labelled.
            rule: what is forgotten, in words; an expression says it by itself.
            groups: the column of ``train_metadata`` with the group of each sample, or the groups, as for
                :meth:`forget_samples`.

        Raises:
            ValueError: When the predicate fails, does not return one bool a sample, selects nothing or everything, or a
                row because a value is missing; when an expression compares a column with a value that no training
                sample has; when the rows are not in the order of the samples.
            TypeError: When there is no table.
        """
        source = _source(train, test, num_classes, validation, ignore_index)
        given = [("train", train, train_metadata), ("test", test, test_metadata)]
        if validation is not None:
            given.append(("validation", validation, validation_metadata))
        tables = [aligned(name, data, table, key) for name, data, table in given]
        if isinstance(predicate, Where):
            predicate.check(tables[0])
        masks = [
            rows_where(name, len(data), table, predicate) for (name, data, _), table in zip(given, tables, strict=True)
        ]
        if not masks[0].any():
            raise ValueError(
                f"expected predicate to choose some of the {len(train)} rows of train_metadata, but got none; "
                f"there are {none_chosen(tables[0], predicate)}"
            )
        if masks[0].all():
            raise ValueError("expected predicate to leave training samples to retain, but got all of them to forget")
        words = rule or (str(predicate) if isinstance(predicate, Where) else "metadata predicate")
        parts = source.held_out.parts(masks[1:], validation_seed)
        named = groups_of(train, groups, tables[0])
        notes = [predicate.note("train_metadata", tables[0])] if isinstance(predicate, Where) else []
        chosen = masks[0].nonzero().flatten()
        return cls._split(source, parts, chosen, words, groups=named, parted=True, notes=notes)

    @classmethod
    @standardized
    def forget_mask_class(
        cls,
        train: Any,
        test: Any,
        label: int,
        *,
        num_classes: int | None = None,
        validation: Any = None,
        validation_seed: int = 0,
        ignore_index: int | None = None,
    ) -> UnlearnTask:
        """Forget class ``label`` of the masks: its pixels, not the images they are in.

        ``forget`` holds the images in which the class occurs, with their masks. ``retain`` holds all images, with the
        class called background (0): what a model that was never taught it would have been given. Held-out data alike.

        Raises:
            ValueError: On an unknown class, the background, or data that are not masks.
        """
        source = _source(train, test, num_classes, validation, ignore_index)
        if source.kind != "segmentation":
            raise ValueError("expected train to have masks, but its targets are class labels; use forget_class")
        label, classes = check_count("label", label, low=0), source.num_classes
        if not 0 < label < classes:
            raise ValueError(f"expected label to be a foreground class in [1, {classes - 1}], but got {label!r}")
        train, held_out = source.train, source.held_out
        holding = [
            (read_labels(data) == label).flatten(1).any(dim=1) if len(data) else torch.zeros(0, dtype=torch.bool)
            for data in (train, *(data for _, data in held_out.sources))
        ]
        (judged, asked), (chosen_by, wanted), words = held_out.parts(holding[1:], validation_seed)
        indices = holding[0].nonzero().flatten()
        return cls(
            subset(train, indices),
            without_class(train, label),
            subset(judged, asked),
            without_class(judged, label),
            classes,
            "segmentation",
            f"mask class {label}{words}",
            (label,),
            indices,
            subset(chosen_by, wanted),
            without_class(chosen_by, label),
            source.ignore_index,
        )

    @classmethod
    def _split(
        cls,
        source: _Source,
        held_out: Parts,
        chosen: Tensor,
        rule: str,
        forget_classes: tuple[int, ...] = (),
        groups: Groups | None = None,
        parted: bool = False,
        notes: Sequence[str] = (),
    ) -> UnlearnTask:
        """Return the task; ``parted`` says whether groups that are forgotten in part are told."""
        (test, test_selected), (validation, validation_selected), words = held_out
        selected = torch.zeros(len(source.train), dtype=torch.bool)
        selected[chosen] = True
        division = None if groups is None else divided(groups, selected)
        told = [*notes, division.note() if parted and division is not None else ""]
        told = [note for note in told if note]
        for note in told:
            warnings.warn(note, DataWarning, stacklevel=4)
        return cls(
            subset(source.train, selected),
            subset(source.train, ~selected),
            subset(test, test_selected),
            subset(test, ~test_selected),
            source.num_classes,
            source.kind,
            rule + words,
            forget_classes,
            chosen.sort().values,
            subset(validation, validation_selected),
            subset(validation, ~validation_selected),
            source.ignore_index,
            division,
            tuple(told),
        )


def _positions(indices: Any) -> Tensor:
    """Return positions ``(K,)`` int64 of any collection of integers, a set included."""
    try:
        chosen = as_tensor(sorted(indices) if isinstance(indices, Set) else indices)
    except (TypeError, ValueError):
        raise TypeError(f"expected indices to be integers, but got {type(indices).__name__}: {indices!r:.60}") from None
    if chosen.numel() and (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool):
        raise TypeError(f"expected indices to be integers, but got {chosen.dtype}")
    return chosen.to("cpu", torch.int64).flatten()


def _draw(members: Tensor, count: int, seed: int) -> Tensor:
    return members[torch.randperm(len(members), generator=generator(seed, "forget"))[:count]]


def _class_labels(name: str, dataset: Any) -> Tensor:
    labels = read_labels(dataset)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"expected the labels of {name} to be integers, but got {labels.dtype}")
    if labels.dim() != 1:
        raise ValueError(
            f"expected the labels of {name} to be one class index a sample, but got shape {tuple(labels.shape)}"
        )
    return labels


def _multi_hot(name: str, dataset: Any, count: int | None = None) -> Tensor:
    """Return the findings of every sample, ``(N, K)``."""
    rows = read_labels(dataset)
    if len(rows) == 0:
        return torch.zeros(0, count or 0, dtype=torch.int64)
    if rows.dim() != 2 or (count is not None and rows.shape[1] != count):
        raise ValueError(
            f"expected the targets of {name} to be rows of {'the' if count is None else count} findings of train, "
            f"but got shape {tuple(rows.shape)}"
        )
    return check_rows(name, rows)


def _count(kind: Kind, given: int | None, labels: Tensor, held_out: HeldOut) -> int:
    """Return the number of classes, or of findings."""
    if kind == "classification":
        return count_classes(given, labels, *held_out.labels)
    if given is not None and given != labels.shape[1]:
        raise ValueError(f"expected num_classes to be the {labels.shape[1]} findings of train, but got {given}")
    return labels.shape[1]


class _Source(NamedTuple):
    """Data that a task is made of, looked at and ready to be split."""

    train: Any
    held_out: HeldOut
    kind: Kind
    num_classes: int
    ignore_index: int | None


def _source(train: Any, test: Any, num_classes: int | None, validation: Any, ignore_index: int | None) -> _Source:
    """Return what the data are: masks are recognised by one target, and counted where the caller does not.

    Raises:
        TypeError: When one is no data set of ``(input, target)``.
        ValueError: When there are no training data, or labels are out of range.
    """
    for name, data in (("train", train), ("test", test), ("validation", () if validation is None else validation)):
        check_dataset(name, data)
    if len(train) == 0:
        raise ValueError("expected train to hold at least one sample, but got an empty data set")
    with isolated(0):
        first = torch.as_tensor(train[0][1])
    if is_row(first):
        train, test = with_ignore_index(train, ignore_index), with_ignore_index(test, ignore_index)
        validation = None if validation is None else with_ignore_index(validation, ignore_index)
        rows = _multi_hot("train", train)
        held_out = HeldOut(test, validation, partial(_multi_hot, count=rows.shape[1]))
        classes = _count("multilabel", num_classes, rows, held_out)
        return _Source(train, held_out, "multilabel", classes, ignore_index)
    if not is_mask(first):
        if ignore_index is not None:
            raise ValueError(
                f"expected ignore_index with masks alone, but got {ignore_index!r} for class labels; leave samples "
                "without a label out with data.subset"
            )
        own = _class_labels("train", train)
        held_out = HeldOut(test, validation, _class_labels)
        return _Source(train, held_out, "classification", count_classes(num_classes, own, *held_out.labels), None)
    train, test = with_ignore_index(train, ignore_index), with_ignore_index(test, ignore_index)
    validation = None if validation is None else with_ignore_index(validation, ignore_index)
    held_out = HeldOut(test, validation, None)
    if num_classes is not None:
        classes = check_count("num_classes", num_classes, low=2)
    elif first.is_floating_point():
        classes = 2
    else:
        exposed = [known for _, data in held_out.sources if (known := labels_of(data)) is not None]
        classes = count_classes(None, read_labels(train), *exposed)
    for name, data in (("train", train), *held_out.sources):
        check_dataset(name, data, kind="segmentation", num_classes=classes)
    return _Source(train, held_out, "segmentation", classes, ignore_index)


def check_task(task: object) -> None:
    """Refuse what has not the splits of a task, which is all that a metric asks for.

    Raises:
        TypeError: When it has not.
    """
    if not UnlearnTask._has_splits(task):
        raise TypeError(f"expected task to be an UnlearnTask, but got {type(task).__name__}")
