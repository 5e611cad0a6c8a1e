"""Training the last blocks alone: from where they are (CF-k), or from scratch (EU-k)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import CountOrZero
from unlearn_kit.engine import FitResult, Training, TrainingOptions, revision
from unlearn_kit.heads import last_blocks, parameters_under
from unlearn_kit.models import reinitialize_
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive


@revision(
    Training(epochs=1, batch_size=256, lr=cosine(1e-2, 0.0), weight_decay=5e-4, clip=5.0),
    without=("trainable",),
    source="Goel et al. 2022, arXiv 2201.06640",
)
def catastrophic_forget_k(
    model: nn.Module,
    task: UnlearnTask,
    *,
    k: CountOrZero = 4,
    blocks: Sequence[str] | None = None,
    objective: L.Objective | L.Term | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Minimise ``CE(retain)`` over the last k blocks and the head; everything before them is frozen.

    What takes no gradients in the original stays frozen inside them, too.

    Published defaults: lr .01, 10 epochs, k from 1 to the depth. Here 1 epoch and a falling rate, as in ``finetune``.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        k: how many modules that own parameters are trained besides the head (a convolution and its batch norm are two;
            all of them, where there are fewer), in the order in which the network registers them.
        blocks: names of the submodules to train, instead of those.
        objective: reads the stream "retain" (default: cross-entropy).
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    training = Training(**options)
    if blocks is not None and len(blocks) == 0:
        raise ValueError("expected blocks to name at least one submodule, but got none")
    chosen = last_blocks(model, k) if blocks is None else list(blocks)
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    inside = frozenset(parameters_under(model, chosen, "blocks"))
    phase = training.phase(loss, task, name="finetune", trainable=lambda name, p: p.requires_grad and name in inside)
    return training.fit(model, phase, seed=seed, device=device)


@revision(
    Training(epochs=2, batch_size=128, lr=cosine(5e-2, 0.0), weight_decay=5e-4, batch_norm="trained"),
    without=("trainable",),
    source="Goel et al. 2022, arXiv 2201.06640",
    reinitializes=True,
)
def exact_unlearn_k(
    model: nn.Module,
    task: UnlearnTask,
    *,
    k: CountOrZero = 4,
    blocks: Sequence[str] | None = None,
    objective: L.Objective | L.Term | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Give the last k blocks and the head fresh weights, and minimise ``CE(retain)`` over them alone.

    What was learned in these blocks is gone for certain; what is left is in the frozen ones before them.

    Published default: the recipe and the length of the original's training. Here that recipe (of ``engine.train``), and
    2 epochs: the frozen blocks already see, and the new ones are few.

    Args:
        model, task, k, blocks, epochs, steps, batch_size, lr, optimizer, weight_decay: as in
            :func:`catastrophic_forget_k`.
        **options: How it trains, as in ``engine.Training``.
        objective, callbacks, seed, device: as in :func:`catastrophic_forget_k`.

    Raises:
        ValueError: When an argument is out of range, by its name, or the module that cannot be reset.
        TypeError: When an argument is of another type, by its name, or the module that cannot be reset.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    training = Training(**options)
    if blocks is not None and len(blocks) == 0:
        raise ValueError("expected blocks to name at least one submodule, but got none")
    chosen = last_blocks(model, k) if blocks is None else list(blocks)
    trainable = parameters_under(model, chosen, "blocks")
    for name in reversed(chosen):  # Children first: a parent's special initialisation has the last word.
        reinitialize_(model.get_submodule(name), seed=derive(seed, "fresh block", name))
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = training.phase(loss, task, name="train", trainable=trainable)
    return training.fit(model, phase, seed=seed, device=device)
