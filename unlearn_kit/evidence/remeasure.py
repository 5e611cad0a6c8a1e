"""A revision measured again: are its models, scores, verdicts and lists those that its receipt tells?

A receipt that was edited, and sealed anew with all its hashes, is found by nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ..arguments import checked
from ..hashing import hash_model
from ..metrics import evaluate
from ..tasks import UnlearnTask
from .inventory import data_summary, inventory
from .measure import Evidence, known_groups, measure
from .receipt import not_measured
from .thresholds import DEFAULT, Thresholds
from .verify import Difference
from .words import SCORES

# Another processor rounds otherwise, and a sample on the boundary may then fall to the other side.
TOLERANCE = 1e-3
# Their audits train, which rounding sends apart: their figures are those of one processor, their verdicts are not.
TRAINED = {"relearning": "not relearned faster", "probe": "not read off the features"}


@checked
def remeasure(
    values: Mapping[str, Any],
    before: nn.Module,
    after: nn.Module,
    task: UnlearnTask,
    *,
    reference: nn.Module | None = None,
    seed: int = 0,
    groups: Mapping[str, Sequence[Any]] | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Thresholds = DEFAULT,
) -> list[Difference]:
    """Return what a receipt tells otherwise than its models and data do.

    Args:
        values: Of the receipt.
        before: The original.
        after: The revised model, as its checkpoint gives it.
        task: What was to be forgotten.
        reference: The model retrained without the data, where the receipt has one and it is there.
        seed: Of the evaluation and the audits.
        groups: As for :func:`.measure.measure`.
        class_names: Likewise.
        thresholds: Likewise.
    """
    models = {"before": before, "after": after} | ({} if reference is None else {"reference": reference})
    found = [
        Difference(f"model {who}", f"SHA-256 {values['models'][who]}", digest)
        for who, model in models.items()
        if (digest := hash_model(model)) != values["models"][who]
    ]
    theirs = None if reference is None else evaluate(reference, task, seed=seed)
    scores = {who: evaluate(model, task, theirs, seed=seed) for who, model in models.items()}
    for who, own in scores.items():
        told, now = values["metrics"][who], own.as_dict()
        for name, what in SCORES.items():
            found += differing(f"{what}, {who}", told[name], now[name])
        found += differing(f"scores of findings, {who}", told.get("findings"), now.get("findings"))
    lists = inventory(task)
    found += differing(
        "data", values["data"], data_summary(task, lists, known_groups(task) if groups is None else groups)
    )
    request = {"rules": [task.rule], "samples": len(lists["forget"])}
    found += differing("request", {name: values["request"][name] for name in request}, request)
    if values["settings"] and not any(one.what.startswith("model ") for one in found):
        spent = {one["name"] for one in values["verdicts"] if one["words"].startswith("the budget of")}
        audits = [name for name in values["settings"]["audits"] if TRAINED.get(name, name) not in spent]
        given: dict[str, Any] = {"groups": groups, "class_names": class_names, "thresholds": thresholds}
        evidence = measure(before, after, task, audits=audits, seed=seed, **given)
        found += _verdicts(values, evidence, spent)
        # Of a reference that is not there any more it is only known that there was one.
        ideal = scores["after"] if theirs is None and values["metrics"]["reference"] is not None else theirs
        known = {"before": None, "after": scores["after"], "reference": ideal}
        missing = [line for line in not_measured(known, evidence) if not spent]
        for what, lines, due in (
            ("findings", values["findings"], evidence.findings),
            ("what is not covered", values["not_measured"], missing),
        ):
            words = {_masked(line) for line in lines}
            found += [Difference(what, "no word of it", line) for line in due if _masked(line) not in words]
    return found


def _verdicts(values: Mapping[str, Any], evidence: Evidence, spent: set[str]) -> Iterator[Difference]:
    now = evidence.as_dict()
    yield from differing("threshold", values["settings"]["thresholds"], now["settings"]["thresholds"])
    for what, key in (("verdict", "verdicts"), ("class", "classes"), ("group", "groups")):
        told, new = ({one["name"]: one for one in rows} for rows in (values[key], now[key]))
        for name in {**told, **new}:
            if name in spent:
                continue
            pair = [rows.get(name) for rows in (told, new)]
            if what == "verdict" and name in TRAINED.values():
                pair = [None if one is None else {"value": one["value"]} for one in pair]
            yield from differing(f"{what} {name}", *pair)
    if not TRAINED.keys() & {*evidence.settings["audits"]} and not spent:
        told = {name: values["figures"].get(name) for name in now["figures"]}
        yield from differing("figure", told, now["figures"])


def differing(what: str, told: Any, now: Any) -> list[Difference]:
    """Return where two plain values differ, each place by its name: numbers but for rounding, texts but for numbers.

    Args:
        what: The name of the whole.
        told: As the receipt has it.
        now: As it was found.
    """
    if isinstance(told, Mapping) and isinstance(now, Mapping):
        named = ((f"{what}, {key}", told.get(key), now.get(key)) for key in {**told, **now})
        return [one for each in named for one in differing(*each)]
    if isinstance(told, (list, tuple)) and isinstance(now, (list, tuple)) and len(told) == len(now):
        return [one for own, other in zip(told, now, strict=True) for one in differing(what, own, other)]
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (told, now))
    if abs(told - now) <= TOLERANCE if numbers else _masked(told) == _masked(now):
        return []
    return [Difference(what, _text(told), _text(now))]


def _masked(value: Any) -> Any:
    """Return a text without the decimals in it, which are rounded; anything else as it is."""
    return re.sub(r"\d*\.\d+|\d+%", "#", value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    return "n/a" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
