"""Samples of earlier requests, known by their contents: kept out of what a later request retains, and found again.

A picture is known by the SHA-256 of its pixels as they are read, whatever its place in the data set and its label; and
where it is read from a file, by that of the file too, whatever it is resized to. One that is there twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..data.relabel import without_class
from ..data.sample_files import files_of
from ..data.tensors import in_order, read_labels, subset
from ..hashing import hash_file, hash_tensor
from ..metrics import class_matched
from ..metrics.evaluate import forgets_mask_class
from ..seeding import isolated
from ..tasks import UnlearnTask


@dataclass(frozen=True)
class RequestSamples:
    """What a request is about, as hashes of inputs.

    Attributes:
        forget: Of the training data to forget, in order.
        held_out: Of the held-out data like them, which no later request keeps either.
        unseen: Of data that no training saw, beside which the forget data are scored: the test data like them, or where
            there are none a part of the other test data of the same classes.
        kind: "classification" or "segmentation".
        num_classes: The number of classes.
        forget_classes: Of masks, the class whose pixels are forgotten: its images are kept, without it.
        forget_files: SHA-256 of the files of ``forget``, where they are read from files.
        held_out_files: Of those of ``held_out``.
    """

    forget: tuple[str, ...]
    held_out: tuple[str, ...]
    unseen: tuple[str, ...]
    kind: str
    num_classes: int
    forget_classes: tuple[int, ...]
    forget_files: tuple[str, ...] = ()
    held_out_files: tuple[str, ...] = ()

    @property
    def of_pixels(self) -> bool:
        """Return whether a class of the masks is forgotten, and not images."""
        return self.kind == "segmentation" and bool(self.forget_classes)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RequestSamples:
        """Return what :meth:`as_dict` wrote."""
        held: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**held)


@dataclass(frozen=True)
class LeftOut:
    """What became of one earlier request's training data in the task of a later one.

    Attributes:
        retained: How many samples of the later retain data they were, and are no longer.
        found: How many of them are in the later training data at all, to forget or to keep.
        of: How many they are.
    """

    retained: int
    found: int
    of: int


def input_hashes(dataset: Any) -> list[str]:
    """Return the SHA-256 of each input, in order, without its target.

    Reads the whole data set once. One that draws random numbers when read is read with a fixed random state.
    """
    with isolated(0):
        return [hash_tensor(one) for x, _ in in_order(dataset) for one in x]


def samples_of(task: UnlearnTask, *, seed: int = 0) -> RequestSamples:
    """Return the hashes that tell a request's samples wherever they are met again.

    Args:
        task: The request.
        seed: Of the part of the test data that stands for unseen data where there are none like the forgotten.
    """
    unseen = task.forget_test
    if not len(unseen) and len(task.retain_test):
        unseen = task.retain_test
        if task.kind == "classification":
            wanted, available = read_labels(task.forget), read_labels(unseen)
            if wanted.dim() == available.dim() == 1 and not wanted.is_floating_point():
                unseen = subset(unseen, class_matched(wanted, available, seed))
    held_out = [part for part in (task.forget_test, task.forget_validation) if len(part)]
    return RequestSamples(
        tuple(input_hashes(task.forget)),
        tuple(sha for part in held_out for sha in input_hashes(part)),
        tuple(input_hashes(unseen)) if len(unseen) else (),
        task.kind,
        task.num_classes,
        tuple(task.forget_classes) if forgets_mask_class(task) else (),
        tuple(_file_hashes(task.forget) or ()),
        tuple(sha for part in held_out for sha in _file_hashes(part) or ()),
    )


def keep_out(task: UnlearnTask, earlier: Mapping[str, RequestSamples]) -> tuple[UnlearnTask, dict[str, LeftOut]]:
    """Return the task without the data of earlier requests among what it retains, and how many those were.

    They are left out of the held-out data to keep as well, by which a method may choose and a result is judged. Where
    an earlier request forgot a class of the masks, the images stay and the class is background in them.

    Args:
        task: The later request.
        earlier: The samples of requests in force, by name.

    Raises:
        ValueError: When nothing to retain is left.
    """
    if not earlier:
        return task, {}
    forget, retain = _keys(task.forget), _keys(task.retain)
    known = {sha for keys in (*forget, *retain) for sha in keys}
    counts = {}
    for name, samples in earlier.items():
        files = samples.forget_files or samples.forget
        own = dict(zip(samples.forget, files, strict=True))
        theirs = 0 if samples.of_pixels else sum(bool(keys & {*own, *files}) for keys in retain)
        counts[name] = LeftOut(theirs, sum(sha in known or file in known for sha, file in own.items()), len(own))
    images = [samples for samples in earlier.values() if not samples.of_pixels]
    gone = {sha for samples in images for sha in (*samples.forget, *samples.forget_files)}
    held_out = gone | {sha for samples in images for sha in (*samples.held_out, *samples.held_out_files)}
    parts = {"retain": _without(task.retain, retain, gone)}
    for name in ("retain_test", "retain_validation"):
        part = getattr(task, name)
        parts[name] = _without(part, _keys(part), held_out) if images else part
    for label in sorted(
        {label for samples in earlier.values() if samples.of_pixels for label in samples.forget_classes}
    ):
        parts = {name: without_class(part, label) if len(part) else part for name, part in parts.items()}
    if not len(parts["retain"]):
        raise ValueError(
            f"expected task to retain data that no earlier request forgets, but all {len(retain)} are theirs"
        )
    return replace(task, **parts), counts


def find_samples(data: Iterable[Any], hashes: Sequence[Sequence[str]]) -> list[list[tuple[Any, list[int], list[str]]]]:
    """Find samples by the hashes of their inputs, in whatever order the data sets hold them.

    Args:
        data: Data sets to look through, each read once.
        hashes: Lists of hashes.

    Returns:
        For each list the data sets that hold some of it, with their places there and their hashes.
    """
    wanted = [set(row) for row in hashes]
    found: list[list[tuple[Any, list[int], list[str]]]] = [[] for _ in hashes]
    for part in data:
        if not len(part):
            continue
        own = input_hashes(part)
        for place, missing in enumerate(wanted):
            places = []
            for at, sha in enumerate(own):
                if sha in missing:
                    missing.discard(sha)
                    places.append(at)
            if places:
                found[place].append((part, places, [own[at] for at in places]))
    return found


def _keys(dataset: Any) -> list[set[str]]:
    """Return by what each sample is known: its pixels, and its file where it has one."""
    if not len(dataset):
        return []
    hashes, files = input_hashes(dataset), _file_hashes(dataset)
    return [{sha} for sha in hashes] if files is None else [set(pair) for pair in zip(hashes, files, strict=True)]


def _file_hashes(dataset: Any) -> list[str] | None:
    """Return the SHA-256 of the file of each input; None for data without files."""
    files = files_of(dataset)
    return None if files is None else [hash_file(own[0]) for own in files]


def _without(dataset: Any, keys: Sequence[set[str]], gone: set[str]) -> Any:
    """Return ``dataset`` itself where nothing of it is ``gone``."""
    kept = [not own & gone for own in keys]
    return dataset if all(kept) else subset(dataset, torch.tensor(kept, dtype=torch.bool))
