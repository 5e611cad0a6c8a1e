"""A receipt for one revision of one model: what was asked, done and measured, and what was not. For auditors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from ..arguments import checked
from ..files import make_folder, write_json, write_text
from ..hashing import hash_config, hash_model, sample_hashes
from ..judging import over_forgets
from ..metrics import Evaluation, evaluate
from ..results import UnlearnResult
from ..tasks import UnlearnTask
from .software import versions

SCORES = {
    "forget": "training data to forget",
    "retain": "training data to keep",
    "forget_test": "held-out data like the forgotten",
    "retain_test": "held-out data like the kept",
    "membership": "membership AUC by loss",
}
# What one evaluation cannot say, whoever asks.
NEVER = (
    "attacks that train shadow models, or that see the weights rather than the outputs",
    "whether the forgotten data could be learned again faster than by a model that never saw them",
    "what hidden layers still encode of them, and what weight quantisation brings back",
    "copies and near duplicates of the forgotten samples among the data that were kept",
    "other seeds than the ones named here",
)
LIMIT = "A receipt tells what was done and measured. It does not prove that nothing of the data is left in the model."


@dataclass(frozen=True)
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
        """Return one page for people."""
        v = self.values
        request, models, metrics = v["request"], v["models"], v["metrics"]
        options = ", ".join(f"{key}={value}" for key, value in v["method"]["options"].items() if value is not None)
        # More digits than three would claim a precision that no test set of some thousand samples has.
        lines = [
            "# Unlearning receipt",
            "",
            f"Made {v['made']}. {LIMIT}",
            "",
            "## What was asked",
            "",
            f"Forget **{'; then '.join(request['rules'])}**: {request['samples']:,} training samples. "
            f"SHA-256 over the sorted hashes of the samples: `{request['digest']}`.",
            "",
            "## What was done",
            "",
            f"- Method: `{v['method']['name']}` ({options or 'no options'})",
            f"- Status: {v['status']}" + ("" if v["reason"] is None else f": {v['reason']}"),
            f"- Time: {v['method']['seconds']:.1f} s; seeds: {_pairs(v['seeds'])}",
            f"- Model before: `{models['before']}`",
            f"- Model after: `{models['after'] or 'none'}`",
            f"- Reference, retrained without the data: `{models['reference'] or 'none'}`",
            f"- Software: {_pairs(v['software'])}",
            "",
            "## What was measured",
            "",
            "| measured on | before | after | reference (the ideal) |",
            "|---|---|---|---|",
        ]
        for name, words in SCORES.items():
            cells = (_cell(metrics[who], name) for who in ("before", "after", "reference"))
            lines.append(f"| {words} | {' | '.join(cells)} |")
        lines += ["", *(f"- {finding}" for finding in v["findings"])]
        lines += ["", "## What was not measured", "", *(f"- {text}" for text in v["not_measured"]), ""]
        return "\n".join(lines)


@checked
def receipt(
    task: UnlearnTask,
    before: nn.Module,
    result: UnlearnResult,
    *,
    reference: nn.Module | None = None,
    seed: int = 0,
) -> Receipt:
    """Return the receipt of a revision: every model is scored here, on the task's own splits.

    Args:
        task: What was to be forgotten.
        before: The model as it was given to the method.
        result: What the method returned.
        reference: The model retrained without the data; without it, the receipt says that there is no ideal to compare
            with.
        seed: Of the evaluation.

    Raises:
        ValueError: On models with outputs that are not finite.
    """
    hashes = sample_hashes(task.forget)
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
    """
    missing = [who for who in ("before", "after", "reference") if who not in evaluations]
    if missing:
        raise ValueError(f"expected evaluations of 'before', 'after' and 'reference', but got none of {missing}")
    plain = {
        who: None if found is None else replace(found, reference=None).as_dict() for who, found in evaluations.items()
    }
    request: dict[str, Any] = {"rules": list(rules), "samples": count, "digest": digest}
    request |= {"sample_hashes": hashes} if hashes is not None else {"sample_hashes_file": f"samples/{digest}.json"}
    return Receipt(
        {
            "format": 1,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "request": request,
            "method": method,
            "status": status[0],
            "reason": status[1],
            "seeds": dict(seeds),
            "models": dict(models),
            "software": dict(software),
            "metrics": plain,
            "findings": _findings(evaluations),
            "not_measured": _not_measured(evaluations),
            "limit": LIMIT,
        }
    )


def _findings(evaluations: Mapping[str, Evaluation | None]) -> list[str]:
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


def _not_measured(evaluations: Mapping[str, Evaluation | None]) -> list[str]:
    missing = []
    if evaluations["after"] is None:
        missing.append("the revised model, since there is none")
    if evaluations["reference"] is None:
        missing.append("the distance to a model retrained without the data, since there is none with scores")
    after = evaluations["after"]
    for name, words in SCORES.items():
        if after is not None and getattr(after, name) is None:
            missing.append(f"{words}: there are no such data, or none to compare with")
    return [*missing, *NEVER]


def _cell(scores: Mapping[str, Any] | None, name: str) -> str:
    return "n/a" if scores is None or scores[name] is None else f"{scores[name]:.3f}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
