from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies.composition import Options, main
from benchmarks.studies.composition_tables import below_both, forgets_both, summary

FAST = ["--data", "digits", "--train-size", "60", "--epochs", "1", "--points", "2", "--sweep", "1", "--audits", "0"]
RUNS = ["--strong-forget", "perturbed_sign:steps=2:retain_weight=0", "--strong-retain", "perturbed_sign:steps=1"]
LAST = ["--separate", "perturbed_sign:steps=2", "--bezier-steps", "1", "--seeds", "4"]


def test_the_study_runs_and_keeps_what_it_trained(tmp_path: Path) -> None:
    assert main([*FAST, *RUNS, *LAST, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "study.json").read_text())
    (record,) = report["seeds"]
    assert record["seed"] == 4
    assert set(record["training_seconds"]) == {"original", "reference", "reference-two"}
    (folder,) = (tmp_path / "models").iterdir()
    assert {path.stem for path in (folder / "seed4").iterdir()} == {"original", "reference", "reference-two"}
    rows = record["dial"]["rows"]
    assert rows["reference"]["gap"] == 0
    assert sum(row.get("composed", False) for row in rows.values()) == 14
    assert [point["t"] for point in record["dial"]["path"]] == [0, 1]
    assert (tmp_path / "path-seed4.png").stat().st_size > 10_000
    assert (tmp_path / "study.md").read_text() == summary([record])


def test_models_are_used_again_for_the_same_settings_only() -> None:
    options = Options("digits", Path("out"))
    assert replace(options, points=3, seeds=(7,)).kept == options.kept
    others = [{"data": "fashion-mnist"}, {"train_size": 60}, {"epochs": 1}, {"forget": 3}, {"second": 3}]
    assert len({replace(options, **change).kept for change in [{}, *others]}) == 6


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected --data to be one of .* did you mean 'digits'"):
        main(["--data", "digit", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="did you mean 'neg_grad'"):
        main(["--strong-forget", "neg_gard", "--out", str(tmp_path)])


def test_what_counts_as_a_success() -> None:
    rows = {"forgets most: a": {"gap": 0.1}, "retains best: b": {"gap": 0.2}, "x": {"gap": 0.09}, "y": {"gap": 0.15}}
    assert below_both({"rows": rows}, "x")
    assert not below_both({"rows": rows}, "y")
    two = {
        "rows": {
            "reference": {"classes": [0, 0], "retain": 0.92},
            "good": {"classes": [0.02, 0.0], "retain": 0.905},
            "remembers": {"classes": [0.0, 0.021], "retain": 0.92},
            "damaged": {"classes": [0.0, 0.0], "retain": 0.90},
        }
    }
    assert [forgets_both(two, name) for name in two["rows"]] == [True, True, False, False]
