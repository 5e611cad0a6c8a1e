"""Data sets and the one way they are read: whole batches by index.

A data set is anything map-style that yields ``(input, target)``. Data held in tensors are indexed a batch at a time;
everything else goes through a ``DataLoader``, with workers where asked for. So does a subclass of such data, or of a
``Subset``, with a ``__getitem__`` of its own: it may yield other samples than it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from ..arguments import checked
from ..errors import check_count
from ..modules import check_device
from ..outputs import IGNORE
from ..seeding import derive, generator, isolated, seed_draws
from .forms import check_form, form_of
from .loading import BatchReader
from .pictures import PictureFiles
from .volumes import VolumeFiles

Pairs = Dataset[tuple[Tensor, Tensor]]

NUMBERS_AT_ONCE = 2**24  # of volumes, as input of a network: 64 MiB of float32
COMPARED = 32  # samples that are read to see whether a data set yields the labels it holds


@checked
class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Images and targets held in memory, read a batch at a time.

    Args:
        inputs: ``(N, C, H, W)``, uint8 in 0..255, or float in [0, 1]; ``(N, ...)`` float of any shape also works. uint8
            is kept as it is (a quarter of the memory) and becomes float32 in [0, 1] when read.
        targets: ``(N,)`` class indices, or masks ``(N, H, W)`` / ``(N, 1, H, W)``.

    Raises:
        TypeError: When one is no tensor, or the inputs are neither uint8 nor floating point.
        ValueError: When there are not as many targets as inputs.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        for name, tensor in (("inputs", inputs), ("targets", targets)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"expected {name} to be a Tensor, but got {type(tensor).__name__}")
        if len(inputs) != len(targets):
            raise ValueError(f"expected one target an input, but got {len(inputs)} inputs and {len(targets)} targets")
        if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
            raise TypeError(f"expected inputs to be uint8 or floating point, but got {inputs.dtype}")
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (floating point, in [0, 1]) and targets at ``indices`` (int64, ``(B,)``)."""
        x = self.inputs[indices]
        return (x.float().div_(255) if x.dtype == torch.uint8 else x), computable(self.targets[indices])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.batch(torch.tensor([range(len(self))[index]]))
        return x[0], y[0]


def as_tensor(values: Any) -> Tensor:
    """Return the numbers of a tensor, an array, a table's column or a list as a tensor; copied only where they must be.

    Raises:
        TypeError: When they are no numbers.
        ValueError: When they are no numbers, or rows differ in length.
    """
    # Columns of pandas are read-only, which torch warns of.
    return values if isinstance(values, Tensor) else torch.as_tensor(np.require(values, requirements="W"))


def _reads_as(dataset: Any, kind: type) -> bool:
    """Return whether ``dataset`` is a ``kind`` that yields its samples as ``kind`` itself does."""
    own = type(dataset)
    return issubclass(own, kind) and all(
        getattr(own, name, None) is getattr(kind, name, None) for name in ("__getitem__", "__getitems__")
    )


def held_in_tensors(dataset: Any) -> bool:
    """Return whether whole batches of ``dataset`` are read from tensors, not sample by sample."""
    base, _ = resolve(dataset)
    return _reads_as(base, TensorImages) or _reads_as(base, TensorDataset)


@checked
def resolve(dataset: Any) -> tuple[Any, Tensor | None]:
    """Return the data set under any chain of ``Subset``, and the indices into it (None for all).

    Raises:
        TypeError: When it is no map-style data set.
    """
    check_form("dataset", dataset)
    indices: Tensor | None = None
    while _reads_as(dataset, Subset):
        own = torch.as_tensor(dataset.indices, dtype=torch.int64)
        indices = own if indices is None else own[indices]
        dataset = dataset.dataset
    return dataset, indices


@checked
def subset(dataset: Any, indices: Sequence[int | bool] | np.ndarray | Tensor) -> Subset[tuple[Tensor, Tensor]]:
    """Return the samples of ``dataset`` at ``indices``, or where a bool mask ``(N,)`` is True.

    A subset of a subset points at the data below both.

    Raises:
        TypeError: When the indices are no integers.
        ValueError: When a mask is of another length, or an index is out of range.
    """
    base, outer = resolve(dataset)
    try:
        chosen = as_tensor(indices)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected indices to be integers or a bool mask, but got {form_of(indices)}") from error
    if chosen.dtype == torch.bool:
        if chosen.shape != (len(dataset),):
            raise ValueError(f"expected a mask of shape ({len(dataset)},), but got {tuple(chosen.shape)}")
        chosen = chosen.nonzero().flatten()
    elif chosen.numel() and (chosen.is_floating_point() or chosen.is_complex()):
        raise TypeError(f"expected indices to be integers or a bool mask, but got {chosen.dtype}")
    chosen = chosen.to("cpu", torch.int64)
    if chosen.numel() and not -len(dataset) <= int(chosen.min()) <= int(chosen.max()) < len(dataset):
        raise ValueError(f"expected indices in 0..{len(dataset) - 1}, but got {int(chosen.min())}..{int(chosen.max())}")
    return Subset(base, (chosen if outer is None else outer[chosen]).tolist())


class Drawn(Dataset[Any]):
    """A data set each of whose samples is read with random states of its own, whatever was read before.

    Sample i of pass n is at index ``n * len + i``; a pass may draw other numbers than the last. Read it inside
    ``seeding.isolated`` only.

    Args:
        dataset: Map-style; it may draw from the global random states of Python, NumPy and torch when it is read.
        seed: The seed of all of them.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        seed_draws(derive(self.seed, index))
        return self.dataset[index % len(self.dataset)]


def drawn(dataset: Any, seed: int) -> Any:
    """Return ``dataset`` as :class:`Drawn`, or itself where it is held in tensors and draws nothing.

    What is read is then the same with any number of workers and in batches of any size.
    """
    return dataset if held_in_tensors(dataset) else Drawn(dataset, seed)


@checked
def labels_of(dataset: Any) -> Tensor | None:
    """Return all targets of ``dataset`` on the CPU, without decoding every input; None when it does not expose them.

    Looked for: ``.targets``, ``.labels``, the last tensor of a ``TensorDataset``; through subsets and concatenations.
    A data set with a ``__getitem__`` or a ``batch`` of its own may yield other targets than it holds: some samples are
    read, one of each label first, and None is returned where one of them has another target. None also where reading a
    sample may change its target: with torchvision's ``target_transform`` or ``transforms``.
    """
    base, indices = resolve(dataset)
    if _reads_as(base, ConcatDataset):
        parts = [labels_of(part) for part in base.datasets]
        known = [part for part in parts if part is not None]
        labels = torch.cat(known) if known and len(known) == len(parts) else None
        return labels if labels is None or indices is None else labels[indices]
    labels = _held_labels(base)
    if labels is None:
        return None
    labels = labels if indices is None else labels[indices]
    own_batch = getattr(type(base), "batch", None) not in (None, TensorImages.batch)
    trusted = (held_in_tensors(base) and not own_batch) or _reads_as(base, PictureFiles)
    return labels if trusted or _yields(dataset, labels) else None


def read_labels(dataset: Any) -> Tensor:
    """Return all targets ``(N, ...)`` of ``dataset`` on the CPU; where it does not expose them, it is read once."""
    labels = labels_of(dataset)
    if labels is not None:
        return labels
    with isolated(0):  # a random transform of the inputs would draw from the caller
        parts = [y.cpu() for _, y in in_order(dataset)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def _held_labels(base: Any) -> Tensor | None:
    """Return the targets that ``base`` holds, one a sample, on the CPU; None where there are none to trust."""
    if _reads_as(base, TensorDataset):
        return computable(base.tensors[-1]).cpu()
    if _may_change_targets(base):
        return None
    for name in ("targets", "labels"):
        held = getattr(base, name, None)
        if held is None:
            continue
        # Class labels held as a list of ints are common (torchvision). Names of classes, and what else is no number,
        # cannot be read in one go.
        try:
            labels = computable(as_tensor(held)).cpu()
        except (TypeError, ValueError):
            return None
        return labels if labels.dim() and len(labels) == len(base) else None
    return None


def computable(targets: Tensor) -> Tensor:
    """Return targets as they are read: wide unsigned integers, which torch cannot index or compare, as int64.

    And masks ``(B, H, W)`` or ``(B, 1, H, W)`` by :func:`binarized`.
    """
    if targets.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return targets.long()
    return binarized(targets) if targets.dim() > 2 else targets


def binarized(mask: Tensor) -> Tensor:
    """Return a floating point mask in [0, 1] with 1 above one half and 0 elsewhere; ``IGNORE`` stays.

    Fractions are what a resize leaves of a binary mask. A mask with any other number is returned as it is.
    """
    if not mask.is_floating_point():
        return mask
    ignored = mask == IGNORE
    if not (ignored | ((mask >= 0) & (mask <= 1))).all():
        return mask
    return torch.where(ignored, mask, (mask > 0.5).to(mask))


def _yields(dataset: Any, labels: Tensor) -> bool:
    """Return whether ``COMPARED`` samples of ``dataset`` have the targets ``labels`` that it holds."""
    order = torch.randperm(len(labels), generator=generator(0, "held labels"))
    if labels.dim() == 1:
        # One of each label first: a data set may change a single class.
        first = torch.from_numpy(np.unique(labels[order].numpy(), return_index=True)[1])
        order = torch.cat([order[first], order])
    with isolated(0):  # a random transform of the inputs would draw from the caller
        return all(_has_target(dataset[at], labels[at]) for at in order[:COMPARED].tolist())


def _has_target(sample: Any, label: Tensor) -> bool:
    """Return whether ``sample`` is a pair whose target is ``label``."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        return False
    try:
        target = torch.as_tensor(sample[1])
    except (TypeError, ValueError, RuntimeError):
        return False
    return target.shape == label.shape and bool((target.cpu().double() == label.double()).all())


def _may_change_targets(dataset: Any) -> bool:
    """Return whether targets that are read may be others than those that are held."""
    if isinstance(dataset, TensorImages):
        return not _reads_as(dataset, TensorImages)
    # torchvision makes ``transforms`` of any ``transform``: that pair changes the target by its second part alone.
    joint = getattr(dataset, "transforms", None)
    changes = (getattr(dataset, "target_transform", None), getattr(joint, "target_transform", joint))
    return any(change is not None for change in changes)


@checked
def iterate(
    dataset: Any,
    index_batches: Iterable[Tensor],
    *,
    workers: int = 0,
    loader: BatchReader | None = None,
    scaled: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(inputs, targets)`` for each tensor of indices, in order.

    Args:
        dataset: Map-style, yielding ``(input, target)``.
        index_batches: Int64 tensors ``(B,)`` of positions in ``dataset``, asked for as they are read (with workers, a
            few ahead).
        workers: Processes that decode; ignored for data held in tensors.
        loader: What decodes this data set from one call to the next, in place of workers of this call alone.
        scaled: False to yield the bytes of :class:`TensorImages` as they are held, a quarter of the numbers in [0, 1].

    Raises:
        TypeError: When a sample is no pair, or what comes as positions is none.
        ValueError: When positions are out of range, or samples differ in shape.
    """
    check_count("workers", workers, low=0)
    base, outer = resolve(dataset)
    # Of data that draw numbers every pass has positions of its own.
    count = math.inf if isinstance(base, Drawn) else len(dataset)
    positions = (_checked_positions(batch, count) for batch in index_batches)
    chosen_batches = (batch if outer is None else outer[batch] for batch in positions)
    if held_in_tensors(base):
        for chosen in chosen_batches:
            if not scaled and holds_bytes(base):
                yield base.inputs[chosen], computable(base.targets[chosen])
            elif isinstance(base, TensorImages):
                yield base.batch(chosen)
            else:
                x, y = (tensor[chosen] for tensor in base.tensors)
                yield x, computable(y)
        return
    own = BatchReader(base, workers) if loader is None else loader
    for x, y in own.read(chosen.tolist() for chosen in chosen_batches):
        yield x, computable(torch.as_tensor(y))


def holds_bytes(dataset: Any) -> bool:
    """Return whether ``dataset`` is :class:`TensorImages` of bytes that reads them as that class does."""
    base, _ = resolve(dataset)
    plain = _reads_as(base, TensorImages) and type(base).batch is TensorImages.batch
    return plain and base.inputs.dtype == torch.uint8


def _checked_positions(batch: Any, count: float) -> Tensor:
    if not isinstance(batch, Tensor) or batch.dtype != torch.int64:
        raise TypeError(f"expected every one of index_batches to be an int64 tensor, but got {form_of(batch)}")
    if batch.numel() and not 0 <= int(batch.min()) <= int(batch.max()) < count:
        raise ValueError(
            f"expected index_batches to hold positions in 0..{count - 1:g}, "
            f"but got {int(batch.min())}..{int(batch.max())}"
        )
    return batch


@checked
def in_order(
    dataset: Any, batch_size: int = 512, *, workers: int = 0, device: torch.device | str | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every sample once, in order, the last batch included: how data are read for evaluation.

    Of volumes fewer than ``batch_size`` come at once where they are large.
    """
    check_form("dataset", dataset)
    batch_size = _at_once(dataset, check_count("batch_size", batch_size))
    device = None if device is None else check_device(device, meta=True)
    for x, y in iterate(dataset, torch.arange(len(dataset)).split(batch_size) if len(dataset) else (), workers=workers):
        yield (x, y) if device is None else (x.to(device), y.to(device))


def _at_once(dataset: Any, most: int) -> int:
    """Return how many samples to evaluate at once: what a network makes of hundreds of volumes fits into no memory."""
    base, _ = resolve(dataset.dataset if isinstance(dataset, Drawn) else dataset)
    if len(dataset) == 0:
        return most
    if _reads_as(base, VolumeFiles):
        numbers = base[0][0].numel()
    elif held_in_tensors(base):
        inputs = base.inputs if isinstance(base, TensorImages) else base.tensors[0]
        numbers = inputs[0].numel() if inputs.dim() == 5 else 1
    else:
        return most
    return min(most, max(1, NUMBERS_AT_ONCE // max(1, numbers)))


@checked
def load_tensors(dataset: Any, *, workers: int = 0) -> tuple[Tensor, Tensor]:
    """Return all inputs ``(N, ...)`` and targets ``(N, ...)`` of a data set that fits in memory.

    Raises:
        ValueError: When it is empty.
    """
    check_form("dataset", dataset)
    if len(dataset) == 0:
        raise ValueError("expected dataset to hold at least one sample, but got an empty data set")
    parts = list(in_order(dataset, workers=workers))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
