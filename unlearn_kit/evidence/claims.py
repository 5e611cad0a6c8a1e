"""From figures to verdicts: pure functions, so that every rule can be read, tested and simulated.

Each verdict says "shown", "not shown" or "not tested". "Shown" is said of an interval that lies wholly on the good
side of its threshold, so that too few samples never show anything; where they could not even for a perfect model, it
says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..arguments import checked
from .estimates import Figure, Gap

Value = Literal["shown", "not shown", "not tested"]

COVERAGE = "benchmarks/results/verdicts.md tells how often each verdict is right"


@checked
@dataclass(frozen=True)
class Threshold:
    """A limit and where it comes from."""

    value: float
    origin: str


@checked
@dataclass(frozen=True)
class Thresholds:
    """What verdicts are judged by; change one by ``dataclasses.replace`` and its origin goes into the receipt.

    Attributes:
        left: The most that may be left of an advantage over unseen data.
        share_left: The most that may be left of the original's own advantage, as a share of it.
        marked: How much worse than unseen data the forget data may be.
        kept: How far the score on the data to keep may fall.
        class_drop: How far one class or group may fall, where its fall is beyond noise.
        class_chance: How improbable its fall must be, by chance alone and corrected for their number, to be that.
        moved: How far a probability must move for the outputs to count as changed.
    """

    left: Threshold = Threshold(
        0.1,
        "by convention: who is given one forgotten and one unseen image names the forgotten one in at most 60 % of "
        "cases, where guessing gives 50 %",
    )
    share_left: Threshold = Threshold(
        0.5,
        "by simulation: a second original, trained on everything by another seed, keeps about all of the advantage and "
        "a retrained model about none; half lies in the middle. " + COVERAGE,
    )
    marked: Threshold = Threshold(0.1, "by convention, as far below unseen data as may be left above them")
    kept: Threshold = Threshold(
        0.05, "by simulation: retrained models, which nobody calls damaged, differ from originals by less. " + COVERAGE
    )
    class_drop: Threshold = Threshold(
        0.1, "by simulation: single classes of two trainings differ by chance, but seldom by this much. " + COVERAGE
    )
    class_chance: Threshold = Threshold(
        0.01,
        "by simulation: at .05 one retraining in five seemed damaged, since trainings differ in more than the samples "
        "that they are judged on. " + COVERAGE,
    )
    moved: Threshold = Threshold(1e-3, "by convention: a change of a probability that three digits would not show")

    def as_dict(self) -> dict[str, Any]:
        """Return every threshold with its origin."""
        return asdict(self)


DEFAULT = Thresholds()

# What may be claimed of a revision, in the order in which it is read.
CLAIMS = {
    "weights changed": "The revised model is another model than the original.",
    "forgotten": "The revised model treats the forget data as data that it never saw.",
    "membership": "The revised model treats the class's training images as it treats images of it that it never saw.",
    "not marked": "The forget data are not worse than unseen data, so that nobody finds them by their large losses.",
    "kept": "The revised model serves the data to keep as the original did, in every class and group.",
    "not brought back by rounding": "Storing the weights in 8 bits does not bring the forget data back.",
    "not just across the boundary": "Small changes of forget samples bring no more answers back than of unseen ones.",
    "not relearned faster": "A few steps of fine-tuning on both bring forget data back no faster than unseen data.",
    "not read off the features": "A new last layer, fitted on kept data, does no better on forget than on unseen data.",
}


@dataclass(frozen=True)
class Verdict:
    """One claim about a revision, and what is known of it.

    Attributes:
        name: Of the claim.
        claim: The claim, in a sentence.
        value: "shown", "not shown" or "not tested".
        words: Why.
        figure: What was measured, of the revised model.
        before: The same of the original.
        threshold: The limit that the interval of ``figure`` must keep to.
        origin: Where that comes from.
        alarming: Whether the figures speak against the claim, rather than merely failing to show it.
    """

    name: str
    claim: str
    value: Value
    words: str
    figure: Figure | None = None
    before: Figure | None = None
    threshold: float | None = None
    origin: str | None = None
    alarming: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Change:
    """How one class, or one group, of the data to keep fared.

    Attributes:
        name: Of the class or group.
        count: Its samples.
        before, after: Its score: of a class the sensitivity, the share of its samples that are found.
        missed_before, missed_after: Its false negatives; None for masks.
        specificity_before, specificity_after: The share of other samples that are not taken for it; None for groups.
        p_value: That it fell by chance alone, corrected for the number of classes or groups (Holm).
    """

    name: str
    count: int
    before: float
    after: float
    missed_before: int | None
    missed_after: int | None
    p_value: float
    specificity_before: float | None = None
    specificity_after: float | None = None

    def fell(self, thresholds: Thresholds = DEFAULT) -> bool:
        """Return whether it fell beyond noise, and by more than trainings differ."""
        return self.p_value < thresholds.class_chance.value and self.before - self.after > thresholds.class_drop.value


@dataclass(frozen=True)
class Kept:
    """What became of the data to keep: the mean paired change, and classes and groups one by one."""

    change: Figure
    classes: tuple[Change, ...] = ()
    groups: tuple[Change, ...] = ()
    before: float = field(default=0.0)


def weights_changed(same: bool, largest: float | None, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Judge whether the revised model is another one.

    Args:
        same: Whether both have the same hash.
        largest: The largest change of a probability on the data of the task; None where it was not measured.
        thresholds: The limits.
    """
    limit = thresholds.moved
    named = _named("weights changed")
    if same:
        words = "the revised model has the same hash as the original: nothing was changed"
        return Verdict(**named, value="not shown", words=words, alarming=True)
    if largest is None:
        return Verdict(**named, value="not tested", words="the weights differ; outputs were not compared")
    figure = Figure(largest, largest, largest, 1)
    told = f"the weights differ, and the largest change of a probability is {largest:.3g}"
    if largest > limit.value:
        return Verdict(**named, value="shown", words=told, figure=figure, threshold=limit.value, origin=limit.origin)
    words = f"{told}: nobody would see the difference"
    return Verdict(
        **named,
        value="not shown",
        words=words,
        figure=figure,
        threshold=limit.value,
        origin=limit.origin,
        alarming=True,
    )


def advantage_gone(
    name: str, found: Gap | None, thresholds: Thresholds = DEFAULT, *, what: str = "unseen data of the same classes"
) -> Verdict:
    """Judge whether what told the forget data from unseen data is gone: at most half of it is left, and at most .1.

    Args:
        name: Of the claim.
        found: How the forget data stand to unseen data, before and after.
        thresholds: The limits.
        what: What the forget data were compared with.
    """
    if found is None:
        return untested(name, f"there are no {what} to compare with")
    before, after, left = found.before, found.after, found.left
    cap, part = thresholds.left.value, thresholds.share_left.value
    limit = min(cap, part * max(before.value, 0.0))
    origin = thresholds.left.origin if limit == cap else thresholds.share_left.origin

    def say(value: Value, words: str, *, alarming: bool = False) -> Verdict:
        return Verdict(
            name, CLAIMS[name], value, f"{words}; compared with {what}", after, before, limit, origin, alarming
        )

    if left is None or before.low <= 0:
        if after.low > 0:
            words = "the revised model tells the forget data from others, as the original did not"
            return say("not shown", words, alarming=True)
        return say(
            "not tested", "the original did not tell the forget data from others either: nothing to be seen went"
        )
    if left.high < part and after.high < cap:
        return say("shown", f"at most {max(left.high, 0.0):.0%} of the original's advantage is left")
    if after.low > 0:
        return say("not shown", "the revised model still tells the forget data from others", alarming=True)
    if too_few(left.high - left.value, part) or too_few(after.high - after.value, cap):
        return say(
            "not tested",
            f"{after.count} samples or groups are too few to tell: a retrained model might not show it either",
        )
    return say("not shown", f"up to {left.high:.0%} of the original's advantage may be left")


def too_few(reach: float, limit: float) -> bool:
    """Return whether an interval reaches so far to one side that a perfect model would fail too often.

    Where it reaches half of the way, a perfect model passes some five times in six.
    """
    return reach > limit / 2


def class_forgotten(name: str, before: Figure, after: Figure, chance: float) -> Verdict:
    """Judge whether a whole class is forgotten: found no more often than by guessing.

    Args:
        name: Of the claim.
        before: The original's share of the class's samples that it finds.
        after: The revised model's.
        chance: One over the number of classes.
    """
    origin = "by argument: a model that never saw a class has no cause to name it, and guessing names it one time in C"

    def say(value: Value, words: str, *, alarming: bool = False) -> Verdict:
        return Verdict(name, CLAIMS[name], value, words, after, before, chance, origin, alarming)

    if before.low <= chance:
        return say("not tested", "the original hardly found the class either, so there was nothing to forget")
    if after.high <= chance:
        return say("shown", "the class is found no more often than by guessing")
    if after.low > chance:
        return say("not shown", "the class is still found", alarming=True)
    if after.value <= chance and share_needs(chance) > after.count:
        return say("not tested", f"{after.count} images are too few to tell ({share_needs(chance)} are needed)")
    return say("not shown", "it may still be found more often than by guessing")


def share_needs(chance: float) -> int:
    """Return the number of samples, none of which is right, whose 95 % interval lies below ``chance``."""
    return math.ceil(math.log(0.025) / math.log(1 - chance))


def not_marked(after: Figure | None, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Judge whether the forget data are not clearly worse than unseen data, which would mark them."""
    limit, named = thresholds.marked, _named("not marked")
    if after is None:
        return untested("not marked", "there are no unseen data of the same classes to compare with")
    named |= {"figure": after, "threshold": -limit.value, "origin": limit.origin}
    if after.low > -limit.value:
        words = f"the forget data fare worse than unseen data by less than {limit.value:g}"
        return Verdict(**named, value="shown", words=words)
    if after.high < 0:
        words = "over-forgetting: the forget data are worse than data that nobody trained on, which marks them"
        return Verdict(**named, value="not shown", words=words, alarming=True)
    if too_few(after.value - after.low, limit.value):
        return Verdict(**named, value="not tested", words=f"{after.count} samples or groups are too few to tell")
    return Verdict(**named, value="not shown", words="the forget data may be worse")


def kept(found: Kept | None, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Judge whether the data to keep are served as before, as a whole and in each class and group."""
    if found is None:
        return untested("kept", "there are no held-out data to keep")
    limit = thresholds.kept
    named = _named("kept") | {"figure": found.change, "threshold": -limit.value, "origin": limit.origin}
    fallen = [one for one in (*found.classes, *found.groups) if one.fell(thresholds)]
    if fallen:
        words = f"damage beyond noise: {'; '.join(damage(one) for one in fallen)}"
        return Verdict(**named, value="not shown", words=words, alarming=True)
    if found.change.low > -limit.value:
        words = f"the score fell by less than {limit.value:g}, and no class or group fell beyond noise"
        return Verdict(**named, value="shown", words=words)
    if found.change.high < 0:
        words = "damage beyond noise: the score fell as a whole"
        return Verdict(**named, value="not shown", words=words, alarming=True)
    if too_few(found.change.value - found.change.low, limit.value):
        return Verdict(**named, value="not tested", words=f"{found.change.count} samples or groups are too few to tell")
    return Verdict(**named, value="not shown", words=f"the score may have fallen by {limit.value:g}")


def damage(one: Change) -> str:
    """Return what happened to a class or group, false negatives by their number."""
    if one.missed_before is None or one.missed_after is None:
        return f"{one.name}: {one.before:.3f} before, {one.after:.3f} after, over {one.count} images"
    return f"{one.name}: {one.missed_before} of {one.count} missed before, {one.missed_after} after"


def untested(name: str, why: str) -> Verdict:
    """Return the verdict on a claim that was not tested."""
    return Verdict(name, CLAIMS[name], "not tested", why)


def of_unchanged(verdict: Verdict) -> Verdict:
    """Return what a claim is worth when nothing was changed: of a revision that did not happen nothing is shown."""
    if verdict.value != "shown":
        return verdict
    words = f"nothing was changed, so there is no revision to judge; {verdict.words}"
    return Verdict(**{**vars(verdict), "value": "not tested", "words": words})


def findings(verdicts: Sequence[Verdict]) -> list[str]:
    """Return what must be said of a revision whoever reads it: unchanged weights, nothing forgotten, damage, marks."""
    return [f"{one.name}: not shown: {one.words}{_figures(one)}" for one in verdicts if one.alarming]


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "claim": CLAIMS[name]}


def _figures(verdict: Verdict) -> str:
    """Return the figures of a verdict as the end of a sentence."""
    both = (("", verdict.figure), ("before ", verdict.before))
    known = [(when, one) for when, one in both if one is not None and one.low < one.high]
    told = [f"{when}{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for when, one in known]
    return f" ({', '.join(told)})" if told else ""
