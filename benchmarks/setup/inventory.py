"""What the toolkit has: algorithms, data sets and models, each with a line about it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import algorithms
from unlearn_kit.data import LOADERS
from unlearn_kit.models import MODELS


def inventory() -> dict[str, dict[str, str]]:
    """Every algorithm, data set and model, with one line about it."""
    return {
        "algorithms": {name: first_line(getattr(algorithms, name)) for name in algorithms.__all__},
        "data": {
            name: first_line(importlib.import_module(f"unlearn_kit.data.{module}")) for name, module in LOADERS.items()
        },
        "models": {name: f"{entry.summary} ({entry.task})" for name, entry in MODELS.items()},
    }


def first_line(thing: Any) -> str:
    """The first line of a docstring, without its full stop and its marks of code."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".").replace("``", "")
