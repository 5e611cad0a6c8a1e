"""Suites: matrices of runs in YAML. The shipped ones are the files beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from unlearn_kit.errors import check_choice
from unlearn_kit.safe_yaml import check_plain, read_yaml

from .mistakes import error_lines

if TYPE_CHECKING:
    from .schema import Suite

FOLDER = Path(__file__).parent


def shipped() -> list[str]:
    """Return the names of the suites that come with the toolkit."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str | Path) -> Path:
    """Return the file of a shipped suite, or ``name`` itself where it is a file's.

    Raises:
        ValueError: On an unknown name.
        FileNotFoundError: On a file that is not there.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"expected suite to be an existing file, but got {str(name)!r}")
        return path
    check_choice("suite", str(name), shipped())
    return FOLDER / f"{name}.yaml"


def read_suite(name: str | Path) -> Suite:
    """Read and check a suite: a file ``*.yaml``, or the name of a shipped one.

    Raises:
        ValueError: On a mistake, naming the file, the key's path, what was expected and what came.
        FileNotFoundError: On a file that is not there.
    """
    path = find(name)
    return parse_suite(read_yaml(path, "suite"), str(path))


def parse_suite(values: Any, source: str = "suite") -> Suite:
    """Check the values of a suite; errors name ``source``.

    Raises:
        ValueError: As :func:`read_suite`.
    """
    # With all that a suite may name, and torch: what only reads results needs neither.
    from .schema import Suite, check_combinations

    check_plain(values, source)
    check_combinations(values, source)
    try:
        return Suite.model_validate(values)
    except ValidationError as error:
        raise ValueError(error_lines(source, error)) from None
