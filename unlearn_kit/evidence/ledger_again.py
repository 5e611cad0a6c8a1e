"""What the lines of a ledger tell, worked out again from the files that they name.

Who edits a line and makes every hash after it fit is found so, as long as what lies beside it stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .ledger_chain import Line
from .ledger_relapse import Standing, relapse_words, standing
from .remeasure import differing

if TYPE_CHECKING:
    from .ledger import Ledger


def contradictions(ledger: Ledger) -> Iterator[str]:
    """Yield where a line tells otherwise than the receipt, samples and scores that it names."""
    requests, active = ledger.requests(), set[str]()
    for line in ledger.lines():
        if line.values["kind"] == "opening" or "serves" not in line.values:
            continue
        if line.values["kind"] == "request":
            yield from _of_receipt(ledger, line)
            kept_out = line.values.get("kept_out")
            if kept_out is not None and {*kept_out} != active:
                yield f"line {line.number}: expected what was kept out of {sorted(active)}, but got {sorted(kept_out)}"
        active ^= {line.values["name"]}  # what was asked comes into force, what is withdrawn leaves it
        told = line.values.get("standings", {})
        if {*told} != active:
            yield f"line {line.number}: expected the standings of {sorted(active)}, but got {sorted(told)}"
            continue
        now: dict[str, Standing] = {}
        words = []
        scores = ledger.scores(line)
        for name in told:
            own = requests[name]
            then = None if own.number == line.number else ledger.scores(own)[name]
            now[name] = standing(ledger.samples(name), scores[name], then)
            if then is not None:
                first = standing(ledger.samples(name), then, None)
                words.append(relapse_words(name, first, now[name]))
        plain = json.loads(json.dumps({name: one.as_dict() for name, one in now.items()}))
        for one in differing(f"line {line.number}: standing", plain, told):
            yield f"{one}, by the scores that it names"
        relapses = [name for name, one in now.items() if one.relapse]
        if relapses != line.values.get("relapses"):
            yield f"line {line.number}: expected the relapses {relapses}, but got {line.values.get('relapses')}"
        missing = [text for text in words if text and text not in line.values.get("findings", [])]
        yield from (f"line {line.number}: expected the finding {text!r}, but got none" for text in missing)


def _of_receipt(ledger: Ledger, line: Line) -> Iterator[str]:
    path = ledger.check_file(ledger.path(line.values["receipt"]["file"]))
    paper: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    told = {name: line.values.get(name) for name in ("method", "kept")}
    measured = paper["models"]["after"] == line.values["serves"]["model"]
    now = {
        "method": paper["method"]["name"],
        "kept": paper["metrics"]["after"]["retain_test"] if measured else None,
    }
    if line.values.get("kept_out") is not None:  # what was made elsewhere may have been told in other words
        told["rule"], now["rule"] = line.values["rule"], "; then ".join(paper["request"]["rules"])
    for one in differing(f"line {line.number}", now, told):
        yield f"{one}, by the receipt that it names"
