"""Networks by name. A new one is a function and one row in ``MODELS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..arguments import checked
from ..errors import check_choice, check_count
from ..seeding import isolated
from .all_cnn import all_cnn
from .mlp import mlp
from .resnet import resnet
from .small_cnn import small_cnn
from .unet import unet


@dataclass(frozen=True)
class ModelEntry:
    """A row of ``MODELS``: the function that builds the network, the task it is for and a line about it."""

    builder: Callable[..., nn.Module]
    task: str
    summary: str

    @property
    def options(self) -> list[str]:
        """Names of the builder's options, beside ``num_classes`` and ``channels``."""
        fixed = self.builder.keywords if isinstance(self.builder, partial) else {}
        taken = {"num_classes", "channels", *fixed}
        return [name for name in inspect.signature(self.builder).parameters if name not in taken]


MODELS: dict[str, ModelEntry] = {
    "small-cnn": ModelEntry(small_cnn, "classification", "five 3x3 convolutions, 36 thousand parameters"),
    "all-cnn": ModelEntry(all_cnn, "classification", "All-CNN-C (arXiv 1412.6806), 1.4 million parameters"),
    "resnet18": ModelEntry(partial(resnet, depth=18), "classification", "ResNet-18 with a stem for small images"),
    "resnet34": ModelEntry(partial(resnet, depth=34), "classification", "ResNet-34 with a stem for small images"),
    "resnet50": ModelEntry(partial(resnet, depth=50), "classification", "ResNet-50 with a stem for small images"),
    "mlp": ModelEntry(mlp, "classification", "linear layers and ReLU, for inputs of a fixed size"),
    "unet": ModelEntry(unet, "segmentation", "a U-Net, small (0.39 million parameters) or on any encoder"),
}


@checked
def build(
    name: str, num_classes: int, channels: int | None = None, *, seed: int | None = None, **options: Any
) -> nn.Module:
    """Build the network ``name`` with fresh weights.

    Args:
        name: one of ``MODELS``.
        num_classes: number of classes (for segmentation with the background: 2 for a binary mask).
        channels: number of image channels; the builder's own default when not given.
        seed: of the weights; the caller's random state is then left alone. Without it, that state is drawn
            from.
        **options: options of that network (see its builder).

    Raises:
        TypeError: On an unknown name or option (suggesting the nearest) or a value out of range.
        ValueError: On an unknown name or option (suggesting the nearest) or a value out of range.
    """
    entry = MODELS[check_choice("name", name, MODELS)]
    for option in options:
        check_choice(f"option of {name!r}", option, entry.options)
    if channels is not None:
        options["channels"] = check_count("channels", channels)
    if seed is None:
        return entry.builder(num_classes=num_classes, **options)
    with isolated(seed):
        return entry.builder(num_classes=num_classes, **options)
