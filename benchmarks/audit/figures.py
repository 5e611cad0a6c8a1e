"""The figures of one model: every audit that needs no more than it, a reference and the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from unlearn_kit import UnlearnTask, audits, metrics
from unlearn_kit.audits import RelearnReport
from unlearn_kit.metrics import Evaluation

ON: tuple[Literal["forget", "retain"], ...] = ("forget", "retain")  # what is relearned from
CUT = 200  # steps after which relearning is given up
FEW = 4  # references that attacks learn from


@dataclass(frozen=True)
class Ideal:
    """A reference and what it scores: judged once, however many models are set beside it.

    Attributes:
        model: The reference.
        scores: Its evaluation.
        relearning: How fast it learns the forget data again, by what it learns them from.
        further: Other references, which are judged nowhere: what attacks learn from.
    """

    model: nn.Module
    scores: Evaluation
    relearning: Mapping[str, RelearnReport | None]
    further: Sequence[nn.Module] = ()

    @classmethod
    def of(
        cls,
        reference: nn.Module,
        original: nn.Module,
        task: UnlearnTask,
        seed: int,
        further: Sequence[nn.Module] = (),
    ) -> Ideal:
        """Judge ``reference``; the original says which forget score relearning has to reach."""
        relearn = partial(audits.relearn_time, reference, task, original=original, max_steps=CUT, seed=seed)
        scores = metrics.evaluate(reference, task, seed=seed)
        return cls(reference, scores, {on: relearn(on=on) for on in ON}, further)


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
    AuditFigure("attack_auc", "membership attack, its AUC on data to keep", "membership"),
    AuditFigure("member_share", "the same attack, share of forget data called members", "membership"),
    AuditFigure("member_auc", "membership attack, AUC", "membership"),
    AuditFigure("member_tpr", "membership attack, TPR at 1 % FPR", "membership"),
    AuditFigure("svc_auc", "membership attack by SVC, AUC", "membership"),
    AuditFigure("population_auc", "membership against a population (RMIA), AUC", "membership"),
    AuditFigure("population_tpr", "membership against a population (RMIA), TPR at 1 % FPR", "membership"),
    AuditFigure("leak_auc", "class leakage, AUC", "membership"),
    AuditFigure("leak_js", "class leakage, JS to the reference", "membership", "two references'"),
    AuditFigure("neighbours", "neighbouring classes, AUC against the reference", "membership", "two references'"),
    AuditFigure("probe", "linear probe, forget score", "what is left"),
    AuditFigure("features_1", "head-free, 1 sample of the class", "what is left"),
    AuditFigure("features_5", "head-free, 5 samples of the class", "what is left"),
    AuditFigure("head_1", "prototype of 1 sample in the head", "what is left"),
    AuditFigure("head_5", "prototype of 5 samples in the head", "what is left"),
    AuditFigure("margin", "margin of the class's logit, held-out data", "what is left"),
    AuditFigure("near", "points near forget data, share right", "what is left"),
    AuditFigure("searched", "nearest boundary in the same ball, share right", "what is left"),
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
    found = {**_quality(pair), **_membership(pair), **_left(pair), **_distance(pair)}
    return {figure.key: found.get(figure.key) for figure in FIGURES}


def _quality(pair: Pair) -> dict[str, float | None]:
    scores = metrics.evaluate(pair.model, pair.task, pair.ideal.scores, seed=pair.seed)
    quality = {figure.key: getattr(scores, figure.key) for figure in FIGURES if figure.group == "quality"}
    return {**quality, "loss_auc": scores.membership}


def _membership(pair: Pair) -> dict[str, float | None]:
    model, reference, task, seed = pair.model, pair.ideal.model, pair.task, pair.seed
    found: dict[str, float | None] = {}
    logistic = metrics.membership_inference(model, task, seed=seed)
    if logistic is not None:
        found |= {"attack_auc": logistic.attack_auc, "member_share": logistic.forget_share}
        found |= {"member_auc": logistic.auc, "member_tpr": logistic.tpr}
    svc = metrics.membership_inference(model, task, seed=seed, attack="svc", limit=1000)
    found["svc_auc"] = None if svc is None else svc.auc
    if pair.ideal.further:
        population = audits.reference_membership(model, task, pair.ideal.further, seed=seed)
        if population is not None:
            found |= {"population_auc": population.auc, "population_tpr": population.tpr}
    leak = metrics.class_leakage(model, task, reference, seed=seed)
    if leak is not None:
        found |= {"leak_auc": None if leak.membership is None else leak.membership.auc, "leak_js": leak.js}
    neighbours = audits.neighbour_leakage(model, task, [reference], seed=seed)
    found["neighbours"] = None if neighbours is None else neighbours.auc
    return found


def _left(pair: Pair) -> dict[str, float | None]:
    model, task, seed = pair.model, pair.task, pair.seed
    found: dict[str, float | None] = {}
    probe = audits.linear_probe(model, task, seed=seed)
    found["probe"] = None if probe is None else probe.forget
    few = audits.few_shot_recovery(model, task, seed=seed) if task.forget_classes else None
    if few is not None:
        found |= {f"features_{shots}": share for shots, share in few.features.items()} | {"margin": few.margin}
        found |= {f"head_{shots}": share for shots, share in (few.head or {}).items()}
    near = audits.residual_knowledge(model, task, seed=seed)
    if near is not None:
        found |= {"near": near.forget, "searched": near.searched}
    relearn = partial(audits.anamnesis_index, model, task, original=pair.original, max_steps=CUT, seed=seed)
    forget, retain = (relearn(pair.ideal.relearning[on] or pair.ideal.model, on=on) for on in ON)
    found["relearn"] = None if forget is None else _steps(forget.model)
    found["relearn_retain"] = None if retain is None else _steps(retain.model)
    found["anamnesis"] = None if forget is None else forget.value
    rounded = {row.bits: row.forget for row in metrics.quantize_attack(model, task)}
    return {**found, "int8": rounded[8], "int4": rounded[4]}


def _distance(pair: Pair) -> dict[str, float | None]:
    model, reference, forget = pair.model, pair.ideal.model, pair.task.forget
    layers = (metrics.feature_distance(model, reference, forget) or {}).values()
    known = [value for value in layers if value is not None]
    return {
        "cka": sum(known) / len(known) if known else None,
        "activation": metrics.activation_distance(model, reference, forget),
        "js": metrics.js_divergence(model, reference, forget),
        "completeness": metrics.completeness(model, reference, forget),
        "weights": metrics.layerwise_distance(model, reference).total,
        "zrf": metrics.zrf(model, forget, seed=pair.seed),
    }


def _steps(report: RelearnReport) -> float:
    return float(CUT if report.steps is None else report.steps)
