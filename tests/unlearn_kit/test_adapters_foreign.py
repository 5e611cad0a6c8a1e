"""Adapters on networks of other libraries: off bit for bit, merged what was adapted, refused layers named."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from algorithms import erase_to_retain
from unlearn_kit import UnlearnTask, adapters


class Out(nn.Module):
    """One of the outputs of a network that returns several by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)["out"]
        return logits


class Encoder(nn.Module):
    """Rows of an image as tokens of ``nn.TransformerEncoder``, whose layers run fused in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.embed, self.encoder, self.last = nn.Linear(96, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.encoder(self.embed(x.transpose(1, 2).flatten(2))).mean(1))
        return logits


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return functools.partial(timm.create_model, name, pretrained=False, num_classes=2, **options)


def of_monai(dimensions: int) -> nn.Module:
    return UNet(dimensions, 3, 2, channels=(4, 8), strides=(2,), num_res_units=1)


def deeplab() -> nn.Module:
    return Out(
        torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=2, aux_loss=True
        )
    )


SMALL_VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 2, "num_heads": 2}
SMALL_SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
TORCH_SWIN = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": [4, 4]}

DEPTHWISE = ("encoder.block1.0.mlp.dwconv.dwconv", "groups")

# What is built, the shape of an image, whether a mask is predicted, and a layer that gets no adapter, with the reason.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool, tuple[str, str] | None]] = {
    "timm ResNet": (of_timm("resnet10t"), (32, 32), False, None),
    "timm ViT": (of_timm("vit_tiny_patch16_224", **SMALL_VIT), (32, 32), False, None),
    "timm Swin": (of_timm("swin_tiny_patch4_window7_224", **SMALL_SWIN), (32, 32), False, None),
    "torchvision Swin": (
        lambda: torchvision.models.SwinTransformer(**TORCH_SWIN, num_classes=2),
        (32, 32),
        False,
        None,
    ),
    "timm ConvNeXt": (of_timm("convnext_atto"), (32, 32), False, ("stages.0.blocks.0.conv_dw", "groups")),
    "timm MobileNetV3": (of_timm("mobilenetv3_small_050"), (32, 32), False, ("blocks.0.0.conv_dw", "groups")),
    "torch TransformerEncoder": (Encoder, (32, 32), False, None),
    "torchvision DeepLabV3": (deeplab, (32, 32), True, ("network.aux_classifier.0", "depend")),
    "smp Unet": (
        lambda: smp.Unet("resnet18", encoder_weights=None, decoder_channels=(16, 8, 8, 4, 4), classes=2),
        (32, 32),
        True,
        None,
    ),
    "smp DeepLabV3Plus": (
        lambda: smp.DeepLabV3Plus("resnet18", encoder_weights=None, decoder_channels=16, classes=2),
        (32, 32),
        True,
        ("decoder.block2.0.0", "groups"),
    ),
    "smp Segformer": (lambda: smp.Segformer("mit_b0", encoder_weights=None, classes=2), (64, 64), True, DEPTHWISE),
    "MONAI UNet": (functools.partial(of_monai, 2), (16, 16), True, None),
    "MONAI UNet, volumes": (functools.partial(of_monai, 3), (8, 8, 8), True, None),
}


def built(case: str) -> tuple[nn.Module, UnlearnTask, Tensor]:
    build, shape, masks, _ = NETWORKS[case]
    torch.manual_seed(0)
    model = build().eval()
    x = torch.rand(6, 3, *shape)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:  # networks of timm begin with branches that are switched off
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)  # statistics with which signals neither vanish nor grow
    model.eval()
    y = (x.mean(1) > 0.5).long() if masks else torch.arange(6) % 2
    dataset = TensorDataset(x, y)
    return model, UnlearnTask.forget_random(dataset, dataset, 0.4), x[:2]


def agree(one: Tensor, other: Tensor) -> bool:
    """Within what float32 rounds in a deep network."""
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max().clamp(min=1))


@pytest.mark.parametrize("case", NETWORKS)
def test_erased_and_switched_off_or_merged(case: str) -> None:
    model, task, x = built(case)
    before = copy.deepcopy(model.state_dict())
    result = erase_to_retain(
        model, task, where="all", rounds=1, restore_epochs=0, batch_size=4, rank=2, stop_at="never", lr=1e-2
    )
    revised = result.model
    with torch.no_grad():
        start, on, merged = model(x), revised(x), adapters.merge(revised)
        assert not torch.equal(on, start)
        assert agree(merged(x), on)
        with adapters.switched_off(revised):
            assert torch.equal(revised(x), start)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in adapters.base_state(revised).items())
    assert set(merged.state_dict()) == set(before)
    unchanged = {key for key, value in merged.state_dict().items() if torch.equal(value, before[key])}
    adapted = set(adapters.select(model, "all", example=x))
    assert not [name for name in adapted if f"{name}.weight" in unchanged]
    refused = NETWORKS[case][3]
    if refused is None:
        assert result.details["skipped"] == {}
    else:
        layer, why = refused
        assert why in result.details["skipped"][layer]
        with pytest.raises(ValueError, match=f"can have an adapter, but '{layer}'"):
            adapters.attach(model, layer, example=x)
