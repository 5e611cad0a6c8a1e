"""Files of a task decoded once: hashing, the preflight, training and evaluation each read all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.utils.data import Subset

from ..data.decoded import BYTES, DecodedFiles, decoded, reads_files
from ..data.tensors import resolve
from ..tasks import DATA, UnlearnTask


def read_once(task: UnlearnTask, *, limit: int = BYTES) -> tuple[UnlearnTask, str | None]:
    """Return the task with its files held in memory where they fit, and that in words; None where it has no files.

    Data sets of a user's own stay as they are: what they yield may be drawn anew each time.

    Args:
        task: The task.
        limit: Bytes of memory, at most.

    Raises:
        ValueError: When a file is damaged.
    """
    held: dict[int, DecodedFiles | None] = {}
    changed: dict[str, Any] = {}
    files, taken = 0, 0
    for name in DATA:
        base, indices = resolve(getattr(task, name))
        if not reads_files(base):
            continue
        if id(base) not in held:
            held[id(base)] = found = decoded(base, limit=limit - taken)
            files += len(base)
            taken += 0 if found is None else sum(tensor.nbytes for tensor in (found.inputs, found.targets))
        known = held[id(base)]
        if known is not None:
            changed[name] = known if indices is None else Subset(known, indices.tolist())
    if not held:
        return task, None
    if None in held.values():
        words = f"Files: {files:,}, decoded each time they are read, as memory of {limit / 2**30:.1f} GiB holds no more"
    else:
        words = f"Files: {files:,}, decoded once and held in {taken / 2**20:.1f} MiB of memory"
    return replace(task, **changed), words
