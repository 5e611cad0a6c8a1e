"""An audit, end to end: shadow models, the methods on each, single-model audits on some, a verdict for each claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.utils.data import Subset

import algorithms
from unlearn_kit import DivergenceError, UnlearnTask
from unlearn_kit.audits import ShadowAudit, ShadowReport, train_ensemble
from unlearn_kit.data import load
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import write_json
from unlearn_kit.metrics import summary
from unlearn_kit.seeding import derive

from ..setup.methods import Method
from ..setup.recipes import Blueprint
from ..suites.progress import in_words
from .config import AuditConfig
from .figures import FEW, FIGURES, Ideal, Pair, figures
from .verdicts import Values, klom_verdict, paired_verdict, u_lira_verdict

NOTHING, REFERENCE = "do nothing", "reference"
Progress = Callable[[str, int, int], None]
Figures = Mapping[str, list[float | None]]


@dataclass(frozen=True)
class Audited:
    """What was found of one method.

    Attributes:
        name: The method with its options.
        shadow: The figures of the shadow models.
        pairs: Each figure of each pair; None is "n/a".
        verdicts: What is said of each claim.
        reason: Why there are no figures.
    """

    name: str
    shadow: ShadowReport | None = None
    pairs: Figures | None = None
    verdicts: Mapping[str, str] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        config: What was asked.
        task: The request.
        nothing: The original, to which nothing was done.
        reference: A second reference beside the first.
        methods: Each method that was audited.
        seconds: How long it took.
    """

    config: AuditConfig
    task: UnlearnTask
    nothing: Audited
    reference: Audited
    methods: list[Audited]
    seconds: float


@dataclass(frozen=True)
class AuditEstimate:
    """Seconds that an audit will take.

    Attributes:
        training: Of one process that trains all shadow models.
        runs: Of one run of each method; None where it is unknown.
        models: How many models there are on each side.
        workers: How many processes share the work.
    """

    training: float
    runs: Mapping[str, float | None]
    models: int
    workers: int = 1

    @property
    def text(self) -> str:
        """Say it in words.

        Workers share the runs one by one, and the trainings in two pieces: references and originals.
        """
        training, at_once = self.training / min(2, self.workers), min(self.models, self.workers)
        known = {name: seconds * self.models / at_once for name, seconds in self.runs.items() if seconds is not None}
        parts = [f"{2 * self.models} trainings {in_words(training)}"]
        parts += [f"{self.models} x {name} {in_words(seconds)}" for name, seconds in known.items()]
        parts += [f"{name} unknown" for name in self.runs if name not in known]
        return f"about {in_words(training + sum(known.values()))}: {', '.join(parts)}; what was kept costs nothing"


class AuditStudy:
    """The data, the request and the shadow models of an audit; nothing is trained before it is asked for.

    Raises:
        ValueError: On a request that does not fit the data.
        TypeError: On an option of a wrong type.
        DataNotFoundError: When the data are not there.
    """

    def __init__(self, config: AuditConfig, progress: Progress | None = None) -> None:
        self.config = config
        study = config.study
        bundle = load(study.data, study.root, **study.data_options)
        self.task = config.task(bundle)
        if len(self.task.forget) == 0 or len(self.task.retain) == 0:
            raise ValueError(f"expected forget={study.rule.text!r} to leave data on both sides, but one is empty")
        self.network = Blueprint(study.network, bundle.num_classes, channels=bundle.train[0][0].shape[0])
        self.progress: Progress = progress or _silent
        self.shadow = ShadowAudit(
            self.network,
            self.task,
            models=config.models,
            seed=study.seed,
            cache=config.cache if config.cache is not None else config.folder / "cache",
            workers=config.workers,
            keep=config.pairs,
            progress=self.progress,
            device=study.device,
            **study.training,
        )

    def estimate(self) -> AuditEstimate:
        """Time a few steps of training and one run of each method, on networks that are thrown away."""
        training, sizes = (
            self.config.study.training,
            (len(self.task.forget) + len(self.task.retain), len(self.task.retain)),
        )
        size, count = training["batch_size"], min(self.config.models, 64)
        few = Subset(self.task.retain, range(min(len(self.task.retain), 4 * size)))
        began = time.perf_counter()
        trial = train_ensemble(
            self.network,
            few,
            [range(len(few))] * count,
            seeds=range(count),
            device=self.config.study.device,
            **{**training, "epochs": 1},
        )
        step = (time.perf_counter() - began) / count / -(-len(few) // size)
        steps = sum(-(-n // size) * training["epochs"] for n in sizes)
        runs = {method.text: self._trial(method, trial[0]) for method in self.config.methods}
        return AuditEstimate(step * steps * self.config.models, runs, self.config.models, self.config.workers)

    def _trial(self, method: Method, model: nn.Module) -> float | None:
        began = time.perf_counter()
        try:
            getattr(algorithms, method.name)(model, self.task, seed=0, **self._options(method))
        except (ValueError, TypeError, DivergenceError):  # an untrained network may be beyond a method
            return None
        return time.perf_counter() - began

    def run(self) -> AuditReport:
        """Audit doing nothing, a second reference and every method; write ``audit.json``.

        A method that refuses the request or diverges is reported with its reason, and the others go on.
        """
        began = time.perf_counter()
        with self.shadow.working():
            ideals, count = self._ideals(), self.config.pairs
            originals, oracles = self.shadow.originals(), self.shadow.references()
            second = self._pairs(REFERENCE, [oracles[count + place] for place in range(count)], ideals)
            reference = Audited(REFERENCE, pairs=second, verdicts={})
            shadow = self.shadow.audit(None, name=NOTHING)
            pairs = self._pairs(NOTHING, [originals[place] for place in range(count)], ideals)
            plain = Audited(NOTHING, shadow, pairs, _verdicts(shadow, pairs, shadow, pairs, second))
            found = [self._audited(method, ideals, shadow, pairs, second) for method in self.config.methods]
        report = AuditReport(self.config, self.task, plain, reference, found, time.perf_counter() - began)
        self.config.folder.mkdir(parents=True, exist_ok=True)
        write_json(as_json(report), self.config.folder / "audit.json")
        return report

    def _options(self, method: Method) -> dict[str, Any]:
        return {**method.options, "device": self.config.study.device}

    def _ideals(self) -> list[Ideal]:
        """Judge the reference of each pair: reference k beside original k."""
        originals, oracles, count = self.shadow.originals(), self.shadow.references(), self.config.pairs
        ideals = []
        for place in range(count):
            # Attacks learn from neither the reference of the pair nor the second, which is judged beside it.
            others = [other for other in range(self.config.models) if other not in (place, count + place)]
            further = [oracles[other] for other in others[-FEW:]]
            seed = self._evaluation_seed(place)
            ideals.append(Ideal.of(oracles[place], originals[place], self.task, seed, further))
        return ideals

    def _evaluation_seed(self, place: int) -> int:
        return derive(self.config.study.seed, "evaluation", place)

    def _pairs(self, name: str, models: Iterable[nn.Module], ideals: Sequence[Ideal]) -> Figures:
        """Measure every figure over the pairs: model k, made from original k, beside reference k."""
        originals, found = self.shadow.originals(), []
        for place, (model, ideal) in enumerate(zip(models, ideals, strict=True)):
            found.append(figures(Pair(model, ideal, originals[place], self.task, self._evaluation_seed(place))))
            self.progress(f"auditing pairs, {name}", place + 1, len(ideals))
        return {figure.key: [one[figure.key] for one in found] for figure in FIGURES}

    def _audited(
        self, method: Method, ideals: Sequence[Ideal], plain: ShadowReport, nothing: Figures, second: Figures
    ) -> Audited:
        try:
            algorithm, options = getattr(algorithms, method.name), self._options(method)
            shadow = self.shadow.audit(algorithm, options=options, name=method.text)
            # The same runs, of which the audit keeps the first.
            pairs = self._pairs(method.text, self.shadow.revised(algorithm, options=options).models(), ideals)
        except (ValueError, TypeError, DivergenceError) as error:
            return Audited(method.text, reason=f"{type(error).__name__}: {error}")
        return Audited(method.text, shadow, pairs, _verdicts(shadow, pairs, plain, nothing, second))


def _verdicts(
    shadow: ShadowReport, pairs: Figures, plain: ShadowReport, nothing: Figures, second: Figures
) -> dict[str, str]:
    """Judge each claim about a method, given what doing nothing (``plain``, ``nothing``) and a second reference do."""
    return {
        "u_lira": u_lira_verdict(shadow.u_lira, plain.u_lira),
        **{f"klom_{split}": klom_verdict(found) for split, found in shadow.klom.items()},
        **{f.key: paired_verdict(pairs[f.key], second[f.key], nothing[f.key]) for f in FIGURES},
    }


def _silent(_what: str, _done: int, _of: int) -> None:
    """Show no progress."""


def as_json(report: AuditReport) -> dict[str, Any]:
    """Return everything as plain values; every figure with its mean, the half-width of its 95 % t interval, and n."""
    study, config = report.config.study, report.config

    def row(audited: Audited) -> dict[str, Any]:
        pairs = audited.pairs or {}
        return {
            "name": audited.name,
            "reason": audited.reason,
            "shadow": None if audited.shadow is None else _shadow(audited.shadow),
            "figures": {key: {"values": values, **_summary(values)} for key, values in pairs.items()},
            "verdicts": dict(audited.verdicts or {}),
        }

    return {
        "command": "audit",
        "data": study.data,
        "forget": study.rule.text,
        "random_labels": config.random_labels,
        "model": study.network,
        "training": study.training,
        "seed": study.seed,
        "models": config.models,
        "pairs": config.pairs,
        "sizes": {name: len(getattr(report.task, name)) for name in ("forget", "retain", "forget_test", "retain_test")},
        "versions": versions(),
        "rows": [asdict(entry) for entry in FIGURES],
        "audited": [row(report.nothing), row(report.reference), *(row(method) for method in report.methods)],
        "seconds": report.seconds,
    }


def _summary(values: Values) -> dict[str, Any]:
    found = summary([value for value in values if value is not None])
    if found is None:
        return {"mean": None, "half_width": None, "n": 0}
    return {"mean": found.mean, "half_width": found.half_width, "n": found.n}


def _shadow(report: ShadowReport) -> dict[str, Any]:
    per_example = ("per_example", "floor_per_example")

    def plain(value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        return {key: item for key, item in vars(value).items() if key not in per_example}

    return {
        "models": report.models,
        "seconds": report.seconds,
        "u_lira": plain(report.u_lira),
        "klom": {split: plain(found) for split, found in report.klom.items()},
    }
