"""The software that a figure may depend on."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("unlearn-kit", "torch", "numpy", "scikit-learn", "peft", "segmentation-models-pytorch")


def versions() -> dict[str, str]:
    """Return the versions a figure may depend on; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
