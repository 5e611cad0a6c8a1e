"""Bad teacher: distil a random network on the forget data and the original on the retain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Positive, PositiveShare
from unlearn_kit.data.tensors import subset
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.models import fresh_copy
from unlearn_kit.modules import built, device_of
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive, generator, isolated

from .masks import accuracy_within, mask_classes, to_forget

DRAWS = 20


@revision(
    Training(steps=40, batch_size=None, lr=cosine(1e-3, 0.0), optimizer="adam"),
    source="Chundawat et al. 2023, arXiv 2205.08096",
)
def bad_teacher(
    model: nn.Module,
    task: UnlearnTask,
    *,
    build: Callable[[], nn.Module] | None = None,
    retain_share: PositiveShare = 0.3,
    temperature: Positive = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise the mean of ``KL(random network || f)`` on forget and ``KL(f0 || f)`` on retain samples.

    Published defaults: 30 % of the retain data, Adam 1e-4, 1 epoch, batch 256. Here a larger, falling lr and steps
    instead of epochs: an epoch of a small data set is too few, and one of a large data set more than it takes. A random
    network that by chance names the forgotten class is drawn anew (see :func:`incompetent_teacher`).

    Args:
        model: the original and competent teacher; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        build: makes a network with fresh weights: the incompetent teacher. Without it, every module of a copy of the
            model is reset.
        retain_share: share in (0, 1] of the retain data that is read.
        temperature: of both distillations, above 0.
        **options: How it trains, as in ``engine.Training``; without a batch size, 256 of both data sets together, in
            the proportion in which they come.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Chundawat et al. 2023, arXiv 2205.08096.
    """
    training = Training(**options)
    bad = incompetent_teacher(model, task, build=build, seed=seed)
    count = max(1, round(retain_share * len(task.retain)))
    order = torch.randperm(len(task.retain), generator=generator(seed, "retain share"))
    forget_share = len(task.forget) / (len(task.forget) + count)
    if training.batch_size is None:
        of_forget = min(255, max(1, round(256 * forget_share)))
        training = replace(training, batch_size={"forget": of_forget, "retain": 256 - of_forget})
    forget = L.kl(on="forget", to=to_forget(task, L.Teacher(bad)), temperature=temperature)
    retain = L.kl(on="retain", to=L.Teacher(model), temperature=temperature)
    objective = forget_share * forget + (1 - forget_share) * retain
    phase = training.phase(objective, task, name="unlearn", streams={"retain": subset(task.retain, order[:count])})
    return training.fit(model, phase, seed=seed, device=device)


def incompetent_teacher(
    model: nn.Module, task: UnlearnTask, *, build: Callable[[], nn.Module] | None, seed: int
) -> nn.Module:
    """Return a random network in eval mode whose accuracy on the forget data is at most chance.

    A random network says nearly the same of every input. One in ``num_classes`` happens to name the class that is to be
    forgotten, and would teach it: it is drawn anew, up to 20 times, and the least competent is taken.
    """
    best, least = model, 2.0
    for draw in range(DRAWS):
        drawn = derive(seed, "incompetent teacher", draw)
        if build is None:
            candidate = fresh_copy(model, seed=drawn)
        else:
            with isolated(drawn):
                candidate = built(build).to(device_of(model))
        candidate.eval().requires_grad_(False)
        known = accuracy_within(candidate, task.forget, mask_classes(task)) or 0.0
        if known < least:
            best, least = candidate, known
        if least <= 1 / task.num_classes:
            break
    return best
