"""Whether pixels are those that a network normalises: in [0, 1], or in 0..255 that nobody divided."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Augmentations (noise, contrast, splines) leave [0, 1] a little; pixels in 0..255, and those standardised, by far.
SLACK = 0.5


def normalizes_unit_pixels(model: nn.Module) -> bool:
    """Return whether ``model`` begins by normalising pixels in [0, 1].

    That is: before any layer with weights there is a ``mean`` in [0, 1] and a positive ``std`` of at most 1, as of
    :class:`.models.normalization.Normalize`, of torchvision's and kornia's, and of most of people's own.
    """
    for module in model.modules():
        mean, std = (_numbers(getattr(module, name, None)) for name in ("mean", "std"))
        if mean is not None and std is not None:
            # Those of pixels in 0..255 are in the hundreds; zero and one leave everything as it is.
            units = bool(((mean >= 0) & (mean <= 1)).all()) and bool(((std > 0) & (std <= 1)).all())
            return units and not (bool((mean == 0).all()) and bool((std == 1).all()))
        if next(module.parameters(recurse=False), None) is not None:
            return False
    return False


def check_pixels(model: nn.Module, x: Tensor, name: str = "images") -> None:
    """Refuse images that ``model`` cannot mean: it normalises pixels in [0, 1], and these are outside by far.

    Args:
        model: Any network; of one that normalises nothing, nobody can tell.
        x: Images ``(B, C, H, W)``, volumes, or one of them; vectors are no pixels, and pass.
        name: What they are, for the error.

    Raises:
        ValueError: With their range and what to do.
    """
    if x.dim() < 3 or not x.numel() or not normalizes_unit_pixels(model):
        return
    low, high = (float(value) for value in torch.aminmax(x.detach()))
    if low < -SLACK or high > 1 + SLACK:
        kind = "divide pixels of 0..255 by 255" if low >= 0 else "give raw pixels, not normalised ones"
        raise ValueError(
            f"expected {name} with pixels in [0, 1], which the model's first layer normalises, but got {low:.4g} to "
            f"{high:.4g}: {kind}, or give a model without the normalisation"
        )


def _numbers(value: Any) -> Tensor | None:
    try:
        return None if value is None else torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        return None
