"""What is measured of a revision without a retrained model: two models, on data that are to go and data unseen."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.groups import groups_of
from ..errors import check_choice, check_number
from ..hashing import hash_model
from ..metrics.evaluate import score_columns
from ..metrics.utility import mean_of_present
from ..seeding import standardized
from ..tasks import UnlearnTask, check_task
from . import claims
from .claims import Change, Kept, Verdict
from .estimates import FEW, holm, mean_change, p_of_drop, side
from .inside import AUDITS, class_found, features
from .readings import Compared, Readings, apart_groups, loss_gap, read_both
from .thresholds import DEFAULT, Thresholds
from .words import verdicts_html, verdicts_text

ALL_AUDITS = (*AUDITS, "features")
SPLITS = ("forget", "forget_test", "retain_test")
ALONE = "alone"  # before a sample that belongs to no group
SMALL = 10  # samples, below which a group is not judged by itself


@dataclass(frozen=True, repr=False)
class Evidence:
    """What was measured of one revision, and what may be claimed.

    Attributes:
        verdicts: The claims, in the order in which they are read.
        findings: What must be said whoever reads it; empty where nothing is wrong.
        classes, groups: The data to keep, one by one: false negatives by their number.
        figures: What is told and not judged.
        settings: Thresholds with their origins, audits, seed.
    """

    verdicts: tuple[Verdict, ...]
    findings: tuple[str, ...]
    classes: tuple[Change, ...]
    groups: tuple[Change, ...]
    figures: dict[str, Any]
    settings: dict[str, Any]

    def __getitem__(self, name: str) -> Verdict:
        """Return a verdict by its name."""
        by_name = {one.name: one for one in self.verdicts}
        return by_name[check_choice("verdict", name, by_name)]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return {
            "verdicts": [one.as_dict() for one in self.verdicts],
            "findings": list(self.findings),
            "classes": [asdict(one) for one in self.classes],
            "groups": [asdict(one) for one in self.groups],
            "figures": self.figures,
            "settings": self.settings,
        }

    def __repr__(self) -> str:
        """Return the verdicts, those that are not shown by name, and the number of findings."""
        return f"<Evidence: {verdicts_text(self.as_dict())}>"

    def _repr_html_(self) -> str:
        """Return the verdicts and findings as a table for a notebook."""
        return verdicts_html("Evidence", self.as_dict())


@checked
@standardized
def measure(
    before: nn.Module,
    after: nn.Module,
    task: UnlearnTask,
    *,
    audits: Collection[str] = ("quantization", "residual knowledge"),
    budget: float | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Thresholds = DEFAULT,
    seed: int = 0,
) -> Evidence:
    """Return what may be claimed of a revision from the two models and the task's own data, without a retrained model.

    Held-out data stand in for the ideal: a model that never saw the forget data treats them as it treats other data
    that it never saw. Where a whole class was forgotten there are none that it would get right; then it must find the
    class no more often than by guessing. Test data judge, never validation data, which choices may have seen.

    Args:
        before: The model as it was; untouched.
        after: The revised model; untouched.
        task: What was to be forgotten.
        audits: Further ones, of "quantization", "residual knowledge", "relearning", "probe" and "features".
        budget: Seconds after which no further audit is begun; None for no limit.
        groups: The group of every sample, such as its patient, by split: "forget", "forget_test", "retain_test". Where
            no group is on both sides, intervals resample whole groups. None for those that the data's tables tell.
        class_names: A name for each class.
        thresholds: What the verdicts are judged by.
        seed: Of resampling, perturbations, and the audits that train.

    Raises:
        ValueError: On unknown audits or splits, groups or names of another number, outputs that are not finite.
        TypeError: When an argument is of another type.
    """
    check_task(task)
    for name in audits:
        check_choice("audits", name, ALL_AUDITS)
    if budget is not None:
        check_number("budget", budget, low=0)
    names = _names(class_names, task.num_classes)
    known = known_groups(task) if groups is None else _groups(groups, task)
    settings = {"thresholds": thresholds.as_dict(), "audits": sorted(audits), "budget": budget, "seed": seed}
    same = hash_model(before) == hash_model(after)
    if task.kind not in ("classification", "segmentation"):
        why = f"tasks of the kind {task.kind!r} have no verdicts yet"
        others = [claims.untested(name, why) for name in claims.CLAIMS if name not in ("weights changed", "membership")]
        return _evidence([claims.weights_changed(same, None, thresholds), *others], None, {}, settings)
    read = {name: read_both(before, after, getattr(task, name), task, known.get(name)) for name in SPLITS}
    unseen = "forget_test" if len(task.forget_test) or task.forget_classes else "retain_test"
    apart = apart_groups(known.get("forget"), known.get(unseen))
    compared = Compared(before, after, task, unseen, thresholds, seed, apart)
    moved = max(part.moved for part in read.values() if part is not None)
    found = loss_gap(read["forget"], read[unseen], seed)
    verdicts = [claims.weights_changed(same, moved, thresholds)]
    if task.forget_classes:
        verdicts.append(class_found("forgotten", compared, _joined(read["forget"], read["forget_test"])))
    about = "membership" if task.forget_classes else "forgotten"
    verdicts.append(claims.advantage_gone(about, found, thresholds, what=compared.words))
    verdicts.append(claims.not_marked(None if found is None else found.after, thresholds))
    kept = None if read["retain_test"] is None else kept_data(task, read["retain_test"], names, seed)
    verdicts.append(claims.kept(kept, thresholds))
    figures: dict[str, Any] = {"unseen data": compared.words, "largest change of a probability": moved}
    began = time.monotonic()

    def spent() -> bool:
        return budget is not None and time.monotonic() - began >= budget

    for name, (claim, run) in AUDITS.items():
        if name not in audits:
            verdicts.append(claims.untested(claim, f"the audit {name!r} was not asked for"))
        elif spent():
            verdicts.append(claims.untested(claim, f"the budget of {budget:g} s was spent"))
        else:
            try:
                verdict, told = run(compared)
            except ValueError as error:  # such as a network without a head to probe: the claim stays untested
                verdict, told = claims.untested(claim, str(error)), {}
            verdicts.append(verdict)
            figures |= told
    if "features" in audits and not spent():
        try:
            figures |= features(compared)
        except ValueError as error:  # such as two networks without layers of one name
            figures["likeness of the features to the original's (CKA)"] = f"not measured: {error}"
    return _evidence(verdicts, kept, figures, settings)


def _evidence(
    verdicts: list[Verdict], kept: Kept | None, figures: dict[str, Any], settings: dict[str, Any]
) -> Evidence:
    if verdicts[0].value == "not shown":  # of what was not changed nothing is shown
        verdicts = [claims.of_unchanged(one) for one in verdicts]
    classes, groups = ((), ()) if kept is None else (kept.classes, kept.groups)
    return Evidence(tuple(verdicts), tuple(claims.findings(verdicts)), classes, groups, figures, settings)


def kept_data(task: UnlearnTask, read: Readings, names: Sequence[str], seed: int) -> Kept:
    """Return what became of the data to keep, as a whole, by class and by group."""
    if task.kind == "segmentation":
        columns = score_columns(task, "retain_test")
        scores = torch.stack([mean_of_present(one[:, columns]) for one in read.scores])
        classes = _mask_classes(read.scores, columns, names)
    else:
        scores, classes = read.scores, _label_classes(read, names)
    # A few groups are what they are, such as two hospitals; many stand for others like them, such as patients.
    clustered = read.groups is not None and len(set(read.groups)) >= FEW
    change = mean_change(side((scores[1] - scores[0]).numpy(), None, read.groups if clustered else None), seed=seed)
    if change is None:  # there is a reading, so there are samples
        raise ValueError("expected data to keep, but got none")
    return Kept(change, classes, _group_changes(read.groups, scores), float(scores[0].mean()))


def _label_classes(read: Readings, names: Sequence[str]) -> tuple[Change, ...]:
    labels, (old, new) = read.labels, read.scores
    present = [int(label) for label in labels.unique()]
    p_values = holm([p_of_drop((new - old)[labels == label].numpy()) for label in present])
    found = []
    for label, p in zip(present, p_values, strict=True):
        mine = labels == label
        count, hits = int(mine.sum()), [int(one[mine].sum()) for one in (old, new)]
        rest = None if read.predicted is None or mine.all() else read.predicted[:, ~mine] != label
        found.append(
            Change(
                names[label],
                count,
                hits[0] / count,
                hits[1] / count,
                count - hits[0],
                count - hits[1],
                p,
                None if rest is None else float(rest[0].double().mean()),
                None if rest is None else float(rest[1].double().mean()),
            )
        )
    return tuple(found)


def _mask_classes(scores: Tensor, columns: Iterable[int], names: Sequence[str]) -> tuple[Change, ...]:
    rows = []
    for label in columns:
        there = ~scores[:, :, label].isnan().any(dim=0)
        if there.any():
            rows.append((names[label], *scores[:, there, label]))
    p_values = holm([p_of_drop((new - old).numpy()) for _, old, new in rows])
    return tuple(
        Change(name, len(old), float(old.mean()), float(new.mean()), None, None, p)
        for (name, old, new), p in zip(rows, p_values, strict=True)
    )


def _group_changes(groups: Sequence[str] | None, scores: Tensor) -> tuple[Change, ...]:
    """Return each group that is large enough to be judged by itself."""
    if groups is None:
        return ()
    own = np.array(groups)
    places = {name: torch.from_numpy(own == name) for name in sorted(set(groups))}
    places = {name: mine for name, mine in places.items() if int(mine.sum()) >= SMALL}
    p_values = holm([p_of_drop((scores[1] - scores[0])[mine].numpy()) for mine in places.values()])
    return tuple(
        Change(name, int(mine.sum()), float(scores[0, mine].mean()), float(scores[1, mine].mean()), None, None, p)
        for (name, mine), p in zip(places.items(), p_values, strict=True)
    )


def _joined(first: Readings | None, second: Readings | None) -> Readings | None:
    """Return the images of a class that were trained on and those that were not, together."""
    if first is None or second is None:
        return first or second
    return Readings(
        torch.cat([first.losses, second.losses], dim=1),
        torch.cat([first.scores, second.scores], dim=1),
        torch.cat([first.labels, second.labels]),
        None
        if first.predicted is None or second.predicted is None
        else torch.cat([first.predicted, second.predicted], 1),
        max(first.moved, second.moved),
    )


def _names(given: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    names = tuple(f"class {label}" for label in range(num_classes)) if given is None else tuple(map(str, given))
    if len(names) != num_classes:
        raise ValueError(f"expected class_names to hold {num_classes} names, but got {len(names)}")
    return names


def _groups(groups: Mapping[str, Sequence[Any]], task: UnlearnTask) -> dict[str, tuple[str, ...]]:
    for split, own in groups.items():
        check_choice("groups", split, SPLITS)
        if len(own) != len(getattr(task, split)):
            wanted = len(getattr(task, split))
            raise ValueError(f"expected groups[{split!r}] to hold one group a sample, {wanted}, but got {len(own)}")
    return {split: tuple(map(str, own)) for split, own in groups.items()}


def known_groups(task: UnlearnTask) -> dict[str, tuple[str, ...]]:
    """Return the groups of a task's splits that their tables tell, such as patients; {} where one of them does not.

    A sample without a group is one by itself.
    """
    found = {name: groups_of(data, None) for name in SPLITS if len(data := getattr(task, name))}
    named = {own.name for own in found.values() if own is not None}
    if None in found.values() or len(named) != 1:
        return {}
    return {
        name: tuple(
            f"{ALONE}: {name} {at}" if gone else value
            for at, (value, gone) in enumerate(zip(own.values.tolist(), own.missing.tolist(), strict=True))
        )
        for name, own in found.items()
        if own is not None
    }
