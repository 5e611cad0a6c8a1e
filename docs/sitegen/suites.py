"""Suites: what one may say, from its schema, and what those that were run gave, from their tables and curves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .markdown import table

PAGE = "reference/suites"
AXES = {
    "forget-retain": "Forget against retain, on the training data",
    "forget-test": "Forget against retain, on test data",
    "membership-test": "Membership against retain, on test data",
}


def pages(root: Path) -> dict[str, str]:
    """Return the text of every page by its path: the schema, and one a suite that was run.

    Args:
        root: The repository.
    """
    ran = sorted(path.stem for path in (root / "docs" / "suites").glob("*.csv") if path.with_suffix(".md").exists())
    return {PAGE: schema(root), **{f"suites/{name}": results(root, name) for name in ran}}


def schema(root: Path) -> str:
    """Return the page of every key of a suite, from its schema, with the shipped suites."""
    from benchmarks.setup.scenarios import FORMS
    from benchmarks.suites.schema import Suite

    whole = Suite.model_json_schema()
    parts = {"Suite": whole, **whole["$defs"]}
    text = "# Keys of a suite\n\nA suite is a file of YAML: [Run a suite](../how-to/suites.md) walks through one.\n"
    for name, part in parts.items():
        required = part.get("required", ())
        rows = [
            (f"`{key}`", _means(value), _takes(value), "required" if key in required else _default(value))
            for key, value in part.get("properties", {}).items()
        ]
        about = part.get("description", "").partition("\n\nRaises:")[0].replace("``", "`")
        keys = table(("key", "what it is", "what it takes", "default"), rows)
        if name == "Scenario":  # written as its rules alone
            keys = "Forms of a rule: " + ", ".join(f"`{form}`" for form in FORMS) + ".\n"
        text += f"\n## {name}\n\n{_plain(about)}\n\n{keys}"
    text += "\n## Suites that come with it\n"
    for path in sorted((root / "benchmarks" / "suites").glob("*.yaml")):
        text += f"\n### {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8')}```\n"
    return text


def _plain(text: str) -> str:
    """Return a docstring without the marks of references to code."""
    return re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text)


def _means(value: dict[str, Any]) -> str:
    """Return what a key is, by the text under it in the code."""
    return str(value.get("description", "")).replace("``", "`")


def _default(value: dict[str, Any]) -> str:
    """Return a default as it would be written in the file."""
    default = value.get("default")
    if isinstance(default, dict) and not any(default.values()):
        return "nothing"
    return "nothing" if default in (None, "", []) else f"`{json.dumps(default)}`"


def _unbroken(text: str) -> str:
    """Return tables whose means and half-widths stay on one line."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _takes(value: dict[str, Any]) -> str:
    """Return in words what a key takes."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return ", or ".join(_takes(one) for one in value["anyOf"])
    kind = value.get("type", "anything")
    if kind == "array":
        return f"one or several of: {_takes(value.get('items', {}))}"
    words = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    words |= {"object": "a mapping", "null": "nothing"}
    return words.get(kind, kind)


def results(root: Path, name: str) -> str:
    """Return the page of one suite that was run: what it is, its table, its curves and its data."""
    import yaml

    folder = root / "docs" / "suites"
    said = root / "benchmarks" / "suites" / f"{name}.yaml"
    about = yaml.safe_load(said.read_text(encoding="utf-8"))["about"] if said.exists() else ""
    text = (
        f"# {name}\n\n{about}\n\n`unlearn-kit run {name} --workers 2` made it. "
        f"All figures, unrounded and with both ends of every interval: [{name}.csv]({name}.csv).\n\n"
        f"{_unbroken((folder / f'{name}.md').read_text(encoding='utf-8'))}\n## Curves\n"
    )
    for picture in sorted((folder / name).glob("*.svg")):
        axes = next((axes for axes in AXES if picture.stem.endswith(axes)), "")
        of, shown = picture.stem.removesuffix(f"-{axes}"), AXES.get(axes, "Tradeoff")
        text += f"\n![{shown}: {of}]({name}/{picture.name})\n\n{shown}, `{of}`.\n"
    return text
