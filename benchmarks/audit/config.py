"""What an audit is asked to do, refused before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import with_random_labels
from unlearn_kit.data import DataBundle
from unlearn_kit.errors import check_count

from ..demo.config import DemoConfig
from ..setup.methods import Method


@dataclass(frozen=True)
class AuditConfig:
    """An audit of some methods on one request; None stands for the data set's own recipe.

    Attributes:
        study: The data, request, network, training, methods, seed and folder, as a demo has them.
        models: How many references, and as many originals, stand behind ``u_lira`` and ``klom``. At least 4.
        pairs: How many of them the audits of single models are run on, each beside a reference of its own; two of them
            make an interval.
        random_labels: Whether the samples to forget get wrong labels first, which only memorising can fit: a forget set
            on which an audit must detect that nothing was done. For requests of single samples.
        cache: The folder of trained models and margins (None: inside the study's folder).
        workers: How many processes train shadow models and run methods, each on one thread; 1 does it all in this one.

    Raises:
        ValueError: On an option that does not fit, by its name.
        TypeError: On an option of a wrong type, by its name.
    """

    study: DemoConfig
    models: int = 64
    pairs: int = 5
    random_labels: bool = False
    cache: Path | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        check_count("models", self.models, low=4)
        check_count("pairs", self.pairs)
        check_count("workers", self.workers)
        if 2 * self.pairs > self.models:
            raise ValueError(
                f"expected pairs to be at most half of models, since each needs two references, "
                f"but got {self.pairs} of {self.models}"
            )
        if self.study.recipe.kind != "classification":
            raise ValueError(
                f"expected data with class labels, whose margins shadow models are compared by, "
                f"but got {self.study.data!r}, which has masks"
            )
        if self.random_labels and not self.study.rule.text.startswith("random:"):
            raise ValueError(f"expected random_labels with forget='random:...', but got {self.study.rule.text!r}")

    @property
    def methods(self) -> list[Method]:
        """Return what is audited."""
        return self.study.chosen

    @property
    def folder(self) -> Path:
        """Return where results go."""
        return self.study.out if self.study.out is not None else Path("out") / f"audit-{self.study.data}"

    def task(self, bundle: DataBundle) -> UnlearnTask:
        """Return the request, with the samples to forget mislabelled where that is asked for."""
        task = self.study.rule.task(bundle, self.study.seed)
        if not self.random_labels or task.forget_indices is None:
            return task
        train = with_random_labels(bundle.train, task.forget_indices, bundle.num_classes, seed=self.study.seed)
        return UnlearnTask.forget_samples(train, bundle.test, task.forget_indices, num_classes=bundle.num_classes)
