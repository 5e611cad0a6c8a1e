"""CIFAR-10: 50,000 training and 10,000 test photographs, 32x32 colour, binary or Python version."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .bundle import DataBundle
from .classification import class_images, limit_train
from .files import Candidate, cache_folder, check_flag, check_root, find_or_download
from .pickled_arrays import read_pickled_arrays
from .tensors import TensorImages

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PYTHON = (*((f"data_batch_{part}",) for part in range(1, 6)), ("test_batch",))
BINARY = tuple((f"{name}.bin",) for (name,) in PYTHON)
PIXELS = 3 * 32 * 32
HOW = (
    "pass download=True, or unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz from "
    "https://www.cs.toronto.edu/~kriz/cifar.html and give the folder as root"
)


def load(
    root: str | Path | None = None, *, train_size: int | None = None, seed: int = 0, download: bool = False
) -> DataBundle:
    """Load CIFAR-10: ``(3, 32, 32)``, 10 classes.

    The binary version is preferred; the Python version is a pickle, read with only arrays allowed in it.

    Args:
        root: the folder of the batch files, or the one above ``cifar-10-batches-bin`` or
            ``cifar-10-batches-py``; the toolkit's cache folder when None.
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw.
        download: fetch missing files with torchvision.

    Raises:
        DataNotFoundError: When the files are missing.
        ValueError: Naming a file that is damaged or unsafe.
    """
    folder = check_root(root) or cache_folder()

    def fetch() -> None:
        from torchvision.datasets import CIFAR10

        CIFAR10(str(folder), download=True)

    candidates: list[Candidate] = [
        (place, wanted)
        for wanted, name in ((BINARY, "cifar-10-batches-bin"), (PYTHON, "cifar-10-batches-py"))
        for place in (folder / name, folder)
    ]
    paths = find_or_download("cifar10", candidates, HOW, fetch if check_flag("download", download) else None)
    train, test = _read(paths[:-1]), _read(paths[-1:])
    bundle = DataBundle("cifar10", train, test, len(CLASS_NAMES), "classification", CLASS_NAMES)
    return limit_train(bundle, train_size, seed)


def _read(paths: list[Path]) -> TensorImages:
    """Return the images of several batch files, one after the other."""
    images, labels = zip(*((_binary if path.suffix == ".bin" else _pickled)(path) for path in paths), strict=True)
    source = " + ".join(path.name for path in paths)
    pixels = np.concatenate(images).reshape(-1, 3, 32, 32)
    return class_images(f"{paths[0].parent} ({source})", pixels, np.concatenate(labels), len(CLASS_NAMES))


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return records of one label byte and 3,072 pixel bytes."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if len(data) == 0 or len(data) % (PIXELS + 1):
        raise ValueError(f"expected {path} to hold records of {PIXELS + 1} bytes, but got {len(data)} bytes")
    records = data.reshape(-1, PIXELS + 1)
    return records[:, 1:], records[:, 0]


def _pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a dictionary with "data", uint8 ``(N, 3072)``, and "labels", a list of N ints."""
    batch = read_pickled_arrays(path)
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise ValueError(f"expected {path} to hold a dictionary with 'data' and 'labels', but got {_outline(batch)}")
    data, labels = batch["data"], np.asarray(batch["labels"])
    if labels.ndim != 1:
        raise ValueError(f"expected 'labels' of {path} to be a list of ints, but got {_outline(batch['labels'])}")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), PIXELS):
        raise ValueError(f"expected 'data' of {path} to be uint8 ({len(labels)}, {PIXELS}), but got {_outline(data)}")
    return data, labels


def _outline(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"a dictionary with {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__
