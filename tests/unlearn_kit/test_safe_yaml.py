"""The one reader of YAML: what a file may hold, and the files that would hang or break a plain reader."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from unlearn_kit.safe_yaml import MAX_DEPTH, MAX_LENGTH, MAX_TEXT, MAX_VALUES, check_plain, parse_yaml, read_yaml

PLAIN = """
# A comment, and every kind of value.
text: plain text
quoted: "a: b"
numbers: [1, -2, 3.5, 0x1f, .inf]
truths: {yes: true, no: false}
nothing: null
day: 2020-02-29
base: &base {a: 1, b: [x, y]}
again: *base
merged: {<<: *base, a: 2}
folded: >
  two
  lines
"""


def test_plain_files_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(PLAIN)
    values = read_yaml(path)
    assert values == yaml.safe_load(PLAIN)
    assert values["merged"] == {"a": 2, "b": ["x", "y"]}
    assert values["day"] == datetime.date(2020, 2, 29)
    check_plain(values, "a.yaml")


def bomb(line: str) -> str:
    """Nine levels of ten aliases each: a billion values."""
    tens = (line.format(name=level, tens=", ".join([f"*a{level - 1}"] * 10)) for level in range(1, 10))
    return "".join(["a0: &a0 {k: 1}\n", *tens])


def nested(opening: str, closing: str, count: int = 1000) -> str:
    return f"a: {opening * count}1{closing * count}"


HOSTILE: dict[str, tuple[str, str]] = {
    "lists of aliases": (bomb("a{name}: &a{name} [{tens}]\n"), rf"f.yaml: a4\.2: .* at most {MAX_VALUES} values"),
    "merged aliases": (bomb("a{name}: &a{name} {{<<: [{tens}]}}\n"), rf"a4\.<<\.1: .* at most {MAX_VALUES} values"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(40_000)), rf"k4999: .* at most {MAX_VALUES} values"),
    "nested lists": (nested("[", "]"), rf"f.yaml: a\.0\.0\.0.*: expected at most {MAX_DEPTH} levels"),
    "nested mappings": (nested("{a: ", "}"), rf"f.yaml: a\.a\.a\.a.*: expected at most {MAX_DEPTH} levels"),
    "nested dashes": ("- " * 1000 + "1", rf"f.yaml: 0\.0\.0.*: expected at most {MAX_DEPTH} levels"),
    "a chain of aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100)),
        rf"f.yaml: a31\.0: expected at most {MAX_DEPTH} levels",
    ),
    "a list in itself": (
        "a: {b: &x [1, *x]}",
        r"f.yaml: a\.b\.1: expected values, but got an alias of what",
    ),
    "a merge of itself": ("a: &x {<<: *x}", r"f.yaml: a\.<<: expected values, but got an alias"),
    "a long text": (f"a: {{lr: {'x' * 10**5}}}", rf"f.yaml: a\.lr: expected a text of at most {MAX_TEXT} characters"),
    "a longer text": (f'a: {{lr: "{"x" * 10**6}"}}', rf"f.yaml: a\.lr: expected at most {MAX_LENGTH} characters"),
    "a long key": (f"{'x' * 20_000}: 1", "f.yaml: .*: expected a text of at most"),
    "many comments": ("# a\n" * 10**5, rf"f.yaml: expected at most {MAX_LENGTH} characters"),
    "no truth": ("a: {b: !!bool maybe}", r"f.yaml: a\.b: expected a value of type bool, but got 'maybe'"),
    "no int": ("a: [!!int maybe]", r"f.yaml: a\.0: expected a value of type int, but got 'maybe'"),
    "no float": ("a: !!float maybe", r"f.yaml: a: expected a value of type float, but got 'maybe'"),
    "no day": ("a: 2020-13-45", r"f.yaml: a: expected a value of type timestamp, but got '2020-13-45'"),
    "no set": ("a: !!set [b]", r"expected f.yaml to be YAML, but got at a: "),
    "no map": ("a: {b: !!map 3}", r"expected f.yaml to be YAML, but got at a\.b: "),
    "no base64": ("a: !!binary \u00e9", r"expected f.yaml to be YAML, but got at a: "),
    "an int without end": ("a: " + "9" * 5000, r"f.yaml: a: expected a value of type int, but got '999"),
    "an int to base 60": ("a: " + ":".join(["1"] * 4000), r"f.yaml: a: expected a value of type int, but got '1:1"),
    "a Python object": ("a: !!python/object/apply:os.getcwd []", r"expected f.yaml to be YAML, but got at a: "),
    "a list as a key": ("{a: {[b]: 1}}", r"f.yaml: a: expected keys that are texts or numbers, but got a sequence"),
    "a key twice": ("a: {b: 1, c: 2, b: 3}", r"f.yaml: a: the key 'b' comes more than once"),
    "a number twice": ("{1: a, 1.0: b}", r"f.yaml: the whole file: the key 1.0 comes more than once"),
    "two documents": ("a: 1\n---\nb: 1", r"expected f.yaml to be YAML, but got .* single document"),
    "no alias": ("a: {b: *c}", r"expected f.yaml to be YAML, but got at a\.b: .*undefined alias"),
    "a control character": ("a: \0", r"expected f.yaml to be YAML, but got at the start"),
    "a tab": ("\ta: 1", r"expected f.yaml to be YAML, but got at the whole file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_plain_reader_hangs_or_breaks_on_is_refused_by_file_and_key(kind: str) -> None:
    text, message = HOSTILE[kind]
    with pytest.raises(ValueError, match=message):
        parse_yaml(text, "f.yaml")


def test_a_file_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match=r"expected .*a\.yaml to be YAML"):
        read_yaml(path)
    with pytest.raises(ValueError, match="to be YAML"):
        read_yaml(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected suite to be an existing path, but got .*b\.yaml"):
        read_yaml(tmp_path / "b.yaml", "suite")


def in_itself() -> Any:
    values: list[Any] = []
    values.append({"a": values})
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (in_itself(), rf"suite: 0\.a\.0\.a.*: expected at most {MAX_DEPTH} levels"),
        ({"a": list(range(10**5))}, rf"suite: a: expected at most {MAX_VALUES} values"),
        ({"a": {"b": "x" * 10**5}}, rf"suite: a\.b: expected a text of at most {MAX_TEXT} characters"),
        ({"x" * 10**5: 1}, rf"suite: xxx.*: expected a text of at most {MAX_TEXT} characters"),
    ],
)
def test_values_from_elsewhere_are_held_against_the_same_bounds(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_plain(values, "suite")
