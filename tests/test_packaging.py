from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import unlearn_kit

ROOT = Path(__file__).parents[1]
PACKAGES = ("unlearn_kit", "algorithms", "benchmarks")
# Files that the code reads: the shipped suites, and what the report's page is made of.
READ = (
    "benchmarks/suites/*.yaml",
    "benchmarks/report/*.html",
    "benchmarks/report/*.css",
    "benchmarks/report/*.js",
    "benchmarks/report/*.txt",
    "unlearn_kit/deployed/*.html",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy, as a fresh checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, "-w", str(out), str(source)], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def files_of_the_packages() -> set[str]:
    modules = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    read = {path.relative_to(ROOT).as_posix() for pattern in READ for path in ROOT.glob(pattern)}
    assert len(read) >= len(READ)
    return modules | read | {f"{name}/py.typed" for name in PACKAGES}


def test_the_wheel_holds_every_module_of_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files_of_the_packages()


def test_the_sdist_holds_what_a_wheel_is_built_from(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files_of_the_packages() | {"pyproject.toml", "README.md", "LICENSE"} <= held


def test_the_wheel_brings_the_command_the_licence_and_its_requirements(wheel: zipfile.ZipFile) -> None:
    def text(name: str) -> str:
        (found,) = [member for member in wheel.namelist() if member.endswith(f".dist-info/{name}")]
        return wheel.read(found).decode()

    assert "unlearn-kit = unlearn_kit.command:main" in text("entry_points.txt")
    metadata = text("METADATA")
    assert f"Name: unlearn-kit\nVersion: {unlearn_kit.__version__}\n" in metadata
    assert "Requires-Dist: torch" in metadata
    assert "License-Expression: MIT" in metadata
    assert "# unlearn-kit" in metadata  # the README is the long description
    assert text("licenses/LICENSE").startswith("MIT License")
