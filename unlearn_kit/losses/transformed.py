"""What a model says of a sample that it is not shown as it was trained on it: predictions under transformations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..modules import check_model
from ..outputs import decisions, probabilities
from .batch import Batch, Goal, GoalKind
from .targets import logits_at


@checked
@dataclass(frozen=True)
class Transform:
    """A transformation of images and the one that undoes it on what is predicted for their pixels.

    Args:
        name: In formulas and reports.
        apply: Of images ``(B, C, H, W)``, of their shape.
        invert: Of logits ``(B, C, H, W)``; where there is one decision a sample there is nothing to undo.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:
        return self.name


def left_right(images: Tensor) -> Tensor:
    """Return the images, mirrored at their vertical axis."""
    return images.flip(-1)


def up_down(images: Tensor) -> Tensor:
    """Return the images, mirrored at their horizontal axis."""
    return images.flip(-2)


def half_turn(images: Tensor) -> Tensor:
    """Return the images, turned by 180 degrees."""
    return images.flip(-2, -1)


FLIPS = tuple(Transform(flip.__name__.replace("_", "-"), flip, flip) for flip in (left_right, up_down, half_turn))


@checked
@dataclass(frozen=True)
class Transformed:
    """The mean of what a model says of the transformed sample, undone; the sample as it is has no say.

    Memory is tied to the exact image, skill is not: what a network says of the mirrored image is near to what one would
    say that never saw it, where mirroring is a symmetry of the data. Of masks, logits are averaged; of classes,
    probabilities.

    Args:
        model: The original.
        transforms: At least one, the identity left out.

    Raises:
        ValueError: Without transformations.
        TypeError: When an argument is of another type, by its name.
    """

    model: nn.Module
    transforms: tuple[Transform, ...] = FLIPS
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        check_model(self.model, "model of Transformed")
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if not self.transforms:
            raise ValueError("expected transforms to hold at least one transformation, but got none")
        for transform in self.transforms:
            if not isinstance(transform, Transform):
                raise TypeError(f"expected transforms to hold Transform values, but got {type(transform).__name__}")

    def __call__(self, batch: Batch) -> Goal:
        return Goal("probabilities", self.predictions(batch.inputs, batch.targets))

    def predictions(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the probabilities ``(B, C, ...)`` of inputs ``(B, C, H, W)``.

        Args:
            inputs: Images.
            targets: Rows of findings tell outputs ``(B, K)`` that are decided on one by one, ``(B, 1, K)``.

        Raises:
            ValueError: On inputs that are no images, and where a transformation is not undone in its shape.
        """
        if inputs.dim() < 4:
            raise ValueError(
                f"expected images (B, C, H, W) to transform, but got inputs of shape {tuple(inputs.shape)}"
            )
        said = [self._said(transform, inputs) for transform in self.transforms]
        if said[0].dim() > 2:
            return probabilities(torch.stack(said).mean(0))
        rows = said if targets is None else [decisions(logits, targets) for logits in said]
        return torch.stack([probabilities(logits) for logits in rows]).mean(0)

    def _said(self, transform: Transform, inputs: Tensor) -> Tensor:
        logits = logits_at(self.model, transform.apply(inputs))
        if logits.dim() == 2:
            return logits
        undone = transform.invert(logits)
        if undone.shape != (len(inputs), logits.shape[1], *inputs.shape[2:]):
            raise ValueError(
                f"expected {transform} to be undone in the shape of the images {tuple(inputs.shape)}, but its "
                f"predictions have shape {tuple(undone.shape)}"
            )
        return undone

    def __repr__(self) -> str:
        return f"Transformed({type(self.model).__name__}, {', '.join(map(str, self.transforms))})"
