from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import algorithms
from benchmarks.analysis.fronts import hypervolume, interval, pareto_front
from benchmarks.analysis.tradeoff import TradeoffCurve, UnlearningRun, ranking, tradeoff_curve
from benchmarks.analysis.tradeoff_files import figure_of, save_tradeoff
from unlearn_kit import UnlearnTask
from unlearn_kit.data import load
from unlearn_kit.engine import train
from unlearn_kit.metrics import evaluate
from unlearn_kit.models import build

GRID = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(lambda spot: (spot[0] / 8, spot[1] / 8))


def scores(forget: float, retain: float) -> dict[str, float | None]:
    return {
        "forget": forget,
        "retain": retain,
        "forget_test": None,
        "retain_test": retain,
        "test": retain,
        "membership": 0.5,
    }


def run(value: float | None, forget: float, retain: float, training: int = 0, seed: int = 0) -> UnlearningRun:
    return UnlearningRun(value, training, seed, scores(forget, retain), scores(1.0, 1.0), scores(0.8, 1.0), 1.0)


@given(st.lists(GRID, max_size=8))
def test_the_front_is_what_nothing_dominates(spots: list[tuple[float, float]]) -> None:
    def dominated(a: tuple[float, float]) -> bool:
        return any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in spots)

    assert sorted(pareto_front(spots)) == [place for place, spot in enumerate(spots) if not dominated(spot)]


@given(st.lists(GRID, max_size=8))
@settings(max_examples=50)
def test_the_volume_is_the_share_of_cells_that_are_dominated(spots: list[tuple[float, float]]) -> None:
    # The corner lies on the grid too, so counting cells by their lower corners is exact.
    cells = [(x / 8, y / 8) for x in range(6) for y in range(6)]
    covered = sum(any(s[0] <= x and s[1] <= y for s in spots) for x, y in cells)
    assert hypervolume(spots, (0.75, 0.75)) == pytest.approx(covered / len(cells))


def test_doing_nothing_has_no_volume_and_the_reference_all_of_it() -> None:
    nothing = TradeoffCurve("nothing", None, (run(None, 1.0, 1.0),))
    ideal = TradeoffCurve("ideal", None, (run(None, 0.8, 1.0),))
    half = TradeoffCurve("half", "k", (run(0, 1.0, 1.0), run(1, 0.9, 1.0)))
    wrecked = TradeoffCurve("wrecked", None, (run(None, 0.8, 0.1),))
    assert nothing.hypervolume() == wrecked.hypervolume() == 0
    assert ideal.hypervolume() == pytest.approx(1)
    assert half.hypervolume() == pytest.approx(0.5)
    same = UnlearningRun(None, 0, 0, scores(1, 1), scores(1, 1), scores(1, 1))
    assert TradeoffCurve("same", None, (same,)).hypervolume() is None


def test_over_forgetting_is_as_far_from_the_reference_as_forgetting_too_little() -> None:
    table = ranking(
        [TradeoffCurve("less", None, (run(None, 0.7, 1.0),)), TradeoffCurve("more", None, (run(None, 0.9, 1.0),))]
    )
    assert table["distance"].tolist() == pytest.approx([0.1, 0.1])


def test_intervals_are_over_trainings_where_there_are_several() -> None:
    values = {0: [0.1, 0.3], 1: [0.4, 0.6], 2: [0.2, 0.2]}
    found = interval(values)
    means = [0.2, 0.5, 0.2]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (found.mean, found.n, found.trainings) == (pytest.approx(0.3), 6, 3)
    assert (found.mean - found.half, found.mean + found.half) == (pytest.approx(low), pytest.approx(high))
    single = interval({0: [0.1, 0.3]})
    assert single.half == pytest.approx(stats.t.ppf(0.975, 1) * stats.sem([0.1, 0.3]))
    assert interval({0: [0.4]}).half is None
    with pytest.raises(ValueError, match="expected at least one value, but got none"):
        interval({})


def test_gaps_are_taken_seed_by_seed() -> None:
    runs = (
        UnlearningRun(1, 0, 0, scores(0.5, 1), scores(1, 1), scores(0.6, 1)),
        UnlearningRun(1, 1, 0, scores(0.7, 1), scores(1, 1), scores(0.6, 1)),
    )
    (point,) = TradeoffCurve("m", "k", runs).points()
    assert point.x.mean == pytest.approx(0.6)  # on the reference on average, but never on it
    assert point.gap_x.mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match="expected x to be one of"):
        TradeoffCurve("m", "k", runs).points("forgot")
    assert TradeoffCurve("m", "k", runs).points("forget_test") == []


def test_revisions_of_one_training_are_averaged_before_trainings_are_compared() -> None:
    forgets = {0: (0.7, 0.9), 1: (0.5, 0.7), 2: (0.9,)}
    runs = [run(1, forget, 1.0, training, seed) for training, few in forgets.items() for seed, forget in enumerate(few)]
    curve = TradeoffCurve("m", "k", tuple(runs))
    (point,) = curve.points()
    means = [0.8, 0.6, 0.9]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (point.x.n, point.x.trainings) == (5, 3)
    assert (point.x.mean - point.x.half, point.x.mean + point.x.half) == (pytest.approx(low), pytest.approx(high))
    assert point.gap_x.mean == pytest.approx(np.mean([0.1, 0.2, 0.1]))


def test_each_training_counts_once_in_what_is_to_be_forgotten() -> None:
    # Doing nothing is 0.2 from the reference in one training and 0.6 in the other, which is revised three times.
    runs = [UnlearningRun(1, 0, 0, scores(0.8, 1), scores(1, 1), scores(0.8, 1))]
    runs += [UnlearningRun(1, 1, seed, scores(0.6, 1), scores(1, 1), scores(0.4, 1)) for seed in range(3)]
    curve = TradeoffCurve("m", "k", tuple(runs))
    (point,) = curve.points()
    assert point.gap_x.mean == pytest.approx(0.1)
    assert curve.hypervolume() == pytest.approx(1 - 0.1 / 0.4)
    points = figure_of([curve]).axes[0].collections
    assert any(np.allclose(each.get_offsets(), [[0.6, 1.0]]) for each in points)  # the reference: of 0.8 and 0.4


def test_what_has_no_distance_to_the_reference_is_not_ranked() -> None:
    apart = UnlearningRun(None, 0, 0, scores(0.8, 1.0), scores(1.0, 1.0), None)
    curves = [TradeoffCurve("apart", None, (apart,)), TradeoffCurve("near", None, (run(None, 0.7, 1.0),))]
    assert ranking(curves)["method"].tolist() == ["near"]
    assert curves[0].hypervolume() is None
    assert len(ranking(curves[:1])) == 0


def test_points_no_farther_than_a_second_reference_are_tied() -> None:
    second = (scores(0.83, 0.96),)  # .03 and .04 from the reference: .05
    runs = [
        UnlearningRun(None, 0, 0, scores(at, 1.0), scores(1, 1), scores(0.8, 1.0), further=second)
        for at in (0.84, 0.86)
    ]
    curves = [TradeoffCurve(name, None, (one,)) for name, one in zip(("near", "far"), runs, strict=True)]
    table = ranking(curves)
    assert table["resolution"].tolist() == pytest.approx([0.05, 0.05])
    assert dict(zip(table["method"], table["tied"], strict=True)) == {"near": True, "far": False}
    alone = ranking([TradeoffCurve("near", None, (run(None, 0.7, 1.0),))])
    assert (alone["resolution"][0], alone["tied"][0]) == (None, None)


def test_files_hold_what_was_found(tmp_path: Path) -> None:
    curves = [
        TradeoffCurve("a", "k", tuple(run(v, 0.7 + v / 10, 0.9 + v / 30, t) for v in (0, 1, 2) for t in (0, 1))),
        TradeoffCurve("b", None, (run(None, 0.9, 0.95), run(None, 0.85, 0.95, 1))),
    ]
    written = {
        path.name
        for path in save_tradeoff(curves, tmp_path, "t", pairs=[("forget", "retain"), ("forget_test", "test")])
    }
    forms = {f"t-forget-retain.{form}" for form in ("png", "svg", "pdf", "csv", "parquet")}
    assert written == forms | {"t-runs.csv", "t-runs.parquet"}
    assert (tmp_path / "t-forget-retain.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (tmp_path / "t-forget-retain.svg").read_text()
    table = pd.read_csv(tmp_path / "t-runs.csv")
    assert len(table) == len(pd.read_parquet(tmp_path / "t-runs.parquet")) == 8
    assert table["reference_forget"].unique().tolist() == [0.8]
    ranked = pd.read_csv(tmp_path / "t-forget-retain.csv")
    assert ranked["distance"].is_monotonic_increasing
    assert len(figure_of(curves).axes) == 1


def test_a_figure_shows_every_curve_and_the_methods_nearest_to_the_reference() -> None:
    line = TradeoffCurve("line", "k", tuple(run(v, 0.1 * v, 0.5) for v in (0, 1)))
    points = [TradeoffCurve(f"m{place}", None, (run(None, 0.8 + place / 100, 0.95),)) for place in range(5)]
    figure = figure_of([line, *reversed(points)], title="T", most=2)
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"retrained reference", "original", "line over k", "m0", "m1"}
    assert figure.axes[0].get_title(loc="left") == "T\n2 nearest of 5 methods"
    assert figure_of([line, *points], title="T").axes[0].get_title(loc="left") == "T"


def test_a_curve_from_python_scores_what_the_algorithm_returns() -> None:
    digits = load("digits", train_size=120)
    task = UnlearnTask.forget_class(digits.train, digits.test, 0)
    original = train(build("mlp", 10, 1, seed=0), digits.train, epochs=2).model
    theirs = evaluate(algorithms.retrain(original, task, epochs=2).model, task)
    curve = tradeoff_curve(
        algorithms.neg_grad, original, task, knob="lr", values=[1e-3, -1.0], seeds=(0, 1), reference=theirs, steps=2
    )
    assert (curve.name, curve.knob, len(curve.runs)) == ("neg_grad", "lr", 4)
    again = algorithms.neg_grad(original, task, lr=1e-3, steps=2, seed=1)
    assert curve.runs[1].scores["retain"] == evaluate(again.model, task).retain
    refused = curve.runs[2]
    assert refused.scores is None
    assert "lr" in refused.reason
    assert [point.value for point in curve.points()] == [1e-3]
    with pytest.raises(ValueError, match="expected at least one value and one seed"):
        tradeoff_curve(algorithms.neg_grad, original, task, knob="lr", values=[])
    with pytest.raises(TypeError, match="did you mean 'lr'"):
        tradeoff_curve(algorithms.neg_grad, original, task, knob="lrr", values=[1])
