"""What a demo writes beside its models: the figures and ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.data import load_tensors, subset
from unlearn_kit.evidence.software import versions
from unlearn_kit.judging import forget_score, retain_score
from unlearn_kit.memory import resident_peak
from unlearn_kit.metrics import Evaluation
from unlearn_kit.modules import device_of, evaluating
from unlearn_kit.outputs import predicted_labels
from unlearn_kit.plots import picture_strip, tradeoff_figure

if TYPE_CHECKING:
    from .config import DemoConfig
    from .run import DemoReport


def draw(report: DemoReport) -> None:
    """Write ``tradeoff.png``, and ``mix.png`` where there is a curve over ``mix``."""
    task = report.task
    score = "IoU" if task.kind == "segmentation" else "accuracy"
    where = "held-out images" if len(task.forget_test) else "training images"
    title = f"{report.config.data}: forgetting {task.rule}"
    spots = {row.name: spot for row in report.rows if (spot := _spot(row.scores)) is not None}
    stops = [(*spot, f"{point.retain_weight:g}") for point in report.curve if (spot := _spot(point.scores)) is not None]
    original, reference = spots.pop("original"), spots.pop("reference")
    figure = tradeoff_figure(
        spots,
        {"perturbed_sign over\nretain weight": stops} if stops else {},
        reference,
        original,
        xlabel=f"{score} on what is forgotten ({where})",
        ylabel=f"{score} on what is retained ({where})",
        title=title,
    )
    figure.savefig(report.config.folder / "tradeoff.png", dpi=200)
    if report.mix is None:
        return
    points, chosen = report.mix.points, report.mix.chosen
    picked = {} if chosen is None else {"chosen on validation data": (points[chosen].forget, points[chosen].test)}
    figure = tradeoff_figure(
        picked,
        {"perturbed_sign over mix": [(point.forget, point.test, f"{point.mix:g}") for point in points]},
        (report.mix.reference.forget, report.mix.reference.test),
        (report.mix.original.forget, report.mix.original.test),
        xlabel="accuracy on what is forgotten (training images)",
        ylabel="accuracy on held-out images",
        title=title,
    )
    figure.savefig(report.config.folder / "mix.png", dpi=200)


def draw_strip(config: DemoConfig, task: UnlearnTask, models: Mapping[str, nn.Module]) -> None:
    """Write ``strip.png``: forgotten images, their masks, and what each of ``models`` makes of them."""
    count = min(4, len(task.forget))
    x, y = load_tensors(subset(task.forget, range(count)))
    columns = [x, y.reshape(count, *y.shape[-2:]).long()]
    for model in models.values():
        with evaluating(model), torch.no_grad():
            columns.append(predicted_labels(model(x.to(device_of(model)))).cpu())
    # A preset and its options stand below the name, where a column is wide enough for them.
    titles = ["image", "mask", *(name.replace(":", "\n") for name in models)]
    rows = [[column[i] for column in columns] for i in range(count)]
    picture_strip(rows, titles).savefig(config.folder / "strip.png", dpi=150)


def _spot(scores: Evaluation | None) -> tuple[float, float] | None:
    if scores is None:
        return None
    forget, retain = forget_score(scores), retain_score(scores)
    return None if forget is None or retain is None else (forget, retain)


def record(report: DemoReport) -> dict[str, Any]:
    """Return everything the report holds, as plain values: None is "n/a"."""
    config, task = report.config, report.task
    given = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
    return {
        "command": "demo",
        "config": {
            **given,
            "methods": [method.text for method in config.chosen],
            "forget": config.rule.text,
            "model": config.network,
            **config.training,
        },
        "seeds": {"training": config.seed, "unlearning": config.seed, "evaluation": config.seed},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "task": {"kind": task.kind, "rule": task.rule, "num_classes": task.num_classes},
        "rows": [row.as_dict() for row in report.rows],
        "retain_weight_curve": [point.as_dict() for point in report.curve],
        "mix_curve": None if report.mix is None else report.mix.as_dict(),
        "notes": report.notes,
        "complete": report.complete,
        "seconds": report.seconds,
        "peak_memory_bytes": resident_peak(),
    }
