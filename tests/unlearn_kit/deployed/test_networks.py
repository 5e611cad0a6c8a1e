"""Architectures by where they come from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unlearn_kit.deployed import build_network

OWN = """
from torch import nn

def net(num_classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.Linear(width, num_classes))

def text():
    return "no module"
"""


@pytest.mark.parametrize(
    ("source", "options", "classes", "shape", "out"),
    [
        ("timm:resnet10t", {}, 3, (2, 3, 32, 32), (2, 3)),
        ("torchvision:squeezenet1_1", {}, 4, (2, 3, 32, 32), (2, 4)),
        ("smp:Unet/resnet18", {"decoder_channels": [16, 8, 8, 4, 4]}, 2, (2, 1, 32, 32), (2, 1, 32, 32)),
        ("smp:Segformer/mit_b0", {}, 3, (2, 1, 64, 64), (2, 3, 64, 64)),
        (
            "monai:UNet",
            {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 1},
            2,
            (2, 1, 8, 8, 8),
            (2, 2, 8, 8, 8),
        ),
        ("kit:small-cnn", {"width": 4}, 5, (2, 1, 28, 28), (2, 5)),
    ],
)
def test_networks_of_each_library(
    source: str, options: dict[str, object], classes: int, shape: tuple[int, ...], out: tuple[int, ...]
) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = build_network(source, options, num_classes=classes, channels=shape[1])
    torch.set_rng_state(state)
    with torch.no_grad():
        assert network.model.eval()(torch.rand(shape)).shape == out
    assert (network.source, network.normalization is not None) == (source, source.startswith("timm"))
    if network.normalization is not None:
        assert network.normalization.mean == (0.485, 0.456, 0.406)
        assert network.normalization.source == "timm's configuration of resnet10t"


def test_a_folder_of_hugging_face(tmp_path: Path, vit: Any) -> None:
    vit.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
    )
    network = build_network(f"hf:{tmp_path}")
    assert type(network.model) is type(vit)
    assert all(torch.equal(a, b) for a, b in zip(network.model.parameters(), vit.parameters(), strict=True))
    assert network.normalization is not None
    assert (network.normalization.mean, network.normalization.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_function_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_net_of_test", raising=False)
    built = build_network("my_net_of_test:net", {"width": 5}, num_classes=3, channels=1)
    assert isinstance(built.model, nn.Sequential)
    assert built.options == {"width": 5, "num_classes": 3}
    with pytest.raises(TypeError, match=r"to return a torch.nn.Module, but got str"):
        build_network("my_net_of_test:text")
    with pytest.raises(ValueError, match="expected module 'my_net_of_test' to have a function 'nett'"):
        build_network("my_net_of_test:nett")
    with pytest.raises(ValueError, match="expected options that my_net_of_test:net takes, but it says: TypeError"):
        build_network("my_net_of_test:net", {"depth": 3}, num_classes=3)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("resnet18", ValueError, "expected the model's source to be LIBRARY:NAME with one of"),
        ("timm:", ValueError, "expected the model's source to be LIBRARY:NAME with one of"),
        ("timm:resnet10", ValueError, "expected model of timm .* did you mean 'resnet10t'"),
        ("torchvision:resnet19", ValueError, "did you mean 'resnet1"),
        ("smp:Unett", ValueError, "expected options that smp:Unett takes, but it says"),
        ("smp:Unet/resnet19", ValueError, "expected encoder of smp .* did you mean 'resnet1"),
        ("monai:Unett", ValueError, "expected network of monai .* did you mean"),
        ("hf:/no/such/folder", FileNotFoundError, "expected the folder of hf: to be an existing path"),
        ("no_module_of_this_name:net", ImportError, "module 'no_module_of_this_name' cannot be imported"),
        (3, TypeError, "expected source to be a str, but got int"),
    ],
)
def test_what_cannot_be_built_is_named(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_network(source)
