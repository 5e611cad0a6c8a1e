"""Paths between models: what is measured on them, the bound on their barrier, and the model at a wanted level."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_kit import UnlearnTask, metrics
from unlearn_kit.composition import (
    barrier,
    barrier_bound,
    bezier,
    bezier_control,
    interpolate,
    pick,
    recalibrate_batch_norm,
    tradeoff_path,
)
from unlearn_kit.composition.barrier import directional_curvature
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import train
from unlearn_kit.gradients import hessian_vector_product


def images(count: int = 120, seed: int = 0) -> TensorImages:
    """Class k is a bright spot at place k of a noisy picture."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 3
    x[torch.arange(count), 0, 0, y] += 1.5
    return TensorImages(x / 2.5, y)


TASK = UnlearnTask.forget_class(images(), images(seed=1), 0)


def network(seed: int, smooth: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.Tanh()] + ([] if smooth else [nn.BatchNorm1d(8)])
    return nn.Sequential(*layers, nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def ends() -> tuple[nn.Module, nn.Module]:
    """A run that forgot class 0, and one that forgot nothing, of one original."""
    knows = train(network(0), images(), epochs=8, batch_size=30, lr=0.3).model.eval()
    forgot = train(knows, TASK.retain, epochs=4, batch_size=20, lr=0.3).model.eval()
    with torch.no_grad():
        forgot[-1].bias[0] -= 20
    return forgot, knows


def test_points_are_evaluations_of_the_models_between(ends: tuple[nn.Module, nn.Module]) -> None:
    a, b = ends
    kept = [copy.deepcopy(model.state_dict()) for model in ends]
    state = torch.get_rng_state()
    path = tradeoff_path(a, b, TASK, 5, reference=a, bound_samples=20)
    assert torch.equal(state, torch.get_rng_state())
    assert [point.t for point in path.points] == [0, 0.25, 0.5, 0.75, 1]
    goal = metrics.evaluate(a, TASK.on_validation())
    for t, point in zip((0, 0.25, 1), (path.points[0], path.points[1], path.points[-1]), strict=True):
        model = interpolate(a, b, t)
        if 0 < t < 1:
            model = recalibrate_batch_norm(model, TASK.retain)
        assert point.scores == metrics.evaluate(model, TASK.on_validation(), goal)
        for loss, data in ((point.retain_loss, TASK.retain), (point.forget_loss, TASK.forget)):
            logits, targets = metrics.predict(model, data)
            assert loss == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-4, abs=1e-7)
        assert all(torch.equal(v, path.model_at(t).state_dict()[k]) for k, v in model.state_dict().items())
    assert path.points[0].scores.average_gap == 0
    assert path.recalibrated
    assert path.bound is not None
    assert path.bound.samples == 20
    losses = [point.retain_loss for point in path.points]
    straight = [(1 - t) * losses[0] + t * losses[-1] for t in (0, 0.25, 0.5, 0.75, 1)]
    assert path.retain_barrier == pytest.approx(max(f - c for f, c in zip(losses, straight, strict=True)))
    for model, before in zip(ends, kept, strict=True):
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_places_and_the_end_points_can_be_given(ends: tuple[nn.Module, nn.Module]) -> None:
    path = tradeoff_path(*ends, TASK, [0.9, 0.3], recalibrate=False, bound_samples=0)
    assert [point.t for point in path.points] == [0, 0.3, 0.9, 1]
    assert path.bound is None
    assert not path.recalibrated
    plain = interpolate(*ends, 0.3)
    assert not tradeoff_path(ends[0], ends[0], TASK, 2, bound_samples=0).recalibrated
    assert tradeoff_path(ends[0], ends[0], TASK, 2, bound_samples=0, recalibrate=True).recalibrated
    assert path.points[1].scores == metrics.evaluate(plain, TASK.on_validation())


def test_pick_finds_the_wanted_level(ends: tuple[nn.Module, nn.Module]) -> None:
    path = tradeoff_path(*ends, TASK, 5, bound_samples=0)
    low, high = path.points[0].scores.forget_test, path.points[-1].scores.forget_test
    assert low == 0
    assert high > 0.9
    found = pick(path, 0.5, tolerance=0.02)
    assert abs(found.level - 0.5) <= 0.02
    assert metrics.accuracy(found.model, TASK.forget_validation) == pytest.approx(found.level)
    assert 0 < found.t < 1
    assert found.tried > 0
    at_end = pick(path, high)
    assert (at_end.tried, at_end.level) == (0, high)
    short = UnlearnTask(TASK.forget, TASK.retain, images(0), TASK.retain_test, 3)
    by_training = pick(tradeoff_path(*ends, short, 3, bound_samples=0), 0.5, tolerance=0.03)
    assert metrics.accuracy(by_training.model, TASK.forget) == pytest.approx(by_training.level)


def test_a_level_that_is_not_reached_is_refused_with_the_range(ends: tuple[nn.Module, nn.Module]) -> None:
    path = tradeoff_path(ends[1], ends[1], TASK, 2, bound_samples=0)
    level = path.points[0].scores.forget_test
    with pytest.raises(ValueError, match=rf"that the path reaches, in \[{level:.4f}, {level:.4f}\], but got 0.2"):
        pick(path, 0.2)


def test_the_curvature_is_the_hessians_and_the_second_difference(ends: tuple[nn.Module, nn.Module]) -> None:
    a, b = network(1, smooth=True).double(), network(2, smooth=True).double()
    data = TensorImages(images(20).inputs.double(), images(20).targets)
    names = dict(a.named_parameters())
    direction = {name: (b.get_parameter(name) - p).detach() for name, p in names.items()}
    found = directional_curvature(a, direction, data)
    product = hessian_vector_product(a, [(data.inputs, data.targets)], direction)
    assert found == pytest.approx(sum(float((product[n] * direction[n]).sum()) for n in names), rel=1e-6)

    def loss(t: float) -> float:
        model = copy.deepcopy(a)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.add_(t * direction[name])
            return F.cross_entropy(model(data.inputs), data.targets).item()

    h = 1e-3
    assert found == pytest.approx((loss(h) - 2 * loss(0) + loss(-h)) / h**2, rel=1e-3)


def test_buffers_are_part_of_the_segment() -> None:
    a, b = network(1), network(1)
    b[3].running_mean.fill_(1.0)
    data = images(20)
    found = barrier_bound(a, b, data, points=5)
    assert found.distance == pytest.approx((b[3].running_mean - a[3].running_mean).norm().item())
    assert found.curvature > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_where_the_loss_is_smooth(seed: int) -> None:
    a, b = network(2 * seed, smooth=True), network(2 * seed + 1, smooth=True)
    found = barrier_bound(a, b, images(60), points=21, samples=60)
    assert found.holds
    assert found.barrier <= found.barrier_bound
    squares = sum(float((p - q).detach().square().sum()) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert found.distance == pytest.approx(squares**0.5, rel=1e-5)
    for t, f, bound in zip(found.ts, found.losses, found.bounds, strict=True):
        logits, targets = metrics.predict(interpolate(a, b, t), images(60))
        assert f == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-4)
        line = (1 - t) * found.losses[0] + t * found.losses[-1]
        assert bound == pytest.approx(line + t * (1 - t) * found.smoothness * found.distance**2 / 2)


def test_a_bound_that_is_too_small_is_seen() -> None:
    found = barrier_bound(network(0, smooth=True), network(1, smooth=True), images(30), points=5)
    lowered = tuple(f - 0.1 if 0 < t < 1 else f for t, f in zip(found.ts, found.losses, strict=True))
    assert not replace(found, bounds=lowered).holds


def test_only_negative_curvature_counts() -> None:
    a = train(network(0, smooth=True), images(), epochs=8, batch_size=30, lr=0.3).model.eval()
    b = copy.deepcopy(a)
    with torch.no_grad():  # The same function with its hidden units in another order.
        for tensor, dim in ((b[1].weight, 0), (b[1].bias, 0), (b[3].weight, 1)):
            tensor.copy_(tensor.roll(3, dim))
    found = barrier_bound(a, b, images(30), points=9, samples=30, slopes=9)
    assert found.barrier > 0.01
    assert found.holds
    direction = {name: (b.state_dict()[name] - value) for name, value in a.state_dict().items()}
    signed = [directional_curvature(interpolate(a, b, t), direction, images(30)) for t in found.ts]
    assert min(signed) < 0 < max(signed)
    # A mean fall between points is no faster than the fastest fall, which the points miss by a little.
    assert -min(signed) <= found.smoothness * found.distance**2 * (1 + 1e-4) <= -1.2 * min(signed)
    assert found.curvature * found.distance**2 == pytest.approx(max(map(abs, signed)), rel=1e-4)
    assert found.classical_bound >= found.barrier_bound > 0


class Ridge(nn.Module):
    """Two classes; the lead of the first is the size of the only weight: in it, the loss is convex but for one kink."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        lead = 2 * self.weight.abs().expand(len(x))
        return torch.stack([lead, torch.zeros_like(lead)], 1)


def test_a_kink_that_no_curvature_sees_counts() -> None:
    data = TensorImages(torch.zeros(6, 1), torch.zeros(6).long())
    a, b = Ridge(-1.0), Ridge(1.0)
    found = barrier_bound(a, b, data, points=6, slopes=6)
    direction = {"weight": torch.tensor(2.0)}
    assert all(directional_curvature(interpolate(a, b, t), direction, data) > 0 for t in found.ts)
    # The slope at weight w is -4 sgn(w) sigmoid(-2 |w|); the kink is between the points at -.2 and .2.
    fall = 2 * 4 / (1 + np.exp(0.4)) / 0.2
    assert found.smoothness * found.distance**2 == pytest.approx(fall, rel=1e-5)
    assert 0.3 < found.barrier < found.barrier_bound
    assert found.holds
    finer = barrier_bound(a, b, data, points=6, slopes=12)  # Three places for each point: from -1 / 15 to 1 / 15.
    fall = 2 * 4 / (1 + np.exp(2 / 15)) * 15
    assert finer.smoothness * finer.distance**2 == pytest.approx(fall, rel=1e-5)
    assert finer.losses == found.losses


def test_a_convex_loss_has_no_barrier_and_the_bound_says_so() -> None:
    def classifier(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(images(1).inputs[0].numel(), 4))

    found = barrier_bound(classifier(0), classifier(1), images(30), points=9)
    assert found.smoothness == found.barrier_bound == 0
    assert found.classical_bound > 0
    assert found.holds
    for t, bound in zip(found.ts, found.bounds, strict=True):
        assert bound == pytest.approx((1 - t) * found.losses[0] + t * found.losses[-1])


def test_barrier_is_the_rise_above_the_line() -> None:
    assert barrier([0, 0.5, 1], [1.0, 2.5, 2.0]) == pytest.approx(1.0)
    assert barrier([0, 0.5, 1], [1.0, 1.0, 2.0]) == 0
    with pytest.raises(ValueError, match="expected as many losses as points from 0 to 1"):
        barrier([0, 0.5], [1.0, 1.0])


def test_a_bezier_curve_passes_through_its_ends_and_near_its_control() -> None:
    a, c, b, t = network(0), network(1), network(2), 0.3
    assert all(torch.equal(v, a.state_dict()[k]) for k, v in bezier(a, c, b, 0).state_dict().items())
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in bezier(a, c, b, 1).state_dict().items())
    expected = 0.49 * a[1].weight + 0.42 * c[1].weight + 0.09 * b[1].weight
    np.testing.assert_allclose(bezier(a, c, b, t)[1].weight.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_the_control_point_lowers_the_loss_on_the_curve() -> None:
    a, b = (train(network(seed, smooth=True), images(), epochs=6, batch_size=30, lr=0.3).model for seed in (0, 1))
    options = {"steps": 60, "lr": 0.3, "batch_size": 40}
    state = torch.get_rng_state()
    control = bezier_control(a, b, TASK, **options)
    assert torch.equal(state, torch.get_rng_state())
    again = bezier_control(a, b, TASK, **options).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in control.state_dict().items())
    straight = tradeoff_path(a, b, TASK, 5, bound_samples=0)
    curved = tradeoff_path(a, b, TASK, 5, bezier=True, bezier_options=options)
    assert curved.bound is None
    assert straight.retain_barrier > 0.1
    assert curved.retain_barrier < straight.retain_barrier / 2
    given = tradeoff_path(a, b, TASK, 5, bezier=control)
    assert given.retain_barrier == curved.retain_barrier
    assert all(torch.equal(v, curved.model_at(1).state_dict()[k]) for k, v in b.state_dict().items())


def test_masks_have_paths_too() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 1, 16, 16)
    data = TensorImages(x, (x > 0.6).float())
    task = UnlearnTask.forget_samples(data, data, [0, 1])
    a, b = (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)).eval() for _ in "ab")
    path = tradeoff_path(a, b, task, 3, bound_samples=4)
    assert path.points[1].scores.dice is not None
    assert path.bound is not None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"points": 1}, "expected points to be at least 2, but got 1"),
        ({"points": [0.5, 1.5]}, r"expected points\[1\] in \[0, 1\], but got 1.5"),
        ({"bezier": nn.Linear(2, 2)}, "expected a and bezier to be of one architecture"),
        ({"bound_samples": -1}, "expected bound_samples to be at least 0"),
    ],
)
def test_bad_options_are_refused(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tradeoff_path(network(0), network(1), TASK, **options)
