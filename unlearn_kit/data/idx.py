"""The IDX format of MNIST and its relatives: big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the uint8 array with ``dimensions`` axes in an IDX file, gzipped or plain (told apart by content).

    Raises:
        ValueError: Naming the file when it is no such file, cut short or too long.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"expected {path} to be a complete gzip file, but got: {error}") from error
    magic = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if data[:4] != magic:
        raise ValueError(
            f"expected {path} to be an IDX file of bytes with {dimensions} axes (magic {magic.hex()}), "
            f"but got magic {data[:4].hex()!r}"
        )
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise ValueError(f"expected {path} to hold a header of {start} bytes, but got a file of {len(data)}")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"expected {path} to hold {math.prod(shape)} bytes after its header, but got {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
