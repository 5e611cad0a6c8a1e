from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from unlearn_kit import UnlearnResult

GUIDES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
FENCED = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def blocks(guide: Path) -> list[str]:
    return FENCED.findall(guide.read_text(encoding="utf-8"))


def test_there_is_a_guide_to_adding_an_algorithm() -> None:
    assert "add-an-algorithm" in [guide.stem for guide in GUIDES]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_code_of_a_guide_runs_in_order(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide.py").write_text("\n".join(blocks(guide)).replace("from __future__ import annotations\n", ""))
    names = runpy.run_path("guide.py")
    if guide.stem == "add-an-algorithm":
        assert isinstance(names["result"], UnlearnResult)
        assert names["result"].method == "flatten"


def test_the_example_is_a_whole_file_of_its_own(tmp_path: Path) -> None:
    (guide,) = [guide for guide in GUIDES if guide.stem == "add-an-algorithm"]
    file = tmp_path / "flatten.py"
    file.write_text(blocks(guide)[0])
    assert callable(runpy.run_path(str(file))["flatten"])


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_files_a_guide_names_exist(guide: Path) -> None:
    root = guide.parents[1]
    text = guide.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:algorithms|tests|unlearn_kit|benchmarks)/[\w/]+\.py)`", text))
    made_here = {f"algorithms/{name}.py" for name in re.findall(r"^def (\w+)\(", text, flags=re.MULTILINE)}
    assert sorted(name for name in named - made_here if not (root / name).exists()) == []
