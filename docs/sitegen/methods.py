"""A page for each method, from what it declares of itself."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping

import algorithms
from benchmarks.setup.inventory import algorithms_as_markdown
from unlearn_kit.engine import Training, facts_of

from .markdown import linked, table

INDEX = "reference/methods"
# What a switch undoes: methods whose result is an adapter beside frozen weights.
REVERSIBLE = ("erase_to_retain",)
PLAIN = {"batch_size": None, "lr": None}  # settings that are told even where they are as in `Training`
YES = {True: "yes", False: "no"}


def pages() -> dict[str, str]:
    """Return the text of every page by its path: the index, and one a method."""
    names = sorted(algorithms.__all__)
    listed = "\n".join(f"methods/{name}" for name in names)
    rows = algorithms_as_markdown()
    for name in names:
        rows = rows.replace(f"| `{name}` |", f"| [`{name}`](methods/{name}.md) |")
    index = (
        "# Methods\n\nAll are called alike, `algorithm(model, task, *, seed=0, device=None, ...)`, and classify; those "
        "with masks also segment. `f0` is the original, `x, y` are samples to forget, `x_r, y_r` samples to keep. "
        "`retrain` makes the reference. [Which method](../which-method.md) says where to begin.\n\n"
        f"{rows}\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )
    return {INDEX: index, **{f"{INDEX}/{name}": page(name) for name in names}}


def page(name: str) -> str:
    """Return the page of one method: its formula, its facts, how it trains, and its documentation."""
    method = getattr(algorithms, name)
    facts = facts_of(method)
    formula = (inspect.getdoc(method) or "").partition("\n")[0].replace("``", "`")
    rows = [
        ("Published in", linked(facts.source) or "no single source"),
        ("Kinds of task", ", ".join(facts.kinds)),
        ("Needs the data to keep", YES[facts.reads_retain]),
        ("Gives weights anew", YES[facts.reinitializes]),
        ("Reversible", YES[name in REVERSIBLE]),
    ]
    training = f"## How it trains\n\n{_settings(facts.training)}\n" if facts.training else ""
    return (
        f"# {name}\n\n{formula}\n\n{table(('fact', 'value'), rows)}\n{training}"
        f"## Options\n\n```{{eval-rst}}\n.. autofunction:: algorithms.{name}\n```\n"
    )


def _settings(declared: Mapping[str, Training]) -> str:
    """Return the settings that a method declares otherwise than every method has them: a column a preset."""
    told = [
        field.name
        for field in dataclasses.fields(Training)
        if any(getattr(one, field.name) != PLAIN.get(field.name, field.default) for one in declared.values())
    ]
    rows = [(f"`{name}`", *(f"`{getattr(one, name)!r}`" for one in declared.values())) for name in told]
    return table(("setting", *(f"`{preset}`" if preset else "default" for preset in declared)), rows)
