"""A run that is interrupted anywhere and continued ends with the bits of one that was not."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unlearn_kit import CheckpointError, DivergenceError, save_model
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.checkpoints import load_tensors_file, save_tensors
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import (
    Alternate,
    BestSoFar,
    Callback,
    FitResult,
    Log,
    Phase,
    Run,
    StopWhen,
    WeightAverage,
    fit,
)
from unlearn_kit.engine.fingerprint import fingerprint
from unlearn_kit.engine.phases import plan
from unlearn_kit.engine.resume import _checksum
from unlearn_kit.models import build
from unlearn_kit.modules import frozen_copy
from unlearn_kit.schedules import Schedule
from unlearn_kit.seeding import isolated


def images(count: int, seed: int) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.randint(3, (count,), generator=own))


FORGET, RETAIN, OTHER = images(10, 1), images(13, 2), images(13, 3)
# Of RETAIN's length, and of its images or of its labels.
RELABELLED = TensorImages(RETAIN.inputs, (RETAIN.targets + 1) % 3)
PAINTED = TensorImages(1 - RETAIN.inputs, RETAIN.targets)
KEEP, ERASE = L.cross_entropy(on="retain"), L.cross_entropy(on="forget")


def dropping(seed: int = 0) -> nn.Module:
    model = build("mlp", 3, seed=seed, hidden=(5,))
    model.get_submodule("block1").append(nn.Dropout(0.5))  # type: ignore[operator]
    return model


def cnn(seed: int = 0) -> nn.Module:
    return build("small-cnn", 3, seed=seed, width=2)


TEACHER = frozen_copy(dropping(9))
NOISY = PerturbedSign(radius=0.2, steps=2, noise=0.5, bounds=None)


class Jittered(Dataset):
    targets = RETAIN.targets

    def __len__(self) -> int:
        return len(RETAIN)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = RETAIN[index]
        return x + 0.1 * torch.rand(()) + 0.1 * float(np.random.rand()), y  # noqa: NPY002


def phase(objective: Any = KEEP, **options: Any) -> Phase:
    streams = {name: {"forget": FORGET, "retain": RETAIN}[name] for name in L.Objective(objective._terms).streams}
    return Phase(objective, **{"streams": streams, "batch_size": 4, "lr": 0.05, **options})


def boundary(refresh: str | None) -> L.Objective:
    target: L.Target = L.Boundary(TEACHER, NOISY)
    wrapped = target if refresh is None else L.Cached(target, refresh)  # type: ignore[arg-type]
    return L.cross_entropy(on="forget", to=wrapped) + KEEP


class Counting(torch.optim.SGD):
    """An optimiser whose steps shrink with a number in its state and one in its group."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.param_groups[0]["calls"] = 0

    def step(self, closure: Any = None) -> None:
        group = self.param_groups[0]
        group["calls"] += 1
        for p in group["params"]:
            self.state[p]["count"] = self.state[p].get("count", 0) + 1
            with torch.no_grad():
                p.sub_(p.grad / (self.state[p]["count"] + group["calls"]))


def centre(model: nn.Module) -> None:
    """Sets weights at the start of a turn, from random numbers."""
    head = model.get_parameter("head.bias")
    head.copy_(torch.rand(3) * 0.1)


PROGRAMS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "momentum and dropout": (dropping, phase(epochs=2, weight_decay=0.01, lr=L.cosine(0.1, 0.0))),
    "adam": (dropping, phase(ERASE + KEEP, steps=7, optimizer="adam")),
    "adamw": (dropping, phase(steps=7, optimizer="adamw", clip=0.1)),
    "two phases": (dropping, [phase(steps=3, name="a"), phase(ERASE, steps=4, optimizer="adam", name="b")]),
    "own optimisers in turns": (
        dropping,
        Alternate([phase(steps=2, name="keep"), phase(-0.1 * ERASE, steps=1, optimizer="adam", name="erase")], 3),
    ),
    "a shared optimiser in turns": (
        dropping,
        Alternate([phase(steps=2, name="keep"), phase(-0.1 * ERASE, steps=1, name="erase")], 3, shared_optimizer=True),
    ),
    "batch norm": (cnn, phase(epochs=2, batch_norm="update")),
    "noisy boundary": (dropping, phase(boundary(None), epochs=2)),
    "noisy boundary, each epoch": (dropping, phase(boundary("epoch"), epochs=2)),
    "noisy boundary, once": (dropping, phase(boundary("once"), epochs=2)),
    "random labels": (dropping, phase(L.cross_entropy(on="forget", to=L.RandomLabels(3)), epochs=2)),
    "augmented": (dropping, phase(epochs=2, streams={"retain": Jittered()})),
    "augmented and cached": (
        dropping,
        phase(
            L.cross_entropy(on="retain", to=L.Cached(L.Boundary(TEACHER, NOISY), "epoch")),
            streams={"retain": Jittered()},
            epochs=2,
        ),
    ),
    "resting terms": (dropping, phase(L.every(3) * ERASE, steps=7)),
    "masks": (dropping, phase(steps=5, masks={"head.weight": torch.rand(3, 5) < 0.5})),
    "numbers in the optimiser's state": (dropping, phase(steps=5, optimizer=Counting, lr=None)),
    "weights set at each turn": (
        dropping,
        Alternate([phase(steps=2, before=centre, name="a"), phase(steps=1, name="b")], 3),
    ),
}


class Interrupted(Exception):  # noqa: N818
    pass


class Interrupt(Callback):
    """Breaks the run off after step ``at`` of all its steps."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at

    def on_step(self, run: Run) -> None:
        if run.done == self.at:
            raise Interrupted


def score(model: nn.Module) -> float:
    """Draws random numbers, and is not monotonous over a run."""
    return torch.sin(100 * next(iter(model.parameters())).sum()).item() + 0.0 * torch.rand(()).item()


def watchers() -> list[Callback]:
    return [BestSoFar(score, name="best"), StopWhen(score, lambda value: value > 2, every=2), Log()]


def assert_same(a: FitResult, b: FitResult) -> None:
    one, other = a.model.state_dict(), b.model.state_dict()
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert a.history == b.history
    assert a.stopped == b.stopped


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_interrupted_run_is_continued_with_the_same_bits(name: str, tmp_path: Path) -> None:
    build_model, program = PROGRAMS[name]
    path = tmp_path / "run.safetensors"

    def run(at: int | None, *, save: bool = True) -> FitResult:
        saving: dict[str, Any] = {"checkpoint": path, "checkpoint_every": 2} if save else {}
        callbacks = [*watchers(), Interrupt(at)]
        return fit(build_model(), program, seed=3, callbacks=callbacks, log_every=2, **saving)

    whole = run(None, save=False)
    steps = sum(leg.stop - leg.start for leg in plan(program))
    # Broken off twice: what the second stretch does not come to use must reach the third all the same.
    for at in range(2, steps, 3):
        path.unlink(missing_ok=True)
        for until in (at, min(at + 3, steps)):
            with pytest.raises(Interrupted):
                run(until)
        assert_same(run(None), whole)
    # A finished run is not trained again.
    assert_same(run(1), whole)


@pytest.mark.parametrize("callback", [WeightAverage, BestSoFar])
def test_weights_that_a_callback_holds_are_continued_with(callback: Any, tmp_path: Path) -> None:
    def run(at: int | None, path: Path | None) -> FitResult:
        own = WeightAverage(0.9, every=2) if callback is WeightAverage else BestSoFar(lambda m: -abs(score(m)))
        return fit(
            cnn(),
            phase(epochs=3, batch_norm="update"),
            callbacks=[own, Interrupt(at)],
            checkpoint=path,
            checkpoint_every=1,
        )

    whole = run(None, None)
    path = tmp_path / "run.safetensors"
    for at in (5, 9):
        with pytest.raises(Interrupted):
            run(at, path)
    assert_same(run(None, path), whole)


def test_a_run_that_a_callback_stopped_stays_stopped(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def run(callbacks: Sequence[Callback]) -> FitResult:
        return fit(dropping(), phase(epochs=3), callbacks=callbacks, checkpoint=path, checkpoint_every=1)

    first = run([StopWhen(lambda _: 0.0, lambda value: value == 0, every=5)])
    assert first.stopped == "metric = 0"
    assert_same(run([StopWhen(lambda _: 1.0, lambda value: value == 0, every=5)]), first)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    @L.term(reduction="batch")
    def cliff(logits: Tensor) -> Tensor:
        return (logits * 0).sum().sqrt()

    for steps in (3, 5):
        path = tmp_path / f"{steps}.safetensors"
        program = phase(KEEP + L.every(3) * cliff(on="retain"), steps=steps)
        for _ in range(2):
            with pytest.raises(DivergenceError) as raised:
                fit(dropping(), program, checkpoint=path, checkpoint_every=1)
            assert (raised.value.step, raised.value.part) == (2, "parameters")
            assert all(torch.isfinite(value).all() for value in raised.value.state.values())


def one_step(path: Path, **changes: Any) -> FitResult:
    arguments: dict[str, Any] = {"model": dropping(), "program": phase(steps=1), "seed": 0, "callbacks": [], **changes}
    return fit(**arguments, checkpoint=path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": 1}, "another seed"),
        ({"model": dropping(1)}, "another model"),
        ({"model": cnn()}, "another model"),
        ({"program": phase(steps=1, lr=0.051)}, "another program"),
        ({"program": phase(steps=1, momentum=0.8)}, "another program"),
        ({"program": phase(steps=1, trainable=["head.bias"])}, "another program"),
        ({"program": phase(steps=1, masks={"head.bias": torch.ones(3).bool()})}, "another program"),
        ({"program": phase(steps=2)}, "another program"),
        ({"program": phase(2.0 * KEEP, steps=1)}, "another program"),
        ({"program": phase(steps=1, streams={"retain": FORGET})}, "another data"),
        ({"program": phase(steps=1, streams={"retain": OTHER})}, "another data"),
        ({"program": phase(steps=1, streams={"retain": RELABELLED})}, "another data"),
        ({"program": phase(steps=1, streams={"retain": PAINTED})}, "another data"),
        ({"program": Alternate([phase(steps=1)], 1, shared_optimizer=True), "seed": 1}, "another program and seed"),
        ({"callbacks": [Log()]}, r"another callbacks, \[\] rather than \['Log'\]"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_checkpoint_of_another_run_is_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    one_step(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"expected .* to hold a run with this model, program.* holds {text}"):
        one_step(path, **changes)
    assert path.read_bytes() == before


def test_the_target_s_settings_and_model_are_part_of_the_program(tmp_path: Path) -> None:
    def program(teacher: nn.Module, **options: Any) -> Phase:
        target = L.Boundary(teacher, PerturbedSign(radius=0.1, **options))
        return phase(L.cross_entropy(on="forget", to=target), steps=1)

    path = tmp_path / "run.safetensors"
    one_step(path, program=program(TEACHER))
    one_step(path, program=program(frozen_copy(TEACHER)))
    for other in (program(TEACHER, noise=0.1), program(frozen_copy(dropping(8)))):
        with pytest.raises(CheckpointError, match="another program"):
            one_step(path, program=other)


def test_the_number_of_workers_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = one_step(path, program=phase(steps=1, workers=0))
    assert_same(one_step(path, program=phase(steps=1, workers=2)), first)


# What tells runs apart


class Factor:
    """A weight of a term: an object without fields."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, progress: float) -> float:
        return self.start - progress


class Slower(Factor):
    def __call__(self, progress: float) -> float:
        return self.start - progress / 2


def falling(start: float) -> Callable[[float], float]:
    return lambda progress: start - progress


def falling_by_default(start: float) -> Callable[[float], float]:
    return lambda progress, start=start: start - progress  # type: ignore[misc]


def of_tensor(start: torch.Tensor) -> Callable[[float], float]:
    return lambda progress: float(start) - progress


def named(**values: Any) -> Callable[[float], float]:
    """A function that reads a global."""
    own: dict[str, Any] = {}
    exec("def schedule(progress): return (lambda: RATE)() - progress", {"RATE": 0.0, "__name__": "own", **values}, own)
    made: Callable[[float], float] = own["schedule"]
    return made


def own_class(number: float) -> Any:
    return type("Own", (), {"__call__": lambda _, progress: number * progress, "__module__": "own"})()


def mark(weight: Any) -> str:
    return fingerprint(plan(phase(weight * KEEP, steps=1, optimizer=torch.optim.SGD)), cnn(), 0)["program"]


WEIGHTS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "two lambdas": (lambda: lambda p: 1 - p, lambda: lambda p: 1 + p),
    "constants": (lambda: lambda p: 1 - p, lambda: lambda p: 2 - p),
    "functions called": (lambda: lambda p: math.sin(p), lambda: lambda p: math.cos(p)),
    "inner functions": (lambda: lambda p: (lambda: p - 1)(), lambda: lambda p: (lambda: p - 2)()),
    "closures": (lambda: falling(1.0), lambda: falling(2.0)),
    "defaults": (lambda: falling_by_default(1.0), lambda: falling_by_default(2.0)),
    "globals": (lambda: named(RATE=1.0), lambda: named(RATE=2.0)),
    "partials": (lambda: partial(pow, 2.0), lambda: partial(pow, 3.0)),
    "methods": (lambda: Factor(1.0).__call__, lambda: Factor(2.0).__call__),
    "attributes": (lambda: Factor(1.0), lambda: Factor(2.0)),
    "classes": (lambda: Factor(1.0), lambda: Slower(1.0)),
    "classes of one name": (lambda: own_class(1.0), lambda: own_class(2.0)),
    "cached functions": (lambda: cache(falling(1.0)), lambda: cache(falling(2.0))),
    "schedules": (lambda: Schedule("mine", lambda s, t: s / t), lambda: Schedule("mine", lambda s, t: t / (s + 1))),
    "tensors": (lambda: of_tensor(torch.ones(1)), lambda: of_tensor(torch.zeros(1))),
    "sets": (lambda: lambda p: float(p in {"a", "b"}), lambda: lambda p: float(p in {"a", "c"})),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_functions_are_told_apart_by_what_they_do_and_hold(kind: str) -> None:
    one, other = WEIGHTS[kind]
    kept = one()  # Alive, so that the second takes another address.
    assert mark(kept) == mark(one())
    assert mark(kept) != mark(other())


def test_a_function_that_knows_itself_is_described() -> None:
    def make() -> Callable[[float], float]:
        def countdown(progress: float) -> float:
            return countdown(progress - 1) if progress > 1 else progress

        return countdown

    assert mark(make()) == mark(make())


def all_marks() -> list[str]:
    return [mark(make()) for pair in WEIGHTS.values() for make in pair]


def test_every_process_gives_the_same_fingerprint() -> None:
    script = f"from {__name__} import all_marks; print(all_marks())"
    own = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}  # Another order of sets.
    run = subprocess.run([sys.executable, "-c", script], env=own, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(all_marks())


def test_a_function_that_cannot_be_told_apart_is_refused_by_name_with_a_checkpoint_only(tmp_path: Path) -> None:
    rates = (rate for rate in (0.1, 0.2))

    def factory(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=next(rates))

    program = phase(steps=1, optimizer=factory, lr=None)
    text = (
        "expected optimizer of phase 'train' to hold what can be told apart from others with checkpoint=, but it holds"
    )
    with pytest.raises(TypeError, match=f"{text} generator"):
        one_step(tmp_path / "run.safetensors", program=program)
    assert fit(dropping(), program).stopped is None


def test_which_weights_a_function_chooses_is_what_counts(tmp_path: Path) -> None:
    hidden = (part for part in ())  # A function that holds this cannot be told apart, and need not be.
    path = tmp_path / "run.safetensors"
    one_step(path, program=phase(steps=1, trainable=lambda name, _: name.startswith("head.") and hidden is not None))
    one_step(path, program=phase(steps=1, trainable=["head.weight", "head.bias"]))
    with pytest.raises(CheckpointError, match="another program"):
        one_step(path, program=phase(steps=1, trainable=["head.bias"]))


def test_data_that_draw_random_numbers_have_one_fingerprint() -> None:
    def data() -> str:
        return fingerprint(plan(phase(steps=1, streams={"retain": Jittered()})), cnn(), 0)["data"]

    with isolated(0):
        first = data()
    with isolated(1):
        before = torch.get_rng_state()
        assert data() == first
        assert torch.equal(torch.get_rng_state(), before)


def test_files_that_are_no_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    one_step(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut short or not a safetensors file"):
        one_step(path)
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(CheckpointError, match="is a pickle file and is refused"):
        one_step(path)
    torch.save(dropping().state_dict(), path)
    with pytest.raises(CheckpointError, match="is a pickle file and is refused"):
        one_step(path)
    save_model(dropping(), path)
    with pytest.raises(CheckpointError, match="but it holds no run"):
        one_step(path)


WATCHED = phase(epochs=2, optimizer="adam")


def watched(path: Path, at: int | None = None) -> FitResult:
    callbacks = [BestSoFar(score), Interrupt(at)]
    return fit(dropping(), WATCHED, callbacks=callbacks, checkpoint=path, checkpoint_every=1)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("half") / "run.safetensors"
    with pytest.raises(Interrupted):
        watched(path, 5)
    return path.read_bytes()


def test_every_bit_of_the_header_counts(half_done: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    header = 8 * (8 + struct.unpack("<Q", half_done[:8])[0])
    bits = random.Random(0).sample(range(header), 200)
    for bit in [*bits, 8 * len(half_done) - 1]:  # The last is of a tensor.
        flipped = bytearray(half_done)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError) as raised:
            watched(path)
        assert repr(str(path)) in str(raised.value), bit
        assert path.read_bytes() == flipped


def without(prefix: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        del tensors[next(name for name in tensors if name.startswith(prefix))]

    return change


def done(count: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda _, header: header.update(done=count)


ALTERED: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], None], str]] = {
    "done of too many": (done(10**9), "1000000000 steps done of 8"),
    "done of too few": (done(-5), "-5 steps done of 8"),
    "done of no number": (done(True), "True steps done of 8"),
    "a weight": (without("model/"), "missing 'block1.0.bias'"),
    "a weight's dtype": (
        lambda tensors, _: tensors.update({"model/head.bias": tensors["model/head.bias"].double()}),
        r"'head.bias' is float64 \(3,\) in the file and float32 \(3,\) in the model",
    ),
    "a group": (lambda tensors, _: tensors.update(other=torch.ones(1)), "it holds no whole run .KeyError"),
    "no history": (lambda _, header: header.pop("history"), "it holds no whole run .KeyError"),
    "an optimizer's tensor": (without("optimizer/"), ""),
    "a callback's tensor": (without("callback/"), ""),
    "another done": (done(3), ""),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_run_altered_by_hand_is_refused(kind: str, half_done: bytes, tmp_path: Path) -> None:
    path, (change, text) = tmp_path / "run.safetensors", ALTERED[kind]
    path.write_bytes(half_done)
    tensors, metadata = load_tensors_file(path)
    header = json.loads(metadata["run"])
    change(tensors, header)
    metadata["run"] = json.dumps(header)
    save_tensors(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="its checksum does not fit what it holds"):
        watched(path)
    if text:  # What can be told without the checksum is told with one made anew.
        del metadata["run/checksum"]
        save_tensors(tensors, path, metadata | {"run/checksum": _checksum(metadata, tensors)})
        with pytest.raises(CheckpointError, match=f"cannot continue from .*run.safetensors': .*{text}"):
            watched(path)


def test_a_callback_whose_state_cannot_be_saved_is_named(tmp_path: Path) -> None:
    class Hiding(Callback):
        def state(self) -> dict[str, Any]:
            return {"seen": {1, 2}}

    with pytest.raises(TypeError, match=r"expected the state of callback Hiding to be .* JSON .* got \{'seen': \{1, 2"):
        one_step(tmp_path / "run.safetensors", callbacks=[Hiding()])
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_breaks_leaves_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    program = phase(epochs=2)
    with pytest.raises(Interrupted):
        fit(dropping(), program, callbacks=[Interrupt(3)], checkpoint=path, checkpoint_every=1)
    before = path.read_bytes()

    def half(tensors: Any, file: Any, metadata: Any = None) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        fit(dropping(), program, callbacks=[Interrupt()], checkpoint=path, checkpoint_every=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    resumed = fit(dropping(), program, callbacks=[Interrupt()], checkpoint=path, checkpoint_every=1)
    assert_same(resumed, fit(dropping(), program))


class Remembering(torch.optim.SGD):
    """Keeps a list of past gradients, as L-BFGS does."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("past", []).append(p.grad.clone())


def test_an_optimizer_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    text = "expected the state of Remembering to be tensors and numbers, but 'past' is list: this optimiser cannot be"
    with pytest.raises(CheckpointError, match=text):
        one_step(path, program=phase(steps=1, optimizer=Remembering))
    assert not path.exists()
    fit(dropping(), phase(steps=2, optimizer=Remembering))
