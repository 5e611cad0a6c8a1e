"""What every algorithm promises, kept in one place."""

from __future__ import annotations

import functools
import inspect
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from ..adapters.structure import plain_name
from ..arguments import check_type, checked, hints_of
from ..errors import check_choice
from ..heads import declare_head, head_name
from ..logits import answer, hook, unhook
from ..modules import blank_copy, check_device, check_model, device_of, drop_graphs
from ..outputs import check_classes
from ..results import UnlearnResult
from ..seeding import derive, isolated, refuse_inference_mode
from ..tasks import Kind, UnlearnTask
from .door import (
    check_sample,
    first_sample,
    raise_precision,
    restore_precision,
    told_if_unchanged,
    told_of_probabilities,
)
from .fit import FitResult
from .training import HELP, Training, TrainingOptions, described

P = ParamSpec("P")

# Not options of the method, but what it is applied to and watched by.
_NOT_CONFIG = ("model", "task", "callbacks", "accelerator")


@dataclass(frozen=True)
class Facts:
    """What there is to know of a method without running it.

    Attributes:
        source: Where it was published; the empty string for what has no single source.
        kinds: The kinds of task it works on; it refuses the others by name.
        reads_retain: Whether it needs the retain data.
        reinitializes: Whether it gives weights anew, so that frozen ones may change.
        training: How it trains, by preset; empty for a method that does not.
        fitting: Refuses options that are each in range and do not fit together; None where all do.
        reads_reference: Whether it is given models retrained without the forget data: a yardstick for audits, which is
            never ranked among the methods.
    """

    source: str
    kinds: tuple[Kind, ...]
    reads_retain: bool
    reinitializes: bool
    training: Mapping[str, Training]
    fitting: Callable[[Mapping[str, Any]], None] | None = None
    reads_reference: bool = False


@checked
def facts_of(algorithm: Callable[..., UnlearnResult]) -> Facts:
    """Return what a method declared of itself.

    Raises:
        TypeError: When ``algorithm`` was not made by :func:`revision`.
    """
    found = getattr(algorithm, "facts", None)
    if not isinstance(found, Facts):
        raise TypeError(f"expected algorithm to be made by engine.revision, but got {algorithm!r}")
    return found


@checked
def revision(
    training: Training | Mapping[str, Training] | None = None,
    *,
    without: Sequence[str] = (),
    source: str = "",
    masks: bool = True,
    findings: bool | None = None,
    reads_retain: bool = True,
    reinitializes: bool = False,
    fitting: Callable[[Mapping[str, Any]], None] | None = None,
    reads_reference: bool = False,
) -> Callable[[Callable[P, FitResult]], Callable[P, UnlearnResult]]:
    """Return a decorator that turns ``method(model, task, *, seed, device, ...) -> FitResult`` into an algorithm.

    The decorated function is called with a private copy of the model, on the device asked for and in eval mode: it may
    serve as the teacher, and training starts from a copy of it. The caller's model and random state stay as they
    are. The result has each module in the mode it was given in.

    A method that trains takes ``**options: Unpack[TrainingOptions]`` and makes ``Training(**options)`` of them. It is
    called with every option of its declaration, overridden by what the caller gave; its signature, its docstring (in
    the place of the line ``**options: ...``) and the result's ``config`` show each of them.

    Args:
        training: How the method trains; by preset, where its option ``preset`` decides (``"preset:kind"`` for one kind
            of task); None for a method that does not train.
        without: Names of training options that have no meaning for it: they are no options of it.
        source: Where it was published.
        masks: Whether it works on segmentation; else it must refuse by name.
        findings: Whether it works on multi-label tasks; else it must refuse by name (None: as on segmentation).
        reads_retain: Whether it needs the retain data.
        reinitializes: Whether it gives weights anew, so that frozen ones may change.
        fitting: Is given all options by name, with their defaults: before a method runs, and where a suite is planned.
            It refuses those that do not fit together, by name.
        reads_reference: Whether it is given retrained models, as its option ``references``.

    A run that changed no bit of the model warns (UserWarning) and says ``"unchanged"`` in the result's ``details``. The
    caller's gradient mode, default dtype and device and autocast change no bit.

    The algorithm raises a TypeError on an unknown option (naming the nearest), and on a model or task that is none; a
    ValueError in inference mode, on non-finite weights, before or after, and on a model whose output does not fit the
    task's classes.
    """
    declared = {"": training} if isinstance(training, Training) else dict(training or {})
    works: dict[Kind, bool] = {"segmentation": masks, "multilabel": masks if findings is None else findings}
    kinds: tuple[Kind, ...] = ("classification", *(kind for kind, does in works.items() if does))
    facts = Facts(source, kinds, reads_retain, reinitializes, declared, fitting, reads_reference)

    def decorate(method: Callable[P, FitResult]) -> Callable[P, UnlearnResult]:
        signature, shared = _signature(method, declared, without)
        hints = functools.cache(lambda: hints_of(method))

        @functools.wraps(method)
        def algorithm(*args: P.args, **kwargs: P.kwargs) -> UnlearnResult:
            for option in kwargs:
                _check_option(method.__name__, option, signature)
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                check_type(name, value, hints().get(name, Any))
            given_options = {name: bound.arguments.pop(name) for name in shared if name in bound.arguments}
            bound.apply_defaults()
            arguments = {name: value for name, value in bound.arguments.items() if name not in shared}
            refuse_inference_mode(method.__name__)
            given, task = check_model(arguments["model"]), arguments["task"]
            if not any(parameter.is_floating_point() for parameter in given.parameters()):
                kind = type(given).__name__
                raise ValueError(f"expected model to have floating-point parameters, but got none in {kind}")
            if not isinstance(task, UnlearnTask):
                raise TypeError(f"expected task to be an UnlearnTask, but got {type(task).__name__}")
            options = _resolved(declared, arguments, task).override(given_options).options() if declared else {}
            if fitting is not None:
                fitting(arguments | options)
            seed = arguments["seed"]
            device = device_of(given) if arguments["device"] is None else check_device(arguments["device"])
            with isolated(derive(seed, method.__name__)):
                model = blank_copy(given).to(device).eval()
                precisions = raise_precision(model)
                hook(model)
                _declare_found_head(model, _check_outputs(model, task))
                started = time.perf_counter()
                arguments |= {"model": model, "device": device}
                fitted = method(**arguments, **options)  # type: ignore[call-arg, arg-type]
                seconds = time.perf_counter() - started
            headless = not any("unlearn_kit_head" in vars(module) for module in given.modules())
            for module in fitted.model.modules():
                unhook(module)
                if headless:
                    vars(module).pop("unlearn_kit_head", None)
            drop_graphs(fitted.model)
            restore_precision(fitted.model, precisions)
            check_model(fitted.model, f"the model that {method.__name__} returns")
            _copy_modes(given, fitted.model)
            told = arguments | {name: value for name, value in options.items() if name in shared}
            config = {k: _plain(v) for k, v in told.items() if k not in _NOT_CONFIG}
            details = fitted.details | told_if_unchanged(method.__name__, given, fitted.model)
            return UnlearnResult(fitted.model, fitted.history, seconds, method.__name__, config, details)

        algorithm.__signature__ = signature  # type: ignore[attr-defined]
        algorithm.facts = facts  # type: ignore[attr-defined]
        algorithm.__doc__ = _docstring(method.__doc__ or "", declared, without)
        return algorithm

    return decorate


def _resolved(declared: Mapping[str, Training], arguments: Mapping[str, Any], task: UnlearnTask) -> Training:
    """Return the defaults of the preset that the caller chose, for the task's kind where it has its own."""
    if "" in declared:
        return declared[""]
    presets = [name for name in declared if ":" not in name]
    preset = check_choice("preset", arguments["preset"], presets)
    return declared.get(f"{preset}:{task.kind}", declared[preset])


def _signature(
    method: Callable[..., Any], declared: Mapping[str, Training], without: Sequence[str]
) -> tuple[inspect.Signature, tuple[str, ...]]:
    """Return the signature with every training option and its default, before the seed.

    And the names of these options.
    """
    own = inspect.signature(method)
    if not declared:
        return own.replace(return_annotation="UnlearnResult"), ()
    parameters = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    first = next(iter(declared.values()))
    hints = TrainingOptions.__annotations__
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(first, name),
            annotation=getattr(hints[name], "__forward_arg__", hints[name]),
        )
        for name in HELP
        if name not in without
    ]
    place = next(i for i, p in enumerate(parameters) if p.name == "seed")
    parameters[place:place] = shared
    return own.replace(parameters=parameters, return_annotation="UnlearnResult"), tuple(p.name for p in shared)


def _docstring(text: str, declared: Mapping[str, Training], without: Sequence[str]) -> str:
    """Return the docstring with a line for every training option in the place of ``**options: ...``."""
    line = re.search(r"^( *)\*\*options:.*\n", text, re.MULTILINE)
    if line is None or not declared:
        return text
    lines = "".join(f"{line[1]}{entry}\n" for entry in described(declared, without))
    return text[: line.start()] + lines + text[line.end() :]


def _check_option(method: str, option: str, signature: inspect.Signature) -> None:
    if option not in signature.parameters:
        try:
            check_choice(f"option of {method}", option, [n for n in signature.parameters if n not in ("model", "task")])
        except ValueError as error:
            raise TypeError(str(error)) from None


def _check_outputs(model: nn.Module, task: UnlearnTask) -> Tensor:
    """Return the first input to forget, on which the model's outputs were found to fit the task."""
    # The first sample by itself: to plan an order over a large data set takes seconds.
    x, y = first_sample(task.forget)
    check_sample(model, task.forget, "forget")
    x = x.to(device_of(model))
    with torch.no_grad():
        logits = answer(model, x)
    check_classes(logits, task.num_classes, task.kind)
    told_of_probabilities(model, task, logits)
    pixels = y.dim() - logits.dim() + 2
    if task.kind == "segmentation" and y.shape[1:pixels].numel() != 1:
        raise ValueError(
            f"expected the masks of task to hold one class index a pixel, but got shape {tuple(y.shape)} for "
            f"outputs of shape {tuple(logits.shape)}; argmax over the channels makes indices of one-hot masks"
        )
    size = y.shape[pixels:] if task.kind == "segmentation" else torch.Size()
    if logits.shape[2:] != size:
        raise ValueError(
            f"expected model to decide for targets of shape {tuple(y.shape)}, but got outputs of shape "
            f"{tuple(logits.shape)}; models.with_output takes a function that brings them to size"
        )
    return x


def _declare_found_head(model: nn.Module, x: Tensor) -> None:
    """Let a method that needs the head find it without data; one that does says so itself where there is none."""
    with suppress(ValueError):
        declare_head(model, head_name(model, x))


def _copy_modes(source: nn.Module, target: nn.Module) -> None:
    """Put each module of ``target`` into the mode of its namesake; those a method added follow the whole model."""
    modes = {name: module.training for name, module in source.named_modules()}
    for name, module in target.named_modules():
        module.training = modes.get(name, modes.get(plain_name(name), source.training))


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold, the same in every process."""
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, nn.Module):
        return type(value).__name__
    # The name of a function; no addresses in anything else.
    return getattr(value, "__qualname__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
