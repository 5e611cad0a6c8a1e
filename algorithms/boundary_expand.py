"""Boundary expand: the forget data become a class of their own, which is then taken away."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.heads import head_name
from unlearn_kit.modules import check_own_weight
from unlearn_kit.schedules import NonNegativeSchedule, cosine, is_schedule


@revision(
    Training(steps=40, batch_size={"forget": 64, "retain": 256}, lr=cosine(3e-2, 0.0), clip=1.0),
    source="Chen et al. 2023, arXiv 2303.11570",
    masks=False,
)
def boundary_expand(
    model: nn.Module,
    task: UnlearnTask,
    *,
    retain_weight: NonNegativeSchedule = 3.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Give the head a class C more, minimise ``CE(f(x) -> C) + retain_weight CE(f(x_r) -> y_r)``, drop that class.

    Published defaults: the forget data alone (``retain_weight=0``), lr 1e-5, 10 epochs, batch 64, no clipping, batch
    norm updating. Here with the retain data and a large, falling lr: on the forget data alone the new class swallows
    everything, and once it is dropped the forget class is often the next best guess.

    Args:
        model: the original; logits ``(B, C)``; its declared head is an ``nn.Linear`` or a 1x1 ``nn.Conv2d``.
        task: what to forget and what to keep; classification.
        retain_weight: at least 0, or a schedule; at 0 the retain data are not read.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: On masks, and on a head that cannot be widened, by name. When an argument is out of range, by its
            name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Chen et al. 2023, arXiv 2303.11570, section 3.
    """
    training = Training(**options)
    classes = task.num_classes
    widen(class_head(model, task, "boundary_expand"))
    objective = L.Objective((L.cross_entropy(on="forget", to=L.Background(classes), name="new class"),))
    if is_schedule(retain_weight) or retain_weight:
        objective = objective + retain_weight * L.cross_entropy(on="retain")
    phase = training.phase(objective, task, name="expand")
    fitted = training.fit(model, phase, seed=seed, device=device)
    _set_rows(class_head(fitted.model, task, "boundary_expand"), lambda rows: rows[:classes])
    return fitted


def class_head(model: nn.Module, task: UnlearnTask, method: str) -> nn.Linear | nn.Conv2d:
    """Return the declared head: one linear layer with an output a class (``nn.Linear`` or 1x1 ``nn.Conv2d``).

    Raises:
        ValueError: On masks, and naming a head that is another thing or whose weight is computed.
    """
    if task.kind != "classification":
        raise ValueError(
            f"expected a classification task for {method}, which makes no sense for masks, but got {task.kind}"
        )
    name = head_name(model)
    head: Any = model.get_submodule(name)
    pointwise = isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1
    if not isinstance(head, nn.Linear) and not pointwise:
        raise ValueError(
            f"expected the head {name!r} to be an nn.Linear or a 1x1 nn.Conv2d for {method}, "
            f"but got {type(head).__name__}"
        )
    check_own_weight(name, head, method)
    return cast(nn.Linear | nn.Conv2d, head)


def widen(head: nn.Linear | nn.Conv2d) -> None:
    """Give ``head``, in place, one output more, with weights drawn as torch draws a new layer's.

    Raises:
        ValueError: On a head with a single output, which decides between two classes already.
    """
    if len(head.weight) == 1:
        raise ValueError("expected a head with one output a class, but got one output for two classes")
    bound = 1 / math.sqrt(head.weight[0].numel())

    def add_row(rows: Tensor) -> Tensor:
        new = torch.empty(1, *rows.shape[1:]).uniform_(-bound, bound)  # On the CPU: the same on every device.
        return torch.cat([rows, new.to(rows)])

    _set_rows(head, add_row)


def _set_rows(head: nn.Linear | nn.Conv2d, change: Callable[[Tensor], Tensor]) -> None:
    for name in ("weight", "bias"):
        old = getattr(head, name)
        if old is not None:
            setattr(head, name, nn.Parameter(change(old.detach()).clone(), requires_grad=old.requires_grad))
    size = "out_features" if isinstance(head, nn.Linear) else "out_channels"
    setattr(head, size, len(head.weight))
