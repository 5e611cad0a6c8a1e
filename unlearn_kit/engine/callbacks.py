"""Callbacks: look at a run, log it, stop it. A callback never changes the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_count, check_number
from ..modules import cpu_state, evaluating
from ..progress import Bar
from ..seeding import derive, isolated

logger = logging.getLogger("unlearn_kit")


@dataclass
class Run:
    """A run as its callbacks see it.

    Attributes:
        model: The model in training.
        phase: The name of the current phase.
        step: Steps done in this phase.
        total: The number of steps of this phase.
        done: Steps done in the whole run.
        planned: The number of steps of the whole run.
        epoch: Passes over the lead stream completed in this phase.
        history: The records logged so far.
        stopping: Why the run is about to end; None while it goes on.
        chosen: A ``state_dict`` that replaces the final weights; None for the last ones.
    """

    model: nn.Module
    phase: str = ""
    step: int = 0
    total: int = 0
    done: int = 0
    planned: int = 0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    stopping: str | None = None
    chosen: dict[str, Tensor] | None = None

    def stop(self, reason: str) -> None:
        """End the whole run after this step."""
        self.stopping = reason


class Callback:
    """What happens at the joints of a run; override what is needed.

    Evaluate only in ``on_epoch`` or sparsely in ``on_step``: both run inside the timed revision.

    Attributes:
        chooses: Whether it sets ``run.chosen``. One callback of a run may: two would overwrite each other's choice.
        shows: Whether it tells people how far the run is, so that no other bar is needed.
    """

    chooses: ClassVar[bool] = False
    shows: ClassVar[bool] = False

    def on_start(self, run: Run) -> None:
        """Act before the first step."""

    def on_step(self, run: Run) -> None:
        """Act after each step."""

    def on_epoch(self, run: Run) -> None:
        """Act after each pass over the lead stream, and at the end of each phase's turn."""

    def on_end(self, run: Run) -> None:
        """Act after the last step, also when the run stopped early."""

    def state(self) -> dict[str, Any]:
        """Return what must be saved to resume: values that JSON holds, and tensors under the key "tensors"."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""


def check_callbacks(callbacks: object) -> None:
    """Refuse what is no sequence of callbacks.

    Raises:
        TypeError: When it is none, or holds something else.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise TypeError(f"expected callbacks to be a list of Callback values, but got {type(callbacks).__name__}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"expected callbacks to hold Callback values, but got {type(callback).__name__}")


@checked
class Log(Callback):
    """Write each ``every``-th record of the history to the logger ``unlearn_kit`` at level INFO."""

    def __init__(self, every: int = 1) -> None:
        self.every = check_count("every", every)
        self._seen = 0

    def on_start(self, run: Run) -> None:
        self._seen = len(run.history)

    def on_step(self, run: Run) -> None:
        for place in range(self._seen, len(run.history)):
            if place % self.every == 0:
                shown = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in run.history[place].items())
                logger.info("%s", ", ".join(shown))
        self._seen = len(run.history)

    on_epoch = on_end = on_step


@checked
class ProgressBar(Callback):
    """A progress bar over the whole run, on standard error or in a notebook, wherever that goes.

    Without it, :func:`~.fit.fit` shows one in a terminal and a notebook alone, see :mod:`unlearn_kit.progress`.
    """

    shows = True

    def __init__(self, description: str = "") -> None:
        self.description = description
        self._bar: Bar | None = None

    def on_start(self, run: Run) -> None:
        self._bar = Bar(self.description or run.phase, run.planned, done=run.done, always=True).open()

    def on_step(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.update(run.done, self.description or run.phase)

    def on_end(self, run: Run) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.close()


@checked
class StopWhen(Callback):
    """End the run as soon as ``metric(model)`` satisfies ``reached``, looking every epoch or every ``every`` steps.

    Args:
        metric: A function of the model, such as ``lambda m: accuracy(m, task.forget)``; None ("n/a") is never reached.
        reached: Says of a value whether it ends the run, such as ``lambda value: value <= 0.05``.
        every: Steps between looks; None for once an epoch.
        name: The name of the metric, in the reason and the history.
    """

    def __init__(
        self,
        metric: Callable[[nn.Module], float | None],
        reached: Callable[[float], bool],
        *,
        every: int | None = None,
        name: str = "metric",
    ) -> None:
        self.metric, self.reached, self.name = metric, reached, name
        self.every = None if every is None else check_count("every", every)

    def on_step(self, run: Run) -> None:
        if self.every is not None and run.done % self.every == 0:
            self._look(run)

    def on_epoch(self, run: Run) -> None:
        if self.every is None:
            self._look(run)

    def _look(self, run: Run) -> None:
        value = measured_value(self.metric, run)
        run.history.append({"phase": run.phase, "step": run.step, "epoch": run.epoch, self.name: value})
        if value is not None and self.reached(value):
            run.stop(f"{self.name} = {value:.4g}")


@checked
class BestSoFar(Callback):
    """Keep the weights with the largest ``score(model)`` as the run's result, looking every epoch or ``every`` steps.

    None and NaN are no score. :func:`~.keeping.keep_best` chooses by the validation data of a task.

    Attributes:
        best: The largest score so far; None before there is one.
    """

    chooses = True

    def __init__(
        self, score: Callable[[nn.Module], float | None], *, every: int | None = None, name: str = "score"
    ) -> None:
        self.score, self.name = score, name
        self.every = None if every is None else check_count("every", every)
        self.best: float | None = None
        self._weights: dict[str, Tensor] | None = None

    def on_start(self, run: Run) -> None:
        if run.done == 0:  # The weights of an earlier run are nothing to this one.
            self.best = self._weights = None
        run.chosen = self._weights

    def on_step(self, run: Run) -> None:
        if self.every is not None and run.done % self.every == 0:
            self._look(run)

    def on_epoch(self, run: Run) -> None:
        if self.every is None:
            self._look(run)

    def _look(self, run: Run) -> None:
        value = measured_value(self.score, run)
        run.history.append({"phase": run.phase, "step": run.step, "epoch": run.epoch, self.name: value})
        if value is not None and not math.isnan(value) and (self.best is None or value > self.best):
            self.best, self._weights = value, cpu_state(run.model)
        run.chosen = self._weights

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "tensors": self._weights or {}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self._weights = state["best"], state["tensors"] or None


@checked
class WeightAverage(Callback):
    """Make a moving average of the weights the run's result: ``a <- keep a + (1 - keep) w`` every ``every`` steps.

    It starts from the first weights it sees.

    Args:
        keep: The share of the average that is kept, in [0, 1); at 0 the last weights seen are the result.
        every: Steps between looks.
    """

    chooses = True

    def __init__(self, keep: float, *, every: int) -> None:
        self.keep, self.every = check_number("keep", keep, low=0, high=1, open_high=True), check_count("every", every)
        self._average: dict[str, Tensor] | None = None

    def on_start(self, run: Run) -> None:
        if run.done == 0:
            self._average = None
        run.chosen = self._average

    def on_step(self, run: Run) -> None:
        if run.done % self.every == 0:
            average, weights = self._average, cpu_state(run.model)
            for name, w in weights.items() if average is not None else ():
                if w.is_floating_point() and average is not None:
                    w.lerp_(average[name], self.keep)
            run.chosen = self._average = weights

    def state(self) -> dict[str, Any]:
        return {"tensors": self._average or {}}

    def load_state(self, state: dict[str, Any]) -> None:
        self._average = state["tensors"] or None


def measured_value(metric: Callable[[nn.Module], float | None], run: Run) -> float | None:
    """Return the metric of the model; it may draw random numbers and call the model, and the run does not notice."""
    with isolated(derive(0, "metric", run.done)), evaluating(run.model):
        value = metric(run.model)
    return None if value is None else float(value)
