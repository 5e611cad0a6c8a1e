"""How fast what was forgotten comes back under fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import torch
from torch import nn

from ..arguments import checked
from ..data.sampling import random_subset
from ..engine import Phase, StopWhen, fit
from ..errors import check_choice, check_count, check_number
from ..losses import cross_entropy
from ..metrics.evaluate import split_score
from ..modules import check_model
from ..seeding import derive, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

On = Literal["forget", "retain"]


class Settings(TypedDict, total=False):
    """What :func:`relearn_time` may be told; the same for every model of a comparison."""

    on: On
    margin: float
    max_steps: int
    every: int
    lr: float
    momentum: float
    clip: float | None
    batch_size: int
    limit: int | None
    seed: int
    device: torch.device | str | None
    workers: int


@dataclass(frozen=True)
class RelearnReport:
    """What :func:`relearn_time` found.

    Attributes:
        steps: steps until the forget score reached ``goal``, a multiple of ``every`` (or ``max_steps``); 0 where it was
            there before; None: not within ``max_steps``.
        goal: the forget score to reach.
        max_steps, every, on: as asked for.
        scores: the forget score before, and after every so many steps: ``(steps, score)``.
    """

    steps: int | None
    goal: float
    max_steps: int
    every: int
    on: str
    scores: tuple[tuple[int, float], ...]

    def __str__(self) -> str:
        return f"not within {self.max_steps} steps" if self.steps is None else f"{self.steps} steps"


@dataclass(frozen=True)
class AnamnesisIndex:
    """The model's relearn time over the reference's, in [0, inf); ideal 1, near 0 the knowledge was only hidden.

    ``value`` is None where either did not relearn in time, and where the reference needed no step: there was nothing to
    forget. Both reports are there to tell which, and ``bounds`` what is known of the ratio even so.
    """

    value: float | None
    model: RelearnReport
    reference: RelearnReport

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and largest ratio that the reports allow; None where the reference needed no step."""
        if self.reference.steps == 0:
            return None
        (low, high), (least, most) = (
            (r.max_steps, math.inf) if r.steps is None else (r.steps, r.steps) for r in (self.model, self.reference)
        )
        return low / most, high / least


@checked
@standardized
def relearn_time(
    model: nn.Module,
    task: UnlearnTask,
    *,
    original: nn.Module | float,
    on: On = "forget",
    margin: float = 0.05,
    max_steps: int = 200,
    every: int = 5,
    lr: float = 1e-2,
    momentum: float = 0.9,
    clip: float | None = 1.0,
    batch_size: int = 64,
    limit: int | None = 2_000,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
) -> RelearnReport | None:
    """Return steps of fine-tuning, on a copy, until the forget score is within 5 % of the original's.

    The score is accuracy, for masks IoU per image, then the mean, on the forget set. "Within" is relative and
    from below: at least ``(1 - margin)`` times the original's. It is looked at before the first step and after every
    ``every`` steps, so the answer is no finer than that. All floating-point weights train, by SGD on the cross-entropy
    of the true labels; batch norm keeps its statistics, dropout is on.

    Ideal: the reference's. Fewer steps: the knowledge is still inside. A class relearned from retain data alone, which
    hold nothing of it, is the stronger sign.

    Args:
        model: the model to audit; untouched.
        task: the forget set is judged; it, or the retain set, is trained on.
        original: the model before the revision, or its score on the forget set in [0, 1].
        on: "forget", or "retain": the data that are trained on.
        margin: relative, in [0, 1).
        max_steps, every: when to give up, and how often to look.
        lr, momentum, clip, batch_size: of the fine-tuning; ``clip`` is the largest gradient norm, or None. With batch
            norm frozen a model that is sure of itself can break without it. Compare reports of the same settings only.
        limit: most forget samples that are judged, drawn once; None for all. All of them are trained on.
        seed: of the order of the data and of dropout; the caller's random state is untouched.
        device: where to train (default: where the model is).
        workers: processes that decode; ignored for data held in tensors.

    Returns:
        A report, or None where there is no forget sample, or nothing to train on.

    Raises:
        TypeError: When an argument is of another type, by its name.
        ValueError: When an argument is out of range, by its name.
        DivergenceError: When lr is too large.

    Source: arXiv 2201.05629 (Anamnesis Index).
    """
    check_choice("on", on, ("forget", "retain"))
    check_number("margin", margin, low=0, high=1, open_high=True)
    check_count("max_steps", max_steps)
    check_count("every", every)
    check_number("lr", lr, low=0, open_low=True)
    model = check_model(model)
    data, task = getattr(task, on), _judged(task, limit, seed)
    best = _original_score(original, task, workers)
    if best is None or len(data) == 0:
        return None
    goal = (1 - margin) * best

    def score(student: nn.Module) -> float:
        return split_score(student, task, "forget", workers=workers) or 0.0  # there are some, or best were None

    phase = Phase(
        cross_entropy(on=on),
        {on: data},
        steps=max_steps,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        clip=clip,
        trainable=lambda _, parameter: parameter.is_floating_point(),
        workers=workers,
        name="relearn",
    )
    watch = StopWhen(score, lambda value: value >= goal, every=every, name="forget score")
    scores = [(0, score(model))]
    if scores[0][1] < goal:
        fitted = fit(model, phase, seed=derive(seed, "relearn"), device=device, callbacks=[watch])
        scores += [(record["step"], record[watch.name]) for record in fitted.history if watch.name in record]
        if fitted.stopped is None and scores[-1][0] < max_steps:
            scores.append((max_steps, score(fitted.model)))
    reached = scores[-1][0] if scores[-1][1] >= goal else None
    return RelearnReport(reached, goal, max_steps, every, on, tuple(scores))


@checked
def anamnesis_index(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | RelearnReport,
    *,
    original: nn.Module | float,
    **settings: Unpack[Settings],
) -> AnamnesisIndex | None:
    """Return the :func:`relearn_time` of the model over that of the reference, in [0, inf); ideal 1.

    Args:
        model, task, original: as in :func:`relearn_time`.
        reference: the retrained model, or its report under the same settings.
        **settings: all else that :func:`relearn_time` takes, ``on="retain"`` for one.

    Returns:
        The ratio and both reports, or None where there is nothing to relearn or nothing to train on.

    Raises:
        ValueError: On a report of other settings, and as :func:`relearn_time`.
        TypeError: As :func:`relearn_time`.
        DivergenceError: When lr is too large.
    """
    judged = _judged(task, settings.get("limit", 2_000), settings.get("seed", 0))
    best = _original_score(original, judged, settings.get("workers", 0))
    if best is None:
        return None
    mine = relearn_time(model, task, original=best, **settings)
    theirs = relearn_time(reference, task, original=best, **settings) if isinstance(reference, nn.Module) else reference
    if mine is None or theirs is None:
        return None
    asked = [(report.goal, report.max_steps, report.every, report.on) for report in (mine, theirs)]
    if asked[0] != asked[1]:
        raise ValueError(
            f"expected reference to be a report of the same goal, max_steps, every and on, {asked[0]}, "
            f"but got {asked[1]}"
        )
    value = mine.steps / theirs.steps if mine.steps is not None and theirs.steps else None
    return AnamnesisIndex(value, mine, theirs)


def _judged(task: UnlearnTask, limit: int | None, seed: int) -> UnlearnTask:
    """Return the task with at most ``limit`` of its forget samples."""
    if limit is not None:
        check_count("limit", limit)
    chosen = random_subset(task.forget, limit, seed=derive(seed, "relearn", "judged"))
    return task if chosen is task.forget else replace(task, forget=chosen, forget_indices=None)


def _original_score(original: nn.Module | float, task: UnlearnTask, workers: int) -> float | None:
    if len(task.forget) == 0:
        return None
    if isinstance(original, nn.Module):
        return split_score(original, task, "forget", workers=workers)
    return check_number("original", original, low=0, high=1)
