from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from unlearn_kit.checkpoints import save_tensors
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import make_folder, plain, write_json


def test_json_has_null_where_a_figure_is_missing_or_no_number(tmp_path: Path) -> None:
    path = write_json({"a": None, "b": [float("nan"), 1.5], "c": {"d": float("inf")}, 3: "x"}, tmp_path / "r.json")
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "3": "x"}
    assert plain(0.0) == 0.0


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_json({"a": 1}, tmp_path / "r.json")
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OSError, match=r"folder\.json"):
        write_json({"a": 2}, tmp_path / "folder.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.json", "r.json"]


def test_a_file_may_be_read_by_those_who_may_read_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_versions_are_told() -> None:
    found = versions()
    assert {"python", "torch", "numpy", "unlearn-kit"} <= set(found)


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(OSError, match="expected out to be a folder that can be made, but got '/proc/nowhere/x': "):
        make_folder("out", "/proc/nowhere/x")
