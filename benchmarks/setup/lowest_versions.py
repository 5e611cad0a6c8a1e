"""Constraints that make pip install the lowest versions which ``pyproject.toml`` allows, to test that these work.

    python -m benchmarks.setup.lowest_versions > lowest.txt
    python -m venv lowest && lowest/bin/pip install --constraint lowest.txt --editable '.[dev]'
    lowest/bin/python -m pytest

``--without torch torchvision`` leaves out what is not to be had at its lowest.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest_versions(path: Path = PYPROJECT, without: Collection[str] = ()) -> Iterator[str]:
    """Yield ``NAME==VERSION`` for each requirement, of the package and of its extras, in their order.

    Args:
        path: A ``pyproject.toml``.
        without: Names of packages to leave out.

    Raises:
        ValueError: On a requirement of another package without a lower bound, which says nothing of what works.
    """
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *(r for rows in project["optional-dependencies"].values() for r in rows)]
    for requirement in requirements:
        name = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]
        bound = re.search(r">=\s*([\w.]+)", requirement)
        if name in (project["name"], *without):
            continue
        if bound is None:
            raise ValueError(f"expected a lower bound in {path}, but got {requirement!r}")
        yield f"{name}=={bound[1]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the constraints, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", default=[], help="packages to leave out")
    given = parser.parse_args(arguments)
    sys.stdout.write("".join(f"{line}\n" for line in dict.fromkeys(lowest_versions(without=given.without))))


if __name__ == "__main__":
    main()
