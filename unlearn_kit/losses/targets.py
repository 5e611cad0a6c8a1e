"""Targets: what outputs are led toward. A target is a small frozen value, called with a batch.

A user's own target is a class with ``gives`` and ``__call__(batch) -> Goal``; equal targets are computed once a step,
so make it a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import checked
from ..boundary import DISTRIBUTIONS, PerturbedSign
from ..boundary.search import nearest_change
from ..errors import check_choice, check_count, check_number
from ..logits import giving_logits
from ..modules import check_model, evaluating
from ..outputs import IGNORE, decisions, hard_labels, is_binary, predicted_labels, probabilities
from .batch import Batch, Goal, GoalKind


@runtime_checkable
class Target(Hashable, Protocol):
    """Anything that turns a batch into a :class:`Goal` of one of the kinds in ``gives``."""

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """The kinds of goal it can return."""
        ...

    def __call__(self, batch: Batch) -> Goal:
        """Return the goal of every sample of ``batch``; no gradient flows through it."""
        ...


def outputs_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return logits of a frozen model in eval mode at a batch's inputs, without gradients, as its targets read them."""
    return decisions(logits_at(model, batch.inputs), batch.targets)


def logits_at(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return logits of a frozen model in eval mode, without gradients."""
    with torch.no_grad(), giving_logits(model), evaluating(model):
        logits: Tensor = model(inputs)
    return logits


def _name(model: nn.Module) -> str:
    return type(model).__name__


@dataclass(frozen=True)
class Labels:
    """The data's own targets."""

    gives: ClassVar[tuple[GoalKind, ...]] = ("labels",)

    def __call__(self, batch: Batch) -> Goal:
        return Goal("labels", batch.targets)


@checked
@dataclass(frozen=True)
class Teacher:
    """The logits of another model at the same inputs. It never moves: the engine trains a copy of what it is given."""

    model: nn.Module
    gives: ClassVar[tuple[GoalKind, ...]] = ("logits",)

    def __post_init__(self) -> None:
        check_model(self.model, "model of Teacher")

    def __call__(self, batch: Batch) -> Goal:
        return Goal("logits", outputs_of(self.model, batch))

    def __repr__(self) -> str:
        return f"Teacher({_name(self.model)})"


@checked
@dataclass(frozen=True)
class OtherClasses:
    """What another model says of the classes other than the sample's own: its softmax with that logit taken out.

    Of a single logit, what remains is the opposite label (arXiv 2503.23751).
    """

    model: nn.Module
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        check_model(self.model, "model of OtherClasses")

    def __call__(self, batch: Batch) -> Goal:
        logits = outputs_of(self.model, batch)
        own = hard_labels(batch.targets, logits).clamp(min=0).unsqueeze(1)  # what is IGNORE is left out later
        if is_binary(logits):
            return Goal("probabilities", 1 - own.to(logits))
        return Goal("probabilities", logits.scatter(1, own, -torch.inf).softmax(1))

    def __repr__(self) -> str:
        return f"OtherClasses({_name(self.model)})"


@checked
@dataclass(frozen=True)
class Boundary:
    """What the original model says at the nearest point where it changes its mind (arXiv 2505.21872).

    Args:
        model: the original model; it does not change.
        search: the inner problem.
        soft: the model's probabilities at that point, rather than its label.
        top_k: of the soft prediction, keep the k largest probabilities and normalise them again.
        mix: share in [0, 1] of the boundary's prediction; the rest is the model's own prediction at the sample.
            1 forgets classes; single samples need less, since labels far across the boundary are wrong for them.
        uncrossed: what a decision gets that still has its own label y at that point: "keep" that label (as
            published), or the "runner-up", the class behind the boundary the search was climbing toward. With "keep",
            samples the model is certain of are never forgotten.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """

    model: nn.Module
    search: PerturbedSign
    soft: bool = False
    top_k: int | None = None
    mix: float = 1.0
    uncrossed: Literal["keep", "runner-up"] = "keep"

    def __post_init__(self) -> None:
        check_model(self.model, "model of Boundary")
        if not isinstance(self.search, PerturbedSign):
            raise TypeError(f"expected search to be a PerturbedSign, but got {type(self.search).__name__}")
        check_number("mix", self.mix, low=0, high=1)
        check_choice("uncrossed", self.uncrossed, ("keep", "runner-up"))
        if self.top_k is not None:
            check_count("top_k", self.top_k)
            if not self.soft:
                raise ValueError("expected soft=True with top_k, but got soft=False: a hard label has no top k")

    @property
    def gives(self) -> tuple[GoalKind, ...]:
        """Labels when hard and unmixed, else probabilities."""
        return ("probabilities",) if self.soft or self.mix < 1 else ("labels",)

    def __call__(self, batch: Batch) -> Goal:
        search, x = self.search, batch.inputs
        z = None
        if not search.deterministic:
            size = (search.steps, *x.shape)
            z = batch.draw(DISTRIBUTIONS[search.noise_distribution], size, dim=1).to(x)
        found = search.search(self.model, x, batch.targets, perturbations=z)
        labels, logits = found.labels, found.logits
        if self.uncrossed == "runner-up":
            labels, logits = _across(labels, logits, batch.targets, one=self.search.flips == "any")
        if not self.soft and self.mix == 1:
            return Goal("labels", labels)
        there = self._soft(logits) if self.soft else _onehot(labels, logits)
        if self.mix == 1:
            return Goal("probabilities", there)
        here = probabilities(outputs_of(self.model, batch))
        return Goal("probabilities", self.mix * there + (1 - self.mix) * here)

    def _soft(self, logits: Tensor) -> Tensor:
        p = probabilities(logits)
        if self.top_k is None or is_binary(logits) or self.top_k >= p.shape[1]:
            return p
        largest = p.topk(self.top_k, dim=1)
        kept = torch.zeros_like(p).scatter(1, largest.indices, largest.values)
        return kept / kept.sum(1, keepdim=True)

    def __repr__(self) -> str:
        search = self.search
        parts = [f"radius={search.radius:g}", f"steps={search.steps}"]
        parts += ["flips=any"] if search.flips == "any" else []
        parts += [f"soft, top {self.top_k}" if self.top_k else "soft"] if self.soft else []
        parts += [f"mix={self.mix:g}"] if self.mix < 1 else []
        parts += [self.uncrossed] if self.uncrossed != "keep" else []
        return f"Boundary({', '.join(parts)})"


@checked
@dataclass(frozen=True)
class Uniform:
    """Equal probability for every class (two classes, so one half, for a single logit)."""

    num_classes: int
    gives: ClassVar[tuple[GoalKind, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes, low=2)

    def __call__(self, batch: Batch) -> Goal:
        shape = (len(batch.targets), self.num_classes, *_decisions(batch)[1:])
        return Goal("probabilities", torch.full(shape, 1 / self.num_classes, device=batch.inputs.device))


@checked
@dataclass(frozen=True)
class RandomLabels:
    """Labels drawn uniformly, anew in each batch (in ``Cached``: fixed); ``wrong_only`` never draws the true one."""

    num_classes: int
    wrong_only: bool = False
    gives: ClassVar[tuple[GoalKind, ...]] = ("labels",)

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes, low=2)

    def __call__(self, batch: Batch) -> Goal:
        y = batch.targets
        high = self.num_classes - 1 if self.wrong_only else self.num_classes
        drawn = batch.draw(
            lambda shape, source: torch.randint(high, shape, generator=source, device=source.device), tuple(y.shape)
        )
        if self.wrong_only:
            drawn = (y.long() + 1 + drawn) % self.num_classes
        return Goal("labels", drawn.to(y.dtype) if y.is_floating_point() else drawn)


@checked
@dataclass(frozen=True)
class Background:
    """Class ``index`` (the background) at every pixel."""

    index: int = 0
    gives: ClassVar[tuple[GoalKind, ...]] = ("labels",)

    def __post_init__(self) -> None:
        check_count("index", self.index, low=0)

    def __call__(self, batch: Batch) -> Goal:
        return Goal("labels", torch.full_like(batch.targets, self.index))


@checked
@dataclass(frozen=True)
class Contradiction:
    """The opposite of what a teacher is confident of (arXiv 2511.16574, the strong unlearning phase).

    Decisions (pixels or samples) where the teacher's largest probability is at least ``confidence`` are led away from
    its label: to the other label of a binary output, to equal probability of all other classes else. All other
    decisions are left out.
    """

    model: nn.Module
    confidence: float = 0.9
    gives: ClassVar[tuple[GoalKind, ...]] = ("labels", "probabilities")

    def __post_init__(self) -> None:
        check_model(self.model, "model of Contradiction")
        check_number("confidence", self.confidence, low=0, high=1)

    def __call__(self, batch: Batch) -> Goal:
        logits = outputs_of(self.model, batch)
        labels, p = predicted_labels(logits), probabilities(logits)
        if is_binary(logits):
            sure = torch.maximum(p, 1 - p)[:, 0] >= self.confidence
            return Goal("labels", torch.where(sure, 1 - labels, IGNORE))
        sure = p.amax(1, keepdim=True) >= self.confidence
        others = (1 - _onehot(labels, logits)) / (logits.shape[1] - 1)
        return Goal("probabilities", torch.where(sure, others, float(IGNORE)))

    def __repr__(self) -> str:
        return f"Contradiction({_name(self.model)}, confidence={self.confidence:g})"


def _across(labels: Tensor, logits: Tensor, own: Tensor, *, one: bool) -> tuple[Tensor, Tensor]:
    """Return labels and logits with every decision that still equals ``own`` moved to the runner-up.

    Its own class is taken out of the logits (the single logit of a binary output changes sign). With ``one`` of several
    decisions, that which is nearest to a change is moved alone, where none has changed.
    """
    truth = hard_labels(own, logits)
    kept = labels == truth
    if one and labels.dim() > 1:
        crossed = (~kept & (truth != IGNORE)).flatten(1).any(1, keepdim=True)
        nearest = torch.zeros_like(kept.flatten(1)).scatter(1, nearest_change(logits, own).unsqueeze(1), True)
        kept = (nearest & ~crossed).reshape(kept.shape) & kept
    if is_binary(logits):
        return torch.where(kept, 1 - labels, labels), torch.where(kept.unsqueeze(1), -logits, logits)
    least = torch.finfo(logits.dtype).min
    others = logits.scatter(1, labels.unsqueeze(1), least)
    moved = torch.where(kept.unsqueeze(1), others, logits)
    return moved.argmax(1), moved


def _decisions(batch: Batch) -> tuple[int, ...]:
    """Return shape of the decisions of targets ``(B, ...)``, or ``(B, 1, ...)`` with a channel as the inputs have."""
    shape = tuple(batch.targets.shape)
    channel = len(shape) > 1 and shape[1] == 1 and len(shape) in (2, batch.inputs.dim())
    return (shape[0], *shape[2:]) if channel else shape


def _onehot(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as probabilities of the shape of ``logits``."""
    if is_binary(logits):
        return labels.reshape(logits.shape).to(logits)
    return F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits)
