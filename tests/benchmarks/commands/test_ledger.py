"""The commands ``unlearn-kit ledger``: what is added, listed, withdrawn, shown and verified, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from benchmarks.cli import app
from unlearn_kit.evidence import Ledger

ASKED = """
model: {{source: "{module}:own", weights: served.pth, normalize: false}}
data: images
forget: device == "{device}"
method: neg_grad_plus:steps=1
"""


def own(num_classes: int) -> nn.Module:
    """Build the network that serves, as a user's own function."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with images and a table, a file of weights, and requests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows, draw = ["file,label,split,device"], np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(32):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(tmp_path / "images" / f"{i:02}.png")
        rows.append(f"{i:02}.png,{('cat', 'dog')[i % 2]},{'train' if i < 24 else 'test'},{'ABCD'[i // 2 % 4]}")
    (tmp_path / "images" / "metadata.csv").write_text("\n".join(rows))
    torch.save(own(2).state_dict(), tmp_path / "served.pth")
    (tmp_path / "a.yaml").write_text(ASKED.format(module=__name__, device="A"))
    (tmp_path / "b.yaml").write_text('forget: device == "B"\nmethod: finetune:epochs=1\n')
    return tmp_path


def run(*arguments: str, leaves: int = 0) -> str:
    found = CliRunner().invoke(app, ["ledger", *arguments])
    assert found.exit_code == leaves, found.output
    return found.output


@pytest.mark.usefixtures("place")
def test_requests_are_added_listed_shown_withdrawn_and_verified(place: Path) -> None:
    assert "line 2: request a, " in run("add", "l", "a.yaml")
    added = run("add", "l", "b.yaml", "--name", "second")
    assert "line 3: request second, " in added
    assert "serves: l/requests/second/served.pth" in added
    listed = run("list", "l")
    assert re.search(r"second.*3.*in force", listed)
    assert "line 2, " in listed
    values = json.loads(run("list", "l", "--json"))
    assert [line["kind"] for line in values] == ["opening", "request", "request"]
    # Six training samples of device A, in the receipt too; the request as it was asked, and nothing of this machine.
    assert values[2]["kept_out"]["a"] == {"found": 6, "of": 6, "retained": 6}
    assert values[2]["asked"]["data"]["root"] == "../images"
    assert values[1]["asked"]["model"]["weights"] == "../served.pth"
    assert str(place) not in (place / "l" / "ledger.jsonl").read_text()
    shown = json.loads(run("show", "l", "--json"))
    assert (shown["line"], shown["active"]) == (3, ["a", "second"])
    assert shown["sha256"] in run("show", "l")
    assert "3 lines verify; head: " in run("verify", "l", "--head", shown["head"])
    assert "expected a request that no other stands on" in run("withdraw", "l", "a", leaves=2)
    # Its retain list is the one that the ledger left: nothing of device A.
    again = CliRunner().invoke(app, ["verify", "l/requests/second"])
    assert (again.exit_code, "nothing differs" in again.output) == (0, True), again.output
    assert "line 4: withdrawal second" in run("withdraw", "l", "second", "--reason", "asked")
    assert re.search(r"second.*withdrawn, line 4", run("list", "l"))
    (line,) = [line for line in Ledger("l").lines() if line.number == 4]
    assert line.values["standings"]["a"]["found"] == 6
    assert (place / "l" / "index.html").read_text().count("second withdrawn") == 1
    rewritten = (place / "l" / "ledger.jsonl").read_text().replace("finetune", "fine-tune")
    (place / "l" / "ledger.jsonl").write_text(rewritten)
    assert "wrong: line 3 was changed: line 4 names another SHA-256 of it" in run("verify", "l", leaves=1)
    for command in (("list", "l"), ("show", "l"), ("add", "l", "a.yaml", "--name", "x"), ("withdraw", "l", "a")):
        assert "line 3 was changed" in run(*command, leaves=2)
    (place / "l" / "ledger.jsonl").write_text("")
    assert "the end is missing: head.json names line 4, but the file holds none" in run("verify", "l", leaves=1)


@pytest.mark.usefixtures("place")
def test_a_folder_of_revise_is_added_from_wherever_the_command_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(app, ["revise", "a.yaml", "--out", "made"]).exit_code == 0
    assert "line 2: request made, " in run("add", "l", "made")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    (place / "elsewhere" / "c.yaml").write_text('forget: device == "C"\nmethod: finetune:epochs=1\n')
    assert "line 3: request c, " in run("add", "../l", "c.yaml")
    assert "verify" in run("verify", "../l")
    monkeypatch.chdir(place)
    assert CliRunner().invoke(app, ["revise", "a.yaml", "--forget", 'device == "D"', "--out", "other"]).exit_code == 0
    assert "expected folder to hold a revision of the model that serves now" in run("add", "l", "other", leaves=2)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("add", "l", "nowhere.yaml"), "expected REQUEST to be an existing path, but got 'nowhere.yaml'"),
        (("add", "l", "images"), "expected REQUEST to be a folder of `unlearn-kit revise`, but 'images' has no"),
        (("add", "l", "b.yaml"), "b.yaml: model: "),
        (("add", "l", "a.yaml", "--name", "a b"), "expected name to be letters, digits, '_' and '-', but got 'a b'"),
        (("add", "a.yaml", "a.yaml"), "expected folder to be a folder, but 'a.yaml' is a file"),
        (("add", "l", "images", "--join"), "expected --join with a revision.yaml, but got a folder"),
        (("list", "l"), "expected LEDGER to hold a ledger.jsonl"),
        (("show", "l"), "expected LEDGER to hold a ledger.jsonl"),
        (("verify", "l"), "expected LEDGER to hold a ledger.jsonl"),
        (("withdraw", "l", "a"), "expected LEDGER to hold a ledger.jsonl"),
        (("add", "l", "a.yaml", "--join"), "expected method to make one adapter to join those in service"),
    ],
)
def test_a_mistake_is_named(arguments: tuple[str, ...], text: str) -> None:
    assert text in " ".join(run(*arguments, leaves=2).split())
