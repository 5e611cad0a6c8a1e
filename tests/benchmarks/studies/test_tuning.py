"""The study of tuning: every search for every target, on originals that are trained once."""

import io
import json
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.setup.recipes import RECIPES
from benchmarks.studies import tuning as tuning_study


def test_every_search_is_run_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], model="mlp", epochs=1))
    command = ["tuning_study", "--seeds", "0", "--targets", "0.5", "--budget", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--method", "perturbed_sign:steps=1"])
    tuning_study.main()
    written = json.loads((tmp_path / "tuning.json").read_text())
    assert [record["search"] for record in written["records"]] == ["bracket", "grid", "nelder-mead"]
    for record in written["records"]:
        assert 1 <= record["runs"] <= 2
        assert record["reached"] == (abs(record["forget"] - 0.5) <= 0.02)
    assert "nelder-mead" in capsys.readouterr().out
    assert (tmp_path / "models" / "digits-original-0.safetensors").exists()


def test_the_table_gives_means_over_seeds():
    records = [
        {
            "seed": seed,
            "target": 0.2,
            "search": "grid",
            "reached": seed == 0,
            "forget": 0.2 + seed / 10,
            "runs": 4 + seed,
            "seconds": 1.0,
        }
        for seed in (0, 1)
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(tuning_study.table(records))
    text = console.export_text()
    assert "1 of 2" in text
    assert "0.050" in text
    assert "4.5" in text


def test_targets_of_no_number_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["tuning_study", "--targets", "low", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="could not convert"):
        tuning_study.main()
