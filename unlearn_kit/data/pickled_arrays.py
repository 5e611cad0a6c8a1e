"""Pickles of plain values and numpy arrays, read without letting them run code.

Some published data sets are pickles. A pickle can name any function to call; here it can name only what numpy
arrays are made of.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np


def _dtype(spec: Any, align: Any = False, copy: Any = False) -> np.dtype:
    # Old pickles say 0 and 1 where numpy now wants bools.
    return np.dtype(spec, align=bool(align), copy=bool(copy))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How Python 3 writes bytes into an old protocol.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


# numpy moved its modules in 2.0: both names stand for the functions of the numpy that is installed.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): _encode,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_pickled_arrays(path: Path) -> Any:
    """Return the value in a pickle of plain values and numpy arrays; byte strings of Python 2 become text.

    Raises:
        ValueError: Naming the file when it asks for anything else, or is no complete pickle.
    """
    with path.open("rb") as file:
        try:
            return _ArraysOnly(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can fail in any way
            raise ValueError(
                f"expected {path} to be a pickle of plain values and numpy arrays only, but got: {error}"
            ) from error
