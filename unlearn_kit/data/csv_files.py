"""Files of comma-separated values as programs write them: their encoding, their separator and their rows."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from .mask_pairs import list_names

SEPARATORS = (",", ";", "\t", "|")
# How a file says by its first bytes what it is written in.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# What Excel writes on Windows in western Europe and America. Nothing in a file tells it from others of its kind.
GUESS = "cp1252"
# The first line by which Excel tells itself the separator.
SAYS_SEPARATOR = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n|$)')
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how files of Excel begin, .xlsx and .xls
SAMPLES = 3  # words, at most, by which a person sees whether a guess is right


class CsvRows(NamedTuple):
    """What a file holds.

    Attributes:
        header: The names of the columns.
        rows: As many fields each; rows without any text are left out.
        notes: What had to be found out about the file, in words.
        guess: What of it may be wrong, in words; the empty string for nothing.
    """

    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...]
    guess: str


def read_rows(path: Path, column: str, encoding: str | None = None, separator: str | None = None) -> CsvRows:
    """Return the header and the rows of a CSV file.

    Args:
        path: The file.
        column: A name that the header must have: the separator is the one by which it does.
        encoding: What the text is written in; None to find out: what the first bytes say, UTF-8, UTF-16 by a zero
            byte, or else cp1252, which is a guess and told as one.
        separator: What stands between two fields; None to find out: what a first line ``sep=;`` says, or the one of
            comma, semicolon, tab and ``|`` that gives the header ``column``.

    Raises:
        TypeError: When ``encoding`` or ``separator`` is no text.
        ValueError: Naming the file, where it cannot be decoded, its header lacks ``column`` or has a name twice, or a
            row has another number of fields.
    """
    for name, value in (("encoding", encoding), ("separator", separator)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"expected {name} to be a str or None, but got {type(value).__name__}: {value!r}")
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise ValueError(f"expected separator to be one character, but got {separator!r}")
    text, notes, guess = _decoded(path, encoding)
    said = SAYS_SEPARATOR.match(text)
    if said is not None:
        if separator not in (None, said[1]):
            raise ValueError(
                f"expected separator to be {said[1]!r}, as the first line of {path} says, but got {separator!r}"
            )
        separator = said[1]
        text = text[said.end() :]
    if separator is None:
        separator = _separator(path, text, column)
    if separator != ",":
        notes.append(f"{path.name}: fields are separated by {separator!r}")
    header, rows = _split(path, text, separator, 0 if said is None else 1)
    repeated = sorted({name or "''" for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"expected {path} to have columns of distinct names, but got twice {list_names(repeated)}")
    return CsvRows(header, rows, (*notes, guess) if guess else tuple(notes), guess)


def _decoded(path: Path, encoding: str | None) -> tuple[str, list[str], str]:
    """Return the text, and what was found out and guessed of its encoding."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected {path} to be a CSV table, but got: {error}") from error
    if raw.startswith(WORKBOOKS):
        raise ValueError(f"expected {path} to be a CSV table, but got an Excel workbook; save it as CSV UTF-8")
    if encoding is not None:
        try:
            return raw.decode(codecs.lookup(encoding).name), [], ""
        except LookupError:
            raise ValueError(
                f"expected encoding to be one that Python knows, such as 'cp1252', but got {encoding!r}"
            ) from None
        except UnicodeError as error:
            raise ValueError(f"expected {path} to be written in {encoding}, but got: {error}") from error
    found = next((name for mark, name in MARKS.items() if raw.startswith(mark)), None) or _sixteen_bits(raw) or "utf-8"
    notes = [f"{path.name}: read as {found}"] if found.startswith("utf-16") else []
    try:
        return raw.decode(found), notes, ""
    except UnicodeError as error:
        reason = error
    try:
        text = raw.decode(GUESS) if found == "utf-8" else None
    except UnicodeError:
        text = None
    if text is None:
        raise ValueError(
            f"expected {path} to be a CSV table, but got: {reason}; encoding= says what else it is written in"
        ) from reason
    words = list(dict.fromkeys(word for word in re.findall(r"[^\s,;|\"]+", text) if not word.isascii()))[:SAMPLES]
    guess = (
        f"{path.name}: read as {GUESS}, which is a guess, as it is not UTF-8; look whether {list_names(words)} is "
        "written rightly, and say encoding='cp1252' or another"
    )
    return text, [], guess


def _sixteen_bits(raw: bytes) -> str | None:
    """Return which half of UTF-16 it is whose first character is ASCII; None where it is neither."""
    if raw[:2].count(0) != 1:
        return None
    return "utf-16-be" if raw[0] == 0 else "utf-16-le"


def _separator(path: Path, text: str, column: str) -> str:
    """Return the separator that gives the header the column."""
    headers = {separator: _header(text, separator) for separator in SEPARATORS}
    fitting = [separator for separator, header in headers.items() if column in header]
    if len({tuple(headers[separator]) for separator in fitting}) > 1:
        raise ValueError(
            f"expected {path} to have a column {column!r} by one separator, but got it by each of {fitting}; "
            "say which by separator="
        )
    # Without the column, the separator that finds most: its names are for the error.
    return fitting[0] if fitting else max(SEPARATORS, key=lambda separator: len(headers[separator]))


def _header(text: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(iter(csv.reader(io.StringIO(text, newline=""), delimiter=separator)), [])]
    except csv.Error:
        return []


def _split(path: Path, text: str, separator: str, before: int) -> tuple[list[str], list[list[str]]]:
    """Return the header and all rows, of equal lengths.

    Args:
        path: The file, for errors.
        text: What it holds, but for as many lines as ``before`` says.
        separator: What stands between two fields.
        before: Lines that were read already.
    """
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num + before, row) for row in reader if any(cell.strip() for cell in row)]
        if any("\0" in cell for _, row in lines for cell in row):
            raise ValueError("a NUL character")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"expected {path} to be a CSV table, but got: {error}") from error
    if not lines:
        raise ValueError(f"expected {path} to be a CSV table, but got: no columns")
    (_, header), *rest = lines
    for number, row in rest:
        if len(row) != len(header):
            raise ValueError(
                f"expected every row of {path} to have the {len(header)} fields of its header, but got {len(row)} in "
                f"line {number}"
            )
    return [name.strip() for name in header], [row for _, row in rest]
