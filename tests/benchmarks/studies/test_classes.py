"""The study of classes: one original for all of them, references of each, and what features tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.setup.recipes import RECIPES
from benchmarks.studies import classes


def test_classes_share_an_original_and_every_row_has_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], model="mlp", epochs=1))
    command = ["--data", "digits", "--classes", "3,5", "--seeds", "0", "--methods", "perturbed_sign:steps=1"]
    assert classes.main([*command, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "classes.json").read_text())["rows"]
    methods = ["reference", "reference 2", "original", "perturbed_sign:steps=1"]
    assert [(row["class"], row["method"]) for row in rows] == [(f"class:{c}", name) for c in (3, 5) for name in methods]
    assert all(0 <= row["head_free"] <= 1 for row in rows)
    assert [row["speed"] is not None for row in rows] == [False, False, False, True] * 2
    made = {path.relative_to(tmp_path / "models").as_posix() for path in (tmp_path / "models").rglob("*.safetensors")}
    references = {f"class-{c}/0-reference{number}.safetensors" for c in (3, 5) for number in (0, 1)}
    assert made == {"0-original.safetensors"} | references
