"""The figures of one model: every audit that needs no more than it, a reference and the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from unlearn_kit import UnlearnTask, audits, metrics
from unlearn_kit.audits import RelearnReport
from unlearn_kit.metrics import Evaluation

ON: tuple[Literal["forget", "retain"], ...] = ("forget", "retain")  # what is relearned from
CUT = 200  # steps after which relearning is given up


@dataclass(frozen=True)
class Ideal:
    """A reference and what it scores: judged once, however many models are set beside it.

    Attributes:
        model: The reference.
        scores: Its evaluation.
        relearning: How fast it learns the forget data again, by what it learns them from.
    """

    model: nn.Module
    scores: Evaluation
    relearning: Mapping[str, RelearnReport | None]

    @classmethod
    def of(cls, reference: nn.Module, original: nn.Module, task: UnlearnTask, seed: int) -> Ideal:
        """Judge ``reference``; the original says which forget score relearning has to reach."""
        relearn = partial(audits.relearn_time, reference, task, original=original, max_steps=CUT, seed=seed)
        return cls(reference, metrics.evaluate(reference, task, seed=seed), {on: relearn(on=on) for on in ON})


@dataclass(frozen=True)
class Pair:
    """A model to judge beside a reference, made from the same request."""

    model: nn.Module
    ideal: Ideal
    original: nn.Module
    task: UnlearnTask
    seed: int


@dataclass(frozen=True)
class AuditFigure:
    """A figure of an audit.

    Attributes:
        key: Its name among the values of :func:`figures`.
        title: Its heading.
        group: The part of the table that it stands in.
        ideal: Which value is ideal, in words.
        form: How a value is written.
    """

    key: str
    title: str
    group: str
    ideal: str = "the reference's"
    form: str = "{:.3f}"


FIGURES = (
    AuditFigure("forget", "forget score, training data", "quality"),
    AuditFigure("forget_test", "forget score, held-out data", "quality"),
    AuditFigure("retain", "retain score, training data", "quality"),
    AuditFigure("retain_test", "retain score, held-out data", "quality"),
    AuditFigure("average_gap", "average gap", "quality", "two references'"),
    AuditFigure("tug_of_war", "tug of war", "quality", "two references'"),
    AuditFigure("tug_of_war_mia", "tug of war, membership", "quality", "two references'"),
    AuditFigure("loss_auc", "membership by loss, AUC", "membership"),
    AuditFigure("member_share", "membership attack, share called members", "membership"),
    AuditFigure("member_auc", "membership attack, AUC", "membership"),
    AuditFigure("member_tpr", "membership attack, TPR at 1 % FPR", "membership"),
    AuditFigure("svc_auc", "membership attack by SVC, AUC", "membership"),
    AuditFigure("leak_auc", "class leakage, AUC", "membership"),
    AuditFigure("leak_js", "class leakage, JS to the reference", "membership", "two references'"),
    AuditFigure("probe", "linear probe, forget score", "what is left"),
    AuditFigure("relearn", f"relearning from forget data, steps (cut at {CUT})", "what is left", form="{:.0f}"),
    AuditFigure("relearn_retain", f"relearning from retain data, steps (cut at {CUT})", "what is left", form="{:.0f}"),
    AuditFigure("anamnesis", "anamnesis index", "what is left", "1"),
    AuditFigure("int8", "forget score at 8 bits", "what is left"),
    AuditFigure("int4", "forget score at 4 bits", "what is left"),
    AuditFigure("cka", "features, CKA to the reference on forget data", "distance", "two references'"),
    AuditFigure("activation", "activation distance on forget data", "distance", "two references'"),
    AuditFigure("js", "JS divergence on forget data", "distance", "two references'"),
    AuditFigure("completeness", "completeness on forget data", "distance", "two references'"),
    AuditFigure("weights", "weights, distance to the reference", "distance", "two references'"),
    AuditFigure("zrf", "ZRF", "distance"),
)


def figures(pair: Pair) -> dict[str, float | None]:
    """Measure every figure of a model; no model is changed.

    Returns:
        The value of each of :data:`FIGURES` by key, None where there is nothing to measure.
    """
    model, reference, task, seed = pair.model, pair.ideal.model, pair.task, pair.seed
    scores = metrics.evaluate(model, task, pair.ideal.scores, seed=seed)
    logistic = metrics.membership_inference(model, task, seed=seed)
    svc = metrics.membership_inference(model, task, seed=seed, attack="svc", limit=1000)
    leak = metrics.class_leakage(model, task, reference, seed=seed)
    probe = audits.linear_probe(model, task, seed=seed)
    relearn = partial(audits.anamnesis_index, model, task, original=pair.original, max_steps=CUT, seed=seed)
    forget, retain = (relearn(pair.ideal.relearning[on] or reference, on=on) for on in ON)
    rounded = {row.bits: row.forget for row in metrics.quantize_attack(model, task)}
    layers = (metrics.feature_distance(model, reference, task.forget) or {}).values()
    known = [value for value in layers if value is not None]
    return {
        **{figure.key: getattr(scores, figure.key) for figure in FIGURES if figure.group == "quality"},
        "loss_auc": scores.membership,
        "member_share": None if logistic is None else logistic.forget_share,
        "member_auc": None if logistic is None else logistic.auc,
        "member_tpr": None if logistic is None else logistic.tpr,
        "svc_auc": None if svc is None else svc.auc,
        "leak_auc": None if leak is None or leak.membership is None else leak.membership.auc,
        "leak_js": None if leak is None else leak.js,
        "probe": None if probe is None else probe.forget,
        "relearn": None if forget is None else _steps(forget.model),
        "relearn_retain": None if retain is None else _steps(retain.model),
        "anamnesis": None if forget is None else forget.value,
        "int8": rounded[8],
        "int4": rounded[4],
        "cka": sum(known) / len(known) if known else None,
        "activation": metrics.activation_distance(model, reference, task.forget),
        "js": metrics.js_divergence(model, reference, task.forget),
        "completeness": metrics.completeness(model, reference, task.forget),
        "weights": metrics.layerwise_distance(model, reference).total,
        "zrf": metrics.zrf(model, task.forget, seed=seed),
    }


def _steps(report: RelearnReport) -> float:
    return float(CUT if report.steps is None else report.steps)
