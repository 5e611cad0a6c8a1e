"""The design of a shadow-model audit: which models are trained, on what, with which seeds, and kept.

For a fixed request, N oracles are trained on the retain data and N originals on retain and forget data; a method is
then applied to each original, with a seed of its own. Oracles and originals are shared by all methods: auditing one
more method costs its own N runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, TensorDataset

from ..adapters import plain
from ..data.tensors import TensorImages, load_tensors
from ..errors import check_count
from ..hashing import hash_code, hash_config, hash_dataset, hash_model
from ..seeding import derive, generator, isolated
from .ensembles import Ensemble, train_ensemble
from .margins import TensorCache, ensemble_margins
from .shadow import Klom, ULira, klom, u_lira

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


class ShadowAudit:
    """Oracles, originals and what is made of them.

    Args:
        build: makes a network with fresh weights.
        task: what is forgotten and kept; held-out data are ``forget_test`` and ``retain_test`` together.
        models: N, at least 4.
        seed: all seeds of training and unlearning are derived from it, independent of one another.
        cache: a folder to keep margins and originals in; None keeps them while this object lives.
        progress: called with what is done, how many, and of how many.
        **training: options of ``train_ensemble`` (epochs is required).

    Raises: ValueError, TypeError as ``train_ensemble``.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        task: UnlearnTask,
        *,
        models: int = 128,
        seed: int = 0,
        cache: str | Path | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        **training: Any,
    ) -> None:
        self.build, self.task, self.seed, self.training = build, task, seed, training
        self.models, self.cache = check_count("models", models, low=4), TensorCache(cache)
        self._progress = progress or (lambda *_: None)
        self._held: dict[str, Ensemble] = {}
        tests = [part for part in (task.forget_test, task.retain_test) if len(part)]
        self.splits = {"forget": task.forget, "retain": task.retain, "held_out": ConcatDataset(tests) if tests else []}
        with isolated(0):
            self.splits = {name: TensorDataset(*load_tensors(d)) if len(d) else [] for name, d in self.splits.items()}
        with isolated(derive(seed, "template")):
            self._template = build()
        # How networks are trained decides what they are, not at which pace or where.
        recipe = {k: v if _plain(v) else repr(v) for k, v in training.items() if k not in ("mode", "chunk", "device")}
        self._key = hash_config(
            {
                "data": {name: hash_dataset(part) for name, part in self.splits.items() if len(part)},
                "network": hash_model(self._template),
                "recipe": recipe,
                "seed": seed,
                "models": models,
                "code": hash_code("unlearn_kit"),
                "torch": torch.__version__,
            }
        )

    def oracles(self) -> dict[str, Tensor]:
        """Margins ``(N, S)`` of the oracles by split."""
        return self.cache.get(self._name("oracles"), lambda: self._margins(self.references()))

    def references(self) -> Ensemble:
        """The oracles themselves, trained once."""
        return self._trained("oracle")

    def originals(self) -> Ensemble:
        """The originals, trained once."""
        return self._trained("original")

    def unlearning_seed(self, place: int) -> int:
        """The seed that a method is given with original ``place``."""
        return derive(self.seed, "unlearning", place)

    def _trained(self, kind: str) -> Ensemble:
        if kind not in self._held:
            stack = self.cache.get(self._name(kind), lambda: self._train(kind).stack)
            self._held[kind] = Ensemble(self._template.eval(), stack)
        return self._held[kind]

    def margins(
        self, algorithm: Callable[..., Any] | None, *, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], float]:
        """Margins ``(N, S)`` by split of the originals after ``algorithm``, and the seconds its runs took.

        Args:
            algorithm: called as ``algorithm(model, task, seed=..., **options)``, returns a model or a result with
                ``.model``; None does nothing. Its own source and that of its package decide whether runs are repeated.
            options: of the algorithm; plain values that tell its runs apart.

        Raises: TypeError on an algorithm that is no named function: what it does could not be told from its name.
        """
        if algorithm is not None and "<" in getattr(algorithm, "__qualname__", "<"):
            raise TypeError(
                f"expected algorithm to be a function of a module, with its settings in options, but got {algorithm!r}"
            )
        given, began = dict(options or {}), time.perf_counter()
        misses = self.cache.misses

        def run() -> dict[str, Tensor]:
            originals = self.originals()
            if algorithm is None:
                return self._margins(originals)
            revised = []
            for place, original in enumerate(originals.models()):
                found = algorithm(original, self.task, seed=self.unlearning_seed(place), **given)
                revised.append(plain(getattr(found, "model", found)))
                self._progress("unlearning", place + 1, self.models)
            return self._margins(Ensemble.of(revised))

        package = "" if algorithm is None else hash_code(algorithm.__module__.split(".")[0])
        what = None if algorithm is None else f"{algorithm.__module__}.{algorithm.__qualname__}"
        found = self.cache.get(self._name("unlearned", what, given, package), run)
        return found, time.perf_counter() - began if self.cache.misses > misses else 0.0

    def audit(
        self, algorithm: Callable[..., Any] | None, *, options: Mapping[str, Any] | None = None, name: str | None = None
    ) -> ShadowReport:
        """``u_lira`` and ``klom`` of ``algorithm`` against the oracles; None audits doing nothing."""
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

    def _train(self, kind: str) -> Ensemble:
        retain, forget = self.splits["retain"], self.splits["forget"]
        parts = [retain] if kind == "oracle" else [retain, forget]
        inputs, targets = (torch.cat(tensors) for tensors in zip(*(p.tensors for p in parts), strict=True))
        return train_ensemble(
            self.build,
            TensorImages(inputs, targets),
            [torch.arange(len(inputs))] * self.models,
            seeds=[derive(self.seed, kind, place) for place in range(self.models)],
            progress=lambda done, of: self._progress(f"training {kind}s", done, of),
            **self.training,
        )

    def _margins(self, ensemble: Ensemble) -> dict[str, Tensor]:
        return {name: ensemble_margins(ensemble, data) for name, data in self.splits.items()}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def with_random_labels(dataset: Any, indices: Any, num_classes: int, *, seed: int = 0) -> TensorImages:
    """A copy of a data set in which the labels at ``indices`` are wrong ones, drawn uniformly.

    What is learnt of such a sample can only be memorised: it makes a forget set on which an original and an oracle are
    sure to differ, to see whether an audit and a method work at all. Not a measurement of natural data.
    """
    check_count("num_classes", num_classes, low=2)
    inputs, targets = load_tensors(dataset)
    chosen, changed = torch.as_tensor(indices), targets.clone()
    shift = torch.randint(1, num_classes, chosen.shape, generator=generator(seed, "random labels"))
    changed[chosen] = (targets[chosen] + shift) % num_classes
    return TensorImages(inputs, changed)
