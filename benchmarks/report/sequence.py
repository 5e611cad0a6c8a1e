"""Requests served one after another: how each stood after every step, and which of them came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_kit.judging import margin

from ..analysis.fronts import mean
from ..suites.records import Record

NAMES = ("forget", "membership")


@dataclass(frozen=True)
class StepCell:
    """How a request stood after a step, over the runs of a row.

    Attributes:
        forget: The score on its training data to forget, the mean over runs.
        membership: The membership AUC, likewise.
        relapses: In how many runs it had come back by then.
        runs: Of how many.
    """

    forget: float | None
    membership: float | None
    relapses: int
    runs: int


def standings(records: list[Record]) -> dict[str, list[StepCell | None]]:
    """Return requests by steps over the runs of one row: None before a request was served; empty for a single request.

    A request has a name of its own also where two are said alike: the place is put behind.
    """
    served = [record.requests for record in records if record.requests]
    if not served:
        return {}
    rules = [str(row["after"]) for row in served[0]]
    names = [rule if rules.count(rule) == 1 else f"{rule} ({place + 1})" for place, rule in enumerate(rules)]
    found: dict[str, list[StepCell | None]] = {}
    for place, name in enumerate(names):
        cells: list[StepCell | None] = [None] * place
        for step in range(place, len(rules)):
            now = [requests[step]["scores"][place] for requests in served]
            then = [requests[place]["scores"][place] for requests in served]
            relapses = sum(relapsed(before, after) for before, after in zip(then, now, strict=True))
            forget, membership = (mean(scores[key] for scores in now) for key in NAMES)
            cells.append(StepCell(forget, membership, relapses, len(served)))
        found[name] = cells
    return found


def relapsed(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the score on forget data rose since the request was served by more than so few samples may."""
    before, after, count = then["forget"], now["forget"], now.get("samples")
    if before is None or after is None or not count:
        return False
    return bool(after - before > margin((before + after) / 2, count))


def relapse_notes(records: list[Record]) -> list[str]:
    """Return in words which requests came back after any later step."""
    said = []
    for name, cells in standings(records).items():
        worst = max((cell.relapses for cell in cells if cell is not None), default=0)
        runs = max((cell.runs for cell in cells if cell is not None), default=0)
        if worst:
            said.append(f"relapse of {name}" + ("" if worst == runs else f" in {worst} of {runs} runs"))
    return said
