"""Find the weight that leads an algorithm to a wanted tradeoff, in few runs and on training data alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..arguments import checked
from ..data.tensors import subset
from ..errors import check_choice, check_count, check_number
from ..metrics import accuracy
from ..modules import check_model
from ..results import UnlearnResult
from ..seeding import generator
from ..tasks import UnlearnTask

Method = Literal["bracket", "grid", "nelder-mead"]
Measure = Callable[[nn.Module, Any], float | None]


@dataclass(frozen=True)
class Trial:
    """One inner run: the knob, the forget and the retain level it led to, and the seconds of the revision."""

    knob: float
    forget: float
    retain: float | None
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """What a search for a tradeoff found.

    Attributes:
        knob: name of the option.
        value: its best value: nearest to the target, and among equals the one that retains most.
        forget, retain: the levels there, as measured during the search.
        result: the revision that has them, of the model on the part of the data that the inner runs were given.
        reached: whether the forget level is within the tolerance of the target.
        runs: inner runs made, which is what the search cost.
        trials: all of them, in order.
        method, target, judged_on: how, for what, and on which data the forget level was measured.
    """

    knob: str
    value: float
    forget: float
    retain: float | None
    result: UnlearnResult
    reached: bool
    runs: int
    trials: tuple[Trial, ...]
    method: str
    target: float
    judged_on: str

    @property
    def options(self) -> dict[str, float]:
        """What to call the algorithm with on the whole task: another run, which need not end within the tolerance."""
        return {self.knob: self.value}

    def summary(self) -> str:
        """Return the outcome in a sentence."""
        outcome = "reached" if self.reached else "NOT reached"
        return (
            f"{outcome}: forget level {self.forget:.3f} (wanted {self.target:.3f}, {self.judged_on} forget data) at "
            f"{self.knob}={self.value:.4g}, in {self.runs} inner runs ({self.method})"
        )


@checked
def tune_tradeoff(
    algorithm: Callable[..., UnlearnResult],
    model: nn.Module,
    task: UnlearnTask,
    *,
    target: float,
    knob: str = "retain_weight",
    bounds: tuple[float, float] = (0.01, 100.0),
    start: float | None = None,
    tolerance: float = 0.02,
    budget: int = 16,
    method: Method = "bracket",
    judge: Literal["held-out", "seen"] | None = None,
    held_out: float = 0.25,
    measure: Measure = accuracy,
    seed: int = 0,
    **options: Any,
) -> Tuned:
    """Find the value of one positive option at which ``algorithm`` leaves a wanted level on the forget data.

    Every inner run revises ``model`` on a part of the task's training data and is judged on the rest of them, chosen by
    the seed. Neither the task's held-out data nor a reference is read. The rest was in the original's training data,
    too: its retain level is that of known data, and only differences between runs mean something.

    The level holds for the revision in ``.result``. The same value on the whole task is another run, on more data and
    in another order: where the level is steep in the knob or runs are short it may end many points away. With
    ``judge="seen", held_out=0`` inner runs are given everything, and one more run with the same seed is the same.

    Methods: "bracket" looks at both ends of the bounds, and then goes where an S-shaped curve through what is known on
    either side would cross the target, or to the middle (of the logarithms) where that is flat or misled; it needs a
    level that goes one way with the knob, which weights give. "grid" is ``budget`` values evenly in the logarithm, from
    low to high, "nelder-mead" a simplex search of the squared distance; both stop where the target is reached, so that
    their ``runs`` compare.

    Args:
        algorithm: ``algorithm(model, task, seed=..., **options)``, of ``algorithms`` or a user's own.
        model, task: as of the algorithm. Neither is changed.
        target: wanted forget level, in the units of ``measure``: for accuracy in [0, 1].
        knob: the option to choose.
        bounds: smallest and largest value, above 0.
        start: first value of "nelder-mead" (default: the geometric middle).
        tolerance: how near to the target is near enough.
        budget: inner runs at most, at least 2.
        method: "bracket", "grid" or "nelder-mead".
        judge: whether the forget level is measured on forget data that the inner runs do not see ("held-out": does the
            revision reach what is like them?) or on those they do ("seen": single samples, which have nothing like
            them). Default: held-out where whole classes are forgotten, else seen, and then all of them are used.
        held_out: share in (0, 1) of the training data that inner runs are judged on; 0 with ``judge="seen"``, which
            then judges the retain level on what was trained on, too.
        measure: level of a model on a data set; ``metrics.accuracy`` by default.
        seed: of the split and of every inner run.
        options: of the algorithm, for every run.

    Raises:
        ValueError: When an argument is out of range, by its name. When a part of the split is empty.
        TypeError: When an argument is of another type, by its name.
    """
    model = check_model(model)
    if not isinstance(task, UnlearnTask):
        raise TypeError(f"expected task to be an UnlearnTask, but got {type(task).__name__}")
    low, high = (check_number("bounds", bound, low=0, open_low=True) for bound in bounds)
    if not low < high:
        raise ValueError(f"expected bounds to be (low, high) with low < high, but got {bounds}")
    check_number("target", target)
    check_number("tolerance", tolerance, low=0)
    check_count("budget", budget, low=2)
    check_choice("method", method, get_args(Method))
    begin = math.sqrt(low * high) if start is None else check_number("start", start, low=low, high=high)
    judged_on = judge or ("held-out" if task.forget_classes else "seen")
    check_choice("judge", judged_on, ("held-out", "seen"))
    check_number("held_out", held_out, low=0, high=1, open_low=judged_on == "held-out", open_high=True)
    inner = (
        replace(task, forget_test=(), retain_test=())
        if held_out == 0
        else split_off(task, held_out, seed=seed, forget=judged_on == "held-out")
    )
    judged = inner.forget_test if judged_on == "held-out" else inner.forget
    kept = inner.retain if held_out == 0 else inner.retain_test
    trials: list[Trial] = []
    best: list[tuple[Trial, UnlearnResult]] = []

    def rank(trial: Trial) -> tuple[float, float, float]:
        away = abs(trial.forget - target)
        return max(away, tolerance), -(trial.retain or 0), away

    def run(place: float) -> float:
        value = math.exp(place)
        for trial in trials:
            if trial.knob == value:
                return trial.forget - target
        result = algorithm(model, inner, seed=seed, **{**options, knob: value})
        forget = measure(result.model, judged)
        if forget is None:
            raise ValueError("expected measure to give a number on the forget data, but got None")
        trials.append(Trial(value, forget, measure(result.model, kept), result.seconds))
        if not best or rank(trials[-1]) < rank(best[0][0]):
            best[:] = [(trials[-1], result)]
        if abs(forget - target) <= tolerance or len(trials) >= budget:
            raise _Done
        return forget - target

    ways = {"bracket": _bracket, "grid": _grid, "nelder-mead": _nelder_mead}
    with suppress(_Done):
        ways[method](run, math.log(low), math.log(high), math.log(begin), budget)
    chosen, result = best[0]
    return Tuned(
        knob=knob,
        value=chosen.knob,
        forget=chosen.forget,
        retain=chosen.retain,
        result=result,
        reached=abs(chosen.forget - target) <= tolerance,
        runs=len(trials),
        trials=tuple(trials),
        method=method,
        target=target,
        judged_on=judged_on,
    )


@checked
def split_off(task: UnlearnTask, share: float, *, seed: int = 0, forget: bool = True) -> UnlearnTask:
    """Return the task with a random ``share`` of its training data in the place of its test data.

    With ``forget=False`` all forget data stay to be forgotten, and ``forget_test`` is empty.

    Raises:
        ValueError: When a part would be empty.
    """
    check_number("share", share, low=0, high=1)
    parts = {}
    for name, data in (("forget", task.forget), ("retain", task.retain)):
        order = torch.randperm(len(data), generator=generator(seed, "tuning", name))
        count = round(share * len(data)) if forget or name == "retain" else 0
        if (name == "retain" or forget) and not 0 < count < len(data):
            raise ValueError(
                f"expected held_out={share:g} to leave samples on both sides of the {name} data, but got {count} "
                f"of {len(data)}"
            )
        parts[name] = subset(data, order[count:].sort().values), subset(data, order[:count].sort().values)
    (to_forget, forget_test), (to_retain, retain_test) = parts["forget"], parts["retain"]
    return replace(
        task, forget=to_forget, forget_test=forget_test, retain=to_retain, retain_test=retain_test, forget_indices=None
    )


class _Done(Exception):  # noqa: N818 - no error: the target was reached, or the budget spent
    pass


# Each calls ``run``, which returns how far above the target it ended, until that raises ``_Done``; all arguments are
# logarithms of the knob.
Run = Callable[[float], float]


def _bracket(run: Run, low: float, high: float, begin: float, budget: int) -> None:  # noqa: ARG001
    left, right = run(low), run(high)
    if left * right > 0:  # The target is not between: no value in the bounds is known to reach it.
        return
    least, span = left, right - left

    def odds(short: float) -> float:
        """Return the level between those of the two ends as log-odds: it is S-shaped in the logarithm of a weight."""
        share = min(max((short - least) / span, 0.01), 0.99)
        return math.log(share / (1 - share))

    flat, halved = odds(right), True
    while (width := high - low) > 1e-9:
        below, above = odds(left) - odds(0.0), odds(right) - odds(0.0)
        # Where both ends are flat, or the line misled the last step, the middle.
        known = halved and below < 0 < above and min(abs(odds(left)), abs(odds(right))) < flat
        middle = low + (min(max(below / (below - above), 0.1), 0.9) if known else 0.5) * width
        here = run(middle)
        low, left, high, right = (middle, here, high, right) if here * left > 0 else (low, left, middle, here)
        halved = high - low <= width / 2


def _grid(run: Run, low: float, high: float, begin: float, budget: int) -> None:  # noqa: ARG001
    for place in range(budget):
        run(low + (high - low) * place / (budget - 1))


def _nelder_mead(run: Run, low: float, high: float, begin: float, budget: int) -> None:
    from scipy.optimize import minimize

    minimize(
        lambda at: run(float(at[0])) ** 2,
        [begin],
        method="Nelder-Mead",
        bounds=[(low, high)],
        options={"maxfev": budget, "xatol": 1e-3, "fatol": 1e-9, "initial_simplex": [[begin], [(begin + high) / 2]]},
    )
