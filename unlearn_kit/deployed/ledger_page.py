"""A ledger on one page, for people: what serves, what was asked, and how every request stood after every step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..evidence.ledger import Ledger
from ..evidence.ledger_chain import Line
from ..files import write_text
from .page import TEMPLATE as REVISION

TEMPLATE = Path(__file__).parent / "ledger.html"


def write_page(ledger: Ledger) -> Path:
    """Write ``index.html`` into the ledger's folder, which needs nothing else: no script, no network; return its path.

    Raises:
        ValueError: When the chain is broken.
    """
    return write_text(ledger_page(ledger), ledger.folder / "index.html")


def ledger_page(ledger: Ledger) -> str:
    """Return the page as HTML.

    Raises:
        ValueError: When the chain is broken.
    """
    from jinja2 import Environment, StrictUndefined

    lines = ledger.lines()
    steps = [line for line in lines if line.values["kind"] != "opening"]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    (style,) = re.findall(r"<style>\n(.*?)</style>", REVISION.read_text(encoding="utf-8"), flags=re.DOTALL)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        style=style,
        name=ledger.folder.resolve().name,
        opening=lines[0] if lines else None,
        steps=[{"line": line, "heading": heading(line), "kept_out": _kept_out(line)} for line in steps],
        rows=matrix(ledger),
        kept=[figure(line.values.get("kept")) for line in steps],
        serves=ledger.serves(),
        last=lines[-1] if lines else None,
        active=ledger.active(),
        withdrawn={name: line.number for name, line in ledger.withdrawn().items()},
        notes=ledger.chain.notes,
    )


def heading(line: Line) -> str:
    """Return what a step is called: the request that was served, or which one was withdrawn."""
    name = str(line.values["name"])
    return name if line.values["kind"] == "request" else f"{name} withdrawn"


def _kept_out(line: Line) -> str:
    counts = line.values.get("kept_out") or {}
    return ", ".join(f"{one['retained']} samples of {name}" for name, one in counts.items() if one["retained"])


def matrix(ledger: Ledger) -> list[dict[str, Any]]:
    """Return requests by steps: a row a request, a cell a step, which holds a :class:`.ledger_relapse.Standing`.

    A cell is None before the request was served and after it was withdrawn.
    """
    steps = [line for line in ledger.lines() if line.values["kind"] != "opening"]
    standings, withdrawn = ledger.standings(), ledger.withdrawn()
    return [
        {
            "name": name,
            "rule": line.values["rule"],
            "own": line.number,
            "withdrawn": withdrawn[name].number if name in withdrawn else None,
            "cells": [(step.number, standings[name].get(step.number)) for step in steps],
        }
        for name, line in ledger.requests().items()
    ]


def figure(value: float | None) -> str:
    """Return a figure as it is shown; None is n/a."""
    return "n/a" if value is None else f"{value:.2f}"
