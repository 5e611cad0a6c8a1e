"""The command ``revise``: from a folder and a file of weights to a revised checkpoint with its evidence."""

from __future__ import annotations

import json
import re
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
from unlearn_kit.evidence import Receipt, read_receipt, seal
from unlearn_kit.hashing import hash_file


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
    names = {"data.json", "index.html", "receipt.json", "receipt.md", "revision.yaml", "served.pth", "statement.json"}
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


ASKED = ["--by", "Clinic North", "--ticket", "R-17", "--basis", "GDPR Art. 17", "--date", "2026-02-03"]


def command(name: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, [name, *arguments])


def test_what_was_asked_stands_in_every_form_of_the_receipt(place: Path) -> None:
    done = run(*GIVEN, "--forget-class", "dog", *METHOD, *ASKED, "--audit", "quantization", "--patient", "device")
    assert done.exit_code == 0, done.output
    assert "not tested" in done.output
    values = json.loads((place / "out/b/receipt.json").read_text())
    assert values["asked"] == {
        "by": "Clinic North",
        "ticket": "R-17",
        "basis": "GDPR Art. 17",
        "date": "2026-02-03",
    }
    assert (values["settings"]["audits"], values["data"]["groups"]) == (["quantization"], 2)
    lists = json.loads((place / "out/b/data.json").read_text())
    first = lists["forget"][0]["files"]
    assert {name: hash_file(place / "images" / name) for name in first} == first
    for form, text in (("verdicts", "verdict"), ("markdown", "ticket R-17"), ("card", "| claim | verdict |")):
        shown = command("receipt", "out/b", "--as", form)
        assert (shown.exit_code, text in shown.output) == (0, True), shown.output
    assert json.loads(command("receipt", "out/b", "--as", "json").output) == values
    told = json.loads(command("receipt", "out/b", "--as", "statement").output)
    assert told["subject"] == [{"name": "served.pth", "digest": {"sha256": hash_file(place / "out/b/served.pth")}}]
    assert command("receipt", "out/b", "--card", "README.md").exit_code == 0
    assert "## Unlearning" in (place / "README.md").read_text()
    for arguments, message in (
        (["images"], "expected a folder with a receipt.json"),
        (["out/b", "--as", "pdf"], "--as"),
    ):
        wrong = command("receipt", *arguments)
        assert (wrong.exit_code, message in wrong.output) == (2, True), wrong.output


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_verify_names_what_differs(place: Path) -> None:
    assert run(*GIVEN, "--forget", "device == B", *METHOD).exit_code == 0
    fine = command("verify", "out/b")
    assert (fine.exit_code, "nothing differs" in fine.output) == (0, True), fine.output
    assert "checked: 5 scores of served.pth" in fine.output
    assert "checked: the original's weights" in fine.output
    folder = place / "out/b"
    forgotten = next(iter(json.loads((folder / "data.json").read_text())["forget"][0]["files"]))
    changes: list[tuple[Any, list[str]]] = [
        (lambda: flip(folder / "served.pth"), ["differs: served.pth: expected SHA-256"]),
        (lambda: (folder / "revision.yaml").write_text("{"), ["differs: revision.yaml", "not checked: the scores"]),
        (lambda: (folder / "served.pth").write_bytes(b"x"), ["differs: served.pth", "not checked: the scores"]),
        (lambda: flip(folder / "index.html"), ["differs: index.html"]),
        (
            lambda: edit(folder / "revision.yaml", "steps=2", "steps=3"),
            ["differs: option steps in revision.yaml: expected 2, but got 3"],
        ),
        (lambda: edit(folder / "revision.yaml", "finetune", "neg_grad"), ["differs: method in revision.yaml"]),
        (
            lambda: edit(folder / "receipt.json", '"steps": 2', '"steps": 3'),
            ["differs: name and options of the method"],
        ),
        (lambda: edit(folder / "receipt.md", "not shown", "shown"), ["differs: receipt.md"]),
        (lambda: edit(folder / "receipt.json", '"value": "not shown"', '"value": "shown"'), ["statement.json"]),
        (lambda: (folder / "more.txt").write_text("x"), ["differs: more.txt: expected no such file"]),
        (lambda: flip(folder / "data.json"), ["differs: data.json"]),
        (
            lambda: Image.new("RGB", (8, 8)).save(place / "images" / forgotten),
            [f"differs: forget list: {forgotten}: expected SHA-256", "differs: what the request selects"],
        ),
        (lambda: (place / "images" / forgotten).unlink(), [f"differs: forget list: {forgotten}", "the scores"]),
        (lambda: flip(place / "served.pth"), ["differs: original served.pth"]),
    ]
    originals = {
        path: path.read_bytes() for path in (*folder.iterdir(), place / "images" / forgotten, place / "served.pth")
    }
    for change, told in changes:
        change()
        found = command("verify", "out/b", *([] if len(told) > 1 else ["--no-score"]))
        assert (found.exit_code, [text for text in told if text not in found.output]) == (1, []), found.output
        (folder / "more.txt").unlink(missing_ok=True)
        for path, content in originals.items():
            path.write_bytes(content)
    # Somebody who writes all of it anew is found by scoring again.
    other = models.build("small-cnn", 2, 3, width=4, seed=5).state_dict()
    torch.save(other, folder / "served.pth")
    values, digest = read_receipt(folder), hash_file(folder / "served.pth")
    files = {"files": values["files"] | {"served.pth": digest}}
    seal(Receipt(values | files | {"checkpoints": {**values["checkpoints"], "after": {"served.pth": digest}}}), folder)
    assert "differs: membership AUC by loss" in command("verify", "out/b").output
    assert command("verify", "images").exit_code == 2
    assert command("verify", "out/b", "--data", "none").exit_code == 2


def test_a_second_revision_stands_on_the_first(place: Path) -> None:
    assert run(*GIVEN, "--forget", "device == B", *METHOD).exit_code == 0
    given = ["out/b/served.pth" if word == "served.pth" else word for word in GIVEN]
    second = run(*given, "--forget-class", "dog", *METHOD[:-1], "out/c")
    assert second.exit_code == 0, second.output
    (earlier,) = json.loads((place / "out/c/receipt.json").read_text())["earlier"]
    assert (earlier["name"], earlier["sha256"]) == ("b/receipt.json", hash_file(place / "out/b/receipt.json"))
    assert "Stands on the receipt b/receipt.json" in (place / "out/c/receipt.md").read_text()
    assert run(*given, "--forget-class", "cat", *METHOD[:-1], "out/d", "--earlier", "images").exit_code == 2


def test_a_reference_is_trained_and_its_cost_told_first(place: Path) -> None:
    asked = [*GIVEN, "--forget", "device == B", *METHOD[:-1]]
    done = run(*asked, "out/small", "--reference", "subsample:0.5:epochs=2:batch_size=4")
    assert done.exit_code == 0, done.output
    assert re.search(r"a pair of models on 50% of the data is trained first, in about \d+ s", done.output), done.output
    values = json.loads((place / "out/small/receipt.json").read_text())
    told = values["figures"]["verdicts on a retraining with 50% of the data"]
    assert set(told) == {one["name"] for one in values["verdicts"]}
    assert told["weights changed"] == "shown"
    assert (values["models"]["reference"], "a retraining with 50%" in (place / "out/small/index.html").read_text()) == (
        None,
        True,
    )
    whole = run(*asked, "out/whole", "--reference", "retrain:steps=2")
    assert whole.exit_code == 0, whole.output
    assert json.loads((place / "out/whole/receipt.json").read_text())["models"]["reference"] is not None
    for wrong, message in (
        ("subsample:2", "SHARE is in (0, 1)"),
        ("retrain:epoch=2", "did you mean 'epochs'?"),
        ("retrain:2", "expected reference to be none, a file of weights, retrain or subsample:SHARE"),
        ("none.pth", "expected weights to be an existing path"),
    ):
        refused = run(*asked, "out/wrong", "--reference", wrong)
        assert (refused.exit_code, message in refused.output.replace("\n", "")) == (2, True), refused.output
    assert run(*asked, "out/none", "--reference", "none").exit_code == 0
