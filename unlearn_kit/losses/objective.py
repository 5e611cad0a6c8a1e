"""Terms and objectives: the algebra in which every method's loss is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice
from ..modules import device_of
from ..outputs import check_finite, decisions, is_ignored
from ..schedules import ScalarOrSchedule, check_scalar_or_schedule, formula, is_schedule, value_at
from .batch import Batch, Goal, GoalKind
from .distances import check_goal, fit_goal
from .targets import Labels, Target
from .wrapping import Cached, Findings, Within

Reduction = Literal["sample", "batch", "parameters", "forward"]


@dataclass(frozen=True)
class Weight:
    """A float times any number of schedules."""

    factor: float = 1.0
    schedules: tuple[ScalarOrSchedule, ...] = ()

    def times(self, other: ScalarOrSchedule) -> Weight:
        """Return this weight, scaled by a number, a schedule, or a function of progress."""
        if is_schedule(other):
            return replace(self, schedules=(*self.schedules, other))
        return replace(self, factor=self.factor * cast(float, other))

    def at(self, step: int, total: int) -> float:
        """Return its value at ``step`` of ``total``."""
        value = self.factor
        for schedule in self.schedules:
            value *= value_at(schedule, step, total)
        return value

    def __str__(self) -> str:
        parts = [formula(schedule) for schedule in self.schedules]
        sign, size = ("-" if self.factor < 0 else ""), abs(self.factor)
        if size != 1:
            parts.insert(0, f"{size:g}")
        return sign + "".join(f"{part} * " for part in parts)


class Algebra:
    """``+`` adds, ``*`` scales by a float or a schedule, ``-`` negates."""

    @property
    def _terms(self) -> tuple[Term, ...]:
        raise TypeError(f"{type(self).__name__} has no terms")

    def __add__(self, other: Algebra | int) -> Objective:
        # sum() starts from 0.
        if isinstance(other, int) and other == 0:
            return Objective(self._terms)
        return Objective(self._terms + other._terms) if isinstance(other, Algebra) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Algebra) -> Objective:
        return self + -1.0 * Objective(other._terms) if isinstance(other, Algebra) else NotImplemented


@dataclass(frozen=True)
class Term(Algebra):
    """On which stream, toward which target, by which distance; build one with the factories of ``losses``.

    Attributes:
        name: key of its value in the log.
        function: the distance; what it is called with depends on ``reduction``.
        on: the stream; None for a term of the parameters alone.
        to: the target; None for a term that has none.
        takes: kinds of goal the distance understands.
        reduction: "sample" (one value a sample), "batch" (a scalar of the whole batch), "parameters" (a scalar of
            the named trainable parameters), "forward" (one value a sample of the model and the batch: for terms that
            run the model themselves, say on inputs of their own making).
        weight: its factor.
    """

    name: str
    function: Callable[..., Tensor]
    on: str | None
    to: Target | None
    takes: tuple[GoalKind, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    reduction: Reduction = "sample"
    weight: Weight = field(default_factory=Weight)

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, get_args(Reduction))
        if self.to is not None and (isinstance(self.to, type) or not isinstance(self.to, Target)):
            came = f"the class {self.to.__name__}" if isinstance(self.to, type) else type(self.to).__name__
            raise TypeError(
                f"expected to= of {self.name} to be a target (a hashable object with .gives and __call__(batch)), "
                f"but got {came}"
            )
        if self.to is not None and not set(self.to.gives) & set(self.takes):
            raise ValueError(
                f"expected the target of {self.name} to give {' or '.join(self.takes)}, "
                f"but got {self.to}, which gives {' or '.join(self.to.gives)}"
            )

    @property
    def _terms(self) -> tuple[Term, ...]:
        return (self,)

    def __mul__(self, weight: ScalarOrSchedule) -> Term:
        if isinstance(weight, (Algebra, Tensor)):
            return NotImplemented
        return replace(self, weight=self.weight.times(check_scalar_or_schedule("weight", weight)))

    __rmul__ = __mul__

    def __neg__(self) -> Term:
        return -1.0 * self

    def value_of(self, forward: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """Return the scalar of a "forward" term, without its weight."""
        return self._reduced(self.function(forward, batch, **dict(self.options)), (len(batch.inputs),))

    def value(self, outputs: Tensor | None, goal: Goal | None, model: nn.Module, look: bool = True) -> Tensor:
        """Return the scalar of any other term, without its weight; ``look`` as in :meth:`Objective.evaluate`."""
        options = dict(self.options)
        if self.reduction == "parameters":
            trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
            if not trainable:
                raise ValueError(f"expected the model to have trainable parameters for {self.name}, but got none")
            values = self.function(trainable, **options)
        elif outputs is None:
            raise ValueError(f"expected outputs of stream {self.on!r} for {self.name}, but got none")
        elif goal is None:
            values = self.function(outputs, **options)
        else:
            goal = fit_goal(goal, outputs)
            check_goal(self.name, self.takes, goal, outputs, self.to, look=look)
            values = self.function(outputs, goal, **options)
        return self._reduced(values, (len(outputs),) if self.reduction == "sample" and outputs is not None else ())

    def _reduced(self, values: Tensor, wanted: tuple[int, ...]) -> Tensor:
        if not isinstance(values, Tensor):
            raise TypeError(f"expected {self.name} to return a Tensor, but got {type(values).__name__}")
        if values.shape != wanted:
            raise ValueError(f"expected {self.name} to return shape {wanted}, but got {tuple(values.shape)}")
        return values.mean()

    def __str__(self) -> str:
        return f"{self.weight}{self.name}"


@dataclass(frozen=True)
class ObjectiveValue:
    """An objective's value: the weighted total, and each evaluated part without its weight."""

    total: Tensor
    parts: dict[str, Tensor]


@checked
@dataclass(frozen=True)
class Objective(Algebra):
    """A weighted sum of terms. Prints as its formula.

    Raises:
        ValueError: When two terms bear one name.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        for term in self.terms:
            if not isinstance(term, Term):
                raise TypeError(f"expected terms to hold Term values, but got {type(term).__name__}")
        names = [term.name for term in self.terms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected terms with distinct names, but got {twice} twice; give one a name=")

    @property
    def _terms(self) -> tuple[Term, ...]:
        return self.terms

    def __mul__(self, weight: ScalarOrSchedule) -> Objective:
        if isinstance(weight, (Algebra, Tensor)):
            return NotImplemented
        return Objective(tuple(weight * term for term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __str__(self) -> str:
        text = " + ".join(str(term) for term in self.terms)
        return text.replace("+ -", "- ")

    def with_class_weights(self, weights: Sequence[float], option: Literal["weight", "pos_weight"]) -> Objective:
        """Return the objective with class weights in every term toward the data's own labels that has none yet.

        Args:
            weights: One number a class, or a finding.
            option: What the distances call them: "weight", or "pos_weight" of a multi-label head.

        Raises:
            ValueError: When such a term takes none, by its name.
        """
        return Objective(tuple(_class_weighted(term, tuple(weights), option) for term in self.terms))

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams it reads, in order of appearance."""
        return tuple(dict.fromkeys(term.on for term in self.terms if term.on is not None))

    def targets(self, stream: str | None = None) -> tuple[Target, ...]:
        """Return its distinct targets, of one stream or of all."""
        chosen = (t.to for t in self.terms if t.to is not None and stream in (None, t.on))
        return tuple(dict.fromkeys(chosen))

    def cached_targets(self, stream: str) -> tuple[Cached, ...]:
        """Return its targets on ``stream`` that are computed beforehand."""
        return tuple(target for target in self.targets(stream) if isinstance(target, Cached))

    def check(self, streams: Iterable[str]) -> None:
        """Refuse an objective that reads a stream which is not brought along.

        Raises:
            ValueError: When one is missing, by its name.
        """
        given = list(streams)
        for term in self.terms:
            if term.on is not None and term.on not in given:
                raise ValueError(f"expected the stream of {term.name} to be one of {given}, but got {term.on!r}")

    def evaluate(
        self,
        model: nn.Module,
        batches: Mapping[str, Batch],
        *,
        step: int = 0,
        total: int = 1,
        forward: Callable[[Tensor], Tensor] | None = None,
        joint: bool = False,
        look: bool = True,
    ) -> ObjectiveValue:
        """Evaluate every term whose weight is not zero now; each stream and each target is computed once.

        Args:
            model: the model in training; its trainable parameters are what parameter terms see.
            batches: one batch a stream.
            step, total: where in the run, for schedules.
            forward: how outputs are computed (default: ``model`` itself).
            joint: whether the streams go through the model as one batch, whose statistics batch norm then takes.
            look: whether the numbers of goals are looked at, for which the host waits for another device.

        Raises:
            ValueError: On a missing batch, on non-finite targets, and where a target does not fit the outputs.
        """
        run = forward or model
        outputs = self._joint_outputs(run, batches, step, total) if joint else {}
        goals: dict[tuple[str, Target], Goal] = {}
        parts: dict[str, Tensor] = {}
        sums: list[Tensor] = []
        for term in self.terms:
            weight = term.weight.at(step, total)
            if weight == 0:
                continue
            goal = None
            if term.on is not None:
                if term.on not in batches:
                    self.check(batches)
                batch = batches[term.on]
                if term.reduction == "forward":
                    parts[term.name] = term.value_of(partial(_decided, run, batch), batch)
                    sums.append(_weighted(weight, parts[term.name]))
                    continue
                if term.on not in outputs:
                    outputs[term.on] = _decided(run, batch, batch.inputs)
                if term.to is not None:
                    key = (term.on, term.to)
                    if key not in goals:
                        goals[key] = _goal_of(term.to, batch, look)
                    goal = goals[key]
            value = term.value(outputs.get(term.on) if term.on is not None else None, goal, model, look)
            parts[term.name] = value
            sums.append(_weighted(weight, value))
        return ObjectiveValue(_sum(sums) if sums else torch.zeros((), device=device_of(model)), parts)

    def _joint_outputs(
        self, run: Callable[[Tensor], Tensor], batches: Mapping[str, Batch], step: int, total: int
    ) -> dict[str, Tensor]:
        """Return the outputs of every stream that a term reads in this step, computed as one batch."""
        active = [term for term in self.terms if term.reduction != "forward" and term.weight.at(step, total) != 0]
        names = [name for name in Objective(tuple(active)).streams if name in batches]
        sizes = [len(batches[name].inputs) for name in names]
        together = run(torch.cat([batches[name].inputs for name in names])) if names else torch.empty(0)
        parts = zip(names, together.split(sizes), strict=True) if names else ()
        return {name: decisions(part, batches[name].targets) for name, part in parts}


def _class_weighted(term: Term, weights: tuple[float, ...], option: str) -> Term:
    target: Any = term.to
    while isinstance(target, (Within, Findings, Cached)):
        target = target.target
    if not isinstance(target, Labels) or {"weight", "pos_weight"} & dict(term.options).keys():
        return term
    if option not in inspect.signature(term.function).parameters:
        raise ValueError(
            f"expected {term.name} to take {option}=, since class weights are asked for, but its distance has no such "
            "option"
        )
    return replace(term, options=(*term.options, (option, weights)))


def _decided(run: Callable[[Tensor], Tensor], batch: Batch, inputs: Tensor) -> Tensor:
    return decisions(run(inputs), batch.targets)


def _weighted(weight: float, value: Tensor) -> Tensor:
    return value if weight == 1 else weight * value


def _sum(values: list[Tensor]) -> Tensor:
    """Return the sum; of one or two the same bits in fewer operations."""
    if len(values) > 2:
        return torch.stack(values).sum()
    return values[0] if len(values) == 1 else values[0] + values[1]


def _goal_of(target: Target, batch: Batch, look: bool) -> Goal:
    goal = target(batch)
    if not isinstance(goal, Goal):
        raise TypeError(f"expected {target} to return a Goal, but got {type(goal).__name__}")
    if goal.values.is_floating_point():
        if look:
            check_finite(f"what {target} gives on stream {batch.stream!r}", goal.values)
    elif goal.values is batch.targets:  # the data's own labels, in which nothing is left to leave out
        return goal
    # Whatever it is led toward, a decision without a label of its own is left out.
    return Goal(goal.kind, goal.values.detach()).without(is_ignored(batch.targets), look=look)
