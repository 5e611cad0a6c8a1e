"""The dial: models on the way from one revision to another, measured, and the one that forgets as much as wanted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..arguments import checked
from ..data.tensors import subset
from ..errors import check_count, check_number
from ..metrics import Evaluation, evaluate
from ..modules import batch_norms
from ..seeding import standardized
from ..tasks import UnlearnTask
from .barrier import BarrierBound, barrier, barrier_bound, mean_loss
from .batch_norm import same_statistics
from .bezier import bezier as on_curve
from .bezier import bezier_control
from .merge import interpolate
from .state import check_match


@dataclass(frozen=True)
class PathPoint:
    """A model on a path: its place in [0, 1], its scores, and its mean cross-entropy in nats. None is "n/a".

    The held-out figures of ``scores`` are of the task's validation data, since a path is there to choose on; who has
    chosen judges the model by ``metrics.evaluate``.
    """

    t: float
    scores: Evaluation
    retain_loss: float | None
    forget_loss: float | None


@dataclass(frozen=True)
class TradeoffPath:
    """A path between two models, measured at some points.

    Attributes:
        a, b: the ends, the caller's own models.
        control: the control point of a Bezier curve; None for a straight line.
        task: what it was measured on: the training data, and the validation data in the place of the test data.
        points: in order, the first at 0 (``a``) and the last at 1 (``b``).
        bound: the loss on retain data on the straight line beside its bound, without recalibration; None for a curve,
            or when it was not asked for.
        recalibrated: whether points between the ends have batch-norm statistics measured on the retain data.
        seconds: wall time of evaluation, and of training the control point: keys "evaluate", "train".
    """

    a: nn.Module = field(repr=False)
    b: nn.Module = field(repr=False)
    control: nn.Module | None = field(repr=False)
    task: UnlearnTask = field(repr=False)
    points: tuple[PathPoint, ...]
    bound: BarrierBound | None
    recalibrated: bool
    seconds: Mapping[str, float]

    def model_at(self, t: float) -> nn.Module:
        """Return a new model at the place t in [0, 1].

        Raises:
            ValueError: When t is outside.
        """
        return _model_at(self.a, self.b, self.control, t, self.task.retain if self.recalibrated else None)

    @property
    def retain_barrier(self) -> float | None:
        """How far the loss on the retain data rises above the line between the ends, in nats; 0 is ideal."""
        return _barrier(self.points, "retain_loss")

    @property
    def forget_barrier(self) -> float | None:
        """The same on the forget data, where a rise is no harm."""
        return _barrier(self.points, "forget_loss")


@dataclass(frozen=True)
class Picked:
    """The model at a wanted forget level, its place on the path, the level it has, and how many models were tried."""

    model: nn.Module
    t: float
    level: float
    tried: int


@checked
@standardized
def tradeoff_path(
    a: nn.Module,
    b: nn.Module,
    task: UnlearnTask,
    points: int | Sequence[float] = 11,
    *,
    reference: nn.Module | Evaluation | None = None,
    bezier: bool | nn.Module = False,
    bezier_options: Mapping[str, Any] | None = None,
    recalibrate: bool | None = None,
    bound_samples: int = 512,
    seed: int = 0,
) -> TradeoffPath:
    """Measure the models on the way from ``a`` (such as the run that forgets most) to ``b`` (that retains best).

    Args:
        a, b: models of one architecture.
        task: gives the data to measure on: for training and for validation. No test data are read.
        points: how many, evenly spaced, or places in [0, 1]; both ends are always among them.
        reference: the retrained model, or its evaluation: the scores then have gaps to it.
        bezier: train the control point of a quadratic Bezier curve on the retain data (see
            :func:`.bezier.bezier_control`), or take this model for it; False for a straight line.
        bezier_options: of that training.
        recalibrate: whether to measure the statistics of batch norm on the retain data at each point but the ends;
            None: where the ends have different ones. Where they have the same, it can bring back what was forgotten.
        bound_samples: samples of retain data on which the bound of the barrier is estimated; 0 for no bound.
        seed: of evaluation and training.

    Raises:
        ValueError: Naming what differs in the models, or the argument.
    """
    check_match({"a": a, "b": b})
    check_count("bound_samples", bound_samples, low=0)
    places = _places(points)
    started, task = time.perf_counter(), task.on_validation()
    control: nn.Module | None = None
    if isinstance(bezier, nn.Module):
        check_match({"a": a, "bezier": bezier})
        control = bezier
    elif bezier:
        control = bezier_control(a, b, task, **{"seed": seed, **(bezier_options or {})})
    trained = time.perf_counter()
    differ = not same_statistics([a, b])
    recalibrated = differ if recalibrate is None else recalibrate and bool(batch_norms(a))
    if isinstance(reference, nn.Module):
        reference = evaluate(reference, task, seed=seed)
    measured = []
    for t in places:
        model = _model_at(a, b, control, t, task.retain if recalibrated else None)
        scores = evaluate(model, task, reference, seed=seed)
        measured.append(PathPoint(t, scores, mean_loss(model, task.retain), mean_loss(model, task.forget)))
    evaluated = time.perf_counter()
    bound = None
    if control is None and bound_samples and len(task.retain):
        bound = barrier_bound(a, b, task.retain, points=max(3, len(places)), samples=bound_samples)
    seconds = {"train": trained - started, "evaluate": evaluated - trained}
    return TradeoffPath(a, b, control, task, tuple(measured), bound, recalibrated, seconds)


@checked
@standardized
def pick(path: TradeoffPath, target: float, *, tolerance: float = 0.005, steps: int = 12) -> Picked:
    """Return the model on ``path`` that scores ``target`` on the forget data: no training, a few evaluations.

    The score is the one on held-out forget data where the task has them, else on the forget data. Between two points
    whose scores lie on either side of ``target`` the place is halved until the score is within ``tolerance``, or
    ``steps`` times; the nearest model found is returned. Of several such pairs, the one that retains best.

    Args:
        path: as measured.
        target: in [0, 1].
        tolerance: above 0.
        steps: at least 0.

    Raises:
        ValueError: When no point of the path goes so far, naming how far they go.
    """
    check_number("target", target, low=0, high=1)
    check_number("tolerance", tolerance, low=0, open_low=True)
    check_count("steps", steps, low=0)
    levels = [_level(point.scores) for point in path.points]
    if not min(levels) - tolerance <= target <= max(levels) + tolerance:
        raise ValueError(
            f"expected target to be a forget score that the path reaches, in [{min(levels):.4f}, {max(levels):.4f}], "
            f"but got {target:g}"
        )
    kept = [point.scores.retain_test if len(path.task.retain_test) else point.scores.retain for point in path.points]
    found = [
        (abs(level - target), -(k or 0.0), place) for place, (level, k) in enumerate(zip(levels, kept, strict=True))
    ]
    error, _, place = min(found)
    t, level, tried = path.points[place].t, levels[place], 0
    crossings = [
        (-(kept[i] or 0.0) - (kept[i + 1] or 0.0), i)
        for i in range(len(levels) - 1)
        if (levels[i] - target) * (levels[i + 1] - target) < 0
    ]
    if error > tolerance and crossings:
        _, left = min(crossings)
        low, high = path.points[left].t, path.points[left + 1].t
        rising = levels[left] < target
        while error > tolerance and tried < steps:
            middle, tried = (low + high) / 2, tried + 1
            value = _forget_level(path.model_at(middle), path.task)
            if abs(value - target) < error:
                t, level, error = middle, value, abs(value - target)
            low, high = (middle, high) if (value < target) == rising else (low, middle)
    return Picked(path.model_at(t), t, level, tried)


def _places(points: int | Sequence[float]) -> list[float]:
    if isinstance(points, Sequence):
        inner = {check_number(f"points[{i}]", t, low=0, high=1) for i, t in enumerate(points)}
        return sorted(inner | {0.0, 1.0})
    count = check_count("points", points, low=2)
    return [i / (count - 1) for i in range(count)]


def _model_at(a: nn.Module, b: nn.Module, control: nn.Module | None, t: float, retain: Any) -> nn.Module:
    inside = retain if 0 < t < 1 else None
    if control is None:
        return interpolate(a, b, t, recalibrate=inside)
    return on_curve(a, control, b, check_number("t", t, low=0, high=1), recalibrate=inside)


def _barrier(points: Sequence[PathPoint], name: str) -> float | None:
    losses = [getattr(point, name) for point in points]
    return None if None in losses else barrier([point.t for point in points], losses)


def _level(scores: Evaluation) -> float:
    level = scores.forget_test if scores.sizes["forget_test"] else scores.forget
    return float(level or 0.0)


def _forget_level(model: nn.Module, task: UnlearnTask) -> float:
    """Return the level alone: an evaluation in which the data it needs are the only ones."""
    data = task.forget_test if len(task.forget_test) else task.forget
    none = subset(data, [])
    return _level(evaluate(model, replace(task, forget=data, retain=none, forget_test=none, retain_test=none)))
