"""The outer problem's gradients against those of the whole data, and their bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Callback, Phase, Run, Stationarity, fit
from unlearn_kit.schedules import linear, rate_at


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
    for record, weights in ((outer.records[0], model()), (outer.records[-1], result.model)):
        loss = 2 * nn.functional.cross_entropy(weights(STREAMS["retain"].inputs), STREAMS["retain"].targets)
        squared = sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(weights.parameters())))
        assert record["objective"] == pytest.approx(loss.item(), rel=1e-5)
        assert record["squared_gradient"] == pytest.approx(squared, rel=1e-4)
    assert (outer.records[0]["step"], outer.records[-1]["step"]) == (0, 30)


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


def by_hand(phase: Phase, rates: list[float]) -> list[float]:
    """The squared gradients of plain gradient descent on the retain data, before each step."""
    weights, squared = model(), []
    x, y = STREAMS["retain"].inputs, STREAMS["retain"].targets
    for rate in rates:
        loss = nn.functional.cross_entropy(weights(x), y)
        gradients = torch.autograd.grad(loss, list(weights.parameters()))
        squared.append(sum(float(g.square().sum()) for g in gradients))
        with torch.no_grad():
            for p, g in zip(weights.parameters(), gradients, strict=True):
                p.sub_(rate * g)
    return squared


@pytest.mark.parametrize("lr", [0.5, linear(1.0, 0.0)])
def test_the_mean_is_over_all_steps_however_few_are_measured(lr):
    retain = STREAMS["retain"]
    phase = replace(
        PLAIN, objective=L.cross_entropy(on="retain"), streams={"retain": retain}, batch_size=40, steps=35, lr=lr
    )
    rates = [rate_at(lr, step, 35) for step in range(35)]
    squared = by_hand(phase, rates)
    exact = float(np.average(squared, weights=rates))
    means = {}
    for every in (1, 10):
        outer = Stationarity(phase, every=every)
        fit(model(), phase, callbacks=[outer])
        means[every] = outer.details()["mean"]
    assert means[1] == pytest.approx(exact, rel=1e-4)
    # Interpolated by numpy, at the sums of the rates.
    times = np.concatenate([[0], np.cumsum(rates)])
    places = [int(record["step"]) for record in outer.records]
    ends = [*squared, outer.records[-1]["squared_gradient"]]
    between = np.interp(times[:-1], times[places], [ends[place] for place in places])
    assert means[10] == pytest.approx(float(np.average(between, weights=rates)), rel=1e-4)
    # The first record is the largest; where each weighs what the rate at it is, it counts for too much.
    alone = float(np.average(squared[::10], weights=rates[::10]))
    assert abs(means[10] - exact) < abs(alone - exact)


def test_measurements_do_not_keep_step_with_the_epochs():
    phase = replace(PLAIN, steps=200)
    outer = Stationarity(phase, every=4)
    fit(model(), phase, callbacks=[outer])
    places = [int(record["step"]) for record in outer.records]
    assert places[0] == 0
    assert places[-1] == 200
    windows = [place // 4 for place in places[1:-1]]
    assert set(range(1, 50)) <= set(windows) <= set(range(50))
    assert len(windows) == len(set(windows))
    # An epoch of the forget data has 4 steps.
    counts = np.bincount([place % 4 for place in places], minlength=4)
    assert counts.min() > 4
    again = Stationarity(phase, every=4)
    fit(model(), phase, callbacks=[again])
    assert again.records == outer.records


def test_a_run_that_stops_early_is_judged_by_the_steps_it_took():
    class Stop(Callback):
        def on_step(self, run: Run) -> None:
            if run.done == 12:
                run.stop("enough")

    outer = Stationarity(PLAIN, every=1)
    fit(model(), PLAIN, callbacks=[outer, Stop()])
    found = outer.details()
    assert [record["step"] for record in found["records"]] == list(range(13))
    short = Stationarity(replace(PLAIN, steps=12), every=1)
    fit(model(), short.phase, callbacks=[short])
    assert found["mean"] == pytest.approx(short.details()["mean"])
    assert found["bound"] == pytest.approx(short.details()["bound"])


def test_targets_are_drawn_once():
    outer = Stationarity(replace(PLAIN, steps=2, lr=1e-12), every=1)
    fit(model(), outer.phase, callbacks=[outer])
    values = [record["objective"] for record in outer.records]
    assert values == pytest.approx([values[0]] * 3, abs=1e-6)


def deep() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("how", ["named", "frozen", "named though frozen"])
def test_the_gradient_is_that_of_what_the_phase_trains(how: str):
    given, head = deep(), ["2.weight", "2.bias"]
    if how != "named":
        for name, p in given.named_parameters():
            p.requires_grad_((name in head) == (how == "frozen"))
    flags = [p.requires_grad for p in given.parameters()]
    objective, retain = L.cross_entropy(on="retain"), STREAMS["retain"]
    named = None if how == "frozen" else head
    phase = replace(
        PLAIN, objective=objective, streams={"retain": retain}, batch_size=10, steps=6, trainable=named, lr=0.01
    )
    outer = Stationarity(phase, every=2)
    result = fit(given, phase, callbacks=[outer])
    for record, network in ((outer.records[0], deep()), (outer.records[-1], result.model.requires_grad_(True))):
        loss = nn.functional.cross_entropy(network(retain.inputs), retain.targets)
        gradients = torch.autograd.grad(loss, [network.get_parameter(name) for name in head])
        expected = sum(float(g.square().sum()) for g in gradients)
        assert record["squared_gradient"] == pytest.approx(expected, rel=1e-4)
    assert [p.requires_grad for p in given.parameters()] == flags
    assert outer.details()["bound"] is not None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"momentum": 0.9}, "not plain stochastic gradient descent"),
        ({"optimizer": "adam"}, "not plain stochastic gradient descent"),
        ({"clip": 1.0}, "gradients are clipped or balanced"),
        ({"balance": "nash"}, "gradients are clipped or balanced"),
        ({"lr": 1.0}, "lr is above 1 / L"),
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
