"""The stages of a network: the parts that follow each other, such as the blocks before its head."""

from __future__ import annotations

import re

from torch import nn

from .arguments import checked
from .heads import head_name, inside_wrappers, parameters_under

LAST = re.compile(r"last:(\d+)")
CHOICES = "'all', 'head' or 'last:K', which is the head with the K stages before it"


def check_part(name: str, text: str) -> str:
    """Return ``text`` when it says a part of a network: "all", "head" or "last:K".

    Raises:
        ValueError: When it says none, by ``name``.
    """
    if text not in ("all", "head") and not LAST.fullmatch(text):
        raise ValueError(f"expected {name} to be {CHOICES}, names of parameters or a function, but got {text!r}")
    return text


@checked
def stages(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the stages of ``model``, in the order in which it registers them, each as the names of its modules.

    A stage is a child of the network that owns parameters. A child that holds more than half of all layers is no stage
    but the trunk, and its own children are stages, as are those of one that holds the head; what has no matrices, such
    as batch norm, belongs to the stage before it. The head is none of them.

    Raises:
        ValueError: When the network has no known head (see :func:`.declare_head`).
    """
    head = head_name(model)
    prefix, network = inside_wrappers(model)
    found: list[tuple[str, ...]] = []
    for name, module in _parts(network, prefix, _layers(network), head):
        if found and all(p.dim() < 2 for p in module.parameters()):
            found[-1] += (name,)
        else:
            found.append((name,))
    return found


@checked
def parameters_of(model: nn.Module, part: str) -> list[str]:
    """Return the names of the parameters of a part of ``model``: "all", "head", or "last:K" stages with the head.

    With fewer stages than K, "last:K" is all of them.

    Raises:
        ValueError: When it says none of these, or the network has no known head (see :func:`.declare_head`).
    """
    if check_part("part", part) == "all":
        return [name for name, _ in model.named_parameters()]
    count = 0 if part == "head" else int(part.removeprefix("last:"))
    chosen = [name for stage in (stages(model)[-count:] if count else []) for name in stage]
    return parameters_under(model, [*chosen, head_name(model)])


def _layers(module: nn.Module) -> int:
    """Return how many modules in ``module``, itself included, own parameters."""
    return sum(next(one.parameters(recurse=False), None) is not None for one in module.modules())


def _parts(module: nn.Module, name: str, layers: int, head: str) -> list[tuple[str, nn.Module]]:
    found = []
    for own, child in module.named_children():
        full = f"{name}.{own}" if name else own
        inside = _layers(child)
        if full == head or not inside:
            continue
        if (2 * inside > layers and inside > 1) or head.startswith(f"{full}."):
            found += _parts(child, full, layers, head)
        else:
            found.append((full, child))
    return found
