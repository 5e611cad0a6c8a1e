"""The meaning of logits, against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from torch import Tensor
from torch.nn import functional as F

from unlearn_kit.outputs import (
    IGNORE,
    check_finite,
    ends_in,
    is_binary,
    label_loss,
    label_margin,
    lifted_loss,
    per_sample,
    predicted_labels,
    probabilities,
)

SHAPES = [(5, 3), (5, 1), (2, 4, 3, 2), (2, 1, 3, 2), (1, 2)]


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_for(logits: Tensor, seed: int = 1) -> Tensor:
    own = torch.Generator().manual_seed(seed)
    return torch.randint(max(logits.shape[1], 2), (len(logits), *logits.shape[2:]), generator=own)


def two_sided(logits: Tensor) -> np.ndarray:
    """Logits of every outcome, in numpy; a single logit z stands for (0, z)."""
    z = logits.double().numpy()
    return np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_and_probabilities_agree_with_numpy(shape):
    z = draw(*shape)
    assert np.array_equal(predicted_labels(z).numpy(), two_sided(z).argmax(axis=1))
    assert predicted_labels(z).dtype == torch.int64
    p = softmax(two_sided(z) / 2.5, axis=1)
    expected = p[:, 1:] if shape[1] == 1 else p
    assert np.allclose(probabilities(z, temperature=2.5).numpy(), expected)


def test_a_single_logit_of_zero_is_class_zero():
    assert predicted_labels(torch.zeros(1, 1)).item() == 0


def test_one_output_is_a_binary_decision():
    assert is_binary(torch.zeros(2, 1, 4, 4))
    assert not is_binary(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"^expected logits of shape \(B, C, ...\), but got \(3,\)$"):
        predicted_labels(torch.zeros(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_no_prediction(bad):
    with pytest.raises(ValueError, match=r"^expected logits to be finite, but got 1 NaN or infinite of 6 values$"):
        predicted_labels(torch.tensor([[1.0, bad, 0.0], [0.0, 0.0, 1.0]]))


def test_check_finite_names_what_it_checked():
    check_finite("weights", torch.zeros(0))
    with pytest.raises(ValueError, match="expected weights to be finite, but got 2 NaN or infinite of 3 values"):
        check_finite("weights", torch.tensor([float("nan"), 1.0, -float("inf")]))


@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_per_sample_is_the_mean_of_each_sample(batch, rest, seed):
    values = draw(batch, *rest, seed=seed)
    expected = values.numpy().reshape(batch, -1).mean(axis=1)
    assert np.allclose(per_sample(values).numpy(), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channel", [False, True], ids=["(B, ...)", "(B, 1, ...)"])
def test_the_loss_of_labels_is_their_cross_entropy(shape, channel):
    z = draw(*shape)
    y = labels_for(z)
    log_p = log_softmax(two_sided(z), axis=1)
    expected = -np.take_along_axis(log_p, y.numpy()[:, None], axis=1)[:, 0]
    given_labels = y.unsqueeze(1) if channel else y
    assert np.allclose(label_loss(z, given_labels).numpy(), expected)
    assert np.allclose(expit(-label_margin(z, given_labels).numpy()), 1 - np.exp(-expected))


@pytest.mark.parametrize("margin", [0.0, 10.0, 20.0, 60.0, 85.0])
@pytest.mark.parametrize("outputs", [1, 3])
def test_gradients_in_single_precision_do_not_round_to_zero(margin, outputs):
    rest = [[margin]] if outputs == 1 else [[margin, -1.0, 0.0]]
    y = torch.tensor([1 if outputs == 1 else 0])
    single = torch.tensor(rest, requires_grad=True)
    double = torch.tensor(rest, dtype=torch.float64, requires_grad=True)
    label_loss(single, y).sum().backward()
    label_loss(double, y).sum().backward()
    assert torch.allclose(single.grad.double(), double.grad, rtol=1e-4, atol=0)
    assert (single.grad != 0).all()
    if margin == 60 and outputs == 3:
        naive = torch.tensor(rest, requires_grad=True)
        F.cross_entropy(naive, y, reduction="sum").backward()
        assert naive.grad[0, 0] == 0  # The rounding that the margin avoids.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("outputs", [1, 4])
def test_the_lifted_loss_is_the_loss_over_its_weight(dtype, outputs):
    z = torch.randn(40, outputs, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y = torch.randint(max(outputs, 2), (40, 6), generator=torch.Generator().manual_seed(1))
    z[20:] += 0 if outputs == 1 else 3000 * F.one_hot(y[20:], outputs).movedim(-1, 1)
    if outputs == 1:
        z[20:] += 3000 * (2 * y[20:].unsqueeze(1) - 1)
    y[25, :3] = IGNORE
    y[30] = IGNORE
    z[0, 0] = -200
    leaf = z.clone().requires_grad_(True)
    losses, weight = lifted_loss(leaf, y)
    assert torch.equal(losses[:20], label_loss(z, y)[:20])
    assert (weight[:20] == 1).all()
    assert weight[30] == 1
    margins = label_margin(z, y)
    sure = [i for i in range(20, 40) if i != 30]
    wanted = (margins[sure].amin(1, keepdim=True) - margins[sure]).exp()
    torch.testing.assert_close(losses[sure], wanted)
    losses.sum().backward()
    assert leaf.grad.isfinite().all()
    assert (leaf.grad[sure].abs().flatten(1).amax(1) > 0.1).all()


def test_two_equal_infinite_forces_never_make_a_nan():
    z = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = label_loss(z, torch.tensor([0, 0]))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 2e4]
    assert torch.equal(z.grad, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))


@pytest.mark.parametrize(
    ("outputs", "last"),
    [
        (torch.tensor([[0.2, 0.8], [1.0, 0.0]]), "softmax"),
        (torch.tensor([[0.2, 0.9]]), None),  # in [0, 1], but of another sum
        (torch.tensor([[-0.5, 1.5]]), None),  # of sum one, but outside
        (torch.full((2, 4, 3, 3), 0.25), "softmax"),
        (torch.tensor([[0.2], [0.9]]), "sigmoid"),
        (torch.tensor([[0.2], [-0.9]]), None),
        (torch.empty(0, 3), None),
    ],
)
def test_probabilities_are_told_from_logits(outputs, last):
    assert ends_in(outputs) == last
