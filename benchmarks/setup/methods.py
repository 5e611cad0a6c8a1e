"""One method tried on one task: a result, or the reason why there is none."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

import algorithms
from unlearn_kit import DivergenceError, UnlearnResult, UnlearnTask
from unlearn_kit.arguments import check_type, hints_of
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.engine import Callback, ProgressBar, facts_of
from unlearn_kit.errors import check_choice
from unlearn_kit.evidence.receipt import written

Status = Literal["ok", "n/a", "diverged"]
# Of the methods, those that are given retrained models are a yardstick, run where they are named and never ranked.
YARDSTICKS = tuple(name for name in algorithms.__all__ if facts_of(getattr(algorithms, name)).reads_reference)
METHODS = tuple(name for name in algorithms.__all__ if name not in ("retrain", *YARDSTICKS))
MAX_VALUE = 1000  # characters of a text that is read as a value


@dataclass(frozen=True)
class Method:
    """An algorithm by name, with options: ``name``, ``name:preset``, ``name:option=value:option=value``.

    Values are numbers, True, False, None, or else text.

    Raises:
        ValueError: On an unknown name, on "retrain" (it is the reference), on an option the method does not take.
    """

    text: str

    def __post_init__(self) -> None:
        check_method(self.name)
        if "preset" in self.options and "preset" not in known_options(self.name):
            raise ValueError(f"expected {self.name!r} without a preset, since it has none, but got {self.text!r}")
        for option in self.options:
            check_option(self.name, option)
        check_values(self.name, self.options)

    @property
    def name(self) -> str:
        """Return the function's name in ``algorithms``."""
        return self.text.partition(":")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Return what is passed on to it."""
        options: dict[str, Any] = {}
        for part in self.text.split(":")[1:]:
            key, equals, value = part.partition("=")
            if equals:
                options[key] = value_of(value)
            else:
                options["preset"] = part
        return options


@dataclass(frozen=True)
class Variant:
    """An algorithm with options as values, where a text could not hold them.

    Raises:
        ValueError: On an unknown name, on "retrain", on an option the method does not take.
    """

    name: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_method(self.name)
        for option in self.options:
            check_option(self.name, option)
        check_values(self.name, self.options)

    @property
    def text(self) -> str:
        """Return how it is written in tables: ``name:option=value``, the preset by its name alone."""
        parts = [str(v) if k == "preset" else f"{k}={_short(v)}" for k, v in self.options.items()]
        return ":".join([self.name, *parts])


def check_method(name: str) -> str:
    """Return ``name`` when it is a method, or a yardstick.

    Raises:
        ValueError: When it is none, suggesting the nearest.
    """
    if name == "retrain":
        raise ValueError("expected methods without 'retrain', which is always shown as the reference")
    return name if name in YARDSTICKS else check_choice("every method", name, METHODS)


def check_option(method: str, option: str) -> str:
    """Return ``option`` when ``method`` takes it.

    Raises:
        ValueError: When it does not, suggesting the nearest.
    """
    return check_choice(f"every option of {method!r}", option, known_options(method))


def check_values(method: str, options: Mapping[str, Any]) -> None:
    """Refuse values that an option of ``method`` cannot have, before anything runs.

    Options of training are held against what the engine takes, all others against their annotations, and all together
    against what the method says of them, as at every call.

    Raises:
        ValueError: When one is refused, naming the option.
    """
    if not options:
        return
    function = getattr(algorithms, method)
    given, own, facts = as_options(options), _own_options(function), facts_of(function)
    presets = [name for name in facts.training if ":" not in name]  # Others are for one kind of task.
    chosen = {name: p.default for name, p in inspect.signature(function).parameters.items()} | given
    try:
        for option, value in given.items():
            if option in own:
                check_type(option, value, own[option])
        if presets:
            preset = check_choice("preset", given.get("preset", presets[0]), presets)
            trained = {option: value for option, value in given.items() if option not in own}
            chosen |= facts.training[preset].override(trained).options()
        if facts.fitting is not None:
            facts.fitting(chosen)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{error} (an option of {method!r})") from error


@functools.cache  # by the function: a name may come to stand for another
def _own_options(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotation of every option that a method does not share with all that train."""
    hints = hints_of(function)
    return {option: hints[option] for option in inspect.signature(function).parameters if option in hints}


def as_options(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a method takes them: a mapping under ``search`` becomes a ``PerturbedSign``.

    Raises:
        ValueError: When it does not describe one.
    """
    given = dict(plain)
    if isinstance(given.get("search"), Mapping):
        try:
            given["search"] = PerturbedSign(**given["search"])
        except TypeError as error:
            raise ValueError(f"expected search to hold the options of PerturbedSign, but got {error}") from None
    return given


def forms_of(method: str, option: str, value: Any) -> list[Any]:
    """Return how a receipt may tell a value of an option: as it was given, or as a method that trains takes it.

    A number for a learning rate scales the schedule of the method, and is told as that schedule.
    """
    given = as_options({option: value})[option]
    taken = [
        getattr(training.override({option: given}), option)
        for training in facts_of(getattr(algorithms, method)).training.values()
        if option in training.options()
    ]
    return [written(form) for form in (given, *taken)]


def known_options(method: str) -> tuple[str, ...]:
    """Return what can be passed to a method beside the model and the task."""
    return tuple(n for n in inspect.signature(getattr(algorithms, method)).parameters if n not in ("model", "task"))


def value_of(text: str) -> Any:
    """Return the number, True, False, None, list or tuple that ``text`` writes, or else the text."""
    if len(text) > MAX_VALUE:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # The last two of brackets without end.
        return text


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_short(item)}" for key, item in value.items()) + "}"
    return str(value)


@dataclass(frozen=True)
class Attempt:
    """What came of a method: ``result`` where the status is "ok", else the ``reason``."""

    status: Status
    result: UnlearnResult | None = None
    reason: str | None = None


def attempt(
    method: Method | Variant,
    model: nn.Module,
    task: UnlearnTask,
    *,
    seed: int,
    device: str,
    show: str | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Attempt:
    """Run ``method``.

    A refusal (ValueError, TypeError) and a divergence are outcomes; all else is raised.

    Args:
        method: What is run.
        model: The original.
        task: What it shall forget.
        seed: Of the unlearning.
        device: Where it runs.
        show: The text beside a progress bar; None for no bar.
        callbacks: What watches the method, where it can be watched.
        **options: What else is passed on.

    Returns:
        The result, or the reason why there is none.
    """
    function = getattr(algorithms, method.name)
    watching = [*watchers(show), *callbacks] if "callbacks" in known_options(method.name) else []
    if watching:
        options["callbacks"] = watching
    try:
        return Attempt("ok", function(model, task, seed=seed, device=device, **method.options, **options))
    except DivergenceError as error:
        return Attempt("diverged", reason=str(error))
    except (ValueError, TypeError) as error:
        return Attempt("n/a", reason=str(error))


def watchers(show: str | None) -> list[Callback]:
    """Return what tells on standard error that ``show`` is being trained; nothing for None.

    On a terminal that is a progress bar, elsewhere one line, written at once.
    """
    if show is None:
        return []
    if sys.stderr.isatty():
        return [ProgressBar(show)]
    sys.stderr.write(f"{show} ...\n")
    sys.stderr.flush()
    return []
