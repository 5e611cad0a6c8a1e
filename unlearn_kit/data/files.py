"""Finding a data set's files, and saying where they were looked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import DataNotFoundError

# A folder, and for each file wanted from it the names it may have there.
Candidate = tuple[Path, Sequence[Sequence[str]]]


def cache_folder() -> Path:
    """Return where downloads go when no root is given: ``unlearn-kit`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unlearn-kit"


def check_root(root: str | Path | None) -> Path | None:
    """Return ``root`` as a Path with ``~`` expanded, or None.

    Raises:
        TypeError: When it is no path.
    """
    if root is not None and not isinstance(root, (str, Path)):
        raise TypeError(f"expected root to be a str, a Path or None, but got {type(root).__name__}: {root!r}")
    return None if root is None else Path(root).expanduser()


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` when it is a bool.

    Raises:
        TypeError: When it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"expected {name} to be a bool, but got {type(value).__name__}: {value!r}")
    return value


def find_files(name: str, candidates: Iterable[Candidate], how: str) -> list[Path]:
    """Return the wanted files, in the order wanted, from the first candidate folder that holds them all.

    A folder that holds some of them ends the search: going on would silently read another copy than the
    one meant.

    Raises:
        DataNotFoundError: With every folder looked in, what each lacks, and ``how`` to get the data.
    """
    looked: list[str] = []
    for folder, wanted in candidates:
        found = [next((folder / n for n in names if (folder / n).is_file()), None) for names in wanted]
        paths = [path for path in found if path is not None]
        if len(paths) == len(wanted):
            return paths
        lacks = ", ".join(" or ".join(names) for names, path in zip(wanted, found, strict=True) if path is None)
        looked.append(f"  {folder} " + (f"(lacks {lacks})" if folder.is_dir() else "(no such folder)"))
        if paths:
            break
    raise DataNotFoundError(
        f"the data set {name!r} was not found; looked in\n" + "\n".join(looked) + f"\nTo get it: {how}"
    )


def find_or_download(
    name: str, candidates: Sequence[Candidate], how: str, download: Callable[[], object] | None
) -> list[Path]:
    """Find files as :func:`find_files` does, calling ``download`` once where they are missing and it is given."""
    try:
        return find_files(name, candidates, how)
    except DataNotFoundError:
        if download is None:
            raise
    download()
    return find_files(name, candidates, how)
