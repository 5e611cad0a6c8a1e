"""Networks from elsewhere, tiny, as their libraries build them; and modules that are treated wrongly easily.

Each is built from its library's own classes, with random weights, and nothing about it is declared to the toolkit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

SAMPLES, CLASSES = 12, 3


@dataclass(frozen=True)
class Network:
    """A network and what it is made for.

    Attributes:
        build: Makes it, anew at every call.
        group: The heading it stands under.
        masks: Whether it gives logits of masks, of two classes; else of three classes.
        shape: The shape of one input.
        logits: Reads the logits from what the network returns.
    """

    build: Callable[[], nn.Module]
    group: str
    masks: bool = False
    shape: tuple[int, ...] = (3, 32, 32)
    logits: Callable[[object], Tensor] = lambda output: output

    @property
    def outputs(self) -> int:
        """How many logits a decision has."""
        return 2 if self.masks else CLASSES


def timm_model(name: str, **options: object) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=CLASSES)


def swin() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    sizes = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    return SwinTransformer(img_size=32, patch_size=4, num_classes=CLASSES, **sizes)


def deeplab() -> nn.Module:
    from torchvision.models import resnet
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import DeepLabV3
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    from torchvision.models.segmentation.fcn import FCNHead

    backbone = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    layers = IntermediateLayerGetter(backbone, {"layer1": "out", "maxpool": "aux"})
    # The getter counts layers from the first, so that the auxiliary head hangs on the pooled stem.
    return DeepLabV3(layers, DeepLabHead(64, 2, atrous_rates=(2, 4)), FCNHead(64, 2))


class Encoded(nn.Module):
    """Patches through ``nn.TransformerEncoder``, which reads its layers' weights in eval mode (the fused path)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).mT).mean(dim=1))


def smp_model(name: str, encoder: str, **options: object) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder_name=encoder, encoder_weights=None, in_channels=3, classes=2, **options)


def segformer() -> nn.Module:
    import segmentation_models_pytorch as smp

    known = smp.encoders.encoders
    small = {"out_channels": (3, 0, 8, 8, 16, 16), "embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}
    small |= {"num_heads": (1, 1, 2, 2)}
    known["tiny"] = {**known["mit_b0"], "params": known["mit_b0"]["params"] | small}
    try:
        return smp_model("Segformer", "tiny", decoder_segmentation_channels=16)
    finally:
        del known["tiny"]


def monai_unet(dimensions: int) -> nn.Module:
    from monai.networks.nets import UNet

    sizes = {"channels": (4, 8, 8), "strides": (2, 2), "num_res_units": 1}
    return UNet(spatial_dims=dimensions, in_channels=1, out_channels=2, **sizes)


def convolutional(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, wrap: Callable = lambda layer: layer) -> nn.Module:
    """Return a plain sequence that ends in a linear layer, as people write it."""
    return nn.Sequential(
        wrap(nn.Conv2d(3, 8, 3, padding=1)),
        norm(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        wrap(nn.Conv2d(8, 8, 3, padding=1)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        wrap(nn.Linear(32, CLASSES)),
    )


class Tied(nn.Module):
    """Two layers of one weight, and one layer registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.second.weight = self.first.weight
        self.again = self.first
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)).relu()).relu()
        return self.head(self.again(x).mean(dim=(2, 3)))


class Smoothed(nn.Module):
    """Features divided by their running size, which the module keeps in a buffer of its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.register_buffer("size", torch.ones(32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.training:
            with torch.no_grad():
                self.size.lerp_(x.abs().mean(dim=0) + 0.5, 0.1)
        return self.head(x / self.size)


class Writing(nn.Module):
    """Normalises its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.1
        x *= 2
        return self.body(x)


class Counting(nn.Module):
    """Counts its calls in a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutional()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.body(x)


class Recomputing(nn.Module):
    """Keeps no activations of its body, and computes them again for the gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutional(lambda channels: nn.GroupNorm(2, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.body[8](checkpoint(self.body[:8], x, use_reentrant=False))


def frozen_body() -> nn.Module:
    network = convolutional()
    network[0].requires_grad_(False)
    network[1].requires_grad_(False)
    network[8].bias.requires_grad_(False)
    return network


def with_state(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


SMP, LAYERS = "segmentation_models_pytorch", "Layers and wrappers"
SMALL = {"channels": (8, 16, 24, 32), "stem_width": 8}
NETWORKS: dict[str, Network] = {
    "ResNet": Network(lambda: timm_model("resnet10t", **SMALL), "timm"),
    "ViT": Network(vit, "timm"),
    "Swin": Network(swin, "timm"),
    "ConvNeXt": Network(lambda: timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), "timm"),
    "MobileNetV3": Network(lambda: timm_model("mobilenetv3_small_050"), "timm"),
    "DeepLabV3": Network(deeplab, "torch and torchvision", masks=True, logits=lambda output: output["out"]),
    "TransformerEncoder": Network(Encoded, "torch and torchvision"),
    "Unet": Network(
        lambda: smp_model("Unet", "tu-resnet10t", encoder_depth=3, decoder_channels=(16, 8, 8), **SMALL),
        SMP,
        masks=True,
    ),
    "DeepLabV3Plus": Network(
        lambda: smp_model("DeepLabV3Plus", "tu-resnet10t", decoder_channels=16, **SMALL), SMP, masks=True
    ),
    "Segformer": Network(segformer, SMP, masks=True),
    "UNet 2-D": Network(lambda: monai_unet(2), "MONAI", masks=True, shape=(1, 16, 16)),
    "UNet 3-D": Network(lambda: monai_unet(3), "MONAI", masks=True, shape=(1, 8, 8, 8)),
    "GroupNorm": Network(lambda: convolutional(lambda channels: nn.GroupNorm(2, channels)), LAYERS),
    "InstanceNorm with state": Network(lambda: convolutional(with_state), LAYERS),
    "spectral norm": Network(lambda: convolutional(wrap=parametrizations.spectral_norm), LAYERS),
    "weight norm": Network(lambda: convolutional(wrap=parametrizations.weight_norm), LAYERS),
    "tied weights": Network(Tied, LAYERS),
    "own EMA buffer": Network(Smoothed, LAYERS),
    "writes into its inputs": Network(Writing, LAYERS),
    "counts calls": Network(Counting, LAYERS),
    "recomputes": Network(Recomputing, LAYERS),
    "frozen layers": Network(frozen_body, LAYERS),
    "compiled": Network(lambda: torch.compile(convolutional(), backend="eager"), LAYERS),
    "bf16": Network(lambda: convolutional().to(torch.bfloat16), LAYERS),
}
