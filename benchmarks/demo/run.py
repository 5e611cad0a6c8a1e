"""The main job, end to end: an original, the reference, revisions, one table, one picture, models and figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

import algorithms
from unlearn_kit import UnlearnTask, save_model
from unlearn_kit.data import DataBundle, load
from unlearn_kit.engine import train
from unlearn_kit.files import write_json
from unlearn_kit.judging import beside_itself, nothing_to_forget, over_forgets
from unlearn_kit.metrics import Evaluation, evaluate
from unlearn_kit.seeding import isolated

from ..setup.methods import Attempt, Method, Status, attempt, watchers
from ..setup.recipes import Blueprint
from ..setup.scenarios import tell_duplicates
from .config import DemoConfig
from .curves import CurvePoint, MixCurve, mix_curve, retain_weight_curve
from .files import draw, draw_strip, record

CURVED = Method("perturbed_sign")


@dataclass(frozen=True)
class Row:
    """A line of the table. None is "n/a", and ``reason`` says why there are no scores.

    ``trainable`` is how many parameters an adapter trained, and how many the original has.
    """

    name: str
    scores: Evaluation | None = None
    seconds: float | None = None
    speed_up: float | None = None
    status: Status = "ok"
    reason: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history_length: int = 0
    model: str | None = None
    trainable: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; the reference's scores are not repeated in each row."""
        values = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "scores"}
        return {**values, "scores": None if self.scores is None else replace(self.scores, reference=None).as_dict()}


@dataclass(frozen=True)
class DemoReport:
    """What a demo found. ``complete`` is False when a method diverged, or one asked for by name refused."""

    config: DemoConfig
    task: UnlearnTask
    rows: list[Row]
    curve: list[CurvePoint]
    mix: MixCurve | None
    notes: list[str]
    complete: bool
    seconds: float


def run_demo(config: DemoConfig) -> DemoReport:
    """Train, revise, judge and write; see :class:`DemoConfig`.

    Raises:
        ValueError: When an option does not fit the data.
        TypeError: When an option does not fit the data.
        DataNotFoundError: When the data are not there.
        DivergenceError: When the original or the reference cannot be trained.
        OSError: When the folder cannot be written.
    """
    started = time.perf_counter()
    bundle = load(config.data, config.root, **config.data_options)
    task = config.rule.task(bundle, config.seed)
    for name in ("retain", "retain_test"):
        if len(getattr(task, name)) == 0:
            raise ValueError(f"expected forget={config.rule.text!r} to leave data in {name!r}, but it leaves none")
    tell_duplicates(task.duplicates())
    (config.folder / "models").mkdir(parents=True, exist_ok=True)

    network = Blueprint(config.network, bundle.num_classes, channels=bundle.train[0][0].shape[0])
    original, first = _original(config, bundle, network)
    reference = algorithms.retrain(
        original,
        task,
        build=network,
        seed=config.seed,
        device=config.device,
        callbacks=watchers(config.shown("reference")),
        objective=config.loss("retain"),
        **config.training,
    )
    theirs = evaluate(reference.model, task, seed=config.seed)
    first = replace(first, scores=evaluate(original, task, theirs, seed=config.seed))
    rows = [
        first,
        Row(
            "reference",
            beside_itself(theirs),
            reference.seconds,
            config=reference.config,
            history_length=len(reference.history),
            model=_save(config, "reference", reference.model),
        ),
    ]

    def run(method: Method, shown: str, **options: Any) -> Attempt:
        return attempt(
            method, original, task, seed=config.seed, device=config.device, show=config.shown(shown), **options
        )

    pictured = {"before": original}
    for method in config.chosen:
        found = run(method, method.text)
        rows.append(_row(config, method, found, task, theirs, reference.seconds))
        if found.result is not None and task.kind == "segmentation":
            pictured[method.text] = found.result.model
    if task.kind == "segmentation":
        draw_strip(config, task, pictured | {"reference": reference.model})
    curve: list[CurvePoint] = []
    mix = None
    if config.curves and CURVED in config.chosen:
        curve = retain_weight_curve(
            lambda value: run(CURVED, f"{CURVED.text}, retain_weight={value:g}", retain_weight=value),
            task,
            theirs,
            seed=config.seed,
        )
        if task.kind == "classification" and len(task.forget_test) == 0:
            mix = mix_curve(
                lambda value: run(CURVED, f"{CURVED.text}, mix={value:g}", mix=value),
                task,
                original,
                reference.model,
                seed=config.seed,
            )
    report = DemoReport(
        config,
        task,
        rows,
        curve,
        mix,
        _notes(rows, curve),
        complete=not any(r.status == "diverged" or (r.status == "n/a" and not config.everything) for r in rows),
        seconds=time.perf_counter() - started,
    )
    draw(report)
    write_json(record(report), config.folder / "results.json")
    return report


def _original(config: DemoConfig, bundle: DataBundle, network: Blueprint) -> tuple[nn.Module, Row]:
    with isolated(config.seed):
        fresh = network().to(config.device)
    callbacks = watchers(config.shown("original"))
    loss = config.loss("train")
    fitted = train(fresh, bundle.train, seed=config.seed, callbacks=callbacks, objective=loss, **config.training)
    model = fitted.model.eval()
    row = Row(
        "original",
        seconds=fitted.seconds,
        config={"build": str(network), **config.training, "seed": config.seed, "device": config.device},
        history_length=len(fitted.history),
        model=_save(config, "original", model),
    )
    return model, row


def _save(config: DemoConfig, name: str, model: nn.Module) -> str:
    path = Path("models") / f"{name.replace(':', '-')}.safetensors"
    save_model(model, config.folder / path)
    return path.as_posix()


def _row(
    config: DemoConfig, method: Method, found: Attempt, task: UnlearnTask, theirs: Evaluation, seconds: float
) -> Row:
    if found.result is None:
        return Row(method.text, status=found.status, reason=found.reason, config=method.options)
    result = found.result
    row = Row(
        method.text,
        seconds=result.seconds,
        speed_up=seconds / result.seconds if result.seconds > 0 else None,
        config=result.config,
        history_length=len(result.history),
        model=_save(config, method.text, result.model),
        trainable=result.details.get("trainable"),
    )
    try:
        return replace(row, scores=evaluate(result.model, task, theirs, seed=config.seed))
    except ValueError as error:  # finite weights whose outputs are not
        return replace(row, status="diverged", reason=str(error))


def _notes(rows: Sequence[Row], curve: Sequence[CurvePoint]) -> list[str]:
    original, reference, *others = rows
    notes = []
    if original.scores is None or reference.scores is None:
        raise ValueError("expected scores of the original and the reference, but got none")
    if nothing_to_forget(original.scores, reference.scores):
        notes.append(
            "nothing to forget here: the original and the retrained reference do the same on the forget set, so these "
            "figures do not rank methods (training for longer on fewer images makes a model memorise them)"
        )
    over = [row.name for row in others if row.scores is not None and over_forgets(row.scores, reference.scores)]
    if over:
        notes.append(
            f"over-forgetting: {', '.join(over)}: clearly worse on the forget data than a model that never saw them, "
            "which marks them"
        )
    adapted = [(row.name, row.trainable) for row in others if row.trainable is not None]
    notes += [f"{name}: trained {n:,} parameters, {n / of:.1%} of the model's {of:,}" for name, (n, of) in adapted]
    notes += [f"{row.name}: {row.status}: {row.reason}" for row in others if row.reason is not None]
    failed = [point for point in curve if point.reason is not None]
    return notes + [f"{CURVED.text}, retain_weight={point.retain_weight:g}: {point.reason}" for point in failed]
