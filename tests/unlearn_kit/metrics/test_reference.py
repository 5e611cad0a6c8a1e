from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit.metrics import (
    activation_distance,
    activation_distances,
    agreement,
    completeness,
    js_divergence,
    js_divergences,
    layerwise_distance,
    zrf,
)

PER_SAMPLE = [activation_distances, js_divergences, agreement]


class Columns(nn.Module):
    """Some columns of the input are this model's logits."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.stop]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return draw(30, 4), draw(30, 4, seed=1)


def test_per_sample_forms_agree_with_numpy_and_scipy(pair: tuple[Tensor, Tensor]) -> None:
    p, q = (z.double().softmax(dim=1).numpy() for z in pair)
    np.testing.assert_allclose(activation_distances(*pair), np.sqrt(((p - q) ** 2).sum(axis=1)))
    np.testing.assert_allclose(js_divergences(*pair), jensenshannon(p, q, axis=1) ** 2, atol=1e-12)
    np.testing.assert_array_equal(agreement(*pair), p.argmax(axis=1) == q.argmax(axis=1))


@pytest.mark.parametrize("batch_size", [7, 100])
def test_data_set_forms_are_means_over_samples(pair: tuple[Tensor, Tensor], batch_size: int) -> None:
    data = TensorDataset(torch.cat(pair, dim=1), torch.zeros(30))
    first, second = Columns(0, 4), Columns(4, 8)
    p, q = (z.double().softmax(dim=1).numpy() for z in pair)
    expected = np.linalg.norm(p - q, axis=1).mean()
    assert activation_distance(first, second, data, batch_size=batch_size) == pytest.approx(expected)
    expected = (jensenshannon(p, q, axis=1) ** 2).mean()
    assert js_divergence(first, second, data, batch_size=batch_size) == pytest.approx(expected)
    expected = accuracy_score(p.argmax(axis=1), q.argmax(axis=1))
    assert completeness(first, second, data, batch_size=batch_size) == pytest.approx(expected)


def test_saturated_logits_are_at_the_far_end_and_finite() -> None:
    left, right = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert js_divergences(left, right).item() == pytest.approx(math.log(2), abs=1e-15)
    assert activation_distances(left, right).item() == pytest.approx(math.sqrt(2))
    assert js_divergences(left, left).item() == 0
    assert agreement(left, right).item() == 0


def test_small_divergences_are_not_lost() -> None:
    left, right = torch.tensor([[20.0, 0.0]]), torch.tensor([[22.0, 0.0]])
    p, q = (np.array([1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))]) for z in (20.0, 22.0))
    assert js_divergences(left, right).item() == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-5)


@pytest.mark.parametrize("score", PER_SAMPLE)
def test_a_single_logit_counts_as_two_classes(score) -> None:
    p, q = draw(9, 1), draw(9, 1, seed=2)
    wide = [torch.cat([torch.zeros_like(z), z], dim=1) for z in (p, q)]
    torch.testing.assert_close(score(p, q), score(*wide))


@pytest.mark.parametrize("score", PER_SAMPLE)
def test_masks_are_means_over_pixels(score) -> None:
    p, q = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=3)
    pixels = score(p.movedim(1, -1).reshape(-1, 3), q.movedim(1, -1).reshape(-1, 3)).view(2, -1)
    torch.testing.assert_close(score(p, q), pixels.mean(dim=1))


@pytest.mark.parametrize("score", PER_SAMPLE)
def test_outputs_of_two_shapes_are_refused(score) -> None:
    text = r"expected logits of one shape from both models, but got \(2, 3\) and \(2, 4\)"
    with pytest.raises(ValueError, match=text):
        score(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize("metric", [activation_distance, js_divergence, completeness])
def test_model_metrics_are_n_a_on_nothing_and_refuse_nan(metric) -> None:
    model = nn.Identity()
    assert metric(model, model, TensorDataset(torch.zeros(0, 2), torch.zeros(0))) is None
    with pytest.raises(ValueError, match="expected logits to be finite"):
        metric(model, model, TensorDataset(torch.full((1, 2), torch.nan), torch.zeros(1)))


def test_a_model_is_at_no_distance_from_itself_and_both_stay_in_their_modes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    twin = copy.deepcopy(model).eval()
    before = copy.deepcopy(model.state_dict())
    data = TensorDataset(draw(12, 4), torch.zeros(12))
    assert activation_distance(model, twin, data) == 0
    assert js_divergence(model, model, data) == pytest.approx(0, abs=1e-15)
    assert completeness(model, twin, data) == 1
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in twin.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_layerwise_distance_agrees_with_numpy() -> None:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    second = copy.deepcopy(first)
    with torch.no_grad():
        second[0].weight.add_(1.0)
        second[2].bias.sub_(torch.tensor([3.0, 4.0]))
    found = layerwise_distance(first, second)
    assert list(found.layers) == [name for name, _ in first.named_parameters()]
    assert found.layers["0.weight"] == pytest.approx(math.sqrt(12), rel=1e-6)
    assert found.layers["2.bias"] == pytest.approx(5)
    assert found.layers["1.weight"] == 0
    vectors = [np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]) for model in (first, second)]
    assert found.total == pytest.approx(np.linalg.norm(vectors[0] - vectors[1]), rel=1e-6)
    assert layerwise_distance(first, first).total == 0


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            nn.Linear(3, 4, bias=False),
            "expected model and reference to have the same parameters, but got 'bias' in one",
        ),
        (
            nn.Linear(3, 5),
            r"expected 'bias' to have one shape .* but got \(4,\) and \(5,\)|expected 'weight' to have",
        ),
    ],
)
def test_layerwise_distance_refuses_other_architectures(other: nn.Module, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        layerwise_distance(nn.Linear(3, 4), other)


def test_zrf_of_a_given_random_network(pair: tuple[Tensor, Tensor]) -> None:
    data = TensorDataset(torch.cat(pair, dim=1), torch.zeros(30))
    p, q = (z.double().softmax(dim=1).numpy() for z in pair)
    expected = 1 - (jensenshannon(p, q, axis=1) ** 2).mean()
    assert zrf(Columns(0, 4), data, incompetent=Columns(4, 8)) == pytest.approx(expected)
    assert zrf(Columns(0, 4), data, incompetent=Columns(0, 4)) == 1
    assert zrf(Columns(0, 4), TensorDataset(torch.zeros(0, 8), torch.zeros(0)), incompetent=Columns(4, 8)) is None


def test_zrf_draws_its_random_network_from_the_seed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].weight.mul_(50)  # sure of itself, as no fresh network is
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    data = TensorDataset(draw(20, 4), torch.zeros(20))
    value = zrf(model, data)
    assert 1 - math.log(2) < value < 0.95
    assert value == zrf(model, data, seed=0)
    assert value != zrf(model, data, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_zrf_refuses_a_model_it_cannot_redraw() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    data = TensorDataset(torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(ValueError, match="Own"):
        zrf(Own(), data)
    assert zrf(Own(), data, incompetent=nn.Identity()) == 1
