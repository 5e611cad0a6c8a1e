"""A page for each public module: its names, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import unlearn_kit

INDEX = "reference/python"


def modules() -> list[str]:
    """Return the public modules of the core, by name: those that say what is public (``__all__``)."""
    inside = [f"unlearn_kit.{found.name}" for found in pkgutil.iter_modules(unlearn_kit.__path__)]
    return ["unlearn_kit", *(name for name in sorted(inside) if hasattr(importlib.import_module(name), "__all__"))]


def pages() -> dict[str, str]:
    """Return the text of every page by its path: the index, and one a module."""
    names = modules()
    about = {name: (inspect.getdoc(importlib.import_module(name)) or "").partition("\n")[0] for name in names}
    rows = "".join(f"| [`{name}`](python/{name}.md) | {about[name].replace('``', '`')} |\n" for name in names)
    listed = "\n".join(f"python/{name}" for name in names)
    index = f"# Python\n\n| module | what it is |\n| --- | --- |\n{rows}\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    return {INDEX: index, **{f"{INDEX}/{name}": page(name) for name in names}}


def page(name: str) -> str:
    """Return the page of one module: every public name of it."""
    module = importlib.import_module(name)
    for public in module.__all__:
        getattr(module, public)  # what is imported when it is asked for is there from now on, for Sphinx too
    directive = f".. automodule:: {name}\n   :members:"
    return f"# {name}\n\n```{{eval-rst}}\n{directive}\n```\n"
