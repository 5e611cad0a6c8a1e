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

import algorithms
from benchmarks.cli import app
from benchmarks.revise.progress import RevisionProgress, TimeEstimate, rehearse
from benchmarks.revise.request import read_request
from unlearn_kit import UnlearnTask, models
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Run
from unlearn_kit.hashing import hash_model


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
    assert "training takes up to" in look.output
    assert ": 2 steps of" in look.output
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


def test_how_the_command_leaves(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*GIVEN, "--forget-class", "cat", "--out", "out/b", "--method"]
    broken = run(*asked, "neg_grad:steps=9:lr=1e30:batch_size=8")
    assert (broken.exit_code, list(place.glob("out*"))) == (1, []), broken.output
    assert "error: " in broken.output
    assert run(*asked, "finetune:batch_size=0").exit_code == 2
    assert run(*asked, "finetune", "--no-such-option").exit_code == 2
    stopped: list[Run] = []

    def interrupt(self: RevisionProgress, run: Run) -> None:
        stopped.append(run)
        if len(stopped) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RevisionProgress, "on_step", interrupt)
        patch.setattr("unlearn_kit.deployed.revision.SAVED_EVERY", 0)
        found = run(*asked, "finetune:steps=4:batch_size=8")
    assert found.exit_code == 130, found.output
    assert "interrupted: the same command goes on where it was" in found.output
    assert not (place / "out" / "b").exists()
    done = run(*asked, "finetune:steps=4:batch_size=8")
    assert done.exit_code == 0, done.output
    assert "the revision was interrupted and went on where it was" in done.output
    assert "training takes up to" in done.output
    assert ": 2 steps of" in done.output  # those that were left
    assert not list((place / "out").glob(".*"))


def test_progress_is_for_terminals_and_the_rehearsal_trains_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TensorImages(torch.rand(8, 1, 8, 8), torch.arange(8) % 2)
    task = UnlearnTask.forget_samples(train, train, [0, 1])
    model = models.build("small-cnn", 2, 1, width=2, seed=0)
    before = hash_model(model)
    told: list[TimeEstimate] = []
    options: dict[str, Any] = {"steps": 7, "batch_size": 4}
    algorithms.finetune(model, task, callbacks=[RevisionProgress("working", told.append)], **options)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    algorithms.finetune(model, task, callbacks=[RevisionProgress("working", told.append)], **options)
    shown = capsys.readouterr()
    assert (shown.out, "working" in shown.err) == ("", True)
    estimate = rehearse(algorithms.finetune, model, task, **options)
    assert estimate is not None
    assert [found.steps for found in (*told, estimate)] == [7, 7, 7]
    assert rehearse(algorithms.finetune, model, task, steps=1) is not None
    assert hash_model(model) == before
    assert TimeEstimate(10.0, 2.0, 31).seconds == 70
    assert str(TimeEstimate(10.0, 2.0, 31)) == "training takes up to 70 s: 31 steps of 2 s"
