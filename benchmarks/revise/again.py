"""A revision scored again, from its request: does the checkpoint still do what the receipt says?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from unlearn_kit.deployed import deployed, preflight
from unlearn_kit.deployed.recording import left_out_words
from unlearn_kit.evidence import Difference, Ledger, Verification, read_receipt
from unlearn_kit.evidence.ledger_chain import FILE as LEDGER
from unlearn_kit.evidence.ledger_samples import keep_out
from unlearn_kit.evidence.remeasure import differing, remeasure
from unlearn_kit.evidence.words import SCORES
from unlearn_kit.hashing import hash_config, sample_hashes

from ..setup.methods import forms_of
from .reference import read_reference
from .request import RevisionRequest, read_request
from .work import REQUEST, Prepared, groups_of, prepare


def original_of(folder: Path) -> Path | None:
    """Return the file of the original's weights that a request names; None where it is not there any more."""
    if not (folder / REQUEST).is_file():
        return None
    try:
        weights = read_request(folder / REQUEST, {}).model.weights
    except ValueError:  # which is told as a difference
        return None
    return weights if weights is not None and weights.is_file() else None


def options_again(folder: Path) -> list[Difference]:
    """Return each option of the method that request and receipt tell otherwise, by its name."""
    if not (folder / REQUEST).is_file():
        return []
    try:
        chosen = read_request(folder / REQUEST, {}).chosen()
    except ValueError as error:
        return [Difference(REQUEST, "the request of this revision", str(error))]
    method = read_receipt(folder)["method"]
    found = []
    if chosen.name != method["name"]:
        found.append(Difference(f"method in {REQUEST}", method["name"], chosen.name))
    for name, value in chosen.options.items():
        told = method["options"].get(name, value)
        if told not in forms_of(chosen.name, name, value):
            found.append(Difference(f"option {name} in {REQUEST}", repr(told), repr(value)))
    return found


def score_again(folder: Path, *, data: Path | None = None, model: Path | None = None) -> Verification:
    """Return whether scores and verdicts are as the receipt says, on the data that its request selects.

    Args:
        folder: Of the revision.
        data: The folder of the images; None for where the request looked.
        model: The original's weights; None for where the request looked.

    Raises:
        ValueError: On a request that does not fit the data any more.
        CheckpointError: On weights that do not fit the model.
    """
    if not (folder / REQUEST).is_file():
        return Verification((), (f"the scores: there is no {REQUEST}, which says model and data",), ())
    request = read_request(folder / REQUEST, {"data.root": data, "model.weights": model})
    lacking = [
        str(path) for path in (request.data.root, request.model.weights) if path is not None and not path.exists()
    ]
    if lacking:
        return Verification((), (f"the scores: there is no {' and no '.join(lacking)}; say --data and --model",), ())
    values = read_receipt(folder)
    prepared = _as_in_its_ledger(folder, prepare(request))
    digest, was = hash_config(sorted(sample_hashes(prepared.task.forget))), values["request"]["digest"]
    if digest != was:
        other = Difference("what the request selects", f"SHA-256 {was} over its samples", digest)
        return Verification((), ("the scores: the data are others",), (other,))
    checkpoint = folder / values["deployed"]["checkpoint"]
    if not checkpoint.exists():
        return Verification((), (f"the scores: there is no {checkpoint.name}",), ())
    file = read_reference(request.reference)
    reference = prepared.serving.with_weights(file) if isinstance(file, Path) and file.exists() else None
    groups = groups_of(prepared)
    told = {
        "asked": (values["asked"], request.asked),
        "seeds": (values["seeds"], {"unlearning": request.seed, "evaluation": request.seed}),
        "budget": (values["settings"].get("budget"), request.budget),
    }
    if request.audits is not None:
        told["audits"] = (values["settings"].get("audits"), sorted(request.audits))
    found = [one for name, (was, now) in told.items() for one in differing(name, was, now)]
    found += remeasure(
        values,
        prepared.serving.model,
        _revised(request, prepared, checkpoint),
        prepared.task,
        reference=reference,
        seed=request.seed,
        groups=None if groups is None else groups(prepared.task),
        class_names=prepared.bundle.class_names,
    )
    warned = [*prepared.notes, *preflight(prepared.serving.model, prepared.task, seed=request.seed)]
    found += [
        Difference("warnings", "no word of it", line) for line in warned if line not in values["deployed"]["warnings"]
    ]
    words = f"{len(SCORES)} scores of {checkpoint.name} and of the original, verdicts, lists and warnings, made again"
    return Verification((words,), (), tuple(found))


def _as_in_its_ledger(folder: Path, prepared: Prepared) -> Prepared:
    """Return a request of a ledger without the data that requests before it forget, as it was run."""
    place = folder.resolve()
    if place.parent.name != "requests" or not (place.parents[1] / LEDGER).is_file():
        return prepared
    ledger = Ledger(place.parents[1])
    line = ledger.requests().get(place.name)
    if line is None or ledger.path(line.values["folder"]).resolve() != place:
        return prepared
    task, counts = keep_out(prepared.task, {name: ledger.samples(name) for name in line.values["kept_out"] or {}})
    return replace(prepared, task=task, notes=(*prepared.notes, *left_out_words(counts)))


def _revised(request: RevisionRequest, prepared: Prepared, checkpoint: Path) -> nn.Module:
    if prepared.serving.weights is not None:
        return prepared.serving.with_weights(checkpoint)
    own = request.model
    return deployed(
        f"hf:{checkpoint}", None, prepared.bundle, mean=own.mean, std=own.std, normalize=own.normalize
    ).model
