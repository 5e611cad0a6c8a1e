"""Which part of what a network returns its logits are.

Networks return a tensor, or a dict, a tuple or an output object of their library that holds the logits among other
things, some of them in training alone. Everything here that trains or measures sees logits: hooks at the root of the
network cast its inputs to its precision and take the logits out of what it returns. No module is put around it, so that
the names in its ``state_dict`` stay; the hooks are gone from what users get back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from .arguments import checked

Output = str | int | Callable[[Any], Tensor]

# What segmentation networks (torchvision) and output objects (transformers) call them.
KEYS = ("logits", "out")
# Libraries whose networks return the logits first, whatever follows.
FIRST = ("segmentation_models_pytorch",)
HALVES = (torch.float16, torch.bfloat16)


@checked
def with_output(model: nn.Module, output: Output) -> nn.Module:
    """Declare which part of what ``model`` returns its logits are; it goes on returning what it does.

    Where it returns a tensor all the same, such as in eval mode, that is the logits.

    Args:
        model: Any network.
        output: A key of a dict or an attribute of an output object, a place in a tuple, or a function of what is
            returned.

    Returns:
        ``model``.

    Raises:
        TypeError: When ``output`` is something else, or ``model`` no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")
    if isinstance(output, bool) or not (isinstance(output, (str, int)) or callable(output)):
        raise TypeError(
            f"expected output to be a key, a place or a function of what the model returns, but got {output!r}"
        )
    vars(model)["unlearn_kit_output"] = output
    return model


def declared_output(model: nn.Module) -> Output | None:
    """Return what :func:`with_output` declared on ``model`` or on a network inside it; None where it did not."""
    # Not getattr: a wrapper that forwards attributes would claim what the model inside declares.
    declared = (vars(module).get("unlearn_kit_output") for module in model.modules())
    output: Output | None = next((output for output in declared if output is not None), None)
    if output is None and type(model).__module__.partition(".")[0] in FIRST:
        return 0
    return output


def logits_in(returned: Any, output: Output | None = None) -> Tensor:
    """Return the logits in what a network returned.

    Args:
        returned: A tensor; a mapping with a key of :data:`KEYS`; a sequence of which one entry, or the first of several
            of one shape, can be logits.
        output: What was declared; None to look for them.

    Raises:
        ValueError: When they cannot be told, saying what came and what to declare.
    """
    found: Any = None
    if output is not None and not isinstance(output, (str, int)):
        found = output(returned)
    elif isinstance(returned, Tensor):
        return returned
    elif isinstance(output, str):
        found = returned.get(output) if isinstance(returned, Mapping) else getattr(returned, output, None)
    elif output is not None:
        parts = list(returned.values()) if isinstance(returned, Mapping) else returned
        found = parts[output] if isinstance(parts, (tuple, list)) and -len(parts) <= output < len(parts) else None
    elif isinstance(returned, Mapping):
        found = next((returned[key] for key in KEYS if key in returned), None)
    elif isinstance(returned, (tuple, list)):
        candidates = [part for part in returned if could_be_logits(part)]
        if candidates and all(part.shape == candidates[0].shape for part in candidates):
            found = candidates[0]
    if isinstance(found, Tensor):
        return found
    asked = f"where models.with_output declares {output!r}, " if output is not None else ""
    raise ValueError(
        f"expected the model to return logits (B, C, ...), but got {described(returned)}; {asked}"
        "models.with_output(model, ...) declares the key, the place or a function that gives the logits"
    )


def could_be_logits(part: Any) -> bool:
    """Return whether ``part`` of an output is floating point of shape ``(B, C, ...)``."""
    return isinstance(part, Tensor) and part.is_floating_point() and part.dim() >= 2


def described(returned: Any) -> str:
    """Return a short text for what a network returned, with the shapes of tensors."""
    if isinstance(returned, Tensor):
        return f"{str(returned.dtype).removeprefix('torch.')} {tuple(returned.shape)}"
    if isinstance(returned, Mapping):
        return f"{type(returned).__name__}({', '.join(f'{k!r}: {described(v)}' for k, v in returned.items())})"
    if isinstance(returned, (tuple, list)):
        return f"{type(returned).__name__}({', '.join(map(described, returned))})"
    return type(returned).__name__


def answer(model: nn.Module, x: Tensor) -> Any:
    """Return what ``model`` returns for ``x``.

    Raises:
        ValueError: When it cannot be called so, with what it raised.
    """
    try:
        return model(x)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        mode = "training" if model.training else "eval"
        raise ValueError(
            f"expected the model to run in {mode} mode on inputs {described(x)}, but it raised {error!r}"
        ) from error


def precision_of(model: nn.Module) -> torch.dtype:
    """Return the dtype of the first floating-point parameter or buffer (float32 where there is none)."""
    # One after the other: this is asked at every call of a network, which may hold hundreds.
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def check_inputs(x: Tensor) -> Tensor:
    """Return ``x`` when it is floating point.

    Raises:
        TypeError: When it is not: pixels in 0..255 that nothing has scaled.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"expected inputs to be floating point, images in [0, 1], but got {x.dtype}; "
            "data.TensorImages(images, targets) holds uint8 images and yields them so"
        )
    return x


def _cast_inputs(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a copy of the inputs in the model's precision, since some networks write into theirs; before a call."""
    precision = precision_of(model)
    return tuple(check_inputs(part).to(precision, copy=True) if isinstance(part, Tensor) else part for part in inputs)


def _take_logits(model: nn.Module, _: Any, returned: Any) -> Tensor:
    """Return the logits, half precision as float32; a hook after a call."""
    # The root's own: it was settled once, and to look through all modules at every call takes long.
    logits = logits_in(returned, vars(model)["unlearn_kit_hooked"])
    if not logits.is_floating_point():
        raise ValueError(f"expected the model to return logits in floating point, but got {described(logits)}")
    return logits.float() if logits.dtype in HALVES else logits


def hooked(model: nn.Module) -> bool:
    """Return whether calls of ``model`` give logits."""
    return "unlearn_kit_hooked" in vars(model)


def hook(model: nn.Module, output: Output | None = None) -> None:
    """Let calls of ``model`` give logits, by ``output`` or else by what is declared or found."""
    unhook(model)
    vars(model)["unlearn_kit_hooked"] = declared_output(model) if output is None else output
    model.register_forward_pre_hook(_cast_inputs)
    model.register_forward_hook(_take_logits)


def unhook(model: nn.Module) -> Output | None:
    """Let calls of ``model`` return what they did, networks inside it stay as they are; return where its logits are."""
    output: Output | None = vars(model).pop("unlearn_kit_hooked", None)
    for hooks, own in ((model._forward_pre_hooks, _cast_inputs), (model._forward_hooks, _take_logits)):
        for key in [key for key, function in hooks.items() if function is own]:
            cast(dict[int, Any], hooks).pop(key)
    return output


@contextmanager
def giving_logits(*models: nn.Module) -> Iterator[None]:
    """While open, calls of ``models`` give logits; those that do already are left as they are."""
    with ExitStack() as stack:
        for model in models:
            if not hooked(model):
                hook(model)
                stack.callback(unhook, model)
        yield
