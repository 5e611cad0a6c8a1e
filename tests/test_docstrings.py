"""What a documentation site renders: functions say in a sentence what they do, sections stand by themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
# What a fragment begins with: "The labels of ...", "Whether ...", "Of the data."
FRAGMENTS = frozenset(
    [
        "A",
        "All",
        "An",
        "As",
        "Between",
        "Both",
        "Each",
        "Every",
        "From",
        "How",
        "Images",
        "In",
        "Its",
        "Labels",
        "Logits",
        "Mean",
        "Names",
        "Of",
        "On",
        "One",
        "Per-sample",
        "Points",
        "Positions",
        "Probabilities",
        "Share",
        "Steps",
        "That",
        "The",
        "Those",
        "Under",
        "What",
        "When",
        "Whether",
        "Which",
        "Why",
        "With",
        "Without",
    ]
)
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


class Documented(NamedTuple):
    where: str
    text: str
    function: bool


def docstrings() -> Iterator[Documented]:
    for package in ("unlearn_kit", "algorithms", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and (text := ast.get_docstring(node)):
                    decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
                    # A property is described as the thing it is.
                    does = isinstance(node, ast.FunctionDef) and not any("property" in d for d in decorators)
                    yield Documented(f"{path.relative_to(ROOT)}:{getattr(node, 'name', '')}", text, does)


FOUND = list(docstrings())


def test_functions_say_what_they_do():
    assert sum(found.function for found in FOUND) > 500
    fragments = [f for f in FOUND if f.function and f.text.split()[0].rstrip(",:;") in FRAGMENTS]
    assert [f"{found.where}: {found.text.splitlines()[0]}" for found in fragments] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_stand_by_themselves(section):
    inline = [
        f"{found.where}: {line.strip()}"
        for found in FOUND
        for line in found.text.splitlines()
        if line.strip().startswith(section) and line.strip() != section
    ]
    assert inline == []
