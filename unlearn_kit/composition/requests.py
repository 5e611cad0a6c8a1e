"""Several forget requests: served one after the other, or each by itself and then composed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from ..arguments import checked
from ..data.tensors import resolve, subset
from ..errors import check_choice
from ..metrics import Evaluation, evaluate
from ..modules import check_model
from ..results import UnlearnResult
from ..seeding import derive, standardized
from ..tasks import UnlearnTask
from .task_vectors import task_arithmetic

Algorithm = Callable[..., UnlearnResult]
Merge = Callable[[nn.Module, Sequence[nn.Module]], nn.Module]
Mode = Literal["sequence", "compose"]
KeptOut = Literal["earlier", "all", "none"]


@checked
def joint_task(requests: Sequence[UnlearnTask]) -> UnlearnTask:
    """Return all requests as one: the union of what they forget, and what all of them retain.

    Raises:
        ValueError: When they are not split from one training set and one held-out set, or leave nothing to retain; when
            some forget findings and others whole samples.
    """
    first, *others = _check_requests(requests)
    of_findings = {bool(request.forget_classes) for request in (first, *others) if request.kind == "multilabel"}
    if len(of_findings) > 1:
        raise ValueError(
            "expected requests that forget findings, or requests that forget whole samples, but got both: what is "
            "asked of the former is asked of one finding alone"
        )
    return _joined(requests)


def _joined(requests: Sequence[UnlearnTask]) -> UnlearnTask:
    first, *others = _check_requests(requests)
    forget, retain = _sets(requests, "forget"), _sets(requests, "retain")
    joined = replace(
        first,
        forget=_union(forget),
        retain=_common(retain),
        forget_test=_union(_sets(requests, "forget_test")),
        retain_test=_common(_sets(requests, "retain_test")),
        forget_validation=_union(_sets(requests, "forget_validation")),
        retain_validation=_common(_sets(requests, "retain_validation")),
        rule="; ".join(dict.fromkeys(request.rule for request in requests)),
        forget_classes=tuple(sorted({label for request in requests for label in request.forget_classes})),
        forget_indices=torch.tensor(sorted({i for _, chosen in forget for i in chosen}), dtype=torch.int64)
        if all(request.forget_indices is not None for request in (first, *others))
        else None,
    )
    if len(joined.retain) == 0:
        raise ValueError("expected requests to leave data to retain, but together they forget everything")
    return joined


@checked
def cumulative_tasks(requests: Sequence[UnlearnTask]) -> list[UnlearnTask]:
    """Return request k as it is served: its own data are forgotten, and no data of requests 0 to k are retained."""
    return [beside(request, requests[: k + 1]) for k, request in enumerate(requests)]


def beside(request: UnlearnTask, others: Sequence[UnlearnTask]) -> UnlearnTask:
    """Return ``request`` with nothing to retain that one of ``others`` (or itself) forgets, held-out data alike."""
    joined = _joined([request, *others])
    return replace(
        request,
        retain=joined.retain,
        retain_test=joined.retain_test,
        retain_validation=joined.retain_validation,
    )


@dataclass(frozen=True)
class RequestStep:
    """What is known after a request was served.

    Attributes:
        request: its place among the requests.
        scores: on the data of each request up to this one, in order; ``retain`` is what all requests leave.
        seconds: wall time of the revision, or of the merge too.
    """

    request: int
    scores: tuple[Evaluation, ...]
    seconds: float


@dataclass(frozen=True)
class RequestsResult:
    """The model after all requests, and how each fared.

    Attributes:
        model: the last one.
        before: the scores of the model that was given, on the data of every request.
        steps: one a request.
        runs: in mode "compose", the separate runs; empty in a sequence.
        mode: "sequence" or "compose".
    """

    model: nn.Module
    before: tuple[Evaluation, ...]
    steps: tuple[RequestStep, ...]
    runs: tuple[nn.Module, ...] = field(repr=False)
    mode: str


@checked
@standardized
def apply_requests(
    model: nn.Module,
    requests: Sequence[UnlearnTask],
    algorithm: Algorithm,
    *,
    mode: Mode = "sequence",
    merge: Merge = task_arithmetic,
    keep_out: KeptOut = "earlier",
    reference: nn.Module | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> RequestsResult:
    """Serve several requests and measure, after each, all that came before: on training and validation data.

    The held-out figures are of the validation data; ``metrics.evaluate`` judges the result on test data.

    Args:
        model: the original.
        requests: tasks split from one training set and one held-out set.
        algorithm: called as ``algorithm(model, task, seed=..., **options)``; such as one of ``algorithms``.
        mode: "sequence" revises the last result; "compose" revises the original for each request by itself, and merges
            the runs so far after each.
        merge: of "compose": called as ``merge(model, runs)``, the task vectors' sum by default.
        keep_out: whose forget data are no retain data of a run, beside its own: of "earlier" requests, of "all", or of
            "none": then the runs are what separate parties would have made who know nothing of one another.
        reference: retrained without the data of all requests: every score then has its gap to it.
        seed: of the runs (each derives its own) and of evaluation.
        options: of the algorithm.

    Raises:
        ValueError: On requests that do not fit together.
        TypeError: On an algorithm that returns no UnlearnResult; what the algorithm raises.
    """
    model = check_model(model)
    check_choice("mode", mode, ("sequence", "compose"))
    check_choice("keep_out", keep_out, ("earlier", "all", "none"))
    # What a revision reads, and what it is measured on here, chooses: the test data are left to the caller.
    views = [beside(request, requests).on_validation() for request in _check_requests(requests)]
    goals = [None if reference is None else evaluate(reference, view, seed=seed) for view in views]

    def score(judged: nn.Module, count: int) -> tuple[Evaluation, ...]:
        pairs = list(zip(views, goals, strict=True))[:count]
        return tuple(evaluate(judged, view, goal, seed=seed) for view, goal in pairs)

    before, current = score(model, len(views)), model
    steps, runs = [], []
    for k, request in enumerate(requests):
        others = {"earlier": requests[: k + 1], "all": requests, "none": [request]}[keep_out]
        started = time.perf_counter()
        result = algorithm(
            current if mode == "sequence" else model,
            beside(request, others),
            seed=derive(seed, "request", k),
            **(options or {}),
        )
        if not isinstance(result, UnlearnResult):
            raise TypeError(f"expected algorithm to return an UnlearnResult, but got {type(result).__name__}")
        if mode == "compose":
            runs.append(result.model)
        current = result.model if mode == "sequence" else merge(model, runs)
        seconds = time.perf_counter() - started
        steps.append(RequestStep(k, score(current, k + 1), seconds))
    return RequestsResult(current, before, tuple(steps), tuple(runs), mode)


def _check_requests(requests: Sequence[UnlearnTask]) -> Sequence[UnlearnTask]:
    if isinstance(requests, UnlearnTask) or not isinstance(requests, Sequence):
        raise TypeError(f"expected requests to be a sequence of UnlearnTask, but got {type(requests).__name__}")
    if not requests:
        raise ValueError("expected at least one request, but got none")
    for i, request in enumerate(requests):
        if not isinstance(request, UnlearnTask):
            raise TypeError(f"expected requests[{i}] to be an UnlearnTask, but got {type(request).__name__}")
    for i, request in enumerate(requests):
        for name in ("forget", "retain", "forget_test", "retain_test", "forget_validation", "retain_validation"):
            own = resolve(getattr(requests[0], name.replace("forget", "retain")))[0]
            if len(getattr(request, name)) and resolve(getattr(request, name))[0] is not own:
                raise ValueError(
                    f"expected all requests to be split from one data set, but requests[{i}].{name} is part of another"
                )
    return requests


def _sets(requests: Sequence[UnlearnTask], name: str) -> list[tuple[Any, list[int]]]:
    found = []
    for request in requests:
        base, chosen = resolve(getattr(request, name))
        found.append((base, list(range(len(base))) if chosen is None else chosen.tolist()))
    return found


def _union(parts: list[tuple[Any, list[int]]]) -> Any:
    return subset(parts[0][0], sorted({i for _, chosen in parts for i in chosen}))


def _common(parts: list[tuple[Any, list[int]]]) -> Any:
    shared = set(parts[0][1]).intersection(*(chosen for _, chosen in parts[1:]))
    return subset(parts[0][0], [i for i in parts[0][1] if i in shared])
