from __future__ import annotations

import re
import runpy
import textwrap
from pathlib import Path

import pytest
import yaml

import unlearn_kit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^( *)```python\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(textwrap.dedent(code), id=f"{document}-{place}")
    for document in ("README.md", "CONTRIBUTING.md")
    for place, (_, code) in enumerate(FENCED.findall((ROOT / document).read_text(encoding="utf-8")))
]


def test_both_documents_show_code() -> None:
    assert {block.id.partition("-")[0] for block in BLOCKS} == {"README.md", "CONTRIBUTING.md"}


@pytest.mark.parametrize("code", BLOCKS)
def test_code_in_the_documents_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shown.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "shown.py"))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_commands_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)) <= targets


def test_the_version_to_cite_is_the_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == unlearn_kit.__version__
    assert f"## [{cited['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_forms_and_the_workflow_are_read_and_run_what_everybody_runs() -> None:
    read = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github").rglob("*.yml")}
    assert all(read[name]["body"] for name in ("wrong-result.yml", "method-or-metric.yml"))
    assert read["test.yml"]["jobs"]["test"]["steps"][-1] == {"run": ".ci/run"}
