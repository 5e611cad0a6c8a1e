"""The search for a tradeoff: what it reads, what it costs, and where it ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unlearn_kit import UnlearnResult, UnlearnTask
from unlearn_kit.data import TensorImages
from unlearn_kit.data.tensors import load_tensors
from unlearn_kit.engine import train
from unlearn_kit.losses import cross_entropy
from unlearn_kit.metrics import accuracy
from unlearn_kit.tuning import split_off, tune_tradeoff


class Unreadable(Dataset):
    """Held-out data that must not be looked at, not even at their labels."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("the held-out data were read")

    @property
    def targets(self) -> Any:
        raise AssertionError("the held-out labels were read")


def images(count: int, seed: int) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.2 * torch.rand(count, 6, generator=source)
    x[torch.arange(count), 2 * y] += 0.5
    return TensorImages(x, y)


def task(**changes: Any) -> UnlearnTask:
    made = UnlearnTask.forget_class(images(300, 0), images(30, 1), 0)
    parts = {"forget": made.forget, "retain": made.retain, "forget_test": Unreadable(), "retain_test": Unreadable()}
    return UnlearnTask(**{**parts, "num_classes": 3, "forget_classes": (0,), **changes})


class Known(nn.Module):
    """A model that is right on the first ``share`` of class 0, by the rank of a pixel, and on all of the rest."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.stack([x[:, 0], x[:, 2], x[:, 4]], 1) * 20
        forgotten = (x[:, 1] / 0.2 > self.share) & (logits.argmax(1) == 0)
        return torch.where(forgotten[:, None], logits.roll(1, 1), logits)


class Algorithm:
    """Leaves a share of class 0 that rises with the logarithm of its weight, and remembers what it was given."""

    def __init__(self, middle: float = 3.0, steepness: float = 2.0) -> None:
        self.middle, self.steepness = middle, steepness
        self.calls: list[tuple[float, UnlearnTask, int, dict[str, Any]]] = []

    def level(self, weight: float) -> float:
        return (1 + math.tanh(self.steepness / 2 * math.log(weight / self.middle))) / 2

    def __call__(self, model: nn.Module, task: UnlearnTask, *, seed: int, retain_weight: float, **rest: Any) -> Any:
        self.calls.append((retain_weight, task, seed, rest))
        return UnlearnResult(Known(self.level(retain_weight)), [], 0.5, "known", {})


# --- where it ends, and at which cost -------------------------------------------------------------


@pytest.mark.parametrize("target", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("steepness", [1.0, 6.0, 60.0])
def test_the_bracket_reaches_the_target_from_either_side(target, rising, steepness):
    algorithm = Algorithm(steepness=steepness if rising else -steepness)
    found = tune_tradeoff(algorithm, Known(1.0), task(), target=target, held_out=0.5, budget=20)
    judged = algorithm.calls[-1][1].forget_test
    assert found.reached
    assert abs(found.forget - target) <= 0.02
    assert accuracy(Known(algorithm.level(found.value)), judged) == found.forget
    assert found.runs == len(found.trials) == len(algorithm.calls) <= 16
    assert found.options == {"retain_weight": found.value}
    assert found.retain == 1.0
    assert accuracy(found.result.model, judged) == found.forget
    assert f"reached: forget level {found.forget:.3f} (wanted {target:.3f}, held-out forget data)" in found.summary()


@pytest.mark.parametrize("method", ["grid", "nelder-mead"])
def test_the_bracket_costs_no_more_than_plain_search(method):
    costs = {"bracket": [], method: []}
    for middle in (0.3, 1.7, 9.0):
        for name, spent in costs.items():
            found = tune_tradeoff(
                Algorithm(middle, 4.0), Known(1.0), task(), target=0.4, held_out=0.5, budget=24, method=name
            )
            spent.append(found.runs if found.reached else math.inf)
    assert max(costs["bracket"]) <= 9
    assert sum(costs["bracket"]) <= sum(costs[method])


@pytest.mark.parametrize("method", ["bracket", "grid", "nelder-mead"])
def test_the_budget_is_kept_and_failure_is_told(method):
    algorithm = Algorithm(steepness=1e4)  # A step: no weight leaves one half.
    found = tune_tradeoff(algorithm, Known(1.0), task(), target=0.5, budget=7, method=method)
    assert not found.reached
    assert found.runs == len(algorithm.calls) <= 7
    assert found.summary().startswith("NOT reached: forget level")
    assert abs(found.forget - 0.5) == min(abs(trial.forget - 0.5) for trial in found.trials)


def test_a_target_that_is_not_between_the_ends_costs_two_runs():
    algorithm = Algorithm(middle=1e9)
    found = tune_tradeoff(algorithm, Known(1.0), task(), target=0.9)
    assert not found.reached
    assert found.runs == 2
    assert [call[0] for call in algorithm.calls] == pytest.approx([0.01, 100.0])


def test_a_grid_goes_evenly_through_the_logarithm():
    algorithm = Algorithm(steepness=1e4)
    tune_tradeoff(algorithm, Known(1.0), task(), target=0.5, bounds=(0.1, 1000.0), budget=5, method="grid")
    assert [call[0] for call in algorithm.calls] == pytest.approx([0.1, 1.0, 10.0, 100.0, 1000.0])


def test_among_values_that_reach_the_target_the_one_that_retains_most_is_taken():
    def algorithm(model: nn.Module, task: UnlearnTask, *, seed: int, retain_weight: float) -> UnlearnResult:
        kept = Known(0.0 if retain_weight < 5 else 0.01)
        return UnlearnResult(kept, [], 0.1, "known", {"weight": retain_weight})

    scores = iter([(0.4, 0.2), (0.6, 0.9), (0.55, 0.3), (0.51, 0.7)])
    level: list[float] = []

    def measure(model: nn.Module, data: Any) -> float:
        if not level:
            level.extend(next(scores))
        return level.pop(0)

    found = tune_tradeoff(algorithm, Known(1.0), task(), target=0.5, measure=measure, tolerance=0.02)
    assert (found.forget, found.retain, found.runs) == (0.51, 0.7, 4)


# --- what it reads --------------------------------------------------------------------------------


def rows(data: Any) -> set[tuple[float, ...]]:
    return {tuple(row) for row in load_tensors(data)[0].flatten(1).tolist()} if len(data) else set()


def test_neither_the_test_data_nor_what_a_run_is_judged_on_are_trained_on():
    algorithm, whole = Algorithm(), task()
    tune_tradeoff(algorithm, Known(1.0), whole, target=0.5, held_out=0.3, epochs=7, seed=5)
    given = [call[1] for call in algorithm.calls]
    assert all(part is given[0] for part in given)  # One split for all runs.
    assert all(call[2] == 5 and call[3] == {"epochs": 7} for call in algorithm.calls)
    inner = given[0]
    for name, share in (("forget", 30), ("retain", 60)):
        seen, judged = rows(getattr(inner, name)), rows(getattr(inner, f"{name}_test"))
        assert seen & judged == set()
        assert seen | judged == rows(getattr(whole, name))
        assert len(judged) == share
    assert rows(split_off(whole, 0.3, seed=5).forget) == rows(inner.forget)
    assert rows(split_off(whole, 0.3, seed=6).forget) != rows(inner.forget)


def test_poison_would_be_noticed():
    with pytest.raises(AssertionError, match="the held-out data were read"):
        accuracy(Known(1.0), task().forget_test)


def test_samples_are_judged_where_they_are_forgotten():
    algorithm, whole = Algorithm(), task(forget_classes=())
    found = tune_tradeoff(algorithm, Known(1.0), whole, target=0.5)
    assert found.judged_on == "seen"
    inner = algorithm.calls[0][1]
    assert rows(inner.forget) == rows(whole.forget)
    assert len(inner.forget_test) == 0
    assert found.forget == accuracy(Known(algorithm.level(found.value)), whole.forget)
    held = tune_tradeoff(Algorithm(), Known(1.0), whole, target=0.5, judge="held-out")
    assert held.judged_on == "held-out"


def test_with_nothing_held_out_an_inner_run_is_the_final_one():
    algorithm, whole = Algorithm(), task()
    found = tune_tradeoff(algorithm, Known(1.0), whole, target=0.5, judge="seen", held_out=0)
    inner = algorithm.calls[0][1]
    assert inner.forget is whole.forget
    assert inner.retain is whole.retain
    assert len(inner.forget_test) == len(inner.retain_test) == 0
    final = algorithm(Known(1.0), whole, seed=0, **found.options)
    assert accuracy(final.model, whole.forget) == found.forget


def test_a_real_algorithm_is_tuned_without_looking_at_held_out_data():
    """Finetuning a little network on both streams: the weight of the retained classes decides what is left."""
    torch.manual_seed(0)
    original = train(nn.Sequential(nn.Linear(6, 3)), images(300, 0), epochs=20, batch_size=30, lr=0.5).model

    def algorithm(model: nn.Module, task: UnlearnTask, *, seed: int, retain_weight: float) -> UnlearnResult:
        from unlearn_kit.engine import Phase, fit

        terms = -1.0 * cross_entropy(on="forget") + retain_weight * cross_entropy(on="retain")
        streams = {"forget": task.forget, "retain": task.retain}
        result = fit(model, Phase(terms, streams, steps=15, lr=0.1, batch_size=32), seed=seed)
        return UnlearnResult(result.model, result.history, result.seconds, "algorithm", {})

    before = {name: value.clone() for name, value in original.state_dict().items()}
    state = torch.get_rng_state()
    found = tune_tradeoff(algorithm, original, task(), target=0.5, bounds=(0.1, 100.0), held_out=0.5, seed=1)
    assert found.reached
    assert found.runs <= 16
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    again = tune_tradeoff(algorithm, original, task(), target=0.5, bounds=(0.1, 100.0), held_out=0.5, seed=1)
    assert [t.knob for t in again.trials] == [t.knob for t in found.trials]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"task": "class 0"}, TypeError, "^expected task to be an UnlearnTask, but got str$"),
        ({"bounds": (0.0, 1.0)}, ValueError, r"^expected bounds in \(0, inf\), but got 0.0$"),
        (
            {"bounds": (2.0, 1.0)},
            ValueError,
            r"^expected bounds to be \(low, high\) with low < high, but got \(2.0, 1.0\)$",
        ),
        ({"budget": 1}, ValueError, "^expected budget to be at least 2, but got 1$"),
        ({"method": "gird"}, ValueError, "did you mean 'grid'"),
        ({"judge": "sen"}, ValueError, "did you mean 'seen'"),
        ({"start": 1e3}, ValueError, r"^expected start in \[0.01, 100\], but got 1000.0$"),
        ({"held_out": 0.0}, ValueError, r"^expected held_out in \(0, 1\), but got 0.0$"),
        ({"held_out": 1.0}, ValueError, r"^expected held_out in \(0, 1\), but got 1.0$"),
        (
            {"held_out": 1e-4},
            ValueError,
            "^expected held_out=0.0001 to leave samples on both sides of the forget data, but got 0 of 100$",
        ),
        ({"measure": lambda *_: None}, ValueError, "^expected measure to give a number on the forget data"),
    ],
)
def test_what_makes_no_sense_is_refused(change, error, text):
    arguments = {"task": task(), "target": 0.5, **change}
    with pytest.raises(error, match=text):
        tune_tradeoff(Algorithm(), Known(1.0), **arguments)
