"""Run models over a data set, in order, and leave no trace in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.checks import check_dataset
from ..data.relabel import with_ignore_index
from ..data.tensors import drawn, in_order
from ..logits import answer, giving_logits
from ..modules import blank_copy, check_device, check_model, device_of, evaluating
from ..outputs import check_finite, decisions, hard_labels, is_binary, is_ignored, is_multi_hot
from ..pixel_range import check_pixels
from ..progress import Bar
from ..seeding import derive, isolated, seed_draws, standardized

LOOKED_AT = 16  # samples whose range of pixels is


class Reading(TypedDict, total=False):
    """Options of how data are read, which every metric over a data set shares.

    None of them changes a result, also where data draw random numbers when they are read: each sample has random states
    of its own. (A layer that draws random numbers in eval mode depends on the batches.)

    Attributes:
        batch_size: Samples a batch (512).
        device: None for where each model is (the default); otherwise a copy of the model moves there.
        workers: Processes that decode (0); ignored for data held in tensors.
        ignore_index: The label of pixels that nobody labelled, in data that no task was made of (None).
    """

    batch_size: int
    device: torch.device | str | None
    workers: int
    ignore_index: int | None


@standardized
def map_batches(
    models: Sequence[nn.Module],
    dataset: Any,
    function: Callable[..., tuple[Tensor, ...]],
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    workers: int = 0,
    ignore_index: int | None = None,
) -> tuple[Tensor, ...] | None:
    """Return ``function(*logits, targets)`` of every batch, concatenated; None when the data set is empty.

    Logits of a multi-label head come as K binary decisions, ``(B, 1, K)``: see :func:`.outputs.decisions`.
    Every model sees every sample once, in order, in eval mode and without gradients; modes and the caller's
    random state are as before afterwards. Only what ``function`` returns is kept, so large masks need not be.

    Raises:
        TypeError: When a model is no module, or the data are no pairs of ``(input, target)`` of floating point inputs.
        ValueError: When what a model returns holds no logits that can be told, they are not finite or misshapen, or
            inputs are not finite, or no pixels in [0, 1] though a model begins by normalising such.
    """
    there = [placed(check_model(model), device) for model in models]
    check_dataset("dataset", dataset, finite=False)
    dataset = with_ignore_index(dataset, ignore_index)
    rows = []
    # Isolated: a data set's random transform or a layer that always drops out would draw from the caller.
    with ExitStack() as stack:
        stack.enter_context(isolated(0))
        stack.enter_context(torch.no_grad())
        stack.enter_context(giving_logits(*there))
        for model in there:
            stack.enter_context(evaluating(model))
        bar = stack.enter_context(Bar("reading samples", len(dataset)))
        for number, (x, y) in enumerate(in_order(drawn(dataset, 0), batch_size, workers=workers)):
            # A layer that always drops out draws the same, wherever the samples were read.
            seed_draws(derive(0, "batch", number))
            if number == 0:
                for model in there:
                    check_pixels(model, x[:LOOKED_AT])
            rows.append(function(*(decisions(_logits(model, x), y) for model in there), y.cpu()))
            bar.update(bar.done + len(x))
    return tuple(torch.cat(column) for column in zip(*rows, strict=True)) if rows else None


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """Return the model, or where it is elsewhere a copy of it on the device (None: where it is)."""
    if device is None or check_device(device) == device_of(model):
        return model
    return blank_copy(model).to(device)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = answer(model, x.to(device_of(model)))
    if logits.dim() < 2 or len(logits) != len(x):
        raise ValueError(f"expected logits (B, C, ...) with B = {len(x)}, but got shape {tuple(logits.shape)}")
    check_finite("logits", logits)
    return logits.cpu()


@checked
def predict(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> tuple[Tensor, Tensor]:
    """Return logits ``(N, C, ...)`` and targets ``(N, ...)`` of a whole data set, in its order, on the CPU.

    The model is run in eval mode without gradients; its modes, its buffers and the caller's random state are
    untouched. An empty data set gives two tensors of shape ``(0,)``.

    Raises:
        TypeError: As of :func:`map_batches`.
        ValueError: As of :func:`map_batches`.
    """

    def as_returned(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return logits.squeeze(1) if is_multi_hot(targets) else logits, targets

    found = map_batches([model], dataset, as_returned, **reading)
    return (found[0], found[1]) if found else (torch.empty(0), torch.empty(0, dtype=torch.int64))


@standardized
def mean_score(
    models: Sequence[nn.Module], dataset: Any, score: Callable[..., Tensor], **reading: Unpack[Reading]
) -> float | None:
    """Return the mean over the data set of ``score(*logits, targets) -> (B,)``; None when the data set is empty."""
    found = map_batches(models, dataset, lambda *outputs: (score(*outputs),), **reading)
    return None if found is None else mean_of_judged(found[0])


def mean_of_judged(scores: Tensor) -> float | None:
    """Return the mean of scores ``(N,)`` without those that are NaN, of images none of whose pixels has a label."""
    judged = scores[~scores.isnan()]
    return float(judged.mean()) if len(judged) else None


def class_labels(logits: Tensor, targets: Tensor) -> Tensor:
    """Return targets as int64 class indices of the shape of the decisions: ``(B, ...)`` for logits ``(B, C, ...)``.

    Binary masks may be ``(B, 1, H, W)`` and floating point; above 0.5 is class 1. Pixels may be ``IGNORE``, which no
    metric counts.

    Raises:
        ValueError: When shape or range do not fit the logits, these are not finite, or a label of several classes is a
            fraction.
    """
    check_finite("logits", logits)
    shape = torch.Size((logits.shape[0], *logits.shape[2:]))
    if targets.shape not in (shape, (*shape[:1], 1, *shape[1:])):
        raise ValueError(
            f"expected targets of shape {tuple(shape)} for logits of shape {tuple(logits.shape)}, "
            f"but got {tuple(targets.shape)}"
        )
    labels, top = targets.reshape(shape), max(logits.shape[1] - 1, 1)
    dense = logits.dim() > 2
    known = labels[~is_ignored(labels)] if dense else labels
    if known.numel():
        low, high = known.min().item(), known.max().item()
        if not (low >= 0 and high <= top):
            remedy = "; pass ignore_index= where a label means pixels that nobody labelled" if dense else ""
            raise ValueError(f"expected targets to be class indices in 0..{top}, but got {low}..{high}{remedy}")
        if top > 1 and known.is_floating_point() and not torch.equal(known, known.round()):
            wrong = known[known != known.round()][0].item()
            raise ValueError(f"expected targets to be whole class indices, but got {wrong:g}")
    return hard_labels(labels, logits)


def class_logits(logits: Tensor) -> Tensor:
    """Return logits in float64 with one channel a class: a single logit z becomes (0, z), of equal probabilities.

    Raises:
        ValueError: When the logits are not finite.
    """
    check_finite("logits", logits)
    z = logits.double()
    return torch.cat([torch.zeros_like(z), z], dim=1) if is_binary(logits) else z
