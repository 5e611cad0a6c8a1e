"""One method tried on one task: a result, or the reason why there is none."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

import algorithms
from unlearn_kit import DivergenceError, UnlearnResult, UnlearnTask
from unlearn_kit.engine import Callback, ProgressBar
from unlearn_kit.errors import check_choice

Status = Literal["ok", "n/a", "diverged"]
METHODS = tuple(name for name in algorithms.__all__ if name != "retrain")


@dataclass(frozen=True)
class Method:
    """An algorithm by name, with options: ``name``, ``name:preset``, ``name:option=value:option=value``.

    Values are numbers, True, False, None, or else text.

    Raises: ValueError on an unknown name, on "retrain" (it is the reference), on an option the method does not take.
    """

    text: str

    def __post_init__(self) -> None:
        if self.name == "retrain":
            raise ValueError("expected methods without 'retrain', which is always shown as the reference")
        check_choice("every method", self.name, METHODS)
        known = inspect.signature(getattr(algorithms, self.name)).parameters
        for option in self.options:
            if option == "preset" and option not in known:
                raise ValueError(f"expected {self.name!r} without a preset, since it has none, but got {self.text!r}")
            check_choice(f"every option of {self.name!r}", option, [n for n in known if n not in ("model", "task")])

    @property
    def name(self) -> str:
        """The function's name in ``algorithms``."""
        return self.text.partition(":")[0]

    @property
    def options(self) -> dict[str, Any]:
        """What is passed on to it."""
        options: dict[str, Any] = {}
        for part in self.text.split(":")[1:]:
            key, equals, value = part.partition("=")
            if equals:
                options[key] = _value(value)
            else:
                options["preset"] = part
        return options


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Attempt:
    """What came of a method: ``result`` where the status is "ok", else the ``reason``."""

    status: Status
    result: UnlearnResult | None = None
    reason: str | None = None


def attempt(
    method: Method,
    model: nn.Module,
    task: UnlearnTask,
    *,
    seed: int,
    device: str,
    show: str | None = None,
    **options: Any,
) -> Attempt:
    """Run ``method``. A refusal (ValueError, TypeError) and a divergence are outcomes; all else is raised.

    Args:
        method: what is run.
        model, task, seed, device: passed on.
        show: the text beside a progress bar; None for no bar.
        **options: passed on.
    """
    function = getattr(algorithms, method.name)
    watching = watchers(show) if "callbacks" in inspect.signature(function).parameters else []
    if watching:
        options["callbacks"] = watching
    try:
        return Attempt("ok", function(model, task, seed=seed, device=device, **method.options, **options))
    except DivergenceError as error:
        return Attempt("diverged", reason=str(error))
    except (ValueError, TypeError) as error:
        return Attempt("n/a", reason=str(error))


def watchers(show: str | None) -> list[Callback]:
    """What tells on standard error that ``show`` is being trained: a progress bar on a terminal, elsewhere one line."""
    if show is None:
        return []
    if sys.stderr.isatty():
        return [ProgressBar(show)]
    sys.stderr.write(f"{show} ...\n")
    sys.stderr.flush()
    return []
