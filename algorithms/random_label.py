"""Random labels on the forget data, their own on the retain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Alternate, FitResult, Phase, Training, TrainingOptions, revision
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule

from .masks import to_forget


def check_order(options: Mapping[str, Any]) -> None:
    """Refuse passes that take turns without a number of them."""
    if options["order"] == "in turn" and options["epochs"] is None:
        raise ValueError("expected epochs with order='in turn', but got None")


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    source="Golatkar et al. 2020, arXiv 1911.04933",
    fitting=check_order,
)
def random_label(
    model: nn.Module,
    task: UnlearnTask,
    *,
    wrong_only: bool | None = None,
    fixed: bool = False,
    order: Literal["together", "in turn"] = "together",
    retain_weight: NonNegativeSchedule = 3.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(f(x_f) -> random labels) + retain_weight CE(f(x_r) -> y_r)``, together or in turn.

    Published defaults: labels of all classes, drawn anew in each batch, ``order="in turn"``, 10 epochs, lr .01 to .1.
    Here both data sets share each step, which needs no pass over the retain data to mend what a pass over the forget
    data broke; and with more than two classes the true label is never drawn: drawn as often as any other, it keeps a
    tenth of a class alive. With two classes (a binary mask) the only wrong label is the opposite, which marks what is
    forgotten, so there labels are drawn from both.

    Args:
        model: the original; logits ``(B, C, ...)``; of masks each pixel draws its own label.
        task: what to forget and what to keep.
        wrong_only: never draw the true label (default: when there are more than two classes).
        fixed: draw once for the whole run.
        order: "together", or "in turn": each epoch a pass over the forget data, then one over the retain data.
        retain_weight: weight of the retain term, at least 0, or a schedule; at 0 the retain data are not read.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Golatkar et al. 2020, arXiv 1911.04933; settings of Fan et al. 2024, arXiv 2310.12508.
    """
    training = Training(**options)
    program = relabelling(
        task,
        training,
        wrong_only=wrong_only,
        fixed=fixed,
        order=order,
        retain_weight=retain_weight,
    )
    return training.fit(model, program, seed=seed, device=device)


def relabelling(
    task: UnlearnTask,
    training: Training,
    *,
    wrong_only: bool | None,
    fixed: bool,
    order: Literal["together", "in turn"],
    retain_weight: NonNegativeSchedule,
    masks: Mapping[str, Tensor] | None = None,
) -> Phase | Alternate:
    """Return the phases of ``random_label``; with ``masks``, only the weights they name True move.

    Raises:
        ValueError: When an argument is out of range.
    """
    labels: L.Target = L.RandomLabels(task.outcomes, task.outcomes > 2 if wrong_only is None else wrong_only)
    forget = L.cross_entropy(on="forget", to=to_forget(task, L.Cached(labels) if fixed else labels))
    read = is_schedule(retain_weight) or retain_weight
    retain = retain_weight * L.cross_entropy(on="retain") if read else None

    if order == "together" or training.epochs is None:
        objective = forget if retain is None else forget + retain
        return training.phase(objective, task, name="unlearn", masks=masks)
    turns = [training.phase(forget, task, name="relabel", masks=masks, epochs=1)]
    turns += [] if retain is None else [training.phase(retain, task, name="retain", masks=masks, epochs=1)]
    return Alternate(turns, training.epochs, shared_optimizer=True)
