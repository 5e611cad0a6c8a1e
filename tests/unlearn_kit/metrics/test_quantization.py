from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, data, models
from unlearn_kit.metrics import QuantizedScores, quantize_attack
from unlearn_kit.metrics.quantization import quantized


def rounded(weight: np.ndarray, bits: int, channel: int = 0) -> np.ndarray:
    """Channel by channel and number by number."""
    out = np.zeros_like(weight, dtype=np.float64)
    for i in range(weight.shape[channel]):
        place = (slice(None),) * channel + (i,)
        values = weight[place].astype(np.float64)
        grid = np.linspace(-1, 1, 2**bits - 1) * np.abs(values).max()
        nearest = np.abs(values[..., None] - grid).argmin(axis=-1)
        out[place] = grid[nearest]
    return out


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("layer", "channel"),
    [
        (nn.Linear(5, 3), 0),
        (nn.Conv2d(2, 4, 3), 0),
        (nn.ConvTranspose2d(3, 2, 3), 1),
        (nn.Conv2d(4, 4, 3, groups=2), 0),
    ],
)
def test_weights_are_those_of_a_grid_of_each_output_channel(layer: nn.Module, channel: int, bits: int) -> None:
    found = quantized(nn.Sequential(layer), bits)[0]
    weight = layer.weight.detach().numpy()
    np.testing.assert_allclose(found.weight.detach(), rounded(weight, bits, channel), rtol=1e-6, atol=1e-9)
    assert torch.equal(found.bias, layer.bias)
    assert found.weight.dtype == layer.weight.dtype
    assert len(np.unique(found.weight.detach().numpy())) < weight.size or bits == 8


def test_rounding_twice_changes_nothing_and_a_zero_channel_stays() -> None:
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    once = quantized(layer, 4)
    assert torch.equal(once.weight[1], torch.zeros(6))
    torch.testing.assert_close(quantized(once, 4).weight, once.weight, rtol=1e-6, atol=0)
    assert torch.equal(once.weight.abs().amax(dim=1), layer.weight.abs().amax(dim=1))


def test_norms_are_left_alone_and_a_shared_weight_is_rounded_once() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, nn.BatchNorm1d(3), second)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.123, 0.456, 0.789]))
    before = copy.deepcopy(model.state_dict())
    found = quantized(model, 4)
    assert found[0].weight is found[2].weight
    assert torch.equal(found[1].weight, before["1.weight"])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_knowledge_that_a_small_step_hid_comes_back_at_four_bits() -> None:
    """Weights on the grid of four bits, pushed by less than half a step so that every forget sample is wrong."""
    original = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        original.weight.copy_(torch.tensor([[7.0, 1.0], [7.0, 0.0]]))
    hidden = copy.deepcopy(original)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[6.9, 0.55], [7.0, 0.49]]))
    forget = TensorDataset(torch.tensor([[1.0, 1.0]] * 4), torch.zeros(4).long())
    retain = TensorDataset(torch.tensor([[0.0, 1.0]] * 6), torch.zeros(6).long())
    task = UnlearnTask(forget, retain, forget, retain, 2)
    assert quantize_attack(hidden, task) == (
        QuantizedScores(None, 0.0, 1.0),
        QuantizedScores(8, 0.0, 1.0),
        QuantizedScores(4, 1.0, 1.0),
    )


def test_scores_are_those_of_weights_rounded_by_hand() -> None:
    digits = data.load("digits")
    task = UnlearnTask.forget_class(digits.train, digits.test, 3)
    model = models.build("mlp", 10, seed=0, hidden=())
    found = quantize_attack(model, task, bits=[3], batch_size=100)
    assert [row.bits for row in found] == [None, 3]
    w, b = (parameter.detach().double().numpy() for parameter in model.head.parameters())
    for row, weight in zip(found, (w, rounded(w, 3)), strict=True):
        for split in ("forget", "retain"):
            pairs = [getattr(task, split)[i] for i in range(len(getattr(task, split)))]
            x = (np.stack([x.numpy().ravel() for x, _ in pairs]).astype(np.float64) - 0.5) / 0.5
            y = np.array([int(y) for _, y in pairs])
            assert getattr(row, split) == pytest.approx(((x @ weight.T + b).argmax(axis=1) == y).mean(), abs=2e-3)


def test_masks_are_scored_by_iou_and_empty_data_are_n_a() -> None:
    lesions = data.load("synthetic-lesions", train_size=6, test_size=2, size=16)
    task = UnlearnTask.forget_samples(lesions.train, lesions.test, [0, 3])
    model = models.build("unet", 2, 3, seed=0, widths=(4, 8), decoder_widths=(8, 4))
    rows = quantize_attack(model, task, bits=(8, 2))
    assert all(0 <= row.forget <= 1 and 0 <= row.retain <= 1 for row in rows)
    empty = TensorDataset(torch.zeros(0, 3, 16, 16), torch.zeros(0, 16, 16))
    nothing = SimpleNamespace(**{**vars(task), "retain": empty})
    assert [row.retain for row in quantize_attack(model, nothing)] == [None] * 3


def test_bad_bits_and_bad_weights_are_refused() -> None:
    one = TensorDataset(torch.zeros(1, 2), torch.zeros(1).long())
    task = UnlearnTask(one, one, one, one, 2)
    with pytest.raises(ValueError, match="expected bits to be at least 2, but got 1"):
        quantize_attack(nn.Linear(2, 2), task, bits=(8, 1))
    with pytest.raises(TypeError, match=r"expected bits to be an int, but got float: 4\.0"):
        quantized(nn.Linear(2, 2), 4.0)
    bad = nn.Linear(2, 2)
    with torch.no_grad():
        bad.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="expected model's 'weight' to be finite, but got 1 NaN"):
        quantize_attack(bad, task)


def test_huge_and_half_precision_weights_stay_finite() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(3e38)
    assert torch.isfinite(quantized(layer, 8).weight).all()
    half: Tensor = quantized(nn.Linear(3, 2).half(), 8).weight
    assert half.dtype == torch.float16
