"""The main job, end to end: an original, the reference, revisions, one table, one picture, models and figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import algorithms
from unlearn_kit import UnlearnTask, save_model
from unlearn_kit.data import load
from unlearn_kit.engine import train
from unlearn_kit.errors import check_choice, check_count
from unlearn_kit.metrics import Evaluation, average_gap, evaluate, tug_of_war
from unlearn_kit.plots import tradeoff_figure
from unlearn_kit.seeding import isolated

from .attempts import METHODS, Attempt, Method, Status, attempt, watchers
from .judging import forget_score, nothing_to_forget, over_forgets, retain_score
from .mixing import MixCurve, mix_curve
from .recipes import RECIPES, Blueprint, ForgetRule, Recipe
from .records import peak_memory, versions, write_json

RETAIN_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class DemoConfig:
    """What a demo does; None stands for the data set's own recipe.

    Attributes:
        data: a name of :data:`.recipes.RECIPES`.
        out: the folder that is written (None: ``out/demo-DATA``).
        seed: of everything.
        forget: a rule, see :class:`.recipes.ForgetRule`.
        train_size: training images to keep.
        model, epochs: of the original and the reference.
        methods: names, or ``name:preset``; ``everything`` is all of them.
        curves: whether the tradeoff curves of ``perturbed_sign`` are run.
        device: where models are trained.
        root, download: where the data are, and whether they may be fetched.
        progress: whether progress bars are shown on standard error.

    Raises: ValueError, TypeError naming the option.
    """

    data: str = "digits"
    out: Path | None = None
    seed: int = 0
    forget: str | None = None
    train_size: int | None = None
    model: str | None = None
    epochs: int | None = None
    methods: tuple[str, ...] | None = None
    everything: bool = False
    curves: bool = True
    device: str = "cpu"
    root: Path | None = None
    download: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        check_choice("data", self.data, RECIPES)
        check_count("seed", self.seed, low=0)
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        if self.everything and self.methods is not None:
            raise ValueError(f"expected either all methods or named ones, but got both: {list(self.methods)}")
        if len(set(self.chosen)) < len(self.chosen):
            raise ValueError(f"expected methods to differ, but got {[method.text for method in self.chosen]}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"expected device to be one of this machine's, but got {self.device!r}") from error
        _ = self.rule

    @property
    def recipe(self) -> Recipe:
        """The row of the data set."""
        return RECIPES[self.data]

    @property
    def chosen(self) -> list[Method]:
        """The methods to run."""
        named = self.methods if self.methods is not None else self.recipe.methods
        return [Method(text) for text in (METHODS if self.everything else named)]

    @property
    def rule(self) -> ForgetRule:
        """What is forgotten."""
        return ForgetRule(self.forget if self.forget is not None else self.recipe.forget)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out if self.out is not None else Path("out") / f"demo-{self.data}"


@dataclass(frozen=True)
class Row:
    """A line of the table. None is "n/a", and ``reason`` says why there are no scores."""

    name: str
    scores: Evaluation | None = None
    seconds: float | None = None
    speed_up: float | None = None
    status: Status = "ok"
    reason: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history_length: int = 0
    model: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values; the reference's scores are not repeated in each row."""
        values = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "scores"}
        scores = None if self.scores is None else self.scores.as_dict()
        if scores is not None:
            del scores["reference"]
        return {**values, "scores": scores}


@dataclass(frozen=True)
class DemoReport:
    """What a demo found. ``complete`` is False when a method diverged, or one asked for by name refused."""

    config: DemoConfig
    rule: str
    rows: list[Row]
    curve: list[dict[str, Any]]
    mix: MixCurve | None
    notes: list[str]
    complete: bool
    seconds: float
    folder: Path


def run_demo(config: DemoConfig) -> DemoReport:
    """Train, revise, judge and write; see :class:`DemoConfig`.

    Raises: ValueError, TypeError on options that do not fit the data; DataNotFoundError; DivergenceError when the
    original or the reference cannot be trained; OSError when the folder cannot be written.
    """
    started = time.perf_counter()
    options: dict[str, Any] = {} if config.train_size is None else {"train_size": config.train_size}
    if config.download:
        options["download"] = True
    bundle = load(config.data, config.root, **options)
    task = config.rule.task(bundle, config.seed)
    for name in ("retain", "retain_test"):
        if len(getattr(task, name)) == 0:
            raise ValueError(f"expected something to {name.replace('_', ' ')} beside the forget data, but got nothing")
    (config.folder / "models").mkdir(parents=True, exist_ok=True)

    original, seconds = _original(config, bundle)
    recipe = _training(config)
    network = _network(config, bundle)
    reference = algorithms.retrain(
        original,
        task,
        build=network,
        seed=config.seed,
        device=config.device,
        callbacks=_bar(config, "reference"),
        **recipe,
    )
    theirs = evaluate(reference.model, task, seed=config.seed)
    mine = evaluate(original, task, theirs, seed=config.seed)
    rows = [
        Row("original", mine, seconds, config=recipe, model=_save(config, "original", original)),
        Row(
            "reference",
            _beside_itself(theirs),
            reference.seconds,
            config=reference.config,
            history_length=len(reference.history),
            model=_save(config, "reference", reference.model),
        ),
    ]
    for method in config.chosen:
        found = attempt(
            method, original, task, seed=config.seed, device=config.device, show=_shown(config, method.text)
        )
        rows.append(_row(config, method, found, task, theirs, reference.seconds))

    curve, mix = _curves(config, original, reference.model, task, theirs)
    report = DemoReport(
        config=config,
        rule=task.rule,
        rows=rows,
        curve=curve,
        mix=mix,
        notes=_notes(config, mine, theirs, rows),
        complete=not any(r.status == "diverged" or (r.status == "n/a" and not config.everything) for r in rows),
        seconds=time.perf_counter() - started,
        folder=config.folder,
    )
    _draw(report, task)
    write_json(_record(report, task), config.folder / "results.json")
    return report


def _training(config: DemoConfig) -> dict[str, Any]:
    recipe = config.recipe
    epochs = config.epochs if config.epochs is not None else recipe.epochs
    return {"epochs": epochs, "batch_size": recipe.batch_size, "lr": recipe.lr}


def _network(config: DemoConfig, bundle: Any) -> Blueprint:
    channels = bundle.train[0][0].shape[0]
    return Blueprint(config.model or config.recipe.model, bundle.num_classes, channels)


def _original(config: DemoConfig, bundle: Any) -> tuple[nn.Module, float]:
    with isolated(config.seed):
        fresh = _network(config, bundle)().to(config.device)
    fitted = train(fresh, bundle.train, seed=config.seed, callbacks=_bar(config, "original"), **_training(config))
    return fitted.model.eval(), fitted.seconds


def _shown(config: DemoConfig, text: str) -> str | None:
    return text if config.progress else None


def _bar(config: DemoConfig, text: str) -> Sequence[Any]:
    return watchers(_shown(config, text))


def _save(config: DemoConfig, name: str, model: nn.Module) -> str:
    path = Path("models") / f"{name.replace(':', '-')}.safetensors"
    save_model(model, config.folder / path)
    return path.as_posix()


def _beside_itself(scores: Evaluation) -> Evaluation:
    """The reference's scores with its distances to itself filled in: 0 and 1, where they are defined."""
    values = {
        "forget": scores.forget,
        "retain": scores.retain,
        "test": scores.retain_test,
        "membership": scores.membership,
    }
    from dataclasses import replace

    return replace(scores, average_gap=average_gap(values, values), tug_of_war=tug_of_war(values, values))


def _row(
    config: DemoConfig, method: Method, found: Attempt, task: UnlearnTask, theirs: Evaluation, seconds: float
) -> Row:
    if found.result is None:
        return Row(method.text, status=found.status, reason=found.reason, config=method.options)
    result = found.result
    return Row(
        method.text,
        evaluate(result.model, task, theirs, seed=config.seed),
        result.seconds,
        seconds / result.seconds if result.seconds > 0 else None,
        config=result.config,
        history_length=len(result.history),
        model=_save(config, method.text, result.model),
    )


def _curves(
    config: DemoConfig, original: nn.Module, reference: nn.Module, task: UnlearnTask, theirs: Evaluation
) -> tuple[list[dict[str, Any]], MixCurve | None]:
    method = Method("perturbed_sign")
    if not config.curves or method not in config.chosen:
        return [], None

    def run(**options: float) -> Attempt:
        (name, value), *_ = options.items()
        show = _shown(config, f"perturbed_sign, {name}={value:g}")
        return attempt(method, original, task, seed=config.seed, device=config.device, show=show, **options)

    curve = []
    for weight in RETAIN_WEIGHTS:
        result = run(retain_weight=weight).result
        if result is not None:
            scores = evaluate(result.model, task, theirs, seed=config.seed).as_dict()
            del scores["reference"]
            curve.append({"retain_weight": weight, "seconds": result.seconds, "scores": scores})
    single_samples = task.kind == "classification" and len(task.forget_test) == 0
    mix = None
    if single_samples:
        mix = mix_curve(lambda mix: run(mix=mix), task, original, reference, seed=config.seed)
    return curve, mix


def _notes(config: DemoConfig, mine: Evaluation, theirs: Evaluation, rows: Sequence[Row]) -> list[str]:
    notes = []
    if nothing_to_forget(mine, theirs):
        notes.append(
            "nothing to forget here: the original and the retrained reference do the same on the forget set, so these "
            "figures do not rank methods. Training on fewer images for longer makes a model memorise"
        )
    over = [row.name for row in rows[2:] if row.scores is not None and over_forgets(row.scores, theirs)]
    if over:
        notes.append(
            f"over-forgetting: {', '.join(over)}: clearly worse on the forget data than a model that never saw them, "
            "which marks them"
        )
    notes += [f"{row.name}: {row.status}: {row.reason}" for row in rows if row.reason is not None]
    return notes


def _draw(report: DemoReport, task: UnlearnTask) -> None:
    score = "IoU" if task.kind == "segmentation" else "accuracy"
    where = "held-out images" if len(task.forget_test) else "training images"
    points = {
        row.name: (forget, retain)
        for row in report.rows
        if row.scores is not None
        and (forget := forget_score(row.scores)) is not None
        and (retain := retain_score(row.scores)) is not None
    }
    names = ("forget_test", "retain_test") if len(task.forget_test) else ("forget", "retain")
    stops = [
        (stop["scores"][names[0]], stop["scores"][names[1]], f"{stop['retain_weight']:g}") for stop in report.curve
    ]
    title = f"{report.config.data}: forgetting {report.rule}"
    original, reference = points.pop("original"), points.pop("reference")
    figure = tradeoff_figure(
        points,
        {"perturbed_sign over\nretain weight": stops} if stops else {},
        reference,
        original,
        xlabel=f"{score} on what is forgotten ({where})",
        ylabel=f"{score} on what is retained ({where})",
        title=title,
    )
    figure.savefig(report.folder / "tradeoff.png", dpi=200)
    if report.mix is not None:
        mix = report.mix
        chosen = {} if mix.chosen is None else {
            "chosen on validation data": (mix.points[mix.chosen].forget, mix.points[mix.chosen].test)
        }  # fmt: skip
        figure = tradeoff_figure(
            chosen,
            {"perturbed_sign over mix": [(p.forget, p.test, f"{p.mix:g}") for p in mix.points]},
            (mix.reference.forget, mix.reference.test),
            (mix.original.forget, mix.original.test),
            xlabel="accuracy on what is forgotten (training images)",
            ylabel="accuracy on held-out images",
            title=title,
        )
        figure.savefig(report.folder / "mix.png", dpi=200)


def _record(report: DemoReport, task: UnlearnTask) -> dict[str, Any]:
    config = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(report.config).items()}
    recipe = {**asdict(report.config.recipe), **_training(report.config), "forget": report.config.rule.text}
    recipe["model"] = report.config.model or recipe["model"]
    return {
        "command": "demo",
        "config": {**config, "methods": [method.text for method in report.config.chosen]},
        "recipe": recipe,
        "seeds": {"training": report.config.seed, "unlearning": report.config.seed, "evaluation": report.config.seed},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "task": {"kind": task.kind, "rule": task.rule, "num_classes": task.num_classes},
        "rows": [row.as_dict() for row in report.rows],
        "retain_weight_curve": report.curve,
        "mix_curve": None if report.mix is None else report.mix.as_dict(),
        "notes": report.notes,
        "complete": report.complete,
        "seconds": report.seconds,
        "peak_memory_bytes": peak_memory(),
    }
