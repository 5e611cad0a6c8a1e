"""Normalisation as a network's first layer, so that everything outside speaks in raw pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_number
from ..modules import device_of


@checked
class Normalize(nn.Module):
    """``(x - mean) / std`` channel by channel.

    Input and output: ``(B, C, H, W)``, the input raw pixels in [0, 1]. With one mean and one std, any shape
    and any number of channels.

    Args:
        mean: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On numbers outside those ranges or lists of different lengths.
        ValueError: On numbers outside those ranges or lists of different lengths.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        means, stds = as_list("mean", mean), as_list("std", std)
        if len(means) != len(stds):
            raise ValueError(
                f"expected mean and std to have one number a channel each, but got {len(means)} and {len(stds)} numbers"
            )
        for value in means:
            check_number("mean", value, low=0, high=1)
        for value in stds:
            check_number("std", value, low=0, open_low=True)
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised pixels, of the shape of ``x``.

        Raises:
            ValueError: When ``x`` has another number of channels.
        """
        if len(self.mean) == 1:
            return (x - self.mean) / self.std
        if x.dim() < 3 or x.shape[-3] != len(self.mean):
            raise ValueError(f"expected x to be images (B, {len(self.mean)}, H, W), but got shape {tuple(x.shape)}")
        return (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def extra_repr(self) -> str:
        """Return the numbers, for ``print``."""
        mean, std = ([round(v, 4) for v in values.tolist()] for values in (self.mean, self.std))
        return f"mean={mean}, std={std}"


class Normalized(nn.Module):
    """A network behind a :class:`Normalize`: submodules ``normalize`` and ``network``."""

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize, self.network = normalize, network

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network says of raw pixels ``(B, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.network(self.normalize(x))
        return logits


@checked
def with_normalization(model: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]) -> nn.Module:
    """Return ``model``, which expects normalised pixels, as a network of raw pixels ``(B, C, H, W)`` in [0, 1].

    The result holds ``model`` itself (no copy) as its submodule ``network``; a head declared on ``model`` is
    found through the wrapper.

    Args:
        model: any network.
        mean: one number a channel in [0, 1] (statistics of 0..255 pixels are to be divided by 255), or one
            for all.
        std: as many positive numbers.

    Raises:
        TypeError: On bad numbers, on different lengths, or when ``model`` already normalises.
        ValueError: On bad numbers, on different lengths, or when ``model`` already normalises.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, Normalize):
            raise ValueError(f"expected model to take normalised pixels, but got one that normalises in {name!r}")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    wrapped = Normalized(Normalize(mean, std).to(device=device_of(model), dtype=dtype), model)
    wrapped.training = wrapped.normalize.training = model.training
    return wrapped


def per_channel(mean: float | Sequence[float], std: float | Sequence[float], channels: int) -> Normalize:
    """Return a :class:`Normalize` of exactly ``channels`` channels; a single number counts for each of them.

    Raises:
        ValueError: When a list has another length.
    """
    means, stds = as_list("mean", mean), as_list("std", std)
    for name, values in (("mean", means), ("std", stds)):
        if len(values) not in (1, channels):
            raise ValueError(f"expected {name} to have 1 or {channels} numbers, but got {len(values)}")
    widen = [v * channels if len(v) == 1 else v for v in (means, stds)]
    return Normalize(*widen)


def as_list(name: str, value: object) -> list[float]:
    """Return ``value`` as a list of numbers.

    Raises:
        TypeError: When it is neither a number nor a sequence.
        ValueError: When it is empty.
    """
    if isinstance(value, (int, float)):
        return [value]
    if isinstance(value, str) or not isinstance(value, (Sequence, torch.Tensor, np.ndarray)):
        raise TypeError(
            f"expected {name} to be a number or a sequence of them, but got {type(value).__name__}: {value!r}"
        )
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim != 1:
        raise ValueError(f"expected {name} to be a number or one number a channel, but got shape {tuple(value.shape)}")
    if len(value) == 0:
        raise ValueError(f"expected {name} to have at least one number, but got {value!r}")
    return [v.item() if hasattr(v, "item") else v for v in value]
