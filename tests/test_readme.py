from __future__ import annotations

import re
import runpy
import textwrap
from pathlib import Path

import pytest

import algorithms
from benchmarks.setup.inventory import algorithms_as_markdown
from unlearn_kit.engine import facts_of

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


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_the_table_of_algorithms_is_what_they_declare() -> None:
    section = README.partition("\n## Algorithms\n")[2].partition("\n## ")[0]
    shown = "".join(line for line in section.splitlines(keepends=True) if line.startswith("|"))
    # As `unlearn-kit list --markdown` prints it.
    assert shown == algorithms_as_markdown()
    for name in algorithms.__all__:
        facts = facts_of(getattr(algorithms, name))
        (line,) = [line for line in shown.splitlines() if line.startswith(f"| `{name}` |")]
        *_, masks, retain, source = re.split(r"(?<!\\) ?\| ?", line.strip("| "))
        assert (masks == "yes") == ("segmentation" in facts.kinds)
        assert (retain == "yes") == facts.reads_retain
        assert all(part in source for part in facts.source.split("arXiv"))


def test_commands_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)) <= targets
