"""Layers for many models at once: what ``vmap`` alone does slowly, or not at all, on a CPU.

``stackable`` swaps layers of a private copy for ones of the same parameters and buffers, under the same names, that
compute the same function up to rounding. Images stay channels-last between them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules import BATCH_NORM
from .stacked_convolution import Convolution, over_models


class Rows:
    """Which samples of the current batch count: ``weights`` ``(B,)`` of 0 and 1, or None for all of them."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None


def stackable(model: nn.Module) -> tuple[nn.Module, Rows]:
    """Return a copy of ``model`` that is quick under ``vmap``, and the rows its batch norms heed in training mode."""
    swapped, rows = copy.deepcopy(model), Rows()
    for parent in list(swapped.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.groups == 1 and child.padding_mode == "zeros":
                setattr(parent, name, Convolution(child))
            elif isinstance(child, BATCH_NORM) and type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                setattr(parent, name, _Norm(child, rows))
            elif type(child) is nn.Linear:
                setattr(parent, name, _Linear(child))
            elif type(child) is nn.AdaptiveAvgPool2d and child.output_size in (1, (1, 1)):
                setattr(parent, name, _Mean())
    return swapped, rows


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1), keepdim=True)


class _Affine(torch.autograd.Function):
    """``x W^T + b`` of each model: ``(N, B, in)``, ``(N, out, in)`` and ``(N, out)`` to ``(N, B, out)``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = torch.bmm(dy, weight) if ctx.needs_input_grad[0] else None
        return dx, torch.bmm(dy.mT, x), dy.sum(dim=1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return over_models(_Affine.apply, 1)(info, in_dims, *args)


class _Linear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or self.bias is None:
            return F.linear(x, self.weight, self.bias)
        return _Affine.apply(*(tensor.unsqueeze(0) for tensor in (x, self.weight, self.bias))).squeeze(0)


class _BatchStatistics(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with the mean and variance of the rows that count.

    ``(N, M, C)`` rows; ``counts`` ``(N, M, 1)`` of 0 and 1; weight and bias ``(N, C)``. Also returns mean and variance.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, counts: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        n = float(x.shape[1]) if counts is None else counts.sum(dim=1, keepdim=True)
        # Sums over rows are quick where `var_mean` over them is not.
        mean = (x if counts is None else x * counts).sum(dim=1, keepdim=True) / n
        centred = x - mean
        square = centred.square()
        var = (square if counts is None else square.mul_(counts)).sum(dim=1, keepdim=True) / n
        inverse = (var + eps).rsqrt()
        y = torch.addcmul(bias.unsqueeze(1), centred, inverse * weight.unsqueeze(1))
        return y, mean.squeeze(1), var.squeeze(1), centred, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, _, counts, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, counts, *output[3:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, counts, centred, inverse = ctx.saved_tensors
        n = float(dy.shape[1]) if counts is None else counts.sum(dim=1, keepdim=True)
        db = dy.sum(dim=1, keepdim=True)
        dw = (dy * centred).sum(dim=1, keepdim=True) * inverse
        dx = torch.addcmul(dy - db / n, centred, dw * inverse / n, value=-1).mul_(inverse * weight.unsqueeze(1))
        return (dx if counts is None else dx.mul_(counts)), dw.squeeze(1), db.squeeze(1), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return over_models(_BatchStatistics.apply, 5)(info, in_dims, *args)


class _Norm(nn.Module):
    """A batch norm that each model of a stack keeps its own running statistics of, padding left out."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: Any, rows: Rows) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.eps, self.momentum, self.rows = norm.eps, norm.momentum, rows
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        channels_last = x.movedim(1, -1)
        flat = channels_last.reshape(1, -1, x.shape[1])
        weights = self.rows.weights if self.training else None
        each = flat.shape[1] // x.shape[0]
        counts = None if weights is None else weights.repeat_interleave(each).view(1, -1, 1).to(x.dtype)
        if self.training and counts is None and flat.shape[1] == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        ones, zeros = (torch.full_like(flat[0, 0].detach(), fill) for fill in (1.0, 0.0))
        weight, bias = (ones if self.weight is None else self.weight), (zeros if self.bias is None else self.bias)
        y, mean, var, _, _ = _BatchStatistics.apply(flat, weight.unsqueeze(0), bias.unsqueeze(0), counts, self.eps)
        if self.training and self.running_mean is not None:
            self._remember(mean.squeeze(0), var.squeeze(0), flat.shape[1] if counts is None else counts.sum())
        return y.view(channels_last.shape).movedim(-1, 1)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, n: int | Tensor) -> None:
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked if share is None else share
        for kept, new in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
            if kept is not None:
                kept.add_((new - kept) * share)
