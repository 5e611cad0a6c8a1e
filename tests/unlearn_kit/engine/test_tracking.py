"""Runs sent to trackers, and the best weights chosen on validation data."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState, tracking
from accelerate.utils import LoggerType
from torch import nn
from torch.utils.data import Dataset

import algorithms
from unlearn_kit import UnlearnTask
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import BestSoFar, Callback, Run, Tracker, keep_best
from unlearn_kit.engine.keeping import kept_and_forgotten
from unlearn_kit.metrics import accuracy
from unlearn_kit.models import build


def images(count: int, seed: int) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.arange(count) % 3)


TASK = UnlearnTask.forget_class(images(24, 0), images(24, 1), 1)
MODEL = build("mlp", 3, seed=0, hidden=(4,))


class Fake(tracking.GeneralTracker):
    """A tracker that notes what it is told; as Accelerate's own, it logs, which needs a state of Accelerate's."""

    name = "fake"
    requires_logging_directory = True
    made: list[Fake]

    def __init__(self, run_name: str, logging_dir: str, color: str = "") -> None:
        super().__init__()
        self.run_name, self.logging_dir, self.color = run_name, logging_dir, color
        self.told: list[Any] = []
        self.sent: list[tuple[int | None, dict[str, float]]] = []
        Fake.made.append(self)

    @property
    def tracker(self) -> list[Any]:
        return self.told

    @tracking.on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(values)

    @tracking.on_main_process
    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        tracking.logger.debug("logged")
        self.sent.append((step, values))

    @tracking.on_main_process
    def finish(self) -> None:
        self.told.append("finished")


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "fake", Fake)
    Fake.made = []


def revise(*callbacks: Callback, **options: Any) -> Any:
    return algorithms.finetune(MODEL, TASK, **{"steps": 6, "batch_size": 4, **options}, callbacks=callbacks)


def test_records_and_metrics_are_sent_at_the_step_of_the_run(tmp_path: Path) -> None:
    def kept(model: nn.Module) -> float | None:
        return accuracy(model, TASK.retain_validation)

    metrics = {"kept": kept, "n/a": lambda _: None, "drawn": lambda _: torch.rand(()).item()}
    tracker = Tracker("fake", tmp_path, run="mine", config={"lr": 0.1, "model": MODEL}, metrics=metrics, every=2)
    with tracker:
        result = revise(tracker)
    (fake,) = Fake.made
    assert (fake.run_name, fake.logging_dir) == ("mine", str(tmp_path))
    assert fake.told == [{"lr": 0.1, "model": str(MODEL)}, "finished"]
    losses = [(step, values["finetune/total"]) for step, values in fake.sent if "finetune/total" in values]
    logged = [record for record in result.history if "total" in record]
    assert losses == [(record["step"] + 1, record["total"]) for record in logged]
    looks = [(step, set(values)) for step, values in fake.sent if "finetune/kept" in values]
    assert looks == [(step, {"finetune/kept", "finetune/drawn"}) for step in (2, 4, 6)]
    last = next(values for step, values in fake.sent if step == 6 and "finetune/kept" in values)
    assert last["finetune/kept"] == kept(result.model)
    assert [record["step"] for record in result.history if "kept" in record] == [2, 4, 6]


def test_a_tracked_run_has_the_same_bits_and_leaves_no_state_behind(tmp_path: Path) -> None:
    PartialState._reset_state()  # what another test may have left of Accelerate's
    plain, environment, before = revise(), dict(os.environ), torch.get_rng_state()
    tracked = revise(Tracker("fake", tmp_path, metrics={"drawn": lambda _: torch.rand(()).item()}, every=1))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(tracked.model.state_dict()[name], value)
    assert torch.equal(torch.get_rng_state(), before)
    assert PartialState._shared_state == {}
    assert dict(os.environ) == environment


def test_trainings_in_a_row_are_one_run_until_it_is_closed(tmp_path: Path) -> None:
    tracker = Tracker("fake", tmp_path)
    revise(tracker, steps=3)
    revise(tracker, steps=3)
    assert [step for step, _ in Fake.made[0].sent] == [1, 3, 4, 6]
    tracker.close()
    tracker.close()
    revise(tracker, steps=1)
    assert [step for step, _ in Fake.made[1].sent] == [1]
    assert Fake.made[0].told == ["finished"]
    del tracker
    assert Fake.made[1].told == ["finished"]


def test_names_are_of_letters_that_every_tracker_takes_and_stay_apart(tmp_path: Path) -> None:
    tracker = Tracker("fake", tmp_path, metrics={"a(b -> c)": lambda _: 1.0, "a[b, c]": lambda _: 2.0})
    revise(tracker, steps=1)
    values = next(values for _, values in Fake.made[0].sent if "finetune/a b - c" in values)
    assert values == {"finetune/a b - c": 1.0, "finetune/a b c": 2.0}
    tracker = Tracker("fake", tmp_path, metrics={"a(b)": lambda _: 1.0, "a[b]": lambda _: 2.0})
    revise(tracker, steps=1)
    assert {"finetune/a b": 1.0, "finetune/a b_": 2.0} in [values for _, values in Fake.made[1].sent]


def test_with_an_accelerator_its_state_stays(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    try:
        algorithms.finetune(
            MODEL, TASK, steps=2, batch_size=4, callbacks=[Tracker("fake", tmp_path)], accelerator=accelerator
        )
        assert PartialState._shared_state != {}
        assert len(Fake.made[0].sent) == 2
    finally:
        accelerator.state._reset_state(reset_partial_state=True)


def test_one_of_several_processes_needs_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"expected an accelerate\.Accelerator with a Tracker in several"):
        revise(Tracker("fake", tmp_path))


def test_what_no_tracker_can_be_made_of_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected folder with 'fake', which writes files, but got None"):
        Tracker("fake")
    with pytest.raises(ValueError, match="tensorboard"):
        Tracker("tensorbord", "logs")
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ImportError, match="expected the package of the tracker 'wandb' to be installed"):
        Tracker("wandb")
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    with pytest.raises(ValueError, match="expected no folder with 'wandb', which has no use for one, but got 'logs'"):
        Tracker("wandb", "logs")
    with pytest.raises(ValueError, match="expected every to be at least 1, but got 0"):
        Tracker("fake", "logs", every=0)


@pytest.mark.skipif(
    "tensorboard" not in map(str, tracking.get_available_trackers()), reason="tensorboard is not installed"
)
def test_tensorboard_holds_what_was_sent(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Tracker("tensorboard", tmp_path, run="mine", config={"lr": 0.1}) as tracker:
        result = revise(tracker)
    events = EventAccumulator(str(tmp_path / "mine")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("finetune/total")]
    wanted = [(record["step"] + 1, record["total"]) for record in result.history]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    torch.testing.assert_close([value for _, value in found], [value for _, value in wanted])


# The best weights by validation data


class Weights(Callback):
    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_step(self, run: Run) -> None:
        self.after.append(copy.deepcopy(run.model.state_dict()))


def test_the_best_of_every_few_steps_is_the_result() -> None:
    scores, weights = iter([0.1, math.nan, 0.9, 0.3]), Weights()
    best = keep_best(TASK, by=lambda *_: next(scores), every=3)
    result = revise(best, weights, steps=12)
    assert best.best == 0.9
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, weights.after[8][name])
    assert [record["step"] for record in result.history if "validation score" in record] == [3, 6, 9, 12]
    with pytest.raises(ValueError, match="expected every to be at least 1, but got 0"):
        BestSoFar(lambda _: 0.0, every=0)


class Judging(Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("test data were read")


def test_what_keeps_the_best_reads_no_test_data_and_scores_validation_data() -> None:
    locked = replace(TASK, forget_test=Judging(), retain_test=Judging())
    best = keep_best(locked, every=1)
    result = algorithms.finetune(MODEL, locked, steps=3, batch_size=4, callbacks=[best])
    # A class goes as a whole: accuracy on kept validation data, less that on the forget data, by hand.
    kept, left = accuracy(result.model, TASK.retain_validation), accuracy(result.model, TASK.forget)
    assert kept is not None
    assert left is not None
    assert best.best == pytest.approx(kept - left, abs=1e-12)
    assert len(seen := [r["validation score"] for r in result.history if "validation score" in r]) == 3
    assert best.best == max(seen)


def test_of_single_samples_the_goal_is_the_score_of_unseen_data() -> None:
    task = UnlearnTask.forget_samples(images(24, 0), images(24, 1), [0, 1, 2, 3])
    kept, forget = accuracy(MODEL, task.retain_test), accuracy(MODEL, task.forget)
    assert kept is not None
    assert forget is not None
    assert kept_and_forgotten(MODEL, task) == pytest.approx(kept - max(0.0, forget - kept), abs=1e-12)


def test_without_validation_data_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(ValueError, match="expected task to have validation data to choose the best weights by"):
        keep_best(replace(TASK, retain_validation=()))
