"""Simulated scanners: Fashion-MNIST as several invented devices would have recorded it.

The clothes are real, the scanners are not. Each is a fixed blur, gain and noise, applied to the images that fall to it,
so that "everything of one device" is something a model can tell apart and be asked to forget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ..errors import check_choice, check_count
from ..seeding import derive
from .bundle import DataBundle
from .tensors import TensorImages, load_tensors

NAME = "simulated-scanners"


@dataclass(frozen=True)
class Scanner:
    """Blur (standard deviation in pixels), then gain (a factor), then noise (standard deviation, pixels in [0, 1])."""

    blur: float
    gain: float
    noise: float


SCANNERS = {
    "A": Scanner(blur=0.0, gain=1.00, noise=0.01),
    "B": Scanner(blur=0.9, gain=0.85, noise=0.03),
    "C": Scanner(blur=0.4, gain=1.25, noise=0.06),
    "D": Scanner(blur=1.4, gain=0.65, noise=0.02),
}


def load(
    root: str | Path | None = None,
    *,
    train_size: int | None = None,
    seed: int = 0,
    scanners: Sequence[str] = ("A", "B", "C"),
    download: bool = False,
) -> DataBundle:
    """Load Fashion-MNIST seen by simulated scanners: ``(1, 28, 28)``, 10 classes; metadata: ``scanner``.

    Args:
        root, download: as for "fashion-mnist".
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw, of which image falls to which scanner, and of the noise.
        scanners: names out of ``SCANNERS``; each gets the same number of images, give or take one.

    Raises:
        TypeError: On a wrong option.
        ValueError: On a wrong option.
        DataNotFoundError: When Fashion-MNIST is not on this machine.
    """
    from .fashion_mnist import load as load_fashion

    _check(scanners, seed)
    return simulate(load_fashion(root, train_size=train_size, seed=seed, download=download), scanners, seed)


def simulate(bundle: DataBundle, scanners: Sequence[str] = ("A", "B", "C"), seed: int = 0) -> DataBundle:
    """Return ``bundle``'s images as simulated scanners would record them, rounded to 8 bits; targets are the same.

    Args:
        bundle: images ``(C, H, W)`` that fit in memory; its metadata are kept beside the new column ``scanner``.
        scanners, seed: as in :func:`load`.

    Raises:
        TypeError: On a wrong option.
        ValueError: On a wrong option.
    """
    _check(scanners, seed)
    train, train_names = _record(bundle.train, scanners, seed, "train")
    test, test_names = _record(bundle.test, scanners, seed, "test")
    return dataclasses.replace(
        bundle,
        name=NAME,
        train=train,
        test=test,
        train_metadata=_table(bundle.train_metadata, train_names),
        test_metadata=_table(bundle.test_metadata, test_names),
    )


def _record(dataset: Any, scanners: Sequence[str], seed: int, split: str) -> tuple[TensorImages, np.ndarray]:
    x, y = load_tensors(dataset)
    images = x.numpy()
    drawn = np.random.default_rng(derive(seed, NAME, split))
    turns = drawn.permutation(len(images)) % len(scanners)
    recorded = np.empty(images.shape, dtype=np.uint8)
    for place, name in enumerate(scanners):
        scanner, mine = SCANNERS[name], turns == place
        seen = ndimage.gaussian_filter(images[mine], (0, 0, scanner.blur, scanner.blur), mode="nearest")
        # Noise of its own for each scanner, so that leaving another one out does not change it.
        noise = np.random.default_rng(derive(seed, NAME, split, name)).normal(0, scanner.noise, seen.shape)
        recorded[mine] = np.round(np.clip(seen * scanner.gain + noise, 0, 1) * 255)
    return TensorImages(torch.from_numpy(recorded), y), np.asarray(scanners)[turns]


def _table(known: Any, names: np.ndarray) -> Any:
    import pandas as pd

    column = pd.DataFrame({"scanner": names})
    return column if known is None else pd.concat([known.reset_index(drop=True), column], axis=1)


def _check(scanners: Sequence[str], seed: int) -> None:
    check_count("seed", seed, low=0)
    if isinstance(scanners, str) or len(set(scanners)) < 2 or len(set(scanners)) < len(scanners):
        raise ValueError(f"expected scanners to name at least two of {list(SCANNERS)}, each once, but got {scanners!r}")
    for name in scanners:
        check_choice("scanners", name, SCANNERS)
