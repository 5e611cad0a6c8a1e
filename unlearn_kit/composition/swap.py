"""The body of one run with the head of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .. import losses as L
from ..arguments import checked
from ..data.checks import check_dataset
from ..engine import Phase, fit
from ..engine.phases import BatchNorm
from ..errors import check_choice
from ..heads import head_name
from ..modules import blank_copy, check_model
from ..seeding import standardized
from .batch_norm import settle
from .state import check_match, retain_of, tensors_of


@standardized
@torch.no_grad()
def _swapped(body: nn.Module, head: nn.Module, modules: list[str]) -> nn.Module:
    layout = check_match({"body": body, "head": head})
    known = [name for name, _ in body.named_modules() if name]
    for name in modules:
        check_choice("module", name, known)
    inside = {key: any(key.startswith(f"{name}.") for name in modules) for key in layout.aliases}
    for key, first in layout.aliases.items():
        if inside[key] != inside[first]:
            raise ValueError(
                f"expected module to own its tensors, but {key!r} is shared with {first!r}, of which one is in "
                f"{modules} and one is not"
            )
    out = blank_copy(body)
    into, source = tensors_of(out), tensors_of(head)
    for key in (key for key, swapped in inside.items() if swapped):
        into[key].copy_(source[key])
    return out


@checked
def swap_head(
    body: nn.Module,
    head: nn.Module,
    module: str | Sequence[str] | None = None,
    *,
    finetune_on: Any = None,
    epochs: int = 5,
    lr: float = 1e-4,
    batch_size: int = 64,
    batch_norm: BatchNorm = "frozen",
    seed: int = 0,
    recalibrate: Any = None,
) -> nn.Module:
    """Return ``body``, the run that retains best, with ``module`` of ``head``, the one that forgets best.

    The head is taken with its buffers. Finetuning follows, where asked for, on retain data alone: cross-entropy, every
    parameter, Adam; published with 5 epochs at 1e-4. It may bring back what the body still knows: measure it.

    Args:
        body, head: models of one architecture.
        module: dotted name of the module, or several (default: the declared head).
        finetune_on: retain data, or a task, of which ``retain`` is read; None for no finetuning.
        epochs, lr, batch_size, batch_norm: of the finetuning; batch norm as in ``engine.Phase``.
        seed: of the finetuning.
        recalibrate: retain data, or a task, on which the statistics of batch norm are measured before finetuning.

    Raises:
        ValueError: Naming what differs in the models, an unknown module, or one that shares a tensor with the rest.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: arXiv 2505.21872, model composition.
    """
    body, head = check_model(body, "body"), check_model(head, "head")
    modules = [head_name(body)] if module is None else [module] if isinstance(module, str) else list(module)
    # The statistics inside the body are of its own weights.
    out = settle(_swapped(body, head, modules), [body, head], recalibrate, inside=modules)
    if finetune_on is None:
        return out
    retain = retain_of("finetune_on", finetune_on)
    check_dataset("finetune_on", retain, empty=False)
    phase = Phase(
        L.cross_entropy(on="retain"),
        {"retain": retain},
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer="adam",
        batch_norm=batch_norm,
        name="finetune",
    )
    return fit(out, phase, seed=seed).model
