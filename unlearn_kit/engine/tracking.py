"""Runs in TensorBoard, MLflow, Weights & Biases and the other trackers that Accelerate knows."""

from __future__ import annotations

import atexit
import inspect
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ..arguments import checked
from ..errors import check_choice, check_count
from .callbacks import Callback, Run, measured_value

PLACES = ("phase", "step", "epoch")  # what a record says of where it was logged


@checked
class Tracker(Callback):
    """Send what a run logs, and metrics every few steps, to a tracker.

    The numbers of each record of the history are sent under ``PHASE/NAME``, at the step of the whole run; a method that
    trains several times in a row is one run, its steps counted on. Metrics enter the history, too. The run ends with
    :meth:`close`, with the ``with`` block, or with the program. Of several processes the first one sends.

    Args:
        name: "tensorboard", "mlflow", "wandb" or another that ``accelerate.tracking`` knows; its package is needed.
        folder: Where a tracker that writes files puts them.
        run: The name of the run, or of the project or experiment, as the tracker has it.
        config: Settings to note, such as the options of the method.
        metrics: Functions of the model by name, such as ``{"kept": lambda m: accuracy(m, task.retain_validation)}``;
            None is "n/a" and not sent. They may draw random numbers: the run does not notice.
        every: Steps between looks at the metrics; None for once an epoch.
        **options: What else the tracker takes.

    Raises:
        ValueError: On an unknown tracker, or a folder that it lacks or cannot use.
        ImportError: When its package is not installed.
        TypeError: When an argument is of another type.
    """

    def __init__(
        self,
        name: str,
        folder: str | Path | None = None,
        *,
        run: str = "unlearn-kit",
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Callable[[nn.Module], float | None]] | None = None,
        every: int | None = None,
        **options: Any,
    ) -> None:
        from accelerate import tracking
        from accelerate.utils import LoggerType

        kind = tracking.LOGGER_TYPE_TO_CLASS[check_choice("name", name, tracking.LOGGER_TYPE_TO_CLASS)]
        if name in LoggerType.list() and name not in map(str, tracking.get_available_trackers()):
            raise ImportError(f"expected the package of the tracker {name!r} to be installed, but it is not")
        if folder is None and kind.requires_logging_directory:
            raise ValueError(f"expected folder with {name!r}, which writes files, but got None")
        if folder is not None:
            if "logging_dir" not in inspect.signature(kind).parameters:
                raise ValueError(f"expected no folder with {name!r}, which has no use for one, but got {str(folder)!r}")
            options["logging_dir"] = str(folder)
        self.every = None if every is None else check_count("every", every)
        self.metrics, self.config = dict(metrics or {}), dict(config or {})
        self._make = lambda: kind(run, **options)
        self._tracker: Any = None
        self._finish: weakref.finalize[[Any], Tracker] | None = None
        self._names: dict[str, str] = {}
        self._seen = self._before = 0

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the run in the tracker; a training after this begins another."""
        if self._finish is not None:
            self._finish()
        self._tracker, self._before = None, 0

    def on_start(self, run: Run) -> None:
        """Begin the run in the tracker, unless it goes on."""
        self._seen = len(run.history)
        if self._tracker is not None:
            return
        with _accelerate_state() as first:
            if not first:
                return
            self._tracker = self._make()
            if hasattr(self._tracker, "start"):  # before 1.8 of Accelerate, making it was starting it
                self._tracker.start()
            self._finish = weakref.finalize(self, _finish, self._tracker)
            # At the end of the process the last registered is first: before the tracker's own end, after which it
            # cannot be finished any more.
            self._finish.atexit = False
            atexit.register(self._finish)
            if self.config:
                plain = (bool, int, float, str, type(None))
                values = {key: value if isinstance(value, plain) else str(value) for key, value in self.config.items()}
                self._tracker.store_init_configuration(values)

    def on_step(self, run: Run) -> None:
        """Send what this step logged."""
        if self.every is not None and run.done % self.every == 0:
            self._measure(run)
        self._send(run)

    def on_epoch(self, run: Run) -> None:
        """Send what this epoch logged."""
        if self.every is None:
            self._measure(run)
        self._send(run)

    def on_end(self, run: Run) -> None:
        """Send what is left, and count on from here."""
        self._send(run)
        self._before += run.done

    def _measure(self, run: Run) -> None:
        if self.metrics:
            found = {name: measured_value(metric, run) for name, metric in self.metrics.items()}
            run.history.append({"phase": run.phase, "step": run.step, "epoch": run.epoch, **found})

    def _send(self, run: Run) -> None:
        """Send the records that are new; of one step they are at the same step."""
        records, self._seen = run.history[self._seen :], len(run.history)
        if self._tracker is None or not records:
            return
        with _accelerate_state():
            for record in records:
                values = {
                    self._label(f"{record.get('phase', run.phase)}/{name}"): float(value)
                    for name, value in record.items()
                    if name not in PLACES and isinstance(value, (int, float))
                }
                if values:
                    self._tracker.log(values, step=self._before + run.done)

    def _label(self, name: str) -> str:
        """Return a name of the letters that every tracker takes; no two names have one."""
        if name not in self._names:
            label = re.sub(r"[^\w\-./]+", " ", name).strip()
            while label in self._names.values():
                label += "_"
            self._names[name] = label
        return self._names[name]


def _finish(tracker: Any) -> None:
    with _accelerate_state():
        tracker.finish()


@contextmanager
def _accelerate_state() -> Iterator[bool]:
    """Yield whether this is the first process; trackers ask a state of Accelerate's, which is left as it was found.

    Raises:
        ValueError: In one of several processes that no accelerator knows of.
    """
    from accelerate import PartialState

    if PartialState._shared_state:
        yield bool(PartialState().is_main_process)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("expected an accelerate.Accelerator with a Tracker in several processes, but got none")
    PartialState(cpu=True)
    try:
        yield True
    finally:
        PartialState._reset_state()
