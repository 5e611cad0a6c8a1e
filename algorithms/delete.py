"""DELETE: forget-only distillation of what the original says about the other classes."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.schedules import cosine

from .masks import to_forget


@revision(
    Training(steps=80, batch_size=64, lr=cosine(1e-2, 0.0), clip=1.0),
    without=("class_weight",),
    source="Zhou et al. 2025, arXiv 2503.23751",
    findings=False,
    reads_retain=False,
)
def delete(
    model: nn.Module,
    task: UnlearnTask,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``KL(softmax of f0(x) without the logit of y || softmax of f(x))`` on the forget data alone.

    Published: no retain data; the learning rate and the number of epochs were not readable. Here eighty steps of a
    large, falling lr with clipped gradients: the first steps take the class away, and the later ones bring back the
    order of the others, which no retain data guard.

    Args:
        model: the original; logits ``(B, C, ...)``; of a single logit what remains is the opposite label.
        task: what to forget, classes or masks; the retain data are not read. A finding has no other classes: what
            remains is the opposite of everything that the image shows, which nothing holds in check.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: On a multi-label task. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Zhou et al. 2025, arXiv 2503.23751.
    """
    training = Training(**options)
    if task.kind == "multilabel":
        raise ValueError(
            "expected a classification or segmentation task for delete, which distils what is said of the other "
            "classes, but got multilabel: a finding has none"
        )
    objective = L.kl(on="forget", to=to_forget(task, L.OtherClasses(model)))
    phase = training.phase(objective, task, name="unlearn")
    return training.fit(model, phase, seed=seed, device=device)
