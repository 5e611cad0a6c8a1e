from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.setup.lowest_versions import lowest_versions, main

PROJECT = """
[project]
name = "own"
dependencies = ["first>=1.2", "second[extra] >= 3.0.1, <4", "third>=2; python_version < '3.12'"]
[project.optional-dependencies]
dev = ["own[more]", "first>=1.2"]
more = ["fourth>=5"]
"""


def test_each_lower_bound_becomes_the_version(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(PROJECT)
    rows = ["first==1.2", "second==3.0.1", "third==2", "first==1.2", "fourth==5"]
    assert list(lowest_versions(path)) == rows
    assert list(lowest_versions(path, without=["first"])) == ["second==3.0.1", "third==2", "fourth==5"]
    path.write_text(PROJECT.replace("fourth>=5", "fourth<6"))
    with pytest.raises(ValueError, match=r"expected a lower bound in .*pyproject\.toml, but got 'fourth<6'"):
        list(lowest_versions(path))


def test_every_requirement_of_the_toolkit_has_a_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--without", "torch"])
    rows = capsys.readouterr().out.split()
    assert rows == list(dict.fromkeys(lowest_versions(without=["torch"])))
    assert any(row.startswith("typer==") for row in rows)
    assert not any(row.startswith("torch==") for row in rows)
