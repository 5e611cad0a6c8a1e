"""The requests that the guide to deployed models shows: on made-up folders of the same layout, and on the real sets.

The real sets are no part of the repository: where the environment variable ``UNLEARN_KIT_DATA`` names a folder that
holds them, the same commands run on them, too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from benchmarks.cli import app
from unlearn_kit import data
from unlearn_kit.deployed import deployed
from unlearn_kit.hashing import hash_model
from unlearn_kit.seeding import isolated

GUIDE = Path(__file__).parents[1] / "docs" / "deployed-models.md"
SETS = ("lgg-mri", "covid-chestxray", "pneumonia-xray")
REAL = os.environ.get("UNLEARN_KIT_DATA")

DRAW = np.random.default_rng(0)

# Small networks in the place of large ones, in commands and in the code that serves; and short revisions.
SMALL = (
    (
        "smp:Unet/resnet18",
        "smp:Unet/resnet18 --option encoder_depth=3 --option 'decoder_channels=(16,8,8)'",
    ),
    ('smp.Unet("resnet18", ', 'smp.Unet("resnet18", encoder_depth=3, decoder_channels=(16, 8, 8), '),
    ("timm:resnet18", "timm:resnet10t"),
    ('timm.create_model("resnet18"', 'timm.create_model("resnet10t"'),
    ("(16,32,64)", "(4,8,8)"),
    ("(16, 32, 64)", "(4, 8, 8)"),
    ("--method erase_to_retain", "--method erase_to_retain:rounds=1:restore_epochs=0:rank=2:batch_size=8"),
    ("--method perturbed_sign:batch_size=2", "--method perturbed_sign:steps=2:batch_size=2"),
    ("--method perturbed_sign ", "--method perturbed_sign:steps=2:batch_size=8 "),
)


def small(text: str) -> str:
    for whole, part in SMALL:
        text = text.replace(whole, part)
    return text


def section(title: str) -> str:
    """Return the text of a section of the guide."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return text


def commands(title: str) -> list[list[str]]:
    """Return the commands of a section, which are marked as shown: their data are made here, or are not at hand."""
    found = [
        shlex.split(small(line))
        for block in re.findall(r"^```console\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    assert all(words[0] == "unlearn-kit" for words in found)
    return [words[1:] for words in found]


def run(arguments: list[str]) -> Any:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return found


def write_set(root: Path, name: str, rows: list[dict[str, str]]) -> None:
    """Write pictures, masks and table of a made-up set in the layout of a real one."""
    for folder in ("images", "masks"):
        (root / name / folder).mkdir(parents=True)
    for row in rows:
        pixels = DRAW.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / name / row["file"])
        if "mask" in row:
            Image.fromarray((pixels[..., 0] > 127).astype(np.uint8) * 255).save(root / name / row["mask"])
    columns = list(rows[0])
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    (root / name / "metadata.csv").write_text("\n".join(",".join(line) for line in lines))


def made_up(root: Path) -> None:
    def split(i: int) -> str:
        return "test" if i >= 12 else "train"

    sites, patients = ("CS", "DU", "HT"), ("TCGA_CS_4941", "TCGA_DU_5851", "TCGA_HT_7473")
    lgg = [
        {
            "file": f"images/{i}.jpg",
            "label": ("none", "abnormal")[i % 2],
            "split": split(i),
            "mask": f"masks/{i}.png",
            "patient": patients[i // 2 % 3],
            "site": sites[i // 2 % 3],
            "scan_date": f"19{84 + i}-01-01",
        }
        for i in range(18)
    ]
    covid = [
        {
            "file": f"images/{i}.jpg",
            "label": ("covid-19", "other pneumonia", "no finding")[i % 3],
            "split": split(i),
            "patient": f"p{i}",
            "source": ("hannover", "radiopaedia.org")[i // 3 % 2],
            "view": "PA",
        }
        for i in range(18)
    ]
    pneumonia = [
        {
            "file": f"images/{i}.jpg",
            "label": ("bacterial", "viral", "normal")[i % 3],
            "split": split(i),
            "patient": "bacteria-1001" if i in (0, 3) else f"child-{i}",
        }
        for i in range(18)
    ]
    for name, rows in zip(SETS, (lgg, covid, pneumonia), strict=True):
        write_set(root, name, rows)


def write_networks() -> None:
    """Write the weights of small networks under the names of the guide."""
    smp, timm = pytest.importorskip("segmentation_models_pytorch"), pytest.importorskip("timm")
    nets, transformers = pytest.importorskip("monai.networks.nets"), pytest.importorskip("transformers")
    with isolated(0):
        unet = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 8), classes=1)
        torch.save(unet.state_dict(), "smp-unet.pth")
        torch.save(nets.UNet(2, 3, 2, channels=(4, 8, 8), strides=(2, 2)).state_dict(), "monai-unet.pth")
        torch.save(nets.UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2)).state_dict(), "unet-3d.pth")
        torch.save(timm.create_model("resnet10t", num_classes=3, in_chans=1).state_dict(), "resnet.pth")
        sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": 64, "patch_size": 32}
        config = transformers.ViTConfig(num_hidden_layers=1, num_attention_heads=2, num_labels=3, **sizes)
        transformers.ViTForImageClassification(config).save_pretrained("vit")
    Path("vit/preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')


CHECK = """
import sys

torch.manual_seed(0)
inputs, outputs = {}, {}
for name, model, channels in (("site", site, 3), ("patient", patient, 3), ("source", source, 1), ("child", child, 3)):
    x = inputs[name] = torch.rand(2, channels, 64, 64)
    with torch.no_grad():
        found = model.eval()(x if name != "child" else (x - 0.5) / 0.5)
    outputs[name] = found.logits if name == "child" else found
assert not {"unlearn_kit", "algorithms", "benchmarks"} & set(sys.modules)
torch.save({"inputs": inputs, "outputs": outputs}, "served.pt")
"""

# What the toolkit is asked to read again: the model, its weights, the set, and how it is read.
UNET = {"channels": (4, 8, 8), "strides": (2, 2)}
AGAIN: dict[str, tuple[str, str | None, str, dict[str, Any], dict[str, Any]]] = {
    "site": (
        "smp:Unet/resnet18",
        "smp-unet.pth",
        "lgg-mri",
        {"mask_column": "mask"},
        {"options": {"encoder_depth": 3, "decoder_channels": (16, 8, 8)}},
    ),
    "patient": ("monai:UNet", "monai-unet.pth", "lgg-mri", {"mask_column": "mask"}, {"options": UNET}),
    "source": ("timm:resnet10t", "resnet.pth", "covid-chestxray", {"channels": 1}, {"normalize": False}),
    "child": ("hf:out/child/model", None, "pneumonia-xray", {}, {}),
}


def check_requests(sets: Path) -> None:
    """Run the four requests, and the code that serves in a process that never heard of the toolkit."""
    write_networks()
    for arguments in commands("Four networks, four requests"):
        run(arguments)
    code = r"^```text\n((?:import|from) .*?)^```"
    (serving,) = re.findall(code, section("Four networks, four requests"), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", small(serving) + CHECK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    served = torch.load("served.pt", weights_only=True)
    for name, (source, weights, folder, reading, options) in AGAIN.items():
        bundle = data.load("image-folder", root=sets / folder, size=(64, 64), **reading)
        model = deployed(source, None if weights is None else f"out/{name}/{weights}", bundle, **options).model
        receipt = json.loads(Path(f"out/{name}/receipt.json").read_text())
        assert hash_model(model) == receipt["models"]["after"]
        assert receipt["models"]["before"] != receipt["models"]["after"]
        # Whoever may read the receipt may read what serves: the server is another user.
        modes = {path.stat().st_mode for path in Path("out", name).rglob("*") if path.is_file()}
        assert len(modes) == 1
        with torch.no_grad():
            said: Any = model.eval()(served["inputs"][name])
        torch.testing.assert_close(said.logits if name == "child" else said, served["outputs"][name])


@pytest.mark.filterwarnings("ignore:erase_to_retain changed no weight")
def test_the_requests_on_made_up_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_up(tmp_path)
    check_requests(tmp_path)


@pytest.mark.skipif(REAL is None, reason="UNLEARN_KIT_DATA names no folder of the real sets")
@pytest.mark.parametrize("name", SETS)
def test_a_real_set_has_the_columns_of_the_made_up_one(name: str, tmp_path: Path) -> None:
    made_up(tmp_path)
    columns = [(root / name / "metadata.csv").read_text().splitlines()[0].split(",") for root in (tmp_path, Path(REAL))]
    assert set(columns[0]) <= set(columns[1])


@pytest.mark.skipif(REAL is None, reason="UNLEARN_KIT_DATA names no folder of the real sets")
def test_the_requests_on_the_real_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SETS:
        (tmp_path / name).symlink_to(Path(str(REAL)).resolve() / name)
    check_requests(tmp_path)


def test_the_request_on_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nibabel = pytest.importorskip("nibabel")
    monkeypatch.chdir(tmp_path)
    write_networks()
    (tmp_path / "volumes").mkdir()
    rows = ["file,mask,patient,split"]
    for i in range(6):
        values = DRAW.integers(-300, 400, (8, 8, 8)).astype(np.int16)
        for name, content in ((f"{i}.nii.gz", values), (f"{i}-mask.nii.gz", (values > 0).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), tmp_path / "volumes" / name)
        rows.append(f"{i}.nii.gz,{i}-mask.nii.gz,{('07', '7', '08')[i // 2]},{'train' if i < 4 else 'test'}")
    (tmp_path / "volumes" / "metadata.csv").write_text("\n".join(rows))
    (arguments,) = commands("Volumes")
    run(arguments)
    receipt = json.loads(Path("out/volumes/receipt.json").read_text())
    assert receipt["request"]["samples"] == 2  # of patient 07, not of 7
    state = torch.load("out/volumes/unet-3d.pth", weights_only=True)
    net: nn.Module = pytest.importorskip("monai.networks.nets").UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2))
    net.load_state_dict(state)
