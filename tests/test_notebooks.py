"""The proofs notebooks: each one runs without an error, is committed with what it printed, and leaves nothing out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "proofs_notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PROPOSITIONS = [f"P{number}" for number in range(1, 12)]
# A machine's own folders, and what comes before a path in a warning or a traceback.
MACHINE = re.compile(r"/(home|root|work|tmp|Users|usr|opt)/|[A-Z]:\\\\|site-packages|ipykernel_\d")


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def named(path: Path) -> set[str]:
    """The propositions that a notebook's headings name."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return {name for heading in re.findall(r"^#+ .*$", text, re.M) for name in re.findall(r"\bP\d+\b", heading)}


@pytest.fixture
def own_jupyter(tmp_path, monkeypatch):
    """No settings, kernels or start-up files of whoever runs this."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("UNLEARN_KIT_PROGRESS", "0")  # a bar on a slow machine is no output of the notebook
    return tmp_path


def this_interpreter() -> type:
    """Kernel managers for which "python3" is what runs this test, whatever kernels are registered on the machine."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default

    class Here(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _no_folders(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    return Here


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, own_jupyter):
    from nbclient import NotebookClient

    notebook = read(path)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook,
        kernel_manager_class=this_interpreter(),
        kernel_name="python3",
        timeout=1200,
        resources={"metadata": {"path": str(own_jupyter)}},
    )
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client.execute(env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    said = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert said == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    notebook = read(path)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for output in outputs(notebook)}
    assert "error" not in kinds
    assert {"stream", "display_data"} <= kinds
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert "assert " in "".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "**What this proves.**" in notebook.cells[0].source
    assert "**How it touches the library.**" in notebook.cells[0].source
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_tells_nothing_of_the_machine_it_ran_on(path):
    notebook = read(path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                assert kind.startswith("image/") or not MACHINE.search(str(data))
            assert not MACHINE.search(output.get("text", ""))
        assert not MACHINE.search(cell.source)
        assert not cell.metadata
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert not MACHINE.search(str(notebook.metadata))


def test_every_proposition_has_a_notebook_and_every_notebook_is_listed():
    found = {path.name: named(path) for path in NOTEBOOKS}
    assert all(found.values())
    assert set().union(*found.values()) == set(PROPOSITIONS)
    rows = [line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines() if ".ipynb" in line]
    listed = {re.search(r"\w+\.ipynb", row).group() for row in rows}
    assert listed == set(found)
    for row in rows:
        name = re.search(r"\w+\.ipynb", row).group()
        assert set(re.findall(r"\bP\d+\b", row.split("|")[2])) == found[name], name
