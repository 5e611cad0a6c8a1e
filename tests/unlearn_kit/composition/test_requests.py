"""Several requests, served in turn or composed; and the search for coefficients."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from unlearn_kit import UnlearnResult, UnlearnTask, metrics
from unlearn_kit.composition import (
    Candidate,
    apply_requests,
    average,
    cumulative_tasks,
    held_out_objectives,
    joint_task,
    search_coefficients,
    task_arithmetic,
)
from unlearn_kit.composition.coefficients import front_of, nearest_on_simplex
from unlearn_kit.data import TensorImages, resolve
from unlearn_kit.engine import train


def images(count: int = 80, seed: int = 0) -> TensorImages:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 4
    x[torch.arange(count), 0, 0, y] += 1.5
    return TensorImages(x / 2.5, y)


TRAIN, TEST = images(), images(seed=1)
REQUESTS = [UnlearnTask.forget_class(TRAIN, TEST, label) for label in (0, 2)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def original() -> nn.Module:
    return train(network(), TRAIN, epochs=15, batch_size=20, lr=1.0).model.eval()


def silence(model: nn.Module, task: UnlearnTask, *, seed: int, size: float = 50.0) -> UnlearnResult:
    """Forget a class by its bias alone."""
    revised = copy.deepcopy(model)
    with torch.no_grad():
        revised[1].bias[task.forget_classes[0]] -= size
    return UnlearnResult(revised, [], 0.0, "silence", {"seed": seed, "retained": places(task.retain)})


def places(data) -> list[int]:
    base, chosen = resolve(data)
    return list(range(len(base))) if chosen is None else chosen.tolist()


def test_the_joint_task_is_the_union_and_what_all_retain() -> None:
    labels = TRAIN.targets.numpy()
    samples = UnlearnTask.forget_samples(TRAIN, TEST, [0, 1, 5])
    joined = joint_task([*REQUESTS, samples])
    forgotten = set(np.nonzero(np.isin(labels, [0, 2]))[0]) | {0, 1, 5}
    assert set(places(joined.forget)) == forgotten
    assert set(places(joined.retain)) == set(range(80)) - forgotten
    assert set(joined.forget_indices.tolist()) == forgotten
    for side, classes in (("forget", [0, 2]), ("retain", [1, 3])):
        judge, choose = (set(places(getattr(joined, f"{side}_{part}"))) for part in ("test", "validation"))
        assert judge | choose == set(np.nonzero(np.isin(TEST.targets.numpy(), classes))[0])
        assert not judge & choose
    assert joined.forget_classes == (0, 2)
    aside = " (validation: 20 of 80 held-out samples, seed 0)"
    assert joined.rule == f"class 0{aside}; class 2{aside}; 3 chosen samples{aside}"


def test_request_k_retains_nothing_that_one_up_to_it_forgets() -> None:
    first, second = cumulative_tasks(REQUESTS)
    assert set(TRAIN.targets[places(first.retain)].tolist()) == {1, 2, 3}
    assert set(TRAIN.targets[places(second.retain)].tolist()) == {1, 3}
    assert set(TRAIN.targets[places(second.forget)].tolist()) == {2}
    assert set(TEST.targets[places(second.retain_test)].tolist()) == {1, 3}


@pytest.mark.parametrize("mode", ["sequence", "compose"])
def test_every_earlier_request_is_measured_after_each_step(original: nn.Module, mode: str) -> None:
    before = copy.deepcopy(original.state_dict())
    reference = silence(silence(original, REQUESTS[0], seed=0).model, REQUESTS[1], seed=0).model
    found = apply_requests(original, REQUESTS, silence, mode=mode, reference=reference)
    assert [scores.forget_test for scores in found.before] == [1.0, 1.0]
    assert [[scores.forget_test for scores in step.scores] for step in found.steps] == [[0.0], [0.0, 0.0]]
    assert [step.request for step in found.steps] == [0, 1]
    last = found.steps[-1].scores
    assert [scores.average_gap for scores in last] == [0.0, 0.0]
    # Retain is what all requests leave, in every view.
    assert {scores.sizes["retain"] for scores in (*found.before, *last)} == {40}
    assert torch.allclose(found.model[1].bias, reference[1].bias)
    assert len(found.runs) == (2 if mode == "compose" else 0)
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())


@pytest.mark.parametrize(("keep_out", "kept"), [("earlier", [60, 40]), ("all", [40, 40]), ("none", [60, 60])])
def test_whose_data_a_run_may_retain(original: nn.Module, keep_out: str, kept: list[int]) -> None:
    seen = []

    def watched(model: nn.Module, task: UnlearnTask, *, seed: int, size: float) -> UnlearnResult:
        result = silence(model, task, seed=seed, size=size)
        seen.append((result.config["seed"], len(result.config["retained"]), size))
        return result

    apply_requests(original, REQUESTS, watched, keep_out=keep_out, options={"size": 7.0})
    assert [(count, size) for _, count, size in seen] == [(count, 7.0) for count in kept]
    assert seen[0][0] != seen[1][0]


def test_a_merge_of_ones_own_is_used(original: nn.Module) -> None:
    found = apply_requests(original, REQUESTS, silence, mode="compose", merge=lambda _, runs: average(runs))
    assert torch.allclose(found.model[1].bias[[0, 2]], original[1].bias[[0, 2]] - 25)


def test_requests_that_do_not_fit_are_refused(original: nn.Module) -> None:
    other = UnlearnTask.forget_class(images(seed=5), TEST, 1)
    with pytest.raises(ValueError, match=r"requests\[1\].forget is part of another"):
        joint_task([REQUESTS[0], other])
    with pytest.raises(ValueError, match="expected at least one request, but got none"):
        joint_task([])
    with pytest.raises(TypeError, match="expected requests to be a sequence of UnlearnTask, but got UnlearnTask"):
        joint_task(REQUESTS[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected requests\[0\] to be an UnlearnTask, but got int"):
        joint_task([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="expected requests to leave data to retain, but together they forget"):
        joint_task([UnlearnTask.forget_class(TRAIN, TEST, label) for label in range(4)])
    with pytest.raises(TypeError, match="expected algorithm to return an UnlearnResult, but got Sequential"):
        apply_requests(original, REQUESTS, lambda model, *_, **__: model)
    with pytest.raises(ValueError, match=r"expected mode to be one of .* did you mean 'compose'"):
        apply_requests(original, REQUESTS, silence, mode="composed")


def test_the_front_holds_what_no_candidate_beats() -> None:
    values = np.random.default_rng(0).integers(0, 12, size=(60, 2)) / 12
    candidates = [Candidate((float(i),), (float(a), float(b))) for i, (a, b) in enumerate(values)]
    front = {c.objectives for c in front_of(candidates)}
    expected = {
        (a, b) for a, b in map(tuple, values) if not any((x <= a and y <= b and (x, y) != (a, b)) for x, y in values)
    }
    assert front == expected
    assert len(front_of(candidates)) == len(expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=4))
def test_the_nearest_point_on_the_simplex(x: list[float]) -> None:
    found = nearest_on_simplex(x)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    solved = minimize(
        lambda p: ((p - np.array(x)) ** 2).sum(),
        np.full(len(x), 1 / len(x)),
        bounds=[(0, None)] * len(x),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(found, solved.x, atol=1e-4)


@pytest.mark.parametrize("simplex", [False, True])
def test_the_search_finds_a_known_front(simplex: bool) -> None:
    """Objectives (c0 - .2)^2 + r and (c0 - .8)^2 + r: the front is c0 in [.2, .8] where the rest r is least."""
    built = []

    def build(coefficients):
        built.append(tuple(coefficients))
        model = nn.Linear(1, 1)
        model.values = coefficients
        return model

    def objectives(model):
        c = model.values
        rest = (c[1] - (1 - c[0])) ** 2 if simplex else (c[1] - 0.6) ** 2
        return (c[0] - 0.2) ** 2 + rest, (c[0] - 0.8) ** 2 + rest

    found = search_coefficients(build, objectives, [0.5, 0.5], simplex=simplex, evaluations=90)
    assert len(built) == len(set(built)) == len(found.tried) <= 90
    assert len(found.front) >= 3
    near = found.best(0.5)
    assert near.coefficients[0] == pytest.approx(0.5, abs=0.05)
    assert sum(near.objectives) == pytest.approx(0.18, abs=0.01)
    assert found.best(0.01).coefficients[0] < 0.4
    assert found.best(0.99).coefficients[0] > 0.6
    for candidate in found.tried:
        assert all(0 <= c <= 1 for c in candidate.coefficients)
        if simplex:
            assert sum(candidate.coefficients) == pytest.approx(1, abs=1e-5)


def test_coefficients_of_task_vectors_on_held_out_data(original: nn.Module) -> None:
    task = REQUESTS[0]
    run = silence(original, task, seed=0).model
    objectives = held_out_objectives(task)
    reading = objectives(original)
    assert reading == (
        metrics.accuracy(original, task.forget_validation),
        pytest.approx(1 - metrics.accuracy(original, task.retain_validation)),
    )
    found = search_coefficients(
        lambda c: task_arithmetic(original, [run], c), objectives, [0.05], tradeoffs=[0.5], evaluations=15
    )
    assert found.best().objectives == (0.0, 0.0)
    samples = UnlearnTask.forget_samples(TRAIN, TEST, [0, 4])
    assert held_out_objectives(samples, 0.25)(original)[0] == 0.75


def test_bad_searches_are_refused() -> None:
    def build(_):
        return nn.Linear(1, 1)

    with pytest.raises(ValueError, match="expected start to hold at least one number, but got none"):
        search_coefficients(build, lambda _: (0, 0), [])
    with pytest.raises(ValueError, match="expected objectives to return two numbers, but got 1"):
        search_coefficients(build, lambda _: (0.0,), [0.5])
    with pytest.raises(ValueError, match=r"expected objectives\[0\] in"):
        search_coefficients(build, lambda _: (float("nan"), 0.0), [0.5])
    with pytest.raises(ValueError, match="expected bounds to be a smaller and a larger number"):
        search_coefficients(build, lambda _: (0, 0), [0.5], bounds=(1, 0))
    with pytest.raises(ValueError, match="expected the task to have validation data to retain, but it has none"):
        held_out_objectives(
            replace(REQUESTS[0], retain_validation=TensorImages(torch.empty(0, 1), torch.empty(0).long()))
        )
