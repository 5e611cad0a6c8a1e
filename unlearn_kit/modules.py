"""Small questions about a ``torch.nn.Module``: whether it can be used here, copies, modes, batch norm."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .outputs import check_finite

BATCH_NORM = nn.modules.batchnorm._BatchNorm
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer (the CPU when it has none)."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def check_device(device: object, *, meta: bool = False) -> torch.device:
    """Return ``device`` as a ``torch.device`` that can be used here; "meta", which holds no numbers, where asked for.

    Raises:
        TypeError: When it is no name, index or ``torch.device``.
        ValueError: When there is no such device, or it holds no numbers (meta).
    """
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(f"expected device to be a name or a torch.device, but got {type(device).__name__}: {device!r}")
    try:
        torch.empty(0, device=device)
        found = torch.device(device)
    except (AssertionError, RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"expected device to be usable here, as 'cpu' is, but got {device!r}: {reason}") from error
    if found.type == "meta" and not meta:
        raise ValueError("expected device to hold numbers, but got 'meta'")
    return found


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode whose parameters take no gradient: a teacher that cannot move."""
    return blank_copy(model).eval().requires_grad_(False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in eval mode; on leaving, every module is in its own mode again, and buffers are as they were.

    Some modules write into their buffers in eval mode, too: counters of calls, caches, observers of ranges.
    """
    training = [module for module in model.modules() if module.training]
    written = [_Kept(module._buffers, name, b) for module in model.modules() for name, b in module._buffers.items()]
    model.eval()
    try:
        yield model
    finally:
        for module in training:
            module.training = True
        for kept in written:
            kept.restore()


class _Kept:
    """A buffer as it was."""

    def __init__(self, owner: dict[str, torch.Tensor | None], name: str, buffer: torch.Tensor | None) -> None:
        self.owner, self.name, self.buffer = owner, name, buffer
        self.tracked = buffer if buffer is not None and not buffer.is_inference() else None  # others cannot be written
        self.version = 0 if self.tracked is None else self.tracked._version
        self.values = None if self.tracked is None else self.tracked.detach().clone()

    def restore(self) -> None:
        """Put the buffer back in its place, with its values."""
        self.owner[self.name] = self.buffer
        if self.tracked is not None and self.values is not None and self.tracked._version != self.version:
            self.tracked.data.copy_(self.values)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return all batch-norm layers of ``model``."""
    return [module for module in model.modules() if isinstance(module, BATCH_NORM)]


def check_own_weight(name: str, layer: nn.Module, method: str) -> None:
    """Refuse a layer whose weight is computed when it runs, so that setting it would not last.

    Raises:
        ValueError: Naming the layer.
    """
    if not isinstance(layer._parameters.get("weight"), nn.Parameter):
        raise ValueError(
            f"expected layers of model whose weight is a parameter for {method}, but that of {name!r} "
            f"({type(layer).__name__}) is computed, as by weight or spectral norm or pruning"
        )


def cpu_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a detached copy of the model's ``state_dict`` on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def same_state(model: nn.Module, other: nn.Module) -> bool:
    """Return whether two models hold the same bits under the same names."""
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(tensor.to(theirs[name].device), theirs[name]) for name, tensor in mine.items()
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside what ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` made of it."""
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif isinstance(vars(model).get("_modules", {}).get("_orig_mod"), nn.Module):  # what torch.compile returns
            model = model.get_submodule("_orig_mod")
        else:
            return model


def check_model(model: object, name: str = "model") -> nn.Module:
    """Return the plain network that ``model`` is or wraps, when it can be trained and measured here.

    Raises:
        TypeError: When it is no ``nn.Module``, or TorchScript.
        ValueError: When it has tensors without values (meta or lazy), or is quantised, or keeps state that is no
            tensor; naming the tensor that is not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected {name} to be a torch.nn.Module, but got {type(model).__name__}")
    model = unwrapped(model)
    for place, module in model.named_modules():
        where = f"{type(module).__name__} at {place!r}" if place else type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"expected {name} to be a torch.nn.Module in Python, but got TorchScript: {where}")
        if ".quantized." in f"{type(module).__module__}.":
            raise ValueError(f"expected {name} in floating point, but got a quantised module: {where}")
        if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):  # It raises.
            raise TypeError(
                f"expected {name} to be a torch.nn.Module in Python, but got what torch.export made: {where}"
            )
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(
                f"expected {name} to keep all of its state in tensors, but got get_extra_state() of {where}"
            )
    stored = model.state_dict()
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"expected {name} with weights, but got lazy {key!r}: call it on a batch of inputs first")
        if tensor.is_meta:
            raise ValueError(f"expected {name} with weights, but got {key!r} on the meta device, which holds none")
        if tensor.is_quantized:
            raise ValueError(f"expected {name} in floating point, but got {key!r} of {tensor.dtype}")
        if tensor.is_floating_point() and key in stored:  # Others are constants, such as a mask of -inf.
            check_finite(f"{name}'s {key!r}", stored[key])
    return model


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that a function of the caller's makes.

    Raises:
        TypeError: When it is a network itself, or makes none.
        ValueError: As :func:`check_model`.
    """
    if isinstance(build, nn.Module):
        raise TypeError(f"expected build to be a function that makes a network, but got {type(build).__name__}")
    return check_model(build(), "what build returns")


def blank_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of the plain network without gradients and graphs: what modules keep of a call is detached."""
    model = unwrapped(model)
    memo: dict[int, Any] = {id(p.grad): None for p in model.parameters() if p.grad is not None}
    for module in model.modules():
        for tensor in _kept(vars(module)):
            memo[id(tensor)] = tensor.detach().clone()
    made: nn.Module = copy.deepcopy(model, memo)
    return made


def around_same_tensors(model: nn.Module) -> nn.Module:
    """Return a copy of the modules alone, around the same parameters and buffers.

    What modules keep of a call inside ``torch.func``, which is of no use afterwards and cannot be copied, goes with it.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    memo |= {id(tensor): None for module in model.modules() for tensor in _kept(vars(module))}
    made: nn.Module = copy.deepcopy(model, memo)
    return made


def drop_graphs(model: nn.Module) -> None:
    """Detach what modules keep of their last call, in place."""
    for module in model.modules():
        for name, value in vars(module).items():
            vars(module)[name] = _detached(value)


def _detached(value: Any, depth: int = 3) -> Any:
    if not any(True for _ in _kept(value, depth)):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        value.update({key: _detached(part, depth - 1) for key, part in value.items()})
        return value
    parts = [_detached(part, depth - 1) for part in value]
    return parts if isinstance(value, list) else type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _kept(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    """Yield the tensors with a graph among the attributes of a module, and in lists and dicts of them."""
    if isinstance(value, torch.Tensor):
        if value.requires_grad and not value.is_leaf:
            yield value
    elif depth and isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _kept(part, depth - 1)
