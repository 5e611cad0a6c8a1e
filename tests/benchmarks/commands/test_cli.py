from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import algorithms
from benchmarks.cli import app
from benchmarks.demo import run as demo
from benchmarks.speed.made_up import write_made_up
from unlearn_kit import DivergenceError, command
from unlearn_kit.data import LOADERS
from unlearn_kit.models import MODELS

RUNNER = CliRunner()


def run(*arguments: object):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def raiser(*errors: Exception) -> Callable[[object], None]:
    """A stand-in for ``run_demo`` that raises one error a call."""
    left = iter(errors)

    def fails(config: object) -> None:
        raise next(left)

    return fails


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]])
def test_help_comes_without_the_heavy_packages(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom unlearn_kit.command import main\n"
        f"sys.argv = ['unlearn-kit', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', sorted({'torch', 'numpy', 'matplotlib', 'algorithms'} & set(sys.modules)))"
    )
    shown = python(code)
    assert shown.endswith("LOADED []\n")
    assert importlib.metadata.version("unlearn-kit") in shown if "--version" in arguments else "Usage" in shown


def test_a_report_is_written_without_torch_and_the_methods(tmp_path: Path) -> None:
    # They are most of what a process of it would hold: 680 MB of memory for a thousand runs with them, 150 without.
    store = write_made_up(tmp_path / "out", methods=("finetune", "perturbed_sign"))
    code = (
        "import sys\nfrom unlearn_kit.command import main\n"
        "for name in ('html', 'csv', 'latex', 'markdown'):\n"
        f"    sys.argv = ['unlearn-kit', 'report', {str(store.root)!r}, '--format', name]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, end.code\n"
        "print('LOADED', sorted({'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy.stats', 'algorithms'} & "
        "set(sys.modules)))"
    )
    assert python(code).endswith("LOADED []\n")
    assert (store.root / "report.html").is_file()


@pytest.mark.parametrize("name", ["algorithms", "benchmarks"])
@pytest.mark.parametrize("place", ["{}/__init__.py", "{}.py"])
def test_the_command_refuses_a_package_of_another_project(name: str, place: str, tmp_path: Path) -> None:
    stranger = tmp_path / place.format(name)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("raise RuntimeError('a stranger was run')\n")
    root = str(Path(command.__file__).parents[1])
    code = "import sys\nfrom unlearn_kit.command import main\nsys.argv = ['unlearn-kit', '--help']\nmain()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    arguments = [sys.executable, "-P", "-c", code]  # -P: as in a console script, not from the working directory
    found = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"error: expected the package {name!r} in {root}")
    assert str(tmp_path / name) in found.stderr
    assert "take that folder off PYTHONPATH" in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_folder_without_a_module_is_a_stranger_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert command.stranger("elsewhere") == str(tmp_path / "elsewhere")
    assert command.stranger("algorithms") is None


def test_list_names_every_algorithm_data_set_and_model() -> None:
    found = json.loads(run("list", "--json").stdout)
    assert set(found["algorithms"]) == set(algorithms.__all__)
    assert set(found["data"]) == set(LOADERS)
    assert set(found["models"]) == set(MODELS)
    lines = [entry["about"] for kind in found.values() for entry in kind.values()]
    assert all(line and not line.endswith(".") for line in lines)
    assert found["algorithms"]["neg_grad"] == {
        "about": found["algorithms"]["neg_grad"]["about"],
        "kinds": ["classification", "segmentation", "multilabel"],
        "reads_retain": False,
        "reinitializes": False,
        "reads_reference": False,
        "source": "Golatkar et al. 2020, arXiv 1911.04933",
    }
    shown = run("list").stdout
    assert all(name in shown for kind in found.values() for name in kind)
    assert "``" not in shown
    (line,) = [" ".join(line.split()) for line in shown.splitlines() if line.split()[:1] == ["boundary_expand"]]
    assert line.endswith("no yes Chen et al. 2023, arXiv 2303.11570")  # no masks; retain data


def test_demo_prints_one_table_and_writes_its_folder(tmp_path: Path) -> None:
    options = ["--train-size", 200, "--epochs", 1, "--methods", "finetune, boundary_shrink", "--out", tmp_path]
    found = run("demo", *options)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    for name in ("original (do nothing)", "reference (retrained)", "finetune", "boundary_shrink"):
        assert sum(line.strip().startswith(name) for line in lines) == 1
    assert "digits: forgetting class 0" in lines[0]
    assert str(tmp_path) in lines[-1]
    assert {"original ...", "reference ...", "finetune ..."} <= set(found.stderr.splitlines())
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "tradeoff.png", "models"}


def test_threads_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(demo, "run_demo", raiser(ValueError("far enough")))
    assert run("demo", "--threads", 3, "--out", tmp_path).exit_code == 2
    assert asked == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digit"], "expected data to be one of"),
        (["--methods", "fine_tune"], "did you mean 'finetune'?"),
        (["--forget", "class:12"], "expected label to be a class in [0, 9], but got 12"),
        (["--data", "fashion-mnist", "--root", "/nonexistent", "--train-size", "0"], "train_size"),
        (["--train-size", "0"], "expected train_size"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    if "fashion-mnist" in arguments and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("fashion-mnist is not on this machine")
    found = run("demo", "--out", tmp_path / "out", *arguments)
    assert found.exit_code == 2
    assert found.stdout == ""
    assert found.stderr.startswith("error: expected")
    assert found.stderr.count("\n") == 1
    assert message in found.stderr
    assert "Traceback" not in found.output
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    found = run("demo", "--out", tmp_path / "taken")
    assert found.exit_code == 2
    assert "taken" in found.stderr
    assert "original ..." not in found.stderr


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    found = run("demo", "--data", "digit", "--debug")
    assert isinstance(found.exception, ValueError)


def test_a_divergence_leaves_with_1_and_a_fault_of_ours_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [DivergenceError("train", 7, "cross_entropy", {}), RuntimeError("a bug")]
    monkeypatch.setattr(demo, "run_demo", raiser(*errors))
    found = run("demo")
    assert found.exit_code == 1
    assert found.stderr.startswith("error: phase 'train' diverged at step 7")
    assert isinstance(run("demo").exception, RuntimeError)


def test_a_named_method_that_refuses_shows_in_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(model, task, *, seed=0, device=None):
        raise ValueError("expected another task, but got this")

    monkeypatch.setattr(algorithms, "finetune", refuses)
    found = run("demo", "--train-size", 200, "--epochs", 1, "--methods", "finetune", "--out", tmp_path)
    assert found.exit_code == 1
    assert "finetune: n/a: expected another task, but got this" in found.stdout
