"""All-CNN-C: the network of many unlearning papers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ..arguments import checked
from ..errors import check_count, check_number
from ..heads import declare_head
from .normalization import per_channel
from .small_cnn import convolution


@checked
def all_cnn(
    num_classes: int = 10,
    channels: int = 3,
    width: int = 96,
    *,
    batch_norm: bool = True,
    dropout: float = 0.0,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> nn.Module:
    """Return All-CNN-C (arXiv 1412.6806, table 1): convolutions only, strided ones in place of pooling; head
    ``"head"``.

    Input ``(B, channels, H, W)``, raw pixels in [0, 1], of any size from 4x4. Output logits ``(B,
    num_classes)``.

    The paper ends in a 1x1 convolution to the classes, a ReLU and an average over the image. Here the average
    comes first and a linear layer second, which is the same function without that ReLU, and makes the head a
    plain linear layer on a feature vector. Batch norm is not in the paper, and common in its successors.

    Args:
        num_classes: number of logits.
        channels: number of image channels.
        width: channels of the first stage (the paper's 96); the second has twice as many.
        batch_norm: normalise after each convolution.
        dropout: probability in [0, 1) after each strided convolution (the paper: 0.5), and 0.4 times that on
            the pixels (the paper: 0.2).
        mean: of the pixels: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On an argument out of range.
        ValueError: On an argument out of range.
    """
    for name, value in (("num_classes", num_classes), ("channels", channels), ("width", width)):
        check_count(name, value)
    check_number("dropout", dropout, low=0, high=1, open_high=True)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=per_channel(mean, std, channels))
    if dropout:
        layers["dropout0"] = nn.Dropout(0.4 * dropout)
    wide_in = channels
    for i, (factor, size, stride) in enumerate(
        ((1, 3, 1), (1, 3, 1), (1, 3, 2), (2, 3, 1), (2, 3, 1), (2, 3, 2), (2, 3, 1), (2, 1, 1)), start=1
    ):
        layers[f"block{i}"] = convolution(wide_in, width * factor, size=size, stride=stride, batch_norm=batch_norm)
        if dropout and stride == 2:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        wide_in = width * factor
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(wide_in, num_classes))
    return declare_head(nn.Sequential(layers), "head")
