"""A reference made on the spot: retrained on the data to keep, or a pair of small models on a part of the data.

Its cost is estimated first. A small pair is no reference for the model that serves, which saw more. It tells what a
retraining of that size gets for verdicts on these data: whether they can be shown at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from algorithms import retrain
from unlearn_kit import UnlearnTask
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.data.tensors import subset
from unlearn_kit.engine import facts_of
from unlearn_kit.evidence import measure
from unlearn_kit.seeding import derive

from ..setup.methods import as_options, check_option, check_values, value_of

TRIAL = 3  # steps that are timed
HOW = (
    "expected reference to be none, a file of weights, retrain or subsample:SHARE, each of the last two with "
    ":OPTION=VALUE of retrain"
)


@dataclass(frozen=True)
class Retraining:
    """What is trained in order to compare: ``retrain:OPTION=VALUE`` or ``subsample:SHARE:OPTION=VALUE``.

    Attributes:
        share: Of the data, in (0, 1]; 1 for a whole retraining.
        options: Of ``algorithms.retrain``: the recipe that the original was trained with.
    """

    share: float
    options: Mapping[str, Any]


def read_reference(text: str | None) -> Retraining | Path | None:
    """Return what a request says of its reference.

    Raises:
        ValueError: On a share outside (0, 1), or an option that ``retrain`` does not take.
    """
    if text is None or text == "none":
        return None
    kind, *parts = text.split(":")
    if kind not in ("retrain", "subsample"):
        return Path(text)
    share = 1.0
    if kind == "subsample":
        found = value_of(parts.pop(0)) if parts else None
        if not isinstance(found, float) or not 0 < found < 1:
            raise ValueError(f"{HOW}; SHARE is in (0, 1), but got {text!r}")
        share = found
    options: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{HOW}, but got {text!r}")
        check_option("retrain", name)
        options[name] = value_of(value)
    check_values("retrain", options)
    return Retraining(share, options)


def small_task(task: UnlearnTask, share: float, seed: int) -> UnlearnTask:
    """Return the task on a random share of its training data, at least one sample of either side."""
    parts = {
        name: random_subset(getattr(task, name), max(1, round(share * len(getattr(task, name)))), seed=seed)
        for name in ("forget", "retain")
    }
    return replace(task, **parts, forget_indices=None)


def seconds_of(wanted: Retraining, model: nn.Module, task: UnlearnTask, *, seed: int, device: str) -> float:
    """Return about how long the training will take, from a few steps of it.

    Raises:
        ValueError: When the model cannot be given fresh weights, or the recipe is none.
    """
    short = {key: value for key, value in wanted.options.items() if key not in ("epochs", "steps", "callbacks")}
    began = time.perf_counter()
    retrain(model, task, seed=seed, device=device, steps=TRIAL, **as_options(short))
    per_step = (time.perf_counter() - began) / TRIAL
    trained = next(iter(facts_of(retrain).training.values())).override(wanted.options)
    size = trained.batch_size if isinstance(trained.batch_size, int) else len(task.retain)
    # The one of a pair that stands for the original takes the forget data, too.
    runs = [len(task.retain)] if wanted.share == 1 else [len(task.retain) + len(task.forget), len(task.retain)]
    steps = [trained.steps or (trained.epochs or 0) * math.ceil(wanted.share * samples / size) for samples in runs]
    return per_step * sum(steps)


def whole_reference(wanted: Retraining, model: nn.Module, task: UnlearnTask, *, seed: int, device: str) -> nn.Module:
    """Return the model retrained on all of the data to keep."""
    return retrain(
        model, task, seed=derive(seed, "reference") % 2**31, device=device, **as_options(wanted.options)
    ).model


def small_verdicts(
    wanted: Retraining, model: nn.Module, task: UnlearnTask, *, seed: int, device: str, **measuring: Any
) -> dict[str, str]:
    """Return the verdicts on a pair trained on a share of the data: with the forget data, and without them."""
    small = small_task(task, wanted.share, seed)
    everything = replace(small, retain=_together(small))
    options = as_options(wanted.options)
    pair = [
        retrain(model, data, seed=derive(seed, "pair", number) % 2**31, device=device, **options).model
        for number, data in enumerate((everything, small))
    ]
    found = measure(pair[0], pair[1], small, seed=seed, **measuring)
    return {one.name: one.value for one in found.verdicts}


def _together(task: UnlearnTask) -> Any:
    from torch.utils.data import ConcatDataset

    both: Any = ConcatDataset([task.retain, task.forget])
    return subset(both, range(len(both)))
