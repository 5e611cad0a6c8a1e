"""What is looked at before anything is trained: a network's outputs, its precision, and whether it trains at all."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ..adapters.structure import plain_name
from ..logits import (
    HALVES,
    Output,
    answer,
    check_inputs,
    could_be_logits,
    described,
    hook,
    hooked,
    logits_in,
    precision_of,
    unhook,
)
from ..modules import batch_norms, blank_copy, device_of, evaluating, same_state
from ..outputs import ends_in
from ..pixel_range import check_pixels, normalizes_unit_pixels
from ..seeding import isolated
from ..tasks import UnlearnTask
from .guard import training
from .phases import Leg

Precisions = Mapping[str, torch.dtype]

LOOKED_AT = 9  # samples by which probabilities are told from logits
# What is wrong with a model that gives probabilities, and what to do.
ENDS = "it ends in a {}, and every loss would take another. Give the model without its last layer"


def raise_precision(model: nn.Module) -> Precisions:
    """Make float32 of all half-precision tensors of ``model``, in place: small steps would round to nothing.

    Returns:
        The dtype that each of them had, by name.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    halves = {name: tensor.dtype for name, tensor in tensors if tensor.dtype in HALVES}
    _cast(model, dict.fromkeys(halves, torch.float32))
    return halves


def restore_precision(model: nn.Module, precisions: Precisions) -> None:
    """Give the tensors of ``model``, adapted or not, the dtypes that :func:`raise_precision` returned, in place."""
    _cast(model, precisions)


def _cast(model: nn.Module, precisions: Precisions) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # A copy that an adapter trains of a module of the original's is put back in that module's place.
        dtype = precisions.get(re.sub(r"\.modules_to_save\.[^.]+", "", plain_name(name)))
        if dtype is not None:
            tensor.data = tensor.data.to(dtype)


def told_if_unchanged(name: str, given: nn.Module, made: nn.Module) -> dict[str, Any]:
    """Warn that ``name`` made a model of the same bits as the one it was given, and return that for the details."""
    if not same_state(given, made):
        return {}
    warnings.warn(f"{name} changed no weight: the result is the model that was given, bit for bit", stacklevel=3)
    return {"unchanged": True}


@contextmanager
def trial(model: nn.Module, legs: Sequence[Leg]) -> Iterator[None]:
    """Try ``model``, a private copy, on a sample or two as each leg will train it; while open, its calls give logits.

    Raises:
        ValueError: When it does not run, begins by normalising pixels in [0, 1] and is given others, what it returns
            holds no logits that can be told, they depend on no weight that is trained, or batch norm would get a batch
            of one value a channel.
        TypeError: When inputs are no floating-point tensors.
    """
    was_hooked = hooked(model)
    if not was_hooked:
        hook(model)
    try:
        tried: set[str] = set()
        for leg in legs:
            if leg.phase.terms.streams and leg.stop > leg.start and leg.key not in tried:
                tried.add(leg.key)
                with isolated(0):
                    _try(model, leg)
        yield
    finally:
        if not was_hooked:
            unhook(model)


def first_sample(dataset: Any) -> tuple[Tensor, Any]:
    """Return the first input of ``dataset``, ``(1, ...)``, and its target; inside ``seeding.isolated`` only.

    Raises:
        TypeError: When the input is no floating-point tensor.
    """
    x, y = default_collate([dataset[0]])
    if not isinstance(x, Tensor):
        raise TypeError(f"expected the data set to yield inputs as tensors, but got {type(x).__name__}")
    return check_inputs(x), y


def told_of_probabilities(model: nn.Module, task: UnlearnTask, first: Tensor) -> None:
    """Warn of a model that ends in a softmax, as some samples to forget show; in ``isolated`` only.

    Of outputs that are decided on one by one nobody can tell by a few samples: a logit may be in [0, 1], too.

    Args:
        model: Gives what should be logits.
        task: Its data are read further only where ``first`` looks like it.
        first: What the model says of the first sample.
    """
    if task.kind == "multilabel" or ends_in(first) != "softmax":
        return
    dataset = task.forget
    places = range(1, min(len(dataset), LOOKED_AT))
    with torch.no_grad():
        more = [model(default_collate([dataset[place]])[0].to(device_of(model))) for place in places]
    if len(more) > 1 and all(ends_in(outputs) == "softmax" for outputs in more):
        warnings.warn(f"expected model to return logits, but got probabilities: {ENDS.format('softmax')}", stacklevel=4)


def check_sample(model: nn.Module, dataset: Any, name: str) -> None:
    """Refuse data whose pixels ``model`` cannot mean, by its first, last and middle sample; in ``isolated`` only.

    Raises:
        ValueError: As :func:`.pixel_range.check_pixels`.
    """
    if len(dataset) and normalizes_unit_pixels(model):
        for place in sorted({0, len(dataset) // 2, len(dataset) - 1}):
            check_pixels(model, torch.as_tensor(dataset[place][0]), f"the images of {name}")


def _try(model: nn.Module, leg: Leg) -> None:
    phase = leg.phase
    for name in phase.terms.streams:
        check_sample(model, phase.streams[name], name)
    x = first_sample(phase.streams[phase.terms.streams[0]])[0].to(device_of(model), precision_of(model))
    with evaluating(model), torch.no_grad():
        usual = answer(model, x)
    student = blank_copy(model)
    output = unhook(student)
    with training(student, phase.trains(student), phase.batch_norm):
        returned = answer(student, torch.cat([x, x]))
        settled = _settled(returned, output, usual)
        if settled != output:
            hook(model, settled)
        logits = logits_in(returned, settled)
        if logits.shape[1:] != usual.shape[1:]:
            raise ValueError(
                f"expected the model to return logits of one shape in both modes, but got {described(logits)} in "
                f"training and {described(usual)} in eval mode; see models.with_output"
            )
        if not logits.requires_grad:
            raise ValueError(
                f"expected the logits to depend on the weights that phase {phase.name!r} trains, but no gradient "
                "reaches those: they take no part, or something on the way is detached"
            )
        _check_lone(student, leg, x)


def _settled(returned: Any, output: Output | None, usual: Tensor) -> Output | None:
    """Return where the logits are in training mode: what is ``usual`` in eval mode tells one part from the others."""
    try:
        logits_in(returned, output)
    except ValueError:
        parts = list(returned.values()) if isinstance(returned, Mapping) else returned
        for place, part in enumerate(parts if isinstance(parts, (tuple, list)) else ()):
            if could_be_logits(part) and part.shape[1:] == usual.shape[1:]:
                return place
        raise
    return output


def _check_lone(student: nn.Module, leg: Leg, x: Tensor) -> None:
    """Refuse a batch of one sample where batch norm would have one value a channel to train on."""
    if not any(layer.training for layer in batch_norms(student)):
        return
    for name in leg.phase.terms.streams:
        size, count = leg.phase.batch_of(name), len(leg.phase.streams[name])
        if size == 1 or count % size == 1:
            try:
                student(x)
            except ValueError as error:
                raise ValueError(
                    f"expected batch_size to leave no batch of a single sample for batch norm to train on, but got "
                    f"{size} for the {count} samples of {name!r}; another batch_size or batch_norm='frozen' helps"
                ) from error
