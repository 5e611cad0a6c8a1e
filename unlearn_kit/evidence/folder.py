"""The folder of a revision: what is written into it to prove it, and what is read of it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..files import write_json
from ..hashing import hash_file
from .receipt import Receipt
from .statement import statement

RECEIPT, STATEMENT_FILE, LISTS = "receipt.json", "statement.json", "data.json"
# Written after the receipt, which cannot name its own hash: the statement names theirs.
ABOUT = (RECEIPT, "receipt.md", "index.html")


@checked
def seal(paper: Receipt, folder: Path) -> Path:
    """Write the receipt into the folder of its revision, and the Statement that names the hash of every file there.

    Raises:
        OSError: When the folder cannot be written to.
    """
    paper.save(folder)
    subjects = paper.values["checkpoints"]["after"]
    others = {name: digest for name, digest in paper.values["files"].items() if name not in subjects}
    about = {name: hash_file(folder / name) for name in ABOUT if (folder / name).is_file()}
    return write_json(statement(paper.values, subjects, others | about), folder / STATEMENT_FILE)


@checked
def read_receipt(folder: str | Path) -> dict[str, Any]:
    """Return the values of the receipt that lies in a folder.

    Raises:
        FileNotFoundError: When there is no receipt.
        ValueError: When the file is none, or of an older format.
    """
    path = Path(folder) / RECEIPT
    if not path.is_file():
        raise FileNotFoundError(f"expected a folder with a {RECEIPT}, but got {str(folder)!r}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"expected {str(path)!r} to hold a receipt, but it is no JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != 2:
        came = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"expected {str(path)!r} to hold a receipt of format 2, but got {came!r}")
    return values


def changed_files(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Return the names of those files of a revision's folder that are gone, or other than its receipt says."""
    files = dict(values["files"])
    return [name for name, sha in files.items() if not (folder / name).is_file() or hash_file(folder / name) != sha]


@checked
def earlier_receipts(folders: Sequence[str | Path], originals: Mapping[Path, str]) -> list[dict[str, Any]]:
    """Return the receipts that a revision stands on: those of ``folders``, and the one that made the model it revises.

    Args:
        folders: Of earlier revisions.
        originals: SHA-256 of the files of weights that are revised now.

    Raises:
        FileNotFoundError: When one of ``folders`` has no receipt.
        ValueError: When it is none.
    """
    places = [Path(folder) for folder in folders]
    for path, digest in originals.items():
        # Beside the weights, or of a folder of weights one level up.
        for place in (path.parent, path.parent.parent):
            if (place / RECEIPT).is_file() and place not in places:
                try:
                    made = digest in read_receipt(place)["checkpoints"]["after"].values()
                except (ValueError, KeyError):  # somebody else's receipt.json
                    made = False
                places += [place] if made else []
    found = []
    for place in places:
        values = read_receipt(place)
        request = values["request"]
        found.append(
            {
                "name": f"{place.name}/{RECEIPT}",
                "sha256": hash_file(place / RECEIPT),
                "made": values["made"],
                "rules": request["rules"],
                "digest": request["digest"],
            }
        )
    return found
