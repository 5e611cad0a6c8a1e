"""What the lines of a ledger tell, worked out again from the files that they name.

Who edits a line and makes every hash after it fit is found so, as long as what lies beside it stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .ledger_chain import Line
from .ledger_relapse import Standing, relapse_words, standing
from .remeasure import differing

if TYPE_CHECKING:
    from .ledger import Ledger


def contradictions(ledger: Ledger) -> Iterator[str]:
    """Yield where a line tells otherwise than the receipt, samples and scores that it names."""
    requests, active = ledger.requests(), set[str]()
    earlier: list[Line] = []
    for line in ledger.lines():
        if "serves" not in line.values:
            continue
        yield from _of_what_serves(line, [one.values["serves"] for one in earlier])
        earlier.append(line)
        if line.values["kind"] == "opening":
            continue
        if line.values["kind"] == "request":
            yield from _of_receipt(ledger, line, earlier[-2].values["serves"])
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


def _of_what_serves(line: Line, earlier: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield where the model that serves after a line does not follow from those that served before it."""
    serves, kind = line.values["serves"], line.values["kind"]
    rows, base, was = serves["adapters"], serves["base"], earlier[-1] if earlier else None
    if kind == "withdrawal" and was is not None:
        left = [row for row in was["adapters"] if row["request"] != line.values["name"]]
        possible = [(one["base"], one["adapters"]) for one in earlier] + [(was["base"], left)]
        if (base, rows) not in possible:
            yield f"line {line.number}: expected a model that served before, or one adapter less, but got another"
    elif not rows:
        if base != _weights(serves):
            yield f"line {line.number}: expected base to be what serves, since it has no adapters, but got another"
    elif was is None or rows[-1]["request"] != line.values["name"]:
        yield f"line {line.number}: expected the last adapter to be its own, but got {rows[-1]['request']!r}"
    elif (base, rows[:-1]) not in ((_weights(was), []), (was["base"], was["adapters"])):
        yield f"line {line.number}: expected base and adapters to be those of the model before it, but got others"


def _weights(serves: Mapping[str, Any]) -> dict[str, Any]:
    return {name: serves[name] for name in ("checkpoint", "sha256", "model")}


def _of_receipt(ledger: Ledger, line: Line, was: Mapping[str, Any]) -> Iterator[str]:
    path = ledger.check_file(ledger.path(line.values["receipt"]["file"]))
    paper: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    told = {name: line.values.get(name) for name in ("method", "kept")}
    if paper["models"]["before"] not in (was["model"], was["base"]["model"]):
        yield f"line {line.number}: expected the receipt to start from the model that served, but got another"
    measured = paper["models"]["after"] == line.values["serves"]["model"]
    now = {
        "method": paper["method"]["name"],
        "kept": paper["metrics"]["after"]["retain_test"] if measured else None,
    }
    if line.values.get("kept_out") is not None:  # what was made elsewhere may have been told in other words
        told["rule"], now["rule"] = line.values["rule"], "; then ".join(paper["request"]["rules"])
    for one in differing(f"line {line.number}", now, told):
        yield f"{one}, by the receipt that it names"
