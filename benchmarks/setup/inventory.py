"""What the toolkit has: algorithms with their facts, data sets and models, each with a line about it."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import algorithms
from unlearn_kit.data import LOADERS
from unlearn_kit.engine import facts_of
from unlearn_kit.models import MODELS

Entry = dict[str, Any]


def inventory() -> dict[str, dict[str, Entry]]:
    """Return every algorithm, data set and model by name.

    Returns:
        By kind ("algorithms", "data", "models") and name an entry of plain values: ``about``, one line; of an algorithm
        also ``kinds`` (of task), ``reads_retain``, ``reinitializes``, ``reads_reference`` and ``source``, as it
        declares them.
    """
    return {
        "algorithms": {name: _algorithm(getattr(algorithms, name)) for name in algorithms.__all__},
        "data": {
            name: {"about": _first_line(importlib.import_module(f"unlearn_kit.data.{module}"))}
            for name, module in LOADERS.items()
        },
        "models": {name: {"about": f"{entry.summary} ({entry.task})"} for name, entry in MODELS.items()},
    }


def _algorithm(function: Any) -> Entry:
    facts = facts_of(function)
    return {
        "about": _first_line(function),
        "kinds": list(facts.kinds),
        "reads_retain": facts.reads_retain,
        "reinitializes": facts.reinitializes,
        "reads_reference": facts.reads_reference,
        "source": facts.source,
    }


def _first_line(thing: Any) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".")


HEADINGS = ("name", "what it is", "masks", "retain data", "source")


def algorithm_cells(name: str, entry: Entry) -> tuple[str, ...]:
    """Return the texts that stand under :data:`HEADINGS` for an algorithm."""
    masks, retain = ("yes" if fact else "no" for fact in ("segmentation" in entry["kinds"], entry["reads_retain"]))
    return name, entry["about"], masks, retain, entry["source"] or "no single one"


def algorithms_as_markdown() -> str:
    """Return the table of all algorithms, with links to their papers, as it stands in the documentation."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for name, entry in inventory()["algorithms"].items():
        _, about, masks, retain, source = algorithm_cells(name, entry)
        linked = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)
        lines.append((f"`{name}`", about.replace("``", "`").replace("|", r"\|"), masks, retain, linked))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
