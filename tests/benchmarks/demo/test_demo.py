from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import algorithms
from benchmarks.demo import curves
from benchmarks.demo.config import DemoConfig
from benchmarks.demo.run import DemoReport, run_demo
from benchmarks.demo.table import demo_table, mix_table
from benchmarks.setup import methods as attempts
from unlearn_kit import DivergenceError, UnlearnTask, load_model
from unlearn_kit.data import load
from unlearn_kit.metrics import accuracy
from unlearn_kit.models import build

TINY: dict[str, Any] = {"train_size": 300, "epochs": 2, "seed": 3}


@pytest.fixture(scope="module")
def by_class(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    out = tmp_path_factory.mktemp("class")
    return run_demo(DemoConfig(**TINY, out=out, methods=("finetune", "perturbed_sign:paper"), curves=False))


def results(report: DemoReport) -> dict[str, Any]:
    return json.loads((report.config.folder / "results.json").read_text())


def cells(table: Any) -> list[list[str]]:
    return [list(row) for row in zip(*(list(column.cells) for column in table.columns), strict=True)]


def test_rows_are_doing_nothing_the_reference_and_each_method(by_class: DemoReport) -> None:
    assert [row.name for row in by_class.rows] == ["original", "reference", "finetune", "perturbed_sign:paper"]
    assert by_class.complete
    reference = by_class.rows[1]
    assert reference.scores.forget == reference.scores.forget_test == 0  # it never saw the class
    assert (reference.scores.average_gap, reference.scores.tug_of_war) == (0, 1)
    for row in by_class.rows[2:]:
        assert row.speed_up == pytest.approx(reference.seconds / row.seconds)
    assert by_class.rows[0].speed_up is None


def test_the_files_say_what_the_report_says(by_class: DemoReport) -> None:
    found = results(by_class)
    assert [row["name"] for row in found["rows"]] == [row.name for row in by_class.rows]
    assert found["config"]["epochs"] == 2
    assert found["config"]["train_size"] == 300
    assert found["config"]["forget"] == "class:0"
    assert found["config"]["model"] == "small-cnn"
    assert found["seeds"] == {"training": 3, "unlearning": 3, "evaluation": 3}
    assert found["task"]["rule"] == "class 0 (validation: 90 of 360 held-out samples, seed 0)"
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    row = found["rows"][3]
    assert row["scores"]["retain_test"] == by_class.rows[3].scores.retain_test
    assert row["config"]["preset"] == "paper"
    assert row["history_length"] > 0
    assert "reference" not in str(row["scores"].get("reference"))
    with Image.open(by_class.config.folder / "tradeoff.png") as picture:
        assert picture.size[0] > 1000


def test_saved_models_are_the_models_that_were_judged(by_class: DemoReport) -> None:
    digits = load("digits", train_size=300)
    task = UnlearnTask.forget_class(digits.train, digits.test, 0)
    for row, saved in zip(by_class.rows, results(by_class)["rows"], strict=True):
        model = load_model(build("small-cnn", 10, 1), by_class.config.folder / saved["model"])
        assert accuracy(model, task.retain_test) == row.scores.retain_test
    assert saved["model"] == "models/perturbed_sign-paper.safetensors"  # a colon is no file name everywhere


def test_the_same_seed_gives_the_same_figures_and_another_does_not(by_class: DemoReport, tmp_path: Path) -> None:
    again = run_demo(DemoConfig(**TINY, out=tmp_path / "a", methods=("finetune",), curves=False))
    other = run_demo(DemoConfig(**{**TINY, "seed": 4}, out=tmp_path / "b", methods=("finetune",), curves=False))
    for row, twin, stranger in zip(by_class.rows, again.rows, other.rows, strict=False):
        assert row.scores.as_dict() == twin.scores.as_dict()
        assert row.scores.membership != stranger.scores.membership


def test_random_samples_are_forgotten_along_two_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "perturbed_sign", partial(algorithms.perturbed_sign, steps=4, lr=0.05))
    monkeypatch.setattr(curves, "RETAIN_WEIGHTS", (0.1, 9.0))
    monkeypatch.setattr(curves, "MIXES", (0.0, 1.0))
    report = run_demo(DemoConfig(**TINY, out=tmp_path, forget="random:0.1", methods=("perturbed_sign",)))
    assert [point.retain_weight for point in report.curve] == [0.1, 9.0]
    assert report.curve[0].scores.as_dict() != report.curve[1].scores.as_dict()
    assert [point.mix for point in report.mix.points] == [0.0, 1.0]
    full = report.mix.points[1]  # mix 1 is what the method does by default
    assert (full.forget, full.retain) == (report.rows[2].scores.forget, report.rows[2].scores.retain)
    assert full.test == report.rows[2].scores.retain_test
    assert report.mix.reference.forget == report.rows[1].scores.forget
    found = results(report)
    assert [point["mix"] for point in found["mix_curve"]["points"]] == [0.0, 1.0]
    assert found["rows"][0]["scores"]["forget_test"] is None
    assert (tmp_path / "mix.png").stat().st_size > 10_000
    shown = cells(demo_table(report))
    assert [row[3] for row in shown] == ["n/a"] * 3  # held-out data hold nothing to forget
    assert "0.000" not in shown[0]
    assert len(cells(mix_table(report.mix))) == 4


def test_refusals_and_divergences_are_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(model: Any, task: Any, *, seed: int = 0, device: Any = None) -> None:
        raise ValueError("expected another task, but got this")

    def bursts(model: Any, task: Any, *, seed: int = 0, device: Any = None) -> None:
        raise DivergenceError("unlearn", 3, "cross_entropy", {})

    def breaks(model: Any, task: Any, *, seed: int = 0, device: Any = None) -> None:
        raise KeyError("a bug")

    for name, function in {"refuses": refuses, "bursts": bursts, "breaks": breaks}.items():
        monkeypatch.setattr(algorithms, name, function, raising=False)
    monkeypatch.setattr(attempts, "METHODS", ("refuses", "bursts", "breaks", "finetune"))
    plan = {**TINY, "out": tmp_path, "curves": False}
    report = run_demo(DemoConfig(**plan, methods=("refuses", "bursts", "finetune")))
    assert [row.status for row in report.rows[2:]] == ["n/a", "diverged", "ok"]
    assert not report.complete
    assert "refuses: n/a: expected another task, but got this" in report.notes
    assert any(note.startswith("bursts: diverged: phase 'unlearn' diverged at step 3") for note in report.notes)
    rows = results(report)["rows"]
    assert rows[2]["scores"] is rows[2]["seconds"] is rows[2]["speed_up"] is rows[2]["model"] is None
    assert set(cells(demo_table(report))[2][1:]) == {"n/a"}
    with pytest.raises(KeyError, match="a bug"):  # a fault of ours is not passed off as an outcome
        run_demo(DemoConfig(**plan, methods=("breaks",)))


def test_a_point_of_a_curve_that_fails_is_noted_and_left_out_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(model: Any, task: Any, *, retain_weight: float = 1.0, seed: int = 0, device: Any = None) -> Any:
        if retain_weight > 1:
            raise ValueError("expected less, but got more")
        return algorithms.finetune(model, task, steps=1, seed=seed)

    monkeypatch.setattr(algorithms, "perturbed_sign", picky)
    monkeypatch.setattr(curves, "RETAIN_WEIGHTS", (1.0, 2.0))
    report = run_demo(DemoConfig(**TINY, out=tmp_path, methods=("perturbed_sign",)))
    assert [point["scores"] is None for point in results(report)["retain_weight_curve"]] == [False, True]
    assert "perturbed_sign, retain_weight=2: expected less, but got more" in report.notes


def test_everything_tolerates_refusals_but_not_divergences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.demo import config as demo_config

    def refuses(model: Any, task: Any, *, seed: int = 0, device: Any = None) -> None:
        raise TypeError("expected another task, but got this")

    monkeypatch.setattr(algorithms, "refuses", refuses, raising=False)
    for module in (attempts, demo_config):
        monkeypatch.setattr(module, "METHODS", ("refuses", "finetune"))
    report = run_demo(DemoConfig(**TINY, out=tmp_path, everything=True, curves=False))
    assert [row.name for row in report.rows[2:]] == ["refuses", "finetune"]
    assert report.complete


def test_everything_is_every_algorithm_but_the_reference_and_what_reads_it() -> None:
    names = {method.text for method in DemoConfig(everything=True).chosen}
    assert names == set(algorithms.__all__) - {"retrain", "oracle_matching"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "digit"}, r"expected data to be one of \['digits', .* did you mean 'digits'"),
        ({"seed": -1}, "expected seed to be at least 0, but got -1"),
        ({"epochs": 0}, "expected epochs to be at least 1, but got 0"),
        ({"methods": ("finetune", "finetune")}, r"expected methods to differ, but got \['finetune', 'finetune'\]"),
        ({"methods": ("finetune",), "everything": True}, "expected either all methods or named ones, but got both"),
        ({"device": "abacus"}, "expected device to be one of this machine's, but got 'abacus'"),
        ({"forget": "some"}, "expected forget to be one of class:LABEL"),
        ({"model": "resnet"}, r"expected model to be one of .*'resnet18'.* but got 'resnet'"),
        ({"model": "unet"}, r"expected model to be one of .* but got 'unet'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoConfig(**options)


def test_a_rule_that_leaves_nothing_to_retain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected forget='random:0\.9999' to leave data in 'retain'"):
        run_demo(DemoConfig(train_size=20, out=tmp_path / "out", forget="random:0.9999"))
    assert not (tmp_path / "out").exists()
