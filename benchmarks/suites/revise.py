"""A method applied to one request, or to several one after another, and watched on the way."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unlearn_kit import UnlearnTask, adapters
from unlearn_kit.seeding import derive

from ..setup.methods import Variant, as_options, attempt
from .watch import Watch

HISTORY = 200  # most records of losses that are kept
# What a method imports when it is first called is no cost of the method.
IMPORTS = {"erase_to_retain": ("peft",)}


@dataclass
class Revised:
    """The model after each request, and what the revisions tell.

    Attributes:
        models: One a request that was met.
        status, reason: "ok", or how and why a request was not met.
        options, details: Of the last revision.
        history: Records of losses, of all revisions.
        curve: Looks of :class:`.watch.Watch`, each with its request.
        each: Wall seconds of each revision, without the watching.
        cpu: CPU seconds of all of them.
    """

    models: list[nn.Module]
    status: str = "ok"
    reason: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def record(self) -> dict[str, Any]:
        """Return what of it is written."""
        return {
            "options": self.options,
            "details": self.details,
            "history": thin(self.history),
            "learning_curve": self.curve,
            "cost": {"seconds": sum(self.each), "cpu_seconds": self.cpu, "request_seconds": self.each},
        }


def revise(
    config: Mapping[str, Any], start: nn.Module, requests: list[UnlearnTask], references: Sequence[nn.Module] = ()
) -> Revised:
    """Apply the method of a result's ``config`` to each request in turn, each to what the last one left.

    A yardstick is given ``references``, retrained models.
    """
    given: dict[str, Any] = {"references": references} if references else {}
    variant = Variant(config["method"]["name"], as_options(config["method"]["options"]))
    for package in IMPORTS.get(variant.name, ()):
        importlib.import_module(package)
    revised, model = Revised([]), start
    for place, task in enumerate(requests):
        watch = Watch(task, seed=place) if config["learning_curve"] else None
        cpu = time.process_time()
        found = attempt(
            variant,
            model,
            task,
            seed=unlearning_seed(config["seeds"], place),
            device=config["device"],
            callbacks=[] if watch is None else [watch],
            **given,
        )
        if found.result is None:
            revised.status, revised.reason = found.status, found.reason
            return revised
        watched, watched_cpu = (0.0, 0.0) if watch is None else (watch.seconds, watch.cpu_seconds)
        revised.cpu += time.process_time() - cpu - watched_cpu
        revised.each.append(max(0.0, found.result.seconds - watched))
        revised.options = found.result.config
        revised.details = _plain_details(found.result.details)
        revised.history += found.result.history
        revised.curve += [] if watch is None else [{"request": place, **point} for point in watch.found]
        revised.models.append(found.result.model)
        model = _final(found.result.model) if place + 1 < len(requests) else found.result.model
    return revised


def unlearning_seed(seeds: Mapping[str, Any], place: int) -> int:
    """Return the seed of a run on request ``place``, independent of that of any other training, seed or request."""
    return derive(seeds["training"], "unlearning", seeds["unlearning"], place)


def _final(model: nn.Module) -> nn.Module:
    """Return a model for the next request: adapters merged into their weights, and all weights free to move."""
    merged = adapters.plain(model)  # a copy, where there is something to merge
    return (merged if merged is not model else copy.deepcopy(model)).requires_grad_(True)


def _plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    def readable(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): readable(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [readable(item) for item in value[:50]]
        return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__

    return {key: readable(value) for key, value in details.items()}


def thin(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most ``HISTORY`` records, evenly spaced."""
    step = -(-len(history) // HISTORY) or 1
    return history[::step]
