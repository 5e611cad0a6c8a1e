"""One device in the model's own precision, or whatever an ``accelerate.Accelerator`` offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


class Devices:
    """The few things that differ with mixed precision or several processes; without an accelerator, nothing.

    Attributes:
        device: Where the model is trained.
        part: The place of this process, and how many there are.
        shared: Whether there are several processes.

    Raises:
        ValueError: When the accelerator accumulates gradients: a batch here is one step.
    """

    def __init__(self, device: torch.device, accelerator: Accelerator | None) -> None:
        self.accelerator = accelerator
        self.device = device if accelerator is None else accelerator.device
        self.part = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
        self.shared = self.part[1] > 1
        if accelerator is not None and accelerator.gradient_accumulation_steps != 1:
            raise ValueError(
                "expected accelerator to have gradient_accumulation_steps=1, since a batch is one step, "
                f"but got {accelerator.gradient_accumulation_steps}"
            )

    @property
    def pins(self) -> bool:
        """Return whether batches wait in memory from which the device copies while it works."""
        return self.device.type == "cuda"

    def place(self, x: Tensor, y: Tensor, *, as_bytes: bool) -> tuple[Tensor, Tensor]:
        """Return a batch on the device; what crossed the bus as bytes becomes numbers in [0, 1] there."""
        if self.pins and not x.is_pinned():
            x, y = x.pin_memory(), y.pin_memory()
        x, y = (part.to(self.device, non_blocking=self.pins) for part in (x, y))
        return (x.float().div_(255) if as_bytes else x), y

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimiser, made aware of the precision."""
        if self.accelerator is None:
            return optimizer
        prepared: torch.optim.Optimizer = self.accelerator.prepare_optimizer(optimizer, device_placement=True)
        return prepared

    def forward(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the logits, in float32 where they were computed in half precision."""
        if self.accelerator is None:
            outputs: Tensor = model(inputs)
            return outputs
        with self.accelerator.autocast():
            outputs = model(inputs)
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs

    def backward(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Compute the gradients of the loss, averaged over all processes."""
        if self.accelerator is None:
            loss.backward()
            return
        self.accelerator.backward(loss)
        self.average(parameter.grad for parameter in parameters if parameter.grad is not None)

    def clip(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Scale the gradients down to the norm."""
        if self.accelerator is not None:
            self.accelerator.unscale_gradients(optimizer)
        nn.utils.clip_grad_norm_(parameters, norm)

    @property
    def waits(self) -> bool:
        """Return whether the host waits for the device wherever it looks at a number of it."""
        return self.device.type != "cpu"

    @property
    def scales(self) -> bool:
        """Return whether losses are scaled up for their gradients' sake, as half precision of 16 bits needs."""
        return self.accelerator is not None and self.accelerator.scaler is not None

    def joined(self, table: Tensor) -> Tensor:
        """Return a table of which each process has filled rows of its own, and left the others zero."""
        if self.accelerator is None or not self.shared:
            return table
        filled: Tensor = self.accelerator.reduce(table, reduction="sum")
        return filled

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over all processes."""
        if self.accelerator is None or not self.shared:
            return
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(self.accelerator.reduce(tensor.detach(), reduction="mean"))
