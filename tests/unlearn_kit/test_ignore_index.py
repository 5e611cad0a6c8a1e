"""Pixels that nobody labelled: no task, loss, search or metric counts them, and masks of fractions are read one way."""

from __future__ import annotations

import contextlib
import inspect
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

import algorithms as A
from unlearn_kit import UnlearnTask, engine, metrics, models
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data import TensorImages, load_tensors, with_ignore_index
from unlearn_kit.gradients import cross_entropy, mean_gradients
from unlearn_kit.losses import Batch
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.metrics import membership
from unlearn_kit.outputs import IGNORE

CLASSES, SIDE = 3, 6
MARK = 255
X = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
Y = torch.randint(CLASSES, (6, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
UNLABELLED = torch.rand(Y.shape, generator=torch.Generator().manual_seed(2)) < 0.3
MARKED = Y.masked_fill(UNLABELLED, MARK)
LOGITS = torch.randn(6, CLASSES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


class Read(Dataset):
    """Hides its masks until they are read."""

    def __init__(self, masks) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index):
        return X[index], self.masks[index]


WAYS = {
    "tensors": lambda masks: TensorDataset(X, masks),
    "images": lambda masks: TensorImages(X, masks),
    "bytes": lambda masks: TensorImages(X, masks.to(torch.uint8)),
    "wide": lambda masks: TensorDataset(X, masks.to(torch.uint16)),
    "numpy": lambda masks: Read(masks.numpy().astype(np.uint8)),
    "read": Read,
}


def network(width: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, width, 1))


class Fixed(nn.Module):
    """Gives each image the logits of its place, which its first pixel tells."""

    def __init__(self, logits=LOGITS) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("logits", logits)

    def forward(self, x):
        places = [(X[:, 0, 0, 0] == pixel).nonzero().item() for pixel in x[:, 0, 0, 0]]
        return self.scale * self.logits[places]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mark", [255, -1])
def test_tasks_leave_the_mark_out_of_the_classes(way, mark):
    if mark < 0 and way in ("bytes", "wide", "numpy"):
        pytest.skip("unsigned numbers hold no -1")
    data = WAYS[way](Y.masked_fill(UNLABELLED, mark))
    for task in (
        UnlearnTask.forget_samples(data, data, [0, 2], ignore_index=mark),
        UnlearnTask.forget_random(data, data, 0.5, ignore_index=mark),
        UnlearnTask.forget_mask_class(data, data, 2, ignore_index=mark),
        UnlearnTask.forget_samples(data, data, [0], ignore_index=mark, num_classes=3),
    ):
        assert (task.num_classes, task.ignore_index) == (CLASSES, mark)
        assert load_tensors(task.retain)[1].unique().tolist() == [
            IGNORE, *(label for label in range(CLASSES) if label not in task.forget_classes)
        ]  # fmt: skip
    chosen = UnlearnTask.forget_samples(data, data, [0, 2], ignore_index=mark)
    assert torch.equal(load_tensors(chosen.forget)[1].long(), Y.masked_fill(UNLABELLED, IGNORE)[[0, 2]])
    assert chosen.on_validation().ignore_index == mark


@pytest.mark.parametrize("way", WAYS)
def test_a_mark_that_is_not_named_is_refused_with_the_remedy(way):
    data = WAYS[way](MARKED)
    with pytest.raises(ValueError, match=r"but got label 255 beside \[0, 1, 2\]; ignore_index= names the label"):
        UnlearnTask.forget_samples(data, data, [0])
    with pytest.raises(ValueError, match=r"the labels of train in 0..2, but got 0..255; ignore_index="):
        UnlearnTask.forget_samples(data, data, [0], num_classes=3)
    with pytest.raises(ValueError, match=r"class indices in 0..2, but got 0..255; pass ignore_index="):
        metrics.iou(Fixed(), data)


def test_negative_marks_are_refused_too_unless_named():
    data = TensorDataset(X, Y.masked_fill(UNLABELLED, -100))
    with pytest.raises(ValueError, match="expected labels of at least 0, but got -100; ignore_index="):
        UnlearnTask.forget_samples(data, data, [0])
    assert UnlearnTask.forget_samples(data, data, [0], ignore_index=-100).num_classes == CLASSES


def test_minus_one_needs_no_name():
    minus = TensorDataset(X, Y.masked_fill(UNLABELLED, -1))
    named = TensorDataset(X, Y.masked_fill(UNLABELLED, 255))
    tasks = (
        UnlearnTask.forget_samples(minus, minus, [0]),
        UnlearnTask.forget_samples(named, named, [0], ignore_index=255),
    )
    model = nn.Conv2d(X.shape[1], CLASSES, 1)
    scores, weights = zip(
        *(
            (metrics.evaluate(model, task), A.finetune(model, task, steps=2, batch_size=3).model.weight)
            for task in tasks
        ),
        strict=True,
    )
    assert scores[0] == scores[1]
    assert torch.equal(*weights)


def test_one_hot_masks_are_refused_with_the_remedy():
    data = TensorDataset(X, nn.functional.one_hot(Y.clamp(min=0, max=CLASSES - 1), CLASSES).movedim(-1, 1))
    task = UnlearnTask.forget_samples(data, data, [0], num_classes=CLASSES)
    for method in (A.finetune, A.ssd):
        with pytest.raises(ValueError, match=r"masks of task to hold one class index a pixel, but .*; argmax"):
            method(nn.Conv2d(X.shape[1], CLASSES, 1), task)


def test_class_labels_have_no_ignored_pixels():
    labels = TensorDataset(X, torch.arange(6) % 3)
    with pytest.raises(ValueError, match="expected ignore_index with masks alone, but got 255 for class labels"):
        UnlearnTask.forget_samples(labels, labels, [0], ignore_index=255)
    with pytest.raises(TypeError, match="expected ignore_index to be an int, but got str: '255'"):
        UnlearnTask.forget_samples(TensorDataset(X, Y), labels, [0], ignore_index="255")


def by_hand(name: str) -> np.ndarray:
    """The figure of each image, pixel by pixel: of classes for IoU and Dice."""
    found, rows = LOGITS.argmax(1).numpy(), []
    for image in range(6):
        pixels = [
            (int(found[image, i, j]), int(Y[image, i, j]))
            for i in range(SIDE)
            for j in range(SIDE)
            if not UNLABELLED[image, i, j]
        ]
        if name == "accuracy":
            rows.append(np.mean([a == b for a, b in pixels]))
            continue
        scores = []
        for label in range(CLASSES):
            both = sum(a == b == label for a, b in pixels)
            said, true = sum(a == label for a, _ in pixels), sum(b == label for _, b in pixels)
            scores.append(both / (said + true - both) if name == "iou" else 2 * both / (said + true))
        rows.append(scores)
    return np.array(rows)


@pytest.mark.parametrize("way", WAYS)
def test_metrics_count_the_labelled_pixels(way):
    data = WAYS[way](MARKED)
    model, reading = Fixed(), {"ignore_index": MARK, "batch_size": 4}
    assert metrics.accuracy(model, data, **reading) == pytest.approx(by_hand("accuracy").mean(), abs=1e-12)
    for score in (metrics.iou, metrics.dice):
        scores = by_hand(score.__name__)
        assert score(model, data, **reading) == pytest.approx(scores[:, 1:].mean(), abs=1e-12)
        assert list(score(model, data, per_class=True, **reading).values()) == pytest.approx(scores.mean(0), abs=1e-12)
    task = UnlearnTask.forget_samples(data, data, [0, 1], validation=data, ignore_index=MARK)
    evaluation = metrics.evaluate(model, task)
    assert evaluation.forget == pytest.approx(by_hand("iou")[:2, 1:].mean(), abs=1e-12)
    assert evaluation.test == pytest.approx(by_hand("iou")[:, 1:].mean(), abs=1e-12)
    # What the model says there does not matter.
    moved = Fixed(torch.where(UNLABELLED[:, None], -3 * LOGITS, LOGITS))
    assert metrics.evaluate(moved, task) == evaluation


def test_images_without_a_label_are_left_out_of_means():
    marked = MARKED.clone()
    marked[4] = MARK
    data, rest = TensorDataset(X, marked), [0, 1, 2, 3, 5]
    assert metrics.accuracy(Fixed(), data, ignore_index=MARK) == pytest.approx(by_hand("accuracy")[rest].mean())
    assert metrics.iou(Fixed(), data, ignore_index=MARK) == pytest.approx(by_hand("iou")[rest, 1:].mean())
    task = UnlearnTask.forget_samples(data, data, [0], validation=data, ignore_index=MARK)
    assert metrics.evaluate(Fixed(), task).retain == pytest.approx(by_hand("iou")[rest[1:], 1:].mean())
    nothing = TensorDataset(X[:2], torch.full((2, SIDE, SIDE), MARK))
    assert metrics.accuracy(Fixed(), nothing, ignore_index=MARK) is None
    assert metrics.iou(Fixed(), nothing, ignore_index=MARK) is None


TARGETS = {
    "labels": L.Labels(),
    "teacher": L.Teacher(network()),
    "other classes": L.OtherClasses(network()),
    "boundary": L.Boundary(network(), PerturbedSign(0.1, steps=2)),
    "soft boundary": L.Boundary(network(), PerturbedSign(0.1), soft=True, mix=0.5),
    "uniform": L.Uniform(CLASSES),
    "random": L.RandomLabels(CLASSES, wrong_only=True),
    "background": L.Background(),
    "contradiction": L.Contradiction(network(), 0.4),
    "within": L.Within(L.Teacher(network()), 1),
    "cached": L.Cached(L.Uniform(CLASSES)),
}
TERMS = {"cross_entropy": L.cross_entropy, "bce": L.bce, "kl": L.kl, "mse": L.mse, "dice_bce": L.dice_bce}


def fitting():
    """Every term with every target that gives what it takes."""
    for term, target in itertools.product(TERMS, TARGETS):
        # Of several classes a contradiction is probabilities.
        if (term, target) == ("dice_bce", "contradiction"):
            continue
        with contextlib.suppress(ValueError):
            TERMS[term](on="forget", to=TARGETS[target])
            yield term, target


@pytest.mark.parametrize(("term", "target"), [*fitting()])
def test_no_term_has_a_gradient_at_unlabelled_pixels(term, target):
    outputs = LOGITS.clone().requires_grad_()
    batch = Batch(X, Y.masked_fill(UNLABELLED, IGNORE))
    objective = L.Objective((TERMS[term](on="forget", to=TARGETS[target]),))
    value = objective.evaluate(nn.Identity(), {"forget": batch}, forward=lambda _: outputs).total
    (gradient,) = torch.autograd.grad(value, outputs)
    assert torch.isfinite(gradient).all()
    assert (gradient.movedim(1, -1)[UNLABELLED] == 0).all()
    assert (gradient.movedim(1, -1)[~UNLABELLED] != 0).any()


def test_cross_entropy_is_the_mean_over_labelled_pixels():
    wanted = []
    for logits, mask, unlabelled in zip(LOGITS.double().numpy(), Y.numpy(), UNLABELLED.numpy(), strict=True):
        p = np.exp(logits) / np.exp(logits).sum(0)
        wanted.append(
            np.mean([-np.log(p[mask[at], *at]) for at in np.argwhere(~unlabelled).tolist() for at in [tuple(at)]])
        )
    marked = Y.masked_fill(UNLABELLED, IGNORE)
    for loss in (label_cross_entropy, cross_entropy, membership.loss):
        np.testing.assert_allclose(loss(LOGITS.double(), marked).numpy(), wanted, rtol=1e-12)


def test_gradients_are_those_of_torch_with_the_mark_left_out():
    model = network()
    (wanted,) = torch.autograd.grad(
        torch.stack(
            [F.cross_entropy(model(x[None]), y[None], ignore_index=MARK) for x, y in zip(X, MARKED, strict=True)]
        ).mean(),
        model[2].weight,
    )
    data = with_ignore_index(TensorDataset(X, MARKED), MARK)
    found = mean_gradients(model, [load_tensors(data)])["2.weight"]
    torch.testing.assert_close(found, wanted)


def test_the_search_climbs_the_loss_of_labelled_pixels():
    model, search = network(), PerturbedSign(0.05, steps=1)
    x = X[:2].clone().requires_grad_()
    F.cross_entropy(model(x), MARKED[:2], ignore_index=MARK, reduction="sum").backward()
    found = search.search(model, X[:2], Y.masked_fill(UNLABELLED, IGNORE)[:2]).inputs
    torch.testing.assert_close(found, (X[:2] + 0.05 * x.grad.sign()).clamp(0, 1))
    with pytest.raises(ValueError, match=r"expected y in \[0, 2\]"):
        search.search(model, X[:2], MARKED[:2])


# What is read off an untrained network may call for no change.
@pytest.mark.filterwarnings("ignore:l?f?ssd changed no weight:UserWarning")
@pytest.mark.parametrize("name", [n for n in A.__all__ if "segmentation" in engine.facts_of(getattr(A, n)).kinds])
def test_every_method_of_masks_takes_the_mark(name):
    method = getattr(A, name)
    options = {key: 1 for key in ("steps", "epochs", "rounds") if key in inspect.signature(method).parameters}
    options = {"steps": 1} if "steps" in options else options
    model = models.declare_head(network(), "2")
    options |= {"where": "0"} if name == "erase_to_retain" else {}
    options |= {"references": [models.fresh_copy(model, seed=1)]} if engine.facts_of(method).reads_reference else {}
    task = UnlearnTask.forget_mask_class(TensorDataset(X, MARKED), TensorDataset(X, MARKED), 2, ignore_index=MARK)
    state = method(model, task, **options).model.state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())


# --- masks of fractions ---------------------------------------------------------------------------

SOFT = F.interpolate((X > 0.5).float(), size=(9, 9), mode="bilinear")


def test_one_logit_and_two_agree_on_a_resized_mask():
    z = torch.randn(6, 1, 9, 9, generator=torch.Generator().manual_seed(5))
    two = torch.cat([torch.zeros_like(z), z], dim=1)
    hard = (SOFT > 0.5).float()
    for function in (metrics.iou_scores, metrics.dice_scores, metrics.correct, membership.loss, label_cross_entropy):
        wanted = function(z, hard)
        torch.testing.assert_close(function(z, SOFT), wanted)
        torch.testing.assert_close(function(two, SOFT), wanted)


@pytest.mark.parametrize("make", [TensorDataset, TensorImages, lambda x, y: list(zip(x, y, strict=True))])
def test_a_resized_mask_is_read_as_0_and_1(make):
    x = F.interpolate(X, size=(9, 9))
    data = make(x, SOFT)
    assert torch.equal(load_tensors(data)[1], (SOFT > 0.5).float())
    task = UnlearnTask.forget_mask_class(data, data, 1)
    assert load_tensors(task.forget)[1].unique().tolist() == [0, 1]
    assert load_tensors(task.retain)[1].unique().tolist() == [0]


def test_fractions_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"whole class indices, but got 1\.9$"):
        metrics.correct(LOGITS, torch.where(Y == 2, 1.9, Y.double()))
    labels = [(x, 1.9) for x in X]
    with pytest.raises(TypeError, match=r"labels of train to be integers, but got 1\.9$"):
        UnlearnTask.forget_class(labels, labels, 1)
