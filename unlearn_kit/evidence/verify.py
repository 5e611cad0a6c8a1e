"""Does what lies in a folder still fit its receipt? Everything that was hashed is hashed again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..hashing import hash_config, hash_file
from .folder import ABOUT, LISTS, STATEMENT_FILE, read_receipt
from .inventory import SIDES, changed_files
from .receipt import options_digest
from .signing import SIGNATURE, broken_signature
from .statement import statement
from .words import markdown


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the receipt says.

    Attributes:
        what: A file, an option, a score.
        expected: What the receipt says.
        came: What was found.
    """

    what: str
    expected: str
    came: str

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, but got {self.came}"


@dataclass(frozen=True)
class Verification:
    """What was held against the receipt, and what differs.

    Attributes:
        checked: What was looked at, in words.
        skipped: What was not, and why.
        differences: What differs; empty where all is as the receipt says.
    """

    checked: tuple[str, ...]
    skipped: tuple[str, ...]
    differences: tuple[Difference, ...]


@checked
def verify(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    public_key: str | Path | None = None,
) -> Verification:
    """Hash again what a receipt names, and say what differs.

    It finds a changed, missing or added file of the folder, a changed file of the forget or retain list, another
    option, and a receipt, page or list that was written anew. Whoever can write to the folder can write all of it anew:
    a signature over ``statement.json``, or its hash kept elsewhere, tells that.

    Args:
        folder: Of a revision, as :func:`unlearn_kit.deployed.revise` writes it.
        data: The folder that the files of the forget and retain list lie in; None looks where they lay.
        model: The file of the original's weights; None leaves it out.
        public_key: Of whoever signed the folder; None leaves signatures out.

    Raises:
        FileNotFoundError: When there is no receipt, or no such file or folder as ``data``, ``model`` or ``public_key``.
        ValueError: When the receipt is none.
        ImportError: When a signature is to be checked and model-signing is not installed.
    """
    place = Path(folder)
    for name, path in (("data", data), ("model", model)):
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f"expected {name} to be an existing path, but got {str(path)!r}")
    values = read_receipt(place)
    missing = sorted({"files", "checkpoints", "data"} - values.keys())
    if missing:
        raise ValueError(
            f"expected the receipt of a folder that revise wrote, but {str(place)!r} has one without {missing}"
        )
    try:
        return _verified(place, values, data, model, public_key)
    except (KeyError, TypeError, AttributeError) as error:  # the files are whatever somebody made of them
        raise ValueError(
            f"expected receipt, lists and statement in {str(place)!r} as revise writes them, but they lack or twist "
            f"something: {type(error).__name__}: {error}"
        ) from error


def _verified(
    place: Path,
    values: Mapping[str, Any],
    data: str | Path | None,
    model: str | Path | None,
    public_key: str | Path | None,
) -> Verification:
    checked: list[str] = []
    skipped: list[str] = []
    found = [*_files(place, values), *_receipt(values), *_statement(place, values)]
    checked += [f"{len(values['files'])} files of the folder", "name and options of the method", "the statement"]
    lists = _lists(place)
    if lists is None:
        skipped.append(f"the forget and retain list: there is no readable {LISTS}")
    else:
        found += _digests(values, lists)
        checked.append("the forget and the retain list")
        root = data if data is not None else lists["root"]
        if lists["root"] is None:
            skipped.append("the files of the forget and retain list: the data were no files")
        elif not Path(root).is_dir():
            skipped.append(f"the files of the forget and retain list: there is no folder {str(root)!r}; say data")
        else:
            changed = changed_files(lists, root)
            found += [Difference(name, f"SHA-256 {was}", f"{now or 'no file'}") for name, was, now in changed]
            checked.append("every file of the forget and the retain list")
    if model is None:
        skipped.append("the original's weights: say model")
    else:
        originals = values["checkpoints"]["before"]
        digest = hash_file(model)
        if digest not in originals.values():
            found.append(Difference(f"original {Path(model).name}", f"SHA-256 {list(originals.values())}", digest))
        checked.append("the original's weights")
    if public_key is None:
        skipped.append("a signature: say public_key")
    else:
        broken = broken_signature(place, public_key)
        found += [] if broken is None else [Difference(SIGNATURE, "a signature of this folder", broken)]
        checked.append("the signature")
    return Verification(tuple(checked), tuple(skipped), tuple(found))


def _files(place: Path, values: Mapping[str, Any]) -> list[Difference]:
    found = []
    for name, digest in values["files"].items():
        path = place / name
        if not path.resolve().is_relative_to(place.resolve()):
            found.append(Difference(name, "a file of the folder", "one outside it"))
            continue
        now = hash_file(path) if path.is_file() else None
        if now != digest:
            found.append(Difference(name, f"SHA-256 {digest}", now or "no file"))
    known = {*values["files"], *ABOUT, STATEMENT_FILE, SIGNATURE}
    there = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    found += [
        Difference(name, "no such file", "one that the receipt does not name") for name in there if name not in known
    ]
    text = place / "receipt.md"
    if text.is_file() and text.read_text(encoding="utf-8") != markdown(values):
        found.append(Difference("receipt.md", "what receipt.json says", "another text"))
    return found


def _receipt(values: Mapping[str, Any]) -> list[Difference]:
    """Return where the receipt contradicts itself."""
    found = []
    method = values["method"]
    now = options_digest(method)
    if now != method["digest"]:
        found.append(Difference("name and options of the method", f"SHA-256 {method['digest']}", now))
    checkpoints = values["checkpoints"]
    same = set(checkpoints["before"].values()) & set(checkpoints["after"].values())
    same |= {values["models"]["before"]} & {values["models"]["after"]}
    changed = any(one["name"] == "weights changed" and one["value"] == "shown" for one in values["verdicts"])
    if same and changed:
        words = f"the original's SHA-256 {', '.join(sorted(same))}"
        found.append(Difference("revised model", "other weights, as 'weights changed' is shown", words))
    for one in values["verdicts"]:
        if one["alarming"] and not any(text.startswith(f"{one['name']}: ") for text in values["findings"]):
            found.append(Difference("findings", f"a word of {one['name']}, which the figures speak against", "none"))
    return found


def _statement(place: Path, values: Mapping[str, Any]) -> list[Difference]:
    path = place / STATEMENT_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        evidence = {one["name"]: one["digest"]["sha256"] for one in told["predicate"]["configuration"]}
    except (OSError, ValueError, KeyError, TypeError):
        return [Difference(STATEMENT_FILE, "a Statement", "no readable one")]
    found = []
    for name in (*ABOUT, *sorted(evidence.keys() - {*ABOUT})):
        now = hash_file(place / name) if (place / name).is_file() else None
        # What the receipt names was looked at with its files.
        if name not in values["files"] and now != evidence.get(name):
            found.append(Difference(name, f"SHA-256 {evidence.get(name)}", now or "no file"))
    if told != statement(values, values["checkpoints"]["after"], evidence):
        found.append(Difference(STATEMENT_FILE, "the verdicts and files of receipt.json", "others"))
    return found


def _lists(place: Path) -> dict[str, Any] | None:
    try:
        lists = json.loads((place / LISTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return lists if isinstance(lists, dict) and {"root", *SIDES} <= lists.keys() else None


def _digests(values: Mapping[str, Any], lists: Mapping[str, Any]) -> list[Difference]:
    found = []
    for side in SIDES:
        told, rows = values["data"][side], lists[side]
        files = sorted(digest for row in rows for digest in row.get("files", {}).values())
        for what, was, now in (
            ("samples", told["digest"], hash_config(sorted(row["sample"] for row in rows))),
            ("files", told["files_digest"], hash_config(files) if files else None),
        ):
            if was != now:
                found.append(Difference(f"{side} list", f"SHA-256 {was} over its {what}", str(now or "none")))
    return found
