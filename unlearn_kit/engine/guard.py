"""What holds while a phase trains: finite weights, masked entries in place, and modes that are given back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import DivergenceError
from ..modules import cpu_state
from .rest import Rest


class Guard:
    """A keeper of the last weights at which everything was finite, and of masked entries where they are."""

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
        self.numbers = [tensor for tensor in self.moving if tensor.is_floating_point()]
        self.masked = [
            (trained[name], mask.to(trained[name].device), trained[name].detach().clone())
            for name, mask in masks.items()
            if name in trained
        ]

    def check_loss(self, step: int, total: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Keep the weights when the loss and they are finite.

        Raises:
            DivergenceError: When one is not, naming the first part.
        """
        if not torch.isfinite(total):
            self._fail(step, next((name for name, value in parts.items() if not torch.isfinite(value)), "total"))
        # A loss can hide what is infinite: the statistics of a batch norm that trains, a bias before a ReLU.
        self.check_parameters(step)
        torch._foreach_copy_(self.kept, self.moving)

    def check_parameters(self, step: int) -> None:
        """Look at the weights themselves, which after the last step no loss would do.

        Raises:
            DivergenceError: When one of them is not finite.
        """
        # A sum is ten times faster than a look at every entry, which decides where it overflows.
        if torch.stack([tensor.sum() for tensor in self.numbers]).isfinite().all():
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
