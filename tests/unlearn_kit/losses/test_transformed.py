"""Predictions under transformations against numpy, and soft targets in Dice and BCE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import Tensor, nn

from unlearn_kit import losses as L
from unlearn_kit.losses.overlap import dice, dice_bce


def network(outputs: int, dense: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body: list[nn.Module] = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh()]
        head = [nn.Conv2d(4, outputs, 3, padding=1)] if dense else [nn.Flatten(), nn.Linear(4 * 30, outputs)]
        return nn.Sequential(*body, *head)


def pictures() -> Tensor:
    return torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x.copy())).double().numpy()


def test_of_masks_it_is_the_mean_logit_of_the_mirrored_images_mirrored_back() -> None:
    model, x = network(1, dense=True), pictures()
    masks = torch.zeros(3, 1, 5, 6)
    n = x.numpy()
    z = [outputs(model, n[..., ::-1])[..., ::-1], outputs(model, n[..., ::-1, :])[..., ::-1, :]]
    z.append(outputs(model, n[..., ::-1, ::-1])[..., ::-1, ::-1])
    kind, found = L.Transformed(model)(L.Batch(x, masks))
    assert kind == "probabilities"
    np.testing.assert_allclose(found.numpy(), expit(np.mean(z, axis=0)), atol=1e-6)
    several = network(3, dense=True)
    z = [outputs(several, n[..., ::-1])[..., ::-1]]
    found = L.Transformed(several, L.FLIPS[:1])(L.Batch(x, masks[:, 0].long())).values
    np.testing.assert_allclose(found.numpy(), softmax(z[0], axis=1), atol=1e-6)


def test_of_classes_it_is_the_mean_probability_and_the_model_stays_as_it_is() -> None:
    model, x = network(4, dense=False).train(), pictures()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = L.Transformed(model)(L.Batch(x, torch.tensor([0, 1, 2]))).values
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    n = x.numpy()
    p = [softmax(outputs(model, y), axis=1) for y in (n[..., ::-1], n[..., ::-1, :], n[..., ::-1, ::-1])]
    np.testing.assert_allclose(found.numpy(), np.mean(p, axis=0), atol=1e-6)


def test_a_quarter_turn_of_one_s_own_is_undone_and_one_that_is_not_is_refused() -> None:
    turn = L.Transform("quarter", lambda x: x.rot90(1, (-2, -1)), lambda z: z.rot90(-1, (-2, -1)))
    model, x = network(1, dense=True), pictures()
    found = L.Transformed(model, (turn,)).predictions(x)
    expected = expit(np.rot90(outputs(model, np.rot90(x.numpy(), 1, (-2, -1))), -1, (-2, -1)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    wrong = L.Transform("half done", turn.apply, lambda z: z)
    with pytest.raises(ValueError, match="expected half done to be undone in the shape of the images"):
        L.Transformed(model, (wrong,)).predictions(x)
    with pytest.raises(ValueError, match=r"expected images \(B, C, H, W\) to transform"):
        L.Transformed(nn.Linear(4, 2)).predictions(torch.rand(3, 4))
    with pytest.raises(ValueError, match="at least one transformation"):
        L.Transformed(model, ())


@pytest.mark.parametrize("classes", [1, 3])
def test_dice_and_bce_take_soft_targets(classes: int) -> None:
    source = torch.Generator().manual_seed(2)
    logits = torch.randn(2, classes, 4, 4, generator=source, dtype=torch.float64)
    q = torch.randn(2, classes, 4, 4, generator=source, dtype=torch.float64)
    q = q.sigmoid() if classes == 1 else q.softmax(1)
    labels = (q[:, 0] > 0.5).long() if classes == 1 else q.argmax(1)
    soft, hard = L.Goal("probabilities", q), L.Goal("labels", labels)
    assert dice(logits, soft).item() == dice(logits, hard).item()
    z = logits.numpy()
    if classes == 1:
        pixels = -(q.numpy() * np.log(expit(z)) + (1 - q.numpy()) * np.log(expit(-z))).mean()
    else:
        pixels = -(q.numpy() * np.log(softmax(z, axis=1))).sum(1).mean()
    assert (dice_bce(logits, soft) - dice(logits, soft)).item() == pytest.approx(pixels, abs=1e-9)


def test_pixels_that_a_soft_target_leaves_out_do_not_count() -> None:
    logits = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    q = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    q[:, :, :2] = L.IGNORE
    kept = dice(logits[:, :, 2:], L.Goal("probabilities", q[:, :, 2:]))
    assert dice(logits, L.Goal("probabilities", q)).item() == pytest.approx(kept.item(), abs=1e-6)
