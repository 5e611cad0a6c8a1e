"""How much memory work needed: the peaks of this process, and of a GPU."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def reset_resident_peak() -> None:
    """Let :func:`resident_peak` begin anew, where the system can (Linux); elsewhere it speaks of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_peak() -> int | None:
    """Return the largest resident memory of this process so far, in bytes; None where the system does not tell."""
    # Before getrusage, whose mark cannot be reset, and also counts the program that started this one.
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_device_peak(device: torch.device | str) -> None:
    """Let :func:`device_peak` begin anew; nothing is done, and no GPU is woken, where ``device`` is none."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.init()  # else the allocator that keeps the peak does not know its devices yet
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device | str) -> int | None:
    """Return the most memory that tensors held on ``device``, in bytes; None where it is no GPU, and none is asked.

    "cuda" without a number is the current GPU.
    """
    import torch

    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else None
