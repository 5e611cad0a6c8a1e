"""Certificates against linear programs, dense Hessians and the exact inner solution."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog, minimize
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from unlearn_kit.boundary import ORACLE_LOSS, PerturbedSign
from unlearn_kit.boundary import certificate as certificates
from unlearn_kit.boundary.curvature import Surroundings, challenge, difference_slopes, extremes, leads, nearest_change
from unlearn_kit.outputs import label_loss

BATCH, PIXELS, CLASSES = 6, 8, 4


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_model(classes: int = CLASSES, scale: float = 2.0) -> nn.Linear:
    model = nn.Linear(PIXELS, classes, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(scale * torch.randn(classes, PIXELS, generator=own(3), dtype=torch.float64))
        model.bias.copy_(torch.randn(classes, generator=own(4), dtype=torch.float64))
    return model


def batch(classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    x = torch.rand(BATCH, PIXELS, generator=own(0), dtype=torch.float64)
    return x, torch.randint(classes, (BATCH,), generator=own(1))


def ascent(model: nn.Linear, x: np.ndarray, u: np.ndarray, y: int, closeness: float) -> tuple[float, np.ndarray]:
    """The inner objective of one sample and its gradient, in numpy."""
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()
    z = weight @ u + bias
    onehot = np.eye(len(z))[y]
    value = -log_softmax(z)[y] - closeness / 2 * ((u - x) ** 2).sum()
    return value, weight.T @ (softmax(z) - onehot) - closeness * (u - x)


# --- the gap --------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
@pytest.mark.parametrize("closeness", [0.0, 3.0])
def test_the_gap_is_what_a_linear_program_finds_in_the_box(update, closeness):
    model, (x, y) = linear_model(), batch()
    search = PerturbedSign(0.3, 4, closeness=closeness, noise=0.3, update=update)
    found = search.search(model, x, y, certificate=True)
    for i in range(BATCH):
        start, point = x[i].numpy(), found.inputs[i].numpy()
        _, gradient = ascent(model, start, point, int(y[i]), closeness)
        box = list(zip(np.maximum(start - 0.3, 0), np.minimum(start + 0.3, 1), strict=True))
        best = linprog(-gradient, bounds=box)
        assert float(found.certificate.gap[i]) == pytest.approx(-best.fun - gradient @ point, abs=1e-9)


def test_the_gap_of_an_exact_solution_is_zero():
    model, (x, y) = linear_model(), batch()
    search = PerturbedSign(0.3, 200, closeness=0.0)
    certificate = search.search(model, x, y, certificate=True).certificate
    # Convex and nearly linear: sign ascent ends in a vertex, which is stationary.
    assert (certificate.gap[certificate.gap < 1e-12] >= 0).all()
    assert float(certificate.gap.min()) == pytest.approx(0, abs=1e-12)


def test_a_certificate_changes_nothing_it_certifies():
    model, (x, y) = linear_model().train(), batch()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    for stop in (False, True):
        search = PerturbedSign(0.4, 5, noise=0.2, closeness=1.0, stop_when_flipped=stop)
        plain, certified = search.search(model, x, y), search.search(model, x, y, certificate=True)
        assert plain.certificate is None
        assert torch.equal(plain.inputs, certified.inputs)
        assert torch.equal(plain.logits, certified.logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(value.requires_grad for value in vars(certified.certificate).values() if value.is_floating_point())


# --- the bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ORACLE_LOSS))
def test_what_a_wrong_sign_costs_is_the_maximum_of_u_times_its_tail(name):
    tail = {
        "normal": stats.norm(),
        "uniform": stats.uniform(-1, 2),
        "laplace": stats.laplace(),
        "cauchy": stats.cauchy(),
    }
    u = np.concatenate([np.linspace(0, 10, 100001), np.logspace(1, 6, 1000)])
    assert ORACLE_LOSS[name] == pytest.approx((u * tail[name].sf(u)).max(), rel=1e-6)


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
@pytest.mark.parametrize("distribution", ["normal", "laplace"])
def test_both_sides_of_the_bound_are_those_of_the_theory(update, noise_scale, distribution):
    """Proposition 5 in numpy, along the way of the search, for one sample at a time."""
    model, (x, y), size, radius, steps = linear_model(), batch(), 0.25, 0.3, 5
    z = torch.randn(steps, *x.shape, generator=own(2), dtype=torch.float64)

    def options(count: int) -> PerturbedSign:
        return PerturbedSign(radius, count, size, 2.0, 0.1, distribution, noise_scale, update)

    found = options(steps).search(model, x, y, perturbations=z, certificate=True)
    way = [x] + [options(k).search(model, x, y, perturbations=z[:k]).inputs for k in range(1, steps + 1)]
    for i in range(BATCH):
        start = x[i].numpy()
        low, high = np.maximum(start - radius, 0), np.minimum(start + radius, 1)
        w, smooth = high - low, float(found.certificate.smoothness[i])
        gaps, floor = [], 0.0
        for u in (u[i].numpy() for u in way[:-1]):
            _, g = ascent(model, start, u, int(y[i]), 2.0)
            gaps.append(np.maximum(g * (high - u), g * (low - u)).sum())
            _, bare = ascent(model, start, u, int(y[i]), 0.0)
            c = 0.1 * (np.sqrt((bare**2).mean()) if noise_scale == "relative" else 1.0)
            stakes = size * w if update == "frank-wolfe" else np.minimum(2 * size, w)
            floor += ORACLE_LOSS[distribution] * c * stakes.sum()
        share = size if update == "frank-wolfe" else min(1.0, size / w.max())
        moves = size * w if update == "frank-wolfe" else np.minimum(size, w)
        climb = (
            ascent(model, start, way[-1][i].numpy(), int(y[i]), 2.0)[0] - ascent(model, start, start, int(y[i]), 2.0)[0]
        )
        total = climb + steps * smooth / 2 * (moves**2).sum() + floor
        assert float(found.certificate.average_gap[i]) == pytest.approx(np.mean(gaps))
        assert float(found.certificate.noise_floor[i]) == pytest.approx(floor / (steps * share))
        assert float(found.certificate.bound[i]) == pytest.approx(total / (steps * share))


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
@pytest.mark.parametrize("distribution", sorted(ORACLE_LOSS))
def test_on_average_over_the_noise_the_bound_holds(update, distribution):
    model, (x, y) = linear_model(), batch()
    # Samples by themselves: thirty copies of the batch are thirty draws.
    search = PerturbedSign(0.2, 10, 0.03 if update == "projected" else 0.1, 1.0, 0.5, distribution, update=update)
    certificate = search.search(model, x.repeat(30, 1), y.repeat(30), certificate=True).certificate
    room = (certificate.bound - certificate.average_gap).unflatten(0, (30, BATCH))
    assert (room.std(0) > 0).all()
    assert (room.mean(0) >= 0).all()


def test_samples_that_stopped_are_certified_by_the_steps_they_took():
    model, (x, _) = linear_model(), batch()
    y = model(x).argmax(1)
    search = PerturbedSign(0.6, 6, step_size=0.05, stop_when_flipped=True)
    found = search.search(model, x, y, certificate=True)
    steps = found.certificate.steps
    assert len(steps.unique()) > 1  # Else the test shows nothing.
    for i in range(BATCH):
        alone = PerturbedSign(0.6, int(steps[i]), step_size=0.05).search(
            model, x[i : i + 1], y[i : i + 1], certificate=True
        )
        assert torch.allclose(alone.inputs[0], found.inputs[i], atol=1e-12)
        assert float(alone.certificate.average_gap) == pytest.approx(float(found.certificate.average_gap[i]))


# --- curvature and slopes -------------------------------------------------------------------------


@pytest.mark.parametrize("closeness", [0.0, 0.5, 6.0])
def test_power_iteration_finds_the_eigenvalues_of_the_dense_hessian(closeness):
    model, (x, y) = linear_model(), batch()
    found = extremes(lambda u: label_loss(model(u), y), x, closeness, iterations=300, generator=own(0))
    weight = model.weight.detach().numpy()
    for i in range(BATCH):
        p = softmax(model(x[i]).detach().numpy())
        eigenvalues = np.linalg.eigvalsh(weight.T @ (np.diag(p) - np.outer(p, p)) @ weight - closeness * np.eye(PIXELS))
        assert float(found.largest[i]) == pytest.approx(np.abs(eigenvalues).max(), rel=1e-3)
        assert float(found.top[i]) == pytest.approx(eigenvalues.max(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_the_radius_of_a_linear_model_is_exact(classes):
    model, (x, y) = linear_model(classes), batch(max(classes, 2))
    found = PerturbedSign(0.3, 3).search(model, x, y, certificate=True)
    weight = model.weight.detach()
    weight = torch.cat([torch.zeros_like(weight), weight]) if classes == 1 else weight
    z = found.logits
    z = torch.cat([torch.zeros_like(z), z], 1) if classes == 1 else z
    for i, label in enumerate(found.labels.tolist()):
        others = [j for j in range(len(weight)) if j != label]
        margins = np.array([float(z[i, label] - z[i, j]) for j in others])
        norms = np.array([float((weight[label] - weight[j]).norm()) for j in others])
        radius, nearest = (margins / norms).min(), others[(margins / norms).argmin()]
        assert float(found.certificate.stability_radius[i]) == pytest.approx(radius)
        assert float(found.certificate.margin[i]) == pytest.approx(margins.min())
        assert float(found.certificate.lipschitz[i]) == pytest.approx(norms.max())
        toward = (weight[nearest] - weight[label]) / (weight[nearest] - weight[label]).norm()
        for share, same in ((0.999, True), (1.001, False)):
            logits = model(found.inputs[i] + share * radius * toward)
            moved = int(logits[0] > 0) if classes == 1 else int(logits.argmax())
            assert (moved == label) is same


def test_slopes_of_a_network_are_those_of_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(PIXELS, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = batch(3)
    found = difference_slopes(model, x, y)
    step = 1e-5 * torch.eye(PIXELS, dtype=torch.float64)
    with torch.no_grad():
        slopes = (model(x[:, None] + step) - model(x[:, None] - step)) / 2e-5  # (B, PIXELS, C)
    expected = (slopes.gather(2, y[:, None, None].expand(-1, PIXELS, 1)) - slopes).norm(dim=1)
    assert torch.allclose(found, expected, atol=1e-7)


# --- looking for other labels ---------------------------------------------------------------------


class Leads(nn.Module):
    """Two classes; the lead of the first over the second is a function of the first pixel."""

    def __init__(self, lead) -> None:
        super().__init__()
        self.lead = lead

    def forward(self, u: Tensor) -> Tensor:
        return torch.stack([self.lead(u[:, 0]), torch.zeros_like(u[:, 0])], 1)


def challenged(
    model: nn.Module, points: Tensor, labels: Tensor, rounds: int = 4, **options: int
) -> tuple[Surroundings, Tensor]:
    """What is met from slopes at the points alone, and the radius that leaves."""
    nothing = torch.full((len(points),), torch.inf, dtype=points.dtype)
    known = Surroundings(difference_slopes(model, points, labels), nothing)
    options = {"rivals": 4, "steps": 8, **options}
    met = challenge(model, points, labels, known, nothing.clone().fill_(1.0), rounds=rounds, **options)
    return met, met.radius(leads(model(points), labels).detach())


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_looking_for_other_labels_leaves_the_radius_of_a_linear_model_alone(classes, monkeypatch):
    model, (x, y) = linear_model(classes), batch(max(classes, 2))
    found = PerturbedSign(0.3, 3).search(model, x, y, certificate=True).certificate
    whole = certificates.certify
    monkeypatch.setattr("unlearn_kit.boundary.search.certify", lambda *a, **k: whole(*a, **k, rounds=0))
    without = PerturbedSign(0.3, 3).search(model, x, y, certificate=True).certificate
    for name in ("stability_radius", "lipschitz"):
        assert torch.allclose(getattr(found, name), getattr(without, name), rtol=1e-13, atol=0)
    assert torch.equal(found.nearest_change, without.nearest_change)
    assert (found.nearest_change >= found.stability_radius * (1 - 1e-3)).all()


def test_a_slope_that_is_steeper_further_on_is_met():
    # At 0 the slope is 1 / 2 and promises 2; from .3 it is 20.5, and the label changes at 7 / 20.5.
    model, u = Leads(lambda v: 1 - 0.5 * v - 20 * (v - 0.3).relu()), torch.zeros(1, 3, dtype=torch.float64)
    label, crossing = torch.zeros(1).long(), 7 / 20.5
    assert float(challenged(model, u, label, rounds=0)[1]) == pytest.approx(2.0)
    met, radius = challenged(model, u, label)
    assert met.slopes.tolist() == [[0.0, pytest.approx(20.5)]]
    assert crossing * (1 - 2e-3) < float(met.changed) < crossing
    assert float(radius) == pytest.approx(1 / 20.5)


def test_a_change_that_no_slope_foretells_ends_the_radius_short_of_it():
    # A step: its slope is 1 / 2 wherever it has one, and the label changes just after .3.
    model, u = Leads(lambda v: 1 - 0.5 * v - 3 * (v > 0.3).to(v)), torch.zeros(2, 3, dtype=torch.float64)
    u[1, 0] = -0.2
    met, radius = challenged(model, u, torch.zeros(2).long())
    assert met.slopes[:, 1].tolist() == [0.5, 0.5]
    for found, edge in zip(radius.tolist(), (0.3, 0.5), strict=True):
        assert edge * (1 - 2e-3) < found <= edge


def test_where_slopes_set_no_limit_labels_are_looked_for_within_reach():
    model, u = Leads(lambda v: 1 - 4 * (v - 0.5).relu()), torch.zeros(2, 3, dtype=torch.float64)
    u[1, 0] = 0.51
    met, radius = challenged(model, u[:1], torch.zeros(1).long())
    assert radius.tolist() == [torch.inf]  # Flat at 0: no way leads on, and nothing is made up.
    assert met.slopes.tolist() == [[0.0, 0.0]]
    assert float(challenged(model, u[1:], torch.zeros(1).long())[1]) == pytest.approx(0.96 / 4)


def test_the_nearest_other_label_of_those_seen_is_followed_back():
    model = Leads(lambda v: 0.4 - v)
    u, label = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2).long()
    far, near, same = (torch.tensor([[a, 0.0, 0.0]]).double().repeat(2, 1) for a in (2.0, 1.0, 0.1))
    near[1] = same[1]
    seen = [(v, model(v)) for v in (far, same, near)]
    found = nearest_change(model, u, label, seen, halvings=12)
    assert 0.4 - 1.0 / 2**12 <= float(found[0]) <= 0.4
    assert 0.4 - 2.0 / 2**12 <= float(found[1]) <= 0.4
    assert nearest_change(model, u, label, [(same, model(same))]).tolist() == [torch.inf] * 2


def plane_network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)).double()
    with torch.no_grad():
        model[0].weight.mul_(4.0)
        model[2].weight.mul_(3.0)
    return model.requires_grad_(False)


def test_fewer_radii_are_refuted_by_the_points_of_a_plane():
    model = plane_network()
    points = 2 * torch.rand(60, 2, generator=own(5), dtype=torch.float64) - 1
    labels = model(points).argmax(1)
    angle = torch.linspace(0, 2 * np.pi, 181, dtype=torch.float64)
    around = torch.stack([angle.cos(), angle.sin()], 1)

    def refuted(radius: Tensor) -> int:
        """By how many of the balls, looked through point by point."""
        shares = torch.linspace(0.05, 0.999, 20, dtype=torch.float64).reshape(-1, 1, 1, 1)
        u = points + shares * radius.clamp(max=2.0)[:, None] * around[:, None]  # (shares, angles, B, 2)
        return int((model(u).argmax(3) != labels).any(0).any(0).sum())

    before, after = (refuted(challenged(model, points, labels, rounds=rounds)[1]) for rounds in (0, 4))
    assert before >= 10
    assert after <= before / 5


def test_each_sample_is_challenged_by_itself():
    model = plane_network()
    points = 2 * torch.rand(8, 2, generator=own(6), dtype=torch.float64) - 1
    labels = model(points).argmax(1)
    together, radius = challenged(model, points, labels)
    again, _ = challenged(model, points, labels)
    assert torch.equal(together.slopes, again.slopes)
    assert together.changed.isfinite().any()
    for i in range(8):
        alone, its = challenged(model, points[i : i + 1], labels[i : i + 1])
        assert torch.allclose(alone.slopes[0], together.slopes[i])
        assert torch.allclose(its[0], radius[i])


def test_labels_seen_on_the_way_of_the_search_limit_the_radius():
    model, (x, _) = linear_model(), batch()
    y = model(x).argmax(1)
    found = PerturbedSign(0.6, 6).search(model, x, y, certificate=True)
    flipped, way = found.flipped, (found.inputs - x).norm(dim=1)
    assert flipped.any()
    assert (found.certificate.nearest_change < way)[flipped].all()
    assert (found.certificate.stability_radius <= found.certificate.nearest_change).all()


# --- the exact inner solution ---------------------------------------------------------------------


def test_where_the_inner_problem_is_concave_its_solution_is_within_the_inner_error():
    model, (x, y), closeness = linear_model(), batch(), 30.0
    search = PerturbedSign(0.3, 40, closeness=closeness, noise=0.2, update="frank-wolfe")
    found = search.search(model, x, y, certificate=True)
    certificate = found.certificate
    assert (certificate.concavity > 0).all()
    for i in range(BATCH):
        start = x[i].numpy()

        def down(u: np.ndarray, start: np.ndarray = start, label: int = int(y[i])) -> tuple[float, np.ndarray]:
            value, gradient = ascent(model, start, u, label, closeness)
            return -value, -gradient

        box = list(zip(np.maximum(start - 0.3, 0), np.minimum(start + 0.3, 1), strict=True))
        exact = minimize(down, start, jac=True, bounds=box, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12}).x
        error = np.linalg.norm(exact - found.inputs[i].numpy())
        assert 1e-4 < error <= float(certificate.inner_error[i]) < float(certificate.reach[i])
        if bool(certificate.stable[i]):
            exact_label = int(model(torch.from_numpy(exact)).argmax())
            assert exact_label == int(found.labels[i])
    assert certificate.stable.any()


def test_where_it_is_not_concave_the_solution_may_be_anywhere_in_the_box():
    model, (x, y) = linear_model(), batch()
    found = PerturbedSign(0.3, 3, bounds=None).search(model, x, y, certificate=True)
    certificate = found.certificate
    assert (certificate.concavity <= 1e-9).all()
    farthest = (found.inputs - x).abs() + 0.3
    assert torch.allclose(certificate.inner_error, farthest.norm(dim=1))
    assert torch.equal(certificate.stable, certificate.stability_radius > certificate.inner_error)
    assert certificate.stable_within(0.0).all()
    assert not certificate.stable_within(1e9).any()


# --- in words -------------------------------------------------------------------------------------


def test_the_summary_counts_what_is_guaranteed_and_says_what_is_not():
    model, (x, y) = linear_model(), batch()
    certificate = PerturbedSign(0.3, 4, closeness=30.0, noise=0.1).search(model, x, y, certificate=True).certificate
    text = certificate.summary()
    assert f"{int(certificate.flipped.sum())} of {BATCH} samples have another label, in at most 4 steps" in text
    assert f"{int(certificate.stable.sum())} of {BATCH} found labels are those of the exact inner solution" in text
    assert f"known for {int((certificate.concavity > 0).sum())} of {BATCH} samples" in text
    assert "Not guaranteed:" in text
    assert "estimate" in text
    half = certificate.rows(torch.arange(BATCH) < 2)
    assert torch.equal(half.gap, certificate.gap[:2])
    assert "of 2 samples" in half.summary()


def test_outputs_with_many_decisions_are_refused():
    model = nn.Conv2d(1, 2, 1)
    x, y = torch.rand(2, 1, 3, 3), torch.zeros(2, 3, 3).long()
    with pytest.raises(
        ValueError, match=r"^expected a model with one decision a sample .* but got logits \(2, 2, 3, 3\)"
    ):
        PerturbedSign(0.1).search(model, x, y, certificate=True)
