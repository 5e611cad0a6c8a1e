"""The study of single samples: models are made once, every row is judged beside the first reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.setup.recipes import RECIPES
from benchmarks.studies import samples


def test_rows_of_references_original_and_methods_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], model="mlp", epochs=1))
    methods = ["quantile_matching:steps=1", "erase_to_retain:rounds=1:rank=1:restore_epochs=0->matched"]
    command = ["--data", "digits", "--seeds", "0", "--methods", *methods, "--out", str(tmp_path)]
    assert samples.main(command) == 0
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert [row["method"] for row in rows] == ["reference", "reference 2", "original", *methods]
    assert all(row["average_gap"] >= 0 for row in rows[1:])
    assert all(row["work"] > 0 for row in rows[3:])
    told = capsys.readouterr().out
    assert (tmp_path / "samples.md").read_text() in told
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "models").iterdir()}
    assert set(made) == {f"0-{name}.safetensors" for name in ("original", "reference0", "reference1")}
    samples.main([*command[:5], "quantile_matching:steps=1", "--out", str(tmp_path)])
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "models").iterdir()} == made
    again = json.loads((tmp_path / "samples.json").read_text())
    assert [row["average_gap"] for row in again[1:3]] == [row["average_gap"] for row in rows[1:3]]


def test_patients_are_forgotten_and_held_out_whole(tmp_path: Path) -> None:
    import pandas as pd
    from PIL import Image

    rows = []
    for patient in range(24):
        for cut in range(2):
            name = f"{patient}-{cut}.png"
            for folder in ("images", "masks"):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.new(
                    "RGB" if folder == "images" else "L", (8, 8), 10 * patient if folder == "images" else 255
                ).save(tmp_path / folder / name)
            split = "test" if patient >= 18 else "train"
            rows.append([f"images/{name}", f"masks/{name}", split, f"p{patient}", 0.0 if patient == 0 else 0.3])
    columns = ["file", "mask", "split", "patient", "abnormal_share"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "metadata.csv", index=False)
    case = samples.case_of("lgg-mri", tmp_path)
    task = case.task(1)
    assert (len(case.bundle.train), len(case.bundle.test), len(case.bundle.validation)) == (34, 6, 6)
    table = case.bundle.train_metadata
    assert table is not None
    assert task.forget_indices is not None
    chosen = set(table["patient"].iloc[task.forget_indices.tolist()])
    assert len(chosen) == samples.PATIENTS
    assert not chosen & set(table["patient"].drop(table.index[task.forget_indices.tolist()]))
    with pytest.raises(ValueError, match="expected root to be the folder of lgg-mri"):
        samples.case_of("lgg-mri", None)
