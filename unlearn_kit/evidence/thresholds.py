"""The limits that verdicts are judged by, each with where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..arguments import checked

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
