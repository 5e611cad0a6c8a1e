"""What is wrong with the values of a file, in the words of all errors: where, what was expected, what came."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError


def error_lines(source: str, error: ValidationError) -> str:
    """Return a line for each value that pydantic refuses: where it stands, what was expected and what came.

    Args:
        source: What holds the values, a file as a rule.
        error: What pydantic says of them.
    """
    return "\n".join(dict.fromkeys(_line(source, found) for found in error.errors(include_url=False)))


def _line(source: str, found: Any) -> str:
    """Return the line for one value."""
    # What pydantic calls the steps inside an annotated type is nothing to who wrote the file.
    path = ".".join(str(part) for part in found["loc"] if "[" not in str(part))
    where = f"{source}: {path or 'the whole file'}"
    if found["type"] == "missing":
        return f"{where}: expected a value, but got none"
    message = str(found["msg"]).removeprefix("Value error, ")
    if message.startswith("expected"):
        return f"{where}: {message}"
    what = message[:1].lower() + message[1:].replace("Input should", "should")
    return f"{where}: expected {what.removeprefix('input should ').removeprefix('be ')}, but got {found['input']!r}"
