"""Requests over months on one deployed model: a relapse that shows, one withdrawn, one joined later."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

import algorithms
from unlearn_kit import UnlearnResult, UnlearnTask, adapters, data, engine, models
from unlearn_kit.composition import join_requests
from unlearn_kit.data import DataBundle, TensorImages
from unlearn_kit.deployed import Deployed, add_request, add_revision, deployed, revise, serving_now, withdraw_request
from unlearn_kit.evidence import Ledger
from unlearn_kit.evidence.ledger_chain import FILE, HEAD, canonical
from unlearn_kit.evidence.ledger_samples import keep_out, samples_of
from unlearn_kit.hashing import hash_model
from unlearn_kit.metrics import evaluate

DIGITS: DataBundle = data.load("digits", train_size=400)
FORGET = {"steps": 12, "batch_size": 64, "lr": 0.01}
ADAPT = {"rounds": 1, "restore_epochs": 0, "rank": 2, "batch_size": 64, "where": "block5"}


def own(num_classes: int) -> nn.Module:
    """Build the network that serves."""
    torch.manual_seed(0)
    return models.build("small-cnn", num_classes, channels=1, width=8)


def task(label: int, fraction: float = 1.0) -> UnlearnTask:
    return UnlearnTask.forget_class(DIGITS.train, DIGITS.test, label, fraction=fraction)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    trained = engine.train(own(10), DIGITS.train, epochs=8, batch_size=32).model
    path = tmp_path_factory.mktemp("served") / "served.pth"
    torch.save({"state_dict": trained.state_dict()}, path)
    return deployed(f"{__name__}:own", path, DIGITS, normalize=False)


@pytest.fixture(scope="module")
def story(serving: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Three requests, of which the second trains on data like those of the first; one joins later, one is withdrawn."""
    ledger = Ledger(tmp_path_factory.mktemp("story") / "ledger")
    add_request(ledger, serving, task(1, 0.5), algorithms.neg_grad_plus, name="ann", options=FORGET)
    add_request(ledger, serving, task(3), algorithms.finetune, name="bob", options={"epochs": 6, "batch_size": 32})
    add_request(ledger, serving, task(2), algorithms.erase_to_retain, name="cat", join=True, options=ADAPT)
    shutil.copytree(ledger.folder, ledger.folder.with_name("before-dan"))
    add_request(ledger, serving, task(4), algorithms.erase_to_retain, name="dan", join=True, options=ADAPT)
    withdraw_request(ledger, serving, "cat", reason="asked again", data=[DIGITS.train, DIGITS.test])
    return ledger


def served_by(ledger: Ledger, serving: Deployed) -> dict[str, torch.Tensor]:
    return serving_now(ledger, serving).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_relapse_is_found_and_shown(story: Ledger, serving: Deployed) -> None:
    line = story.requests()["bob"]
    standings = story.standings()
    then, now = (standings["ann"][story.requests()[name].number] for name in ("ann", "bob"))
    # The figures are those of evaluate, on the request's own data, by the models that served.
    for name, found in (("ann", then), ("bob", now)):
        network = copy.deepcopy(serving.model)
        network.load_state_dict(torch.load(story.folder / "requests" / name / "served.pth")["state_dict"])
        expected = evaluate(network, task(1, 0.5))
        assert (found.forget, found.membership) == pytest.approx((expected.forget, expected.membership))
    assert (then.relapse, now.relapse) == (None, True)
    assert then.score_rise is None
    assert now.score_rise.rise == pytest.approx(now.forget - then.forget)
    assert now.score_rise.low > 0
    assert now.forget > then.forget + 0.2
    assert line.values["relapses"] == ["ann"]
    (finding,) = line.values["findings"]
    assert finding.startswith(f"relapse of 'ann': score on its forget data {then.forget:.2f} when it was served")
    assert f"unseen data {now.unseen:.2f}" in finding
    page = (story.folder / "index.html").read_text()
    assert page.count('class="relapse"') == len([row for row in standings["ann"].values() if row.relapse])
    assert finding.replace("'", "&#39;") in page
    assert "<script" not in page
    assert story.verify() == ([], [])


def forge(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Edit lines and make every hash after them fit, that of the head, too."""
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    change(lines)
    written, digest = [], ""
    for values in lines:
        values |= {"previous": digest} if digest else {}
        written.append(canonical(values).rstrip(b"\n"))
        digest = hashlib.sha256(written[-1]).hexdigest()
    (folder / FILE).write_bytes(b"\n".join(written) + b"\n")
    head = json.loads((folder / HEAD).read_text())
    (folder / HEAD).write_text(json.dumps(head | {"sha256": digest}))


def test_a_line_that_was_edited_with_all_hashes_is_told_by_what_lies_beside_it(story: Ledger, tmp_path: Path) -> None:
    (place,) = [line.number - 1 for line in story.lines() if line.values.get("relapses") == ["ann"]][:1]
    request = story.requests()["cat"].number - 1
    for change, told in (
        (lambda _: None, None),
        (lambda lines: lines[place].update(relapses=[]), "expected the relapses ['ann'], but got []"),
        (lambda lines: lines[place].update(findings=[]), "expected the finding \"relapse of 'ann'"),
        (lambda lines: lines[place]["standings"]["ann"].update(forget=0.0), "standing, ann, forget: expected"),
        (lambda lines: lines[place].update(standings={}), "expected the standings of ["),
        (lambda lines: lines[request].update(method="retrain"), "but got retrain, by the receipt that it names"),
        (lambda lines: lines[request]["serves"]["base"].update(model="0" * 64), "expected base and adapters to be"),
        (lambda lines: lines[place]["serves"]["base"].update(model="0" * 64), "expected base to be what serves"),
        (lambda lines: lines[request]["serves"]["adapters"][0].update(request="bob"), "expected the last adapter"),
        (lambda lines: lines[-1]["serves"]["base"].update(model="0" * 64), "expected a model that served before"),
        (
            lambda lines: [one.update(model="0" * 64) for one in (lines[0]["serves"], lines[0]["serves"]["base"])],
            "line 2: expected the receipt to start from the model that served",
        ),
        (lambda lines: lines[request].update(kept_out={}), "expected what was kept out of ['ann', 'bob'], but got []"),
    ):
        folder = tmp_path / "forged"
        shutil.copytree(story.folder, folder)
        forge(folder, change)
        faults, _ = Ledger(folder).verify()
        assert any(told in fault for fault in faults) if told else not faults, (told, faults)
        shutil.rmtree(folder)


def test_a_later_request_trains_on_nothing_that_earlier_ones_forget(story: Ledger) -> None:
    lines = story.requests()
    counts = {name: len(task(label, share).forget) for name, label, share in (("ann", 1, 0.5), ("bob", 3, 1.0))}
    told = lines["cat"].values["kept_out"]
    assert {name: told[name]["retained"] for name in told} == counts
    assert lines["ann"].values["kept_out"] == {}
    receipt = json.loads((story.folder / "requests" / "cat" / "receipt.json").read_text())
    (words,) = [text for text in receipt["deployed"]["warnings"] if "kept out" in text]
    assert f"{counts['ann']} samples of 'ann', {counts['bob']} samples of 'bob'" in words
    sizes = receipt["metrics"]["after"]["sizes"]
    assert sizes["forget"] + sizes["retain"] == len(DIGITS.train) - sum(counts.values())


def test_joined_requests_serve_as_all_of_their_adapters_merged(story: Ledger, serving: Deployed) -> None:
    base = serving_now(Ledger(story.folder), serving).model
    base.load_state_dict(torch.load(story.folder / "requests" / "bob" / "served.pth")["state_dict"])
    cat = adapters.load(base, story.folder / "requests" / "cat" / "adapters.safetensors")
    both = adapters.load(base, story.folder / "requests" / "dan" / "adapters.safetensors")
    assert adapters.adapter_names(both) == ["cat", "dan"]
    with adapters.only(both, ["cat"]):
        assert same(adapters.merge(both).state_dict(), adapters.merge(cat).state_dict())
    served = torch.load(story.folder / "requests" / "dan" / "served.pth")["state_dict"]
    assert same(served, adapters.merge(both).state_dict())


def test_what_was_withdrawn_leaves_the_bits_of_what_had_never_been_added(story: Ledger, serving: Deployed) -> None:
    assert story.active() == ["ann", "bob", "dan"]
    assert [one.request for one in story.serves().adapters] == ["dan"]
    # Another history: the adapter of "cat" was never trained, and her data were not there.
    other = Ledger(story.folder.with_name("other"))
    shutil.copytree(story.folder.with_name("before-dan"), other.folder)
    withdraw_request(other, serving, "cat", data=[DIGITS.train, DIGITS.test])
    kept, _ = keep_out(task(4), {"cat": samples_of(task(2))})
    add_request(other, serving, kept, algorithms.erase_to_retain, name="dan", join=True, options=ADAPT)
    assert same(served_by(other, serving), served_by(story, serving))
    last = story.lines()[-1]
    assert last.values["reason"] == "asked again"
    assert set(last.values["standings"]) == {"ann", "bob", "dan"}
    assert all(row["found"] == row["of"] for row in last.values["standings"].values())
    # The last adapter withdrawn leaves the model under it; then the others, from the last one on.
    withdraw_request(other, serving, "dan")
    bob, ann = (torch.load(other.folder / "requests" / name / "served.pth")["state_dict"] for name in ("bob", "ann"))
    assert same(served_by(other, serving), bob)
    with pytest.raises(
        ValueError, match=r"what \['bob'\] revised: withdraw 'bob', then 'ann', and add the others again"
    ):
        withdraw_request(other, serving, "ann")
    withdraw_request(other, serving, "bob")
    assert same(served_by(other, serving), ann)
    withdraw_request(other, serving, "ann")
    assert same(served_by(other, serving), serving.model.state_dict())
    assert (other.active(), other.verify()) == ([], ([], []))
    with pytest.raises(ValueError, match="expected name to be in force, but line 9 withdrew 'ann'"):
        withdraw_request(other, serving, "ann")
    with pytest.raises(ValueError, match=r"expected name to be one of .* did you mean 'dan'"):
        withdraw_request(other, serving, "dann")


def shift(model: nn.Module, task: UnlearnTask, *, seed: int, device: str, size: float = 3.0) -> UnlearnResult:
    """Forget a class by its bias alone."""
    revised = copy.deepcopy(model)
    with torch.no_grad():
        revised.get_parameter("2.bias")[task.forget_classes[0]] -= size
    return UnlearnResult(revised, [], 0.0, "shift", {"seed": seed})


def small(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, num_classes)).eval()


def pictures(count: int = 12, seed: int = 0, side: int = 4) -> TensorImages:
    x = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return TensorImages(x, torch.arange(count) % 3)


TRAIN, TEST = pictures(), pictures(12, seed=1)
TINY = DataBundle("tiny", TRAIN, TEST, 3, "classification", ("a", "b", "c"))


def classes(label: int, train: Any = TRAIN, test: Any = TEST) -> UnlearnTask:
    return UnlearnTask.forget_class(train, test, label)


@pytest.fixture
def tiny(tmp_path: Path) -> Deployed:
    torch.save(small(3).state_dict(), tmp_path / "w.pth")
    return deployed(f"{__name__}:small", tmp_path / "w.pth", TINY)


def adapt(model: nn.Module, task: UnlearnTask, *, seed: int, device: str) -> UnlearnResult:
    """Forget a class by an adapter, without training."""
    adapted = adapters.attach(model, "all", rank=1, seed=0)
    generator = torch.Generator().manual_seed(task.forget_classes[0])
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return UnlearnResult(adapted, [], 0.0, "adapt", {"seed": seed})


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_joined_and_withdrawn_serves_as_those_that_are_left(
    tiny: Deployed, tmp_path: Path, seed: int
) -> None:
    draw, ledger = Random(seed), Ledger(tmp_path / "ledger")
    labels: dict[str, int] = {}
    for step in range(6):
        active = ledger.active()
        if len(active) > 1 and draw.random() < 0.5:
            withdraw_request(ledger, tiny, draw.choice(active), data=[TRAIN, TEST])
        else:
            name, label = f"r{step}", draw.choice([0, 1])
            kept = {other: len(set(ledger.samples(other).forget)) for other in active if labels[other] != label}
            line = add_request(ledger, tiny, classes(label), adapt, name=name, join=True)
            told = line.values["kept_out"]
            assert set(told) == set(active)  # what was withdrawn may be retained again
            assert {other: told[other]["retained"] for other in kept} == kept
            labels[name] = label
        alone = {name: adapt(tiny.model, classes(labels[name]), seed=0, device="cpu").model for name in ledger.active()}
        expected = adapters.merge(join_requests(alone)) if alone else tiny.model
        assert same(served_by(ledger, tiny), expected.state_dict())
    assert ledger.verify() == ([], [])


def test_an_adapter_on_what_serves_gives_way_to_the_adapters_under_it(tiny: Deployed, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for name, label in (("ann", 0), ("bob", 1)):
        add_request(ledger, tiny, classes(label), adapt, name=name, join=True)
    before = served_by(ledger, tiny)
    add_request(ledger, tiny, classes(0), adapt, name="cat")
    assert [one.request for one in ledger.serves().adapters] == ["cat"]
    with pytest.raises(ValueError, match=r"what \['cat'\] revised: withdraw 'cat', then 'ann'"):
        withdraw_request(ledger, tiny, "ann")
    withdraw_request(ledger, tiny, "cat")
    assert [one.request for one in ledger.serves().adapters] == ["ann", "bob"]
    assert same(served_by(ledger, tiny), before)
    withdraw_request(ledger, tiny, "ann")
    assert [one.request for one in ledger.serves().adapters] == ["bob"]
    assert ledger.verify() == ([], [])


class Killed(BaseException):
    """The process is no more."""


def test_interrupted_at_any_step_a_request_is_there_or_not_and_the_next_goes_on(
    tiny: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, count = 0, 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == place:
                raise Killed
            return real(*arguments, **options)

        return call

    def add(ledger: Ledger) -> None:
        add_request(ledger, tiny, classes(1), shift, name="two")

    first = Ledger(tmp_path / "first")
    add_request(first, tiny, classes(0), shift, name="one")
    expected = Ledger(shutil.copytree(first.folder, tmp_path / "expected"))
    add(expected)
    outcomes = []
    while True:
        place, count = place + 1, 0
        ledger = Ledger(shutil.copytree(first.folder, tmp_path / f"at-{place}"))
        with monkeypatch.context() as patched:
            for name in ("replace", "fsync"):
                patched.setattr(os, name, dying(getattr(os, name)))
            try:
                add(ledger)
                died = False
            except Killed:
                died = True
        assert ledger.verify()[0] == []
        outcomes.append(ledger.active())
        if ledger.active() == ["one"]:
            add(ledger)
        assert (ledger.active(), ledger.verify()[0]) == (["one", "two"], [])
        assert ledger.serves().model == expected.serves().model
        if not died:
            break
    assert outcomes.count(["one"]) > 6
    assert outcomes.count(["one", "two"]) > 2  # killed after the line


def test_a_revision_that_was_made_is_written_down_or_joins(story: Ledger, serving: Deployed, tmp_path: Path) -> None:
    ledger = Ledger(shutil.copytree(story.folder.with_name("before-dan"), tmp_path / "ledger"))
    base = replace(serving, model=copy.deepcopy(serving.model))
    base.model.load_state_dict(torch.load(ledger.folder / "requests" / "bob" / "served.pth")["state_dict"])
    made = revise(base, task(5), algorithms.erase_to_retain, out=tmp_path / "eve", options=ADAPT)
    line = add_revision(ledger, serving, task(5), made.folder, name="eve", data=[DIGITS.test])
    cat = adapters.load(base.model, ledger.folder / "requests" / "cat" / "adapters.safetensors")
    eve = adapters.load(base.model, made.folder / "adapters.safetensors")
    expected = adapters.merge(join_requests({"cat": cat, "eve": eve}))
    assert same(served_by(ledger, serving), expected.state_dict())
    assert line.values["serves"]["model"] == hash_model(expected)
    # Nobody kept the earlier data out of it.
    (finding, *_) = line.values["findings"]
    assert finding.startswith("trained on what earlier requests forget: ")
    assert f"{len(task(1, 0.5).forget)} samples of 'ann'" in finding
    assert ledger.verify() == ([], [])
    with pytest.raises(ValueError, match=r"expected folder to hold a revision of the model that serves now"):
        add_revision(ledger, serving, task(6), revise(
            serving, task(6), algorithms.neg_grad_plus, out=tmp_path / "fay", options={"steps": 1}
        ).folder, name="fay")  # fmt: skip
    with pytest.raises(ValueError, match="expected name to be new, but 'eve' is line 5 already"):
        add_revision(ledger, serving, task(5), made.folder, name="eve")
    (made.folder / "adapters.safetensors").write_bytes(b"")
    assert any("adapters.safetensors' of line 5 was changed" in fault for fault in ledger.verify()[0])
    with pytest.raises(ValueError, match=r"but \['adapters.safetensors'\] differ"):
        add_revision(ledger, serving, task(5), made.folder, name="again")
    with pytest.raises(ValueError, match="expected folder to hold a revision with its receipt"):
        add_revision(ledger, serving, task(5), tmp_path, name="none")


def test_what_cannot_be_done_leaves_the_ledger_as_it_was(tiny: Deployed, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    add_request(ledger, tiny, classes(0), shift, name="one")
    before = (ledger.folder / "ledger.jsonl").read_bytes()
    with pytest.raises(ValueError, match="expected method to make one adapter to join those in service, but shift"):
        add_request(ledger, tiny, classes(1), shift, name="two", join=True)
    everything = replace(classes(1), retain=data.subset(TRAIN, (TRAIN.targets == 0).nonzero().flatten()))
    with pytest.raises(ValueError, match="expected task to retain data that no earlier request forgets, but all 4 are"):
        add_request(ledger, tiny, everything, shift, name="two")
    with pytest.raises(ValueError, match="expected name to be new, but 'one' is line 2 already"):
        add_request(ledger, tiny, classes(1), shift, name="one")
    assert ((ledger.folder / "ledger.jsonl").read_bytes(), ledger.verify()) == (before, ([], []))
    checkpoint = ledger.serves().checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes() + b"\0")
    assert ledger.verify()[0] == ["'requests/one/w.pth' of line 2 was changed: it has another SHA-256"]
    with pytest.raises(ValueError, match="to be as the ledger names it, but its SHA-256 is another"):
        add_request(ledger, tiny, classes(1), shift, name="two")
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match="what the ledger names"):
        serving_now(ledger, tiny)


@pytest.mark.parametrize("name", ["samples/ann.json", "scores/0002.json", "requests/ann/adapters.safetensors"])
def test_files_that_were_changed_are_not_built_on(tiny: Deployed, tmp_path: Path, name: str) -> None:
    ledger = Ledger(tmp_path / "ledger")
    add_request(ledger, tiny, classes(0), adapt, name="ann", join=True)
    changed = ledger.folder / name
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"{name}' to be as the ledger names it, but its SHA-256 is another"):
        add_request(ledger, tiny, classes(1), adapt, name="bob", join=True)
    assert ledger.active() == ["ann"]


def test_weights_that_nothing_stands_on_may_be_removed(tiny: Deployed, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for label, name in enumerate(("one", "two")):
        add_request(ledger, tiny, classes(label), shift, name=name)
    (tmp_path / "w.pth").unlink()  # it remembers what both forget
    (ledger.folder / "requests" / "one" / "w.pth").unlink()
    faults, notes = ledger.verify()
    assert faults == []
    assert notes == ["'../w.pth' of line 1 is missing", "'requests/one/w.pth' of line 2 is missing"]
    (ledger.folder / "requests" / "two" / "w.pth").unlink()
    assert ledger.verify()[0] == ["'requests/two/w.pth' of line 3 is missing"]


def test_a_ledger_moves_with_what_it_names(tiny: Deployed, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    shutil.move(tmp_path / "w.pth", tmp_path / "here" / "w.pth")
    at = deployed(tiny.network.source, tmp_path / "here" / "w.pth", TINY)
    add_request(Ledger(tmp_path / "here" / "ledger"), at, classes(0), shift, name="one")
    shutil.move(tmp_path / "here", tmp_path / "there")
    ledger = Ledger(tmp_path / "there" / "ledger")
    add_request(ledger, at, classes(1), shift, name="two")
    assert ledger.verify() == ([], [])


def quiet(model: nn.Module, task: UnlearnTask, *, seed: int, device: str) -> UnlearnResult:
    """Forget a class by the bias of a head, whatever it is called."""
    revised = copy.deepcopy(model)
    *_, bias = (parameter for name, parameter in revised.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        bias[task.forget_classes[0]] -= 3.0
    return UnlearnResult(revised, [], 0.0, "quiet", {"seed": seed})


def test_a_folder_of_hugging_face_is_served_withdrawn_and_verified(tmp_path: Path, vit: Any) -> None:
    vit.save_pretrained(tmp_path / "vit")
    images = TensorImages(torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    bundle = DataBundle("tiny", images, images, 3, "classification", ("a", "b", "c"))
    at, ledger = deployed(f"hf:{tmp_path / 'vit'}", None, bundle), Ledger(tmp_path / "ledger")
    before = at.model.state_dict()
    add_request(ledger, at, classes(0, images, images), quiet, name="ann")
    one = served_by(ledger, at)
    add_request(ledger, at, classes(1, images, images), quiet, name="bob")
    moved = served_by(ledger, at)
    (changed,) = [name for name, value in moved.items() if not torch.equal(value, before[name])]
    assert torch.allclose(moved[changed] - before[changed], torch.tensor([-3.0, -3.0, 0.0]))
    withdraw_request(ledger, at, "bob", data=[images])
    assert same(served_by(ledger, at), one)
    assert ledger.verify() == ([], [])
    (ledger.folder / "requests" / "ann" / "model" / "config.json").write_text("{}")
    assert "requests/ann/model' of line 2 was changed" in ledger.verify()[0][0]
