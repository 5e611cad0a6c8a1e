from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit.metrics import (
    accuracy,
    average_gap,
    correct,
    dice,
    dice_scores,
    iou,
    iou_scores,
    per_class_accuracy,
    tug_of_war,
    tug_of_war_mia,
)

SAME = nn.Identity()  # the data sets below hold the logits themselves


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 50), st.integers(0, 99))
def test_accuracy_agrees_with_scikit_learn_at_any_batch_size(n: int, c: int, batch: int, seed: int) -> None:
    z, y = draw(seed, n, c), labels(seed, c, n)
    expected = accuracy_score(y.numpy(), z.numpy().argmax(axis=1))
    assert accuracy(SAME, TensorDataset(z, y), batch_size=batch) == pytest.approx(expected, abs=1e-12)


def test_accuracy_of_a_single_logit_and_of_masks() -> None:
    assert accuracy(SAME, TensorDataset(torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 1, 1]))) == 2 / 3
    z = torch.tensor([[[[5.0, -5.0], [5.0, 5.0]]]])
    y = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert accuracy(SAME, TensorDataset(z, y)) == 0.5


def test_correct_is_per_sample() -> None:
    assert correct(torch.eye(3), torch.tensor([0, 2, 2])).tolist() == [1.0, 0.0, 1.0]


def test_per_class_accuracy_is_recall_and_n_a_for_absent_classes() -> None:
    z, y = draw(0, 60, 5), labels(1, 4, 60)
    found = per_class_accuracy(SAME, TensorDataset(z, y), batch_size=7)
    expected = recall_score(y.numpy(), z.argmax(dim=1).numpy(), labels=[0, 1, 2, 3], average=None)
    assert found is not None
    assert [found[label] for label in range(4)] == pytest.approx(expected.tolist())
    assert found[4] is None


def test_per_class_accuracy_of_one_class_and_one_sample() -> None:
    assert per_class_accuracy(SAME, TensorDataset(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))) == {
        0: None,
        1: 1.0,
    }
    assert per_class_accuracy(SAME, TensorDataset(torch.tensor([[3.0]]), torch.tensor([1]))) == {
        0: None,
        1: 1.0,
    }


def test_per_class_accuracy_points_masks_to_iou() -> None:
    with pytest.raises(ValueError, match=r"expected one label a sample, .*use iou\(..., per_class=True\)"):
        per_class_accuracy(SAME, TensorDataset(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2)))


@pytest.mark.parametrize("metric", [accuracy, per_class_accuracy, iou, dice])
def test_an_empty_data_set_is_n_a_and_never_zero(metric) -> None:
    assert metric(SAME, TensorDataset(torch.zeros(0, 2, 4, 4), torch.zeros(0, 4, 4))) is None


@pytest.mark.parametrize("metric", [accuracy, per_class_accuracy, iou, dice])
def test_nan_logits_are_no_prediction(metric) -> None:
    z = torch.full((2, 2, 2, 2), torch.nan)
    with pytest.raises(ValueError, match="expected logits to be finite"):
        metric(SAME, TensorDataset(z, torch.zeros(2, 2, 2)))
    with pytest.raises(ValueError, match="expected logits to be finite"):
        correct(z, torch.zeros(2, 2, 2))


@pytest.mark.parametrize(("score", "oracle"), [(iou_scores, jaccard_score), (dice_scores, f1_score)])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_mask_scores_agree_with_scikit_learn_image_by_image(score, oracle, classes: int) -> None:
    z, y = draw(3, 6, classes, 5, 7), labels(4, max(classes, 2), 6, 5, 7)
    guess = (z[:, 0] > 0).long() if classes == 1 else z.argmax(dim=1)
    expected = [
        oracle(a.flatten(), b.flatten(), labels=range(max(classes, 2)), average=None, zero_division=1.0)
        for a, b in zip(y.numpy(), guess.numpy(), strict=True)
    ]
    np.testing.assert_allclose(score(z, y).numpy(), np.stack(expected), atol=1e-12)


def test_binary_layouts_of_masks_score_the_same() -> None:
    z, y = draw(5, 3, 1, 4, 4), labels(6, 2, 3, 4, 4)
    two = torch.cat([torch.zeros_like(z), z], dim=1)
    for logits, targets in ((z, y[:, None].float()), (two, y), (two, y[:, None])):
        torch.testing.assert_close(iou_scores(logits, targets), iou_scores(z, y))


def test_data_set_scores_are_means_over_images_not_over_batches() -> None:
    z, y = draw(7, 5, 1, 4, 4), labels(8, 2, 5, 1, 4, 4).float()
    hit = (z > 0).double() * y
    overlap, sizes = hit.sum(dim=(1, 2, 3)), ((z > 0).double() + y).sum(dim=(1, 2, 3))
    for batch_size in (1, 2, 5):
        data = TensorDataset(z, y)
        assert iou(SAME, data, batch_size=batch_size) == pytest.approx(float((overlap / (sizes - overlap)).mean()))
        assert dice(SAME, data, batch_size=batch_size) == pytest.approx(float((2 * overlap / sizes).mean()))


def test_empty_on_empty_is_one_and_empty_against_something_is_zero() -> None:
    background = torch.full((1, 1, 2, 2), -1.0)
    empty, full = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert iou(SAME, TensorDataset(background, empty)) == 1.0
    assert dice(SAME, TensorDataset(background, empty)) == 1.0
    assert iou(SAME, TensorDataset(background, full)) == 0.0
    assert dice(SAME, TensorDataset(-background, empty)) == 0.0


def test_several_classes_per_class_and_their_foreground_mean() -> None:
    z, y = draw(9, 4, 3, 6, 6), labels(10, 3, 4, 6, 6)
    per_class = iou(SAME, TensorDataset(z, y), per_class=True)
    assert per_class is not None
    assert list(per_class) == [0, 1, 2]
    assert iou(SAME, TensorDataset(z, y)) == pytest.approx((per_class[1] + per_class[2]) / 2)
    assert dice(SAME, TensorDataset(z, y), per_class=True) == pytest.approx(
        dict(enumerate(dice_scores(z, y).mean(dim=0).tolist()))
    )


@pytest.mark.parametrize("metric", [iou, dice])
def test_a_missed_object_scores_nothing_whatever_classes_are_absent(metric) -> None:
    y = torch.zeros(1, 4, 4, dtype=torch.int64)
    y[:, :2, :2] = 3
    nothing = nn.functional.one_hot(torch.zeros_like(y), 5).movedim(-1, 1).float()
    assert metric(SAME, TensorDataset(nothing, y)) == 0.0
    assert metric(SAME, TensorDataset(nothing, torch.zeros_like(y))) == 1.0
    assert metric(SAME, TensorDataset(nothing, y), per_class=True) == {
        0: pytest.approx(0.8, abs=0.1),
        1: 1,
        2: 1,
        3: 0,
        4: 1,
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(2, 7))
def test_several_classes_are_averaged_over_those_present(seed: int, classes: int) -> None:
    # Few pixels and many classes, so that most are absent; the oracle counts sets of pixels.
    z, y = draw(seed, 4, classes, 2, 2), labels(seed + 1, classes, 4, 2, 2)
    expected: dict[object, list[float]] = {iou: [], dice: []}
    for truth, guess in zip(y.flatten(1).numpy(), z.argmax(dim=1).flatten(1).numpy(), strict=True):
        shown = sorted((set(truth) | set(guess)) - {0})
        sides = [(set(np.flatnonzero(truth == c)), set(np.flatnonzero(guess == c))) for c in shown]
        expected[iou].append(float(np.mean([len(a & b) / len(a | b) for a, b in sides])) if sides else 1.0)
        expected[dice].append(float(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in sides])) if sides else 1.0)
    for metric in (iou, dice):
        assert metric(SAME, TensorDataset(z, y)) == pytest.approx(np.mean(expected[metric]), abs=1e-12)  # of rounding


def test_mask_scores_refuse_labels() -> None:
    with pytest.raises(ValueError, match=r"expected logits of masks, \(B, C, H, W\), but got shape \(2, 3\)"):
        iou_scores(torch.zeros(2, 3), torch.zeros(2))


SCORES = {"forget": 0.6, "retain": 0.9, "test": 0.8, "membership": 0.55}
REFERENCE = {"forget": 0.5, "retain": 1.0, "test": 0.85, "membership": 0.5, "ignored": 7.0}


def test_distances_to_the_reference_by_hand() -> None:
    assert average_gap(SCORES, REFERENCE) == pytest.approx((0.1 + 0.1 + 0.05 + 0.05) / 4)
    assert tug_of_war(SCORES, REFERENCE) == pytest.approx(0.9 * 0.9 * 0.95)
    assert tug_of_war_mia(SCORES, REFERENCE) == pytest.approx(0.95 * 0.9 * 0.95)


def test_the_reference_itself_is_ideal() -> None:
    assert average_gap(REFERENCE, REFERENCE) == 0
    assert tug_of_war(REFERENCE, REFERENCE) == tug_of_war_mia(REFERENCE, REFERENCE) == 1


@pytest.mark.parametrize("distance", [average_gap, tug_of_war, tug_of_war_mia])
def test_distances_to_the_reference_are_n_a_or_refuse(distance) -> None:
    assert distance(SCORES, {**REFERENCE, "test": None}) is None
    assert distance({**SCORES, "retain": None}, REFERENCE) is None
    with pytest.raises(ValueError, match=r"expected reference to hold \[.*'test'.*\], but got \['forget'\]"):
        distance(SCORES, {"forget": 0.5})
    with pytest.raises(ValueError, match=r"expected values\['retain'\] in \[0, 1\], but got 90"):
        distance({**SCORES, "retain": 90}, REFERENCE)
    with pytest.raises(ValueError, match=r"expected values\['test'\] in \[0, 1\], but got nan"):
        distance({**SCORES, "test": float("nan")}, REFERENCE)


def test_tug_of_war_does_not_need_the_score_it_replaces() -> None:
    assert tug_of_war({**SCORES, "membership": None}, REFERENCE) == pytest.approx(0.9 * 0.9 * 0.95)
    assert tug_of_war_mia({**SCORES, "forget": None}, REFERENCE) == pytest.approx(0.95 * 0.9 * 0.95)
