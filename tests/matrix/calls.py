"""A valid call of every public function: what one wrong argument at a time is put into."""

from __future__ import annotations

import copy
import functools
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import algorithms
import unlearn_kit
from cells import OPTIONS, labels, masks
from unlearn_kit import (
    adapters,
    audits,
    boundary,
    composition,
    data,
    deployed,
    engine,
    evidence,
    losses,
    metrics,
    models,
    tuning,
)
from unlearn_kit.engine import facts_of
from unlearn_kit.tasks import UnlearnTask

ROOMS = {
    "unlearn_kit": unlearn_kit,
    "adapters": adapters,
    "audits": audits,
    "boundary": boundary,
    "composition": composition,
    "data": data,
    "deployed": deployed,
    "engine": engine,
    "evidence": evidence,
    "losses": losses,
    "metrics": metrics,
    "models": models,
    "tuning": tuning,
    "algorithms": algorithms,
}

# Made by the toolkit for its callers to read, or called by it alone: nobody gives these arguments.
RECORDS = {
    "unlearn_kit": {"CheckpointError", "DataNotFoundError", "DivergenceError", "UnlearnResult"},
    "audits": {"AnamnesisIndex", "Ensemble", "FewShotReport", "NeighbourLeakage", "ProbeReport"}
    | {"ReferenceMembership", "RelearnReport", "ResidualKnowledge", "ShadowReport"},
    "boundary": {"BoundaryPoints", "BoundaryRadii", "Certificate", "SmoothPoints"},
    "composition": {"BarrierBound", "Candidate", "CoefficientSearch", "Composition", "PathPoint", "Picked"}
    | {"RequestStep", "RequestsResult", "Sisa", "Soup", "TradeoffPath"},
    "data": {"Duplicate", "Duplicates", "Where"},
    "deployed": {"Deployed", "FittedWeights", "Network", "Normalization", "Revision", "WeightsFile"},
    "engine": {"Callback", "Facts", "FitResult", "Run", "TrainingOptions"},
    "evidence": {"Difference", "Evidence", "Receipt", "Verdict", "Verification"},
    "losses": {"Batch", "Goal", "ObjectiveValue", "Target", "Term"},
    "metrics": {"BesideReferences", "ClassLeakage", "Cost", "Evaluation", "FindingScores", "Klom", "LayerDistances"}
    | {
        "MembershipReport",
        "PairedComparison",
        "QuantizedScores",
        "Reading",
        "Seeds",
        "Summary",
        "ULira",
        "VarianceComponents",
    },
    "models": {"ModelEntry"},
    "tuning": {"Fast", "Reached", "Trial", "Tuned", "Unrolled"},
}


@functools.cache
def _made() -> SimpleNamespace:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task, masked = labels((3, 8, 8)), masks((1, 8, 8))
        model = models.small_cnn(num_classes=3, channels=3, width=2).eval()
        other = models.small_cnn(num_classes=3, channels=3, width=2).eval()
        unet = models.unet(num_classes=2, channels=1, widths=(2, 4, 4), decoder_widths=(4, 4, 2)).eval()
        adapted = adapters.attach(adapters.attach(model, "all", rank=1, name="first"), "head", rank=1, name="second")
        x, y = torch.rand(4, 3, 8, 8), torch.arange(4) % 3
        findings = data.TensorImages(x, torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]]))
        bare = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
        points = boundary.PerturbedSign(0.1)
        run = tuning.unroll(model, _loss, tuning.expected_accuracy(x, y), {"knob": 1.0}, [(x, y)])
        path = composition.tradeoff_path(model, other, task, points=2)
        bundle = data.DataBundle("mine", task.forget.dataset, task.forget.dataset, 3, "classification", ("a", "b", "c"))
        system = composition.sisa_train(build, task.retain, shards=2, epochs=1, batch_size=4)
        scores = metrics.evaluate(model, task)
        result = algorithms.neg_grad(model, task, steps=1, batch_size=6)
    return SimpleNamespace(**locals())


class Things:
    """What calls are made of; each has models of its own."""

    def __getattr__(self, name: str) -> Any:
        made = getattr(_made(), name)
        value = copy.deepcopy(made) if isinstance(made, nn.Module) else made
        setattr(self, name, value)
        return value


def _loss(model: Any, batch: Any, knobs: Any) -> torch.Tensor:
    x, y = batch
    return knobs["knob"] * nn.functional.cross_entropy(model(x), y)


def build() -> nn.Module:
    return models.small_cnn(num_classes=3, channels=3, width=2)


def _phase(t: Things) -> engine.Phase:
    return engine.Phase(losses.cross_entropy(on="retain"), {"retain": t.task.retain}, steps=1, batch_size=4)


def _score(model: nn.Module) -> float:
    return 0.5


class _Noted(engine.Callback):
    """A callback of a user's own."""


def _all_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with what it yields drawn, or the block it manages entered."""

    @functools.wraps(function)
    def drawn(*arguments: Any, **options: Any) -> Any:
        made = function(*arguments, **options)
        if hasattr(made, "__enter__"):
            with made:
                return None
        return list(made)

    return drawn


def _bundle(t: Things) -> data.DataBundle:
    held = t.task.forget.dataset
    return data.DataBundle("own", held, held, 3, "classification", ("a", "b", "c"))


def _saved(t: Things) -> Path:
    return composition.sisa_save(t.system, Path(tempfile.mkdtemp()) / "system.safetensors")


Arguments = Callable[[Things], dict[str, Any]]
CALLS: dict[str, tuple[Callable[..., Any], Arguments]] = {}


def call(room: str, name: str, arguments: Arguments, function: Callable[..., Any] | None = None) -> None:
    """Note a valid call."""
    CALLS[f"{room}.{name}"] = (function or getattr(ROOMS[room], name), arguments)


TASK: Arguments = lambda t: {  # noqa: E731
    **{name: getattr(t.task, name) for name in ("forget", "retain", "forget_test", "retain_test")},
    "num_classes": 3,
    "kind": "classification",
    "rule": "mine",
    "forget_classes": (0,),
    "forget_indices": None,
}
HELD = {"num_classes": None, "validation": None, "validation_seed": 0}
call("unlearn_kit", "UnlearnTask", TASK)
for rule, chosen in {
    "forget_class": {"label": 1, "fraction": 1.0, "seed": 0},
    "forget_samples": {"indices": [1, 2]},
    "forget_random": {"fraction": 0.3, "seed": 0},
}.items():
    call(
        "unlearn_kit",
        rule,
        lambda t, chosen=chosen: {"train": t.task.forget.dataset, "test": t.task.forget.dataset, **chosen, **HELD},
        getattr(UnlearnTask, rule),
    )
call(
    "unlearn_kit",
    "forget_where",
    lambda t: {
        **dict.fromkeys(("train", "test"), t.task.forget.dataset),
        "train_metadata": {"device": torch.arange(12).numpy()},
        "test_metadata": {"device": torch.arange(12).numpy()},
        "predicate": lambda table: table["device"] < 5,
        "validation_metadata": None,
        **HELD,
    },
    UnlearnTask.forget_where,
)
call(
    "unlearn_kit",
    "forget_mask_class",
    lambda t: {"train": t.masked.forget.dataset, "test": t.masked.forget.dataset, "label": 1, **HELD},
    UnlearnTask.forget_mask_class,
)
call("unlearn_kit", "save_model", lambda t: {"model": t.model, "path": "model.safetensors"})
call("unlearn_kit", "results_frame", lambda t: {"results": [], "evaluations": None})
call("unlearn_kit", "load_model", lambda t: {"model": t.model, "path": "saved.safetensors"})

ONE: Arguments = lambda t: {"model": t.adapted}  # noqa: E731
for name in ("adapter_names", "base_state", "count_trainable", "is_on", "merge", "plain"):
    call("adapters", name, ONE)
call(
    "adapters",
    "attach",
    lambda t: {"model": t.model, "where": "all", "rank": 1, "alpha": 2.0, "dropout": 0.1, "name": "c", "full": ()},
)
call("adapters", "gather", lambda t: {"models": {"x": adapters.attach(t.model, "head", rank=1)}})
call("adapters", "save", lambda t: {"model": t.adapted, "path": "adapters.safetensors"})
call("adapters", "load", lambda t: {"model": t.model, "path": "saved-adapters.safetensors", "any_weights": False})
call("adapters", "negate", lambda t: {"model": t.adapted, "name": "first"})
call("adapters", "scale", lambda t: {"model": t.adapted, "factor": 0.5, "name": "first"})
call("adapters", "select", lambda t: {"model": t.model, "where": "head"})
call("adapters", "skipped", lambda t: {"model": t.model, "where": "all", "example": t.x})
call("adapters", "switch_", lambda t: {"model": t.adapted, "names": ["first"]})
call("adapters", "only", lambda t: {"model": t.adapted, "names": ["first"]}, _all_of(adapters.only))
call("adapters", "switched_off", ONE, _all_of(adapters.switched_off))

RELEARN = {"on": "forget", "margin": 0.05, "max_steps": 1, "every": 1, "lr": 0.01, "momentum": 0.9, "clip": 1.0}
RELEARN |= {"batch_size": 4, "limit": 10, "seed": 0, "device": None, "workers": 0}
call("audits", "relearn_time", lambda t: {"model": t.model, "task": t.task, "original": 0.9, **RELEARN})
call(
    "audits",
    "anamnesis_index",
    lambda t: {"model": t.model, "task": t.task, "reference": t.other, "original": 0.9, **RELEARN},
)
READING = {"batch_size": 4, "device": None, "workers": 0}
call(
    "audits",
    "linear_probe",
    lambda t: {"model": t.model, "task": t.task, "reference": t.other, "limit": 9, "pixels": 2, "seed": 0, **READING},
)
SHOTS = {"shots": [1], "draws": 2, "limit": 9, "seed": 0}
call(
    "audits",
    "few_shot_recovery",
    lambda t: {"model": t.model, "task": t.task, "reference": t.other, **SHOTS, **READING},
)
call(
    "audits",
    "residual_knowledge",
    lambda t: {
        **{"model": t.model, "task": t.task, "reference": t.other, "radius": 0.1, "copies": 2, "limit": 9, "seed": 0},
        **READING,
    },
)
call(
    "audits",
    "reference_membership",
    lambda t: {
        **{"model": t.model, "task": t.task, "references": [t.other], "original": t.other, "offline_a": 0.3},
        **{"gamma": 1.0, "seed": 0, **READING},
    },
)
call(
    "audits",
    "neighbour_leakage",
    lambda t: {
        **{"model": t.model, "task": t.task, "references": [t.other], "neighbours": 1, "limit": 9, "seed": 0},
        **READING,
    },
)
ENSEMBLE = {"epochs": 1, "batch_size": 4, "lr": 0.05, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
ENSEMBLE |= {"mode": "vmap", "chunk": 2, "device": None, "progress": lambda done, of: None}
call(
    "audits",
    "train_ensemble",
    lambda t: {"build": build, "dataset": t.task.retain, "subsets": [[0, 1], [1, 2]], "seeds": [0, 1], **ENSEMBLE},
)
call(
    "audits",
    "ensemble_margins",
    lambda t: {
        "ensemble": audits.train_ensemble(build, t.task.retain, [[0, 1]], seeds=[0], epochs=1, mode="vmap"),
        "dataset": t.task.retain,
        "batch_size": 4,
    },
)
call(
    "audits",
    "ShadowAudit",
    lambda t: {"build": build, "task": t.task, "models": 8, "seed": 0, "cache": None, "workers": 1, "epochs": 1},
)
call("audits", "TensorCache", lambda t: {"folder": "cache"})
call(
    "audits",
    "with_random_labels",
    lambda t: {"dataset": t.task.retain, "indices": [0, 1], "num_classes": 3, "seed": 0},
)

SEARCH = {"radius": 0.1, "steps": 2, "step_size": 0.1, "closeness": 0.1, "noise": 0.1, "noise_distribution": "normal"}
SEARCH |= {"noise_scale": "relative", "update": "projected", "bounds": (0.0, 1.0), "seed": 0}
call("boundary", "PerturbedSign", lambda t: {**SEARCH, "stop_when_flipped": False})
call("boundary", "expected_sign", lambda t: {"distribution": "normal", "values": torch.rand(3), "scale": 1.0})
call(
    "boundary",
    "smoothed_search",
    lambda t: {
        **{"search": boundary.PerturbedSign(0.1, noise=0.1), "model": t.model, "x": t.x, "y": t.y},
        **{"mode": "unrolled", "radius": None, "closeness": None, "noise": None, "tolerance": None},
        **{"iterations": 5, "strict": False},
    },
)

PAIR: Arguments = lambda t: {"a": t.model, "b": t.other}  # noqa: E731
RUNS: Arguments = lambda t: {"base": t.model, "models": [t.other, t.model]}  # noqa: E731
MEANS = {"weights": [0.5, 0.5], "recalibrate": None}
call("composition", "interpolate", lambda t: {**PAIR(t), "t": 0.3, "recalibrate": None})
call("composition", "slerp", lambda t: {**PAIR(t), "t": 0.3, "base": None, "recalibrate": None})
call("composition", "bezier", lambda t: {**PAIR(t), "control": t.model, "t": 0.3, "recalibrate": None})
call("composition", "average", lambda t: {"models": [t.model, t.other], **MEANS})
call(
    "composition",
    "fisher_merge",
    lambda t: {
        "models": [t.model, t.other],
        "fishers": [{key: torch.ones_like(p) for key, p in t.model.named_parameters()}] * 2,
        **MEANS,
    },
)
call("composition", "task_arithmetic", lambda t: {**RUNS(t), **MEANS})
call("composition", "ties", lambda t: {**RUNS(t), **MEANS, "density": 0.5, "scale": 1.0, "per_tensor": True})
call(
    "composition",
    "dare",
    lambda t: {**RUNS(t), **MEANS, "density": 0.5, "seed": 0, "elect_signs": False, "scale": 1.0},
)
call("composition", "neg_merge", lambda t: {**RUNS(t), "weight": 0.5, "recalibrate": None})
call("composition", "greedy_soup", lambda t: {"models": [t.model, t.other], "score": _score, "recalibrate": None})
SWAP = {"module": "head", "epochs": 1, "lr": 1e-3, "batch_size": 4, "batch_norm": "frozen", "seed": 0}
call(
    "composition",
    "swap_head",
    lambda t: {"body": t.model, "head": t.other, **SWAP, "finetune_on": t.task, "recalibrate": None},
)
call(
    "composition",
    "bezier_control",
    lambda t: {**PAIR(t), "data": t.task, "steps": 1, "batch_size": 4, "lr": 0.01, "seed": 0, "device": None},
)
call("composition", "barrier", lambda t: {"ts": [0, 0.5, 1], "losses": [0.1, 0.3, 0.2]})
call(
    "composition",
    "barrier_bound",
    lambda t: {**PAIR(t), "data": t.task.retain, "points": 3, "samples": 4, "slopes": 3},
)
call(
    "composition",
    "combine_adapters",
    lambda t: {
        **{"model": t.adapted, "weights": {"first": 1.0, "second": 0.5}, "how": "ties", "name": "c"},
        **{"rank": 1, "density": 0.5, "seed": 0},
    },
)
call("composition", "weigh", lambda t: {"model": t.adapted, "weights": {"first": 0.5}})
call("composition", "withdraw", lambda t: {"model": t.adapted, "name": "second"})
call("composition", "join_requests", lambda t: {"models": {"x": adapters.attach(t.model, "head", rank=1)}})
RECIPE = {"method": "average", "models": ["one", "two"]}
call(
    "composition",
    "compose",
    lambda t: {
        **{"recipe": RECIPE, "models": {"one": t.model, "two": t.other}, "build": None},
        **{"data": None, "score": None},
    },
)
call("composition", "joint_task", lambda t: {"requests": [t.task]})
call("composition", "cumulative_tasks", lambda t: {"requests": [t.task]})
call("composition", "held_out_objectives", lambda t: {"task": t.task, "target": 0.0})
SISA = {"shards": 2, "slices": 1, "epochs": 1, "without": [0], "seed": 0, "batch_size": 4}
call(
    "composition",
    "sisa_train",
    lambda t: {"build": build, "dataset": t.task.retain, "aggregate": "mean", "device": None, **SISA},
)
call("composition", "sisa_save", lambda t: {"system": t.system, "path": "system.safetensors"})
call(
    "composition",
    "sisa_load",
    lambda t: {"path": _saved(t), "build": build, "dataset": t.task.retain, "device": None, "batch_size": 4},
)
call("composition", "sisa_forget", lambda t: {"system": t.system, "indices": [0, 1], "drop": False})
call("composition", "needs_recalibration", lambda t: {"model": t.model})
call(
    "composition",
    "recalibrate_batch_norm",
    lambda t: {"model": t.model, "data": t.task, "batch_size": 4, "seed": 0, "workers": 0},
)
call(
    "composition",
    "apply_requests",
    lambda t: {
        **{"model": t.model, "requests": [t.task], "algorithm": algorithms.neg_grad, "mode": "sequence"},
        **{"keep_out": "earlier", "reference": None, "seed": 0, "options": {"steps": 1}},
        "merge": composition.task_arithmetic,
    },
)
call(
    "composition",
    "search_coefficients",
    lambda t: {
        **{"build": lambda c: t.model, "objectives": lambda model: (0.1, 0.2), "start": [0.5], "bounds": (0.0, 1.0)},
        **{"simplex": False, "tradeoffs": (0.5,), "evaluations": 2},
    },
)
call(
    "composition",
    "tradeoff_path",
    lambda t: {
        **PAIR(t),
        **{"task": t.task, "points": 2, "reference": None, "bezier": False, "bezier_options": None},
        **{"recalibrate": False, "bound_samples": 0, "seed": 0},
    },
)
call("composition", "pick", lambda t: {"path": t.path, "target": 0.5, "tolerance": 0.1, "steps": 1})

call(
    "data",
    "DataBundle",
    lambda t: {
        **dict.fromkeys(("train", "test"), t.task.forget.dataset),
        **{"name": "mine", "num_classes": 3, "task": "classification", "class_names": ("a", "b", "c")},
    },
)
call("data", "where", lambda t: {"expression": "device == B"})
call("data", "check_dataset", lambda t: {"name": "dataset", "dataset": t.task.retain, "kind": "classification"})
call("data", "duplicates", lambda t: {"datasets": {"a": t.task.retain, "b": t.task.forget}, "distance": None})
call("data", "with_ignore_index", lambda t: {"dataset": t.masked.retain, "ignore_index": 255})
call("data", "class_weights", lambda t: {"dataset": t.task.forget.dataset, "num_classes": 3})
call("data", "TensorImages", lambda t: {"inputs": t.x, "targets": t.y})
call("data", "labels_of", lambda t: {"dataset": t.task.retain})
call("data", "resolve", lambda t: {"dataset": t.task.retain})
call("data", "load", lambda t: {"name": "digits", "root": None})
call("data", "load_tensors", lambda t: {"dataset": t.task.retain, "workers": 0})
call("data", "subset", lambda t: {"dataset": t.task.forget.dataset, "indices": [0, 1]})
call("data", "without_class", lambda t: {"dataset": t.masked.forget.dataset, "label": 1, "by": 0})
call(
    "data",
    "in_order",
    lambda t: {"dataset": t.task.retain, "batch_size": 4, "workers": 0, "device": None},
    _all_of(data.in_order),
)
call(
    "data",
    "iterate",
    lambda t: {"dataset": t.task.retain, "index_batches": [torch.tensor([0, 1]), torch.tensor([2])], "workers": 0},
    _all_of(data.iterate),
)

FIT: Arguments = lambda t: {"file": deployed.read_weights("saved.safetensors"), "model": t.model}  # noqa: E731
call(
    "deployed",
    "build_network",
    lambda t: {"source": "kit:small-cnn", "options": {"width": 2}, "num_classes": 3, "channels": 3},
)
SERVES: Arguments = lambda t: {  # noqa: E731
    **{"model": "kit:small-cnn", "weights": "saved.safetensors", "data": t.bundle, "options": {"width": 2}},
    **{"key": None, "mean": None, "std": None, "normalize": True},
}
call("deployed", "deployed", SERVES)
call("deployed", "read_weights", lambda t: {"path": "saved.safetensors", "key": None})
call("deployed", "fit_weights", FIT)
call("deployed", "load_into", lambda t: {"fitted": deployed.fit_weights(**FIT(t)), "model": t.model})
call(
    "deployed",
    "write_weights",
    lambda t: {
        **{"fitted": deployed.fit_weights(**FIT(t)), "state": t.model.state_dict()},
        **{"path": "revised.safetensors", "form": None},
    },
)
call("deployed", "preflight", lambda t: {"model": t.model, "task": t.task, "seed": 0})
call("deployed", "preview", lambda t: {"task": t.task, "read": ["Model: mine"], "warnings": []})


def _revise(**arguments: Any) -> deployed.Revision:
    """Revise into a folder of its own, unless another one is given: a folder is revised once."""
    if isinstance(arguments["out"], str) and arguments["out"] == "new":
        arguments["out"] = tempfile.mkdtemp(dir=".")
    return deployed.revise(**arguments)


REVISES: Arguments = lambda t: {  # noqa: E731
    **{"serving": deployed.deployed(**SERVES(t)), "task": t.task, "method": algorithms.neg_grad, "out": "new"},
    **{"form": None, "reference": None, "seed": 0, "device": "cpu", "options": {"steps": 1, "batch_size": 6}},
    **{"watching": None, "notes": ["seen"], "beside": {"more.txt": "text"}},
}
for room in ("unlearn_kit", "deployed"):
    call(room, "revise", REVISES, _revise)


def _ledger() -> evidence.Ledger:
    return evidence.Ledger(tempfile.mkdtemp(dir="."))


def _asked(serving: deployed.Deployed) -> evidence.Ledger:
    """Return a ledger with a request in force."""
    options = {"options": {"steps": 1, "batch_size": 6}}
    deployed.add_request(ledger := _ledger(), serving, Things().task, algorithms.neg_grad, name="first", **options)
    return ledger


REQUEST: Arguments = lambda t: {  # noqa: E731
    **{"serving": deployed.deployed(**SERVES(t)), "name": "mine", "data": [], "timeout": 1.0},
}
call("deployed", "serving_now", lambda t: {"ledger": _ledger(), "serving": deployed.deployed(**SERVES(t))})
call(
    "deployed",
    "add_request",
    lambda t: {
        **REQUEST(t),
        **{"ledger": _ledger(), "task": t.task, "method": algorithms.neg_grad, "join": False, "seed": 0},
        **{"notes": [], "request": None, "options": {"steps": 1, "batch_size": 6}},
    },
)
call(
    "deployed",
    "add_revision",
    lambda t: {
        **REQUEST(t),
        **{"ledger": _ledger(), "task": t.task, "folder": _revise(**REVISES(t)).folder, "seed": 0, "request": None},
    },
)
call(
    "deployed",
    "withdraw_request",
    lambda t: {**REQUEST(t), "ledger": _asked(deployed.deployed(**SERVES(t))), "name": "first", "reason": "asked"},
)

call("evidence", "versions", lambda t: {})
call(
    "evidence",
    "receipt",
    lambda t: {"task": t.task, "before": t.model, "result": t.result, "reference": None, "seed": 0},
)
call(
    "evidence",
    "assemble",
    lambda t: {
        **{"rules": ["class 0"], "digest": "abc", "count": 3, "hashes": ["a", "b", "c"]},
        **{"method": {"name": "mine", "options": {}, "seconds": 1.0}, "status": ("ok", None), "seeds": {"a": 0}},
        **{"models": {"before": "a", "after": "b", "reference": None}, "software": {"torch": "2"}},
        "evaluations": {"before": t.scores, "after": t.scores, "reference": None},
    },
)

PAPER: Arguments = lambda t: {"values": evidence.receipt(t.task, t.model, t.result).values}  # noqa: E731
call("evidence", "card_section", PAPER)
call("evidence", "write_card", lambda t: {**PAPER(t), "path": "card.md"})
call("evidence", "statement", lambda t: {**PAPER(t), "subjects": {"a": "0" * 64}, "evidence": {"b": "1" * 64}})
call("evidence", "inventory", lambda t: {"task": t.task})
call("evidence", "Ledger", lambda t: {"folder": "ledger"})
call("evidence", "Threshold", lambda t: {"value": 0.1, "origin": "by convention"})
call("evidence", "Thresholds", lambda t: {"left": evidence.Threshold(0.1, "by convention")})
call(
    "evidence",
    "measure",
    lambda t: {
        **{"before": t.model, "after": t.other, "task": t.task, "audits": [], "budget": None, "groups": None},
        **{"class_names": ["a", "b", "c"], "thresholds": evidence.DEFAULT, "seed": 0},
    },
)
call("evidence", "read_receipt", lambda t: {"folder": _revise(**REVISES(t)).folder})
call("evidence", "earlier_receipts", lambda t: {"folders": [], "originals": {}})
call("evidence", "seal", lambda t: {"paper": (made := _revise(**REVISES(t))).receipt, "folder": made.folder})
call(
    "evidence",
    "verify",
    lambda t: {"folder": _revise(**REVISES(t)).folder, "data": None, "model": None, "public_key": None},
)


def _silent_tracker() -> str:
    """Make a tracker that keeps nothing known to Accelerate, by its name."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

    class Silent(GeneralTracker):
        name = "silent"
        requires_logging_directory = True
        tracker = None

        def __init__(self, run_name: str, logging_dir: str) -> None:
            super().__init__()

    LOGGER_TYPE_TO_CLASS.setdefault("silent", Silent)
    return "silent"


PHASE = {"steps": 1, "batch_size": 4, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}
PHASE |= {"trainable": None, "masks": None, "batch_norm": "frozen", "clip": 1.0, "balance": None, "lead": None}
PHASE |= {"workers": 0, "before": None, "name": "mine"}
call(
    "engine",
    "Phase",
    lambda t: {"objective": losses.cross_entropy(on="retain"), "streams": {"retain": t.task.retain}, **PHASE},
)
call(
    "engine",
    "Alternate",
    lambda t: {"phases": [_phase(t)], "rounds": 1, "shared_optimizer": False, "turns": {"train": 1}},
)
call("engine", "BestSoFar", lambda t: {"score": _score, "every": 1, "name": "best"})
call("engine", "Cone", lambda t: {"cosine": 0.5})
call("engine", "keep_best", lambda t: {"task": t.task, "by": None, "every": 1, "name": "best"})
call(
    "engine",
    "Tracker",
    lambda t: {
        **{"name": _silent_tracker(), "folder": "logs", "run": "mine", "config": {"a": 1}, "metrics": {"b": _score}},
        **{"every": 1},
    },
)
call("engine", "Log", lambda t: {"every": 2})
call("engine", "ProgressBar", lambda t: {"description": "training"})
call("engine", "Stationarity", lambda t: {"phase": _phase(t), "every": 1, "samples": 4, "seed": 0})
call("engine", "resumable", lambda t: {"folder": ".", "seconds": 1.0}, _all_of(engine.resumable))
call("engine", "StopWhen", lambda t: {"metric": _score, "reached": lambda v: v > 1, "every": 1, "name": "score"})
call(
    "engine",
    "Stream",
    lambda t: {"name": "retain", "dataset": t.task.retain, "batch_size": 4, "seed": 0, "workers": 0},
)
call("engine", "WeightAverage", lambda t: {"keep": 0.9, "every": 1})
TRAINING = {key: PHASE[key] for key in ("steps", "batch_size", "lr", "optimizer", "momentum", "weight_decay", "clip")}
call("engine", "Training", lambda t: {**TRAINING, "batch_norm": "frozen", "balance": None, "workers": 0})
call("engine", "facts_of", lambda t: {"algorithm": algorithms.finetune})
call(
    "engine",
    "fit",
    lambda t: {
        **{"model": t.model, "program": _phase(t), "seed": 0, "device": None, "callbacks": (_Noted(),), "log_every": 1},
        **{"checkpoint": "run.safetensors", "checkpoint_every": 1},
    },
)
call("engine", "revision", lambda t: {"training": engine.Training(steps=1), "without": (), "source": "", "masks": True})
call("engine", "streams_for", lambda t: {"task": t.task, "objective": losses.cross_entropy(on="retain")})
SUPERVISED = {"epochs": 1, "batch_size": 4, "lr": 0.01, "optimizer": "sgd", "weight_decay": 0.0}
call("engine", "supervised_phase", lambda t: {"dataset": t.task.retain, **SUPERVISED, "objective": None})
call(
    "engine",
    "train",
    lambda t: {"model": t.model, "dataset": t.task.retain, **SUPERVISED, "seed": 0, "callbacks": (_Noted(),)},
)

call("losses", "Background", lambda t: {"index": 0})
call(
    "losses",
    "Boundary",
    lambda t: {"model": t.model, "search": t.points, "soft": False, "top_k": None, "mix": 1.0, "uncrossed": "keep"},
)
call("losses", "Cached", lambda t: {"target": losses.Teacher(t.model), "refresh": "once"})
call("losses", "Calibration", lambda t: {"margins": torch.rand(5), "labels": None, "shrink": 0.5})
call("losses", "Contradiction", lambda t: {"model": t.model, "confidence": 0.9})
call("losses", "Labels", lambda t: {})
call(
    "losses",
    "Matched",
    lambda t: {
        **{"percentiles": torch.rand(4), "calibration": losses.Calibration(torch.rand(5))},
        **{"rest": losses.RunnerUp(t.model), "num_classes": 3},
    },
)
call("losses", "OtherClasses", lambda t: {"model": t.model})
call("losses", "RandomLabels", lambda t: {"num_classes": 3, "wrong_only": True})
call("losses", "RunnerUp", lambda t: {"model": t.model})
call("losses", "Table", lambda t: {"values": torch.rand(4, 3), "kind": "probabilities"})
call("losses", "Teacher", lambda t: {"model": t.model})
call("losses", "Transform", lambda t: {"name": "mine", "apply": losses.FLIPS[0].apply, "invert": torch.flip})
call("losses", "Transformed", lambda t: {"model": t.model, "transforms": losses.FLIPS})
call("losses", "Uniform", lambda t: {"num_classes": 3})
call("losses", "Findings", lambda t: {"target": losses.Background(), "findings": (1, 2), "label": 1})
call("losses", "Within", lambda t: {"target": losses.Background(), "label": 1})
call("losses", "Without", lambda t: {"target": losses.Teacher(t.model), "classes": (1,)})
for name in ("bce", "cross_entropy", "dice", "dice_bce"):
    call("losses", name, lambda t: {"on": "retain", "to": losses.Labels(), "name": "mine"})
call("losses", "mse", lambda t: {"on": "retain", "to": losses.Teacher(t.model), "name": "mine"})
call("losses", "Objective", lambda t: {"terms": (losses.cross_entropy(on="retain"),)})
call("losses", "Schedule", lambda t: {"formula": "mine", "function": lambda at: 1.0})
call("losses", "kl", lambda t: {"on": "retain", "to": losses.Teacher(t.model), "temperature": 2.0, "name": "mine"})
call("losses", "parameter_norm", lambda t: {"p": 1, "name": "mine"})
call("losses", "weight_distance", lambda t: {"model": t.model, "name": "mine"})
call("losses", "term", lambda t: {"takes": ("logits",), "reduction": "batch"})
call("losses", "cosine", lambda t: {"start": 1.0, "end": 0.0})
call("losses", "linear", lambda t: {"start": 1.0, "end": 0.0})
call("losses", "every", lambda t: {"period": 2})
call("losses", "exponential", lambda t: {"start": 1.0, "rate": 0.5})
call("losses", "inverse", lambda t: {"start": 1.0})
call("losses", "inverse_sqrt", lambda t: {"start": 1.0})

DATA: Arguments = lambda t: {"model": t.model, "dataset": t.task.retain, **READING}  # noqa: E731
JUDGED: Arguments = lambda t: {"model": t.model, "task": t.task, **READING}  # noqa: E731
LOGITS: Arguments = lambda t: {"logits": torch.rand(4, 3), "other": torch.rand(4, 3)}  # noqa: E731
for name in ("accuracy", "per_class_accuracy", "predict"):
    call("metrics", name, DATA)
FINDINGS: Arguments = lambda t: {"model": t.model, "dataset": t.findings, **READING}  # noqa: E731
for name in ("exact_match", "finding_scores"):
    call("metrics", name, FINDINGS)
call("metrics", "auroc", lambda t: {**FINDINGS(t), "per_finding": False})
for name in ("activation_distance", "completeness", "js_divergence"):
    call("metrics", name, lambda t: {**DATA(t), "reference": t.other})
for name in ("activation_distances", "agreement", "js_divergences"):
    call("metrics", name, LOGITS)
for name in ("dice", "iou"):
    call(
        "metrics",
        name,
        lambda t: {"model": t.unet, "dataset": t.masked.retain, "per_class": False, **READING},
    )
for name in ("dice_scores", "iou_scores"):
    call(
        "metrics",
        name,
        lambda t: {"logits": torch.rand(2, 2, 4, 4), "targets": torch.ones(2, 4, 4).long(), "absent": 1.0},
    )
GAPS: Arguments = lambda t: {  # noqa: E731
    name: {"forget": 0.1, "retain": 0.9, "test": 0.8, "membership": 0.5} for name in ("values", "reference")
}
for name in ("average_gap", "tug_of_war", "tug_of_war_mia"):
    call("metrics", name, GAPS)
ATTACK = {"features": ("loss",), "attack": "logistic", "limit": 100, "seed": 0}
call("metrics", "class_leakage", lambda t: {**JUDGED(t), "reference": t.other, **ATTACK})
call("metrics", "membership_inference", lambda t: {**JUDGED(t), **ATTACK})
call("metrics", "class_matched", lambda t: {"wanted": t.y, "available": t.y, "seed": 0})
call("metrics", "correct", lambda t: {"logits": torch.rand(4, 3), "targets": t.y})
call("metrics", "evaluate", lambda t: {**JUDGED(t), "reference": None, "seed": 0})
call("metrics", "evaluate_seeds", lambda t: {**JUDGED(t), "reference": None, "seeds": (0,)})
call(
    "metrics",
    "beside_references",
    lambda t: {"figure": lambda model: 0.5, "model": t.model, "references": [t.other]},
)
call("metrics", "split_score", lambda t: {**JUDGED(t), "split": "forget"})
call("metrics", "quantize_attack", lambda t: {**JUDGED(t), "bits": (4,)})
call("metrics", "zrf", lambda t: {**DATA(t), "incompetent": None, "seed": 0})
call(
    "metrics",
    "feature_distance",
    lambda t: {**DATA(t), "other": t.other, "layers": ["block1"], "space": None},
)
call("metrics", "layerwise_distance", lambda t: {"model": t.model, "reference": t.other})
call("metrics", "loss_auc", lambda t: {"model": t.model, "members": t.task.forget, "non_members": t.task.retain})
call("metrics", "probability_smaller", lambda t: {"first": torch.rand(4), "second": torch.rand(3)})
call("metrics", "true_positive_rate", lambda t: {"members": torch.rand(4), "non_members": torch.rand(3), "at": 0.1})
call("metrics", "independent_seeds", lambda t: {"seed": 0, "training": 2, "unlearning": 2})
MARGINS: Arguments = lambda t: {"unlearned": torch.rand(8, 3), "oracles": torch.rand(8, 3)}  # noqa: E731
call("metrics", "klom", lambda t: {**MARGINS(t), "bins": 4, "clip": 10.0, "floor": 1e-5, "exchanges": 9, "seed": 0})
call("metrics", "klom_floor", lambda t: {"oracles": torch.rand(8, 3), "bins": 4, "clip": 10.0, "floor": 1e-5})
call("metrics", "klom_values", lambda t: {**MARGINS(t), "bins": 4, "clip": 10.0, "floor": 1e-5})
call("metrics", "u_lira", MARGINS)
call("metrics", "measured", lambda t: {"device": None}, _all_of(metrics.measured))
call(
    "metrics",
    "paired_comparison",
    lambda t: {"a": [0.1, 0.2, 0.4], "b": [0.2, 0.3, 0.1], "confidence": 0.9, "resamples": 9, "seed": 0},
)
call("metrics", "summary", lambda t: {"values": [0.1, 0.2], "confidence": 0.9})
call("metrics", "variance_components", lambda t: {"table": [[0.1, 0.2], [0.3, 0.4]], "confidence": 0.9})

call("models", "with_output", lambda t: {"model": t.model, "output": 0})
call("models", "Normalize", lambda t: {"mean": (0.5,), "std": (0.5,)})
call("models", "with_normalization", lambda t: {"model": t.bare, "mean": (0.5,) * 3, "std": (0.5,) * 3})
call("models", "build", lambda t: {"name": "small-cnn", "num_classes": 3, "channels": 3, "seed": 0})
call("models", "declare_head", lambda t: {"model": t.model, "head": "head"})
call("models", "fresh_copy", lambda t: {"model": t.model, "seed": 0})
call("models", "head_name", lambda t: {"model": t.model})
call("models", "head_parameters", lambda t: {"model": t.model})
call("models", "parameters_of", lambda t: {"model": t.model, "part": "last:1"})
call("models", "stages", lambda t: {"model": t.model})
call("models", "reinitialize_", lambda t: {"module": t.model, "seed": 0})
NET = {"num_classes": 3, "channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
call("models", "all_cnn", lambda t: {**NET, "width": 2, "batch_norm": True, "dropout": 0.1})
call("models", "mlp", lambda t: {**NET, "input_shape": (3, 8, 8), "hidden": (4,)})
call("models", "resnet", lambda t: {**NET, "depth": 18, "small_images": True})
call("models", "small_cnn", lambda t: {**NET, "width": 2})
call("models", "unet", lambda t: {**NET, "widths": (2, 4, 4), "decoder_widths": (4, 4, 2)})

call("tuning", "expected_accuracy", lambda t: {"inputs": t.x, "targets": t.y})
NEWTON = {"start": 1.0, "wanted": 0.3, "bounds": (0.1, 10.0), "tolerance": 10.0, "budget": 2}
call("tuning", "newton", lambda t: {"run": lambda knob: t.run, "knob": "knob", **NEWTON})
call(
    "tuning",
    "unroll",
    lambda t: {
        **{"model": t.model, "loss": _loss, "level": tuning.expected_accuracy(t.x, t.y), "knobs": {"knob": 1.0}},
        **{"batches": [(t.x, t.y)], "lr": 0.01, "momentum": 0.0, "clip": 1.0},
    },
)
call("tuning", "scale_adapters", lambda t: {"model": tuning.Fast(t.adapted, {}), "factor": torch.tensor(0.5)})
call("tuning", "split_off", lambda t: {"task": t.task, "share": 0.5, "seed": 0, "forget": True})
TUNED = {"target": 0.3, "knob": "retain_weight", "bounds": (0.1, 10.0), "start": None, "tolerance": 0.5, "budget": 2}
TUNED |= {"method": "grid", "judge": "seen", "held_out": 0.0, "seed": 0, "steps": 1}
call(
    "tuning",
    "tune_tradeoff",
    lambda t: {"algorithm": algorithms.boundary_shrink, "model": t.model, "task": t.task, **TUNED},
)
call(
    "tuning",
    "weighted",
    lambda t: {"objective": losses.cross_entropy(on="retain", name="mine"), "weights": {"mine": "knob"}},
)


def _of_algorithm(name: str) -> Arguments:
    own = OPTIONS.get(name, {})
    parameters = inspect.signature(getattr(algorithms, name)).parameters
    lengths = {"batch_size": 6} | ({} if "epochs" in own else {"steps": 1})
    left = ("accelerator", "epochs") if "steps" in parameters else ("accelerator",)
    options = {key: p.default for key, p in parameters.items() if p.default is not p.empty and key not in left}
    options |= {key: value for key, value in lengths.items() if key in parameters} | own
    reads = facts_of(getattr(algorithms, name)).reads_reference
    return lambda t: {"model": t.model, "task": t.task, **options, **({"references": [t.other]} if reads else {})}


for name in algorithms.__all__:
    call("algorithms", name, _of_algorithm(name))
