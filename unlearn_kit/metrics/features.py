"""What a network holds between input and logits, and how alike two networks are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..arguments import checked
from ..errors import check_choice
from ..modules import check_model
from ..outputs import check_finite, is_multi_hot
from ..seeding import standardized
from .predict import Reading, map_batches

Space = Literal["mean", "positions"]


@contextmanager
def captured(
    model: nn.Module, layers: Sequence[str], *, side: Literal["input", "output"] = "output"
) -> Iterator[dict[str, Tensor]]:
    """While open, the last output (or first input) of each submodule in ``layers``; the hooks are gone afterwards.

    Raises:
        ValueError: On a name that the model does not have, or a value that is no tensor ``(B, ...)``.
    """
    modules, held = dict(model.named_modules()), {}

    def hold(name: str, value: Any) -> None:
        first = value[0] if isinstance(value, (tuple, list)) and value else value
        if not isinstance(first, Tensor) or first.dim() < 2:
            came = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
            raise ValueError(f"expected the {side} of {name!r} to be a Tensor (B, ...), but got {came}")
        held[name] = first.detach().clone()  # the next layer may work in place

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        if side == "input":
            return module.register_forward_pre_hook(lambda _, args: hold(name, args))
        return module.register_forward_hook(lambda _, _args, output: hold(name, output))

    hooks = []
    try:
        for name in layers:
            check_choice(f"submodule of {type(model).__name__}", name, modules)
            hooks.append(watch(name, modules[name]))
        yield held
    finally:
        for hook in hooks:
            hook.remove()


@checked
@standardized
def feature_distance(
    model: nn.Module,
    other: nn.Module,
    dataset: Any,
    *,
    layers: Sequence[str] | None = None,
    space: Space | None = None,
    **reading: Unpack[Reading],
) -> dict[str, float | None] | None:
    """Return linear CKA of two models' features, layer by layer, in [0, 1]: 1 is the same up to rotation and scale.

    ``|Yc' Xc|_F^2 / (|Xc' Xc|_F |Yc' Yc|_F)`` of the centred features X ``(n, p)`` and Y ``(n, q)``, in float64,
    summed over batches exactly. Ideal: the value between two references, which is below 1 and falls with depth.

    Args:
        model: the model to judge; untouched.
        other: the reference, or the original.
        dataset: read once, by both.
        layers: names of submodules that both have; None: all that own parameters, have one name in both, and ran.
        space: of feature maps ``(B, C, H, W)`` and tokens ``(B, T, D)``: "mean" averages over positions, so that a
            sample is an image; with "positions" every position is a sample. None: the second for masks, where each
            pixel is decided on, else the first.
        **reading: see :class:`.predict.Reading`.

    Returns:
        The value of each layer, None where a layer's features do not vary (a single sample, dead units); None on an
        empty data set.

    Raises:
        ValueError: On unknown layers or layers that did not run, where two feature maps have different numbers of
            positions, and on features that are not finite. Source: arXiv 1905.00414.
    """
    if space is not None:
        check_choice("space", space, ("mean", "positions"))
    model, other = check_model(model), check_model(other, "other")
    if layers is not None and (isinstance(layers, str) or not isinstance(layers, Sequence)):
        raise TypeError(f"expected layers to be a list of names, but got {type(layers).__name__}")
    names = _common_layers(model, other) if layers is None else list(layers)
    sums = {name: _Covariances() for name in names}
    with captured(model, names) as mine, captured(other, names) as theirs:

        def add(logits: Tensor, _other: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            masks = logits.dim() > 2 and not is_multi_hot(targets)
            spread = (space or ("positions" if masks else "mean")) == "positions"
            for name in names:
                if name in mine and name in theirs:
                    for features in (mine[name], theirs[name]):
                        check_finite(f"the output of {name!r}", features)
                    sums[name].add(name, _rows(mine[name], spread), _rows(theirs[name], spread))
            mine.clear()
            theirs.clear()
            return (torch.zeros(len(logits)),)

        if map_batches([model, other], dataset, add, **reading) is None:
            return None
    idle = [name for name in names if sums[name].count == 0]
    if layers is not None and idle:
        raise ValueError(f"expected layers to run in both models, but got {idle} that did not")
    return {name: sums[name].similarity() for name in names if name not in idle}


def _common_layers(model: nn.Module, other: nn.Module) -> list[str]:
    mine, theirs = (
        [name for name, module in side.named_modules() if name and list(module.parameters(recurse=False))]
        for side in (model, other)
    )
    common = [name for name in mine if name in set(theirs)]
    if not common:
        raise ValueError(
            "expected two models with layers of the same names, but got none in common; merge adapters first, or name "
            "layers="
        )
    return common


def _rows(features: Tensor, spread: bool) -> Tensor:
    """Return features as ``(n, p)`` in float64 on the CPU."""
    x = features.cpu().double()
    if x.dim() == 2:
        return x
    x = x.movedim(2, 1) if x.dim() == 3 else x  # tokens (B, T, D)
    x = x.flatten(2)
    return x.movedim(1, 2).flatten(0, 1) if spread else x.mean(dim=2)


class _Covariances:
    """Centred sums of products of two sets of features; batches are merged as in Chan et al. (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.means: list[Tensor] = []
        self.products: list[Tensor] = []

    def add(self, name: str, x: Tensor, y: Tensor) -> None:
        if len(x) != len(y):
            raise ValueError(
                f"expected as many positions in both models at {name!r}, but got {len(x)} and {len(y)}; "
                "space='mean' averages over them"
            )
        means = [x.mean(dim=0), y.mean(dim=0)]
        centred = [x - means[0], y - means[1]]
        products = _products(centred, lambda a, b: a.T @ b)
        if self.count:
            total = self.count + len(x)
            steps = [new - old for new, old in zip(means, self.means, strict=True)]
            between = _products(steps, torch.outer)
            weight = self.count * len(x) / total
            products = [p + q + weight * b for p, q, b in zip(self.products, products, between, strict=True)]
            means = [old + step * (len(x) / total) for old, step in zip(self.means, steps, strict=True)]
        self.count, self.means, self.products = self.count + len(x), means, products

    def similarity(self) -> float | None:
        xx, yy, xy = self.products
        for mean, product in zip(self.means, (xx, yy), strict=True):
            variance = float(product.trace()) / self.count
            # What varies by less than float32 can hold is rounding, whose similarity means nothing.
            if variance <= 1e-12 * (variance + float(mean.square().sum())):
                return None
        return min(1.0, float(xy.square().sum() / (xx.norm() * yy.norm())))


def _products(pair: list[Tensor], product: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    x, y = pair
    return [product(x, x), product(y, y), product(x, y)]
