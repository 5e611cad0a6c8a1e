"""Several models, tensor by tensor: do they match, what is merged and how it is done in little memory.

Floating-point parameters and buffers are merged; running statistics of batch norm are buffers like any other. Batch
norm's counts of batches become the largest of those that take part. Every other integer or bool tensor must be equal in
all models. Tensors that a model shares under several names stay shared, and must be shared alike in all models. Buffers
that a ``state_dict`` leaves out are the first model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.checks import check_dataset
from ..errors import check_choice, check_number
from ..modules import BATCH_NORM, check_model, unwrapped
from ..outputs import check_finite
from ..tasks import UnlearnTask

CHUNK = 2**17  # entries merged at once, in float64: what a merge needs beside its result

Weight = float | Mapping[str, float]
Piece = Callable[[list[Tensor]], Tensor]  # chunks of each model's tensor, float64 -> the merged chunk
Rule = Callable[[str, list[Tensor]], Piece]  # a tensor's name, and it in each model -> how its chunks are merged


@dataclass(frozen=True)
class Layout:
    """The tensors of a model, each under the first of its names: what is merged, and what is not."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    counters: tuple[str, ...]
    fixed: tuple[str, ...]
    variances: frozenset[str]
    aliases: Mapping[str, str]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every tensor of the ``state_dict`` under each of its plain names, detached but not copied."""
    state = unwrapped(model).state_dict()
    return {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}


def layout_of(model: nn.Module) -> Layout:
    """Sort the tensors of ``model`` by what merging does with them."""
    model = unwrapped(model)
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    aliases = {name: first.setdefault(id(value), name) for name, value in tensors.items()}
    own = [name for name, target in aliases.items() if name == target]
    norms = [name for name, module in model.named_modules() if isinstance(module, BATCH_NORM)]
    counts = {_join(name, "num_batches_tracked") for name in norms}
    floating = [name for name in own if tensors[name].is_floating_point()]
    return Layout(
        parameters=tuple(name for name in floating if isinstance(tensors[name], nn.Parameter)),
        buffers=tuple(name for name in floating if not isinstance(tensors[name], nn.Parameter)),
        counters=tuple(name for name in own if name in counts),
        fixed=tuple(name for name in own if name not in counts and not tensors[name].is_floating_point()),
        variances=frozenset(_join(name, "running_var") for name in norms),
        aliases=aliases,
    )


def check_match(models: Mapping[str, nn.Module]) -> Layout:
    """Return the layout that all ``models`` (by the names errors call them) have in common.

    Raises:
        TypeError: On what is no module.
        ValueError: On adapted models, on models that differ, saying where, and on integer tensors that are not equal.
    """
    for name, model in models.items():
        check_model(model, name)
        if hasattr(model, "peft_config"):
            raise ValueError(
                f"expected {name} to be a plain model, but it has adapters, whose factors do not add up; "
                "see composition.combine_adapters, or bake them in with adapters.merge"
            )
    (leader, model), *others = ((name, unwrapped(model)) for name, model in models.items())
    layout, mine = layout_of(model), tensors_of(model)
    for name, other in others:
        found = _differences(leader, model, name, other)
        if found:
            shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
            raise ValueError(f"expected {leader} and {name} to be of one architecture, but they differ: {shown}")
        theirs = tensors_of(other)
        for key in layout.fixed:
            if not torch.equal(mine[key], theirs[key].to(mine[key].device)):
                raise ValueError(f"expected {key!r}, which is not merged, to be equal in {leader} and {name}")
    return layout


def numbered(models: Sequence[nn.Module], base: nn.Module | None = None, *, least: int = 1) -> dict[str, nn.Module]:
    """Return models by the names errors call them: "base", "models[0]", ...

    Raises:
        TypeError: When ``models`` is no sequence of at least ``least``.
        ValueError: When ``models`` is no sequence of at least ``least``.
    """
    if isinstance(models, nn.Module) or not isinstance(models, Sequence):
        raise TypeError(f"expected models to be a sequence of modules, but got {type(models).__name__}")
    if len(models) < least:
        raise ValueError(f"expected at least {least} models, but got {len(models)}")
    return ({} if base is None else {"base": base}) | {f"models[{i}]": model for i, model in enumerate(models)}


def weigher(name: str, weight: Any, layout: Layout, **bounds: Any) -> Callable[[str], float]:
    """Return ``weight`` as a function of a tensor's name.

    A mapping gives one number to each prefix of dotted names ("encoder", "encoder.2", "head"); the longest that fits
    counts, and "" fits everything.

    Raises:
        TypeError: On what is no number within ``bounds``, on a prefix that no tensor has, and when a tensor has none.
        ValueError: On what is no number within ``bounds``, on a prefix that no tensor has, and when a tensor has none.
    """
    if not isinstance(weight, Mapping):
        number = check_number(name, weight, **bounds)
        return lambda _: number
    keys = [*layout.parameters, *layout.buffers]
    known = sorted({".".join(key.split(".")[:n]) for key in keys for n in range(key.count(".") + 2)})
    table = {}
    for prefix, value in weight.items():
        check_choice(f"every prefix in {name}", prefix, known)
        table[prefix] = check_number(f"{name}[{prefix!r}]", value, **bounds)
    found = {}
    for key in keys:
        fitting = [prefix for prefix in table if not prefix or f"{key}.".startswith(f"{prefix}.")]
        if not fitting:
            raise ValueError(f"expected {name} to cover {key!r}, but got {list(table)}; '' stands for all the rest")
        found[key] = table[max(fitting, key=len)]
    return found.__getitem__


def weighers(weights: Any, count: int, layout: Layout, **bounds: Any) -> list[Callable[[str], float]]:
    """Return one :func:`weigher` a model: ``weights`` is one weight for all of them, or a sequence of as many.

    Raises:
        ValueError: When there are not as many; else as :func:`weigher`.
    """
    if isinstance(weights, (str, Mapping)) or not isinstance(weights, Sequence):
        return [weigher("weights", weights, layout, **bounds)] * count
    if len(weights) != count:
        raise ValueError(f"expected weights to hold {count} numbers, one a model, but got {len(weights)}")
    return [weigher(f"weights[{i}]", weight, layout, **bounds) for i, weight in enumerate(weights)]


def retain_of(name: str, data: Any) -> Any:
    """Return the retain data of a task, or the data set that was given in its place.

    Raises:
        TypeError: When it is neither, by the name of the argument.
        ValueError: When a sample of the data set is not finite.
    """
    if isinstance(data, UnlearnTask):
        return data.retain
    if isinstance(data, nn.Module) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"expected {name} to be a task or a data set, but got {type(data).__name__}")
    check_dataset(name, data)
    return data


@torch.no_grad()
def merge_into(
    out: nn.Module, models: Sequence[nn.Module], layout: Layout, rules: Mapping[str, Rule], counting: Sequence[int]
) -> None:
    """Write the merged tensors into ``out``, a copy of one of ``models``, a chunk at a time.

    Args:
        out: the result.
        models: what is merged; only read.
        layout: of all of them.
        rules: how the tensor of each name is merged; others stay as they are in ``out``.
        counting: places of the models whose counts of batches take part.

    Raises:
        ValueError: Naming the first tensor whose merged values are not finite.
    """
    states, target = [tensors_of(model) for model in models], tensors_of(out)
    for name, rule in rules.items():
        into = target[name]
        sources = [state[name] for state in states]
        piece = rule(name, sources)
        for written, chunks in pieces([into, *sources]):
            merged = piece([chunk.to(into.device, torch.float64) for chunk in chunks])
            written.copy_(merged)
            # Not before, in float64, which holds numbers that the tensor's own dtype does not.
            check_finite(f"the merged {name!r}", written)
    for name in layout.counters if counting else ():
        target[name].copy_(torch.stack([states[place][name].cpu() for place in counting]).max())


def pieces(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield views of the same place in all ``tensors`` (of one shape, any strides): of the first, and of the others."""
    views = [tensor.unsqueeze(0) if tensor.dim() == 0 else tensor for tensor in tensors]
    shape = views[0].shape
    along = max(range(len(shape)), key=shape.__getitem__)
    rows = max(1, CHUNK // max(1, views[0].numel() // max(1, shape[along])))
    for start in range(0, shape[along], rows):
        first, *others = (view.narrow(along, start, min(rows, shape[along] - start)) for view in views)
        yield first, others


def _differences(leader: str, model: nn.Module, name: str, other: nn.Module) -> list[str]:
    mine, theirs = tensors_of(model), tensors_of(other)
    found = [f"{key!r} is missing in {name}" for key in mine if key not in theirs]
    found += [f"{key!r} is missing in {leader}" for key in theirs if key not in mine]
    for key in mine:
        if key in theirs and (mine[key].shape, mine[key].dtype) != (theirs[key].shape, theirs[key].dtype):
            found.append(f"{key!r} is {_describe(mine[key])} in {leader} and {_describe(theirs[key])} in {name}")
    if found:
        return found
    kinds = {key: type(module) for key, module in model.named_modules()}
    for key, module in other.named_modules():
        if kinds.get(key) is not type(module):
            was = kinds[key].__name__ if key in kinds else "missing"
            found.append(f"module {key!r} is {was} in {leader} and {type(module).__name__} in {name}")
    here, there = layout_of(model).aliases, layout_of(other).aliases
    return found + [
        f"{key!r} is shared with {here[key]!r} in {leader} and with {there[key]!r} in {name}"
        for key in here
        if here[key] != there[key]
    ]


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
