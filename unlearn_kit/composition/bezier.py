"""Curved paths between two models: a quadratic Bezier curve whose control point is trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .. import losses as L
from ..arguments import checked
from ..engine import Phase, fit
from ..errors import check_number
from ..schedules import cosine
from ..seeding import standardized
from .merge import average, interpolate
from .state import check_match, retain_of, tensors_of


@checked
def bezier(a: nn.Module, control: nn.Module, b: nn.Module, t: float, *, recalibrate: Any = None) -> nn.Module:
    """Return ``(1 - t)^2 a + 2 t (1 - t) control + t^2 b``, a new model: bitwise ``a`` at 0 and ``b`` at 1.

    Raises:
        ValueError: Naming what differs in the models, or t outside [0, 1].
    """
    check_number("t", t, low=0, high=1)
    check_match({"a": a, "control": control, "b": b})
    if t in (0, 1):
        return interpolate(a, b, t, recalibrate=recalibrate)
    return average([a, control, b], _coefficients(t), recalibrate=recalibrate)


@checked
@standardized
def bezier_control(
    a: nn.Module,
    b: nn.Module,
    data: Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    lr: float = 1e-2,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Train the control point so that the loss on ``data`` is small all along the curve; it starts halfway.

    Each step draws a place t on the curve, uniformly, and takes one step of SGD on the cross-entropy there. Batch norm
    stays in eval mode, its statistics on the curve as the weights are.

    Args:
        a, b: models of one architecture.
        data: the retain data, or a task, of which ``retain`` is read.
        epochs, steps: how long; one epoch when neither is given.
        batch_size, lr: of the training; lr falls along half a cosine.
        seed, device: of the run.

    Raises:
        ValueError: Naming what differs in the models, or the argument.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: arXiv 1802.10026.
    """
    retain = retain_of("data", data)
    check_number("lr", lr, low=0)
    curve = _Curve(a, interpolate(a, b, 0.5), b)
    phase = Phase(
        L.cross_entropy(on="retain"),
        {"retain": retain},
        epochs=1 if epochs is None and steps is None else epochs,
        steps=steps,
        batch_size=batch_size,
        lr=cosine(lr, 0.0),
        name="bezier",
    )
    control = fit(curve, phase, seed=seed, device=device).model.get_submodule("control")
    for parameter, given in zip(control.parameters(), a.parameters(), strict=True):
        parameter.requires_grad_(given.requires_grad)
    for module, like in zip(control.modules(), a.modules(), strict=True):
        module.training = like.training
    return control


class _Curve(nn.Module):
    """What the curve says of an input at a place drawn anew each time; only the control point has gradients."""

    def __init__(self, a: nn.Module, control: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.control = control.requires_grad_(True)
        self.first, self.last = (_held(model) for model in (a, b))

    def forward(self, x: Tensor) -> Tensor:
        t = float(torch.rand(())) if self.training else 0.5
        first, middle, last = _coefficients(t)
        merged = {}
        for name, value in self.control.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                start, end = self.first.get_buffer(_flat(name)), self.last.get_buffer(_flat(name))
                merged[name] = first * start + middle * value + last * end
        logits: Tensor = functional_call(self.control, merged, (x,))
        return logits


def _held(model: nn.Module) -> nn.Module:
    """Return the tensors of a model as the buffers of an empty module, which follow it to any device."""
    held = nn.Module()
    for name, value in tensors_of(model).items():
        held.register_buffer(_flat(name), copy.deepcopy(value))
    return held


def _flat(name: str) -> str:
    return name.replace(".", "/")


def _coefficients(t: float) -> list[float]:
    return [(1 - t) ** 2, 2 * t * (1 - t), t**2]
