"""Auditing leaves no trace: one table over every metric."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unlearn_kit import UnlearnTask, audits, metrics, models


class Drawing(Dataset):
    """Samples that draw from every global random state when they are read, as an augmentation does."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(1).item() + np.random.rand() + random.random()  # noqa: NPY002
        return self.inputs[index] + 0.01 * noise, self.targets[index]


class Case(NamedTuple):
    """What a metric is called with."""

    model: nn.Module
    reference: nn.Module
    task: UnlearnTask


def scarred(name: str, channels: int, classes: int, seed: int, **options: Any) -> nn.Module:
    """A network whose state is as odd as a user's may be: mixed modes, frozen weights, gradients left over."""
    model = models.build(name, classes, channels, seed=seed, **options)
    model.append(nn.Dropout(0.3)) if isinstance(model, nn.Sequential) else None
    model.train()
    modules = list(model.modules())
    modules[len(modules) // 2].training = False
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    return model


def pixels(n: int, *shape: int, seed: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def classification() -> Case:
    train = Drawing(pixels(30, 1, 8, 8, seed=0), torch.arange(30) % 3)
    test = Drawing(pixels(18, 1, 8, 8, seed=1), torch.arange(18) % 3)
    pair = (scarred("small-cnn", 1, 3, seed, width=2) for seed in (0, 1))
    return Case(*pair, UnlearnTask.forget_class(train, test, 1))


def segmentation() -> Case:
    train, test = (Drawing(pixels(n, 3, 8, 8, seed=n), (pixels(n, 8, 8, seed=n + 1) > 0.5).long()) for n in (8, 6))
    pair = (scarred("unet", 3, 2, seed, widths=(4, 4), decoder_widths=(4, 4)) for seed in (0, 1))
    return Case(*pair, UnlearnTask.forget_random(train, test, 0.5))


def findings() -> Case:
    rows = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]]).repeat(6, 1)
    train, test = (Drawing(pixels(n, 1, 8, 8, seed=n), rows[:n]) for n in (24, 12))
    pair = (scarred("small-cnn", 1, 3, seed, width=2) for seed in (0, 1))
    return Case(*pair, UnlearnTask.forget_random(train, test, 0.5))


KINDS = {"classification": classification, "segmentation": segmentation, "multilabel": findings}
BOTH, FINDINGS = ("classification", "segmentation"), ("multilabel",)
MASKS, LABELS = ("segmentation",), ("classification",)
RELEARN: dict[str, Any] = {"original": 1.0, "max_steps": 2, "every": 1, "batch_size": 4}


class Row(NamedTuple):
    """How a metric is called, and the kinds of task it is for."""

    call: Callable[[Case], object]
    kinds: tuple[str, ...] = BOTH


def on_data(name: str) -> Callable[[Case], object]:
    return lambda c: getattr(metrics, name)(c.model, c.task.forget, batch_size=4)


def on_two(name: str) -> Callable[[Case], object]:
    return lambda c: getattr(metrics, name)(c.model, c.reference, c.task.forget, batch_size=4)


TABLE: dict[str, Row] = {
    "accuracy": Row(on_data("accuracy")),
    "activation_distance": Row(on_two("activation_distance")),
    "auroc": Row(on_data("auroc"), FINDINGS),
    "beside_references": Row(
        lambda c: metrics.beside_references(lambda m: metrics.split_score(m, c.task, "forget"), c.model, [c.reference])
    ),
    "anamnesis_index": Row(lambda c: audits.anamnesis_index(c.model, c.task, c.reference, **RELEARN)),
    "class_leakage": Row(lambda c: metrics.class_leakage(c.model, c.task, c.reference), LABELS),
    "completeness": Row(on_two("completeness")),
    "dice": Row(on_data("dice"), MASKS),
    "ensemble_margins": Row(
        lambda c: audits.ensemble_margins(audits.Ensemble.of([c.model, c.reference]), c.task.forget), LABELS
    ),
    "evaluate": Row(lambda c: metrics.evaluate(c.model, c.task, c.reference), tuple(KINDS)),
    "evaluate_seeds": Row(lambda c: metrics.evaluate_seeds(c.model, c.task, c.reference, seeds=(0, 1))),
    "exact_match": Row(on_data("exact_match"), FINDINGS),
    "few_shot_recovery": Row(
        lambda c: audits.few_shot_recovery(c.model, c.task, c.reference, shots=(1,), draws=2), LABELS
    ),
    "finding_scores": Row(on_data("finding_scores"), FINDINGS),
    "feature_distance": Row(on_two("feature_distance")),
    "iou": Row(on_data("iou"), MASKS),
    "js_divergence": Row(on_two("js_divergence")),
    "layerwise_distance": Row(lambda c: metrics.layerwise_distance(c.model, c.reference)),
    "linear_probe": Row(lambda c: audits.linear_probe(c.model, c.task, c.reference, pixels=4)),
    "loss_auc": Row(lambda c: metrics.loss_auc(c.model, c.task.forget, c.task.retain_test)),
    "membership_inference": Row(
        lambda c: [metrics.membership_inference(c.model, c.task, attack=name) for name in ("logistic", "svc")]
    ),
    "neighbour_leakage": Row(lambda c: audits.neighbour_leakage(c.model, c.task, [c.reference]), LABELS),
    "per_class_accuracy": Row(on_data("per_class_accuracy"), LABELS),
    "predict": Row(on_data("predict")),
    "quantize_attack": Row(lambda c: metrics.quantize_attack(c.model, c.task)),
    "reference_membership": Row(lambda c: audits.reference_membership(c.model, c.task, [c.reference]), tuple(KINDS)),
    "relearn_time": Row(lambda c: audits.relearn_time(c.model, c.task, on="retain", **RELEARN)),
    "residual_knowledge": Row(
        lambda c: audits.residual_knowledge(c.model, c.task, c.reference, copies=2, batch_size=4), LABELS
    ),
    "split_score": Row(lambda c: metrics.split_score(c.model, c.task, "forget")),
    "zrf": Row(on_data("zrf")),
}

# Values and types, and functions of numbers, logits or time.
WITHOUT_A_MODEL = {
    "AnamnesisIndex", "BesideReferences", "ClassLeakage", "Cost", "Ensemble", "Evaluation", "FEATURES",
    "FewShotReport", "FindingScores", "Klom", "LayerDistances", "MembershipReport", "NeighbourLeakage",
    "PairedComparison", "ProbeReport", "QuantizedScores", "Reading", "ReferenceMembership", "RelearnReport",
    "ResidualKnowledge", "Seeds",
    "ShadowAudit", "ShadowReport", "Summary", "TensorCache", "ULira", "VarianceComponents", "activation_distances",
    "agreement", "average_gap", "class_matched", "correct", "dice_scores", "independent_seeds", "iou_scores",
    "js_divergences", "klom", "klom_floor", "klom_values", "measured", "paired_comparison", "probability_smaller",
    "summary", "train_ensemble", "true_positive_rate", "tug_of_war", "tug_of_war_mia", "u_lira", "variance_components",
    "with_random_labels",
}  # fmt: skip


def test_the_table_holds_every_metric() -> None:
    assert set(TABLE) | WITHOUT_A_MODEL == {*metrics.__all__, *audits.__all__}
    assert not set(TABLE) & WITHOUT_A_MODEL


def held(tensor: Tensor | None) -> tuple[int, int, bytes] | None:
    """Which tensor it is, how often it was written to, and what it holds, to the bit."""
    return None if tensor is None else (id(tensor), tensor._version, tensor.detach().numpy().tobytes())


def trace(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an audit could change."""
    return {
        "weights": {name: held(tensor) for name, tensor in model.state_dict(keep_vars=True).items()},
        "gradients": [held(p.grad) for p in model.parameters()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "modes": [(name, module.training) for name, module in model.named_modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def surroundings() -> list[Any]:
    """The global state of the process that an audit could change."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    return [
        random.getstate(),
        (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    ]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for name, row in TABLE.items() for kind in row.kinds])
def test_an_audit_changes_nothing(kind: str, name: str) -> None:
    case = KINDS[kind]()
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    kept = [getattr(case.task, split).dataset for split in ("forget", "retain_test")]

    def everything() -> list[Any]:
        data = [(held(data.inputs), held(data.targets)) for data in kept]
        return [trace(case.model), trace(case.reference), data, surroundings()]

    before = everything()
    assert TABLE[name].call(case) is not None
    assert everything() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda m: next(m.parameters()).data.add_(1.0),
        lambda m: next(m.buffers()).add_(1.0),
        lambda m: m.eval(),
        lambda m: m.requires_grad_(True),
        lambda m: m.zero_grad(),
        lambda m: list(m.parameters())[-1].grad.mul_(2.0),
        lambda m: m.register_forward_hook(print),
        lambda m: setattr(m, "note", 1),
    ],
)
def test_the_trace_shows_whatever_an_audit_could_change(change: Callable[[nn.Module], object]) -> None:
    model = classification().model
    before = trace(model)
    assert trace(model) == before
    change(model)
    assert trace(model) != before
