"""Targets that differ from sample to sample, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import Tensor, nn

from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(9, outputs)).eval()


def batch(indices: list[int] | None, classes: int = 4) -> L.Batch:
    count = 5 if indices is None else len(indices)
    x = torch.rand(count, 1, 3, 3, generator=own(1))
    return L.Batch(x, torch.arange(count) % classes, None if indices is None else torch.tensor(indices))


def test_a_table_gives_each_position_its_own_goal() -> None:
    values = torch.rand(7, 4, generator=own(0))
    kind, found = L.Table(values, "logits")(batch([6, 0, 6]))
    assert kind == "logits"
    assert torch.equal(found, values[[6, 0, 6]])
    with pytest.raises(ValueError, match=r"expected a batch with indices for Table\(7 logits\)"):
        L.Table(values, "logits")(batch(None))
    with pytest.raises(ValueError, match="it holds 7 and was asked for position 7"):
        L.Table(values, "logits")(batch([7]))


def test_a_table_of_another_length_is_refused_before_training() -> None:
    from unlearn_kit.data import TensorImages
    from unlearn_kit.engine import Phase, fit

    data = TensorImages(torch.rand(9, 1, 3, 3), torch.arange(9) % 4)
    term = L.cross_entropy(on="forget", to=L.Table(torch.full((3, 4), 0.25)))
    with pytest.raises(ValueError, match="it holds 3 and was asked for position"):
        fit(network(), Phase(term, {"forget": data}, steps=1, batch_size=9))


@pytest.mark.parametrize("shrink", [1.0, 0.25])
def test_margins_are_the_validation_quantiles_and_positive_ones_shrink(shrink: float) -> None:
    margins = torch.randn(40, generator=own(2)) * 3
    places = torch.rand(25, generator=own(3))
    quantiles = np.quantile(margins.double().numpy(), 1 - places.double().numpy())
    expected = np.where(quantiles > 0, shrink * quantiles, quantiles)
    found = L.Calibration(margins, shrink=shrink).margin_at(places)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_within_classes_quantiles_are_those_of_the_class_and_of_all_where_it_has_none() -> None:
    margins, labels = torch.randn(30, generator=own(4)), torch.arange(30) % 2
    places, wanted = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 1, 2])
    found = L.Calibration(margins, labels, shrink=1.0).margin_at(places, wanted)
    parts = [margins[labels == 0], margins[labels == 1], margins]
    expected = [np.quantile(part.double().numpy(), 1 - float(u)) for part, u in zip(parts, places, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def matched(rest: L.Target, percentiles: Tensor, classes: int = 4) -> L.Matched:
    return L.Matched(percentiles, L.Calibration(torch.linspace(-4, 6, 50)), rest, classes)


def test_matched_gives_the_label_the_confidence_of_its_rank_and_others_what_the_model_says() -> None:
    model, places = network(), torch.linspace(0.02, 0.98, 8)
    target, asked = matched(L.OtherClasses(model), places), batch([5, 0, 7, 2])
    with torch.no_grad():
        p0 = softmax(model(asked.inputs).double().numpy(), axis=1)
    t = np.quantile(np.linspace(-4, 6, 50), 1 - places[[5, 0, 7, 2]].double().numpy())
    p = expit(np.where(t > 0, 0.6 * t, t))
    y = asked.targets.numpy()
    expected = p0.copy()
    expected[np.arange(4), y] = 0
    expected *= ((1 - p) / expected.sum(1))[:, None]
    expected[np.arange(4), y] = p
    found = target(asked)
    assert found.kind == "probabilities"
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-6)


def test_the_label_behind_the_boundary_takes_the_rest() -> None:
    model = network()
    search = PerturbedSign(radius=1.0)
    boundary = L.Boundary(model, search, uncrossed="runner-up")
    asked = batch([0, 1, 2])
    found = matched(boundary, torch.tensor([0.1, 0.5, 0.9]))(asked).values
    other = search.search(model, asked.inputs, asked.targets).labels
    assert (other != asked.targets).any()
    rest = boundary(asked).values
    assert (found.gather(1, rest[:, None]) + found.gather(1, asked.targets[:, None])).allclose(torch.ones(3, 1))


def test_the_runner_up_is_the_likeliest_other_label() -> None:
    model, asked = network(), batch([0, 1, 2, 3])
    with torch.no_grad():
        z = model(asked.inputs).numpy().copy()
    z[np.arange(4), asked.targets.numpy()] = -np.inf
    kind, found = L.RunnerUp(model)(asked)
    assert kind == "labels"
    assert found.tolist() == z.argmax(1).tolist()
    single = batch([0, 1], classes=2)
    assert L.RunnerUp(network(1))(single).values.tolist() == [1, 0]


def test_without_anything_said_of_others_they_share_the_rest_and_single_logits_have_two_outcomes() -> None:
    places = torch.tensor([0.9, 0.1])
    found = matched(L.Labels(), places)(batch([0, 1])).values
    p = found.gather(1, torch.tensor([[0], [1]]))
    others = torch.stack([found[0, 1:], found[1, [0, 2, 3]]])
    torch.testing.assert_close(others, ((1 - p) / 3).expand(2, 3), atol=1e-6, rtol=0)
    single = network(1)
    asked = batch([0, 1], classes=2)
    value = L.cross_entropy(on="forget", to=matched(L.OtherClasses(single), places, 2))
    goal = matched(L.OtherClasses(single), places, 2)(asked)
    loss = L.Objective((value,)).evaluate(single, {"forget": asked}).total
    z = single(asked.inputs)[:, 0].detach().double().numpy()
    q = goal.values[:, 1].double().numpy()
    expected = np.mean(-q * np.log(expit(z)) - (1 - q) * np.log(expit(-z)))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: L.Table(torch.tensor([[float("nan")]])), "expected values to be finite"),
        (lambda: L.Table(torch.rand(3)), "expected values to hold one goal a sample"),
        (lambda: L.Calibration(torch.empty(0)), "expected margins to hold one number"),
        (lambda: L.Calibration(torch.rand(3), shrink=0.0), "expected shrink in"),
        (lambda: L.Calibration(torch.rand(3), torch.zeros(2)), "expected one label a margin"),
        (lambda: matched(L.Uniform(4), torch.tensor([1.2])), r"expected percentiles in \[0, 1\]"),
        (lambda: matched(L.Uniform(4), torch.tensor([float("nan")])), r"expected percentiles in \[0, 1\]"),
        (lambda: matched(L.Uniform(4), torch.rand(2, 2)), "expected one percentile a sample"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
