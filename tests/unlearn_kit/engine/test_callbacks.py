"""Callbacks: when they are called, what they see, and what they make of a run."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import (
    Alternate,
    BestSoFar,
    Callback,
    Log,
    Phase,
    ProgressBar,
    Run,
    StopWhen,
    WeightAverage,
    fit,
)
from unlearn_kit.models import build


def images(count: int) -> TensorImages:
    own = torch.Generator().manual_seed(0)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.randint(3, (count,), generator=own))


RETAIN = images(12)


def dense() -> nn.Module:
    return build("mlp", 3, seed=0, hidden=(4,))


def phase(name: str = "train", **options: Any) -> Phase:
    """Three steps an epoch."""
    defaults: dict[str, Any] = {"streams": {"retain": RETAIN}, "batch_size": 4, "lr": 0.1, "name": name}
    return Phase(**{"objective": L.cross_entropy(on="retain"), **defaults, **options})


class Diary(Callback):
    def __init__(self, name: str = "", pages: list[Any] | None = None) -> None:
        self.name, self.pages = name, pages if pages is not None else []

    def _note(self, joint: str, run: Run) -> None:
        self.pages.append((self.name + joint, run.phase, run.step, run.epoch, run.done))

    def on_start(self, run: Run) -> None:
        self._note("start", run)

    def on_step(self, run: Run) -> None:
        self._note("step", run)

    def on_epoch(self, run: Run) -> None:
        self._note("epoch", run)

    def on_end(self, run: Run) -> None:
        self._note("end", run)


class Weights(Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.after: list[dict[str, Tensor]] = []

    def on_step(self, run: Run) -> None:
        self.after.append(copy.deepcopy(run.model.state_dict()))


def test_callbacks_are_called_at_every_joint_in_order() -> None:
    diary = Diary()
    fit(dense(), [phase("a", steps=4), phase("b", epochs=1)], callbacks=[diary])
    assert diary.pages == [
        ("start", "", 0, 0, 0),
        ("step", "a", 1, 0, 1),
        ("step", "a", 2, 0, 2),
        ("step", "a", 3, 1, 3),
        ("epoch", "a", 3, 1, 3),
        ("step", "a", 4, 1, 4),
        ("epoch", "a", 4, 1, 4),
        ("step", "b", 1, 0, 5),
        ("step", "b", 2, 0, 6),
        ("step", "b", 3, 1, 7),
        ("epoch", "b", 3, 1, 7),
        ("end", "b", 3, 1, 7),
    ]


def test_several_callbacks_are_called_in_the_order_given() -> None:
    pages: list[Any] = []
    fit(dense(), phase(steps=1), callbacks=[Diary("1 ", pages), Diary("2 ", pages)])
    assert [page[0] for page in pages] == [f"{k} {joint}" for joint in ("start", "step", "epoch", "end") for k in "12"]


def test_the_run_tells_how_long_it_is_and_turns_of_an_alternation_go_on_counting() -> None:
    seen: list[tuple[int, int, int]] = []

    class Totals(Callback):
        def on_step(self, run: Run) -> None:
            seen.append((run.step, run.total, run.planned))

    fit(dense(), Alternate([phase("a", steps=2), phase("b", steps=1)], 2), callbacks=[Totals()])
    assert seen == [(1, 4, 6), (2, 4, 6), (1, 2, 6), (3, 4, 6), (4, 4, 6), (2, 2, 6)]


class Failing(Callback):
    def on_start(self, run: Run) -> None:
        raise RuntimeError("no")


def test_the_end_is_told_when_a_run_breaks_too() -> None:
    diary = Diary()
    with pytest.raises(RuntimeError, match="no"):
        fit(dense(), phase(steps=1), callbacks=[diary, Failing()])
    assert [page[0] for page in diary.pages] == ["start", "end"]
    with pytest.raises(RuntimeError, match="no"):
        fit(dense(), phase(steps=1), callbacks=[Failing(), ProgressBar()])


# StopWhen


def falling(values: list[float | None]) -> Any:
    source: Iterator[float | None] = iter(values)
    return lambda _: next(source)


def test_a_run_stops_after_the_epoch_that_reaches_the_goal() -> None:
    stop = StopWhen(falling([0.9, 0.5, 0.04]), lambda value: value <= 0.05, name="forget accuracy")
    weights = Weights()
    result = fit(dense(), [phase(epochs=5), phase("later", epochs=1)], callbacks=[stop, weights], log_every=100)
    assert result.stopped == "forget accuracy = 0.04"
    assert len(weights.after) == 9
    assert all(torch.equal(value, weights.after[-1][name]) for name, value in result.model.state_dict().items())
    looks = [record for record in result.history if "forget accuracy" in record]
    assert [(look["epoch"], look["forget accuracy"]) for look in looks] == [(1, 0.9), (2, 0.5), (3, 0.04)]


def test_a_run_stops_between_epochs_where_every_so_many_steps_are_looked_at() -> None:
    stop = StopWhen(falling([1.0, 0.0]), lambda value: value < 0.5, every=2)
    weights = Weights()
    assert fit(dense(), phase(epochs=5), callbacks=[stop, weights]).stopped == "metric = 0"
    assert len(weights.after) == 4


def test_what_is_not_available_is_never_reached() -> None:
    result = fit(dense(), phase(epochs=2), callbacks=[StopWhen(lambda _: None, lambda _: True)])
    assert result.stopped is None
    assert [record["metric"] for record in result.history if "metric" in record] == [None, None]
    with pytest.raises(ValueError, match="expected every to be at least 1, but got 0"):
        StopWhen(lambda _: None, lambda _: True, every=0)


def test_a_metric_finds_the_model_in_eval_mode_and_leaves_no_trace_in_the_run() -> None:
    modes: list[bool] = []

    def metric(model: nn.Module) -> float:
        modes.append(any(module.training for module in model.modules()))
        model(torch.rand(4, 1, 8, 8))  # In training mode this would move the statistics of batch norm.
        return torch.rand(()).item()

    model = build("small-cnn", 3, seed=0, width=2)
    model[1].append(nn.Dropout(0.5))  # type: ignore[index]
    program = phase(epochs=3, batch_norm="update")
    watched = fit(model, program, callbacks=[StopWhen(metric, lambda _: False, every=1), BestSoFar(lambda _: None)])
    plain = fit(model, program)
    assert modes == [False] * 9
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name])


# BestSoFar and WeightAverage


def test_the_best_epoch_is_the_result() -> None:
    best, weights = BestSoFar(falling([0.2, 0.7, 0.7, math.nan, 0.1])), Weights()
    result = fit(dense(), phase(epochs=5), callbacks=[best, weights], log_every=100)
    assert best.best == 0.7
    assert all(torch.equal(value, weights.after[5][name]) for name, value in result.model.state_dict().items())
    assert [record["score"] for record in result.history if "score" in record][:3] == [0.2, 0.7, 0.7]


@pytest.mark.parametrize("none", [None, math.nan])
def test_without_any_score_the_last_weights_are_the_result(none: float | None) -> None:
    best, weights = BestSoFar(lambda _: none), Weights()
    result = fit(dense(), phase(epochs=2), callbacks=[best, weights])
    assert best.best is None
    assert all(torch.equal(value, weights.after[-1][name]) for name, value in result.model.state_dict().items())


def test_a_callback_that_is_used_again_does_not_bring_back_an_earlier_run_s_weights() -> None:
    best, average = BestSoFar(falling([0.9, 0.5])), WeightAverage(0.9, every=1)
    for callback in (best, average):
        fit(dense(), phase(epochs=1), callbacks=[callback])
        again = fit(dense(), phase(epochs=1), seed=1, callbacks=[callback]).model
        fresh = BestSoFar(lambda _: 0.5) if callback is best else WeightAverage(0.9, every=1)
        expected = fit(dense(), phase(epochs=1), seed=1, callbacks=[fresh]).model
        assert torch.equal(again.get_parameter("head.weight"), expected.get_parameter("head.weight"))
    assert best.best == 0.5


def test_an_average_of_weights_is_the_sum_that_its_recursion_unrolls_to() -> None:
    weights = Weights()
    result = fit(dense(), phase(steps=6), callbacks=[WeightAverage(0.75, every=2), weights])
    w = [after["head.weight"] for after in weights.after]
    torch.testing.assert_close(
        result.model.get_parameter("head.weight").detach(), 0.75**2 * w[1] + 0.75 * 0.25 * w[3] + 0.25 * w[5]
    )


class LastEpoch(Callback):
    """Chooses final weights without saying so."""

    def on_end(self, run: Run) -> None:
        run.chosen = copy.deepcopy(run.model.state_dict())


@pytest.mark.parametrize("second", [BestSoFar(lambda _: 0.5), WeightAverage(0.5, every=1)])
def test_a_second_callback_that_chooses_the_weights_is_refused_before_the_first_step(second: Callback) -> None:
    diary = Diary()
    text = r"expected callbacks with one at most that chooses the weights, but got \['BestSoFar', '[BW]\w+'\]"
    with pytest.raises(ValueError, match=text):
        fit(dense(), phase(steps=1), callbacks=[BestSoFar(lambda _: 0.5), diary, second])
    assert diary.pages == []


def test_a_callback_that_chooses_the_weights_must_say_so() -> None:
    with pytest.raises(TypeError, match=r"expected chooses = True on LastEpoch, which sets run\.chosen"):
        fit(dense(), phase(steps=1), callbacks=[LastEpoch()])


# Log and ProgressBar


def test_the_log_has_a_line_for_every_record_or_for_some(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="unlearn_kit")
    stop = StopWhen(lambda _: 0.25, lambda _: False, name="share")
    result = fit(dense(), phase(epochs=2), callbacks=[Log(), stop], log_every=2)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(result.history) == 6
    first = result.history[0]["total"]
    assert lines[0] == f"phase=train, step=0, epoch=0, total={first:.4g}, cross_entropy(retain -> Labels)={first:.4g}"
    assert lines[-1] == "phase=train, step=6, epoch=2, share=0.25"
    caplog.clear()
    fit(dense(), phase(epochs=2), callbacks=[Log(every=3)], log_every=1)
    assert [record.getMessage()[:19] for record in caplog.records] == ["phase=train, step=0", "phase=train, step=3"]
    with pytest.raises(ValueError, match="expected every to be at least 1, but got 0"):
        Log(every=0)


def test_the_progress_bar_writes_to_standard_error_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    fit(dense(), phase(steps=3), callbacks=[ProgressBar("unlearning")])
    written = capsys.readouterr()
    assert written.out == ""
    assert "unlearning" in written.err
    assert "100%" in written.err
