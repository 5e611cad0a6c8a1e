"""A search for merging coefficients on held-out data, which returns the front and not one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ..arguments import checked
from ..errors import check_count, check_number
from ..metrics import evaluate
from ..seeding import standardized
from ..tasks import UnlearnTask


@dataclass(frozen=True)
class Candidate:
    """Coefficients, and what each objective says of the model they give; smaller is better."""

    coefficients: tuple[float, ...]
    objectives: tuple[float, ...]


@dataclass(frozen=True)
class CoefficientSearch:
    """What was found: the candidates that none beats in every objective, by the first objective, and all tried."""

    front: tuple[Candidate, ...]
    tried: tuple[Candidate, ...]

    def best(self, tradeoff: float = 0.5) -> Candidate:
        """Return the candidate on the front with the least ``(1 - tradeoff) first + tradeoff second`` objective."""
        share = check_number("tradeoff", tradeoff, low=0, high=1)
        return min(self.front, key=lambda c: (1 - share) * c.objectives[0] + share * c.objectives[1])


@checked
@standardized
def search_coefficients(
    build: Callable[[Sequence[float]], nn.Module],
    objectives: Callable[[nn.Module], Sequence[float]],
    start: Sequence[float],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    simplex: bool = False,
    tradeoffs: Sequence[float] = (0.1, 0.5, 0.9),
    evaluations: int = 60,
) -> CoefficientSearch:
    """Search with Nelder-Mead for several tradeoffs between two objectives, and keep what no candidate beats.

    Every tradeoff w minimises the larger of ``(1 - w) f_1`` and ``w f_2`` (plus a hundredth of their sum, which settles
    ties), so that hollow parts of the front are found too. A candidate is built and measured once, whoever asks for it.

    Args:
        build: coefficients to a model, such as ``lambda c: task_arithmetic(base, runs, c)``.
        objectives: of a model, two finite numbers to be made small; such as :func:`held_out_objectives`.
        start: where the search starts, inside ``bounds``.
        bounds: of every coefficient.
        simplex: at least 0 and of sum 1 instead: every point is moved to the nearest one that is.
        tradeoffs: in [0, 1].
        evaluations: candidates at most, over all tradeoffs.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    from scipy.optimize import minimize

    low, high = (check_number("bounds", bound) for bound in bounds)
    if low >= high:
        raise ValueError(f"expected bounds to be a smaller and a larger number, but got {bounds}")
    first = np.array([check_number(f"start[{i}]", x) for i, x in enumerate(start)])
    for name, values in (("start", first), ("tradeoffs", tradeoffs)):
        if len(values) == 0:
            raise ValueError(f"expected {name} to hold at least one number, but got none")
    check_count("evaluations", evaluations, low=len(tradeoffs))
    shares = [check_number("every one of tradeoffs", share, low=0, high=1) for share in tradeoffs]
    known: dict[tuple[float, ...], tuple[float, ...]] = {}

    def place(x: np.ndarray) -> tuple[float, ...]:
        moved = nearest_on_simplex(x) if simplex else np.clip(x, low, high)
        return tuple(round(float(value), 6) for value in moved)

    def measure(x: np.ndarray, share: float, limit: int) -> float:
        coefficients = place(x)
        if coefficients not in known:
            if len(known) >= limit:
                raise _SpentError
            values = tuple(
                check_number(f"objectives[{i}]", float(value))
                for i, value in enumerate(objectives(build(coefficients)))
            )
            if len(values) != 2:
                raise ValueError(f"expected objectives to return two numbers, but got {len(values)}")
            known[coefficients] = values
        a, b = (1 - share) * known[coefficients][0], share * known[coefficients][1]
        return max(a, b) + 0.01 * (a + b)

    step = 0.3 if simplex else 0.3 * (high - low)
    for turn, share in enumerate(shares):
        limit = evaluations * (turn + 1) // len(shares)
        corners = [first] + [_step(first, i, step, simplex, high) for i in range(len(first))]
        try:
            minimize(
                measure,
                first,
                args=(share, limit),
                method="Nelder-Mead",
                options={
                    "initial_simplex": np.array(corners),
                    "maxfev": 10 * evaluations,
                    "xatol": 1e-3,
                    "fatol": 1e-5,
                },
            )
        except _SpentError:
            continue
    tried = tuple(Candidate(c, values) for c, values in known.items())
    return CoefficientSearch(front_of(tried), tried)


def front_of(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those that no other equals or beats in both objectives and beats in one; of equals, the first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: c.objectives):
        if not front or candidate.objectives[1] < front[-1].objectives[1]:
            front.append(candidate)
    return tuple(front)


def nearest_on_simplex(x: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the nearest vector whose entries are at least 0 and of sum 1 (Euclidean projection)."""
    values = np.asarray(x, dtype=float)
    falling = np.sort(values)[::-1]
    thresholds = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    shift = thresholds[np.nonzero(falling > thresholds)[0][-1]]
    return np.maximum(values - shift, 0)


@checked
def held_out_objectives(task: UnlearnTask, target: float = 0.0) -> Callable[[nn.Module], tuple[float, float]]:
    """Return what measures ``(|forget score - target|, 1 - retain score)`` of a model on validation data, in [0, 1].

    Without validation data like the forget data, the forget score is the one on the forget data. No other training data
    are read, and no test data.

    Args:
        task: what is forgotten and kept.
        target: the forget score that a model without the data would have, in [0, 1]: 0 for a class, the original's
            validation score for samples.

    Raises:
        ValueError: When there are no validation data to retain.
    """
    check_number("target", target, low=0, high=1)
    if len(task.retain_validation) == 0:
        raise ValueError("expected the task to have validation data to retain, but it has none")
    forget = task.forget_validation if len(task.forget_validation) else task.forget
    reduced = replace(task.on_validation(), forget=forget, retain=(), forget_test=())

    def measure(model: nn.Module) -> tuple[float, float]:
        scores = evaluate(model, reduced)
        return abs(float(scores.forget or 0.0) - target), 1 - float(scores.retain_test or 0.0)

    return measure


class _SpentError(Exception):
    """No evaluation is left."""


def _step(start: np.ndarray, i: int, step: float, simplex: bool, high: float) -> np.ndarray:
    moved = start.copy()
    moved[i] += step if simplex or moved[i] + step <= high else -step
    return moved
