"""Class weights in every supervised term, beside torch's own weighted losses.

The convention: torch's ``reduction="none"``, a mean over each sample's decisions, a mean over samples. Torch's weighted
mean over classes divides by the sum of the weights instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import algorithms
from unlearn_kit import UnlearnTask, data
from unlearn_kit import losses as L
from unlearn_kit.engine import Training, supervised_phase, train
from unlearn_kit.losses import distances
from unlearn_kit.outputs import IGNORE

SOURCE = torch.Generator().manual_seed(0)
THREE = (0.5, 2.0, 1.5)
Z, Y = torch.randn(10, 3, generator=SOURCE), torch.arange(10) % 3
ROWS = (torch.rand(10, 3, generator=SOURCE) < 0.5).float()
DENSE, MASK = torch.randn(4, 3, 5, 5, generator=SOURCE), torch.randint(3, (4, 5, 5), generator=SOURCE)
ONE, BINARY = torch.randn(4, 1, 5, 5, generator=SOURCE), (torch.rand(4, 1, 5, 5, generator=SOURCE) < 0.4).float()


class Given(nn.Module):
    """What it is given are the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def value(term: L.Term, z: Tensor, y: Tensor) -> float:
    return float(L.Objective((term,)).evaluate(Given(), {"retain": L.Batch(z, y, stream="retain")}).total)


def test_classes_weigh_as_in_torch() -> None:
    wanted = F.cross_entropy(Z, Y, torch.tensor(THREE), reduction="none")
    assert value(L.cross_entropy(on="retain", weight=THREE), Z, Y) == pytest.approx(float(wanted.mean()))
    # Torch's own mean divides by the weights of the labels in the batch.
    own = F.cross_entropy(Z, Y, torch.tensor(THREE))
    assert float(own) == pytest.approx(float(wanted.sum() / torch.tensor(THREE)[Y].sum()))


@pytest.mark.parametrize("ignored", [False, True])
def test_pixels_weigh_as_in_torch(ignored: bool) -> None:
    mask = MASK.clone()
    if ignored:
        mask[:, :2] = IGNORE
    each = F.cross_entropy(DENSE, mask, torch.tensor(THREE), reduction="none", ignore_index=IGNORE)
    wanted = each[mask != IGNORE].mean()  # as many pixels are left out of each image
    assert value(L.cross_entropy(on="retain", weight=THREE), DENSE, mask) == pytest.approx(float(wanted))


def test_soft_labels_weigh_as_in_torch() -> None:
    q = Z.flip(0).softmax(1)
    wanted = F.cross_entropy(Z, q, torch.tensor(THREE), reduction="none")
    found = distances.cross_entropy(Z, L.Goal("probabilities", q), weight=THREE)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(distances.cross_entropy(Z, L.Goal("logits", Z.flip(0)), weight=THREE), wanted, atol=1e-6)


@pytest.mark.parametrize("factory", [L.cross_entropy, L.bce])
def test_findings_weigh_as_in_torch(factory: Any) -> None:
    pos = torch.tensor(THREE)
    wanted = F.binary_cross_entropy_with_logits(Z, ROWS, pos_weight=pos)
    assert value(factory(on="retain", pos_weight=THREE), Z, ROWS) == pytest.approx(float(wanted), rel=1e-6)
    both = F.binary_cross_entropy_with_logits(Z, ROWS, torch.tensor([1.0, 0.0, 3.0]), pos_weight=pos)
    term = factory(on="retain", weight=[1, 0, 3], pos_weight=pos)
    assert value(term, Z, ROWS) == pytest.approx(float(both), rel=1e-6)
    unknown = ROWS.clone()
    unknown[:, 1] = IGNORE
    kept = F.binary_cross_entropy_with_logits(Z[:, [0, 2]], ROWS[:, [0, 2]], pos_weight=pos[[0, 2]])
    assert value(factory(on="retain", pos_weight=THREE), Z, unknown) == pytest.approx(float(kept), rel=1e-6)


@pytest.mark.parametrize("factory", [L.cross_entropy, L.bce])
def test_a_single_logit_has_a_background_and_a_foreground(factory: Any) -> None:
    each = F.binary_cross_entropy_with_logits(ONE, BINARY, reduction="none")
    wanted = (each * torch.where(BINARY == 1, 4.0, 0.5)).mean()
    assert value(factory(on="retain", weight=(0.5, 4.0)), ONE, BINARY) == pytest.approx(float(wanted), rel=1e-5)
    positive = F.binary_cross_entropy_with_logits(ONE, BINARY, pos_weight=torch.tensor(3.0))
    assert value(factory(on="retain", pos_weight=(3.0,)), ONE, BINARY) == pytest.approx(float(positive), rel=1e-5)


def test_outputs_one_against_the_rest_weigh_as_in_torch() -> None:
    onehot = F.one_hot(Y, 3).float()
    wanted = F.binary_cross_entropy_with_logits(Z, onehot, torch.tensor(THREE), pos_weight=torch.tensor([1.0, 2, 3]))
    term = L.bce(on="retain", weight=THREE, pos_weight=(1, 2, 3))
    assert value(term, Z, Y) == pytest.approx(float(wanted), rel=1e-6)


def test_overlaps_weigh_class_by_class() -> None:
    parts = [float(DiceLoss("multiclass", classes=[c])(DENSE, MASK)) for c in range(3)]
    wanted = float(np.mean(np.array(THREE) * parts))
    assert value(L.dice(on="retain", weight=THREE), DENSE, MASK) == pytest.approx(wanted, rel=1e-5)
    assert value(L.dice(on="retain", weight=(1, 1, 1)), DENSE, MASK) == pytest.approx(
        value(L.dice(on="retain"), DENSE, MASK), rel=1e-6
    )
    pixels = value(L.cross_entropy(on="retain", weight=THREE), DENSE, MASK)
    assert value(L.dice_bce(on="retain", weight=THREE), DENSE, MASK) == pytest.approx(wanted + pixels, rel=1e-5)
    two = MASK.clamp(max=1)  # A class that does not occur takes no part.
    present = float(
        np.mean(np.array(THREE)[:2] * [float(DiceLoss("multiclass", classes=[c])(DENSE, two)) for c in (0, 1)])
    )
    assert value(L.dice(on="retain", weight=THREE), DENSE, two) == pytest.approx(present, rel=1e-5)
    single = value(L.dice(on="retain"), ONE, BINARY)
    assert value(L.dice(on="retain", weight=(9, 0.5)), ONE, BINARY) == pytest.approx(0.5 * single)


@pytest.mark.parametrize("factory", [L.cross_entropy, L.bce, L.dice, L.dice_bce])
def test_weights_of_one_change_nothing(factory: Any) -> None:
    for z, y, count in ((DENSE, MASK, 3), (ONE, BINARY, 2)):
        plain, weighted = factory(on="retain"), factory(on="retain", weight=(1.0,) * count)
        assert value(weighted, z, y) == pytest.approx(value(plain, z, y), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"weight": (1, -1, 2)}, ValueError, r"expected weight in \[0, inf\), but got -1"),
        ({"weight": (0, 0, 0)}, ValueError, "expected weight to hold a number above 0, but got"),
        ({"weight": "heavy"}, TypeError, "expected weight to be a list of numbers, but got str"),
        ({"weight": 3.0}, TypeError, "expected weight to be a list of numbers, but got float"),
        ({"weight": (1, float("nan"))}, ValueError, r"expected weight in \[0, inf\), but got nan"),
        ({"weight": (1, 2)}, ValueError, r"expected weight to hold 3 numbers for outputs \(10, 3\), but got 2"),
        (
            {"pos_weight": (1, 2, 3)},
            ValueError,
            "expected weight, one number a class, for 3 outputs, but got pos_weight",
        ),
    ],
)
def test_weights_that_are_none_are_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        value(L.cross_entropy(on="retain", **options), Z, Y)


def test_a_term_says_its_weights() -> None:
    term = L.cross_entropy(on="retain", weight=np.array([1.0, 2.0]))
    assert str(term) == "cross_entropy(retain -> Labels, weight=(1.0, 2.0))"
    assert term == L.cross_entropy(on="retain", weight=[1, 2])
    assert L.cross_entropy(on="retain", weight=None) == L.cross_entropy(on="retain")


def test_every_term_toward_the_datas_own_labels_gets_them_once() -> None:
    objective = (
        L.cross_entropy(on="forget", to=L.Background())
        + 2.0 * L.cross_entropy(on="retain")
        + L.dice(on="retain", to=L.Within(L.Labels(), 1))
        + L.cross_entropy(on="retain", weight=(9, 9), name="own")
    )
    found = objective.with_class_weights((1.0, 3.0), "weight")
    assert [dict(term.options).get("weight") for term in found.terms] == [None, (1.0, 3.0), (1.0, 3.0), (9.0, 9.0)]
    assert [term.name for term in found.terms] == [term.name for term in objective.terms]
    assert found.terms[1].weight == objective.terms[1].weight

    @L.term(takes=("labels",))
    def zero_one(logits: Tensor, goal: L.Goal) -> Tensor:
        return (logits.argmax(1) != goal.values).float()

    with pytest.raises(ValueError, match=r"expected zero_one\(retain -> Labels\) to take weight=, since class weights"):
        L.Objective((zero_one(on="retain"),)).with_class_weights((1.0, 3.0), "weight")


def test_training_hands_them_to_its_phases() -> None:
    rows = TensorDataset(torch.rand(8, 3), torch.tensor([[1.0, 0, 1], [0, 1, 1]] * 4))
    task = UnlearnTask.forget_samples(rows, rows, [0])
    phase = Training(steps=1, class_weight=THREE).phase(L.cross_entropy(on="retain"), task, name="unlearn")
    assert dict(phase.terms.terms[0].options) == {"pos_weight": THREE}
    assert dict(supervised_phase(rows, epochs=1, class_weight=THREE).terms.terms[0].options) == {"pos_weight": THREE}
    labels = TensorDataset(torch.rand(9, 3), torch.arange(9) % 3)
    plain = UnlearnTask.forget_samples(labels, labels, [0])
    phase = Training(steps=1, class_weight=THREE).phase(L.cross_entropy(on="retain"), plain, name="unlearn")
    assert dict(phase.terms.terms[0].options) == {"weight": THREE}


@pytest.mark.parametrize("name", ["finetune", "boundary_expand", "sfron", "scrub"])
def test_methods_take_them(name: str) -> None:
    images = TensorDataset(torch.rand(18, 4), torch.arange(18) % 3)
    task = UnlearnTask.forget_class(images, images, 0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    length: dict[str, Any] = {"epochs": 2, "msteps": 1} if name == "scrub" else {"steps": 3}
    method = getattr(algorithms, name)
    plain = method(network, task, **length)
    weighted = method(network, task, class_weight=THREE, **length)
    assert weighted.config["class_weight"] == list(THREE)
    assert not torch.equal(plain.model[2].weight, weighted.model[2].weight)
    alike = method(network, task, class_weight=(1, 1, 1), **length)
    assert torch.allclose(plain.model[2].weight, alike.model[2].weight, atol=1e-6)


def test_a_rare_class_is_learned_with_them() -> None:
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0.9).long()  # one in ten
    rare = TensorDataset(x, y)
    weights = data.class_weights(rare)
    start = nn.Linear(2, 2)
    plain, weighted = (train(start, rare, epochs=10, lr=0.1, class_weight=own).model for own in (None, weights))
    found = [float((m(x).argmax(1)[y == 1] == 1).float().mean()) for m in (plain, weighted)]
    assert found[0] < 0.5 < found[1]


def test_weights_that_balance_are_scikit_learns() -> None:
    y = torch.tensor([0] * 5 + [1] * 2 + [2] * 13)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=y.numpy())
    assert data.class_weights(TensorDataset(torch.rand(20, 2), y)) == pytest.approx(wanted.tolist())
    masks = TensorDataset(torch.rand(4, 1, 5, 5), MASK)
    pixels = compute_class_weight("balanced", classes=np.arange(3), y=MASK.flatten().numpy())
    assert data.class_weights(masks) == pytest.approx(pixels.tolist())
    rows = torch.tensor([[1, 0], [1, 1], [IGNORE, 0], [0, 0]])
    assert data.class_weights(TensorDataset(torch.rand(4, 2), rows)) == pytest.approx((0.5, 3.0))
    with pytest.raises(ValueError, match=r"expected every class to occur in dataset, but got no sample of \[1\]"):
        data.class_weights(TensorDataset(torch.rand(2, 2), torch.tensor([0, 2])))
    with pytest.raises(ValueError, match=r"expected every finding to occur in dataset, but got no sample of \[0\]"):
        data.class_weights(TensorDataset(torch.rand(2, 2), torch.tensor([[0, 1], [0, 1]])))
