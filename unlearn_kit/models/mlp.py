"""A multi-layer perceptron: the network of tests, notebooks and shadow-model audits."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ..arguments import checked
from ..errors import check_count
from ..heads import declare_head
from .normalization import per_channel


@checked
def mlp(
    num_classes: int = 10,
    channels: int | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    hidden: Sequence[int] = (64,),
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> nn.Module:
    """Return linear layers with ReLU between them, the last one the head ``"head"``.

    Input ``(B, C, H, W)``, raw pixels in [0, 1], or ``(B, features)``. Output logits ``(B, num_classes)``.

    Args:
        num_classes: number of logits.
        channels: number of image channels; needed only where ``input_shape`` is not given.
        input_shape: ``(C, H, W)`` or ``(features,)``; ``(channels or 1, 8, 8)``, the digits' shape, when not
            given.
        hidden: sizes of the hidden layers; empty for a linear classifier.
        mean: of the pixels: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On an argument out of range, or when ``channels`` contradicts ``input_shape``.
        ValueError: On an argument out of range, or when ``channels`` contradicts ``input_shape``.
    """
    check_count("num_classes", num_classes)
    shape = (channels or 1, 8, 8) if input_shape is None else tuple(input_shape)
    if len(shape) not in (1, 3):
        raise ValueError(f"expected input_shape to be (C, H, W) or (features,), but got {shape}")
    for size in shape:
        check_count("input_shape", size)
    if channels is not None and (len(shape) == 1 or shape[0] != check_count("channels", channels)):
        raise ValueError(f"expected input_shape to begin with channels={channels}, but got {shape}")
    sizes = [math.prod(shape), *(check_count("hidden", size) for size in hidden)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalize=per_channel(mean, std, 1 if len(shape) == 1 else shape[0]), flatten=nn.Flatten()
    )
    for i, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"block{i}"] = nn.Sequential(nn.Linear(before, after), nn.ReLU())
    layers["head"] = nn.Linear(sizes[-1], num_classes)
    return declare_head(nn.Sequential(layers), "head")
