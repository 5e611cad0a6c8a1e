"""The outer problem's gradients against those of the whole data, and their bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Phase, Stationarity, fit


def data(count: int, seed: int) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.randint(3, (count,), generator=source))


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(6, 3)


STREAMS = {"forget": data(20, 0), "retain": data(40, 1)}
OBJECTIVE = L.cross_entropy(on="forget", to=L.Cached(L.RandomLabels(3))) + 2.0 * L.cross_entropy(on="retain")
PLAIN = Phase(OBJECTIVE, STREAMS, steps=30, batch_size={"forget": 5, "retain": 10}, lr=0.05, momentum=0.0)


def test_the_figures_are_those_of_the_whole_data():
    outer = Stationarity(
        replace(
            PLAIN, objective=2.0 * L.cross_entropy(on="retain"), streams={"retain": STREAMS["retain"]}, batch_size=10
        ),
        every=30,
    )
    phase = outer.phase
    result = fit(model(), phase, callbacks=[outer])
    for record, weights in zip(outer.records, (model(), result.model), strict=True):
        loss = 2 * nn.functional.cross_entropy(weights(STREAMS["retain"].inputs), STREAMS["retain"].targets)
        squared = sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(weights.parameters())))
        assert record["objective"] == pytest.approx(loss.item(), rel=1e-5)
        assert record["squared_gradient"] == pytest.approx(squared, rel=1e-4)
    assert [record["step"] for record in outer.records] == [0, 30]


def test_watching_changes_no_weight():
    watched = fit(model(), PLAIN, callbacks=[Stationarity(PLAIN, every=3)]).model
    alone = fit(model(), PLAIN).model
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))


def test_plain_gradient_descent_keeps_its_bound():
    outer = Stationarity(PLAIN, every=1)
    fit(model(), PLAIN, callbacks=[outer])
    found = outer.details()
    assert found["why"] == ""
    assert len(found["records"]) == 31
    # Softmax regression: the Hessian is at most half the mean of |(x, 1)|^2, times the weights of the terms.
    most = 0.5 * 3 * max(float((part.inputs.square().sum(1) + 1).max()) for part in STREAMS.values())
    assert 0 < found["smoothness"] <= most
    assert 0 < found["mean"] <= found["bound"]


def test_targets_are_drawn_once():
    outer = Stationarity(replace(PLAIN, steps=2, lr=1e-12), every=1)
    fit(model(), outer.phase, callbacks=[outer])
    values = [record["objective"] for record in outer.records]
    assert values == pytest.approx([values[0]] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"momentum": 0.9}, "not plain stochastic gradient descent"),
        ({"optimizer": "adam"}, "not plain stochastic gradient descent"),
        ({"clip": 1.0}, "gradients are clipped or balanced"),
        ({"balance": "nash"}, "gradients are clipped or balanced"),
        ({"lr": 50.0}, "lr is above 1 / L"),
        ({"batch_size": 30}, "too few samples for the variance"),
        ({"lr": 0.0}, "no lr that is known beforehand"),
    ],
)
def test_where_the_theory_does_not_apply_it_says_why(change, why):
    phase = replace(PLAIN, steps=4, **change)
    outer = Stationarity(phase, every=2)
    fit(model(), phase, callbacks=[outer])
    found = outer.details()
    assert found["bound"] is None
    assert why in found["why"]
