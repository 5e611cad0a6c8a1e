"""Training the last blocks alone: from where they are (CF-k), or from scratch (EU-k)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, FitResult, Phase, fit, revision
from unlearn_kit.engine.phases import BatchNorm, OptimizerFactory, streams_for
from unlearn_kit.models import reinitialize_
from unlearn_kit.modules import last_blocks, parameters_under
from unlearn_kit.schedules import ScalarOrSchedule, cosine
from unlearn_kit.seeding import derive


@revision
def catastrophic_forget_k(
    model: nn.Module,
    task: UnlearnTask,
    *,
    k: int = 4,
    blocks: Sequence[str] | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 256,
    lr: ScalarOrSchedule = cosine(1e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    clip: float | None = 5.0,
    batch_norm: BatchNorm = "frozen",
    objective: L.Objective | L.Term | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Minimise ``CE(retain)`` over the last k blocks and the head; everything before them is frozen.

    Published defaults: lr .01, 10 epochs, k from 1 to the depth. Here 1 epoch and a falling rate, as in ``finetune``.

    Args:
        model: the original; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        k: how many modules that own parameters are trained besides the head (a convolution and its batch norm are two;
            all of them, where there are fewer), in the order in which the network registers them.
        blocks: names of the submodules to train, instead of those.
        epochs, steps: passes over the retain data; ``steps`` replaces ``epochs``.
        batch_size, lr, optimizer, weight_decay, clip, batch_norm: as in ``engine.Phase``.
        objective: reads the stream "retain" (default: cross-entropy).
        callbacks: called during training.
        seed, device: of the run.

    Raises: ValueError, TypeError naming the argument; DivergenceError.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    chosen = last_blocks(model, k) if blocks is None else list(blocks)
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = Phase(
        loss,
        streams_for(task, loss),
        epochs=epochs if steps is None else None,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        clip=clip,
        trainable=parameters_under(model, chosen),
        batch_norm=batch_norm,
        name="finetune",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)


@revision
def exact_unlearn_k(
    model: nn.Module,
    task: UnlearnTask,
    *,
    k: int = 4,
    blocks: Sequence[str] | None = None,
    epochs: int = 2,
    steps: int | None = None,
    batch_size: int = 128,
    lr: ScalarOrSchedule = cosine(5e-2, 0.0),  # noqa: B008 - frozen
    optimizer: str | OptimizerFactory = "sgd",
    weight_decay: float = 5e-4,
    batch_norm: BatchNorm = "trained",
    objective: L.Objective | L.Term | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Give the last k blocks and the head fresh weights, and minimise ``CE(retain)`` over them alone.

    What was learned in these blocks is gone for certain; what is left is in the frozen ones before them.

    Published default: the recipe and the length of the original's training. Here that recipe (of ``engine.train``), and
    2 epochs: the frozen blocks already see, and the new ones are few.

    Args:
        model, task, k, blocks, epochs, steps, batch_size, lr, optimizer, weight_decay: as in
            :func:`catastrophic_forget_k`.
        batch_norm: as in ``engine.Phase``; by default fresh blocks learn their statistics and the others keep theirs.
        objective, callbacks, seed, device: as in :func:`catastrophic_forget_k`.

    Raises: ValueError, TypeError naming the argument, or the module that cannot be reset; DivergenceError.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    chosen = last_blocks(model, k) if blocks is None else list(blocks)
    trainable = parameters_under(model, chosen)
    for name in reversed(chosen):  # Children first: a parent's special initialisation has the last word.
        reinitialize_(model.get_submodule(name), seed=derive(seed, "fresh block", name))
    loss = objective if objective is not None else L.cross_entropy(on="retain")
    phase = Phase(
        loss,
        streams_for(task, loss),
        epochs=epochs if steps is None else None,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        trainable=trainable,
        batch_norm=batch_norm,
        name="train",
    )
    return fit(model, phase, seed=seed, device=device, callbacks=callbacks)
