"""Files of adapters: small, of one original, and refused by what is wrong with them before anything is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unlearn_kit import CheckpointError, adapters, load_model, models, save_model
from unlearn_kit.checkpoints import load_tensors_file


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(num_classes=3, channels=1, width=4).eval()


def unet(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.unet(num_classes=2, channels=1, widths=(4, 8, 12, 16)).eval()


def test_file_of_the_decoder_preset_is_small_beside_the_model(tmp_path) -> None:
    model = models.unet(num_classes=2, channels=3)
    adapted = adapters.attach(model, "decoder", full=("segmentation_head",))
    adapter = adapters.save(adapted, tmp_path / "adapter.safetensors").stat().st_size
    whole = save_model(model, tmp_path / "model.safetensors").stat().st_size
    assert adapter < 0.15 * whole
    trainable, total = adapters.count_trainable(adapted)
    assert total == sum(p.numel() for p in model.parameters())
    assert trainable < 0.1 * total


def test_loading_onto_another_network_or_other_weights_is_refused(tmp_path) -> None:
    path = adapters.save(adapters.attach(unet(0), "decoder", rank=2), tmp_path / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"expected the architecture .* such as 'block1.0.weight': missing"):
        adapters.load(classifier(), path)
    other = unet(5)
    with pytest.raises(CheckpointError, match=r"expected the weights and buffers .* any_weights=True"):
        adapters.load(other, path)
    assert adapters.load(other, path, any_weights=True) is not other
    plain = save_model(classifier(), tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="to hold adapters, but it holds"):
        adapters.load(classifier(), plain)


Held = dict[str, torch.Tensor]
Header = dict[str, Any]
Alter = Callable[[Held, Header], Any]


def row(key: str, value: object) -> Alter:
    """Sets what the header says of the adapter."""
    return lambda _held, header: header["adapters"]["default"].__setitem__(key, value)


def first(
    change: Callable[[torch.Tensor], torch.Tensor | None], part: str = "lora_A"
) -> Callable[[Held, Header], None]:
    """Changes the first of the tensors of one part; drops it for None."""

    def alter(held: Held, _header: Header) -> None:
        key = next(key for key in held if part in key)
        changed = change(held.pop(key))
        if changed is not None:
            held[key] = changed

    return alter


ALTERED: dict[str, tuple[Alter, str]] = {
    "tensor dropped": (first(lambda _: None), "missing 'default/base_model.model.block5.0.lora_A.weight'"),
    "copy dropped": (first(lambda _: None, "head."), "missing 'default/base_model.model.head"),
    "all dropped": (lambda held, _: held.clear(), "missing 'default/base_model.model.block5"),
    "another tensor": (lambda held, _: held.update(other=torch.zeros(1)), "unexpected 'other'"),
    "targets shortened": (row("targets", []), "unexpected 'default/base_model.model.block5.0.lora_A.weight'"),
    "targets of another layer": (row("targets", ["block4.0"]), "missing 'default/base_model.model.block4.0.lora_A"),
    "targets unknown": (row("targets", ["neck"]), "there is no module 'neck' for adapter 'default'"),
    "targets twice": (row("targets", ["block5.0", "block5.0"]), "targets of adapter 'default' to be different names"),
    "targets a string": (row("targets", "block5.0"), "targets of adapter 'default' to be a list of str"),
    "full shortened": (row("full", []), "unexpected 'default/base_model.model.head"),
    "scaling NaN": (row("scaling", float("nan")), "expected scaling of adapter 'default' in"),
    "scaling infinite": (row("scaling", float("inf")), "expected scaling of adapter 'default' in"),
    "scaling None": (row("scaling", None), "expected scaling of adapter 'default' to be a number"),
    "alpha a string": (row("alpha", "8"), "expected alpha of adapter 'default' to be a number"),
    "dropout of 1": (row("dropout", 1), "expected dropout of adapter 'default' in"),
    "huge rank": (row("rank", 10**9), r"lora_A.weight' is torch.float32 \(2, .* and torch.float32 \(1000000000, "),
    "no rank": (row("rank", 0), "expected rank of adapter 'default' to be at least 1, but got 0"),
    "rank true": (row("rank", True), "expected rank of adapter 'default' to be an int, but got bool"),
    "row without rank": (
        lambda _, h: h["adapters"]["default"].pop("rank"),
        "expected adapter 'default' to have",
    ),
    "row a list": (lambda _, h: h["adapters"].update(default=[]), "expected adapter 'default' to have"),
    "no adapters": (lambda _, h: h["adapters"].clear(), "expected at least one adapter, but got none"),
    "adapters a list": (lambda _, h: h.update(adapters=[1]), "'adapters' in the header to be a dict"),
    "name": (lambda _, h: h["adapters"].update(other=h["adapters"].pop("default")), "missing 'other/base_model"),
    "int64": (first(lambda value: value.long()), r"is torch.int64 \(2, .* in the file and torch.float32"),
    "float64": (first(lambda value: value.double()), "is torch.float64"),
    "shape": (first(lambda value: value[:1]), r"is torch.float32 \(1, "),
    "NaN": (first(lambda value: value * torch.nan), "is not finite"),
    "version": (lambda _, h: h.update(format_version="99"), "expected format_version '1', but got '99'"),
    "no version": (lambda _, h: h.pop("format_version"), "expected format_version '1', but got None"),
    "no shapes": (lambda _, h: h.pop("shapes"), "expected a header with 'shapes'"),
    "no base": (lambda _, h: h.pop("base"), "expected a header with 'base'"),
    "shapes of text": (
        lambda _, h: h["shapes"].update({"head.weight": "3"}),
        r"shapes\['head.weight'\] to be a",
    ),
    "shapes altered": (lambda _, h: h["shapes"].update({"head.weight": [1]}), "such as 'head.weight'"),
    "no JSON": (lambda _, h: h.update(shapes="{"), "expected 'shapes' in the header to be JSON, but got '{'"),
    "deep": (lambda _, h: h.update(shapes="[" * 10**5), "cannot read the adapters"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_file_is_refused_by_what_was_altered(case: str, tmp_path: Path) -> None:
    alter, told = ALTERED[case]
    model = classifier()
    path = adapters.save(adapters.attach(model, "block5", rank=2, full=("head",)), tmp_path / "adapter.safetensors")
    tensors, texts = load_tensors_file(path)
    header = {key: json.loads(text) if key in ("adapters", "shapes") else text for key, text in texts.items()}
    alter(tensors, header)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()}
    save_file(tensors, path, metadata=texts)
    with pytest.raises(CheckpointError, match=told):
        adapters.load(model, path)


def test_files_of_adapters_and_of_models_are_told_apart(tmp_path: Path) -> None:
    model = classifier()
    adapter = adapters.save(adapters.attach(model, "head", rank=2), tmp_path / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"but it holds adapters.*adapters\.load"):
        load_model(model, adapter)
    whole = save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"to hold adapters, but it holds .* a whole model is read by load_model"):
        adapters.load(model, whole)
