"""A small convolutional network that trains in seconds on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ..arguments import checked
from ..errors import check_count
from ..heads import declare_head
from .normalization import per_channel


@checked
def small_cnn(
    num_classes: int = 10,
    channels: int = 1,
    width: int = 16,
    *,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> nn.Module:
    """Return Five 3x3 convolutions with batch norm and ReLU, two of them strided, then a linear head ``"head"``.

    Input ``(B, channels, H, W)``, raw pixels in [0, 1], of any size from 4x4 (made for 28x28 and for 8x8).
    Output logits ``(B, num_classes)``. Width 16 with 10 classes on 1 channel has 35,674 parameters.

    Args:
        num_classes: number of logits.
        channels: number of image channels.
        width: channels of the first two convolutions; the next two have twice, the last four times as many.
        mean: of the pixels: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On an argument out of range.
        ValueError: On an argument out of range.
    """
    for name, value in (("num_classes", num_classes), ("channels", channels), ("width", width)):
        check_count(name, value)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=per_channel(mean, std, channels))
    wide_in = channels
    # Striding in the very first convolution makes an epoch twice as fast as striding in the second.
    for i, (factor, stride) in enumerate(((1, 2), (1, 1), (2, 2), (2, 1), (4, 1)), start=1):
        layers[f"block{i}"] = convolution(wide_in, width * factor, stride=stride)
        wide_in = width * factor
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(wide_in, num_classes))
    return declare_head(nn.Sequential(layers), "head")


def convolution(
    wide_in: int, wide_out: int, *, size: int = 3, stride: int = 1, batch_norm: bool = True
) -> nn.Sequential:
    """Return a padded convolution, batch norm (unless switched off: then a bias) and ReLU."""
    conv = nn.Conv2d(wide_in, wide_out, size, stride=stride, padding=size // 2, bias=not batch_norm)
    norm = [nn.BatchNorm2d(wide_out)] if batch_norm else []
    return nn.Sequential(conv, *norm, nn.ReLU())
