"""How a method trains, said once: the options that every method shares, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from torch import nn

from ..arguments import checked
from ..data.augmented import Augment
from ..errors import check_number
from ..losses import Objective, Term
from ..losses.distances import check_weights
from ..schedules import ScalarOrSchedule, Schedule, with_peak
from ..tasks import UnlearnTask
from .balance import Balance
from .callbacks import Callback, check_callbacks
from .fit import FitResult, fit
from .phases import Alternate, BatchNorm, OptimizerFactory, Phase, Trainable, check_settings, sizes_for, streams_for

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainingOptions(TypedDict, total=False):
    """The fields of :class:`Training` as keywords: what a caller of a method may say, and a type checker checks."""

    epochs: int | None
    steps: int | None
    batch_size: int | Mapping[str, int] | None
    lr: ScalarOrSchedule | None
    optimizer: str | OptimizerFactory
    momentum: float
    weight_decay: float
    clip: float | None
    class_weight: Sequence[float] | None
    batch_norm: BatchNorm
    trainable: Trainable | None
    balance: Balance | None
    augment: Augment | None
    workers: int
    accelerator: Accelerator | None
    callbacks: Sequence[Callback]


@checked
@dataclass(frozen=True)
class Training:
    """How a method trains: it declares its own defaults, and its caller overrides them by keyword.

    Attributes:
        epochs, steps: Passes over the phase's leading data, or steps; one of them.
        batch_size: Samples of each stream a step, or one number a stream; None leaves it to the method.
        lr: The learning rate, a number or a schedule over the phase; None leaves a function's optimiser its own.
        optimizer: "sgd", "adam", "adamw", or a function of the parameters that returns a torch optimiser.
        momentum: Of "sgd", in [0, 1).
        weight_decay: Of the named optimisers, at least 0.
        clip: The largest gradient norm; None for no bound.
        class_weight: What each class weighs in every term toward the data's own labels, one number a class; of a
            multi-label task how much more a finding weighs where it is present (``pos_weight``); None for all alike.
        batch_norm: "frozen", "update" or "trained", as in :class:`~unlearn_kit.engine.Phase`.
        trainable: What moves: "head", "last:K" for the head and the K stages before it, names of parameters, or a
            function ``(name, parameter) -> bool``; None or "all" for all that require a gradient.
        balance: How the gradients of two streams are combined: None, "nash", "pcgrad" or a ``Cone``.
        augment: What changes samples whenever they are read, as in :class:`~unlearn_kit.engine.Phase`; None: nothing.
        workers: Processes that decode the data; 0 decodes in this one.
        accelerator: An ``accelerate.Accelerator`` for mixed precision or several devices; None for one device.
        callbacks: What watches the training, in order.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int | Mapping[str, int] | None = 256
    lr: ScalarOrSchedule | None = 1e-2
    optimizer: str | OptimizerFactory = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    class_weight: Sequence[float] | None = None
    batch_norm: BatchNorm = "frozen"
    trainable: Trainable | None = None
    balance: Balance | None = None
    augment: Augment | None = None
    workers: int = 0
    accelerator: Accelerator | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        check_callbacks(self.callbacks)
        if self.class_weight is not None:
            object.__setattr__(self, "class_weight", check_weights("class_weight", self.class_weight))

    def override(self, given: Mapping[str, Any]) -> Training:
        """Return these settings with those that were ``given`` in their place.

        What is not given keeps its default, and ``clip=None`` is given. ``epochs`` takes the place of ``steps``, and
        ``steps`` of ``epochs``; None for either says nothing. A number for ``lr`` keeps the shape of a schedule and
        scales its first value to the number; a schedule replaces it.

        Raises:
            ValueError: When both ``epochs`` and ``steps`` are given, or one is out of range, by its name.
            TypeError: When one is of another type, by its name.
        """
        changes = {name: value for name, value in given.items() if value is not None or name not in ("epochs", "steps")}
        if {"epochs", "steps"} <= changes.keys():
            raise ValueError(
                f"expected one of epochs and steps, but got epochs={changes['epochs']!r}, steps={changes['steps']!r}"
            )
        if changes.keys() & {"epochs", "steps"}:
            changes = {"epochs": None, "steps": None} | changes
        lr = changes.get("lr")
        if isinstance(self.lr, Schedule) and lr is not None and not callable(lr) and not isinstance(lr, Schedule):
            changes["lr"] = with_peak(self.lr, check_number("lr", lr, low=0))
        return replace(self, **changes)

    def options(self) -> TrainingOptions:
        """Return these settings as keywords."""
        return TrainingOptions(**{field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[typeddict-item]

    def phase(
        self,
        objective: Objective | Term,
        task: UnlearnTask,
        *,
        name: str,
        streams: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Phase:
        """Return a phase that trains so toward ``objective``.

        Args:
            objective: What is minimised.
            task: Gives the streams "forget" and "retain" that the objective reads.
            name: The phase's name, in logs and errors.
            streams: Other data sets, or others in place of the task's, by the name of their stream.
            **changes: Options of :class:`~unlearn_kit.engine.Phase` that differ, or that only a phase has.

        Raises:
            ValueError: As the phase does, naming the argument.
            TypeError: As the phase does, naming the argument.
        """
        own: dict[str, Any] = {**self.options(), **changes}
        if changes.keys() & {"epochs", "steps"}:
            own |= {"epochs": changes.get("epochs"), "steps": changes.get("steps")}
        apart = ("accelerator", "callbacks", "batch_size", "class_weight")
        settings = {key: value for key, value in own.items() if key not in apart}
        if own["class_weight"] is not None:
            option: Literal["weight", "pos_weight"] = "pos_weight" if task.kind == "multilabel" else "weight"
            objective = Objective((objective,) if isinstance(objective, Term) else objective.terms)
            objective = objective.with_class_weights(own["class_weight"], option)
        batch_size = sizes_for(own["batch_size"], objective)
        return Phase(
            objective, streams_for(task, objective, **(streams or {})), batch_size=batch_size, name=name, **settings
        )

    def fit(
        self,
        model: nn.Module,
        program: Phase | Alternate | Sequence[Phase | Alternate],
        *,
        seed: int,
        device: torch.device | str | None,
        watching: Sequence[Callback] = (),
    ) -> FitResult:
        """Train a copy of ``model`` through ``program``, watched by the caller's callbacks and then by ``watching``."""
        return fit(
            model,
            program,
            seed=seed,
            device=device,
            callbacks=(*self.callbacks, *watching),
            accelerator=self.accelerator,
        )


# What is said of each option wherever a method has it.
HELP: dict[str, str] = {
    "epochs": "Passes over the leading data, in place of ``steps``.",
    "steps": "Steps, in place of ``epochs``.",
    "batch_size": "Samples a step, of every stream or by stream.",
    "lr": "Learning rate; a number scales a default schedule, a schedule replaces it.",
    "optimizer": '"sgd", "adam", "adamw", or a function of the parameters that returns an optimiser.',
    "momentum": 'Of "sgd", in [0, 1).',
    "weight_decay": "Of the named optimisers, at least 0.",
    "clip": "Largest gradient norm; None for no bound.",
    "class_weight": "One weight a class, or a finding, in every term toward the data's own labels; None: all alike.",
    "batch_norm": '"frozen", "update" or "trained", as in ``engine.Phase``.',
    "trainable": 'What moves: "all", "head", "last:K" stages and the head, names of parameters, or a function.',
    "balance": 'How the gradients of two streams are combined: None, "nash", "pcgrad" or a ``Cone``.',
    "augment": "What changes samples whenever they are read, such as a transform of torchvision's v2; None: nothing.",
    "workers": "Processes that decode the data.",
    "accelerator": "An ``accelerate.Accelerator`` for mixed precision or several devices.",
    "callbacks": "What watches the training.",
}


def described(declared: Mapping[str, Training], without: Sequence[str]) -> Iterator[str]:
    """Yield one line an option for a docstring: its name, what it is, and its default or that of each preset."""
    for name, text in HELP.items():
        if name in without:
            continue
        defaults = {preset: getattr(training, name) for preset, training in declared.items()}
        distinct = list({repr(value): value for value in defaults.values()}.values())
        if len(distinct) == 1:
            told = f"Default: {distinct[0]!r}."
        else:
            told = "By preset: " + ", ".join(f"{value!r} ({preset})" for preset, value in defaults.items()) + "."
        yield f"{name}: {text} {told}"
