"""Phases: what is trained toward which objective, on which data, for how long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.augmented import Augment
from ..errors import check_choice, check_count, check_number
from ..losses import Objective, Term
from ..schedules import ScalarOrSchedule, check_scalar_or_schedule, rate_at
from ..stages import check_part, parameters_of
from ..tasks import UnlearnTask
from .balance import Balance, check_balance, check_rule
from .streams import check_weights

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Trainable = str | Sequence[str] | Callable[[str, nn.Parameter], bool]
BatchNorm = Literal["frozen", "update", "trained"]


@checked
@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Args:
        objective: what is minimised.
        streams: a data set for each stream the objective reads (others are refused: they would be read for nothing).
        epochs, steps: how long; exactly one. An epoch is one pass over the stream ``lead``; the others are cycled.
        batch_size: samples of each stream a step, or one number a stream.
        optimizer: "sgd", "adam", "adamw", or a function of the parameters that returns a torch optimiser.
        lr: learning rate, a float or a schedule over the phase, set before every step whatever the optimiser; None
            leaves a function's optimiser its own.
        momentum: of "sgd".
        weight_decay: of the named optimisers.
        trainable: "head", "last:K" for the head and the K stages before it (see ``models.stages``), names of
            parameters, or a function ``(name, parameter) -> bool``; None or "all" for every parameter that requires a
            gradient. All others do not move, by weight decay or momentum either, and early ones cost no backward pass.
        masks: for some parameters, a bool tensor of their shape: entries that are False do not move at all; or a
            floating-point one, by which gradients are multiplied: where it is 0, nothing moves.
        batch_norm: What keeps state in training mode: batch norm, and instance norm with running statistics, spectral
            norm, moving averages of one's own. "frozen" keeps its state and eval mode, "update" lets it train,
            "trained" that of the layers whose weights are trained.
        clip: largest gradient norm, or None.
        sampling: for some streams, weights ``(N,)`` by which each batch is drawn with replacement, in place of
            shuffled passes.
        joint: whether the batches of a step go through the network together, so that batch norm which updates sees
            all streams as one batch.
        balance: how the gradients of an objective's two streams are combined: None adds them, by their weights; "nash"
            is their bargaining solution, of norm sqrt 2 whatever the weights; "pcgrad" frees each of what points
            against the other; a ``Cone`` turns the second's toward the first's. Terms of the parameters alone are added
            to each. See ``engine.balance``.
        lead: the stream whose length is an epoch (default: "forget" where it is read, else the first).
        augment: what changes samples whenever they are read for training: torchvision's v2 transforms, or a function,
            called as ``augment(x)``, or of masks as ``augment(x, mask)``. Each sample draws for itself, the same with
            any number of workers and processes. Teachers and the network in training see the same changed sample;
            targets that are ``Cached`` are those of the sample as it is.
        workers: processes that decode, for data not held in tensors; any number gives the same bits.
        before: called with the model, in eval mode and without gradients, at the start of the phase and of each of its
            turns in an ``Alternate``: sets weights that have a closed form, in place, before the others are trained.
        name: in logs and errors.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """

    objective: Objective | Term
    streams: Mapping[str, Any]
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | Mapping[str, int] = 256
    optimizer: str | OptimizerFactory = "sgd"
    lr: ScalarOrSchedule | None = 1e-2
    momentum: float = 0.9
    weight_decay: float = 0.0
    trainable: Trainable | None = None
    masks: Mapping[str, Tensor] | None = None
    batch_norm: BatchNorm = "frozen"
    clip: float | None = None
    sampling: Mapping[str, Tensor] = field(default_factory=dict)
    joint: bool = False
    balance: Balance | None = None
    lead: str | None = None
    augment: Augment | None = None
    workers: int = 0
    before: Callable[[nn.Module], None] | None = None
    name: str = "train"

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"expected one of epochs and steps, but got epochs={self.epochs}, steps={self.steps}")
        if self.batch_size is None:
            raise TypeError("expected batch_size to be an int or a mapping of them, but got None")
        if isinstance(self.optimizer, str) and self.lr is None:
            raise ValueError(f"expected lr with optimizer={self.optimizer!r}, but got None")
        check_settings(self)
        if self.balance is not None:
            check_balance(self.balance, self.terms)
        needed = self.terms.streams
        self.terms.check(self.streams)
        idle = sorted(set(self.streams) - set(needed))
        if idle:
            raise ValueError(f"expected streams that the objective reads, {list(needed)}, but got {idle} as well")
        if self.lead is not None:
            check_choice("lead", self.lead, needed)
        for stream, weights in self.sampling.items():
            check_choice("every name in sampling", stream, needed)
            check_weights(stream, weights, len(self.streams[stream]))
        for stream in needed:
            check_count(f"batch_size of {stream!r}", self.batch_of(stream))
        if isinstance(self.batch_size, Mapping):
            for stream in self.batch_size:
                check_choice("every name in batch_size", stream, needed)
        if not needed and self.steps is None:
            raise ValueError("expected steps for an objective without streams, but got epochs")

    @property
    def terms(self) -> Objective:
        """The objective, as such even when one term was given."""
        return cast(Objective, self.objective)

    @property
    def length(self) -> int:
        """The number of epochs, or of steps."""
        return self.steps if self.steps is not None else self.epochs  # type: ignore[return-value]

    def batch_of(self, stream: str) -> int:
        """Return samples of ``stream`` a step."""
        if not isinstance(self.batch_size, Mapping):
            return self.batch_size
        if stream not in self.batch_size:
            raise ValueError(f"expected batch_size to name stream {stream!r}, but got {dict(self.batch_size)}")
        return self.batch_size[stream]

    @property
    def lead_stream(self) -> str | None:
        """The stream whose pass is an epoch."""
        if self.lead is not None:
            return self.lead
        needed = self.terms.streams
        return "forget" if "forget" in needed else (needed[0] if needed else None)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the lead stream (1 without streams)."""
        lead = self.lead_stream
        return math.ceil(len(self.streams[lead]) / self.batch_of(lead)) if lead is not None else 1

    @property
    def total_steps(self) -> int:
        """Steps in the phase."""
        return self.steps if self.steps is not None else self.length * self.steps_per_epoch

    def trains(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters of ``model`` that this phase trains.

        Raises:
            ValueError: When there are none, a name is unknown, or a mask does not fit.
        """
        everything = dict(model.named_parameters())
        if self.trainable is None or isinstance(self.trainable, str):
            part = set(parameters_of(model, self.trainable or "all"))
            chosen = {name: p for name, p in everything.items() if p.requires_grad and name in part}
        elif callable(self.trainable):
            chosen = {name: p for name, p in everything.items() if self.trainable(name, p)}
        else:
            unknown = sorted(set(self.trainable) - set(everything))
            if unknown:
                raise ValueError(f"expected trainable to name parameters of the model, but got {unknown}")
            chosen = {name: everything[name] for name in self.trainable}
        if not chosen:
            raise ValueError(f"expected phase {self.name!r} to train at least one parameter, but it trains none")
        for name, mask in (self.masks or {}).items():
            check_choice("every name in masks", name, everything)
            if mask.shape != everything[name].shape or not (mask.dtype == torch.bool or mask.is_floating_point()):
                raise ValueError(
                    f"expected masks[{name!r}] to be bool or float of shape {tuple(everything[name].shape)}, "
                    f"but got {mask.dtype} of shape {tuple(mask.shape)}"
                )
        return chosen

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a new optimiser over ``parameters``.

        Raises:
            TypeError: When a function returns no optimiser, or one over other parameters.
            ValueError: When a function returns no optimiser, or one over other parameters.
        """
        if callable(self.optimizer):
            try:
                made = self.optimizer(parameters)
            except (TypeError, AttributeError) as error:
                raise TypeError(f"expected optimizer to make one of parameters, but it failed: {error}") from error
            if not isinstance(made, torch.optim.Optimizer):
                raise TypeError(f"expected optimizer to return a torch optimiser, but got {type(made).__name__}")
            held = [id(p) for group in made.param_groups for p in group["params"]]
            if sorted(held) != sorted(id(p) for p in parameters):
                raise ValueError(
                    f"expected optimizer to hold the {len(parameters)} parameters it is given, but it holds "
                    f"{len(held)}, or others; what does not move is named by trainable"
                )
            return made
        lr = rate_at(self.lr if self.lr is not None else 0.0, 0, self.total_steps)
        options: dict[str, Any] = {"lr": lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            options["momentum"] = self.momentum
        return OPTIMIZERS[self.optimizer](parameters, **options)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@checked
@dataclass(frozen=True)
class Alternate:
    """Phases that take turns: each runs its length, in order, ``rounds`` times over.

    Every phase keeps its optimiser and its place in its streams and schedules from round to round: a schedule spans
    all rounds. With ``shared_optimizer`` all of them step one optimiser, made by the first; they must then train the
    same parameters.
    ``turns`` names phases that drop out: how many of the rounds, from the first, they take part in.

    Raises:
        ValueError: On no phases, or on phases of one name.
        TypeError: On what is no phase.
    """

    phases: Sequence[Phase]
    rounds: int
    shared_optimizer: bool = False
    turns: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds, low=0)
        if len(self.phases) == 0:
            raise ValueError("expected phases to hold at least one phase, but got none")
        for phase in self.phases:
            if not isinstance(phase, Phase):
                raise TypeError(f"expected phases to hold Phase values, but got {type(phase).__name__}")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"expected phases of distinct names, but got {names}")
        for name, count in self.turns.items():
            check_choice("every name in turns", name, names)
            check_count(f"turns[{name!r}]", count, low=0)


@dataclass(frozen=True)
class Leg:
    """One uninterrupted run of steps of one phase: steps ``start`` to ``stop - 1`` of ``total``."""

    phase: Phase
    key: str
    optimizer_key: str
    start: int
    stop: int
    total: int


def plan(program: Phase | Alternate | Sequence[Phase | Alternate]) -> list[Leg]:
    """Return the legs of a program, in the order they run.

    Raises:
        TypeError: On what is neither a phase nor an alternation.
    """
    parts = list(program) if isinstance(program, Sequence) else [program]
    legs = []
    for place, part in enumerate(parts):
        if not isinstance(part, (Phase, Alternate)):
            raise TypeError(f"expected program to hold Phase and Alternate values, but got {type(part).__name__}")
        if isinstance(part, Phase):
            key = f"{place}.{part.name}"
            legs.append(Leg(part, key, key, 0, part.total_steps, part.total_steps))
            continue
        for turn in range(part.rounds):
            for phase in part.phases:
                turns = min(part.turns.get(phase.name, part.rounds), part.rounds)
                if turn >= turns:
                    continue
                key, count = f"{place}.{phase.name}", phase.total_steps
                own = f"{place}.shared" if part.shared_optimizer else key
                legs.append(Leg(phase, key, own, turn * count, (turn + 1) * count, turns * count))
    return legs


def check_settings(settings: Any) -> None:
    """Refuse settings of training, those that :class:`Phase` and ``Training`` share, which no training can have.

    Raises:
        ValueError: When one is out of range, by its name.
        TypeError: When one is of another type, by its name.
    """
    for name, length in (("epochs", settings.epochs), ("steps", settings.steps)):
        if length is not None:
            check_count(name, length, low=0)
    check_choice("batch_norm", settings.batch_norm, get_args(BatchNorm))
    if isinstance(settings.trainable, str):
        check_part("trainable", settings.trainable)
    check_number("momentum", settings.momentum, low=0, high=1, open_high=True)
    check_number("weight_decay", settings.weight_decay, low=0)
    check_count("workers", settings.workers, low=0)
    if settings.clip is not None:
        check_number("clip", settings.clip, low=0, open_low=True)
    if isinstance(settings.optimizer, str):
        check_choice("optimizer", settings.optimizer, OPTIMIZERS)
    elif not callable(settings.optimizer):
        raise TypeError(
            f"expected optimizer to be one of {list(OPTIMIZERS)} or a function, but got {settings.optimizer!r}"
        )
    if settings.lr is not None:
        check_scalar_or_schedule("lr", settings.lr, low=0)
    if settings.balance is not None:
        check_rule(settings.balance)
    sizes = settings.batch_size
    for stream, size in sizes.items() if isinstance(sizes, Mapping) else [(None, sizes)]:
        if size is not None:
            check_count("batch_size" if stream is None else f"batch_size of {stream!r}", size)


def as_objective(objective: object) -> Objective:
    """Return an objective, also of a single term.

    Raises:
        TypeError: When it is neither.
    """
    if not isinstance(objective, (Objective, Term)):
        raise TypeError(f"expected objective to be an Objective, but got {type(objective).__name__}")
    return Objective(objective._terms)


@checked
def streams_for(task: UnlearnTask, objective: Objective | Term, **others: Any) -> dict[str, Any]:
    """Return the data sets the objective reads: ``forget`` and ``retain`` of the task, and ``others`` by name.

    A stream that is not read is not brought along.
    """
    known = {"forget": task.forget, "retain": task.retain, **others}
    needed = as_objective(objective).streams
    return {name: known[name] for name in needed if name in known}


def sizes_for(batch_size: int | Mapping[str, int], objective: Objective | Term) -> int | dict[str, int]:
    """Return the batch sizes of the streams the objective reads: what is left when a weight is 0."""
    if not isinstance(batch_size, Mapping):
        return batch_size
    return {name: size for name, size in batch_size.items() if name in as_objective(objective).streams}
