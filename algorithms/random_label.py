"""Random labels on the forget data, their own on the retain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Alternate, Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, sizes_for, streams_for
from unlearn_kit.errors import check_choice, check_number
from unlearn_kit.schedules import ScalarOrSchedule, cosine, is_schedule

from .masks import to_forget


@revision
def random_label(
    model: nn.Module,
    task: UnlearnTask,
    *,
    wrong_only: bool | None = None,
    fixed: bool = False,
    order: Literal["together", "in turn"] = "together",
    retain_weight: ScalarOrSchedule = 3.0,
    epochs: int | None = None,
    steps: int = 40,
    batch_size: int | Mapping[str, int] = {"forget": 64, "retain": 256},
    lr: ScalarOrSchedule = cosine(2e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 0.0,
    batch_norm: BatchNorm = "frozen",
    clip: float | None = 1.0,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
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
        epochs, steps: passes over the forget data, or steps (only "together"); ``epochs`` replaces ``steps``.
        batch_size: samples a step, of both streams or by stream.
        lr, optimizer, weight_decay, batch_norm, clip: as in ``engine.Phase``.
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Golatkar et al. 2020, arXiv 1911.04933; settings of Fan et al. 2024, arXiv 2310.12508.
    """
    program = relabelling(
        task,
        wrong_only=wrong_only,
        fixed=fixed,
        order=order,
        retain_weight=retain_weight,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        batch_norm=batch_norm,
        clip=clip,
    )
    return fit(model, program, seed=seed, device=device, callbacks=callbacks)


def relabelling(
    task: UnlearnTask,
    *,
    wrong_only: bool | None,
    fixed: bool,
    order: Literal["together", "in turn"],
    retain_weight: ScalarOrSchedule,
    epochs: int | None,
    steps: int,
    batch_size: int | Mapping[str, int],
    **options: Any,
) -> Phase | Alternate:
    """The phases of ``random_label``; ``options`` are those of ``engine.Phase``.

    Raises: ValueError, TypeError naming the argument.
    """
    check_choice("order", order, ("together", "in turn"))
    if order == "in turn" and epochs is None:
        raise ValueError("expected epochs with order='in turn', but got None")
    labels: L.Target = L.RandomLabels(task.num_classes, task.num_classes > 2 if wrong_only is None else wrong_only)
    forget = L.cross_entropy(on="forget", to=to_forget(task, L.Cached(labels) if fixed else labels))
    read = is_schedule(retain_weight) or check_number("retain_weight", retain_weight, low=0) > 0
    retain = retain_weight * L.cross_entropy(on="retain") if read else None

    def phase(objective: L.Objective | L.Term, name: str, epochs: int | None, steps: int | None) -> Phase:
        return Phase(
            objective,
            streams_for(task, objective),
            epochs=epochs,
            steps=steps,
            batch_size=sizes_for(batch_size, objective),
            name=name,
            **options,
        )

    if order == "together" or epochs is None:
        objective = forget if retain is None else forget + retain
        return phase(objective, "unlearn", epochs, steps if epochs is None else None)
    turns = [phase(forget, "relabel", 1, None)]
    turns += [] if retain is None else [phase(retain, "retain", 1, None)]
    return Alternate(turns, epochs, shared_optimizer=True)
