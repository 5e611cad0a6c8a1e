"""A revision scored again, from its request: does the checkpoint still do what the receipt says?"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from unlearn_kit.deployed import deployed
from unlearn_kit.evidence import Difference, Verification, read_receipt
from unlearn_kit.evidence.words import SCORES
from unlearn_kit.hashing import hash_config, sample_hashes
from unlearn_kit.metrics import evaluate

from ..setup.methods import forms_of
from .request import RevisionRequest, read_request
from .work import REQUEST, Prepared, prepare

# Another processor rounds otherwise, and a sample on the boundary may then fall to the other side.
TOLERANCE = 1e-3


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
    """Return whether the checkpoint scores as its receipt says, on the data that its request selects.

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
    prepared = prepare(request)
    found = []
    digest, was = hash_config(sorted(sample_hashes(prepared.task.forget))), values["request"]["digest"]
    if digest != was:
        found.append(Difference("what the request selects", f"SHA-256 {was} over its samples", digest))
    checkpoint = folder / values["deployed"]["checkpoint"]
    if not checkpoint.exists():
        return Verification((), (f"the scores: there is no {checkpoint.name}",), tuple(found))
    now = evaluate(_revised(request, prepared, checkpoint), prepared.task, seed=request.seed)
    told = values["metrics"]["after"]
    for name, words in SCORES.items():
        score, wanted = getattr(now, name), told[name]
        if (score is None) != (wanted is None) or (score is not None and abs(score - wanted) > TOLERANCE):
            found.append(Difference(words, _text(wanted), _text(score)))
    return Verification((f"{len(SCORES)} scores of {checkpoint.name}",), (), tuple(found))


def _revised(request: RevisionRequest, prepared: Prepared, checkpoint: Path) -> nn.Module:
    if prepared.serving.weights is not None:
        return prepared.serving.with_weights(checkpoint)
    own = request.model
    return deployed(
        f"hf:{checkpoint}", None, prepared.bundle, mean=own.mean, std=own.std, normalize=own.normalize
    ).model


def _text(score: float | None) -> str:
    return "n/a" if score is None else f"{score:.4f}"
