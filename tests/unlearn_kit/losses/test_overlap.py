"""Dice against a few lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unlearn_kit import losses as L
from unlearn_kit.losses.overlap import dice, dice_bce


def soft_dice(p: np.ndarray, y: np.ndarray) -> float:
    return 1 - 2 * (p * y).sum() / (p.sum() + y.sum())


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_binary_dice_pools_the_pixels_of_the_batch() -> None:
    logits = batch((3, 1, 4, 5))
    y = (batch((3, 1, 4, 5), 1) > 0).double()
    expected = soft_dice(torch.sigmoid(logits).numpy(), y.numpy())
    assert dice(logits, L.Goal("labels", y)).item() == pytest.approx(expected, abs=1e-6)
    assert dice(logits, L.Goal("labels", y[:, 0].long())).item() == pytest.approx(expected, abs=1e-6)


def test_dice_of_several_classes_is_the_mean_over_those_that_occur() -> None:
    logits = batch((2, 3, 4, 4))
    y = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    p = logits.softmax(1).numpy()
    expected = np.mean([soft_dice(p[:, c], (y.numpy() == c)) for c in range(3)])
    assert dice(logits, L.Goal("labels", y)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("present", [(1,), (0, 2), (0, 1, 2, 3)])
def test_a_class_that_does_not_occur_has_no_share_in_the_mean(present: tuple[int, ...]) -> None:
    logits = batch((2, 4, 4, 4))
    y = torch.tensor(present)[torch.arange(32).reshape(2, 4, 4) % len(present)]
    p = logits.softmax(1).numpy()
    expected = np.mean([soft_dice(p[:, c], (y.numpy() == c)) for c in present])
    assert dice(logits, L.Goal("labels", y)).item() == pytest.approx(expected, abs=1e-6)
    left_out = torch.where(y == present[0], L.IGNORE, y)
    kept = (left_out != L.IGNORE).numpy()
    others = [soft_dice(p[:, c][kept], (y.numpy() == c)[kept]) for c in present[1:]]
    assert dice(logits, L.Goal("labels", left_out)).item() == pytest.approx(np.mean(others) if others else 0, abs=1e-6)


def test_where_all_classes_occur_dice_has_the_bits_of_the_library() -> None:
    from segmentation_models_pytorch.losses import DiceLoss

    logits = batch((2, 3, 4, 4)).float().requires_grad_(True)
    y = torch.arange(32).reshape(2, 4, 4) % 3
    other = logits.detach().clone().requires_grad_(True)
    own, library = dice(logits, L.Goal("labels", y)), DiceLoss("multiclass", ignore_index=L.IGNORE)(other, y)
    own.backward()
    library.backward()
    assert torch.equal(own, library)
    assert torch.equal(logits.grad, other.grad)


def test_ignored_pixels_do_not_count() -> None:
    logits = batch((2, 1, 4, 4))
    y = (batch((2, 4, 4), 1) > 0).long()
    left_out = torch.zeros(2, 4, 4, dtype=torch.bool)
    left_out[:, :2] = True
    kept = ~left_out
    goal = L.Goal("labels", torch.where(left_out, L.IGNORE, y))
    expected = soft_dice(torch.sigmoid(logits[:, 0][kept]).numpy(), y[kept].numpy())
    assert dice(logits, goal).item() == pytest.approx(expected, abs=1e-6)


def test_dice_bce_adds_the_pixelwise_loss_and_has_a_gradient() -> None:
    logits = batch((2, 1, 4, 4)).requires_grad_(True)
    y = (batch((2, 1, 4, 4), 1) > 0).double()
    goal = L.Goal("labels", y)
    pixelwise = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
    assert dice_bce(logits, goal).item() == pytest.approx((dice(logits, goal) + pixelwise).item())
    dice_bce(logits, goal).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_as_terms_they_are_batch_level_and_print() -> None:
    objective = L.dice_bce(on="retain") + 0.5 * L.dice(on="forget", to=L.Background())
    assert str(objective) == "dice_bce(retain -> Labels) + 0.5 * dice(forget -> Background(index=0))"
    with pytest.raises(ValueError, match="to give labels or probabilities, but got"):
        L.dice(on="retain", to=L.Teacher(torch.nn.Linear(1, 1)))


def test_within_asks_only_for_the_pixels_of_one_class() -> None:
    y = torch.tensor([[[0, 1], [2, 1]]])
    x = torch.zeros(1, 1, 2, 2)
    goal = L.Within(L.Background(), 1)(L.Batch(x, y))
    assert goal.values.tolist() == [[[L.IGNORE, 0], [L.IGNORE, 0]]]
    soft = L.Within(L.Uniform(3), 1)(L.Batch(x, y))
    expected = torch.tensor([[L.IGNORE, 1 / 3], [L.IGNORE, 1 / 3]])
    torch.testing.assert_close(soft.values, expected.expand(1, 3, 2, 2))
    several = L.Within(L.Background(), (1, 2))(L.Batch(x, y))
    assert several.values.tolist() == [[[L.IGNORE, 0], [0, 0]]]
