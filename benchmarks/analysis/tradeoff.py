"""Tradeoff curves: what a knob costs on one score for what it gains on another, beside the reference.

Everything is measured as a distance to the retrained reference, which is the ideal on every axis. A gap is the absolute
difference to the reference's score under the same seeds; smaller is better on both axes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unlearn_kit import DivergenceError
from unlearn_kit.errors import check_choice
from unlearn_kit.judging import farthest, within
from unlearn_kit.scores import Evaluation

from .fronts import Interval, hypervolume, interval, mean, pareto_front
from .resolution import FurtherReferences, further_references, seeds_of
from .rows import ResultRow, competes, name_of, task_of, titles

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from unlearn_kit import UnlearnResult, UnlearnTask

AXES = ("forget", "retain", "forget_test", "retain_test", "test", "membership")
PAIRS = (("forget", "retain"), ("forget", "test"), ("membership", "test"))
Scores = Mapping[str, Any]


@dataclass(frozen=True)
class UnlearningRun:
    """One revision, with the scores of the original and the reference beside its own.

    Attributes:
        value: The knob's.
        training_seed: The seed of the original and the reference.
        seed: The seed of the revision.
        scores: By axis; None where the method refused or diverged.
        original: The same of doing nothing.
        reference: The same of the reference; None where there is none.
        seconds: Wall time of the revision.
        reason: Why there are no scores.
        evaluations: Where the scores are means over several evaluations, these, since gaps are taken one by one.
        further: The scores of further references of the training, under the same seeds.
    """

    value: Any
    training_seed: int
    seed: int
    scores: Scores | None
    original: Scores
    reference: Scores | None
    seconds: float | None = None
    reason: str | None = None
    evaluations: tuple[UnlearningRun, ...] = ()
    further: tuple[Scores, ...] = ()

    def gap(self, axis: str) -> float | None:
        """Return how far it is from the reference; None where either has no score."""
        return self._distance(axis, lambda run: run.scores)

    def nothing_gap(self, axis: str) -> float | None:
        """Return how far doing nothing is from the reference."""
        return self._distance(axis, lambda run: run.original)

    def resolution(self, x: str, y: str) -> float | None:
        """Return how far further references are from the reference, at most; None without one."""
        return farthest(
            math.hypot(one[x] - run.reference[x], one[y] - run.reference[y])
            for run in self.evaluations or (self,)
            for one in run.further
            if run.reference is not None and None not in (one[x], one[y], run.reference[x], run.reference[y])
        )

    def _distance(self, axis: str, of: Callable[[UnlearningRun], Scores | None]) -> float | None:
        pairs = [(of(run), run.reference) for run in self.evaluations or (self,)]
        return mean(
            abs(mine[axis] - theirs[axis])
            for mine, theirs in pairs
            if mine is not None and theirs is not None and None not in (mine[axis], theirs[axis])
        )


@dataclass(frozen=True)
class TradeoffPoint:
    """A value of the knob, over all seeds: both scores, their gaps to the reference, the distance of the two."""

    value: Any
    x: Interval
    y: Interval
    gap_x: Interval
    gap_y: Interval
    distance: Interval


@dataclass(frozen=True)
class TradeoffCurve:
    """The runs of one method along one knob; ``knob`` is None for a method that is a single point."""

    name: str
    knob: str | None
    runs: tuple[UnlearningRun, ...]

    def points(self, x: str = "forget", y: str = "retain") -> list[TradeoffPoint]:
        """Return a point for each value, in their order; values without scores or a reference there are left out.

        Raises:
            ValueError: On an unknown axis.
        """
        check_choice("x", x, AXES)
        check_choice("y", y, AXES)
        by_value: dict[str, list[UnlearningRun]] = defaultdict(list)
        for run in self.runs:
            if None not in (run.gap(x), run.gap(y)):
                by_value[repr(run.value)].append(run)
        return [_point(runs, x, y) for runs in by_value.values()]

    def hypervolume(self, x: str = "forget", y: str = "retain") -> float | None:
        """Return the share of the "do nothing" square that the curve dominates, in [0, 1]; 1 is the reference itself.

        The square's side is the gap of doing nothing on ``x``: its far corner has forgotten nothing, and lost as much
        on ``y`` as was to be forgotten.

        Returns:
            A share in [0, 1]: doing nothing scores 0, the reference itself 1. None where there is nothing to forget.
        """
        points = self.points(x, y)
        sides = {run.training_seed: gap for run in self.runs if (gap := run.nothing_gap(x)) is not None}
        side = mean(sides.values())
        if not points or not side:
            return None
        return hypervolume([(point.gap_x.mean, point.gap_y.mean) for point in points], (side, side))

    def frame(self) -> pd.DataFrame:
        """Return a table of the runs: knob, value, seeds, and every score, also of the original and the reference."""
        import pandas as pd

        table = []
        for run in self.runs:
            row: dict[str, Any] = {"method": self.name, "knob": self.knob, "value": run.value}
            row |= {"training_seed": run.training_seed, "seed": run.seed, "seconds": run.seconds, "reason": run.reason}
            for prefix, side in (("", run.scores), ("original_", run.original), ("reference_", run.reference)):
                row |= {f"{prefix}{axis}": None if side is None else side[axis] for axis in AXES}
            table.append(row)
        return pd.DataFrame(table)


def tradeoff_curve(
    algorithm: Callable[..., UnlearnResult],
    model: nn.Module,
    task: UnlearnTask,
    *,
    knob: str,
    values: Sequence[Any],
    reference: nn.Module | Evaluation | None = None,
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> TradeoffCurve:
    """Revise ``model`` once for every value of ``knob`` and every seed, and score each revision.

    Args:
        algorithm: One of ``algorithms``, or any function that is called like one.
        model: The original.
        task: What it shall forget.
        knob: The option that is swept.
        values: Of the knob, in the order of the curve.
        reference: The retrained model or its evaluation; without it, no gaps, fronts and volumes can be had.
        seeds: Of unlearning; all runs share this one training.
        **options: Passed on to the algorithm.

    Returns:
        The curve; a value that the algorithm refuses or diverges at is a run without scores.

    Raises:
        ValueError: Without values or seeds.
        TypeError: On an option that the algorithm does not take.
    """
    if not len(values) or not len(seeds):
        raise ValueError(f"expected at least one value and one seed, but got {list(values)} and {list(seeds)}")
    from unlearn_kit.metrics import evaluate

    theirs = reference if reference is None or isinstance(reference, Evaluation) else evaluate(reference, task)
    before = evaluate(model, task).as_dict()
    beside = None if theirs is None else theirs.as_dict()
    runs = []
    for value in values:
        for seed in seeds:
            run = UnlearningRun(value, 0, seed, None, before, beside)
            try:
                result = algorithm(model, task, seed=seed, **{**options, knob: value})
                scores = evaluate(result.model, task).as_dict()
            except (DivergenceError, ValueError) as error:
                runs.append(replace(run, reason=str(error)))
                continue
            runs.append(replace(run, scores=scores, seconds=result.seconds))
    return TradeoffCurve(algorithm.__name__, knob, tuple(runs))


def curves_of(rows: Iterable[ResultRow]) -> dict[str, list[TradeoffCurve]]:
    """Return the curves in the rows of a folder (:func:`.rows.rows`), by the title of their task, as in the report.

    Methods without a knob are curves of a single point. The rows of one revision, one an evaluation, are one run; of
    two results of the same run, by two versions of a package, the newer counts.
    """
    tasks: dict[str, Mapping[str, Any]] = {}
    found: dict[str, dict[tuple[str, str | None], list[UnlearningRun]]] = defaultdict(lambda: defaultdict(list))
    rows = list(rows)
    further = further_references(rows)
    for group in _revisions(rows):
        config, knob = group[0].record.config, group[0].knob
        name = group[0].method if knob is not None else group[0].text
        rest = {k: v for k, v in config["method"]["options"].items() if k != knob}
        if knob is not None and rest:
            name += ":" + ":".join(f"{key}={value}" for key, value in rest.items())
        asked = task_of(config)
        tasks[task := name_of(asked)] = asked
        found[task][name, knob].append(_run(group, further))
    return {
        title: [
            TradeoffCurve(name, knob, tuple(sorted(runs, key=_order))) for (name, knob), runs in found[task].items()
        ]
        for task, title in zip(tasks, titles(list(tasks.values())), strict=True)
    }


def _revisions(rows: Iterable[ResultRow]) -> list[list[ResultRow]]:
    """Return the rows of each revision that is judged beside its original; of two of the same, those of the newer."""
    by_key: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if competes(row.record.config) and row.original is not None:
            by_key[row.key].append(row)
    newest: dict[tuple[Any, ...], list[ResultRow]] = {}
    for group in by_key.values():
        row, config = group[0], group[0].record.config
        asked = name_of({**task_of(config), "method": config["method"]})
        run = (asked, row.training_seed, row.unlearning_seed)
        if run not in newest or _finished(newest[run]) < _finished(group):
            newest[run] = group
    return list(newest.values())


def _finished(rows: Sequence[ResultRow]) -> str:
    """Return when a revision ended, in UTC."""
    return rows[0].record.cost.finished


def _run(rows: Sequence[ResultRow], further: FurtherReferences) -> UnlearningRun:
    """Return the rows of one revision, one an evaluation, as one run."""
    several = [
        UnlearningRun(
            row.value,
            row.training_seed,
            row.unlearning_seed,
            None if row.scores is None else row.scores.as_dict(),
            row.original.as_dict(),
            None if row.reference is None else row.reference.as_dict(),
            row.seconds,
            row.reason,
            further=tuple(one.as_dict() for one in further[seeds_of(row)]),
        )
        for row in rows
        if row.original is not None and row.unlearning_seed is not None  # as all rows of a revision have
    ]
    first = several[0]
    if len(several) == 1:
        return first
    return replace(
        first,
        scores=_centre([run.scores for run in several]),
        original=_centre([run.original for run in several]) or first.original,
        reference=_centre([run.reference for run in several]),
        evaluations=tuple(several),
    )


def _centre(scores: Iterable[Scores | None]) -> Scores | None:
    """Return the mean of each score over those that are known; None where there are none."""
    known = [one for one in scores if one is not None]
    return {axis: mean(one[axis] for one in known) for axis in AXES} if known else None


def ranking(curves: Sequence[TradeoffCurve], x: str = "forget", y: str = "retain") -> pd.DataFrame:
    """Return every point of every curve, nearest to the reference first, with intervals; ``on_front`` over all methods.

    Returns:
        A table of one row a point, with intervals; ``on_front`` is over all methods, ``hypervolume`` is the whole
        curve's and the same for all of its points. ``resolution`` is how far further references are from the first,
        at most over trainings; points that are no farther are ``tied``: they cannot be told from a reference.
    """
    import pandas as pd

    table, spots = [], []
    for curve in curves:
        volume = curve.hypervolume(x, y)
        for point in curve.points(x, y):
            spots.append((point.gap_x.mean, point.gap_y.mean))
            row: dict[str, Any] = {"method": curve.name, "knob": curve.knob, "value": point.value}
            for name, held in ((x, point.x), (y, point.y), (f"{x}_gap", point.gap_x), (f"{y}_gap", point.gap_y)):
                row |= {name: held.mean, f"{name}_half": held.half}
            row |= {"distance": point.distance.mean, "distance_half": point.distance.half}
            row |= {"hypervolume": volume, "runs": point.x.n, "trainings": point.x.trainings}
            table.append(row)
    front = pareto_front(spots)
    resolution = farthest(run.resolution(x, y) for curve in curves for run in curve.runs)
    for place, row in enumerate(table):
        tied = within(row["distance"], resolution)
        row |= {"on_front": place in front, "resolution": resolution, "tied": tied}
    ranked = pd.DataFrame(table)
    return ranked.sort_values("distance", ignore_index=True) if len(ranked) else ranked


def _point(runs: Sequence[UnlearningRun], x: str, y: str) -> TradeoffPoint:
    columns: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in ("x", "y", "gx", "gy", "d")}
    for run in runs:
        gap_x, gap_y = run.gap(x), run.gap(y)
        if run.scores is None or gap_x is None or gap_y is None:
            continue
        values = (run.scores[x], run.scores[y], gap_x, gap_y, math.hypot(gap_x, gap_y))
        for name, value in zip(columns, values, strict=True):
            columns[name][run.training_seed].append(value)
    return TradeoffPoint(runs[0].value, *(interval(column) for column in columns.values()))


def _order(run: UnlearningRun) -> tuple[Any, ...]:
    number = isinstance(run.value, (int, float)) and not isinstance(run.value, bool)
    return (not number, run.value if number else 0, str(run.value), run.training_seed, run.seed)
