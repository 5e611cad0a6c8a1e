"""Two gradients, one step: the bargaining solution solved by scipy, and what a phase makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Phase, fit
from unlearn_kit.engine.balance import RULES, nash, pcgrad


def pair(seed: int, angle_from: float = -1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    source = torch.Generator().manual_seed(seed)
    first = [torch.randn(3, 2, generator=source, dtype=torch.float64), torch.randn(4, generator=source).double()]
    second = [torch.randn(g.shape, generator=source, dtype=torch.float64) + angle_from * g for g in first]
    return first, second


def flat(gradient: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([g.flatten() for g in gradient]).numpy()


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lean", [-2.0, -0.7, 0.0, 1.5])
def test_nash_solves_its_equations(lean):
    """``G'G a = 1 / a`` with a > 0, which one a alone solves: ``a'G'G a / 2 - sum log a`` is strictly convex."""
    for seed in range(5):
        first, second = pair(seed, lean)
        G = np.stack([flat(first), flat(second)], axis=1)
        step = flat(nash(first, second))
        a, rest, *_ = np.linalg.lstsq(G, step, rcond=None)
        assert rest == pytest.approx(0, abs=1e-18)
        assert (a > 0).all()
        assert np.allclose(G.T @ G @ a, 1 / a)
        start = a * np.array([1.7, 0.4])
        found = minimize(lambda v, K=G.T @ G: v @ K @ v / 2 - np.log(v).sum(), start, bounds=[(1e-9, None)] * 2)
        assert np.allclose(found.x, a, rtol=1e-3)


@given(st.integers(0, 50), st.floats(-12, 12), st.floats(-12, 12))
@settings(deadline=None, max_examples=40)
def test_nash_knows_no_units(seed, a, b):
    first, second = pair(seed)
    scaled = nash([10**a * g for g in first], [10**b * g for g in second])
    assert np.allclose(flat(scaled), flat(nash(first, second)), atol=1e-9)


@given(st.integers(0, 50), st.floats(-3, 3))
@settings(deadline=None, max_examples=40)
def test_nash_helps_both_alike(seed, lean):
    first, second = pair(seed, lean)
    step = flat(nash(first, second))
    gains = [flat(g) @ step / np.linalg.norm(flat(g)) for g in (first, second)]
    assert gains[0] == pytest.approx(gains[1])
    assert gains[0] > 0
    assert np.linalg.norm(step) == pytest.approx(np.sqrt(2))
    assert np.allclose(flat(nash(second, first)), step)


def test_nash_where_there_is_nothing_to_agree_on():
    first, _ = pair(0)
    against = [-3 * g for g in first]
    assert all((g == 0).all() for g in nash(first, against))
    none = [torch.zeros_like(g) for g in first]
    for rule in (nash, pcgrad):
        assert np.allclose(flat(rule(first, none)), flat(first))
        assert np.allclose(flat(rule(none, first)), flat(first))
        assert (flat(rule(none, none)) == 0).all()


@given(st.integers(0, 50), st.floats(-3, 3))
@settings(deadline=None, max_examples=60)
def test_pcgrad_is_its_formula_and_never_works_against_either(seed, lean):
    first, second = pair(seed, lean)
    a, b = flat(first), flat(second)
    expected = a + b - min(a @ b, 0) / (b @ b) * b - min(a @ b, 0) / (a @ a) * a
    step = flat(pcgrad(first, second))
    assert np.allclose(step, expected)
    assert step @ a >= -1e-9
    assert step @ b >= -1e-9
    if a @ b >= 0:
        assert np.allclose(step, a + b)


# --- in a phase -----------------------------------------------------------------------------------


def data(seed: int, count: int = 12) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 5, generator=source, dtype=torch.float64)
    return TensorImages(x, torch.randint(3, (count,), generator=source))


STREAMS = {"forget": data(0), "retain": data(1)}


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(5, 3, dtype=torch.float64)


def objective(forget: float = 0.4, retain: float = 2.0) -> L.Objective:
    return -forget * L.cross_entropy(on="forget") + retain * L.cross_entropy(on="retain")


def trained(terms: L.Objective, balance: str | None, steps: int = 1, **options) -> nn.Module:
    phase = Phase(terms, STREAMS, steps=steps, batch_size=99, lr=0.1, momentum=0.0, balance=balance, **options)
    return fit(model(), phase).model


def gradients(sign: float, name: str) -> list[torch.Tensor]:
    start = model()
    loss = sign * nn.functional.cross_entropy(start(STREAMS[name].inputs), STREAMS[name].targets)
    return list(torch.autograd.grad(loss, list(start.parameters())))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_step_follows_the_combined_gradient_of_the_streams(rule):
    expected = RULES[rule]([0.4 * g for g in gradients(-1, "forget")], [2 * g for g in gradients(1, "retain")])
    after = trained(objective(), rule)
    for p, start, g in zip(after.parameters(), model().parameters(), expected, strict=True):
        assert torch.allclose(p, start - 0.1 * g, atol=1e-12)


def test_under_nash_the_weights_of_the_streams_do_not_matter():
    first, second = trained(objective(0.01, 50.0), "nash", 4), trained(objective(7.0, 0.3), "nash", 4)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.allclose(first.weight, trained(objective(), None, 4).weight)


def test_terms_of_one_stream_are_added_and_those_of_the_parameters_alone_stand_apart():
    extra = objective() + 0.3 * L.mse(on="retain", to=L.Teacher(model())) + 0.01 * L.parameter_norm(2.0)
    plain = trained(objective(), "nash")
    # At the first step the distance to the teacher has gradient zero: what differs is the norm's own gradient.
    for p, q, start in zip(trained(extra, "nash").parameters(), plain.parameters(), model().parameters(), strict=True):
        assert torch.allclose(p, q - 0.1 * 0.01 * 2 * start, atol=1e-12)


def test_a_stream_that_rests_leaves_the_other_its_gradient():
    terms = L.every(2) * L.cross_entropy(on="forget") + L.cross_entropy(on="retain")
    after = trained(terms, "nash")
    for p, start, g in zip(after.parameters(), model().parameters(), gradients(1, "retain"), strict=True):
        assert torch.allclose(p, start - 0.1 * g, atol=1e-12)


def test_clipping_and_masks_come_after_balancing():
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0] = True
    after = trained(objective(), "nash", clip=0.1, masks={"weight": mask})
    moved = torch.cat([(p - q).flatten() for p, q in zip(after.parameters(), model().parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.1, rel=1e-4)
    assert torch.equal(after.weight[1:], model().weight[1:])


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(
        ValueError, match=r"^expected balance='nash' with an objective of two streams, but got \['forget'\]$"
    ):
        Phase(L.cross_entropy(on="forget"), {"forget": data(0)}, steps=1, balance="nash")
    with pytest.raises(ValueError, match=r"^expected balance to be one of .*; did you mean 'pcgrad'"):
        Phase(objective(), STREAMS, steps=1, balance="pc-grad")
    # Half precision of 16 bits, which no CPU trains in: its losses are scaled up.
    scaling = Accelerator(cpu=True)
    scaling.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match=r"scales no gradients with balance='nash', .* got mixed_precision='fp16'"):
        fit(model(), Phase(objective(), STREAMS, steps=1, balance="nash"), accelerator=scaling)
