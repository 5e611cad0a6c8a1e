"""Where training can take place: names of devices, whether they are there, and which of several GPUs a worker takes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def check_device_name(name: str) -> str:
    """Return ``name`` when it names a device that can train, on this machine or another.

    Raises:
        ValueError: When it does not.
    """
    try:
        known = torch.device(name).type != "meta"  # whose tensors hold no numbers
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"expected device to be a name such as cpu, cuda, cuda:1 or mps, but got {name!r}")
    return name


def check_device(name: str) -> str:
    """Return ``name`` when this machine has that device.

    Raises:
        ValueError: When it has not.
    """
    try:
        there = _is_here(torch.device(name))
    except (RuntimeError, AssertionError, ImportError):  # torch has a different one for each kind of device
        there = False
    if not there:
        raise ValueError(f"expected device to be one of this machine's, but got {name!r}")
    return name


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":  # counted, since a tensor there would take memory that a run may need
        return (device.index or 0) < torch.cuda.device_count()
    return not torch.empty(0, device=device).is_meta


def is_any_gpu(name: str) -> bool:
    """Return whether ``name`` is "cuda" without a number: whichever GPU there is."""
    device = torch.device(name)
    return device.type == "cuda" and device.index is None


def gpu_of_worker(name: str, place: int) -> AbstractContextManager[object]:
    """Return a block in which "cuda" is the GPU of the worker at ``place``: workers take the visible ones in turn.

    A device with a number stays itself, and no GPU is asked where ``name`` is none.
    """
    return torch.cuda.device(place % max(1, torch.cuda.device_count())) if is_any_gpu(name) else nullcontext()
