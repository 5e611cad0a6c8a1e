"""A receipt for one revision of one model: what was asked, done and measured, and what was not. For auditors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import nn

from ..arguments import checked
from ..display import counted
from ..files import make_folder, write_json, write_text
from ..files import plain as plain_values
from ..hashing import hash_code, hash_config, hash_model
from ..judging import over_forgets
from ..metrics import Evaluation, evaluate
from ..results import UnlearnResult
from ..tasks import UnlearnTask
from .inventory import data_summary, inventory
from .measure import Evidence, known_groups, measure
from .software import versions
from .thresholds import Thresholds
from .words import LIMIT, SCORES, WHO, markdown, score, verdicts_html, verdicts_text

# What takes audits to find out.
INSIDE = {
    "relearning": "whether the forgotten data could be learned again faster than by a model that never saw them",
    "probe": "what hidden layers still encode of them, and what weight quantisation brings back",
}
# What no receipt can say, whoever asks.
NEVER = (
    "attacks that train shadow models, or that see the weights rather than the outputs",
    "near duplicates of the forgotten samples among the data that were kept, beyond those that are named here",
    "backups, caches, older checkpoints and copies of the model elsewhere",
    "other seeds than the ones named here",
)


class Measuring(TypedDict, total=False):
    """What a receipt passes on to :func:`.measure.measure`, which explains it."""

    audits: Collection[str]
    budget: float | None
    class_names: Sequence[str] | None
    thresholds: Thresholds


@dataclass(frozen=True, repr=False)
class Receipt:
    """What was asked, done and measured, as plain data in ``values``; see :func:`receipt`."""

    values: dict[str, Any]

    def save(self, folder: str | Path, name: str = "receipt") -> tuple[Path, Path]:
        """Write ``NAME.json`` and ``NAME.md``, and return their paths.

        Raises:
            ValueError: When a file is where the folder should be.
            OSError: When the folder cannot be written to.
        """
        target = make_folder("folder", folder)
        return (
            write_json(self.values, target / f"{name}.json"),
            write_text(self.markdown(), target / f"{name}.md"),
        )

    def markdown(self) -> str:
        """Return it for people, under the headings of a change control plan."""
        return markdown(self.values)

    def __repr__(self) -> str:
        """Return the method, what was asked, and the verdicts."""
        return f"<Receipt {self.values['method']['name']}, {self._request()}: {verdicts_text(self.values)}>"

    def _repr_html_(self) -> str:
        """Return scores, verdicts and findings as a table for a notebook."""
        metrics = self.values["metrics"]
        rows = [("status", self.values["status"])]
        rows += [
            (words, ", ".join(f"{who} {score(metrics[who], name)}" for who in WHO if metrics[who] is not None) or "n/a")
            for name, words in SCORES.items()
        ]
        title = f"Receipt of {self.values['method']['name']}: {self._request()}"
        return verdicts_html(title, self.values, rows)

    def _request(self) -> str:
        request = self.values["request"]
        return f"{'; then '.join(request['rules'])} ({counted(request['samples'], 'sample')})"


@checked
def receipt(
    task: UnlearnTask,
    before: nn.Module,
    result: UnlearnResult,
    *,
    reference: nn.Module | None = None,
    seed: int = 0,
    asked: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
    lists: Mapping[str, Any] | None = None,
    **measuring: Unpack[Measuring],
) -> Receipt:
    """Return the receipt of a revision: both models are scored and judged here, on the task's own splits.

    Args:
        task: What was to be forgotten.
        before: The model as it was given to the method.
        result: What the method returned.
        reference: The model retrained without the data, where there is one; verdicts need none.
        seed: Of the evaluation and the audits.
        asked: Who asked, ticket, basis, date, or whatever else is to be known of the request; free text.
        groups: The group of every sample, such as its patient, as for :func:`.measure.measure`.
        earlier: The receipts that this one stands on, each with a name and a SHA-256.
        lists: The forget and the retain list, where they were made already, see :func:`.inventory.inventory`.
        **measuring: What :func:`.measure.measure` takes beside that: audits, budget, class_names, thresholds.

    Raises:
        ValueError: On models with outputs that are not finite, or as :func:`.measure.measure`.
        TypeError: On a request that is no text.
    """
    for key, text in (asked or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"expected asked to hold texts by name, but got {key!r}: {text!r}")
    lists = inventory(task) if lists is None else lists
    hashes = [row["sample"] for row in lists["forget"]]
    theirs = None if reference is None else evaluate(reference, task, seed=seed)
    evaluations = {
        "before": evaluate(before, task, theirs, seed=seed),
        "after": evaluate(result.model, task, theirs, seed=seed),
        "reference": theirs,
    }
    return assemble(
        rules=[task.rule],
        digest=hash_config(sorted(hashes)),
        count=len(hashes),
        hashes=hashes,
        method={"name": result.method, "options": result.config, "seconds": result.seconds},
        status=("ok", None),
        seeds={"unlearning": result.config.get("seed"), "evaluation": seed},
        models={
            "before": hash_model(before),
            "after": hash_model(result.model),
            "reference": None if reference is None else hash_model(reference),
        },
        software=versions(),
        evaluations=evaluations,
        evidence=measure(before, result.model, task, groups=groups, seed=seed, **measuring),
        asked=asked or {},
        data=data_summary(task, lists, known_groups(task) if groups is None else groups),
        earlier=earlier,
        names=measuring.get("class_names"),
    )


@checked
def assemble(
    *,
    rules: Sequence[str],
    digest: str,
    count: int,
    hashes: list[str] | None,
    method: dict[str, Any],
    status: tuple[str, str | None],
    seeds: Mapping[str, Any],
    models: Mapping[str, str | None],
    software: Mapping[str, str],
    evaluations: Mapping[str, Evaluation | None],
    evidence: Evidence | None = None,
    asked: Mapping[str, str] | None = None,
    data: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
    names: Sequence[str] | None = None,
) -> Receipt:
    """Return the receipt that says these things, and what follows from them.

    Args:
        rules: What was to be forgotten, in words.
        digest: SHA-256 over the sorted hashes of the samples.
        count: The number of these samples.
        hashes: SHA-256 of each sample; None where they lie in a file that is named after ``digest``.
        method: ``name``, ``options`` and ``seconds`` of the method.
        status: "ok", "n/a" or "diverged"; why, when not ok.
        seeds: Of all that was drawn.
        models: SHA-256 of the models "before", "after" and "reference", None where there is none.
        software: Versions.
        evaluations: Of the same three models.
        evidence: What may be claimed; None where nobody looked.
        asked: Who asked, and so on.
        data: Of the forget and the retain list.
        earlier: The receipts that this one stands on.
        names: Of the classes or findings.
    """
    missing = [key for key in ("name", "options", "seconds") if key not in method]
    if missing:
        raise ValueError(f"expected method to hold its name, options and seconds, but it lacks {missing}")
    missing = [who for who in ("before", "after", "reference") if who not in evaluations]
    if missing:
        raise ValueError(f"expected evaluations of 'before', 'after' and 'reference', but got none of {missing}")
    plain = {
        who: None if found is None else replace(found, reference=None).as_dict() for who, found in evaluations.items()
    }
    request: dict[str, Any] = {"rules": list(rules), "samples": count, "digest": digest}
    request |= {"sample_hashes": hashes} if hashes is not None else {"sample_hashes_file": f"samples/{digest}.json"}
    judged: dict[str, Any] = {"verdicts": [], "classes": [], "groups": [], "figures": {}, "settings": {}}
    if evidence is not None:
        judged |= {key: value for key, value in evidence.as_dict().items() if key != "findings"}
    unchanged = models["after"] is not None and models["before"] == models["after"]
    findings = [] if evidence is not None or not unchanged else ["unchanged weights: the revised model is the original"]
    findings += list(evidence.findings) if evidence is not None else []
    if data is not None and data["on_both_sides"]:
        findings.append(
            f"kept out: {data['on_both_sides']} of {count} samples to forget are in the retain list, too, by "
            "themselves or as copies: a method that trains on it is shown them"
        )
    return Receipt(
        {
            "format": 2,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "asked": dict(asked or {}),
            "request": request,
            "data": None if data is None else dict(data),
            "method": {**method, "digest": options_digest(method)},
            "status": status[0],
            "reason": status[1],
            "seeds": dict(seeds),
            "models": dict(models),
            "software": dict(software),
            "code": hash_code("unlearn_kit"),
            "earlier": [dict(one) for one in earlier],
            "names": None if names is None else [str(name) for name in names],
            "metrics": plain,
            **judged,
            "findings": [*findings, *_beside_reference(evaluations)],
            "not_measured": not_measured(evaluations, evidence),
            "limit": LIMIT,
        }
    )


def options_digest(method: Mapping[str, Any]) -> str:
    """Return the hash of a method's name and options, as the receipt names them."""
    return hash_config({"name": method["name"], "options": json.dumps(written(method["options"]), sort_keys=True)})


def written(value: Any) -> Any:
    """Return options as JSON holds them: what it does not know as text."""
    return json.loads(json.dumps(plain_values(value), default=str))


def _beside_reference(evaluations: Mapping[str, Evaluation | None]) -> list[str]:
    after, reference = evaluations["after"], evaluations["reference"]
    if after is None or reference is None:
        return []
    found = []
    if after.average_gap is not None:
        found.append(f"mean absolute difference to the reference over four scores: {after.average_gap:.3f} (ideal 0)")
    if over_forgets(after, reference):
        found.append(
            "over-forgetting: clearly worse on the forget data than a model that never saw them, which marks them"
        )
    return found


def not_measured(evaluations: Mapping[str, Evaluation | None], evidence: Evidence | None) -> list[str]:
    """Return what a receipt does not cover, in words."""
    missing = []
    after = evaluations["after"]
    if after is None:
        missing.append("the revised model, since there is none")
    if evaluations["reference"] is None:
        missing.append("the distance to a model retrained without the data, since there is none with scores")
    for name, words in SCORES.items():
        if after is not None and getattr(after, name) is None:
            missing.append(f"{words}: there are no such data, or none to compare with")
    if evidence is None:
        return [*missing, *INSIDE.values(), *NEVER]
    missing += [f"{one.name}: {one.words}" for one in evidence.verdicts if one.value == "not tested"]
    return [*missing, *NEVER]
