"""Heads that nobody declared: each library's own, the last of a sequence, or what a probe finds; else refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from algorithms import boundary_expand, erase_to_retain, fisher_forgetting, mean_feature_head
from unlearn_kit import UnlearnTask, audits, composition, models
from unlearn_kit.heads import head_name
from unlearn_kit.modules import same_state


def timm_model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=3)


def torchvision_model(name: str) -> nn.Module:
    import torchvision

    if name == "deeplabv3":
        return torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        )
    return torchvision.models.get_model(name, weights=None, num_classes=3)


def transformers_model(kind: str) -> nn.Module:
    import transformers

    if kind == "segformer":
        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], sr_ratios=[2, 1], patch_sizes=[3, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3,
        )  # fmt: skip
        return transformers.SegformerForSemanticSegmentation(config)
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    return transformers.ViTForImageClassification(config)


def smp_model(name: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder_weights=None, classes=3)


HEADS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "timm resnet": (lambda: timm_model("resnet18"), "fc"),
    "timm vit": (lambda: timm_model("vit_tiny_patch16_224"), "head"),
    "timm convnext": (lambda: timm_model("convnext_atto"), "head.fc"),
    "timm mobilenet": (lambda: timm_model("mobilenetv3_small_050"), "classifier"),
    "torchvision resnet": (lambda: torchvision_model("resnet18"), "fc"),
    "torchvision mobilenet": (lambda: torchvision_model("mobilenet_v3_small"), "classifier.3"),
    "torchvision vit": (lambda: torchvision_model("vit_b_32"), "heads.head"),
    "torchvision swin": (lambda: torchvision_model("swin_t"), "head"),
    "torchvision deeplab": (lambda: torchvision_model("deeplabv3"), "classifier.4"),
    "smp unet": (lambda: smp_model("Unet"), "segmentation_head"),
    "smp segformer": (lambda: smp_model("Segformer"), "segmentation_head"),
    "transformers vit": (lambda: transformers_model("vit"), "classifier"),
    "transformers segformer": (lambda: transformers_model("segformer"), "decode_head"),
}


@pytest.mark.parametrize("name", HEADS)
def test_each_library_s_convention(name: str) -> None:
    make, head = HEADS[name]
    with torch.random.fork_rng(devices=()):
        model = make()
    assert head_name(model) == head
    wrapped = models.with_normalization(model, 0.5, 0.5)
    assert head_name(wrapped) == f"network.{head}"
    declared = models.declare_head(model, next(name for name, _ in model.named_children()))
    assert head_name(wrapped) == f"network.{head_name(declared)}" != f"network.{head}"


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        ([nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)], "3"),
        ([nn.Conv2d(1, 3, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1)), nn.Flatten()], "1.1"),
    ],
)
def test_the_last_layer_of_a_sequence(layers: list[nn.Module], head: str) -> None:
    assert head_name(nn.Sequential(*layers)) == head


SOURCE = torch.Generator().manual_seed(0)
INPUTS = torch.rand(12, 1, 4, 4, generator=SOURCE)
DATA = TensorDataset(INPUTS, torch.arange(12) % 3)
TASK = UnlearnTask.forget_class(DATA, DATA, 0)


class Own(nn.Module):
    """A network whose head comes first by name and is no last module in the order of registration."""

    def __init__(self, after: Callable[[Tensor], object] = lambda z: z) -> None:
        super().__init__()
        self.logits_layer, self.inner = nn.Linear(5, 3), nn.Linear(16, 5)
        self.fc = nn.Linear(5, 5)  # Named as a head of a library, and none.
        self.after = after

    def forward(self, x: Tensor) -> object:
        return self.after(self.logits_layer(self.fc(self.inner(x.flatten(1))).relu()))


@pytest.mark.parametrize("after", [lambda z: z, lambda z: {"out": z}, lambda z: z.view(-1, 3)])
def test_a_probe_finds_the_module_whose_output_is_the_network_s(after: Callable[[Tensor], object]) -> None:
    model = Own(after).train()
    assert head_name(model, INPUTS[:2]) == "logits_layer"
    assert model.training
    assert not model._forward_hooks
    with pytest.raises(ValueError, match="Own does not declare which submodule is its head"):
        head_name(model)


def test_what_no_module_gives_is_to_be_declared() -> None:
    for model in (Own(lambda z: z.softmax(1)), nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1))):
        with pytest.raises(ValueError, match="does not declare which submodule is its head; call"):
            head_name(model, INPUTS[:2])


def test_methods_find_what_would_have_been_declared() -> None:
    torch.manual_seed(0)
    model = Own().eval()
    runs = {
        fisher_forgetting: {},
        boundary_expand: {"steps": 2, "batch_size": 5},
        mean_feature_head: {"steps": 2, "rounds": 1, "batch_size": 5},
        erase_to_retain: {"where": "inner", "rank": 2, "rounds": 1, "restore_epochs": 1, "batch_size": 5},
    }
    found = {method: method(model, TASK, **options).model for method, options in runs.items()}
    probed = audits.linear_probe(model, TASK)
    assert "unlearn_kit_head" not in vars(model)
    assert all("unlearn_kit_head" not in vars(m) for result in found.values() for m in result.modules())
    models.declare_head(model, "logits_layer")
    for method, options in runs.items():
        assert same_state(found[method], method(model, TASK, **options).model)
    assert probed == audits.linear_probe(model, TASK)


def test_a_head_is_swapped_without_being_declared() -> None:
    first, second = (nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2))
    swapped = composition.swap_head(first, second)
    assert torch.equal(swapped.get_parameter("3.weight"), second[3].weight)
    assert torch.equal(swapped.get_parameter("1.weight"), first[1].weight)
