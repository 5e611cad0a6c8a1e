"""Learning curves of forgetting, cheap enough to be had with every revision."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import Callback, Run
from unlearn_kit.metrics import accuracy, iou
from unlearn_kit.modules import evaluating
from unlearn_kit.seeding import derive, isolated


class Watch(Callback):
    """Score forget, retain and validation samples at a few points of a revision.

    The score is accuracy, or for masks the mean IoU. A method that trains several times in a row is watched through all
    of it, its steps counted on. ``seconds`` and ``cpu_seconds`` are what the watching itself took.

    Args:
        task: What is forgotten.
        points: About how many looks each training gets, beside one at its start.
        samples: At most that many of each kind.
        seed: Draws them.
    """

    def __init__(self, task: UnlearnTask, *, points: int = 8, samples: int = 256, seed: int = 0) -> None:
        self.parts = {
            "forget": random_subset(task.forget, samples, seed=derive(seed, "watch forget")),
            "retain": random_subset(task.retain, samples, seed=derive(seed, "watch retain")),
            "held_out": random_subset(task.retain_validation, samples, seed=derive(seed, "watch held out")),
        }
        self.score = iou if task.kind == "segmentation" else accuracy
        self.points, self.found = points, list[dict[str, Any]]()
        self.seconds = self.cpu_seconds = 0.0
        self._before = 0

    def on_start(self, run: Run) -> None:
        """Take the first look, once."""
        if not self.found:
            self._look(run)

    def on_step(self, run: Run) -> None:
        """Take a look where one is due."""
        if run.done == run.planned or run.done % max(1, run.planned // self.points) == 0:
            self._look(run)

    def on_end(self, run: Run) -> None:
        """Count on from here."""
        self._before += run.done

    def _look(self, run: Run) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        scores = self._scores(run.model, run.done)
        place = {"step": self._before + run.done, "planned": self._before + run.planned, "phase": run.phase}
        self.found.append({**place, **scores})
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu

    def _scores(self, model: nn.Module, step: int) -> dict[str, float | None]:
        # Metrics may draw random numbers: the run must not notice.
        with isolated(derive(0, "watch", step)), evaluating(model):
            return {name: None if len(part) == 0 else self.score(model, part) for name, part in self.parts.items()}
