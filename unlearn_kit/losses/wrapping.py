"""Targets made of another target: asked of some decisions, of some classes, or computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..arguments import checked
from ..errors import check_choice, check_count
from ..outputs import IGNORE, is_multi_hot, probabilities
from .batch import Batch, Goal, GoalKind
from .targets import Target


@checked
@dataclass(frozen=True)
class Within:
    """Another target, asked of the decisions whose own label is ``label`` alone; all others are left out.

    For masks of which one class is to be forgotten, or several (``label`` is then a tuple of them). Logits, which have
    no number to spare for decisions that are left out, become their probabilities.

    Raises:
        ValueError: On labels that are none.
        TypeError: On what is no target.
    """

    target: Target
    label: int | tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise TypeError(f"expected target to be a target, but got {type(self.target).__name__}")
        if self.label == ():
            raise ValueError("expected label to be a class or a tuple of classes, but got an empty tuple")
        for label in self.label if isinstance(self.label, tuple) else (self.label,):
            check_count("label", label, low=0)

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """What the target inside gives, logits as probabilities."""
        return _kinds_that_leave_out(self.target)

    def __call__(self, batch: Batch) -> Goal:
        kind, values = _without_logits(self.target(batch))
        asked = one_of(batch.targets, self.label).reshape(values.shape if kind == "labels" else values[:, :1].shape)
        return Goal(kind, torch.where(asked, values, IGNORE))

    def __repr__(self) -> str:
        return f"Within({self.target}, label={self.label})"


@checked
@dataclass(frozen=True)
class Without:
    """What another target says once some classes are taken out: its probabilities of the others, normalised again.

    Distillation toward an original that knows the classes would teach them back: what it says of kept data names them,
    too. Where the target is sure of a class that is taken out, the others are equally likely.

    Args:
        target: A target over at least two classes; of a single logit nothing would be left.
        classes: What is taken out; none leaves the target as it is.

    Raises:
        ValueError: On classes that are none; when evaluated, where no class is left.
        TypeError: On what is no target.
    """

    target: Target
    classes: tuple[int, ...]
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise TypeError(f"expected target to be a target, but got {type(self.target).__name__}")
        if "labels" in self.target.gives:
            raise ValueError(f"expected target to give probabilities or logits, but {self.target} gives labels")
        for label in self.classes:
            check_count("classes", label, low=0)

    def __call__(self, batch: Batch) -> Goal:
        goal = self.target(batch)
        if not self.classes:
            return _without_logits(goal)
        values, count = goal.values, goal.values.shape[1]
        if max(self.classes) >= count or len({*self.classes}) == count:
            raise ValueError(f"expected classes to leave one of {count} outputs, but got {list(self.classes)}")
        out = torch.zeros(count, dtype=torch.bool, device=values.device)
        out[list(self.classes)] = True
        out = out.reshape(1, -1, *[1] * (values.dim() - 2))
        unasked = goal.asked() == IGNORE
        if goal.kind == "logits":
            # What is left of a softmax is the softmax of what is left, which cannot underflow.
            left = values.nan_to_num().masked_fill(out, -torch.inf)
            return Goal("probabilities", probabilities(left)).without(unasked)
        left = values.masked_fill(out, 0.0)
        total = left.sum(1, keepdim=True)
        others = torch.where(total > 0, left / total, (~out).to(left) / (~out).sum())
        return Goal("probabilities", others).without(unasked)

    def __repr__(self) -> str:
        return f"Without({self.target}, {list(self.classes)})"


@checked
@dataclass(frozen=True)
class Findings:
    """Another target of a multi-label task, asked of some findings alone; all others are left out.

    The target inside sees the others as unknown: a search near the boundary climbs toward a change of these alone.

    Args:
        target: What they are led toward.
        findings: Their places ``k`` in the targets ``(B, K)``.
        label: 1 to ask only where they are present, 0 where they are absent; None for both.

    Raises:
        ValueError: On places that are none; when evaluated, on one that the targets have not, or without findings.
        TypeError: On what is no target.
    """

    target: Target
    findings: tuple[int, ...]
    label: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise TypeError(f"expected target to be a target, but got {type(self.target).__name__}")
        if not self.findings:
            raise ValueError("expected findings to hold at least one, but got an empty tuple")
        for finding in self.findings:
            check_count("findings", finding, low=0)
        if self.label not in (None, 0, 1):
            raise ValueError(f"expected label to be 0, 1 or None, but got {self.label!r}")

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """What the target inside gives, logits as probabilities."""
        return _kinds_that_leave_out(self.target)

    def __call__(self, batch: Batch) -> Goal:
        y = batch.targets
        if not is_multi_hot(y) or max(self.findings) >= y.shape[1]:
            raise ValueError(
                f"expected targets (B, K) with the findings {list(self.findings)}, but got shape {tuple(y.shape)}"
            )
        others = torch.ones(y.shape, dtype=torch.bool, device=y.device)
        others[:, list(self.findings)] = False
        others |= torch.zeros_like(others) if self.label is None else y != self.label
        signed = y if y.is_floating_point() else y.long()
        goal = self.target(replace(batch, targets=signed.masked_fill(others, IGNORE)))
        return _without_logits(goal).without(others)

    def __repr__(self) -> str:
        where = "" if self.label is None else f", label={self.label}"
        return f"Findings({self.target}, {list(self.findings)}{where})"


@checked
@dataclass(frozen=True)
class Cached:
    """Another target, computed for the whole stream once a run or once an epoch rather than in every step.

    Exact where the target depends on the sample alone: a frozen model, no noise, no augmentation.
    """

    target: Target
    refresh: Literal["once", "epoch"] = "once"

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise TypeError(f"expected target to be a target, but got {type(self.target).__name__}")
        check_choice("refresh", self.refresh, ("once", "epoch"))

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """What the target inside gives."""
        return self.target.gives

    def __call__(self, batch: Batch) -> Goal:
        table = batch.tables.get(self)
        if table is None or batch.indices is None:
            return self.target(batch)
        rows = table.values[batch.indices.to(table.values.device)]
        return Goal(table.kind, rows.to(batch.inputs.device))

    def __repr__(self) -> str:
        return repr(self.target)


def _kinds_that_leave_out(target: Target) -> tuple[GoalKind, ...]:
    kinds: list[GoalKind] = ["probabilities" if kind == "logits" else kind for kind in target.gives]
    return tuple(dict.fromkeys(kinds))


def _without_logits(goal: Goal) -> Goal:
    """Return the goal with logits, which have no number to spare for what is left out, as their probabilities."""
    return Goal("probabilities", probabilities(goal.values)) if goal.kind == "logits" else goal


def one_of(targets: Tensor, label: int | tuple[int, ...]) -> Tensor:
    """Return where ``targets`` are ``label``, or one of several: bool, of their shape."""
    labels = label if isinstance(label, tuple) else (label,)
    return torch.stack([targets == one for one in labels]).any(0)
