"""What ``perturbed_sign`` does along its two knobs; along ``mix``, a point chosen without the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.judging import choose_by_held_out
from unlearn_kit.metrics import Evaluation, accuracy, evaluate

from ..setup.methods import Attempt

RETAIN_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
MIXES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class CurvePoint:
    """One run: its scores, or the ``reason`` why there are none."""

    retain_weight: float
    scores: Evaluation | None
    seconds: float | None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        scores = None if self.scores is None else replace(self.scores, reference=None).as_dict()
        return {
            "retain_weight": self.retain_weight,
            "scores": scores,
            "seconds": self.seconds,
            "reason": self.reason,
        }


def retain_weight_curve(
    run: Callable[[float], Attempt], task: UnlearnTask, reference: Evaluation, *, seed: int
) -> list[CurvePoint]:
    """Return the tradeoff between forgetting and retaining: one run a weight, in the order of the weights.

    Args:
        run: makes the attempt with a given retain weight.
        task: what is forgotten.
        reference: the scores of the retrained model.
        seed: of the evaluation.
    """
    points = []
    for weight in RETAIN_WEIGHTS:
        found = run(weight)
        if found.result is None:
            points.append(CurvePoint(weight, None, None, found.reason))
        else:
            scores = evaluate(found.result.model, task, reference, seed=seed)
            points.append(CurvePoint(weight, scores, found.result.seconds))
    return points


@dataclass(frozen=True)
class MixPoint:
    """One run: accuracies on forget, retain, validation and test data; membership AUC; seconds."""

    mix: float | None
    forget: float
    retain: float
    validation: float
    test: float
    membership: float | None
    seconds: float | None


@dataclass(frozen=True)
class MixCurve:
    """The points, in the order of ``mix``; ``chosen`` is the place of one; original and reference for comparison."""

    points: list[MixPoint]
    chosen: int | None
    original: MixPoint
    reference: MixPoint

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def mix_curve(
    run: Callable[[float], Attempt], task: UnlearnTask, original: nn.Module, reference: nn.Module, *, seed: int
) -> MixCurve | None:
    """Run ``perturbed_sign`` at every mix and choose one by held-out data alone.

    The choice looks at the task's validation data, figures come from its test data, and the reference is not looked at.
    None when no run succeeded.

    Args:
        run: makes the attempt with a given mix.
        task: one whose held-out data hold nothing to forget.
        original, reference: for comparison; the original's validation accuracy limits the choice.
        seed: of the membership score.
    """

    def point(model: nn.Module, mix: float | None, seconds: float | None) -> MixPoint:
        scores: Evaluation = evaluate(model, task, seed=seed)
        return MixPoint(
            mix,
            _known(scores.forget),
            _known(scores.retain),
            _known(accuracy(model, task.retain_validation)),
            _known(scores.retain_test),
            scores.membership,
            seconds,
        )

    attempts = [(mix, run(mix).result) for mix in MIXES]
    points = [point(result.model, mix, result.seconds) for mix, result in attempts if result is not None]
    if not points:
        return None
    start = point(original, None, None)
    chosen = choose_by_held_out(points, start.validation)
    return MixCurve(points, chosen, start, point(reference, None, None))


def _known(score: float | None) -> float:
    if score is None:
        raise ValueError("expected held-out and retain data to choose a mix on, but got an empty split")
    return score
