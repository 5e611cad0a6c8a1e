"""Data sets by name. A new one is a module with a ``load`` function and one row in ``LOADERS``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..errors import check_choice
from .bundle import DataBundle
from .files import check_root

# name -> module of this package; modules are imported when asked for, since some need optional packages.
LOADERS: dict[str, str] = {
    "digits": "digits",
    "fashion-mnist": "fashion_mnist",
    "cifar10": "cifar10",
    "svhn": "svhn",
    "medmnist": "medmnist",
    "image-folder": "image_folder",
    "volume-folder": "volume_folder",
    "simulated-scanners": "simulated_scanners",
    "synthetic-lesions": "synthetic_lesions",
    "mni-slices": "mni_slices",
    "isic2018": "isic2018",
    "chase-db1": "chase_db1",
    "drive": "drive",
}


@checked
def load(name: str, root: str | Path | None = None, **options: Any) -> DataBundle:
    """Load the data set ``name``.

    Args:
        name: one of ``LOADERS``; ``medmnist:NAME`` names a MedMNIST file, e.g. ``"medmnist:pneumoniamnist"``.
        root: the folder that holds it, where it is not bundled with a package.
        **options: options of that loader (see its docstring).

    Raises:
        ValueError: On an unknown name or option.
        DataNotFoundError: When it is not on this machine.
    """
    if not isinstance(name, str):
        raise TypeError(f"expected name to be a str, but got {type(name).__name__}: {name!r}")
    family, colon, member = name.partition(":")
    check_choice("name", family, LOADERS)
    check_root(root)
    loader = importlib.import_module(f".{LOADERS[family]}", __package__).load
    allowed = _option_names(loader)
    for option in options:
        check_choice(f"every option of {family!r}", option, allowed)
    if colon:
        if "member" not in allowed:
            raise ValueError(f"expected name to be {family!r}, which has no members, but got {name!r}")
        if "member" in options:
            raise ValueError(
                f"expected member in the name or as an option, but got both: {name!r}, {options['member']!r}"
            )
        options["member"] = member
    bundle: DataBundle = loader(root, **options)
    return bundle


def _option_names(loader: Callable[..., DataBundle]) -> list[str]:
    """Return the options a loader declares: every parameter but ``root``."""
    return [name for name in inspect.signature(loader).parameters if name != "root"]
