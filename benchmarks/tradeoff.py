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

from torch import nn

from unlearn_kit import DivergenceError, UnlearnResult, UnlearnTask
from unlearn_kit.errors import check_choice
from unlearn_kit.metrics import Evaluation, evaluate

from .fronts import Interval, hypervolume, interval, pareto_front

if TYPE_CHECKING:
    import pandas as pd

AXES = ("forget", "retain", "forget_test", "retain_test", "test", "membership")
PAIRS = (("forget", "retain"), ("forget", "test"), ("membership", "test"))
Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One revision: the knob's value, its seeds, its scores and those of the original and the reference beside it.

    ``scores`` is None where the method refused or diverged; ``reason`` then says why.
    """

    value: Any
    training_seed: int
    seed: int
    scores: Scores | None
    original: Scores
    reference: Scores | None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Stop:
    """A value of the knob, over all seeds: both scores, their gaps to the reference, and the distance of the two."""

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
    runs: tuple[Run, ...]

    def stops(self, x: str = "forget", y: str = "retain") -> list[Stop]:
        """One a value, in the order of the values; values without scores or a reference there are left out.

        Raises: ValueError on an unknown axis.
        """
        check_choice("x", x, AXES)
        check_choice("y", y, AXES)
        by_value: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.reference is not None and run.scores is not None:
                needed = [side[axis] for side in (run.scores, run.reference) for axis in (x, y)]
                if None not in needed:
                    by_value[repr(run.value)].append(run)
        return [_stop(runs, x, y) for runs in by_value.values()]

    def hypervolume(self, x: str = "forget", y: str = "retain") -> float | None:
        """Share of the "do nothing" square that the curve dominates, in [0, 1]; 1 is the reference itself.

        The square's side is the gap of doing nothing on ``x``: its far corner has forgotten nothing, and lost as much
        on ``y`` as was to be forgotten. Doing nothing scores 0. None where there is nothing to forget.
        """
        stops = self.stops(x, y)
        side = _mean([gap for run in self.runs if (gap := _nothing_gap(run, x)) is not None])
        if not stops or not side:
            return None
        return hypervolume([(stop.gap_x.mean, stop.gap_y.mean) for stop in stops], (side, side))

    def frame(self) -> pd.DataFrame:
        """One row a run: knob, value, seeds, and every score, also of the original and the reference."""
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
        algorithm: of ``algorithms``, or any function that is called like one.
        model, task: the original, and what it shall forget.
        knob: the option that is swept.
        values: of the knob, in the order of the curve.
        reference: the retrained model or its evaluation; without it, no gaps, fronts and volumes can be had.
        seeds: of unlearning; all runs share this one training.
        **options: passed on to the algorithm.

    Raises: ValueError without values or seeds; TypeError on an option the algorithm does not take. A value that the
        algorithm refuses or diverges at is a run without scores.
    """
    if not len(values) or not len(seeds):
        raise ValueError(f"expected at least one value and one seed, but got {list(values)} and {list(seeds)}")
    theirs = evaluate(reference, task) if isinstance(reference, nn.Module) else reference
    before = evaluate(model, task).as_dict()
    beside = None if theirs is None else theirs.as_dict()
    runs = []
    for value in values:
        for seed in seeds:
            run = Run(value, 0, seed, None, before, beside)
            try:
                result = algorithm(model, task, seed=seed, **{**options, knob: value})
                scores = evaluate(result.model, task).as_dict()
            except (DivergenceError, ValueError) as error:
                runs.append(replace(run, reason=str(error)))
                continue
            runs.append(replace(run, scores=scores, seconds=result.seconds))
    return TradeoffCurve(algorithm.__name__, knob, tuple(runs))


def curves_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[TradeoffCurve]]:
    """Curves from the rows of a folder (:func:`.rows.rows`), by scenario: data, forget rule and model.

    Methods without a knob are curves of a single point.
    """
    found: dict[str, dict[tuple[str, str | None], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] in ("original", "reference") or row["original"] is None:
            continue
        name = row["method"] if row["knob"] is not None else row["text"]
        rest = {k: v for k, v in row["record"]["config"]["method"]["options"].items() if k != row["knob"]}
        if row["knob"] is not None and rest:
            name += ":" + ":".join(f"{key}={value}" for key, value in rest.items())
        run = Run(
            row["value"],
            row["training_seed"],
            row["unlearning_seed"],
            row["scores"],
            row["original"],
            row["reference"],
            row["seconds"],
            row["reason"],
        )
        found[f"{row['data']}/{row['forget']}/{row['model']}"][(name, row["knob"])].append(run)
    return {
        scenario: [TradeoffCurve(name, knob, tuple(sorted(runs, key=_order))) for (name, knob), runs in curves.items()]
        for scenario, curves in found.items()
    }


def ranking(curves: Sequence[TradeoffCurve], x: str = "forget", y: str = "retain") -> pd.DataFrame:
    """Every stop of every curve, nearest to the reference first, with intervals; ``on_front`` over all methods.

    ``hypervolume`` is the whole curve's and the same for all of its stops.
    """
    import pandas as pd

    table, spots = [], []
    for curve in curves:
        volume = curve.hypervolume(x, y)
        for stop in curve.stops(x, y):
            spots.append((stop.gap_x.mean, stop.gap_y.mean))
            row: dict[str, Any] = {"method": curve.name, "knob": curve.knob, "value": stop.value}
            for name, held in ((x, stop.x), (y, stop.y), (f"{x}_gap", stop.gap_x), (f"{y}_gap", stop.gap_y)):
                row |= {name: held.mean, f"{name}_half": held.half}
            row |= {"distance": stop.distance.mean, "distance_half": stop.distance.half}
            row |= {"hypervolume": volume, "runs": stop.x.n, "trainings": stop.x.trainings}
            table.append(row)
    front = pareto_front(spots)
    for place, row in enumerate(table):
        row["on_front"] = place in front
    ranked = pd.DataFrame(table)
    return ranked.sort_values("distance", ignore_index=True) if len(ranked) else ranked


def _stop(runs: Sequence[Run], x: str, y: str) -> Stop:
    columns: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in ("x", "y", "gx", "gy", "d")}
    for run in runs:
        if run.scores is None or run.reference is None:
            continue
        gaps = [abs(run.scores[axis] - run.reference[axis]) for axis in (x, y)]
        for name, value in zip(columns, (run.scores[x], run.scores[y], *gaps, math.hypot(*gaps)), strict=True):
            columns[name][run.training_seed].append(value)
    return Stop(runs[0].value, *(interval(column) for column in columns.values()))


def _nothing_gap(run: Run, axis: str) -> float | None:
    """How far doing nothing is from the reference."""
    if run.reference is None or run.reference[axis] is None or run.original[axis] is None:
        return None
    return float(abs(run.original[axis] - run.reference[axis]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _order(run: Run) -> tuple[Any, ...]:
    number = isinstance(run.value, (int, float)) and not isinstance(run.value, bool)
    return (not number, run.value if number else 0, str(run.value), run.training_seed, run.seed)
