"""Weights of a deployed model: found in any customary file, written back as they came."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unlearn_kit import CheckpointError, adapters
from unlearn_kit.deployed import fit_weights, load_into, read_weights, write_weights


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def prefixed(state: Any, prefix: str) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


ADAM = {"state": {0: {"exp_avg": torch.ones(4, 3), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}

# What is saved, of a state dict; where the weights are in it; what stands before their names; what is left out.
FILES: dict[str, tuple[Any, tuple[str, ...], str, tuple[str, ...]]] = {
    "plain": (lambda s: s, (), "", ()),
    "parallel": (lambda s: prefixed(s, "module."), (), "'module.'", ()),
    "compiled in parallel": (lambda s: prefixed(s, "module._orig_mod."), (), "'_orig_mod.' and 'module.'", ()),
    "checkpoint": (
        lambda s: {"epoch": 3, "state_dict": s, "optimizer": ADAM, "args": {"lr": 0.1}},
        ("state_dict",),
        "",
        ("optimizer",),
    ),
    "lightning": (
        lambda s: {"state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(3)}, "optimizer_states": [ADAM]},
        ("state_dict",),
        "'model.'",
        ("optimizer_states",),
    ),
    "averaged": (
        lambda s: {"ema": {"state_dict": prefixed(s, "net.backbone."), "decay": 0.9}, "teacher": {"a": torch.ones(2)}},
        ("ema", "state_dict"),
        "'net.backbone.'",
        ("teacher",),
    ),
    "compiled in Lightning in parallel": (
        lambda s: {"state_dict": prefixed(s, "model.module._orig_mod.")},
        ("state_dict",),
        "'model.' and '_orig_mod.' and 'module.'",
        (),
    ),
    "twice a model": (lambda s: {"state_dict": prefixed(s, "model.model.")}, ("state_dict",), "'model.model.'", ()),
    "timm": (
        lambda s: {"arch": "x", "state_dict": s, "state_dict_ema": prefixed(s, "module.")},
        ("state_dict",),
        "",
        ("state_dict_ema",),
    ),
    "MONAI": (lambda s: {"net": s, "opt": ADAM}, ("net",), "", ("opt",)),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": 0.5}, ("model_state_dict",), "", ()),
    "YOLO": (lambda s: {"epoch": 1, "model": {"state_dict": s}, "ema": None}, ("model", "state_dict"), "", ()),
    "AveragedModel": (
        lambda s: {"ema": {"n_averaged": torch.tensor(7), **prefixed(s, "module.")}},
        ("ema",),
        "'module.'",
        (),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_are_found_and_written_back_as_they_came(name: str, tmp_path: Path) -> None:
    made, key, stripped, left_out = FILES[name]
    trained, revised = network(0), network(1)
    content = made(trained.state_dict())
    torch.save(content, tmp_path / "old.pth")
    file = read_weights(tmp_path / "old.pth")
    assert (file.form, file.key) == ("pth", key)
    fitted = fit_weights(file, network(2))
    assert fitted.stripped == stripped
    loaded = load_into(fitted, network(2))
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), trained.state_dict().values(), strict=True)
    )

    assert write_weights(fitted, revised.state_dict(), tmp_path / "new.pth") == left_out
    found = torch.load(tmp_path / "new.pth", weights_only=True)
    expected = made(revised.state_dict())
    # All that serves is there, in its order and under its names; what else holds tensors is not.
    assert list(found) == [each for each in expected if each not in left_out]
    inner, wanted = found, expected
    for part in key:
        inner, wanted = inner[part], wanted[part]
    assert list(inner) == list(wanted)
    assert all(torch.equal(inner[each], wanted[each]) for each in wanted)
    assert {k: v for k, v in found.items() if k in ("epoch", "args")} == {
        k: v for k, v in expected.items() if k in ("epoch", "args")
    }
    # The same weights make the same bytes, under any name.
    write_weights(fitted, revised.state_dict(), tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "new.pth").read_bytes()
    # The other form holds the names that the file has.
    write_weights(fitted, revised.state_dict(), tmp_path / "new.safetensors", form="safetensors")
    assert {each: t.tolist() for each, t in load_file(tmp_path / "new.safetensors").items()} == {
        each: t.tolist() for each, t in inner.items()
    }
    assert not list(tmp_path.glob(".*"))


def test_safetensors_keep_their_header_and_half_precision(tmp_path: Path) -> None:
    trained, revised = network(0).half(), network(1)
    save_file(trained.state_dict(), tmp_path / "old.safetensors", metadata={"format": "pt", "by": "hospital"})
    fitted = fit_weights(read_weights(tmp_path / "old.safetensors"), network(2))
    loaded = load_into(fitted, network(2))
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}
    write_weights(fitted, revised.state_dict(), tmp_path / "new.safetensors")
    read = read_weights(tmp_path / "new.safetensors")
    assert read.content | {"format": "pt", "by": "hospital"} == read.content
    assert torch.equal(read.tensors["0.weight"], revised.half().state_dict()["0.weight"])


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    torch.save(tied(0).state_dict(), tmp_path / "old.pth")
    fitted = fit_weights(read_weights(tmp_path / "old.pth"), tied(1))
    write_weights(fitted, tied(2).state_dict(), tmp_path / "new.pth")
    found = torch.load(tmp_path / "new.pth", weights_only=True)
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()
    apart = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).state_dict()
    torch.save(apart, tmp_path / "apart.pth")
    with pytest.raises(CheckpointError, match="tensors that are tied in the model differ in the file"):
        load_into(fit_weights(read_weights(tmp_path / "apart.pth"), tied(1)), tied(1))


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_what_cannot_be_opened_safely_is_refused_with_the_way_out(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({"state_dict": network().state_dict(), "hook": Touch(touched)}, tmp_path / "hostile.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Touch(touched)))
    torch.save(network(), tmp_path / "whole.pth")
    for name in ("hostile.pth", "bare.pth", "whole.pth"):
        with pytest.raises(
            CheckpointError, match=r"run any code. Convert it by these two lines:\ncontent = torch.load"
        ):
            read_weights(tmp_path / name)
    assert not touched.exists()


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    state = network().state_dict()
    save = lambda content: torch.save(content, tmp_path / "a.pth")  # noqa: E731
    with pytest.raises(FileNotFoundError, match="expected weights to be an existing path"):
        read_weights(tmp_path / "none.pth")
    save({"model": state, "ema": prefixed(state, "module.")})
    with pytest.raises(
        CheckpointError, match=r"some under each of \['model', 'ema'\]; say by key= which of them serves"
    ):
        read_weights(tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth", key="ema").key == ("ema",)
    with pytest.raises(ValueError, match=r"expected the key in .* to be one of \['model', 'ema'\], but got 'em'"):
        read_weights(tmp_path / "a.pth", key="em")
    save({"epoch": 3, "weights": [1, 2]})
    with pytest.raises(CheckpointError, match=r"to hold named tensors, but got \{'epoch': 'int', 'weights': 'list'\}"):
        read_weights(tmp_path / "a.pth")
    save(prefixed({name: t for name, t in state.items() if name != "3.bias"} | {"9.x": torch.ones(1)}, "model."))
    with pytest.raises(CheckpointError, match=r"without 'model.' before .*: missing '3.bias'; unexpected 'model.9.x'"):
        fit_weights(read_weights(tmp_path / "a.pth"), network())
    wide = copy.deepcopy(network())
    wide[3] = nn.Linear(4 * 36, 5)
    save(wide.state_dict())
    with pytest.raises(
        CheckpointError, match=r"'3.bias' is float32 \(5,\) in the file and float32 \(3,\) in the model"
    ):
        fit_weights(read_weights(tmp_path / "a.pth"), network())
    save(state)
    fitted = fit_weights(read_weights(tmp_path / "a.pth"), network())
    with pytest.raises(ValueError, match="expected state to have the names of the original's, but got"):
        write_weights(fitted, {**state, "more": torch.ones(1)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="expected form to be one of"):
        write_weights(fitted, state, tmp_path / "b.pth", form="onnx")
    with pytest.raises(FileNotFoundError, match="existing folder"):
        write_weights(fitted, state, tmp_path / "none" / "b.pth")
    save({**prefixed(state, "student."), **prefixed(state, "teacher.")})
    with pytest.raises(
        CheckpointError, match=r"the whole model after each of \['student.', 'teacher.'\]; leave the oth"
    ):
        fit_weights(read_weights(tmp_path / "a.pth"), network())
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_weights(tmp_path / "text.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="cannot read"):
        read_weights(tmp_path / "cut.pth")


def test_files_of_adapters_and_of_runs_are_told_apart(tmp_path: Path) -> None:
    adapted = adapters.attach(network(), "3", rank=1)
    path = adapters.save(adapted, tmp_path / "adapters.safetensors")
    with pytest.raises(CheckpointError, match="to hold the weights of a model, but it holds adapters alone"):
        fit_weights(read_weights(path), network())
    low = {f"base_model.model.3.lora_{part}.weight": torch.ones(1, 3) for part in "AB"}  # as peft writes them
    save_file(low, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="but it holds adapters alone"):
        fit_weights(read_weights(tmp_path / "adapter_model.safetensors"), network())
    save_file(network().state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="to hold adapters, but it holds"):
        adapters.load(network(), tmp_path / "whole.safetensors")
