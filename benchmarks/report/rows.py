"""From records to rows: the runs of one method on one task, over all its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from unlearn_kit.judging import forget_score, nothing_to_forget, over_forgets
from unlearn_kit.scores import Evaluation

from ..analysis.fronts import Interval, interval, mean
from ..analysis.rows import BARE, ResultRow, competes, is_further
from ..analysis.tables import LABELS
from ..suites.records import Record, Status
from .sequence import relapse_notes, standings

SCORES = (
    "forget", "retain", "forget_test", "retain_test", "test", "membership",
    "average_gap", "tug_of_war", "tug_of_war_mia",
)  # fmt: skip
TIMES = "\u00d7"
FURTHER = "further reference"
DICE = ("forget", "retain", "test")


@dataclass(frozen=True)
class ReportRun:
    """One result: its flat rows (:class:`benchmarks.analysis.rows.ResultRow`), one for each evaluation seed."""

    flat: tuple[ResultRow, ...]

    @property
    def record(self) -> Record:
        """Return what the store holds of it."""
        return self.flat[0].record

    @property
    def status(self) -> Status:
        """Return whether it is "ok", "n/a" or "diverged"."""
        return self.record.status

    @property
    def seeds(self) -> tuple[int, int | None]:
        """Return the seeds of training and unlearning; None where nothing was revised."""
        return self.flat[0].training_seed, self.flat[0].unlearning_seed

    @property
    def text(self) -> str:
        """Return its seeds in words."""
        training, unlearning = self.seeds
        return f"training {training}" + ("" if unlearning is None else f", revision {unlearning}")

    @cached_property
    def pairs(self) -> list[tuple[Evaluation, Evaluation | None]]:
        """Return its own scores and the reference's, under each evaluation seed."""
        return [(row.scores, row.reference) for row in self.flat if row.scores is not None]

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Return every figure, the mean over evaluation seeds; None is "n/a"."""
        scores = [one for one, _ in self.pairs]
        found: dict[str, float | None] = {name: mean(getattr(one, name) for one in scores) for name in SCORES}
        for split in DICE:
            found[f"dice_{split}"] = mean(None if one.dice is None else one.dice[split] for one in scores)
        found["forget_score"] = mean(forget_score(one) for one in scores)
        # Doing nothing takes no time: what its record tells is the training of the original.
        revised = bool(scores) and self.flat[0].method != "original"
        cost = self.record.cost
        memory = cost.device_memory_bytes or cost.peak_memory_bytes
        found["seconds"] = mean([cost.seconds if revised else None])
        found["speed_up"] = mean([self.flat[0].speed_up if revised else None])
        found["memory"] = mean([memory / 2**20 if revised and memory else None])
        return found

    def gap(self, name: str) -> float | None:
        """Return how far a score is from the reference's under the same seeds, the mean over evaluation seeds."""
        return mean(
            None if theirs is None or None in (getattr(one, name), getattr(theirs, name))
            else abs(getattr(one, name) - getattr(theirs, name))
            for one, theirs in self.pairs
        )  # fmt: skip

    @cached_property
    def per_class(self) -> dict[int, float | None]:
        """Return the score of each class on held-out data."""
        tables = [one.per_class for one, _ in self.pairs if one.per_class is not None]
        return {label: mean(table[label] for table in tables) for label in (tables[0] if tables else {})}

    @property
    def over_forgets(self) -> bool:
        """Return whether it is clearly worse on the forget set than the reference, under any evaluation seed."""
        return any(theirs is not None and over_forgets(one, theirs) for one, theirs in self.pairs)

    @property
    def pointless(self) -> bool:
        """Return whether an original cannot be told apart from the reference, under any evaluation seed."""
        return any(theirs is not None and nothing_to_forget(one, theirs) for one, theirs in self.pairs)


@dataclass
class ReportRow:
    """One method with one set of options, over all its runs.

    Attributes:
        text: The method with its options.
        method: The method's name, or "original" or "reference"; further references are named so, too.
        runs: Its runs, in the order of their seeds.
        curve: The knob that it is a value of, its other options, and the value; None for a row by itself.
        rank: Its place among the methods, from 1; None where it has none.
        tied: Whether it shares that place: no farther from the reference than another reference is.
    """

    text: str
    method: str
    runs: list[ReportRun] = field(default_factory=list)
    curve: tuple[str, str, float | str] | None = None
    rank: int | None = None
    tied: bool = False
    _figures: dict[str, Interval | None] = field(default_factory=dict, repr=False)

    @property
    def role(self) -> str:
        """Return what it stands for: "original", "reference", "further reference" or "method"."""
        if any(is_further(run.flat[0]) for run in self.runs):
            return FURTHER
        return self.method if self.method in BARE else "method"

    @property
    def competes(self) -> bool:
        """Return whether it is a method's, and ranked, unlike another reference or what is given one."""
        return self.role == "method" and competes(self.runs[0].record.config)

    @property
    def label(self) -> str:
        """Return its name for people."""
        return LABELS.get(self.text, self.text)

    @property
    def place(self) -> str:
        """Return its rank for people; nothing where it has none."""
        return "" if self.rank is None else f"{self.rank}{'=' if self.tied else ''}"

    @cached_property
    def ok(self) -> list[ReportRun]:
        """Return the runs that have figures."""
        return [run for run in self.runs if run.status == "ok"]

    def figure(self, name: str) -> Interval | None:
        """Return the mean and 95 % t interval of a figure over its runs; None where it is n/a.

        The interval is over trainings, since revisions of one are not independent; with a single training it is over
        its revisions.
        """
        if name not in self._figures:
            self._figures[name] = self._over_seeds([(run.seeds[0], run.values[name]) for run in self.ok])
        return self._figures[name]

    def gap(self, name: str) -> Interval | None:
        """Return how far a score is from the reference's, like :meth:`figure`."""
        return self._over_seeds([(run.seeds[0], run.gap(name)) for run in self.ok])

    @staticmethod
    def _over_seeds(values: Iterable[tuple[int, float | None]]) -> Interval | None:
        trainings = _grouped(values)
        return interval(trainings) if trainings else None

    def by_training(self, name: str) -> dict[int, float]:
        """Return the mean of a figure over the revisions of each training, by training seed, where it has one."""
        found = _grouped((run.seeds[0], run.values[name]) for run in self.ok)
        return {training: fmean(values) for training, values in found.items()}

    @property
    def relapsed(self) -> bool:
        """Return whether a request comes back after a later one in at least half of the runs."""
        table = standings([run.record for run in self.ok])
        return any(cell is not None and 2 * cell.relapses >= cell.runs for line in table.values() for cell in line)

    @property
    def count(self) -> str:
        """Say how many models stand behind it: trainings, or trainings x revisions of each, or both where uneven."""
        trainings = len({run.seeds[0] for run in self.ok})
        revisions, uneven = divmod(len(self.ok), trainings) if trainings else (0, 0)
        if uneven:
            return f"{len(self.ok)} runs of {trainings} trainings"
        return str(trainings) if revisions <= 1 else f"{trainings}{TIMES}{revisions}"

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know about its figures."""
        said = []
        for status, words in (("diverged", "diverged"), ("n/a", "n/a")):
            lost = sum(run.status == status for run in self.runs)
            if lost:
                said.append(words if lost == len(self.runs) else f"{words} in {lost} of {len(self.runs)} runs")
        if self.role == "method" and not self.competes:
            said.append("a yardstick: not ranked")
        over = sum(run.over_forgets for run in self.ok)
        if over and self.competes:
            said.append("over-forgets" if over == len(self.ok) else f"over-forgets in {over} of {len(self.ok)} runs")
        return said + (relapse_notes([run.record for run in self.ok]) if self.role == "method" else [])

    @property
    def reasons(self) -> list[str]:
        """Return why runs have no figures, each reason once."""
        return list(dict.fromkeys(str(run.record.reason) for run in self.runs if run.status != "ok"))


def _grouped(values: Iterable[tuple[int, float | None]]) -> dict[int, list[float]]:
    """Return the known values by training."""
    found: dict[int, list[float]] = defaultdict(list)
    for training, value in values:
        if value is not None:
            found[training].append(value)
    return found
