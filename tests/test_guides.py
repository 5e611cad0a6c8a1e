from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from unlearn_kit import UnlearnResult

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = sorted(DOCS.rglob("*.md"))
SHELL = re.compile(r"^```sh\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
NAME = re.compile(r"`([^`]+)`")
FENCED = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
LANGUAGE = re.compile(r"^ *```(\S*)\n.*?^ *```$", flags=re.DOTALL | re.MULTILINE)
# Pages whose commands are run by a test of their own, and those whose code needs what these commands make.
COMMANDS = ("deployed-models", "evidence", "ledger", "start", "suites")
AFTER_COMMANDS = ("deployed-models", "ledger")
SHOWN = ("console", "text")  # output, and what needs a key, a cluster or data that are not there


def blocks(guide: Path) -> list[str]:
    return FENCED.findall(guide.read_text(encoding="utf-8"))


def test_there_is_a_guide_to_adding_an_algorithm() -> None:
    assert "add-an-algorithm" in [guide.stem for guide in GUIDES]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.relative_to(DOCS).as_posix())
def test_every_block_is_run_or_marked_as_shown(guide: Path) -> None:
    languages = set(LANGUAGE.findall(guide.read_text(encoding="utf-8")))
    run = {"python"} | ({"sh", "yaml"} if guide.stem in COMMANDS else set())
    assert sorted(languages - run - set(SHOWN)) == []


@pytest.fixture
def hospital(tmp_path: Path) -> None:
    """Write what the guide to deployed models begins with: images with a table, and a file of weights."""
    import timm
    import torch
    from PIL import Image

    (tmp_path / "images").mkdir()
    rows = ["file,label,split,device,patient,year"]
    for i in range(24):
        Image.new("RGB", (32, 32), (200 * (i % 2), 10 * i, 40)).save(tmp_path / "images" / f"{i:02}.png")
        label, device, split = ("clear", "nodule")[i % 2], "ABB"[i % 3], "test" if i >= 16 else "train"
        rows.append(f"{i:02}.png,{label},{split},{device},{i // 2:02},{2015 + i % 5}")
    (tmp_path / "images" / "metadata.csv").write_text("\n".join(rows))
    model = timm.create_model("resnet10t", num_classes=2)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "served.pth")


def small(text: str) -> str:
    """Return a command or code of that guide for small images, a small network and a short revision."""
    for whole, part in (("224,224", "32,32"), ("224, 224", "32, 32"), ("resnet18", "resnet10t")):
        text = text.replace(whole, part)
    text = text.replace("--method erase_to_retain", "--method erase_to_retain:rounds=1:restore_epochs=0:rank=2")
    text = text.replace("erase_to_retain:restore_epochs=0", "erase_to_retain:restore_epochs=0:rounds=1:rank=2")
    text = text.replace("steps=20", "steps=2")
    options = '{"rounds": 1, "restore_epochs": 0, "rank": 2}'
    return text.replace('out="out/device-b")', f'out="out/device-b", options={options})')


@pytest.mark.usefixtures("hospital")
@pytest.mark.filterwarnings("ignore:erase_to_retain changed no weight")
@pytest.mark.filterwarnings("ignore:patient forgotten in part")
def test_the_walk_from_a_served_file_to_a_revised_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from benchmarks.cli import app

    monkeypatch.chdir(tmp_path)
    (guide,) = [guide for guide in GUIDES if guide.stem == "deployed-models"]
    walk = guide.read_text(encoding="utf-8").partition("## Judged by")[0]
    commands = [block.replace("\\\n", " ") for block in SHELL.findall(walk)]
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(small(command))
        found = CliRunner().invoke(app, arguments)
        assert (program, found.exit_code) == ("unlearn-kit", 0), found.output
    told = {path.name for path in (tmp_path / "out" / "device-b").iterdir()}
    named = {name for row in re.findall(r"^\| (`.*?) \|", walk, re.MULTILINE) for name in NAME.findall(row)}
    assert told == named
    (tmp_path / "guide.py").write_text(small("\n".join(FENCED.findall(walk))))
    names = runpy.run_path("guide.py")
    assert names["done"].result is None  # the command's own work, found again


@pytest.mark.usefixtures("hospital")
@pytest.mark.filterwarnings("ignore:erase_to_retain changed no weight")
def test_a_receipt_is_made_shown_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from benchmarks.cli import app

    monkeypatch.chdir(tmp_path)
    (guide,) = [guide for guide in GUIDES if guide.stem == "evidence"]
    lines = "\n".join(SHELL.findall(guide.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    commands = [shlex.split(small(line)) for line in lines if line]
    assert [command[1] for command in commands] == ["revise", "receipt", "receipt", "receipt", "verify"]
    for _, *arguments in commands:
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
    assert "## Unlearning" in (tmp_path / "README.md").read_text()


@pytest.mark.usefixtures("hospital")
@pytest.mark.filterwarnings("ignore:erase_to_retain changed no weight")
def test_the_walk_through_requests_over_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from benchmarks.cli import app
    from unlearn_kit.evidence import Ledger

    monkeypatch.chdir(tmp_path)
    (guide,) = [guide for guide in GUIDES if guide.stem == "ledger"]
    text = small(guide.read_text(encoding="utf-8"))
    for name, content in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content)
    commands = [line for block in SHELL.findall(text) for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        program, *arguments = shlex.split(command)
        found = CliRunner().invoke(app, arguments)
        assert (program, found.exit_code) == ("unlearn-kit", 0), found.output
    ledger = Ledger("ledger")
    assert (ledger.active(), len(ledger.lines())) == (["patient-03", "patient-06"], 5)
    (tmp_path / "guide.py").write_text(small("\n".join(blocks(guide))))
    names = runpy.run_path("guide.py")
    assert {other: one["retained"] for other, one in names["line"].values["kept_out"].items()} == {
        "patient-03": 2,
        "patient-06": 2,
    }
    assert ledger.active() == ["patient-03", "patient-06"]


@pytest.fixture
def radiology(tmp_path: Path) -> None:
    """Write what the section on several findings begins with: images of both forms of tables, and a file of weights."""
    import timm
    import torch
    from PIL import Image

    (tmp_path / "x-rays").mkdir()
    rows = ["file,Finding Labels,split,patient"]
    for i in range(32):
        Image.new("RGB", (32, 32), (120 * (i % 2), 60 * (i % 4 // 2), 5 * i)).save(tmp_path / "x-rays" / f"{i:02}.png")
        seen = ("No Finding", "Cardiomegaly", "Effusion", "Cardiomegaly|Effusion")[i % 4]
        rows.append(f"{i:02}.png,{seen},{'test' if i >= 20 else 'train'},{i // 2}")
    (tmp_path / "x-rays" / "metadata.csv").write_text("\n".join(rows))
    torch.save(timm.create_model("resnet10t", num_classes=2).state_dict(), tmp_path / "xray.pth")


@pytest.mark.usefixtures("radiology")
def test_several_findings_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from benchmarks.cli import app

    monkeypatch.chdir(tmp_path)
    (guide,) = [guide for guide in GUIDES if guide.stem == "deployed-models"]
    section = guide.read_text(encoding="utf-8").partition("## Several findings an image")[2].partition("\n## ")[0]
    commands = [
        command for block in SHELL.findall(section) for command in block.replace("\\\n", " ").strip().splitlines()
    ]
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(small(command))
        found = CliRunner().invoke(app, [*arguments, "--method", "perturbed_sign:steps=1"])
        assert (program, found.exit_code) == ("unlearn-kit", 0), found.output
    assert (tmp_path / "out" / "effusion" / "xray.pth").is_file()
    (code,) = FENCED.findall(section)
    short = small(code).replace('where="all"', 'where="all", rounds=1, rank=2').replace("64, 64", "32, 32")
    (tmp_path / "guide.py").write_text(short)
    names = runpy.run_path("guide.py")
    assert names["x_rays"].class_names == ("Cardiomegaly", "Effusion")
    assert names["weights"] == (1.0, 1.0)


def run_commands(text: str) -> None:
    from typer.testing import CliRunner

    from benchmarks.cli import app

    for line in "\n".join(SHELL.findall(text)).replace("\\\n", " ").strip().splitlines():
        program, *arguments = shlex.split(line)
        found = CliRunner().invoke(app, arguments)
        assert (program, found.exit_code) == ("unlearn-kit", 0), found.output


def test_the_start_from_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = (DOCS / "start.md").read_text(encoding="utf-8")
    (tmp_path / "sample.py").write_text(FENCED.findall(text)[0].replace('"digits")', '"digits", train_size=300)'))
    runpy.run_path("sample.py", run_name="__main__")
    run_commands(text)
    sys.modules.pop("sample")
    assert {"served.safetensors", "receipt.json", "index.html"} <= {
        path.name for path in (tmp_path / "out" / "no-threes").iterdir()
    }


def test_a_suite_of_ones_own_is_run_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "how-to" / "suites.md").read_text(encoding="utf-8")
    (content,) = re.findall(r"^```yaml\n# mine.yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(content)
    run_commands(text)
    assert {"report.html", "report.md"} <= {path.name for path in (tmp_path / "out" / "mine").iterdir()}


ALONE = [guide for guide in GUIDES if blocks(guide) and guide.stem not in AFTER_COMMANDS]


@pytest.mark.parametrize("guide", ALONE, ids=lambda guide: guide.relative_to(DOCS).as_posix())
def test_the_code_of_a_guide_runs_in_order(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide.py").write_text("\n".join(blocks(guide)).replace("from __future__ import annotations\n", ""))
    names = runpy.run_path("guide.py")
    if guide.stem == "add-an-algorithm":
        assert isinstance(names["result"], UnlearnResult)
        assert names["result"].method == "flatten"


def test_the_example_is_a_whole_file_of_its_own(tmp_path: Path) -> None:
    (guide,) = [guide for guide in GUIDES if guide.stem == "add-an-algorithm"]
    file = tmp_path / "flatten.py"
    file.write_text(blocks(guide)[0])
    assert callable(runpy.run_path(str(file))["flatten"])


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.relative_to(DOCS).as_posix())
def test_files_a_guide_names_exist(guide: Path) -> None:
    root = DOCS.parent
    text = guide.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:algorithms|tests|unlearn_kit|benchmarks)/[\w/]+\.py)`", text))
    made_here = {f"algorithms/{name}.py" for name in re.findall(r"^def (\w+)\(", text, flags=re.MULTILINE)}
    assert sorted(name for name in named - made_here if not (root / name).exists()) == []


def test_every_row_of_the_hostile_inputs_names_tests_that_exist() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "hostile-inputs.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what comes")]
    assert len(rows) > 30
    missing = []
    for row in rows:
        shown = re.findall(r"`([^`]+\.py)`: ((?:`test_\w+`(?:, )?)+)", re.split(r"(?<!\\)\|", row)[-2])
        named = [(file, test) for file, tests in shown for test in NAME.findall(tests)]
        gone = [
            (file, test)
            for file, test in named
            if not re.search(rf"^def {test}\(", (root / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        ]
        missing += gone or ([] if named else [row])
    assert missing == []
