"""The scores of a model on a task as numbers, and their distances to a reference's: what is kept of an evaluation.

Without torch, so that what others measured is read and shown at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from .arguments import checked
from .display import html_table, number
from .errors import check_number

if TYPE_CHECKING:
    import pandas

SPLITS = ("forget", "retain", "forget_test", "retain_test")
DISTANCES = ("average_gap", "tug_of_war", "tug_of_war_mia", "resolution")  # to the reference


@dataclass(frozen=True)
class FindingScores:
    """What a model says of one finding.

    Attributes:
        present, absent: In how many samples it is known to be there, or not to be: figures of few are worth little.
        accuracy: Share of these samples in which the decision at .5 is right; ideal: the reference's.
        sensitivity: The same of those that have it; None without any.
        specificity: The same of those that have it not; None without any.
        auroc: Probability that the model ranks one that has it above one that has it not; None unless there are both.
    """

    present: int
    absent: int
    accuracy: float | None
    sensitivity: float | None
    specificity: float | None
    auroc: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What a model does on the four splits of a task, and how far that is from the reference. None is "n/a".

    The score of a split is accuracy for classification; for segmentation it is the IoU of the foreground, per
    image, then the mean; several classes count where the image or its prediction holds them; for a multi-label task it
    is the share of the known findings that is decided right at .5, per image, then the mean: defined on every split,
    also where a finding is always there or never, of which there is no AUROC. In [0, 1].

    Attributes:
        kind: "classification", "segmentation" or "multilabel". Where one class of the masks, or a finding, is to be
            forgotten, the forget splits score that one, and all else the other ones.
        sizes: Number of samples in each split.
        forget, retain: Scores on training data.
        forget_test, retain_test: Scores on held-out data, split by the same rule.
        test: The score on all held-out data, ``forget_test`` and ``retain_test`` together.
        membership: Probability that a forget sample has a smaller loss than a held-out one (ties half): of
            ``forget_test``, or where that is empty of a class-matched part of ``retain_test``, with the forget
            samples of its classes.
        per_class: The score of each class, or finding, on all held-out data; for segmentation class 0 is the
            background.
        dice: Dice of each split and of ``test``; segmentation only.
        auroc: The macro AUROC of each split and of ``test``, over all findings; multi-label only.
        findings: The scores of each finding on all held-out data, how often it is there among them; multi-label only.
        reference: The reference's evaluation.
        average_gap: Mean absolute difference to the reference of ``forget``, ``retain``, ``retain_test`` and
            ``membership``. The "test" here and in the next two is ``retain_test``, so that forgetting a class
            counts once, in ``forget``.
        tug_of_war, tug_of_war_mia: 1 is the reference; the second has ``membership`` in place of ``forget``.
        resolution: The average gap of the farthest further reference to the first: what is nearer than that cannot be
            told from a reference, and smaller differences between methods are none. None without a second reference.
    """

    kind: str
    sizes: dict[str, int]
    forget: float | None
    retain: float | None
    forget_test: float | None
    retain_test: float | None
    test: float | None
    membership: float | None
    per_class: dict[int, float | None] | None
    dice: dict[str, float | None] | None = None
    auroc: dict[str, float | None] | None = None
    findings: dict[int, FindingScores] | None = None
    reference: Evaluation | None = None
    average_gap: float | None = None
    tug_of_war: float | None = None
    tug_of_war_mia: float | None = None
    resolution: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold: None for n/a, class indices as text."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["sizes"] = dict(self.sizes)
        values["dice"] = None if self.dice is None else dict(self.dice)
        values["auroc"] = None if self.auroc is None else dict(self.auroc)
        if self.findings is not None:
            values["findings"] = {str(finding): scores.as_dict() for finding, scores in self.findings.items()}
        if self.per_class is not None:
            values["per_class"] = {str(label): score for label, score in self.per_class.items()}
        values["reference"] = None if self.reference is None else self.reference.as_dict()
        return values

    def flat(self) -> dict[str, Any]:
        """Return one plain value a name: kind, scores, distances, and ``size.SPLIT``; without scores by class."""
        scores = {name: getattr(self, name) for name in (*SPLITS, "test", "membership", *DISTANCES)}
        return {"kind": self.kind, **scores, **{f"size.{split}": count for split, count in self.sizes.items()}}

    def to_frame(self) -> pandas.DataFrame:
        """Return the scores as a ``pandas.DataFrame`` of one row; None ("n/a") is NaN."""
        import pandas

        return pandas.DataFrame([self.flat()])

    def __repr__(self) -> str:
        """Return the scores of the splits, and the distances to the reference where there is one."""
        splits = ", ".join(f"{split} {number(getattr(self, split))}" for split in SPLITS)
        distances = {name.replace("_", " "): getattr(self, name) for name in ("membership", *DISTANCES)}
        told = ", ".join(f"{name} {number(value)}" for name, value in distances.items() if value is not None)
        return f"<Evaluation {self.kind}: {splits}{told and '; ' + told}>"

    def _repr_html_(self) -> str:
        """Return the scores as a table for a notebook, beside the reference's where there is one."""
        both = [self] if self.reference is None else [self, self.reference]
        rows: list[tuple[Any, ...]] = [
            (f"{split.replace('_', ' ')} ({self.sizes.get(split, 0):,} samples)", *(getattr(e, split) for e in both))
            for split in SPLITS
        ]
        rows += [(name, *(getattr(one, name) for one in both)) for name in ("test", "membership")]
        known = {name.replace("_", " "): getattr(self, name) for name in DISTANCES}
        notes = [f"{name}: {number(value)}" for name, value in known.items() if value is not None]
        header = ("", "score", "reference")[: len(both) + 1]
        return html_table(f"Evaluation of {self.kind}", rows, header, notes)


@checked
def average_gap(values: Mapping[str, float | None], reference: Mapping[str, float | None]) -> float | None:
    """Return mean absolute difference to the reference over ``forget``, ``retain``, ``test`` and ``membership``.

    Both mappings hold those four scores in [0, 1]; others are ignored. In [0, 1], ideal 0. None when a score
    is n/a.

    Raises:
        ValueError: When one of the four is missing or outside [0, 1].
    """
    gaps = _gaps(values, reference, ("forget", "retain", "test", "membership"))
    return None if gaps is None else sum(gaps) / len(gaps)


@checked
def tug_of_war(values: Mapping[str, float | None], reference: Mapping[str, float | None]) -> float | None:
    """Return product over ``forget``, ``retain`` and ``test`` of (1 - |difference to the reference|).

    Mappings, n/a and errors as :func:`average_gap`. In [0, 1], ideal 1. Source: arXiv 2406.01257.
    """
    return _product(_gaps(values, reference, ("forget", "retain", "test")))


@checked
def tug_of_war_mia(values: Mapping[str, float | None], reference: Mapping[str, float | None]) -> float | None:
    """Return :func:`tug_of_war` with ``membership`` in the place of ``forget``."""
    return _product(_gaps(values, reference, ("membership", "retain", "test")))


def _gaps(
    values: Mapping[str, float | None], reference: Mapping[str, float | None], names: tuple[str, ...]
) -> list[float] | None:
    mine, theirs = _scores("values", values, names), _scores("reference", reference, names)
    gaps = [abs(a - b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    return gaps if len(gaps) == len(names) else None


def _scores(kind: str, scores: Mapping[str, float | None], names: tuple[str, ...]) -> list[float | None]:
    for name in names:
        if name not in scores:
            raise ValueError(f"expected {kind} to hold {list(names)}, but got {list(scores)}")
        if scores[name] is not None:
            check_number(f"{kind}[{name!r}]", scores[name], low=0, high=1)
    return [scores[name] for name in names]


def _product(gaps: list[float] | None) -> float | None:
    return None if gaps is None else math.prod(1 - gap for gap in gaps)
