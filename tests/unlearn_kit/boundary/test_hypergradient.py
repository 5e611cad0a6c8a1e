"""Gradients through the inner problem: unrolled, implicit, by finite differences, by scipy's exact solution."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from unlearn_kit.boundary import DISTRIBUTIONS, PerturbedSign, expected_sign, smoothed_search
from unlearn_kit.boundary.conjugate import conjugate_gradients
from unlearn_kit.schedules import linear

KNOWN = {"normal": stats.norm(), "uniform": stats.uniform(-1, 2), "laplace": stats.laplace(), "cauchy": stats.cauchy()}
PIXELS, CLASSES = 6, 3


def logistic() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(PIXELS, CLASSES, dtype=torch.float64)
        with torch.no_grad():
            model.weight.mul_(6)
        return model, torch.rand(5, PIXELS, dtype=torch.float64), torch.randint(CLASSES, (5,))


def small_cnn() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        body = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU()]
        model = nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * 4, 3)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.2)
        return model, torch.rand(4, 1, 6, 6, dtype=torch.float64), torch.randint(3, (4,))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def outer(logits: Tensor) -> Tensor:
    """Any smooth function of the soft labels."""
    q = logits.softmax(1)
    return (q.square() @ torch.arange(1.0, q.shape[1] + 1).to(q)).mean()


def derivatives(make, search, mode, settings=("radius", "closeness", "noise")):
    """The hypergradient over the weights and the settings, and its finite differences along random directions."""
    model, x, y = make()
    start = {"radius": search.radius, "closeness": search.closeness, "noise": search.noise}
    values = {name: number(start[name]) for name in settings}
    leaves = [*model.parameters(), *values.values()]
    found = smoothed_search(search, model, x, y, mode=mode, **values)
    assert found.converged.all()
    gradients = torch.autograd.grad(outer(found.logits), leaves, allow_unused=True, materialize_grads=True)
    return model, x, y, values, leaves, gradients


def differences(model, x, y, search, values, leaves, count=2):
    """Central differences of the long unrolled search along directions, the last ones along each setting."""
    source = torch.Generator().manual_seed(5)
    directions = []
    for _ in range(count):
        directions.append([torch.randn(p.shape, generator=source, dtype=p.dtype) for p in leaves])
        for place in range(len(values)):
            directions[-1][-1 - place].zero_()
    for place in range(len(values)):
        directions.append([torch.zeros_like(p) for p in leaves])
        directions[-1][len(leaves) - len(values) + place].fill_(1.0)
    slopes, step = [], 1e-6
    for direction in directions:
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                torch._foreach_add_(leaves, direction, alpha=sign * step)
            ends.append(float(outer(smoothed_search(search, model, x, y, **values).logits).detach()))
            with torch.no_grad():
                torch._foreach_add_(leaves, direction, alpha=-sign * step)
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return directions, torch.tensor(slopes, dtype=torch.float64)


def along(gradients, directions) -> Tensor:
    return torch.stack([sum((g * v).sum() for g, v in zip(gradients, d, strict=True)) for d in directions])


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# --- the expected sign ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_expected_sign_and_its_slope_come_from_the_distribution(name, scale):
    g = torch.linspace(-4, 4, 41, dtype=torch.float64) + 0.013
    g = torch.cat([g, torch.zeros(1, dtype=torch.float64)]).requires_grad_(True)
    sign = expected_sign(name, g, scale)
    t = g.detach().numpy() / scale
    assert np.allclose(sign.detach().numpy(), 2 * KNOWN[name].cdf(t) - 1, atol=1e-12)
    (slope,) = torch.autograd.grad(sign.sum(), g)
    inside = np.abs(np.abs(t) - 1) > 1e-6  # The density of the uniform jumps.
    assert np.allclose(slope.numpy()[inside], 2 * KNOWN[name].pdf(t[inside]) / scale, atol=1e-12)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_the_expected_sign_is_the_mean_of_signs(name):
    z = DISTRIBUTIONS[name]((40_000,), torch.Generator().manual_seed(0))
    for g, c in ((0.3, 0.5), (-1.0, 2.0)):
        drawn = float(torch.sign(g + c * z).mean())
        assert float(expected_sign(name, torch.tensor(g), c)) == pytest.approx(drawn, abs=0.02)


# --- conjugate gradients --------------------------------------------------------------------------


def test_conjugate_gradients_agree_with_scipy_sample_by_sample():
    source = torch.Generator().manual_seed(0)
    root = torch.randn(5, 7, 7, generator=source, dtype=torch.float64)
    A = root @ root.mT + 0.5 * torch.eye(7, dtype=torch.float64)
    b = torch.randn(5, 7, generator=source, dtype=torch.float64)
    v, solved = conjugate_gradients(lambda p: (A @ p[:, :, None])[:, :, 0], b, tolerance=1e-12, iterations=50)
    assert solved.all()
    for i in range(5):
        operator = LinearOperator((7, 7), matvec=lambda p, i=i: A[i].numpy() @ p)
        expected, info = cg(operator, b[i].numpy(), rtol=1e-12)
        assert info == 0
        assert np.allclose(v[i].numpy(), expected, atol=1e-9)


def test_systems_that_are_not_positive_definite_are_told_apart():
    diagonal = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, -1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    v, solved = conjugate_gradients(lambda p: diagonal * p, b, tolerance=1e-10, iterations=20)
    assert solved.tolist() == [True, False, True]  # The last has nothing to solve.
    assert torch.allclose(v[0], torch.tensor([1.0, 0.5], dtype=torch.float64))
    _, early = conjugate_gradients(lambda p: diagonal.abs() * p, b, tolerance=1e-10, iterations=1)
    assert early.tolist() == [False, False, True]


# --- unrolled, implicit, finite differences -------------------------------------------------------

PROJECTED = PerturbedSign(0.12, 50, 0.03, 8.0, 0.5)
VERTICES = PerturbedSign(0.12, 50, 0.3, 8.0, 0.5, update="frank-wolfe")


@pytest.mark.parametrize("search", [PROJECTED, VERTICES], ids=["projected", "frank-wolfe"])
@pytest.mark.parametrize(("make", "bound", "closeness"), [(logistic, 1e-4, 8.0), (small_cnn, 1e-2, 20.0)])
def test_three_ways_to_the_same_hypergradient(make, bound, closeness, search):
    search = replace(search, closeness=closeness)
    *given, unrolled = derivatives(make, search, "unrolled")
    implicit = derivatives(make, search, "implicit")[-1]
    model, x, y, values, leaves = given
    directions, slopes = differences(model, x, y, search, values, leaves)
    assert slopes.norm() > 1e-3  # Else the test shows nothing.
    assert relative(along(unrolled, directions), slopes) < bound
    assert relative(along(implicit, directions), slopes) < bound
    whole = [torch.cat([g.flatten() for g in gradients]) for gradients in (implicit, unrolled)]
    assert relative(*whole) < bound


def test_some_pixels_of_the_projected_search_are_at_the_edge_and_others_inside():
    model, x, y = logistic()
    moved = (smoothed_search(PROJECTED, model, x, y, mode="implicit").inputs - x).abs()
    at_edge = (moved > 0.12 - 1e-9) | (moved == 0)
    assert 0 < at_edge.double().mean() < 1  # Both kinds, or the tests above show half of what they say.


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
def test_a_short_unrolled_search_has_the_derivative_of_finite_differences(name, noise_scale, update):
    size = None if update == "projected" else 0.3
    search = PerturbedSign(0.3, 3, size, 1.0, 0.8, name, noise_scale, update)
    model, x, y, values, leaves, gradients = derivatives(logistic, search, "unrolled")
    directions, slopes = differences(model, x, y, search, values, leaves, count=2)
    assert (slopes[-3:].abs() > 1e-7).all()  # Radius, closeness and noise all matter.
    assert relative(along(gradients, directions), slopes) < 1e-4


def test_the_implicit_hypergradient_is_that_of_the_exact_inner_solution():
    """scipy solves the inner problem itself, for weights moved to and fro."""
    model, x, y = logistic()
    (gradient,) = torch.autograd.grad(
        outer(smoothed_search(PROJECTED, model, x, y, mode="implicit").logits), model.weight
    )

    def value(weight: np.ndarray) -> float:
        bias, logits = model.bias.detach().numpy(), []
        for start, label in zip(x.numpy(), y.tolist(), strict=True):

            def down(u: np.ndarray, start: np.ndarray = start, label: int = label) -> tuple[float, np.ndarray]:
                z = weight @ u + bias
                slope = weight.T @ (softmax(z) - np.eye(CLASSES)[label]) - 8.0 * (u - start)
                return log_softmax(z)[label] + 4.0 * ((u - start) ** 2).sum(), -slope

            box = list(zip(np.maximum(start - 0.12, 0), np.minimum(start + 0.12, 1), strict=True))
            best = minimize(down, start, jac=True, bounds=box, options={"ftol": 1e-16, "gtol": 1e-12})
            logits.append(weight @ best.x + bias)
        return float(outer(torch.from_numpy(np.array(logits))))

    weight = model.weight.detach().numpy()
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=weight.shape)
        slope = (value(weight + 1e-3 * direction) - value(weight - 1e-3 * direction)) / 2e-3
        assert float((gradient * torch.from_numpy(direction)).sum()) == pytest.approx(slope, rel=1e-3)


def test_the_fixed_point_of_projected_steps_knows_no_noise():
    model, x, y = logistic()
    noise = number(0.5)
    found = smoothed_search(PROJECTED, model, x, y, mode="implicit", noise=noise)
    (slope,) = torch.autograd.grad(outer(found.logits), noise, allow_unused=True, materialize_grads=True)
    assert slope == 0
    quiet = smoothed_search(PROJECTED, model, x, y, mode="implicit", noise=number(0.01))
    assert torch.allclose(found.inputs, quiet.inputs, atol=1e-8)


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
def test_with_little_noise_the_smoothed_search_is_the_search(update):
    model, x, y = logistic()
    loud = PerturbedSign(0.2, 4, 0.05 if update == "projected" else 0.3, 0.5, 1e-9, update=update)
    quiet = PerturbedSign(0.2, 4, 0.05 if update == "projected" else 0.3, 0.5, 0.0, update=update)
    assert torch.allclose(smoothed_search(loud, model, x, y).inputs, quiet.search(model, x, y).inputs, atol=1e-9)


def test_the_model_and_the_inputs_stay_as_they_were():
    model, x, y = small_cnn()
    model.train()
    before, kept = copy.deepcopy(model.state_dict()), x.clone()
    search = replace(VERTICES, steps=3, closeness=20.0)
    for mode in ("unrolled", "implicit"):
        found = smoothed_search(search, model, x, y, mode=mode)
        torch.autograd.grad(outer(found.logits), list(model.parameters()))
    assert model.training
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- what cannot be differentiated ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "mode", "text"),
    [
        (
            {"noise": 0.0},
            "unrolled",
            "^expected noise above 0 for a hypergradient, since a sign has derivative 0, but got",
        ),
        ({"stop_when_flipped": True}, "unrolled", "^expected search to have stop_when_flipped=False"),
        (
            {"noise": linear(1, 0.5)},
            "implicit",
            r"^expected noise to be a number for an implicit .* got linear\(1, 0.5\)$",
        ),
        ({"closeness": linear(1, 0)}, "implicit", "^expected closeness to be a number for an implicit"),
        (
            {"update": "frank-wolfe", "noise_scale": "relative", "step_size": 0.1},
            "implicit",
            "^expected noise_scale='absolute' for an implicit hypergradient of frank-wolfe steps, but got 'relative'$",
        ),
        ({}, "impliicit", "did you mean 'implicit'"),
    ],
)
def test_what_has_no_hypergradient_is_refused(change, mode, text):
    model, x, y = logistic()
    search = PerturbedSign(**{"radius": 0.1, "steps": 3, "noise": 0.1, "closeness": 1.0, **change})
    with pytest.raises(ValueError, match=text):
        smoothed_search(search, model, x, y, mode=mode)


def test_samples_that_do_not_come_to_rest_are_refused_or_count_as_constant():
    model, x, y = logistic()
    with pytest.raises(
        ValueError, match=r"^expected the inner problem to come to rest within 1 iterations, but \d of 5"
    ):
        smoothed_search(PROJECTED, model, x, y, mode="implicit", iterations=1)
    found = smoothed_search(PROJECTED, model, x, y, mode="implicit", iterations=1, strict=False)
    assert not found.converged.any()
    frozen = model(found.inputs.detach())
    moving, constant = (torch.autograd.grad(outer(z), model.weight)[0] for z in (found.logits, frozen))
    assert torch.allclose(moving, constant)


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
def test_the_backward_pass_tells_which_samples_have_a_hypergradient(update):
    """Both points rest at once, but the first is a minimum of what is climbed: its system is not positive definite."""
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def forward(u: Tensor) -> Tensor:
        z = 8 * scale * u.square().sum(1)
        return torch.stack([torch.zeros_like(z), z], dim=1)

    search = PerturbedSign(1.0, closeness=0.1, noise=0.3, update=update, bounds=None)
    x, y = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    found = smoothed_search(search, forward, x, y, mode="implicit", strict=False)
    assert found.converged.tolist() == [True, True]
    found.inputs.sum().backward()
    assert found.converged.tolist() == [False, True]
