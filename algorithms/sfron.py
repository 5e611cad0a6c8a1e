"""SFRon: weighted ascent on the forget data, on salient weights only, between steps that mend the retain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Between, Count, NonNegative
from unlearn_kit.data.tensors import in_order, subset
from unlearn_kit.engine import Alternate, FitResult, Phase, Training, TrainingOptions, WeightAverage, revision
from unlearn_kit.errors import check_count, check_number
from unlearn_kit.gradients import cross_entropy, mean_squared_gradients
from unlearn_kit.losses import distances
from unlearn_kit.schedules import NonNegativeSchedule, cosine
from unlearn_kit.seeding import generator

from .masks import forget_loss, to_forget

TINY = 1e-15  # Added to both Fishers: weights that neither data set moves count as salient.


def _fitting(options: Mapping[str, Any]) -> None:
    length = "steps" if options["epochs"] is None else "epochs"
    check_count(length, options[length])


@revision(
    Training(steps=60, batch_size={"forget": 64, "retain": 256}, lr=cosine(1e-2, 0.0), weight_decay=5e-4, clip=1.0),
    source="Huang et al. 2024, arXiv 2409.19732",
    fitting=_fitting,
)
def sfron(
    model: nn.Module,
    task: UnlearnTask,
    *,
    forget_weight: NonNegativeSchedule = cosine(25.0, 0.0),  # noqa: B008 - frozen
    forget_every: Count = 5,
    threshold: NonNegative = 1.0,
    adaptivity: NonNegative = 0.5,
    fisher_samples: Count | None = 1000,
    slow: Annotated[float, Between(0, 1, open_high=True)] = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Ascend ``forget_weight sum_i w_i CE_i`` on forget, then ``forget_every`` steps down ``CE(retain)``; and again.

    The ascent weighs sample i by ``CE_i^-adaptivity`` (normalised to mean 1, so that what is forgotten counts less) and
    moves only weights with ``Fisher_F / Fisher_R >= threshold``, Fishers being mean squared per-sample gradients of the
    original. One optimiser makes all steps. With ``slow`` the result is a moving average over the rounds.

    Published defaults: 1500 retain steps, batch 128, Fishers of batch-mean gradients over all data, no average
    (``slow=0``), gradients of the ascent clipped at 7. Here 60 steps, Fishers from samples, all gradients clipped at 1.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        forget_weight: of the ascent, a float or a schedule over its steps.
        forget_every: retain steps after each ascent.
        threshold: of the ratio of Fishers, at least 0 (0: every weight moves).
        adaptivity: exponent of the sample weights, at least 0 (0: all the same).
        fisher_samples: how many samples of each data set the Fishers are taken from; None for all.
        slow: share in [0, 1) that the average keeps of itself each round; 0 for the last weights.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``salient``, the share of weights that the ascent moves.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Huang et al. 2024, arXiv 2409.19732.
    """
    training = Training(**options)
    masks = saliency(model, task, threshold=threshold, samples=fisher_samples, seed=seed)
    ascent = forget_weight * -adaptive_cross_entropy(on="forget", to=to_forget(task), adaptivity=adaptivity)

    def phase(name: str, objective: L.Objective | L.Term, steps: int) -> Phase:
        return training.phase(objective, task, name=name, steps=steps, masks=masks if name == "ascend" else None)

    keep = phase("mend", L.cross_entropy(on="retain"), forget_every)
    wanted = training.phase(L.cross_entropy(on="retain"), task, name="mend").total_steps
    program = Alternate([phase("ascend", ascent, 1), keep], math.ceil(wanted / forget_every), shared_optimizer=True)
    average = [WeightAverage(slow, every=forget_every + 1)] if slow else []
    fitted = training.fit(model, program, seed=seed, device=device, watching=average)
    salient = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    fitted.details.update(salient=salient)
    return fitted


@L.term(reduction="batch")
def adaptive_cross_entropy(
    outputs: Tensor,
    goal: L.Goal,
    *,
    adaptivity: float = 0.5,
    weight: Sequence[float] | None = None,
    pos_weight: Sequence[float] | None = None,
) -> Tensor:
    """Return ``mean_i w_i CE_i`` with constant ``w_i`` in proportion to ``CE_i^-adaptivity``, their mean 1.

    ``weight`` and ``pos_weight`` as in ``losses.cross_entropy``.
    """
    losses = distances.cross_entropy(outputs, goal, weight=weight, pos_weight=pos_weight)
    # In logarithms, since the losses of samples the model is certain of round to 0.
    logs = losses.detach().clamp(min=TINY).log()
    return ((-adaptivity * logs).softmax(0) * losses).sum()


def saliency(
    model: nn.Module, task: UnlearnTask, *, threshold: float, samples: int | None, seed: int
) -> dict[str, Tensor]:
    """Return where ``Fisher_F / Fisher_R >= threshold``, by name of trainable parameter.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    check_number("threshold", threshold, low=0)
    fishers = []
    sides = (("forget", task.forget, forget_loss(task, cross_entropy)), ("retain", task.retain, cross_entropy))
    for name, data, loss in sides:
        order = torch.randperm(len(data), generator=generator(seed, "fisher", name))
        chosen = data if samples is None else subset(data, order[: check_count("fisher_samples", samples)])
        fishers.append(mean_squared_gradients(model, in_order(chosen), loss=loss))
    return {name: fishers[0][name] + TINY >= threshold * (fishers[1][name] + TINY) for name in fishers[0]}
