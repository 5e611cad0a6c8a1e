"""A 3-D network that serves forgets a patient: from a folder of volumes, by command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.cli import app
from unlearn_kit import UnlearnTask, adapters, data, metrics
from unlearn_kit.deployed import deployed

OPTIONS: dict[str, Any] = {"channels": (2, 4), "strides": (2,)}
GIVEN = [
    "--model",
    "monai:UNet",
    "--weights",
    "net.pth",
    "--data",
    "volumes",
    "--mask-column",
    "mask",
    "--window=0,200",
]
GIVEN += [part for name, value in OPTIONS.items() for part in ("--option", f"{name}={value}")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with volumes of five patients, brighter where the mask is, and a trained network."""
    nibabel, nets = pytest.importorskip("nibabel"), pytest.importorskip("monai.networks.nets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "volumes").mkdir()
    draw, rows = np.random.default_rng(0), ["file,mask,patient,split"]
    for i in range(10):
        mask = np.zeros((8, 8, 8), np.uint8)
        low = draw.integers(0, 4, 3)
        mask[tuple(slice(at, at + 4) for at in low)] = 1
        values = (draw.integers(0, 60, mask.shape) + 120 * mask).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volumes" / f"{i}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "volumes" / f"{i}-mask.nii.gz")
        rows.append(f"{i}.nii.gz,{i}-mask.nii.gz,{i // 2:02},{'train' if i < 6 else 'test'}")
    (tmp_path / "volumes" / "metadata.csv").write_text("\n".join(rows))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.save(nets.UNet(3, 1, 2, **OPTIONS).state_dict(), "net.pth")
    torch.set_rng_state(state)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["revise", *arguments])


def test_a_3d_unet_forgets_a_patient(place: Path) -> None:
    asked = [*GIVEN, "--forget", "patient == 01", "--method", "perturbed_sign:steps=2:batch_size=2", "--out", "out"]
    look = run(*asked, "--dry-run")
    assert look.exit_code == 0, look.output
    assert "--" not in look.output
    done = run(*asked)
    assert done.exit_code == 0, done.output
    values = json.loads((place / "out" / "receipt.json").read_text())
    assert values["request"]["samples"] == 2
    # What the receipt measured is the mean over volumes of each one's overlap, counted by hand.
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.UNet(3, 1, 2, **OPTIONS).eval()
    net.load_state_dict(torch.load("out/net.pth", weights_only=True))
    bundle = data.load("volume-folder", "volumes", mask_column="mask", window=(0, 200))
    scores = []
    for x, y in (bundle.train[2], bundle.train[3]):
        with torch.no_grad():
            found = net(x[None])[0].argmax(0).numpy().astype(bool)
        truth = y[0].numpy() > 0
        either = (found | truth).sum()
        scores.append((found & truth).sum() / either)
    assert values["metrics"]["after"]["forget"] == pytest.approx(np.mean(scores), abs=1e-9)
    dice = np.mean([2 * score / (1 + score) for score in scores])
    assert values["metrics"]["after"]["dice"]["forget"] == pytest.approx(dice, abs=1e-9)
    # The pictures are slices, with masks: of both what is forgotten and what stays.
    pages = [(place / name).read_text() for name in ("out-preview.html", "out/index.html")]
    assert [len(re.findall("data:image/png;base64,", page)) for page in pages] == [2 * 6, 4 * 6]


def test_adapters_of_volumes_leave_out_what_can_have_none(place: Path) -> None:
    bundle = data.load("volume-folder", "volumes", mask_column="mask", window=(0, 200))
    served = deployed("monai:UNet", "net.pth", bundle, options=OPTIONS)
    assert served.network.options == {**OPTIONS, "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    kinds = {name: type(module).__name__ for name, module in served.model.named_modules()}
    chosen = adapters.select(served.model, "all")
    assert {kinds[name] for name in chosen} == {"Conv3d"}
    (transposed,) = [name for name, kind in kinds.items() if kind == "ConvTranspose3d"]
    with pytest.raises(ValueError, match="chooses none: it is a ConvTranspose3d"):
        adapters.select(served.model, transposed)
    done = run(
        *GIVEN,
        "--forget",
        "patient == 01",
        "--method",
        "erase_to_retain:where=all:rounds=1:restore_epochs=1",
        "--out",
        "out",
    )
    assert done.exit_code == 0, done.output
    adapted = adapters.load(served.model, Path("out/adapters.safetensors"))
    merged = adapters.merge(adapted).state_dict()
    written = torch.load("out/net.pth", weights_only=True)
    assert all(torch.equal(merged[name], tensor) for name, tensor in written.items())
    task = UnlearnTask.forget_where(
        bundle.train, bundle.test, bundle.train_metadata, bundle.test_metadata, data.where("patient == 01")
    )
    values = json.loads(Path("out/receipt.json").read_text())
    assert metrics.evaluate(adapted, task).retain == pytest.approx(values["metrics"]["after"]["retain"], abs=1e-6)
