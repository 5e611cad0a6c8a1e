"""The house: imports point one way, the core is light to import, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import unlearn_kit

ROOT = Path(__file__).parent.parent
PACKAGES = ("unlearn_kit", "algorithms", "benchmarks")

# The floors of the core, from the ground up. A room imports from floors below its own.
FLOORS = (
    ("command", "display", "errors", "progress"),
    ("arguments",),
    ("scores",),
    ("files", "judging", "logits", "outputs", "pixel_range", "processes", "results"),
    ("safe_yaml", "schedules", "seeding"),
    ("heads",),
    ("memory", "modules", "stages"),
    ("gradients", "models", "plots"),
    ("checkpoints", "data", "boundary"),
    ("hashing", "tasks"),
    ("losses", "adapters"),
    ("metrics",),
    ("difficulty",),
    ("engine",),
    ("audits",),
    ("composition",),
    ("tuning",),
    ("evidence",),
    ("deployed",),
)

# The rooms of the benchmarks, from the ground up. A room imports from those of lower rows.
BENCHMARK_FLOORS = (
    ("setup",),
    ("suites",),
    ("analysis",),
    ("demo", "report"),
    ("audit", "revise", "speed", "watching"),
    ("studies",),
    ("commands",),
    ("cli",),
)

# Slow or optional: imported in the functions that use them.
HEAVY = (
    "accelerate", "higher", "matplotlib", "nilearn", "pandas", "peft", "plotly", "pyarrow", "pydantic", "ray",
    "segmentation_models_pytorch", "sklearn", "typer", "yaml",
)  # fmt: skip


class Import(NamedTuple):
    """One import: the modules, and whether it runs with the module (not in a function, not for type checkers)."""

    source: str
    target: str
    at_once: bool


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str, path: Path) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(name, alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                origin = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    inner = f"{origin}.{alias.name}"
                    yield Import(name, inner if inner in MODULES else origin, at_once)
            else:
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                deferred = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or typing_only
                yield from visit(child, at_once and not deferred)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]


def room(module: str) -> str:
    """The room of its package that a module is in; the empty string for the package itself."""
    return module.split(".")[1] if "." in module else ""


def test_the_graph_is_not_empty():
    edges = {(found.source, found.target) for found in IMPORTS}
    assert ("unlearn_kit.losses.terms", "unlearn_kit.losses.distances") in edges
    assert ("unlearn_kit.tasks", "unlearn_kit.data.tensors") in edges
    assert any(source.startswith("algorithms.") and target.startswith("unlearn_kit") for source, target in edges)
    assert Import("unlearn_kit.losses.batch", "unlearn_kit.losses.targets", False) in IMPORTS


def test_packages_import_one_way():
    height = {package: place for place, package in enumerate(PACKAGES)}
    wrong = [
        found
        for found in IMPORTS
        if found.target.split(".")[0] in height
        and height[found.target.split(".")[0]] > height[found.source.split(".")[0]]
    ]
    assert wrong == []


BUILDINGS = [("unlearn_kit", FLOORS), ("benchmarks", BENCHMARK_FLOORS)]


@pytest.mark.parametrize(("package", "floors"), BUILDINGS)
def test_every_room_has_a_floor(package, floors):
    rooms = {room(name) for name in MODULES if name.startswith(f"{package}.")}
    assert rooms == {name for names in floors for name in names}


@pytest.mark.parametrize(("package", "floors"), BUILDINGS)
def test_rooms_import_from_floors_below(package, floors):
    floor = {name: height for height, names in enumerate(floors) for name in names}
    wrong = []
    for found in IMPORTS:
        here, there = room(found.source), room(found.target)
        inside = found.source.startswith(f"{package}.") and found.target.split(".")[0] == package
        if inside and here != there and floor.get(there, len(floors)) >= floor[here]:
            wrong.append(found)
    assert wrong == []


def test_nothing_imports_in_circles():
    # A package and its modules are one another's by nature; what only type checkers read makes no circle.
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        parent = found.source == found.target or found.source.startswith(found.target + ".")
        if found.target in MODULES and found.at_once and not parent:
            graph.setdefault(found.source, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_no_module_of_the_core_imports_its_own_package():
    # Else the order in which the package imports its rooms would matter.
    assert [f for f in IMPORTS if f.source.startswith("unlearn_kit.") and f.target == "unlearn_kit"] == []


def test_every_public_class_name_is_defined_once():
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_heavy_packages_are_imported_where_they_are_used():
    wrong = [
        found
        for found in IMPORTS
        if found.source.split(".")[0] == "unlearn_kit" and found.at_once and found.target.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_importing_the_core_imports_nothing_heavy():
    code = "import sys, unlearn_kit; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) & {*HEAVY, "numpy", "torch"} == set()


def test_the_public_names_of_the_core_come_when_asked_for():
    assert {name: getattr(unlearn_kit, name).__module__ for name in unlearn_kit.__all__} == {
        "CheckpointError": "unlearn_kit.errors",
        "DataNotFoundError": "unlearn_kit.errors",
        "DivergenceError": "unlearn_kit.errors",
        "UnlearnResult": "unlearn_kit.results",
        "UnlearnTask": "unlearn_kit.tasks",
        "results_frame": "unlearn_kit.results",
        "load_model": "unlearn_kit.checkpoints",
        "revise": "unlearn_kit.deployed.revision",
        "save_model": "unlearn_kit.checkpoints",
    }
    with pytest.raises(AttributeError, match="has no attribute 'UnlearnTsk'"):
        _ = unlearn_kit.UnlearnTsk


NAMES = [unlearn_kit.__name__, *(info.name for info in pkgutil.walk_packages(unlearn_kit.__path__, "unlearn_kit."))]


def test_examples_in_docstrings_run():
    attempted = 0
    for name in NAMES:
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, f"an example of {name} fails"
        attempted += result.attempted
    assert attempted > 0
