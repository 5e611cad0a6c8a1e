"""ResNets from torchvision, with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..arguments import checked
from ..errors import check_choice, check_count
from ..heads import declare_head
from .normalization import Normalized, per_channel

DEPTHS = (18, 34, 50)


@checked
def resnet(
    depth: int = 18,
    num_classes: int = 10,
    channels: int = 3,
    *,
    small_images: bool = True,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> nn.Module:
    """Return a ResNet (arXiv 1512.03385) with fresh weights, never downloaded ones; head ``"network.fc"``.

    Input ``(B, channels, H, W)``, raw pixels in [0, 1], of any size. Output logits ``(B, num_classes)``.

    Args:
        depth: 18, 34 or 50.
        num_classes: number of logits.
        channels: number of image channels.
        small_images: begin with a 3x3 convolution of stride 1 and no max-pooling, as the paper does for
            CIFAR; else with the ImageNet stem (7x7 of stride 2, then max-pooling).
        mean: of the pixels: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On an argument out of range.
        ValueError: On an argument out of range.
    """
    check_choice("depth", str(depth), [str(d) for d in DEPTHS])
    check_count("num_classes", num_classes)
    check_count("channels", channels)
    normalize = per_channel(mean, std, channels)

    import torchvision

    network = getattr(torchvision.models, f"resnet{depth}")(weights=None, num_classes=num_classes)
    size, stride = (3, 1) if small_images else (7, 2)
    network.conv1 = nn.Conv2d(channels, 64, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small_images:
        network.maxpool = nn.Identity()
    return declare_head(Normalized(normalize, network), "network.fc")
