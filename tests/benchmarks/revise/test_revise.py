"""The command ``revise``: from a folder and a file of weights to a revised checkpoint with its evidence."""

from __future__ import annotations

import json
import re
import warnings
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
from unlearn_kit.evidence import Receipt, read_receipt, seal
from unlearn_kit.hashing import hash_file, hash_model


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


FINDINGS = ["No Finding", "Edema", "Mass", "Edema|Mass"]


@pytest.fixture
def ward(place: Path) -> Path:
    """Return the place with several findings an image: in one column, and in columns of their own."""
    rows = ["file,Finding Labels,Edema,Mass,split,patient"]
    for i in range(32):
        seen = FINDINGS[i % 4]
        own = ",".join("" if i == 8 else str(float(name in seen)) for name in ("Edema", "Mass"))
        rows.append(f"{i:02}.png,{seen},{own},{'train' if i < 20 else 'test'},{i // 2}")
    (place / "images" / "metadata.csv").write_text("\n".join(rows))
    return place


JOINED = ["--label-column", "Finding Labels", "--label-separator", "|"]


def test_a_finding_is_forgotten_from_the_command_line(ward: Path) -> None:
    asked = [*GIVEN, *JOINED, "--forget-class", "Mass", "--out", "out/mass"]
    look = run(*asked, "--dry-run")
    assert look.exit_code == 0, look.output
    assert "finding 1 is 'Mass'" in look.output
    preview = (ward / "out" / "mass-preview.html").read_text()
    assert "Edema, Mass" in preview
    done = run(*asked, "--method", "perturbed_sign:steps=2")
    assert done.exit_code == 0, done.output
    values = json.loads((ward / "out" / "mass" / "receipt.json").read_text())
    assert values["request"]["samples"] == 10
    findings = values["metrics"]["after"]["findings"]
    assert [findings[k]["present"] + findings[k]["absent"] for k in "01"] == [8, 8]  # of twelve, four to choose by
    page = (ward / "out" / "mass" / "index.html").read_text()
    assert re.search(r"<td>Mass</td><td>\d</td><td>\d</td><td>\d\.\d{3}</td><td>\d\.\d{3}</td><td>n/a</td>", page)
    text = (ward / "out" / "mass" / "receipt.md").read_text()
    assert re.search(r"\| Mass \| \d \| \d \| \d\.\d{3} \| \d\.\d{3} \| n/a \|", text)
    proof = command("verify", "out/mass")
    assert (proof.exit_code, "nothing differs" in proof.output) == (0, True), proof.output
    again = run("out/mass/revision.yaml")
    assert again.exit_code == 0, again.output
    assert "this revision was there already" in again.output
    state = torch.load("out/mass/served.pth", weights_only=True)
    models.build("small-cnn", 2, 3, width=4).load_state_dict(state)


def test_findings_in_columns_of_their_own(ward: Path) -> None:
    columns = ["--finding-columns", "Edema,Mass", "--blank", "absent"]
    done = run(*GIVEN, *columns, "--forget", "patient == 3", "--method", "finetune:steps=1", "--out", "out/p")
    assert done.exit_code == 0, done.output
    values = json.loads((ward / "out" / "p" / "receipt.json").read_text())
    assert (values["request"]["samples"], values["metrics"]["after"]["kind"]) == (2, "multilabel")
    wrong = run(*GIVEN, *columns, "--label-separator", "|", "--forget", "patient == 3", *METHOD)
    assert wrong.exit_code == 2
    assert "expected one of mask_column, label_separator and finding_columns" in wrong.output


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
    told = command("verify", "out/b").output
    assert "differs: membership AUC by loss" in told
    assert "differs: model after" in told
    assert command("verify", "images").exit_code == 2
    assert command("verify", "out/b", "--data", "none").exit_code == 2


def lists_without_files(values: dict[str, Any]) -> None:
    lists = json.loads(Path("out/b/data.json").read_text())
    for row in lists["retain"]:
        del row["files"]
    Path("out/b/data.json").write_text(json.dumps(lists))
    values["files"]["data.json"] = hash_file("out/b/data.json")


def the_original_again(values: dict[str, Any]) -> None:
    Path("out/b/served.pth").write_bytes(Path("served.pth").read_bytes())
    values["files"]["served.pth"] = values["checkpoints"]["after"]["served.pth"] = hash_file("served.pth")
    values["verdicts"][0]["value"] = "shown"


def no_findings(values: dict[str, Any]) -> None:
    values["verdicts"][0]["alarming"] = True
    values["findings"] = []


def told_otherwise(values: dict[str, Any]) -> None:
    values["asked"]["by"] = "me"
    values["seeds"]["unlearning"] = 7
    values["deployed"]["warnings"] = []


def test_a_receipt_that_was_edited_and_sealed_anew_contradicts_what_lies_beside_it(place: Path) -> None:
    assert run(*GIVEN, "--forget", "device == B", *METHOD).exit_code == 0
    originals = {path: path.read_bytes() for path in (place / "out/b").iterdir()}
    for change, arguments, *told in (
        (lists_without_files, ["--no-score"], "retain list: expected SHA-256"),
        (the_original_again, ["--no-score"], "revised model: expected other weights"),
        (no_findings, ["--no-score"], "findings: expected a word of weights changed"),
        (lambda v: v["files"].update({"../x": "0"}), ["--no-score"], "../x: expected a file of the folder"),
        (
            told_otherwise,
            [],
            "asked, by: expected me, but got n/a",
            "seeds, unlearning: expected 7, but got 0",
            "warnings: expected no word of it, but got",
        ),
    ):
        values = read_receipt("out/b")
        change(values)
        seal(Receipt(values), place / "out/b")
        found = command("verify", "out/b", *arguments)
        assert (found.exit_code, [text for text in told if text not in found.output]) == (1, []), found.output
        for path, content in originals.items():
            path.write_bytes(content)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 2, "files": {}, "checkpoints": {"after": {}}, "data": {}}',
        '{"format": 2, "files": [1], "checkpoints": 3, "data": {}}',
    ],
)
def test_what_is_no_receipt_is_refused(place: Path, text: str) -> None:
    (place / "receipt.json").write_text(text)
    found = command("verify", ".")
    assert (found.exit_code, "as revise writes them" in found.output) == (2, True), found.output


@pytest.mark.parametrize("method", ["finetune:steps=1:batch_size=8:lr=0.02", "finetune:epochs=1:clip=None:lr=0"])
def test_verify_knows_the_forms_that_a_method_gives_its_options(place: Path, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a rate of 0 changes nothing
        assert run(*GIVEN, "--forget", "device == B", "--method", method, "--out", "out/b").exit_code == 0
    found = command("verify", "out/b", "--no-score")
    assert (found.exit_code, "nothing differs" in found.output) == (0, True), found.output
    edit(place / "out/b/revision.yaml", "lr=0", "lr=9")
    told = command("verify", "out/b", "--no-score")
    assert (told.exit_code, "differs: option lr in revision.yaml" in told.output) == (1, True), told.output


def test_a_second_revision_stands_on_the_first(place: Path) -> None:
    assert run(*GIVEN, "--forget", "device == B", *METHOD).exit_code == 0
    given = ["out/b/served.pth" if word == "served.pth" else word for word in GIVEN]
    second = run(*given, "--forget-class", "dog", *METHOD[:-1], "out/c")
    assert second.exit_code == 0, second.output
    (earlier,) = json.loads((place / "out/c/receipt.json").read_text())["earlier"]
    assert (earlier["name"], earlier["sha256"]) == ("b/receipt.json", hash_file(place / "out/b/receipt.json"))
    assert "Stands on the receipt b/receipt.json" in (place / "out/c/receipt.md").read_text()
    assert run(*given, "--forget-class", "cat", *METHOD[:-1], "out/d", "--earlier", "images").exit_code == 2


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
    for folder, reference in (("out/whole", "retrain:steps=2"), ("out/small", "subsample:0.5:epochs=2:batch_size=4")):
        again = run(*asked, folder, "--reference", reference)
        told = [words in again.output for words in ("this revision was there already", "is trained first")]
        assert (again.exit_code, told) == (0, [True, False]), again.output
    other = run(*asked, "out/whole", "--reference", "retrain:steps=3")
    assert (other.exit_code, "which holds another revision" in other.output) == (2, True), other.output
    assert command("verify", "out/whole").exit_code == 0
    for wrong, message in (
        ("subsample:2", "SHARE is in (0, 1)"),
        ("retrain:epoch=2", "did you mean 'epochs'?"),
        ("retrain:2", "expected reference to be none, a file of weights, retrain or subsample:SHARE"),
        ("none.pth", "expected weights to be an existing path"),
    ):
        refused = run(*asked, "out/wrong", "--reference", wrong)
        assert (refused.exit_code, message in refused.output.replace("\n", "")) == (2, True), refused.output
    assert run(*asked, "out/none", "--reference", "none").exit_code == 0
