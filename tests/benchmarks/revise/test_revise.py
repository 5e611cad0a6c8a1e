"""The command ``revise``: from a folder and a file of weights to a revised checkpoint with its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.revise.request import read_request
from unlearn_kit import models


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory beside which are images with a table, and weights that serve."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    images = tmp_path / "images"
    images.mkdir()
    rows = ["file,label,split,device,year"]
    draw = np.random.default_rng(0)
    for i in range(32):
        label, device = ("cat", "dog")[i % 2], "AB"[i // 2 % 2]
        pixels = draw.integers(0, 100, (8, 8, 3)).astype(np.uint8)
        pixels[..., i % 2] += 120
        Image.fromarray(pixels).save(images / f"{i:02}.png")
        year = "" if i == 0 else str(2015 + i % 8)
        rows.append(f"{i:02}.png,{label},{'train' if i < 20 else 'test'},{device},{year}")
    (images / "metadata.csv").write_text("\n".join(rows))
    torch.save(models.build("small-cnn", 2, 3, width=4, seed=0).state_dict(), tmp_path / "served.pth")
    return tmp_path


GIVEN = ["--model", "kit:small-cnn", "--option", "width=4", "--weights", "served.pth", "--data", "images"]
METHOD = ["--method", "finetune:steps=2:batch_size=8", "--out", "out/b"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["revise", *arguments])


def test_options_and_a_file_say_the_same(place: Path) -> None:
    asked = [*GIVEN, "--forget", "device == B and year < 2019", *METHOD]
    look = run(*asked, "--dry-run")
    assert look.exit_code == 0, look.output
    assert "nothing was changed; look at out/b-preview.html" in look.output
    assert not (place / "out" / "b").exists()
    done = run(*asked)
    assert done.exit_code == 0, done.output
    assert "revised: out/b/served.pth" in done.output
    names = {"served.pth", "receipt.json", "receipt.md", "index.html", "revision.yaml"}
    assert {path.name for path in (place / "out" / "b").iterdir()} == names
    state = torch.load("out/b/served.pth", weights_only=True)
    assert list(state) == list(torch.load("served.pth", weights_only=True))
    # The file that was written says the same request, and finds it done; one of its values can be replaced.
    again = run("out/b/revision.yaml")
    assert again.exit_code == 0, again.output
    assert "this revision was there already, in out/b" in again.output
    other = run("out/b/revision.yaml", "--forget-class", "dog", "--out", "out/dog", "--format", "safetensors")
    assert other.exit_code == 0, other.output
    assert (place / "out" / "dog" / "served.safetensors").exists()
    told = yaml.safe_load((place / "out" / "dog" / "revision.yaml").read_text())
    assert (told["forget_class"], "forget" in told, told["form"]) == ("dog", False, "safetensors")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--forget", "device = B"], "expected one of == != < <= > >= 'in' 'is' at character 8"),
        (["--forget", "device == C"], "a value that occurs, one of 'A', 'B', but got 'C'"),
        (["--forget", "scanner == C"], "'file', 'label', 'split', 'device', 'year', but got 'scanner'"),
        (["--forget-class", "cow"], "expected forget_class to be one of ['cat', 'dog'], but got 'cow'"),
        ([], "expected one of forget and forget_class, but got neither"),
        (["--forget", "device == B", "--forget-class", "cat"], "expected one of forget and forget_class"),
        (["--forget-class", "cat", "--method", "finetun"], "did you mean 'finetune'?"),
        (["--forget-class", "cat", "--method", "finetune:step=3"], "did you mean 'steps'?"),
        (["--forget-class", "cat", "--mean", "0.5,x"], "expected --mean to be numbers by comma, but got '0.5,x'"),
        (["--forget-class", "cat", "--option", "width"], "expected --option NAME=VALUE, but got 'width'"),
        (["--forget-class", "cat", "--weights", "none.pth"], "expected weights to be an existing path"),
        (["--forget-class", "cat", "--model", "kit:small"], "expected model of kit to be one of"),
        (["--forget-class", "cat", "--option", "width=5"], "does not fit this Sequential"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing(place: Path, asked: list[str], message: str) -> None:
    result = run(*GIVEN, *METHOD, *asked)
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", "")
    assert not (place / "out").exists()


def test_a_file_is_refused_by_its_key(place: Path) -> None:
    path = place / "r.yaml"
    for text, message in (
        ("model: timm:resnet10t", "r.yaml: data: expected a value, but got none"),
        ("modell: x", "did you mean 'model'?"),
        ("[1, 2]", "r.yaml: expected a mapping, with keys such as model, but got list"),
        (
            "{model: a:b, data: d, forget: x == 1, out: o, seed: -1}",
            "r.yaml: seed: expected greater than or equal to 0",
        ),
        ("{model: a:b, data: d, forget: x == 1, out: o, device: gpu}", "device"),
        ("{model: a:b, data: {root: d, sise: [3, 3]}, forget: x == 1, out: o}", "did you mean 'size'?"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"r\.yaml") as found:
            read_request(path, {})
        assert message in str(found.value)


def test_what_is_known_of_the_table_and_the_request_is_told(place: Path) -> None:
    path = place / "images" / "metadata.csv"
    rows = path.read_text().replace(",A,", ",Gerät,").replace(",", ";").splitlines()
    rows = [f"{row};{'patient' if i == 0 else f'p{i // 4}'}" for i, row in enumerate(rows)]
    path.write_bytes("\n".join(rows).encode("cp1252"))
    asked = [*GIVEN, "--forget", "device == Gerät and year < 2019", *METHOD, "--dry-run"]
    look = run(*asked)
    assert look.exit_code == 0, look.output
    for told in (
        "metadata.csv: fields are separated by ';'",
        "metadata.csv: read as cp1252, which is a guess",
        "1 rows of train_metadata are not forgotten, since what is asked for is missing: 'year' in 1",
        "patient forgotten in part: 'p0'",
        "patients, of training data",
    ):
        assert told in look.output, look.output
    said = run(*asked, "--encoding", "cp1252", "--separator", ";")
    assert said.exit_code == 0, said.output
    assert "a guess" not in said.output
