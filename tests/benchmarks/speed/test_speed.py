"""Measurements of speed run and say what they measure; how fast anything is, no test judges."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks.speed import gpu, loop, scale
from benchmarks.speed.__main__ import main, names
from unlearn_kit import hashing


def test_without_a_name_the_measurements_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"ensembles", "loop", "overhead", "scale", "throughput"} <= names().keys()
    monkeypatch.setattr(sys, "argv", ["benchmarks.speed"])
    assert main() == 2
    printed = capsys.readouterr().out
    assert [f"  {name}: {said}" for name, said in names().items()] == printed.splitlines()[1:]


def test_what_comes_before_the_first_step_reads_a_few_images_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "LARGE", 10_000)
    rows = {name: (seconds, read) for name, seconds, _, read in scale.measure(20_000)}
    assert next(iter(rows)) == "task: a class"
    few = {name: read for name, (_, read) in rows.items() if name != "hash for a cache"}
    assert max(few.values()) <= 100, few
    assert rows["hash for a cache"][1] <= 1024 + 100


def test_a_step_is_measured_both_ways() -> None:
    ((alone, engine),) = loop.measure(2, 5, 1)
    assert alone > 0
    assert engine > 0


def test_what_a_gpu_is_asked_runs_on_the_cpu_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--network", "small-cnn", "--images", "60", "--recipes", "retrain"]
    try:
        gpu.main([*arguments, "--out", str(out)])
    finally:
        AcceleratorState._reset_state(True)  # its precision is the process's
    rows = json.loads(out.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["float32", "bfloat16"]
    assert all(row["same bits"] and row["device MiB"] is None and row["seconds"] > 0 for row in rows)
    assert "retrain" in capsys.readouterr().out
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu.main([])
        assert "expected a GPU for --device cuda, but torch sees none" in capsys.readouterr().err
