"""The design of a shadow-model audit: which models are trained, on what, with which seeds, and kept.

For a fixed request, N oracles are trained on the retain data and N originals on retain and forget data; a method is
then applied to each original, with a seed of its own. Oracles and originals are shared by all methods: auditing one
more method costs its own N runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.checks import check_dataset
from ..data.tensors import TensorImages, load_tensors
from ..errors import check_count
from ..files import make_folder
from ..hashing import hash_code, hash_config, hash_dataset, hash_model
from ..metrics.shadow import Klom, ULira, klom, u_lira
from ..seeding import generator, standardized
from .ensemble_training import Stack, stack_of
from .ensembles import Ensemble
from .margins import TensorCache
from .steps import KINDS, AuditSteps, blocks, check_same
from .workers import Workers

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

SPLITS = ("forget", "retain", "held_out")


@dataclass(frozen=True)
class ShadowReport:
    """A method beside the oracles.

    Attributes:
        method: its name.
        u_lira: on the forget set.
        klom: by split: "forget", "retain", "held_out"; None where a split is empty.
        models: originals, and as many oracles.
        seconds: of the method's runs; 0 when they were found on disk.
    """

    method: str
    u_lira: ULira | None
    klom: dict[str, Klom | None]
    models: int
    seconds: float


@checked
class ShadowAudit:
    """Oracles, originals and what is made of them.

    Args:
        build: makes a network with fresh weights.
        task: what is forgotten and kept; held-out data are ``forget_test`` and ``retain_test`` together.
        models: N, at least 4.
        seed: all seeds of training and unlearning are derived from it, independent of one another.
        cache: a folder to keep margins and originals in; None keeps them while this object lives.
        workers: processes that share the work, each on one thread; 1 does it in this one, with its threads. At one
            thread figures are the same to the bit for any number, where ``mode`` is given: "auto" measures in each
            process. A script then needs ``if __name__ == "__main__":`` around what it does, and all that is sent
            (``build``, ``task``, the algorithm and its options) must be possible to pickle.
        keep: of how many originals, from the first, the revised models are kept beside the margins (:meth:`revised`).
        progress: called with what is done, how many, and of how many.
        **training: options of ``train_ensemble`` (epochs is required).

    Raises:
        ValueError: As ``train_ensemble``.
        TypeError: As ``train_ensemble``.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        task: UnlearnTask,
        *,
        models: int = 128,
        seed: int = 0,
        cache: str | Path | None = None,
        workers: int = 1,
        keep: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
        **training: Any,
    ) -> None:
        self.models = check_count("models", models, low=4)
        self.cache = TensorCache(None if cache is None else make_folder("cache", cache))
        self.workers, self.keep = check_count("workers", workers), min(check_count("keep", keep, low=0), models)
        self._steps, self._progress = AuditSteps(build, task, models, seed, training), progress or (lambda *_: None)
        self.splits = self._steps.splits
        self._held: dict[str, Ensemble] = {}
        self._open: Workers | None = None
        # How networks are trained decides what they are, not at which pace or where.
        recipe = {k: v if _plain(v) else repr(v) for k, v in training.items() if k not in ("mode", "chunk", "device")}
        self._key = hash_config(
            {
                "data": {name: hash_dataset(part) for name, part in self.splits.items() if len(part)},
                "network": hash_model(self._steps.template),
                "recipe": recipe,
                "seed": seed,
                "models": models,
                "code": hash_code("unlearn_kit"),
                "torch": torch.__version__,
            }
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the worker processes from one call to the next inside the block; else each call starts its own."""
        if self.workers == 1 or self._open is not None:
            yield
            return
        with Workers(self._steps, self.workers) as self._open:
            try:
                yield
            finally:
                self._open = None

    def oracles(self) -> dict[str, Tensor]:
        """Return margins ``(N, S)`` of the oracles by split."""
        return self.cache.get(self._name("oracles"), lambda: self._margins(self.references()))

    def references(self) -> Ensemble:
        """Return the oracles themselves, trained once."""
        return self._trained("oracle")

    def originals(self) -> Ensemble:
        """Return the originals, trained once."""
        return self._trained("original")

    def unlearning_seed(self, place: int) -> int:
        """Return the seed that a method is given with original ``place``."""
        return self._steps.unlearning_seed(place)

    @standardized
    def margins(
        self, algorithm: Callable[..., Any] | None, *, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], float]:
        """Return margins ``(N, S)`` by split of the originals after ``algorithm``, and the wall seconds its runs took.

        Args:
            algorithm: called as ``algorithm(model, task, seed=..., **options)``, returns a model or a result with
                ``.model``; None does nothing. Its own source and that of its package decide whether runs are repeated.
            options: of the algorithm; plain values that tell its runs apart.

        Raises:
            TypeError: On an algorithm that is no named function: what it does could not be told from its name, or one
                that cannot be sent to workers.
            RuntimeError: When a worker died; what the algorithm raises.
        """
        given, what, seconds = dict(options or {}), _named(algorithm), 0.0

        def run() -> dict[str, Tensor]:
            nonlocal seconds
            found, began = self.originals(), time.perf_counter()
            with self.working():
                if algorithm is not None:
                    revised = self._revise(algorithm, given, self.models)
                    if self.keep:
                        self.cache.get(self._name("revised", what, given, self.keep), lambda: self._kept(revised))
                    found = Ensemble.of(revised)
                margins = self._margins(found)
            seconds = time.perf_counter() - began
            return margins

        return self.cache.get(self._name("unlearned", what, given), run), seconds

    @standardized
    def revised(self, algorithm: Callable[..., Any], *, options: Mapping[str, Any] | None = None) -> Ensemble:
        """Return the first ``keep`` originals after ``algorithm``, as :meth:`margins` found them.

        Made now where it did not.

        Arguments and errors as there; ValueError when ``keep`` is 0, or the algorithm returns another architecture.
        """
        check_count("keep", self.keep)
        given, what = dict(options or {}), _named(algorithm)

        def run() -> Stack:
            with self.working():
                return self._kept(self._revise(algorithm, given, self.keep))

        return Ensemble(self._steps.template, self.cache.get(self._name("revised", what, given, self.keep), run))

    @standardized
    def audit(
        self, algorithm: Callable[..., Any] | None, *, options: Mapping[str, Any] | None = None, name: str | None = None
    ) -> ShadowReport:
        """Return ``u_lira`` and ``klom`` of ``algorithm`` against the oracles; None audits doing nothing."""
        with self.working():
            oracles = self.oracles()
            unlearned, seconds = self.margins(algorithm, options=options)
        label = name or ("do nothing" if algorithm is None else algorithm.__name__)
        return ShadowReport(
            label,
            u_lira(unlearned["forget"], oracles["forget"]),
            {split: klom(unlearned[split], oracles[split]) for split in SPLITS},
            self.models,
            seconds,
        )

    def _name(self, *what: Any) -> str:
        return hash_config([self._key, *what])

    def _each(self, step: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Return ``step(steps, *job)`` of every job, in order."""
        if self._open is not None:
            return self._open.each(step, jobs)
        return (step(self._steps, *job) for job in jobs)

    def _trained(self, kind: str) -> Ensemble:
        if kind not in self._held:
            made = self._train_both() if self.workers > 1 and not any(map(self._there, KINDS)) else {}
            for one in made or (kind,):
                compute = partial(made.__getitem__, one) if made else partial(self._train, one)
                self._held[one] = Ensemble(self._steps.template, self.cache.get(self._name(one), compute))
        return self._held[kind]

    def _there(self, kind: str) -> bool:
        path = self.cache.path(self._name(kind))
        return kind in self._held or (path is not None and path.exists())

    def _train(self, kind: str) -> Stack:
        return self._steps.train(kind, lambda done, of: self._progress(f"training {kind}s", done, of))

    def _train_both(self) -> dict[str, Stack]:
        """Return oracles and originals at the same time."""
        made: dict[str, Stack] = {}
        for kind in KINDS:
            self._progress(f"training {kind}s", 0, self.models)
        with self.working():
            for kind, stack in zip(KINDS, self._each(AuditSteps.train, [(kind,) for kind in KINDS]), strict=True):
                made[kind] = stack
                self._progress(f"training {kind}s", self.models, self.models)
        return made

    def _revise(self, algorithm: Callable[..., Any], given: Mapping[str, Any], count: int) -> list[nn.Module]:
        """Return the first ``count`` originals after ``algorithm``."""
        originals, revised = self.originals(), []
        jobs = ((algorithm, given, place, originals[place]) for place in range(count))
        for model in self._each(AuditSteps.revise, jobs):
            revised.append(model)
            self._progress("unlearning", len(revised), count)
        return revised

    def _kept(self, revised: Sequence[nn.Module]) -> Stack:
        template, first = self._steps.template, revised[: self.keep]
        for model in first:
            check_same(template, model)
        return stack_of(first)

    def _margins(self, ensemble: Ensemble) -> dict[str, Tensor]:
        with self.working():
            parts = list(self._each(AuditSteps.margins, ((block,) for block in blocks(ensemble))))
        return {name: torch.cat([part[name] for part in parts]) for name in self.splits}


def _named(algorithm: Callable[..., Any] | None) -> list[str] | None:
    """Return what an algorithm's runs are known by: its name, and the source of its package."""
    if algorithm is None:
        return None
    if "<" in getattr(algorithm, "__qualname__", "<"):
        raise TypeError(
            f"expected algorithm to be a function of a module, with its settings in options, but got {algorithm!r}"
        )
    package = hash_code(algorithm.__module__.split(".")[0])
    return [f"{algorithm.__module__}.{algorithm.__qualname__}", package]


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


@checked
def with_random_labels(
    dataset: Any, indices: Sequence[int] | Tensor, num_classes: int, *, seed: int = 0
) -> TensorImages:
    """Return a copy of a data set in which the labels at ``indices`` are wrong ones, drawn uniformly.

    What is learnt of such a sample can only be memorised: it makes a forget set on which an original and an oracle are
    sure to differ, to see whether an audit and a method work at all. Not a measurement of natural data.
    """
    check_count("num_classes", num_classes, low=2)
    check_dataset("dataset", dataset, kind="classification", empty=False)
    inputs, targets = load_tensors(dataset)
    chosen, changed = torch.as_tensor(indices), targets.clone()
    if chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise TypeError(f"expected indices to be integers, but got {chosen.dtype}")
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(targets):
        raise ValueError(f"expected indices in 0..{len(targets) - 1}, but got {int(chosen.min())}..{int(chosen.max())}")
    shift = torch.randint(1, num_classes, chosen.shape, generator=generator(seed, "random labels"))
    changed[chosen] = (targets[chosen] + shift) % num_classes
    return TensorImages(inputs, changed)
