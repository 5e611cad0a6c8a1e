"""No metric turns NaN into a figure: each refuses it by name, whatever it is given it in."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, metrics
from unlearn_kit.metrics import membership, utility

NAN = math.nan
LOGITS, LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
MASKS = LOGITS[:, :, None, None].expand(2, 2, 3, 3), LABELS[:, None, None].expand(2, 3, 3)
TABLE = torch.arange(12.0).reshape(6, 2)
FOUR = {"forget": 0.5, "retain": 0.5, "test": 0.5, "membership": 0.5}

torch.manual_seed(0)
IMAGES = TensorDataset(torch.rand(24, 4), torch.arange(24) % 2)
SHAPES = TensorDataset(torch.rand(4, 2, 3, 3), torch.arange(36).reshape(4, 3, 3) % 2)
TASK = UnlearnTask.forget_class(IMAGES, IMAGES, 0)
MASK_MODEL = nn.Conv2d(2, 2, 1)
MODEL = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def spoilt(values: Tensor, bad: float = NAN) -> Tensor:
    changed = values.clone()
    changed.view(-1)[-1] = bad
    return changed


def with_nan(model: nn.Module) -> nn.Module:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(changed.parameters())).view(-1)[0] = NAN
    return changed


BAD = with_nan(MODEL)
FINDINGS = TensorDataset(torch.rand(6, 4), torch.tensor([[1, 0], [0, 1], [1, 1]] * 2))

# Every function of the room by what it is given, and those that take neither scores, nor logits, nor models.
CALLS: dict[str, list[Callable[[], Any]]] = {
    "accuracy": [lambda: metrics.accuracy(BAD, IMAGES)],
    "activation_distance": [
        lambda: metrics.activation_distance(BAD, MODEL, IMAGES),
        lambda: metrics.activation_distance(MODEL, BAD, IMAGES),
    ],
    "activation_distances": [
        lambda: metrics.activation_distances(spoilt(LOGITS), LOGITS),
        lambda: metrics.activation_distances(LOGITS, spoilt(LOGITS, math.inf)),
    ],
    "agreement": [lambda: metrics.agreement(spoilt(LOGITS), LOGITS), lambda: metrics.agreement(LOGITS, spoilt(LOGITS))],
    "auroc": [lambda: metrics.auroc(BAD, FINDINGS)],
    "average_gap": [
        lambda: metrics.average_gap(FOUR | {"test": NAN}, FOUR),
        lambda: metrics.average_gap(FOUR, FOUR | {"membership": NAN}),
    ],
    "class_leakage": [
        lambda: metrics.class_leakage(BAD, TASK3, MODEL3),
        lambda: metrics.class_leakage(MODEL3, TASK3, with_nan(MODEL3)),
    ],
    "completeness": [lambda: metrics.completeness(BAD, MODEL, IMAGES)],
    "correct": [
        lambda: metrics.correct(spoilt(LOGITS), LABELS),
        lambda: metrics.correct(LOGITS, spoilt(LABELS.float())),
    ],
    "dice": [lambda: metrics.dice(with_nan(MASK_MODEL), SHAPES)],
    "dice_scores": [lambda: metrics.dice_scores(spoilt(MASKS[0]), MASKS[1])],
    "evaluate": [lambda: metrics.evaluate(BAD, TASK), lambda: metrics.evaluate(MODEL, TASK, BAD)],
    "evaluate_seeds": [lambda: metrics.evaluate_seeds(BAD, TASK, seeds=[0])],
    "exact_match": [lambda: metrics.exact_match(BAD, FINDINGS)],
    "feature_distance": [
        lambda: metrics.feature_distance(BAD, MODEL, IMAGES),
        lambda: metrics.feature_distance(Masking(BAD), Masking(MODEL), IMAGES),
    ],
    "finding_scores": [lambda: metrics.finding_scores(BAD, FINDINGS)],
    "iou": [lambda: metrics.iou(with_nan(MASK_MODEL), SHAPES)],
    "iou_scores": [lambda: metrics.iou_scores(spoilt(MASKS[0]), MASKS[1])],
    "js_divergence": [lambda: metrics.js_divergence(BAD, MODEL, IMAGES)],
    "js_divergences": [
        lambda: metrics.js_divergences(spoilt(LOGITS), LOGITS),
        lambda: metrics.js_divergences(LOGITS, spoilt(LOGITS, -math.inf)),
    ],
    "klom": [lambda: metrics.klom(spoilt(TABLE), TABLE), lambda: metrics.klom(TABLE, spoilt(TABLE, math.inf))],
    "klom_floor": [lambda: metrics.klom_floor(spoilt(TABLE))],
    "klom_values": [
        lambda: metrics.klom_values(spoilt(TABLE), TABLE),
        lambda: metrics.klom_values(TABLE, TABLE, clip=NAN),
    ],
    "layerwise_distance": [
        lambda: metrics.layerwise_distance(BAD, MODEL),
        lambda: metrics.layerwise_distance(MODEL, BAD),
    ],
    "beside_references": [lambda: metrics.beside_references(lambda _: NAN, MODEL, [MODEL])],
    "loss_auc": [lambda: metrics.loss_auc(BAD, IMAGES, IMAGES)],
    "membership_inference": [lambda: metrics.membership_inference(BAD, TASK)],
    "paired_comparison": [lambda: metrics.paired_comparison([NAN, 1.0], [1.0, 2.0])],
    "per_class_accuracy": [lambda: metrics.per_class_accuracy(BAD, IMAGES)],
    "predict": [lambda: metrics.predict(BAD, IMAGES)],
    "probability_smaller": [
        lambda: metrics.probability_smaller(torch.tensor([NAN]), torch.tensor([1.0])),
        lambda: metrics.probability_smaller(torch.tensor([1.0]), torch.tensor([NAN, 2.0])),
        lambda: metrics.probability_smaller([NAN], [1.0]),  # type: ignore[arg-type]
    ],
    "quantize_attack": [lambda: metrics.quantize_attack(BAD, TASK)],
    "split_score": [lambda: metrics.split_score(BAD, TASK, "retain")],
    "summary": [lambda: metrics.summary([1.0, NAN]), lambda: metrics.summary([1.0, 2.0], confidence=NAN)],
    "true_positive_rate": [
        lambda: metrics.true_positive_rate(torch.tensor([NAN]), torch.tensor([1.0])),
        lambda: metrics.true_positive_rate(torch.tensor([1.0]), torch.tensor([NAN, 0.0])),
        lambda: metrics.true_positive_rate(LOGITS[0], LOGITS[1], at=NAN),
        lambda: metrics.true_positive_rate(LOGITS[0], LOGITS[1], at=2),
        lambda: metrics.true_positive_rate(LOGITS[0], LOGITS[1], at=-0.1),
    ],
    "tug_of_war": [lambda: metrics.tug_of_war(FOUR | {"retain": NAN}, FOUR)],
    "tug_of_war_mia": [lambda: metrics.tug_of_war_mia(FOUR, FOUR | {"membership": NAN})],
    "u_lira": [lambda: metrics.u_lira(spoilt(TABLE), TABLE), lambda: metrics.u_lira(TABLE, spoilt(TABLE))],
    "variance_components": [lambda: metrics.variance_components([[1.0, NAN]])],
    "zrf": [lambda: metrics.zrf(BAD, IMAGES, incompetent=MODEL), lambda: metrics.zrf(MODEL, IMAGES, incompetent=BAD)],
}
OTHERS = {"class_matched", "independent_seeds", "measured"}


class Masking(nn.Module):
    """Hides what is wrong inside from whoever looks at the logits alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(self.inner(x))


THREE = TensorDataset(torch.rand(24, 4), torch.arange(24) % 3)
TASK3 = UnlearnTask.forget_class(THREE, THREE, 0)
MODEL3 = nn.Sequential(nn.Linear(4, 3))


def test_every_function_of_the_room_is_here() -> None:
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert CALLS.keys() | OTHERS == functions


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, calls in CALLS.items() for place in range(len(calls))]
)
def test_what_is_not_finite_is_refused_and_never_a_figure(name: str, place: int) -> None:
    with pytest.raises(ValueError, match=r"expected .*(finite|NaN|nan|in [(\[])"):
        CALLS[name][place]()


@pytest.mark.parametrize("feature", [*membership.FEATURES.values(), utility.correct])
@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_what_an_attack_reads_of_logits_that_are_not_finite_is_refused(feature: Any, bad: float) -> None:
    for logits, labels in ((LOGITS, LABELS), MASKS):
        with pytest.raises(ValueError, match="expected logits to be finite"):
            feature(spoilt(logits, bad), labels)


def test_infinite_scores_are_ranked() -> None:
    first, second = torch.tensor([-math.inf, 0.0]), torch.tensor([0.0, math.inf])
    assert metrics.probability_smaller(first, second) == 0.875  # 3 of 4 pairs, and half a tie
    assert metrics.true_positive_rate(second, first, at=0.5) == 1.0


def test_scores_of_two_types_are_compared_as_numbers() -> None:
    count, half = torch.tensor([2**24 + 1]), torch.tensor([2.0**24])  # The same in float32.
    assert metrics.probability_smaller(half, count) == 1.0
    assert metrics.probability_smaller([1, 2], [2, 3]) == 0.875  # type: ignore[arg-type]


@pytest.mark.parametrize("values", ["ab", None, [[1.0]], torch.ones(2, 2), torch.ones(2, dtype=torch.complex64), ["a"]])
def test_what_is_no_row_of_scores_is_named(values: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"expected first(\[0\])? to be"):
        metrics.probability_smaller(values, torch.ones(2))
    with pytest.raises((TypeError, ValueError), match=r"expected non_members(\[0\])? to be"):
        metrics.true_positive_rate(torch.ones(2), values)


@pytest.mark.parametrize("labels", [[0, 1], torch.tensor([NAN]), torch.zeros(1, 1, dtype=torch.int64)])
def test_what_is_no_row_of_labels_is_named(labels: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected wanted to"):
        metrics.class_matched(labels, LABELS)
    with pytest.raises((TypeError, ValueError), match="expected available to"):
        metrics.class_matched(LABELS, labels)
