"""How far apart two references are: what is nearer to one of them than that cannot be told from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from ..arguments import checked
from ..judging import farthest, within


@dataclass(frozen=True)
class BesideReferences:
    """A figure of a model beside the same figure of references, which differ by their seeds alone.

    Attributes:
        value: The model's figure. None is "n/a".
        references: The figures of the references.
        gap: How far the model is from the first reference.
        resolution: How far the farthest further reference is from it. None with a single reference.
    """

    value: float | None
    references: tuple[float | None, ...]
    gap: float | None
    resolution: float | None

    @property
    def within(self) -> bool | None:
        """Whether the model is no farther from the first reference than another reference is; None where unknown."""
        return within(self.gap, self.resolution)

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.gap is None:
            return "n/a"
        if self.resolution is None:
            return f"{self.gap:.3g} from the reference; there is no second one to say how much that is"
        side = "within" if self.within else "beyond"
        return (
            f"{side} the references' range: {self.gap:.3g} from the first, which another is {self.resolution:.3g} from"
        )


@checked
def beside_references(
    figure: Callable[[nn.Module], float | None],
    model: nn.Module,
    references: Sequence[nn.Module],
) -> BesideReferences:
    """Return a figure of a model beside that of references, by which to say whether it is within their range.

    Where nothing differs but seeds, a model is still beyond k further references once in k + 1 times, of one every
    other time: a verdict of weight takes several of them, or several trainings that all agree.

    Args:
        figure: Gives the figure of a model; of distances the one to ``references[0]``, which has none to itself.
        model: The model to judge.
        references: Models retrained without the forget data, which differ by their seeds alone; two or more have a
            range.

    Raises:
        ValueError: Without a reference, or when the figure is no number.
    """
    if not len(references):
        raise ValueError("expected references to hold at least one model, but got none")
    first, *further = references
    value, ideal, *theirs = (_checked(figure(one)) for one in (model, first, *further))
    return BesideReferences(value, (ideal, *theirs), _gap(value, ideal), farthest(_gap(one, ideal) for one in theirs))


def _checked(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"expected figure to return finite numbers or None, but got {value}")
    return value


def _gap(value: float | None, ideal: float | None) -> float | None:
    return None if value is None or ideal is None else abs(value - ideal)
