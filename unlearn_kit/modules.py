"""Small questions about a ``torch.nn.Module``: copies, modes, batch norm, bodies and heads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from .errors import check_choice, check_count
from .outputs import check_finite

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer (the CPU when it has none)."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode whose parameters take no gradient: a teacher that cannot move."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in eval mode, and every module back into its own mode on leaving."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield model
    finally:
        for module in training:
            module.training = True


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return all batch-norm layers of ``model``."""
    return [module for module in model.modules() if isinstance(module, BATCH_NORM)]


def cpu_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a detached copy of the model's ``state_dict`` on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def same_state(model: nn.Module, other: nn.Module) -> bool:
    """Return whether two models hold the same bits under the same names."""
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(tensor.to(theirs[name].device), theirs[name]) for name, tensor in mine.items()
    )


def check_model(model: object, name: str = "model") -> nn.Module:
    """Return ``model`` when it is a module whose parameters and buffers are finite.

    Raises:
        TypeError: When it is no ``nn.Module``.
        ValueError: Naming the tensor that is not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected {name} to be a torch.nn.Module, but got {type(model).__name__}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            check_finite(f"{name}'s {key!r}", tensor)
    return model


def declare_head(model: nn.Module, head: str) -> nn.Module:
    """Declare the submodule ``head`` (a dotted name) as the model's head; everything else is its body.

    Composition, layer-freezing and restoration need to know which is which. Returns ``model``.

    Raises:
        ValueError: When ``model`` has no such submodule.
    """
    names = [name for name, _ in model.named_modules() if name]
    if head not in names:
        raise ValueError(f"expected head to be a submodule of {type(model).__name__}, one of {names}, but got {head!r}")
    model.unlearn_kit_head = head  # type: ignore[assignment]
    return model


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the declared head, looked up through wrappers.

    Raises:
        ValueError: When none is declared, saying how to.
    """
    for prefix, module in model.named_modules():
        # Not getattr: a wrapper that forwards attributes would claim the head of the model inside.
        head = vars(module).get("unlearn_kit_head")
        if head is not None:
            return f"{prefix}.{head}" if prefix else str(head)
    raise ValueError(
        f"{type(model).__name__} does not declare which submodule is its head; "
        "call unlearn_kit.models.declare_head(model, 'name') once"
    )


def head_parameters(model: nn.Module) -> list[str]:
    """Return names of the parameters of the declared head."""
    head = head_name(model)
    return [name for name, _ in model.named_parameters() if name.startswith(head + ".")]


def last_blocks(model: nn.Module, k: int) -> list[str]:
    """Return the names of the last ``k`` modules that own parameters (or all), and after them the head's.

    Modules come in the order in which the network registers them, a convolution and its batch norm as two. The head is
    the declared one, or else the last such module. What the network itself owns belongs to no module.

    Raises:
        TypeError: When ``k`` is no int of at least 0, and when there is no such module.
        ValueError: When ``k`` is no int of at least 0, and when there is no such module.
    """
    check_count("k", k, low=0)
    owners = [name for name in dict.fromkeys(key.rpartition(".")[0] for key, _ in model.named_parameters()) if name]
    if not owners:
        raise ValueError(f"expected {type(model).__name__} to have modules that own parameters, but got none")
    try:
        head = head_name(model)
    except ValueError:
        head = owners[-1]
    body = [name for name in owners if not f"{name}.".startswith(f"{head}.")]
    return [*body[max(0, len(body) - k) :], head]


def parameters_under(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """Return names of the parameters of the submodules ``modules`` (dotted names), in the model's order.

    Raises:
        TypeError: On a string in place of names.
        ValueError: On a name the model does not have, and when there is no parameter.
    """
    if isinstance(modules, str):
        raise TypeError(f"expected a sequence of names of submodules, but got the string {modules!r}")
    known = [name for name, _ in model.named_modules() if name]
    for name in modules:
        check_choice(f"submodule of {type(model).__name__}", name, known)
    found = [name for name, _ in model.named_parameters() if any(name.startswith(f"{module}.") for module in modules)]
    if not found:
        raise ValueError(f"expected submodules that own parameters, but got {list(modules)}")
    return found
