"""What every algorithm promises, kept in one place."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import torch
from torch import nn

from ..data.tensors import in_order
from ..errors import check_choice
from ..modules import check_model, device_of
from ..results import UnlearnResult
from ..seeding import derive, isolated
from ..tasks import UnlearnTask
from .fit import FitResult

P = ParamSpec("P")

# Not options of the method, but what it is applied to and watched by.
_NOT_CONFIG = ("model", "task", "callbacks", "accelerator")


def revision(method: Callable[P, FitResult]) -> Callable[P, UnlearnResult]:
    """Turn ``method(model, task, *, seed, device, ...) -> FitResult`` into an algorithm.

    The decorated function is called with a private copy of the model, on the device asked for and in eval mode: it may
    serve as the teacher, and training starts from a copy of it. The caller's model and random state stay as they
    are. The result has each module in the mode it was given in.

    Raises: TypeError on an unknown option (naming the nearest), on a model or task that is none; ValueError on
        non-finite weights, before or after, and on a model whose output does not fit the task's classes.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def algorithm(*args: P.args, **kwargs: P.kwargs) -> UnlearnResult:
        for option in kwargs:
            _check_option(method.__name__, option, signature)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given, task = check_model(bound.arguments["model"]), bound.arguments["task"]
        if not isinstance(task, UnlearnTask):
            raise TypeError(f"expected task to be an UnlearnTask, but got {type(task).__name__}")
        seed, device = bound.arguments["seed"], torch.device(bound.arguments["device"] or device_of(given))
        with isolated(derive(seed, method.__name__)):
            model = copy.deepcopy(given).to(device).eval()
            _check_outputs(model, task)
            started = time.perf_counter()
            bound.arguments |= {"model": model, "device": device}
            fitted = method(*bound.args, **bound.kwargs)
            seconds = time.perf_counter() - started
        check_model(fitted.model, f"the model that {method.__name__} returns")
        _copy_modes(given, fitted.model)
        config = {k: _plain(v) for k, v in bound.arguments.items() if k not in _NOT_CONFIG}
        return UnlearnResult(fitted.model, fitted.history, seconds, method.__name__, config, fitted.details)

    return algorithm


def _check_option(method: str, option: str, signature: inspect.Signature) -> None:
    if option not in signature.parameters:
        try:
            check_choice(f"option of {method}", option, [n for n in signature.parameters if n not in ("model", "task")])
        except ValueError as error:
            raise TypeError(str(error)) from None


def _check_outputs(model: nn.Module, task: UnlearnTask) -> None:
    x, _ = next(in_order(task.forget, batch_size=1, device=device_of(model)))
    with torch.no_grad():
        logits = model(x)
    widths = (1, 2) if task.num_classes == 2 else (task.num_classes,)
    if logits.dim() < 2 or logits.shape[1] not in widths:
        raise ValueError(
            f"expected model to have {task.num_classes} outputs, one a class of the task, "
            f"but got outputs of shape {tuple(logits.shape)}"
        )


def _copy_modes(source: nn.Module, target: nn.Module) -> None:
    """Each module of ``target`` into the mode of its namesake; modules a method added follow the whole model."""
    modes = {name: module.training for name, module in source.named_modules()}
    for name, module in target.named_modules():
        module.training = modes.get(name, source.training)


def _plain(value: Any) -> Any:
    """A value that JSON can hold, the same in every process."""
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
