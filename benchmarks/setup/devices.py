"""Where training can take place: names of devices, and whether they are there."""

from __future__ import annotations

import torch


def check_device_name(name: str) -> str:
    """Return ``name`` when it names a device that can train, on this machine or another.

    Raises: ValueError when it does not.
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

    Raises: ValueError when it has not.
    """
    try:
        there = not torch.empty(0, device=name).is_meta
    except (RuntimeError, AssertionError, ImportError):  # torch has a different one for each kind of device
        there = False
    if not there:
        raise ValueError(f"expected device to be one of this machine's, but got {name!r}")
    return name
