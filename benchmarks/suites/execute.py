"""What a worker does with one node: the same function whoever calls it, here or on another machine."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import algorithms
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data import DataBundle, TensorImages, in_order
from unlearn_kit.engine import FitResult, train
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import plain
from unlearn_kit.hashing import hash_config, hash_model, sample_hashes
from unlearn_kit.judging import beside_itself
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.memory import device_peak, reset_device_peak, reset_resident_peak, resident_peak
from unlearn_kit.metrics import Evaluation, evaluate, evaluate_seeds
from unlearn_kit.modules import cpu_state, device_of, evaluating
from unlearn_kit.seeding import derive, isolated

from ..setup.devices import gpu_of_worker
from ..setup.recipes import Blueprint
from ..setup.scenarios import Scenario
from .forgotten import confusion, division, forget_losses, group_scores, pictures
from .plan import Node, code_of, frozen_options, open_data
from .records import FORMAT, Record, is_trained
from .revise import Revised, revise, thin


@dataclass(frozen=True)
class Product:
    """What came of a node.

    Attributes:
        record: What is written, see :mod:`.store`.
        tensors: Weights, difficulties or predicted masks.
        samples: Hashes of the forgotten samples; of a reference's result only.
    """

    record: Record
    tensors: dict[str, Tensor] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Draft:
    """A product whose record has only what the work itself found, as the record's file will hold it."""

    record: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """A node's end: a product, or why there is none.

    Attributes:
        key: The node's.
        product: What came of it; None after an error.
        reason: The error's last line.
        trace: Its traceback.
        died: Whether its worker died, rather than the node itself being wrong.
    """

    key: str
    product: Product | None = None
    reason: str = ""
    trace: str = ""
    died: bool = False


def execute_safely(node: Node, product: Callable[[str], Product], place: int = 0) -> Finished:
    """Do a node's work as :func:`execute`, with any error as a value, which can be sent, written and read.

    Args:
        node: What to do.
        product: Gives what the node of a key made; its errors are the node's.
        place: The worker's number, which decides on which of several GPUs it works.
    """
    try:
        inputs = {role: product(key) for role, key in node.needs.items()}
        with gpu_of_worker(node.config["device"], place):
            return Finished(node.key, execute(node, inputs))
    except Exception as error:
        return failed(node, error)


def failed(node: Node, error: Exception) -> Finished:
    """Return the end of a node that ``error`` ended."""
    return Finished(node.key, None, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def warm_up() -> None:
    """Train for one step, since the first step of a process loads parts of torch: no run should pay for that."""
    fresh = Blueprint("mlp", 2, 1)()
    train(fresh, TensorImages(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])), epochs=1)


def execute(node: Node, inputs: Mapping[str, Product]) -> Product:
    """Do a node's work.

    Args:
        node: What to do.
        inputs: The products of ``node.needs``, by role.

    Raises:
        ValueError: When the code here is not that which the node was planned with.
    """
    if node.code != code_of(node.kind):
        raise ValueError(
            f"expected the code that makes {node.name!r} to be what it was planned with, but it is another here; "
            "run the suite again in a fresh process, with one version of the code wherever it runs"
        )
    reset_resident_peak()
    reset_device_peak(node.config["device"])
    started = time.perf_counter()
    work = {"difficulty": _difficulty, "original": _original, "reference": _reference, "result": _result}[node.kind]
    draft = work(node, inputs)
    cost = {
        **draft.record.pop("cost"),
        "node_seconds": time.perf_counter() - started,
        "peak_memory_bytes": resident_peak(),
        "device_memory_bytes": device_peak(node.config["device"]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    common = {
        "format": FORMAT,
        "key": node.key,
        "kind": node.kind,
        "name": node.name,
        "status": "ok",
        "reason": None,
        "config": dict(node.config),
        "needs": dict(node.needs),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    record = Record.from_dict(plain({**common, **draft.record, "cost": cost}), node.name)
    return Product(record, draft.tensors, draft.samples)


def _bundle(node: Node) -> tuple[DataBundle, str]:
    data = node.config["data"]
    bundle, digest = open_data(data["name"], frozen_options(data["options"]))
    if digest != data["hash"]:
        raise ValueError(f"expected the data of {data['name']!r} to be what was planned for, but they have changed")
    return bundle, digest


@lru_cache(maxsize=4)
def _tasks(
    data: str, options: tuple[tuple[str, Any], ...], rules: tuple[str, ...], seed: int, difficulty: _Held | None
) -> tuple[list[UnlearnTask], UnlearnTask]:
    scenario, (bundle, _) = Scenario(rules), open_data(data, options)
    requests = scenario.requests(bundle, seed, None if difficulty is None else difficulty.values)
    return requests, scenario.whole(requests)


@dataclass(frozen=True)
class _Held:
    """A tensor known by the key it is stored under."""

    key: str
    values: Tensor = field(compare=False)


def _task(node: Node, inputs: Mapping[str, Product], seed: int) -> tuple[list[UnlearnTask], UnlearnTask]:
    data, held = node.config["data"], inputs.get("difficulty")
    difficulty = None if held is None else _Held(node.needs["difficulty"], held.tensors["difficulty"])
    return _tasks(data["name"], frozen_options(data["options"]), tuple(node.config["forget"]), seed, difficulty)


def _network(node: Node, bundle: DataBundle) -> Blueprint:
    return Blueprint(node.config["model"], bundle.num_classes, channels=bundle.train[0][0].shape[0])


def _loss(bundle: DataBundle, stream: str) -> L.Term:
    return L.dice_bce(on=stream) if bundle.task == "segmentation" else L.cross_entropy(on=stream)


def _fit_fresh(node: Node, bundle: DataBundle, dataset: Any, seed: int) -> FitResult:
    with isolated(seed):
        fresh = _network(node, bundle)().to(node.config["device"])
    return train(fresh, dataset, seed=seed, objective=_loss(bundle, "train"), **node.config["training"])


def _original(node: Node, _inputs: Mapping[str, Product]) -> _Draft:
    bundle, digest = _bundle(node)
    cpu = time.process_time()
    fitted = _fit_fresh(node, bundle, bundle.train, node.config["seed"])
    return _trained(fitted.model.eval(), fitted.seconds, time.process_time() - cpu, fitted.history, digest)


def _reference(node: Node, inputs: Mapping[str, Product]) -> _Draft:
    bundle, digest = _bundle(node)
    _, whole = _task(node, inputs, node.config["seed"])
    again = node.config.get("again")
    seed = node.config["seed"] if again is None else derive(node.config["seed"], "reference", again)
    network = _network(node, bundle)
    cpu = time.process_time()
    # Only the architecture of what it is given matters, so the original need not be waited for.
    result = algorithms.retrain(
        network().eval(),
        whole,
        build=network,
        seed=seed,
        device=node.config["device"],
        objective=_loss(bundle, "retain"),
        **node.config["training"],
    )
    return _trained(result.model.eval(), result.seconds, time.process_time() - cpu, result.history, digest)


def _difficulty(node: Node, _inputs: Mapping[str, Product]) -> _Draft:
    """Measure each training sample's loss under a model trained on the held-out data alone."""
    bundle, digest = _bundle(node)
    if bundle.task != "classification":
        raise ValueError(f"expected outliers of class labels, but {bundle.name!r} has masks")
    cpu = time.process_time()
    fitted = _fit_fresh(node, bundle, bundle.test, derive(node.config["seed"], "difficulty"))
    with evaluating(fitted.model), torch.no_grad():
        device = device_of(fitted.model)
        losses = [label_cross_entropy(fitted.model(x), y).cpu() for x, y in in_order(bundle.train, device=device)]
    found = _trained(fitted.model, fitted.seconds, time.process_time() - cpu, fitted.history, digest)
    return replace(found, tensors={"difficulty": torch.cat(losses)})


def _trained(model: nn.Module, seconds: float, cpu: float, history: list[dict[str, Any]], digest: str) -> _Draft:
    record = {
        "hashes": {"data": digest, "model": hash_model(model)},
        "history": thin(history),
        "parameters": sum(p.numel() for p in model.parameters()),
        "cost": {"seconds": seconds, "cpu_seconds": cpu},
    }
    return _Draft(record, cpu_state(model))


def _restore(node: Node, bundle: DataBundle, product: Product) -> nn.Module:
    model: nn.Module = _network(node, bundle)()
    model.load_state_dict(product.tensors)
    return model.to(node.config["device"]).eval()


def _result(node: Node, inputs: Mapping[str, Product]) -> _Draft:
    bundle, digest = _bundle(node)
    config, method = node.config, node.config["method"]["name"]
    requests, whole = _task(node, inputs, config["seeds"]["training"])
    with isolated(0):  # fresh weights that are overwritten at once
        start = _restore(node, bundle, inputs[method if is_trained(method) else "original"])
    theirs = _baseline(inputs) if "baseline" in node.needs else {}
    before = hash_model(start)
    record: dict[str, Any] = {"hashes": {"data": digest, "before": before}, "class_names": list(bundle.class_names)}
    samples: list[str] = []
    if method == "reference":
        samples = sample_hashes(whole.forget)
        record["hashes"]["forget"] = hash_config(sorted(samples))
        record["forget_samples"] = len(samples)
    else:
        record["hashes"]["forget"] = inputs["baseline"].record.hashes["forget"]
        record["forget_samples"] = inputs["baseline"].record.forget_samples
    parts = division(whole, bundle, config["forget"])
    if parts is not None:
        record["forget_groups"] = {"name": parts.plural, "touched": parts.touched, "groups": parts.groups}
    bare = is_trained(method)
    revised = Revised([start] * len(requests))
    if not bare:
        revised = revise(node.config, start, requests, _given(node, bundle, inputs))
    record |= revised.record()
    if bare:
        record["cost"] = inputs[method].record.cost.as_dict()
    if revised.reason is not None:
        return _Draft({**record, "status": revised.status, "reason": revised.reason, "evaluations": []}, {}, samples)
    final = revised.models[-1]
    record["hashes"]["model"] = before if bare else hash_model(final)
    try:
        record["evaluations"] = [
            {"seed": seed, "scores": (beside_itself(found) if method == "reference" else _alone(found)).as_dict()}
            for seed, found in evaluate_seeds(final, whole, theirs, seeds=config["seeds"]["evaluation"]).items()
        ]
        record |= {
            "group_scores": group_scores(final, whole, bundle, config["forget"]),
            "confusion": confusion(final, whole),
            "forget_losses": forget_losses(final, whole),
        }
        record["requests"] = _by_request(revised, requests, config) if len(requests) > 1 else []
    except ValueError as error:  # finite weights whose outputs are not
        return _Draft({**record, "status": "diverged", "reason": str(error), "evaluations": []}, {}, samples)
    return _Draft(record, pictures(final, whole, with_images=method == "reference"), samples)


def _given(node: Node, bundle: DataBundle, inputs: Mapping[str, Product]) -> list[nn.Module]:
    """Return the references that a yardstick is given: those it is not judged by, where there are any."""
    if not node.config["method"].get("yardstick"):
        return []
    others = [role for role in inputs if role != "reference" and role.startswith("reference")]
    with isolated(0):  # fresh weights that are overwritten at once
        return [_restore(node, bundle, inputs[role]) for role in others or ["reference"]]


def _baseline(inputs: Mapping[str, Product]) -> dict[int, Evaluation]:
    """Return the reference's scores by evaluation seed; none where its outputs are not finite: distances are n/a."""
    return {found.seed: found.evaluation for found in inputs["baseline"].record.evaluations}


def _alone(found: Evaluation) -> Evaluation:
    """Return the evaluation without the reference's, which is a record of its own; the distances to it stay."""
    return replace(found, reference=None)


def _by_request(revised: Revised, requests: list[UnlearnTask], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Score each request and every earlier one after it was met, and what is still to be kept."""
    seed = config["seeds"]["evaluation"][0]
    rows = []
    for place, (model, now) in enumerate(zip(revised.models, requests, strict=True)):
        scores = []
        for earlier in range(place + 1):
            task = replace(requests[earlier], retain=now.retain, retain_test=now.retain_test, kind=now.kind)
            found = evaluate(model, task, seed=seed).as_dict()
            kept = {name: found[name] for name in ("forget", "forget_test", "retain", "retain_test", "membership")}
            scores.append({"rule": config["forget"][earlier], "samples": found["sizes"]["forget"], **kept})
        rows.append({"after": config["forget"][place], "scores": scores})
    return rows
