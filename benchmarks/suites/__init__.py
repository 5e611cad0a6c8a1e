"""Suites: matrices of runs in YAML. The shipped ones are the files beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unlearn_kit.errors import check_choice

from .schema import Suite, error_lines

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
    import yaml

    path = find(name)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"expected {path} to be YAML, but got: {error}") from error
    return parse_suite(values, str(path))


def parse_suite(values: Any, source: str = "suite") -> Suite:
    """Check the values of a suite; errors name ``source``.

    Raises:
        ValueError: As :func:`read_suite`.
    """
    try:
        return Suite.model_validate(values)
    except ValidationError as error:
        raise ValueError(error_lines(source, error)) from None


def _loader() -> Any:
    """Return YAML's safe loader, which also refuses a key that comes twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice[0]!r} comes more than once", node.start_mark
                )
            return super().construct_mapping(node, deep)

    return Loader
