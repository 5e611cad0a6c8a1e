"""Convolutions of many models at once: of small images as one matrix product a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Beyond this many entries a model, a convolution written as one matrix costs more than it saves.
DENSE_ENTRIES = 2**17

Pair = tuple[int, int]


def over_models(apply: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """Return a ``vmap`` rule: fold the mapped dimension into the dimension of models that each tensor begins with."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        def folded(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            value = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
            return value.flatten(0, 1)

        found = apply(*(folded(value, dim) for value, dim in zip(args, in_dims, strict=True)))
        if outputs == 1:
            return found.unflatten(0, (info.batch_size, -1)), 0
        return tuple(part.unflatten(0, (info.batch_size, -1)) for part in found), (0,) * outputs

    return rule


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return int(first), int(second)


def _out_size(size: Pair, kernel: Pair, stride: Pair, dilation: Pair, around: Pair) -> Pair:
    found = [
        max(0, (n + pad - d * (k - 1) - 1) // s + 1)
        for n, pad, d, k, s in zip(size, around, dilation, kernel, stride, strict=True)
    ]
    return found[0], found[1]


class _Geometry:
    """Where the entries of a convolution's kernel stand in its matrix."""

    def __init__(
        self, size: Pair, channels: int, kernel: Pair, stride: Pair, dilation: Pair, pad: tuple[Pair, Pair]
    ) -> None:
        (kh, kw), (sh, sw), (dh, dw), ((top, left), around) = kernel, stride, dilation, pad
        self.out = _out_size(size, kernel, stride, dilation, around)
        places = torch.full((size[0], size[1], *self.out), kh * kw)  # One past the last tap: no connection.
        for tap in range(kh * kw):
            a, b = divmod(tap, kw)
            for i in range(self.out[0]):
                for j in range(self.out[1]):
                    y, x = i * sh - top + a * dh, j * sw - left + b * dw
                    if 0 <= y < size[0] and 0 <= x < size[1]:
                        places[y, x, i, j] = tap
        inner, self.channels, self.taps = places.reshape(size[0] * size[1], -1), channels, kh * kw
        self.inputs, self.outputs = inner.shape
        channel = torch.arange(self.channels)
        # Rows of the kernel (tap, channel) in the order of the matrix (input place, channel, output place).
        self.expand = (inner[:, None, :] * self.channels + channel[None, :, None]).flatten()
        # And back: for each tap its pairs of places, filled up by pairs that count nothing.
        pairs = [(inner == tap).nonzero() for tap in range(self.taps)]
        widest = max(1, *(len(found) for found in pairs))
        back, counts = torch.zeros(self.taps, self.channels, widest, dtype=torch.int64), torch.zeros(self.taps, widest)
        for tap, found in enumerate(pairs):
            start = found[:, 0, None] * self.channels + channel
            back[tap, :, : len(found)] = (start * self.outputs + found[:, 1, None]).T
            counts[tap, : len(found)] = 1
        self.contract, self.counts = back.flatten(), counts.view(self.taps, 1, widest, 1)

    def matrix(self, kernel: Tensor) -> Tensor:
        """Return ``(N, inputs * C, outputs * O)`` of kernels ``(N, O, C, kh, kw)``."""
        n, o = kernel.shape[:2]
        rows = kernel.permute(0, 3, 4, 2, 1).reshape(n, self.taps * self.channels, o)
        rows = torch.cat([rows, rows.new_zeros(n, self.channels, o)], dim=1)
        chosen = rows.index_select(1, self.expand.to(rows.device))
        return chosen.view(n, self.inputs * self.channels, self.outputs * o)

    def kernel(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Return a gradient of the matrix as one of the kernel: the sum over the places where each entry stands."""
        n, o, c, kh, kw = shape
        found = matrix.view(n, -1, o).index_select(1, self.contract.to(matrix.device))
        found = found.view(n, self.taps, c, -1, o).mul_(self.counts.to(matrix))
        return found.sum(dim=3).view(n, kh, kw, c, o).permute(0, 4, 3, 1, 2)


_geometry = lru_cache(maxsize=64)(_Geometry)


class _DenseConvolution(torch.autograd.Function):
    """Convolutions of small images as one matrix product a model: ``(N, B, h, w, C)`` to ``(N, B, h', w', O)``.

    At 4x4 pixels and less, most of what a convolution gathers is padding, and gathering costs more than multiplying.
    """

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        matrix = geometry.matrix(kernel)
        y = torch.bmm(x.reshape(*x.shape[:2], -1), matrix)
        return y.view(*x.shape[:2], *geometry.out, kernel.shape[1]), matrix

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, kernel, ctx.geometry = inputs
        ctx.shape = kernel.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, matrix = ctx.saved_tensors
        dy, flat = dy.reshape(*dy.shape[:2], -1), x.reshape(*x.shape[:2], -1)
        dx = torch.bmm(dy, matrix.mT).view(x.shape) if ctx.needs_input_grad[0] else None
        dk = ctx.geometry.kernel(torch.bmm(flat.mT, dy), ctx.shape) if ctx.needs_input_grad[1] else None
        return dx, dk, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return over_models(_DenseConvolution.apply, 2)(info, in_dims, *args)


class Convolution(nn.Module):
    """``nn.Conv2d`` with the parameters of ``conv``; the same function, written for ``vmap`` where images are small."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation, self.padding = _pair(conv.stride), _pair(conv.dilation), conv.padding
        self.channels, self.kernel = conv.in_channels, _pair(conv.kernel_size)
        # Padding before each side, and on both together: "same" pads the end by one more where it is odd.
        around = _pair(2 * int(n) for n in conv.padding) if not isinstance(conv.padding, str) else (0, 0)
        if conv.padding == "same":
            around = _pair(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))
        self.pad = (_pair(n // 2 for n in around), around)

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps ``(B, O, h', w')`` of ``(B, C, h, w)``."""
        size = _pair(x.shape[-2:])
        out = _out_size(size, self.kernel, self.stride, self.dilation, self.pad[1])
        entries = self.channels * size[0] * size[1] * self.weight.shape[0] * out[0] * out[1]
        if x.dim() != 4 or entries == 0 or entries > DENSE_ENTRIES:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        geometry = _geometry(size, self.channels, self.kernel, self.stride, self.dilation, self.pad)
        y, _ = _DenseConvolution.apply(x.permute(0, 2, 3, 1).unsqueeze(0), self.weight.unsqueeze(0), geometry)
        y = y.squeeze(0) if self.bias is None else y.squeeze(0) + self.bias
        return y.permute(0, 3, 1, 2)
