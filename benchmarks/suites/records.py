"""What is known of a finished node, as typed values, and their form on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from unlearn_kit.errors import check_choice, check_count, check_number
from unlearn_kit.judging import evaluation_of
from unlearn_kit.scores import SPLITS, Evaluation

from .mistakes import error_lines

FORMAT = 1
# Where data come from changes nothing of what they are, which their hash says.
PLACES = ("root", "download")
Kind = Literal["difficulty", "original", "reference", "result"]
Status = Literal["ok", "n/a", "diverged"]
# The fields of the file that results alone have, or trained models alone.
RESULT = ("class_names", "forget_samples", "options", "details", "learning_curve", "evaluations")
TRAINED = ("parameters",)
# The fields that results may have, and those of earlier versions have not.
OPTIONAL = ("forget_groups", "group_scores", "confusion", "forget_losses")


def is_trained(method: str) -> bool:
    """Return whether a result of that name is of a model that was trained: the original, or one of the references."""
    return method.partition(" ")[0] in ("original", "reference")


def _as_it_came(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Return a number that passes the check, without making it a float: it is written as it was read."""
    check(value)
    return value


Number = Annotated[float, WrapValidator(_as_it_came)]


def _scores(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scores when they are those of an evaluation."""
    for score in fields(Evaluation):
        if score.default is MISSING and score.name not in values:
            raise ValueError(f"expected the score {score.name!r}, but got none")
    for name in values:
        check_choice("every score", name, [score.name for score in fields(Evaluation)])
    try:
        found = _evaluation().validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError("expected scores of their types: " + error_lines("scores", error)) from None
    for name, held, wanted in (("sizes", found.sizes, SPLITS), ("dice", found.dice, (*SPLITS, "test"))):
        missing = [split for split in wanted if held is not None and split not in held]
        if missing:
            raise ValueError(f"expected {name} of {missing}, but got {held}")
    for split, count in found.sizes.items():
        check_count(f"sizes of {split!r}", count, low=1 if split == "forget" else 0)
    shares = {name: getattr(found, name) for name in (*SPLITS, "test", "membership", "average_gap")}
    shares |= {f"dice of {split!r}": share for split, share in (found.dice or {}).items()}
    for name, share in shares.items():
        if share is not None and math.isfinite(share):  # Any other number is shown as n/a.
            check_number(name, share, low=0, high=1)
    return values


def _groups(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the counts of groups when they are whole."""
    for name, kind in (("name", str), ("touched", int), ("groups", int)):
        if not isinstance(values.get(name), kind):
            raise ValueError(f"expected {name!r} to be {kind.__name__}, but got {values.get(name)!r}")
    return values


class _Part(BaseModel):
    """A mapping with keys that must be there; others are none of its business."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Data(_Part):
    name: str
    options: dict[str, Any]
    hash: str


class _Method(_Part):
    name: str
    options: dict[str, Any]
    text: str


class _Seeds(_Part):
    training: int
    unlearning: int | None
    evaluation: list[int]


class _ResultConfig(_Part):
    data: _Data
    forget: list[str]
    model: str
    training: dict[str, Any]
    device: str
    method: _Method
    seeds: _Seeds
    learning_curve: bool = False  # what says nothing did not ask for one


class _CurvePoint(_Part):
    request: Annotated[int, Field(ge=0)] = 0
    step: int
    forget: float | None
    retain: float | None
    held_out: float | None


class _ResultParts(_Part):
    """What tables and reports read of the plain mappings of a result."""

    config: _ResultConfig
    learning_curve: list[_CurvePoint]


@dataclass(frozen=True)
class SeedScores:
    """What a model scored under one evaluation seed.

    Attributes:
        seed: The evaluation seed.
        scores: ``Evaluation.as_dict()`` beside the reference, without the reference's own. None is "n/a".
    """

    seed: int
    scores: Annotated[Mapping[str, Any], AfterValidator(_scores)]

    @property
    def evaluation(self) -> Evaluation:
        """Return the scores as the value that the metrics gave."""
        return evaluation_of(self.scores)


@dataclass(frozen=True)
class GroupScore:
    """What a model scored on one group of the data, such as a patient or a scanner.

    Attributes:
        forgotten: How many of its training samples are forgotten.
        train: How many there are.
        train_score: The score on up to 200 of them.
        test: How many held-out samples it has.
        test_score: The score on up to 200 of these; None without any.
    """

    forgotten: int
    train: int
    train_score: Number | None
    test: int
    test_score: Number | None


@dataclass(frozen=True, kw_only=True)
class NodeCost:
    """What a node cost: all that two runs of it never share.

    Attributes:
        seconds: Wall time of the training or revision, in seconds; of doing nothing and of the reference's result that
            of their training.
        cpu_seconds: CPU time of the same, in seconds.
        request_seconds: Of a method, the wall time of each of its requests; else None.
        node_seconds: Wall time of the whole node, with loading and evaluation.
        peak_memory_bytes: Largest resident memory of the process.
        device_memory_bytes: Largest memory of the GPU that the node ran on; None on another device.
        finished: When it ended, in UTC.
    """

    seconds: Number
    cpu_seconds: Number
    request_seconds: Sequence[Number] | None = None
    node_seconds: Number
    peak_memory_bytes: Number | None
    device_memory_bytes: Number | None
    finished: str

    def as_dict(self) -> dict[str, Any]:
        """Return the cost as JSON holds it."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("request_seconds", None)}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a finished node.

    Attributes:
        key: The content key, by which the store knows the node.
        tensors: Whether the store holds tensors of it.
        kind: What was done. The methods "original" (do nothing) and "reference" are results as well, and so is
            "reference 2", and on, where a suite asks for several.
        name: A name for people.
        status: "ok", "n/a" (the method refuses the task) or "diverged".
        reason: Why, when not ok.
        config: Everything that was asked for: ``data`` (name, options, hash), ``forget`` (rules in order), ``model``,
            ``training``, ``device``; of results also ``method`` (name, options, text), ``seeds`` (training, unlearning,
            evaluation) and ``learning_curve``; ``method`` has a ``yardstick``, which is true, where the result is no
            method's and is never ranked: another reference, or what is given references.
        needs: Keys of the nodes it was made from, by role: original, reference, baseline (the reference's own result),
            nothing (the result of doing nothing), difficulty; "reference 2" and on where that is what it is of, or what
            a yardstick was given.
        versions: Versions of the software.
        threads: CPU threads.
        hashes: SHA-256 of the ``data`` and the ``model`` that came of it; of results also of the forgotten samples
            (``forget``), the model ``before``, and the ``reference``.
        class_names: Of results, the names of the classes, in order.
        forget_samples: Of results, the number of samples to forget.
        forget_groups: Of results, ``{"name", "touched", "groups"}``: of how many of how many patients, or what else the
            groups of the data are, a training sample is forgotten; None where no groups are known.
        group_scores: Of results, the scores of up to 20 groups by name, those of which something is forgotten first.
        confusion: Of results, ``{label: {predicted label: samples}}`` over held-out data like the forgotten, or where
            there are none over the forgotten data; None for other than class labels, and where many are forgotten.
        forget_losses: Of results, the loss of up to 100 forgotten samples, evenly spaced: the same ones for every
            result of a training.
        options: Of results, what the method made of its options.
        details: Of results, what else the method tells.
        history: The losses, at most 200 entries.
        parameters: Of trained models, their number of parameters.
        learning_curve: Of results, ``{"request", "step", "planned", "phase", "forget", "retain", "held_out"}`` during
            the revision, on a few hundred samples each, where the suite asks for it and the method can be watched.
        evaluations: Of results, the scores under each evaluation seed; empty where there is no model to judge.
        requests: Of results of a sequence, after each request the scores on it and on all earlier ones.
        cost: Time and memory.
    """

    key: str
    tensors: bool = False
    kind: Kind
    name: str
    status: Status
    reason: str | None
    config: Mapping[str, Any]
    needs: Mapping[str, str]
    versions: Mapping[str, str]
    threads: int
    hashes: Mapping[str, str | None]
    class_names: Sequence[str] = ()
    forget_samples: int | None = None
    forget_groups: Annotated[Mapping[str, Any], AfterValidator(_groups)] | None = None
    group_scores: Mapping[str, GroupScore] | None = None
    confusion: Mapping[str, Mapping[str, int]] | None = None
    forget_losses: Sequence[Number] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]]
    parameters: int | None = None
    learning_curve: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[SeedScores] = ()
    requests: Sequence[Mapping[str, Any]] = ()
    cost: NodeCost

    @classmethod
    def from_dict(cls, values: Any, source: str | None = None) -> Record:
        """Build the record that ``as_dict`` wrote; fields that it does not know are left aside.

        Args:
            values: What the file holds.
            source: What errors name, a file as a rule; the key unless given.

        Raises:
            ValueError: On another format, a missing field or a wrong type; names the source, the field, what was
                expected and what came.
        """
        held = values if isinstance(values, Mapping) else {"format": FORMAT}
        source = f"record {held.get('key')!r}" if source is None else source
        if held.get("format") != FORMAT:
            raise ValueError(f"{source}: format: expected {FORMAT}, but got {held.get('format')!r}")
        try:
            # As JSON, in which strict types take an array for a sequence and an object for a dataclass.
            record = _adapter().validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise ValueError(error_lines(source, error)) from None
        for name in RESULT if record.kind == "result" else TRAINED:
            if held.get(name) is None:
                raise ValueError(f"{source}: {name}: expected a value, but got none")
        if record.kind == "result":
            try:
                _ResultParts.model_validate({"config": record.config, "learning_curve": record.learning_curve})
            except ValidationError as error:
                raise ValueError(error_lines(source, error)) from None
        return record

    def as_dict(self) -> dict[str, Any]:
        """Return the record as its file holds it: without the fields of other kinds of nodes."""
        others = TRAINED if self.kind == "result" else RESULT
        # Only a model that was judged was judged after each request.
        requests = () if self.kind == "result" and self.status == "ok" else ("requests",)
        unknown = tuple(name for name in OPTIONAL if getattr(self, name) is None)
        values = {name: value for name, value in asdict(self).items() if name not in (*others, *requests, *unknown)}
        return {"format": FORMAT, **values, "cost": self.cost.as_dict()}


def without_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``data`` of a config without where they come from: what keys and tasks are made of."""
    return {**data, "options": {name: value for name, value in data["options"].items() if name not in PLACES}}


@lru_cache(maxsize=1)
def _evaluation() -> TypeAdapter[Evaluation]:
    """Return what checks scores, made once."""
    return TypeAdapter(Evaluation)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Record]:
    """Return what checks records, made once."""
    return TypeAdapter(Record)
