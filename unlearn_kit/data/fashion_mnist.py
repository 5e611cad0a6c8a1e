"""Fashion-MNIST (arXiv 1708.07747): 60,000 training and 10,000 test images of clothing, 28x28 grey."""

from __future__ import annotations

from pathlib import Path

from .bundle import DataBundle
from .classification import class_images, limit_train
from .files import cache_folder, check_flag, check_root, find_or_download
from .idx import read_idx
from .tensors import TensorImages

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Where the Debian package dataset-fashion-mnist installs its files.
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
WANTED = tuple((f"{stem}.gz", stem) for stem in STEMS)
HOW = "`apt-get install dataset-fashion-mnist`, or pass download=True, or give the folder that holds it as root"


def load(
    root: str | Path | None = None, *, train_size: int | None = None, seed: int = 0, download: bool = False
) -> DataBundle:
    """Load Fashion-MNIST: ``(1, 28, 28)``, 10 classes.

    Looked for in ``root``, ``root/FashionMNIST/raw``, the Debian package's folder and the toolkit's cache
    folder; files may be gzipped or plain.

    Args:
        root: a folder that holds the four IDX files, or torchvision's root.
        train_size: keep only that many training images, drawn at random by ``seed``.
        seed: of that draw.
        download: fetch missing files with torchvision, into ``root`` or the cache folder.

    Raises:
        DataNotFoundError: When the files are missing.
        ValueError: Naming a file that is damaged.
    """
    folder = check_root(root)
    target = folder or cache_folder()
    below = Path("FashionMNIST", "raw")
    places = [DEBIAN_FOLDER, cache_folder() / below]
    if folder is not None:
        places = [folder, folder / below, *places]

    def fetch() -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(target), download=True)

    candidates = [(place, WANTED) for place in places]
    paths = find_or_download("fashion-mnist", candidates, HOW, fetch if check_flag("download", download) else None)
    train, test = _read(*paths[:2]), _read(*paths[2:])
    bundle = DataBundle("fashion-mnist", train, test, len(CLASS_NAMES), "classification", CLASS_NAMES)
    return limit_train(bundle, train_size, seed)


def _read(images: Path, labels: Path) -> TensorImages:
    return class_images(images, read_idx(images, 3)[:, None], read_idx(labels, 1), len(CLASS_NAMES))
