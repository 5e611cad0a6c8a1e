"""Which samples were to be forgotten and which were kept, by hashes that others can compute again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..data.sample_files import files_of
from ..hashing import hash_config, hash_file, sample_hashes
from ..metrics.evaluate import forgets_mask_class
from ..tasks import UnlearnTask
from .ledger_samples import input_hashes

SIDES = ("forget", "retain")


@checked
def inventory(task: UnlearnTask) -> dict[str, Any]:
    """Return the forget and the retain list: of each sample its hash, and of its files their names and SHA-256.

    The hash of a sample is of the decoded input and target, as the model is given them. That of a file is what
    ``sha256sum`` prints; names are seen from ``root``, the folder of all of them.

    Args:
        task: What is to be forgotten and kept; its training data are read once.
    """
    found: dict[str, Any] = {"format": 1, "root": None}
    files = {side: files_of(getattr(task, side)) for side in SIDES}
    paths = [str(path.absolute()) for own in files.values() if own is not None for each in own for path in each]
    root = None
    if paths:
        root = Path(os.path.commonpath([str(Path(path).parent) for path in paths]))
        found["root"] = root.as_posix()
    for side, own in files.items():
        rows: list[dict[str, Any]] = [{"sample": digest} for digest in sample_hashes(getattr(task, side))]
        if own is not None and root is not None:
            for row, each in zip(rows, own, strict=True):
                row["files"] = {path.absolute().relative_to(root).as_posix(): hash_file(path) for path in each}
        found[side] = rows
    return found


def data_summary(task: UnlearnTask, lists: Mapping[str, Any], groups: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return what a receipt says of the two lists: counts, digests, and whether the one was kept out of the other.

    ``on_both_sides`` counts forget samples whose input is in the retain list, bit by bit, whatever its target; None
    where one class of the masks is to be forgotten, whose images stay.
    """
    found: dict[str, Any] = {}
    for side in SIDES:
        rows = lists[side]
        files = [digest for row in rows for digest in row.get("files", {}).values()]
        found[side] = {
            "samples": len(rows),
            "digest": hash_config(sorted(row["sample"] for row in rows)),
            "files": len(files) or None,
            "files_digest": hash_config(sorted(files)) if files else None,
        }
    found["on_both_sides"] = None
    if not forgets_mask_class(task):
        kept = set(input_hashes(task.retain))
        found["on_both_sides"] = sum(own in kept for own in input_hashes(task.forget))
    found["groups"] = len(set(groups["forget"])) if "forget" in groups else None
    found["held_out"] = {"forget": len(task.forget_test), "retain": len(task.retain_test)}
    return found


def changed_files(lists: Mapping[str, Any], root: str | Path) -> list[tuple[str, str, str | None]]:
    """Return each file that is not as it was: ``(side and name, SHA-256 then, now)``, None where it is gone."""
    folder, found = Path(root), []
    for side in SIDES:
        for row in lists[side]:
            for name, digest in row.get("files", {}).items():
                path = folder / name
                now = hash_file(path) if path.is_file() else None
                if now != digest:
                    found.append((f"{side} list: {name}", digest, now))
    return found
