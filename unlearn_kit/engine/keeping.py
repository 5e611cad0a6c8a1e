"""The best weights of a run, chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..arguments import checked
from ..metrics import split_score
from ..tasks import UnlearnTask
from .callbacks import BestSoFar


@checked
def keep_best(
    task: UnlearnTask,
    *,
    by: Callable[[nn.Module, Any], float | None] | None = None,
    every: int | None = None,
    name: str = "validation score",
) -> BestSoFar:
    """Return a callback that makes the weights with the largest score a run's result; test data are out of its reach.

    Args:
        task: What is forgotten.
        by: The score of a model on a task that has the validation data in the place of the test data, as
            ``task.on_validation()`` gives it: larger is better, None is no score. Default: :func:`kept_and_forgotten`.
        every: Steps between looks; None for once an epoch.
        name: The name of the score, in the history.

    Raises:
        ValueError: When the task has no validation data to keep, or ``every`` is below 1.
        TypeError: When an argument is of another type.
    """
    if len(task.retain_validation) == 0:
        raise ValueError("expected task to have validation data to choose the best weights by, but got none")
    chosen_by, score = task.on_validation(), kept_and_forgotten if by is None else by
    return BestSoFar(lambda model: score(model, chosen_by), every=every, name=name)


@checked
def kept_and_forgotten(model: nn.Module, task: UnlearnTask) -> float | None:
    """Return the score on held-out data to keep, less what the forget data are above their goal; in [-1, 1].

    The goal is 0 for whole classes, for others the score of held-out data like them: a model that never saw the forget
    data would score so. None where there are no held-out data to keep. Test data are read: give
    ``task.on_validation()`` to choose by it, as :func:`keep_best` does.
    """
    kept, left = split_score(model, task, "retain_test"), split_score(model, task, "forget")
    if kept is None or left is None:
        return None
    alike = split_score(model, task, "forget_test") if len(task.forget_test) else kept
    goal = 0.0 if task.forget_classes or alike is None else alike
    return kept - max(0.0, left - goal)
