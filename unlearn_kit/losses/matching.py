"""Targets that differ from sample to sample: a table, and the predictions that unseen samples of the same rank get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import checked
from ..errors import check_choice, check_count, check_number
from ..modules import check_model
from ..outputs import check_finite, hard_labels, is_binary, probabilities
from .batch import Batch, Goal, GoalKind
from .targets import Target, outputs_of


def _positions(batch: Batch, samples: int, target: object) -> Tensor:
    """Return the positions of the samples of ``batch`` in their stream's data, where there are ``samples`` of them."""
    if batch.indices is None:
        raise ValueError(f"expected a batch with indices for {target}, which holds a value a sample, but got none")
    if len(batch.indices) and int(batch.indices.max()) >= samples:
        raise ValueError(
            f"expected {target} to hold a value for each sample of stream {batch.stream!r}, but it holds {samples} "
            f"and was asked for position {int(batch.indices.max())}"
        )
    return batch.indices


@checked
@dataclass(frozen=True, eq=False)
class Table:
    """A goal for each sample of a stream, by the sample's position in the stream's data set.

    Args:
        values: ``(N, C, ...)`` probabilities or logits, or ``(N, ...)`` labels.
        kind: What the values are: "labels", "probabilities" or "logits".

    Raises:
        ValueError: On values that are not finite, or another kind.
    """

    values: Tensor
    kind: GoalKind = "probabilities"

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("labels", "probabilities", "logits"))
        if self.values.dim() < (1 if self.kind == "labels" else 2):
            raise ValueError(f"expected values to hold one goal a sample, but got shape {tuple(self.values.shape)}")
        check_finite("values", self.values)

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """The kind that was given."""
        return (self.kind,)

    def __call__(self, batch: Batch) -> Goal:
        rows = self.values[_positions(batch, len(self.values), self).to(self.values.device)]
        return Goal(self.kind, rows.to(batch.inputs.device))

    def __repr__(self) -> str:
        return f"Table({len(self.values)} {self.kind})"


@checked
@dataclass(frozen=True)
class RunnerUp:
    """The label that another model finds likeliest beside the sample's own; of two classes the other one."""

    model: nn.Module
    gives: ClassVar[tuple[GoalKind, ...]] = ("labels",)

    def __post_init__(self) -> None:
        check_model(self.model, "model of RunnerUp")

    def __call__(self, batch: Batch) -> Goal:
        logits = outputs_of(self.model, batch)
        own = hard_labels(batch.targets, logits)
        if is_binary(logits):
            return Goal("labels", 1 - own)
        return Goal("labels", logits.scatter(1, own.unsqueeze(1), -torch.inf).argmax(1))

    def __repr__(self) -> str:
        return f"RunnerUp({type(self.model).__name__})"


@checked
@dataclass(frozen=True, eq=False)
class Calibration:
    """How sure a model is of samples that it never saw: the margins of its own labels on validation data.

    A sample harder than a share u of comparable samples is given the ``1 - u`` quantile of these margins. Positive ones
    are multiplied by ``shrink``: training toward soft labels stops short of moderate confidence.

    Args:
        margins: ``log p / (1 - p)`` of each validation sample's own label (``outputs.label_margin``), ``(V,)``.
        labels: ``(V,)`` where samples are compared with those of their own class alone; None for all of them.
        shrink: In (0, 1]; 1 leaves the margins as they are.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """

    margins: Tensor
    labels: Tensor | None = None
    shrink: float = 0.6

    def __post_init__(self) -> None:
        if self.margins.dim() != 1 or len(self.margins) == 0:
            raise ValueError(
                f"expected margins to hold one number a validation sample, but got {tuple(self.margins.shape)}"
            )
        check_finite("margins", self.margins)
        check_number("shrink", self.shrink, low=0, high=1, open_low=True)
        if self.labels is not None and self.labels.shape != self.margins.shape:
            raise ValueError(f"expected one label a margin, but got {len(self.labels)} for {len(self.margins)}")

    def margin_at(self, percentiles: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the margins ``(N,)`` of samples at ``percentiles`` of difficulty in [0, 1], of the classes ``labels``.

        A class without validation samples is compared with all of them.
        """
        wanted = 1 - percentiles.double()
        margins = self.margins.double()
        found = torch.quantile(margins, wanted)
        if self.labels is not None and labels is not None:
            for label in labels.unique().tolist():
                own, at = margins[self.labels == label], labels == label
                if len(own):
                    found[at] = torch.quantile(own, wanted[at])
        return torch.where(found > 0, self.shrink * found, found)


@checked
@dataclass(frozen=True, eq=False)
class Matched:
    """The confidence that an unseen sample of the same difficulty gets, and the rest of the probability from elsewhere.

    ``q = p e_y + (1 - p) rest``, p the sigmoid of the validation margin of the sample's rank and ``rest`` another
    target without its mass on y: ``RunnerUp(model)``; ``OtherClasses(model)``, which is softer; or
    ``Boundary(model, search, uncrossed="runner-up")``, the label behind the sample's nearest boundary. After a perfect
    fit the losses of the forget data are distributed as those of the validation data.

    Args:
        percentiles: Difficulty of each sample of the stream among comparable training samples, ``(N,)`` in [0, 1], 1
            for the hardest (``difficulty.percentiles``).
        calibration: What unseen samples of each rank get.
        rest: Which other classes the remaining probability goes to.
        num_classes: Of the outputs; two for a single logit.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """

    percentiles: Tensor
    calibration: Calibration
    rest: Target
    num_classes: int
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        if not isinstance(self.calibration, Calibration):
            raise TypeError(f"expected calibration to be a Calibration, but got {type(self.calibration).__name__}")
        if not isinstance(self.rest, Target):
            raise TypeError(f"expected rest to be a target, but got {type(self.rest).__name__}")
        check_count("num_classes", self.num_classes, low=2)
        if self.percentiles.dim() != 1:
            raise ValueError(f"expected one percentile a sample, but got shape {tuple(self.percentiles.shape)}")
        least, most = (float(v) for v in self.percentiles.aminmax()) if len(self.percentiles) else (0.0, 1.0)
        if not (least >= 0 and most <= 1):
            raise ValueError(f"expected percentiles in [0, 1], but got {least:g} to {most:g}")

    def __call__(self, batch: Batch) -> Goal:
        if batch.targets.dim() != 1:
            raise ValueError(f"expected one label a sample for {self}, but got shape {tuple(batch.targets.shape)}")
        at = _positions(batch, len(self.percentiles), self).cpu()
        labels = batch.targets.long()
        margins = self.calibration.margin_at(self.percentiles[at], labels.cpu()).to(batch.inputs)
        own = F.one_hot(labels, self.num_classes).to(batch.inputs)
        others = (1 - own) * self._rest(batch)
        mass = others.sum(1, keepdim=True)
        # Where nothing is said of other classes, none is likelier than another.
        others = torch.where(mass > 0, others / mass.clamp(min=1e-38), (1 - own) / (self.num_classes - 1))
        p = margins.sigmoid().unsqueeze(1)
        return Goal("probabilities", p * own + (1 - p) * others)

    def _rest(self, batch: Batch) -> Tensor:
        """Return what the other target says, ``(B, C)`` probabilities."""
        kind, values = self.rest(batch)
        if kind == "labels":
            return F.one_hot(values.long().flatten(), self.num_classes).to(batch.inputs)
        said = probabilities(values) if kind == "logits" else values
        return torch.cat([1 - said, said], dim=1) if said.shape[1] == 1 else said

    def __repr__(self) -> str:
        within = ", within classes" if self.calibration.labels is not None else ""
        return f"Matched({self.rest}{within}, shrink={self.calibration.shrink:g})"
