"""Measurements of speed run and say what they measure; how fast anything is, no test judges."""

from __future__ import annotations

import sys

import pytest

from benchmarks.speed import loop, scale
from benchmarks.speed.__main__ import main, names


def test_without_a_name_the_measurements_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"ensembles", "loop", "overhead", "scale", "throughput"} <= names().keys()
    monkeypatch.setattr(sys, "argv", ["benchmarks.speed"])
    assert main() == 2
    printed = capsys.readouterr().out
    assert [f"  {name}: {said}" for name, said in names().items()] == printed.splitlines()[1:]


def test_what_comes_before_the_first_step_reads_a_few_images_of_many() -> None:
    rows = {name: (seconds, read) for name, seconds, _, read in scale.measure(150_000)}
    assert next(iter(rows)) == "task: a class"
    few = {name: read for name, (_, read) in rows.items() if name != "hash for a cache"}
    assert max(few.values()) <= 100, few
    assert rows["hash for a cache"][1] <= 1024 + 100


def test_a_step_is_measured_both_ways() -> None:
    ((alone, engine),) = loop.measure(2, 5, 1)
    assert alone > 0
    assert engine > 0
