from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.metrics import class_leakage, membership_inference

FORGOTTEN = 1


class Columns(nn.Module):
    """Some columns of the input are this model's logits."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.start + 4]


def split(seed: int, n: int, label: int | None, sharp: float) -> TensorDataset:
    """Logits of two models side by side; the first is surer of the second's class by ``sharp``."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.tensor([0, 2, 3])[torch.randint(3, (n,), generator=rng)] if label is None else torch.full((n,), label)
    theirs = torch.randn(n, 4, generator=rng)
    mine = torch.randn(n, 4, generator=rng)
    for z in (mine, theirs):
        z[:, FORGOTTEN] = -9 if label is None else z[:, FORGOTTEN]
    first = theirs.scatter(1, torch.tensor([[FORGOTTEN]]).expand(n, 1), -torch.inf).argmax(dim=1, keepdim=True)
    mine.scatter_add_(1, first, torch.full((n, 1), sharp))
    return TensorDataset(torch.cat([mine, theirs], dim=1), y)


def task(sharp: float, *, held_out: int = 80) -> UnlearnTask:
    return UnlearnTask(
        forget=split(0, 80, FORGOTTEN, sharp),
        retain=split(1, 300, None, 8.0),
        forget_test=split(2, held_out, FORGOTTEN, 1.0),
        retain_test=split(3, 300, None, 1.0),
        num_classes=4,
        forget_classes=(FORGOTTEN,),
    )


MODEL, REFERENCE = Columns(0), Columns(4)


def test_distances_are_those_of_the_renormalised_predictions() -> None:
    made = task(2.0)
    found = class_leakage(MODEL, made, REFERENCE, batch_size=7)
    z = made.forget.tensors[0].double().numpy()
    p, q = (np.exp(np.delete(part, FORGOTTEN, axis=1)) for part in (z[:, :4], z[:, 4:]))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    assert found.js == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean())
    assert found.agreement == pytest.approx((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    assert 0 < found.agreement < 1


def test_the_attack_is_membership_inference_on_outputs_cut_by_hand() -> None:
    made = task(4.0)
    keep = [0, 2, 3]
    for start, side in ((0, "membership"), (4, "reference")):
        cut = {}
        for name in ("forget", "retain", "forget_test", "retain_test"):
            z = getattr(made, name).tensors[0]
            label = np.delete(z[:, 4:].numpy(), FORGOTTEN, axis=1).argmax(axis=1)
            cut[name] = TensorDataset(z[:, [start + i for i in keep]], torch.from_numpy(label))
        expected = membership_inference(nn.Identity(), SimpleNamespace(**cut), features=["loss"], attack="svc", seed=2)
        found = class_leakage(MODEL, made, REFERENCE, features=["loss"], attack="svc", seed=2)
        assert getattr(found, side) == expected


def test_training_images_that_are_still_known_are_told_from_held_out_ones() -> None:
    leaking, clean = class_leakage(MODEL, task(8.0), REFERENCE), class_leakage(MODEL, task(1.0), REFERENCE)
    assert leaking.membership.auc > 0.9
    assert clean.membership.auc == pytest.approx(0.5, abs=0.1)
    assert leaking.reference == clean.reference
    assert clean.reference.auc == pytest.approx(0.5, abs=0.1)
    assert leaking.membership.attack_auc > 0.9


def test_the_reference_beside_itself_leaks_what_the_reference_leaks() -> None:
    found = class_leakage(REFERENCE, task(8.0), REFERENCE)
    assert found.membership == found.reference
    assert found.js == pytest.approx(0, abs=1e-12)
    assert found.agreement == 1


def test_the_forgotten_logit_itself_does_not_count() -> None:
    made = task(3.0)
    before = class_leakage(MODEL, made, REFERENCE)
    for name in ("forget", "retain", "forget_test", "retain_test"):
        getattr(made, name).tensors[0][:, FORGOTTEN] = 1e4
    assert class_leakage(MODEL, made, REFERENCE) == before


def test_saturated_and_equal_outputs_stay_finite() -> None:
    made = task(3.0)
    for name in ("forget", "retain", "forget_test", "retain_test"):
        getattr(made, name).tensors[0].mul_(1e4)
    found = class_leakage(MODEL, made, REFERENCE)
    assert 0 < found.js <= np.log(2)
    assert 0 <= found.membership.auc <= 1
    for name in ("forget", "retain", "forget_test", "retain_test"):
        getattr(made, name).tensors[0].zero_()
    tied = class_leakage(MODEL, made, REFERENCE)
    assert (tied.js, tied.agreement, tied.membership.auc) == (0, 1, 0.5)


def test_what_cannot_be_asked_is_n_a() -> None:
    made = task(3.0)
    whole = vars(made)
    assert class_leakage(MODEL, task(3.0, held_out=0), REFERENCE).membership is None
    assert class_leakage(MODEL, task(3.0, held_out=0), REFERENCE).js > 0
    assert class_leakage(MODEL, UnlearnTask(**{**whole, "forget_classes": ()}), REFERENCE) is None
    assert class_leakage(MODEL, UnlearnTask(**{**whole, "forget_classes": (0, 1, 2)}), REFERENCE) is None
    masks = TensorDataset(torch.rand(2, 1, 2, 2), torch.ones(2, 2, 2).long())
    pixels = UnlearnTask(masks, masks, masks, masks, 4, "segmentation", forget_classes=(1,))
    assert class_leakage(MODEL, pixels, REFERENCE) is None
    empty = TensorDataset(torch.zeros(0, 8), torch.zeros(0).long())
    assert class_leakage(MODEL, SimpleNamespace(**{**whole, "forget": empty}), REFERENCE) is None


def test_models_with_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected model to give logits \(B, 4\), but got \(80, 8\)"):
        class_leakage(nn.Identity(), task(1.0), REFERENCE)
    with pytest.raises(ValueError, match=r"expected reference to give logits \(B, 4\), but got \(80, 8\)"):
        class_leakage(MODEL, task(1.0), nn.Identity())
    with pytest.raises(ValueError, match=r"did you mean 'loss'"):
        class_leakage(MODEL, task(1.0), REFERENCE, features="los")
