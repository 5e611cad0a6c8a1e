"""Progress bars: where they are shown, where nothing is, and that results do not know."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unlearn_kit import losses as L
from unlearn_kit import progress
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Callback, Phase, ProgressBar, Run, fit
from unlearn_kit.metrics import predict
from unlearn_kit.models import build
from unlearn_kit.progress import VARIABLE, Bar, bars_shown, progress_bars

DATA = TensorImages(torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
IS_TERMINAL = progress._is_terminal
MODEL = build("mlp", 3, seed=0, hidden=(4,))


def trained(*callbacks: Callback) -> torch.Tensor:
    phase = Phase(L.cross_entropy(on="retain"), {"retain": DATA}, steps=3, batch_size=4, lr=0.1, name="<forgetting>")
    return fit(MODEL, phase, callbacks=callbacks).model.get_parameter("head.weight")


class Terminal:
    """What was written on standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def getvalue(self) -> str:
        found = self.capsys.readouterr()
        assert found.out == ""
        return found.err


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Standard error as if it were a terminal, and no patience."""
    for name in (VARIABLE, "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm"), ("TTY_COMPATIBLE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    return Terminal(capsys)


def test_a_training_shows_its_phase_in_a_terminal_and_leaves_nothing_open(stderr: Terminal) -> None:
    before = sys.stderr, sys.stdout
    trained()
    written = stderr.getvalue()
    assert "<forgetting>" in written
    assert "100%" in written
    assert progress._open == []
    assert (sys.stderr, sys.stdout) == before


def test_reading_a_data_set_shows_how_far_it_is(stderr: Terminal) -> None:
    predict(MODEL, DATA, batch_size=4)
    written = stderr.getvalue()
    assert "reading samples" in written
    assert "33%" in written


@pytest.mark.parametrize("where", ["pipe", "variable", "block", "rank", "thread", "inside another", "short"])
def test_elsewhere_nothing_is_written(where: str, stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "pipe":
        monkeypatch.setattr(progress, "_is_terminal", IS_TERMINAL)
    if where == "variable":
        monkeypatch.setenv(VARIABLE, "0")
    if where == "rank":
        monkeypatch.setenv("LOCAL_RANK", "1")
    if where == "short":
        monkeypatch.setattr(progress, "PATIENCE", 60.0)
    if where == "block":
        with progress_bars(False):
            trained()
    elif where == "thread":
        thread = threading.Thread(target=trained)
        thread.start()
        thread.join()
    elif where == "inside another":
        monkeypatch.setattr(progress, "_open", [Bar("outer", 1)])
        trained()
    else:
        trained()
    assert stderr.getvalue() == ""


def test_a_bar_can_be_asked_for_where_there_is_no_terminal(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_is_terminal", IS_TERMINAL)
    assert not bars_shown()
    with progress_bars(True):
        assert bars_shown()
    monkeypatch.setenv(VARIABLE, "1")
    assert bars_shown()
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="variable UNLEARN_KIT_PROGRESS to be 0 or 1, but got 'yes'"):
        bars_shown()
    with pytest.raises(TypeError, match="expected shown to be a bool, but got int"), progress_bars(1):  # type: ignore[arg-type]
        pass
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(sys, "stderr", None)
    assert not bars_shown()


def test_a_callback_that_shows_progress_is_the_only_bar(stderr: Terminal) -> None:
    class Lines(Callback):
        shows = True

    trained(Lines())
    assert stderr.getvalue() == ""
    trained(ProgressBar("mine"))
    written = stderr.getvalue()
    assert "mine" in written
    assert "<forgetting>" not in written


def test_a_bar_goes_when_a_training_breaks(stderr: Terminal) -> None:
    class Breaks(Callback):
        def on_step(self, run: Run) -> None:
            raise RuntimeError("no")

    before = sys.stderr, sys.stdout
    with pytest.raises(RuntimeError, match="no"):
        trained(Breaks())
    assert progress._open == []
    assert (sys.stderr, sys.stdout) == before


def test_results_are_the_same_bits_with_a_bar(stderr: Terminal) -> None:
    before = torch.get_rng_state()
    with progress_bars(False):
        plain, answers = trained(), predict(MODEL, DATA)[0]
    assert torch.equal(trained(), plain)
    assert torch.equal(predict(MODEL, DATA)[0], answers)
    assert stderr.getvalue() != ""
    assert torch.equal(torch.get_rng_state(), before)


def test_a_notebook_shows_the_browser_s_bar_and_is_left_empty(
    stderr: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    import IPython
    import IPython.display

    shown: list[str] = []
    handle = SimpleNamespace(update=lambda html: shown.append(html.data))
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: handle)
    trained()
    assert shown[1].startswith('<progress max="3" value="1"></progress> &lt;forgetting&gt; 1 of 3')
    assert shown[-1] == ""
    assert stderr.getvalue() == ""


def test_a_worker_process_and_a_pipe_stay_silent() -> None:
    code = """
import multiprocessing
from unlearn_kit.progress import bars_shown
def tell(pipe):
    pipe.send(bars_shown())
if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=tell, args=(theirs,))
    process.start()
    print(bars_shown(), ours.recv())
    process.join()
"""
    environment: dict[str, Any] = {"UNLEARN_KIT_PROGRESS": "1", "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split() == ["True", "False"]
    del environment["UNLEARN_KIT_PROGRESS"]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split() == ["False", "False"]
