"""What a revision costs: time, work and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..arguments import checked
from ..memory import device_peak, reset_device_peak, resident_peak
from ..modules import check_device


@dataclass
class Cost:
    """What a piece of work took; filled in when the ``with`` block of :func:`measured` ends.

    Attributes:
        seconds: Wall time; depends on the machine's load and its number of threads.
        samples: Samples of gradient work: one for each sample each time it is propagated backward. Nothing counts it by
            itself: whoever trains adds to it.
        peak_memory: Largest resident size of the process so far, in bytes; None where the system does not tell. It is
            a high-water mark that is not reset here: it says what this work took only in a process of its own.
        memory_growth: How far this work raised that mark, in bytes; 0 where earlier work had needed more.
        device_memory: Most memory that tensors held on the GPU during this work, in bytes; None without one.
    """

    seconds: float = 0.0
    samples: int = 0
    peak_memory: int | None = None
    memory_growth: int | None = None
    device_memory: int | None = None


@checked
@contextmanager
def measured(device: torch.device | str | None = None) -> Iterator[Cost]:
    """Measure the work of a ``with`` block; the cost is complete when the block ends, by an error too.

    On CUDA the clock waits for the device, and torch's statistics of peak memory are reset at the start.

    Args:
        device: The device that works; None: the current GPU where CUDA is in use, else the CPU.
    """
    cuda = _cuda_device(None if device is None else check_device(device))
    cost, before = Cost(), resident_peak()
    if cuda is not None:
        torch.cuda.synchronize(cuda)
        reset_device_peak(cuda)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda is not None:
            torch.cuda.synchronize(cuda)
            cost.device_memory = device_peak(cuda)
        cost.seconds = time.perf_counter() - start
        after = resident_peak()
        if before is not None and after is not None:
            cost.peak_memory, cost.memory_growth = after, after - before


def _cuda_device(device: torch.device | str | None) -> torch.device | None:
    if device is None:
        # Asking a GPU that nobody uses would start it up, and take memory there.
        return torch.device("cuda") if torch.cuda.is_initialized() else None
    found = torch.device(device)
    return found if found.type == "cuda" else None
