"""MedMNIST (arXiv 2110.14795): small medical image sets, one ``NAME.npz`` each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .bundle import DataBundle
from .classification import class_images, limit_train
from .files import check_flag, check_root, find_files

HOW = "download {name}.npz (see https://medmnist.com) and give its folder as root"
MULTI_LABEL = ("chestmnist",)


def load(
    root: str | Path | None = None,
    *,
    member: str | None = None,
    include_val: bool = False,
    train_size: int | None = None,
    seed: int = 0,
) -> DataBundle:
    """Load one MedMNIST set: ``(1, H, W)`` or ``(3, H, W)``, with as many classes as its labels name.

    The files hold no class names, so classes are called by their number.

    Args:
        root: the folder of the ``.npz`` file; ``~/.medmnist``, the medmnist package's own, when None.
        member: the file's name without its ending: ``"pneumoniamnist"``, ``"bloodmnist_64"``.
        include_val: add the validation images after the training images; they are the bundle's ``validation``
            otherwise.
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw.

    Raises:
        DataNotFoundError: When the file is missing.
        ValueError: When it is damaged, multi-label or of volumes.
    """
    check_flag("include_val", include_val)
    if not isinstance(member, str) or not re.fullmatch(r"\w+", member):
        raise ValueError(f"expected a MedMNIST set named as in 'medmnist:pneumoniamnist', but got {member!r}")
    if member.split("_")[0] in MULTI_LABEL:
        raise ValueError(f"expected a set with one label an image, but got {member!r}, which is multi-label")
    folder = check_root(root) or Path.home() / ".medmnist"
    name = f"medmnist:{member}"
    (path,) = find_files(name, [(folder, ((f"{member}.npz",),))], HOW.format(name=member))

    held = _read(path)
    labels = {split: _single_labels(member, held[f"{split}_labels"]) for split in ("train", "val", "test")}
    images = {split: _channels_first(path, held[f"{split}_images"]) for split in labels}
    num_classes = 1 + max((int(values.max()) for values in labels.values() if len(values)), default=0)
    used = ("train", "val") if include_val else ("train",)
    train = class_images(
        path,
        np.concatenate([images[s] for s in used]),
        np.concatenate([labels[s] for s in used]),
        num_classes,
    )
    test = class_images(path, images["test"], labels["test"], num_classes)
    validation = None if include_val else class_images(path, images["val"], labels["val"], num_classes)
    names = tuple(str(label) for label in range(num_classes))
    return limit_train(
        DataBundle(name, train, test, num_classes, "classification", names, validation=validation), train_size, seed
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    wanted = [f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")]
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            lacks = [key for key in wanted if key not in file.files]
            held = {} if lacks else {key: file[key] for key in wanted}
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"expected {path} to be a complete .npz file of arrays, but got: {error}") from error
    if lacks:
        raise ValueError(f"expected {path} to hold {wanted}, but it lacks {lacks}")
    return held


def _single_labels(member: str, labels: np.ndarray) -> np.ndarray:
    """Return labels ``(N, 1)`` or ``(N,)`` as ``(N,)``."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"expected a set with one label an image, but got {member!r}, which is multi-label "
            f"({labels.shape[1]} an image)"
        )
    return labels.reshape(-1)


def _channels_first(path: Path, images: np.ndarray) -> np.ndarray:
    """Return images ``(N, H, W)`` or ``(N, H, W, 3)`` as ``(N, C, H, W)``."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] == 3:
        return images.transpose(0, 3, 1, 2)
    raise ValueError(f"expected images of {path} to be (N, H, W) or (N, H, W, 3), but got {images.shape}")
