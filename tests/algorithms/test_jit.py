"""JIT: one step by hand, and that it reads inputs of the forget data alone."""

import copy

import pytest
import torch
from torch import nn

from algorithms import jit
from algorithms.jit import roughness
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages, load_tensors


def setting():
    source = torch.Generator().manual_seed(0)
    data = TensorImages(torch.rand(20, 5, generator=source), torch.arange(20) % 4)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def by_hand(model, x, noises):
    """The mean ratio of output to input distances, and its gradient through the clean output alone."""
    values = []
    for noise in noises:
        fixed = model(x + noise).detach()
        values.append(((model(x) - fixed) ** 2).sum(1).sqrt() / (noise**2).sum(1).sqrt())
    return torch.stack(values).mean(0)


def test_roughness_is_the_mean_ratio_of_distances_and_stops_gradients_at_noisy_inputs():
    task, model = setting()
    x, y = load_tensors(task.forget)
    source = torch.Generator().manual_seed(9)
    noises = [0.2 * torch.randn(x.shape, generator=source) for _ in range(3)]
    batch = L.Batch(x, y, generator=torch.Generator().manual_seed(9))
    evaluation = L.Objective((roughness(on="forget", std=0.2, draws=3),)).evaluate(model, {"forget": batch})
    expected = by_hand(model, x, noises).mean()
    torch.testing.assert_close(evaluation.total, expected)
    found, wanted = (torch.autograd.grad(v, list(model.parameters())) for v in (evaluation.total, expected))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_small_noise_measures_the_slope():
    slope = torch.tensor([[3.0, 4.0]])
    batch = L.Batch(torch.rand(500, 2), torch.zeros(500))
    term = roughness(on="forget", std=0.1, draws=40)
    value = L.Objective((term,)).evaluate(nn.Identity(), {"forget": batch}, forward=lambda x: x @ slope.T).total
    # |slope . e| / |e| is 5 |cos| of a uniform angle: 10 / pi.
    assert value.item() == pytest.approx(10 / torch.pi, rel=0.02)


def test_jit_uses_no_labels():
    task, model = setting()
    x, y = load_tensors(task.forget)
    other = UnlearnTask(TensorImages(x, 0 * y), task.retain, task.forget_test, task.retain_test, 4)
    for a, b in zip(jit(model, task).model.parameters(), jit(model, other).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(jit(model, task).model.parameters(), model.parameters(), strict=True)
    )


def test_epochs_replace_steps_and_bad_options_are_refused():
    task, model = setting()
    assert jit(model, task, epochs=2, batch_size=3).history[-1]["step"] == 3
    with pytest.raises(ValueError, match=r"expected std in \(0, inf\), but got 0"):
        jit(model, task, std=0)
    with pytest.raises(ValueError, match="expected draws to be at least 1, but got 0"):
        jit(copy.deepcopy(model), task, draws=0)
