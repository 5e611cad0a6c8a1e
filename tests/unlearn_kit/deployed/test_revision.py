"""A deployed model revised: what lies in the folder, in which form, and when nothing is written."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import algorithms
from unlearn_kit import CheckpointError, DivergenceError, UnlearnTask, adapters, models
from unlearn_kit.data import DataBundle
from unlearn_kit.deployed import deployed, preflight, revise
from unlearn_kit.deployed.preflight import copies
from unlearn_kit.deployed.unfinished import unfinished
from unlearn_kit.engine import Callback, Run
from unlearn_kit.hashing import hash_file, hash_model


def bundle(count: int = 36, channels: int = 3) -> DataBundle:
    y = torch.arange(count) % 3
    x = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    x[torch.arange(count), y] += 0.4
    data = TensorDataset(x, y)
    return DataBundle("own", data, data, 3, "classification", ("a", "b", "c"))


SERVING = """
import torch
from torch import nn

net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
net.load_state_dict(torch.load({path!r}, weights_only=True)["state_dict"])
x = (torch.load({images!r}) - .5) / .25
torch.save(net(x).detach(), {out!r})
"""


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def own(num_classes: int) -> nn.Module:
    """Build the network that serves, as a user's own function."""
    assert num_classes == 3
    return network(9)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Return the file of a trained network's weights."""
    from unlearn_kit import engine

    model = models.with_normalization(network(), 0.5, 0.25)
    trained = engine.train(model, bundle().train, epochs=8, batch_size=12, lr=0.05).model
    torch.save(
        {"epoch": 8, "state_dict": trained.network.state_dict(), "optimizer": {"m": torch.ones(9)}}, tmp_path / "s.pth"
    )
    return tmp_path / "s.pth"


def serving(served: Path, **options: Any) -> Any:
    options = {"mean": 0.5, "std": 0.25, **options}
    return deployed(f"{__name__}:own", served, bundle(), **options)


def task() -> UnlearnTask:
    return UnlearnTask.forget_class(bundle().train, bundle().test, 0)


def test_what_comes_out_serves_as_what_went_in(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = serving(served)
    before = hash_model(ready.model)
    state = torch.get_rng_state()
    method, options = algorithms.neg_grad_plus, {"steps": 4, "batch_size": 8}
    asked = {"asked": {"ticket": "R-17"}, "class_names": ("a", "b", "c")}
    found = revise(ready, task(), method, out=tmp_path / "a" / "out", options=options, **asked)
    assert (hash_model(ready.model), torch.equal(torch.get_rng_state(), state)) == (before, True)
    names = ["data.json", "index.html", "receipt.json", "receipt.md", "s.pth", "statement.json"]
    assert sorted(path.name for path in found.folder.iterdir()) == names
    assert not list((tmp_path / "a").glob(".*"))
    # A plain script that knows nothing of the toolkit loads it and says what the revised model says.
    torch.save(bundle().train.tensors[0], tmp_path / "x.pt")
    script = SERVING.format(path=str(found.checkpoint), images=str(tmp_path / "x.pt"), out=str(tmp_path / "z.pt"))
    assert "unlearn_kit" not in script
    exec(compile(script, "serving", "exec"), {})
    with torch.no_grad():
        said = found.result.model.eval()(bundle().train.tensors[0])
    torch.testing.assert_close(torch.load(tmp_path / "z.pt"), said)
    # The receipt names the file by its hash, what was left out, and how all was read.
    values = json.loads((found.folder / "receipt.json").read_text())
    assert values["checkpoints"] == {
        "before": {"s.pth": hash_file(served)},
        "after": {"s.pth": hash_file(found.checkpoint)},
    }
    assert values["files"] == {name: hash_file(found.folder / name) for name in ("s.pth", "data.json")}
    assert values["models"]["after"] == hash_model(found.result.model)
    assert any("optimizer" in warning for warning in values["deployed"]["warnings"])
    assert any("mean [0.5], std [0.25] (as given)" in line for line in values["deployed"]["read"])
    page = (found.folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 24
    assert "<script" not in page
    # Verdicts stand first, classes by name under the pictures, false negatives by class.
    assert page.index("<h2>Verdicts</h2>") < page.index("<h2>Description of modifications</h2>")
    for one in values["verdicts"]:
        assert f'<td class="{one["value"].replace(" ", "-")}">{one["value"]}</td><td>{one["claim"]}' in unescape(page)
    assert "<br>a → " in page
    assert "false negatives before" in page
    assert "ticket R-17" in page
    # The same call finds its work done; the folder is nobody else's.
    again = revise(ready, task(), method, out=found.folder, options=options, **asked)
    assert (again.result, again.checkpoint, again.receipt.values) == (None, found.checkpoint, values)
    with pytest.raises(ValueError, match="which holds another revision: forget class 0"):
        revise(ready, task(), method, out=found.folder, options={**options, "steps": 5}, **asked)
    with pytest.raises(ValueError, match="which holds another revision: forget class 0"):
        revise(ready, task(), method, out=found.folder, options=options, **{**asked, "audits": ()})
    found.checkpoint.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"holds this revision, but its receipt names other contents of \['s.pth'\]"):
        revise(ready, task(), method, out=found.folder, options=options, **asked)


def test_adapters_are_added_into_what_serves_and_kept_beside_it(served: Path, tmp_path: Path) -> None:
    ready = serving(served)
    options = {"where": "network.4", "rounds": 1, "restore_epochs": 0}
    found = revise(ready, task(), algorithms.erase_to_retain, out=tmp_path / "out", options=options, form="safetensors")
    assert sorted(path.name for path in found.folder.glob("*.safetensors")) == ["adapters.safetensors", "s.safetensors"]
    assert set(json.loads((found.folder / "receipt.json").read_text())["checkpoints"]["after"]) == {
        "adapters.safetensors",
        "s.safetensors",
    }
    adapted = adapters.load(ready.model, found.folder / "adapters.safetensors")
    merged = adapters.merge(adapted).state_dict()
    assert all(torch.equal(merged[f"network.{name}"], t) for name, t in load_file(found.checkpoint).items())
    assert set(load_file(found.checkpoint)) == set(network().state_dict())


def breaks(model: nn.Module, task: UnlearnTask, **_: Any) -> Any:
    raise DivergenceError("main", 3, "loss", {})


@pytest.mark.parametrize("there", ["nothing", "empty", "file"])
def test_nothing_is_written_when_it_breaks_down(served: Path, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there != "nothing":
        out.mkdir()
    if there == "file":
        (out / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"expected out to be a new or an empty folder, .* holds other files"):
            revise(serving(served), task(), breaks, out=out)
        return
    with pytest.raises(DivergenceError):
        revise(serving(served), task(), breaks, out=out)
    assert out.exists() == (there == "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["s.pth", *(["out"] if there == "empty" else [])])


def other_than_copies(told: list[str]) -> list[str]:
    """Leave out that the same data train and judge here."""
    return [text for text in told if not text.startswith("the same picture twice: ")]


def test_a_wrong_model_is_suspected(served: Path) -> None:
    ready = serving(served)
    assert other_than_copies(preflight(ready.model, task())) == []
    lost = serving(served, mean=0.0, std=5.0)
    (chance,) = other_than_copies(preflight(lost.model, task()))
    assert "no better than guessing among 3 classes (0.333): are the weights, the normalisation" in chance
    softmax = nn.Sequential(ready.model, nn.Softmax(1))
    assert [text for text in preflight(softmax, task()) if "it ends in a softmax" in text]
    x, y = bundle().train.tensors
    raw = TensorDataset(x * 255, y)
    with pytest.raises(
        ValueError, match=r"expected images with pixels in \[0, 1\], which the model's first layer normalises"
    ):
        preflight(ready.model, UnlearnTask.forget_class(raw, raw, 0))


def test_how_a_model_is_read_is_checked(served: Path) -> None:
    with pytest.raises(ValueError, match="expected mean and std together"):
        serving(served, std=None)
    with pytest.raises(TypeError, match="expected weights to be the file of the model's weights, but got None"):
        deployed("timm:resnet10t", None, bundle())
    with pytest.raises(TypeError, match="expected weights to be None for hf:FOLDER"):
        deployed("hf:folder", served, bundle())
    with pytest.raises(CheckpointError, match="does not fit this Conv"):
        deployed("torch.nn:Conv2d", served, bundle(), options={"in_channels": 3, "out_channels": 4, "kernel_size": 5})
    plain = serving(served, mean=None, std=None)
    assert plain.normalization is None
    assert plain.words[-1] == "Pixels in [0, 1] are given to the model as they are"


def test_copies_are_counted_and_named_before_anything_runs(served: Path) -> None:
    x = torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    x[7], x[9] = x[2], x[3] * 0.9 + 0.05  # one copy, and one that looks alike
    train = TensorDataset(x[:12], torch.arange(12) % 3)
    test = TensorDataset(torch.cat([x[4:5], x[12:]]), torch.arange(9) % 3)
    request = UnlearnTask.forget_samples(train, test, [2, 3], validation=())
    forgotten, judging = copies(request)
    assert forgotten == (
        "the same picture twice: 2 copies of forget in retain (1 of them look alike): "
        "forget[0] is retain[5] with another target, forget[1] is retain[7] nearly. "
        "What stays in the data to keep is not forgotten: forget its copies with it, or take them out"
    )
    assert judging == (
        "the same picture twice: 1 copies of retain in retain_test: retain[2] is retain_test[0] with another target. "
        "What was trained on flatters where it judges"
    )
    assert copies(request, limit=10)[-1] == (
        "copies of pictures were looked for in 9 of 21, drawn at random; task.duplicates(distance=8) reads all of them"
    )


def test_what_is_suspicious_about_a_model_of_several_findings_is_told() -> None:
    source = torch.Generator().manual_seed(0)
    y = (torch.rand(80, 3, generator=source) < 0.4).long()
    y[:, 2] = 0
    y[:3, 2] = 1
    images = TensorDataset(0.5 * torch.rand(80, 3, 1, 1, generator=source) + 0.4 * y[:, :, None, None], y)
    task = UnlearnTask.forget_samples(images, images, [0, 1])
    knows = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    knows[1].weight.data, knows[1].bias.data = 5 * torch.eye(3), torch.full((3,), -2.0)
    (rare,) = [text for text in preflight(knows, task) if "the same picture" not in text]
    assert rare.startswith("rare among the training images: finding 2 in 3 of 80. Their accuracy is high whatever")
    ended = preflight(nn.Sequential(knows, nn.Sigmoid()), task)
    assert [text for text in ended if "it ends in a sigmoid" in text]
    backwards = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    backwards[1].weight.data = -torch.eye(3)
    (chance,) = [text for text in preflight(backwards, task) if "guessing" in text]
    assert "mean AUROC on the data to keep is 0." in chance
    pixel = TensorDataset(torch.rand(6, 1, 2, 2), torch.ones(6, 1, 2, 2))
    masks = UnlearnTask.forget_samples(pixel, pixel, [0])
    assert [text for text in preflight(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()), masks) if "sigmoid" in text]


class Killed(Callback):
    """Ends the process after a step, by an interrupt; never when that is 0."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, run: Run) -> None:
        if run.done == self.after:
            raise KeyboardInterrupt


def test_an_interrupted_revision_goes_on_with_the_same_bits(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearn_kit.deployed.revision.SAVED_EVERY", 0)
    ready, options = serving(served), {"steps": 4, "batch_size": 8}

    def call(name: str, after: int, **changes: Any) -> Any:
        asked = {**options, **changes}
        watching = {"callbacks": [Killed(after)]}
        return revise(ready, task(), algorithms.finetune, out=tmp_path / name, options=asked, watching=watching)

    whole = call("whole", 0)
    for after in (1, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            call("cut", after)
        assert not (tmp_path / "cut").exists()
    assert (tmp_path / ".cut.unfinished").exists()
    # As a process that was killed while it wrote leaves things.
    (tmp_path / ".cut.unfinished" / "result" / "half").write_text("half")
    resumed = call("cut", 0)
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    assert [text for text in resumed.warnings if "was interrupted and went on where it was" in text]
    assert not [text for text in whole.warnings if "interrupted" in text]
    names = sorted(path.name for path in whole.folder.iterdir())
    assert sorted(path.name for path in resumed.folder.iterdir()) == names
    assert not list(tmp_path.glob(".*"))
    # What another request left there is thrown away: it remembers what was to be forgotten.
    with pytest.raises(KeyboardInterrupt):
        call("other", 2)
    fresh = call("other", 0, steps=3)
    assert fresh.checkpoint.read_bytes() == call("straight", 0, steps=3).checkpoint.read_bytes()
    assert not [text for text in fresh.warnings if "interrupted" in text]
    assert not list(tmp_path.glob(".*"))


SCRIPT = """
import os, signal, sys
import torch
from pathlib import Path
import {module} as own
import algorithms
import unlearn_kit.deployed.revision as revision
from unlearn_kit.engine import Callback

class Watch(Callback):
    def on_step(self, run):
        if run.done == {after}:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
revision.SAVED_EVERY = 0
served = own.serving(Path("s.pth"))
revision.revise(served, own.task(), algorithms.finetune, out="a/b/out", options={{"steps": 4, "batch_size": 8}},
                watching={{"callbacks": [Watch()]}})
"""


def test_a_process_that_is_killed_leaves_no_half_folder(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, root = Path(__file__), Path(__file__).parents[3]
    found = []
    for after in (3, 0):
        script = SCRIPT.format(module=own.stem, after=after)
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(own.parent)])},
            capture_output=True,
            text=True,
            check=False,
        )
        found.append((done.returncode, (tmp_path / "a" / "b" / "out").exists()))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert found == [(-signal.SIGKILL, False), (0, True)]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["out"]
    torch.set_num_threads(1)
    straight = revise(
        serving(served),
        task(),
        algorithms.finetune,
        out=tmp_path / "straight",
        options={"steps": 4, "batch_size": 8},
    )
    assert (tmp_path / "a" / "b" / "out" / "s.pth").read_bytes() == straight.checkpoint.read_bytes()


def test_a_breakdown_leaves_not_even_the_folders_on_the_way(served: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        revise(serving(served), task(), breaks, out=tmp_path / "a" / "b" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["s.pth"]
    with pytest.raises(ValueError, match=r"expected out to be a folder to write, with a name, but got '\.'"):
        revise(serving(served), task(), breaks, out=".")


def test_a_folder_of_hugging_face_has_one_form(served: Path, tmp_path: Path) -> None:
    folder = dataclasses.replace(serving(served), weights=None)
    with pytest.raises(ValueError, match="expected form to be 'safetensors' for hf:FOLDER, but got 'pth'"):
        revise(folder, task(), breaks, out=tmp_path / "out", form="pth")


def test_two_that_make_one_folder_at_once_do_not_mix(tmp_path: Path) -> None:
    with unfinished(tmp_path / "new" / "out", "one") as place:
        (place.result / "a").write_text("of the first")
        with (
            pytest.raises(ValueError, match="expected out to be a folder that nobody else is making"),
            unfinished(tmp_path / "new" / "out", "two"),
        ):
            pytest.fail("the second began")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out" / "a").read_text() == "of the first"
    with pytest.raises(ValueError, match="broken"), unfinished(tmp_path / "next" / "out", "one"):
        raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
