"""What a ledger's line says of a request that was served: its samples, every request's scores, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..evidence.folder import changed_files, read_receipt
from ..evidence.ledger import Ledger, ServedModel
from ..evidence.ledger_chain import Line
from ..evidence.ledger_relapse import relapse_words, score_samples, standing
from ..evidence.ledger_samples import LeftOut, RequestSamples, samples_of
from ..hashing import hash_file
from ..tasks import DATA, UnlearnTask
from .joining import with_checkpoint
from .serving import Deployed


def in_force(ledger: Ledger) -> dict[str, RequestSamples]:
    """Return the samples of every request in force, by its name."""
    return {name: ledger.samples(name) for name in ledger.active()}


def record(
    ledger: Ledger,
    serving: Deployed,
    task: UnlearnTask,
    name: str,
    folder: Path,
    served: ServedModel,
    counts: Mapping[str, LeftOut],
    kept_out: bool,
    seed: int,
    data: Sequence[Any],
    request: Mapping[str, Any] | None,
) -> Line:
    """Write what is known of a request that was served, then its line."""
    own = samples_of(task, seed=seed)
    paper = ledger.write_beside(own.as_dict(), "samples", f"{name}.json")
    parts = [*(getattr(task, part) for part in DATA), *data]
    beside = scored(ledger, serving, served, {**in_force(ledger), name: own}, parts)
    words = [] if kept_out else _retained_words(counts)
    paper_of = checked_receipt(folder)
    # Of a model that was joined to others afterwards, its receipt says nothing.
    measured = paper_of["models"]["after"] == served.model
    values = {
        "name": name,
        "rule": task.rule,
        "method": paper_of["method"]["name"],
        "kept": paper_of["metrics"]["after"]["retain_test"] if measured else None,
        "asked": None if request is None else dict(request),
        "folder": ledger.name_of(folder),
        "receipt": {"file": ledger.name_of(folder / "receipt.json"), "sha256": hash_file(folder / "receipt.json")},
        "samples": paper,
        "kept_out": {other: asdict(count) for other, count in counts.items()} if kept_out else None,
        "serves": ledger.words_of(served),
        **beside,
        "findings": [*words, *_missing_words(counts), *beside["findings"]],
    }
    return ledger.write("request", values)


def scored(
    ledger: Ledger,
    serving: Deployed,
    served: ServedModel,
    requests: Mapping[str, RequestSamples],
    data: Sequence[Any],
) -> dict[str, Any]:
    """Score every request in force again; return what the line says of it."""
    model = with_checkpoint(serving, served.checkpoint).model
    scores = score_samples(model, data, requests)
    lines, known = ledger.requests(), ledger.standings()
    standings, findings = {}, []
    for name, samples in requests.items():
        line = lines.get(name)
        then = None if line is None else ledger.scores(line)[name]
        now = standings[name] = standing(samples, scores[name], then)
        if line is not None:
            findings.append(relapse_words(name, known[name][line.number], now))
    number = len(ledger.lines()) + 1
    paper = ledger.write_beside({name: row.as_dict() for name, row in scores.items()}, "scores", f"{number:04}.json")
    told = {name: row.as_dict() for name, row in standings.items()}
    relapses = [name for name, row in standings.items() if row.relapse]
    return {"scores": paper, "standings": told, "relapses": relapses, "findings": [text for text in findings if text]}


def left_out_words(counts: Mapping[str, LeftOut]) -> list[str]:
    """Return in words what was kept out of the data to retain."""
    said = [f"{one.retained} samples of {name!r}" for name, one in counts.items() if one.retained]
    return [f"kept out of the data to retain, as earlier requests forget them: {', '.join(said)}"] if said else []


def _retained_words(counts: Mapping[str, LeftOut]) -> list[str]:
    said = [f"{one.retained} samples of {name!r}" for name, one in counts.items() if one.retained]
    return [f"trained on what earlier requests forget: {', '.join(said)} are in its data to retain"] if said else []


def _missing_words(counts: Mapping[str, LeftOut]) -> list[str]:
    return [
        f"of {name!r} {one.found} of {one.of} samples are in these data: the others are gone, or were stored "
        "anew, and could not be kept out"
        for name, one in counts.items()
        if one.found < one.of
    ]


def checked_receipt(folder: Path) -> dict[str, Any]:
    """Return the receipt of a revision whose files are as it says.

    Raises:
        ValueError: When there is none, or files were changed.
    """
    try:
        values = read_receipt(folder)
        wrong, _ = changed_files(folder, values), (values["deployed"]["checkpoint"], values["models"]["before"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected folder to hold a revision with its receipt, but got {str(folder)!r}") from error
    if wrong:
        raise ValueError(f"expected the files of {str(folder)!r} to be as its receipt says, but {wrong} differ")
    return values
