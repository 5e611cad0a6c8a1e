"""What holds while a phase trains: finite weights, masked entries in place, and modes that are given back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import DivergenceError
from ..modules import cpu_state
from .rest import Rest


class Guard:
    """A keeper of the last weights that were seen to be finite, and of masked entries where they are."""

    def __init__(
        self,
        model: nn.Module,
        phase: str,
        trained: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor],
        *,
        buffers: bool,
    ) -> None:
        self.model, self.phase = model, phase
        self.moving = [p.data for p in trained.values()] + (list(model.buffers()) if buffers else [])
        self.kept = [tensor.clone() for tensor in self.moving]
        self.unseen: list[tuple[int, dict[str, Tensor]]] = []
        self.numbers = [tensor for tensor in self.moving if tensor.is_floating_point()]
        self.masked = [
            (trained[name], mask.to(trained[name].device), trained[name].detach().clone())
            for name, mask in masks.items()
            if name in trained
        ]

    def check_loss(self, step: int, total: Tensor, parts: Mapping[str, Tensor], *, look: bool = True) -> None:
        """Keep the weights when they and every loss since the last look are finite.

        Args:
            step: 0-based, within the phase.
            total: The loss.
            parts: Its parts by name.
            look: Whether to look now, for which the host waits for another device, or at a later step.

        Raises:
            DivergenceError: When one is not, naming the first step and its first part.
        """
        self.unseen.append((step, {name: value.detach() for name, value in (*parts.items(), ("total", total))}))
        if look:
            self.look(step)
            torch._foreach_copy_(self.kept, self.moving)

    def look(self, step: int) -> None:
        """Look at the losses that nobody has seen yet, and at the weights.

        Raises:
            DivergenceError: When one is not finite, naming the first step and its first part.
        """
        unseen, self.unseen = self.unseen, []
        totals = [values["total"] for _, values in unseen]
        if totals and not math.isfinite(torch.stack(totals).sum().item()):
            for at, values in unseen:
                if not torch.isfinite(values["total"]):
                    self._fail(at, next(name for name, value in values.items() if not torch.isfinite(value)))
        # A loss can hide what is infinite: the statistics of a batch norm that trains, a bias before a ReLU.
        self.check_parameters(step)

    def check_parameters(self, step: int) -> None:
        """Look at the weights themselves, which after the last step no loss would do.

        Raises:
            DivergenceError: When one of them is not finite.
        """
        # Norms are ten times faster than a look at every entry, which decides where they overflow.
        if not self.numbers or math.isfinite(torch.stack(torch._foreach_norm(self.numbers)).sum().item()):
            return
        if not all(torch.isfinite(tensor).all() for tensor in self.numbers):
            self._fail(step, "parameters")

    def _fail(self, step: int, part: str) -> None:
        torch._foreach_copy_(self.moving, self.kept)
        raise DivergenceError(self.phase, step, part, cpu_state(self.model))

    def mask_gradients(self) -> None:
        """Multiply gradients by their masks, before they are clipped."""
        for parameter, mask, _ in self.masked:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def hold_masked(self) -> None:
        """Put masked entries back: momentum and weight decay move those whose gradient is zero."""
        for parameter, mask, start in self.masked:
            parameter.copy_(torch.where(mask != 0, parameter, start))


@contextmanager
def training(model: nn.Module, trained: Mapping[str, nn.Parameter], batch_norm: str) -> Iterator[Rest | None]:
    """Put ``model`` into training mode, with gradients for ``trained`` alone and batch norm as asked for.

    Every module and every parameter gets its own setting back. Yields what is at rest meanwhile; None with "update".
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(parameter) for parameter in trained.values()}
    try:
        model.train()
        rest = Rest(model, chosen, exempt=batch_norm == "trained") if batch_norm != "update" else None
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        yield rest
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
