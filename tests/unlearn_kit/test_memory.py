from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from unlearn_kit import memory
from unlearn_kit.memory import device_peak, reset_device_peak, reset_resident_peak, resident_peak

MIB = 2**20


class FakeCuda:
    """GPUs that need so many bytes; every question to them is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *peaks: int) -> None:
        self.peaks, self.asked = list(peaks), list[str]()
        monkeypatch.setattr(torch.cuda, "init", lambda: self.asked.append("init"))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self.peak)

    def reset(self, device: torch.device | str | None = None) -> None:
        self.asked.append("reset")
        self.peaks[torch.device(device or "cuda").index or 0] = 0

    def peak(self, device: torch.device | str | None = None) -> int:
        self.asked.append("peak")
        return self.peaks[torch.device(device or "cuda").index or 0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is resident now")
def test_the_peak_rises_by_what_is_held_and_stays_when_it_is_let_go() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident_peak()
    assert before is not None
    # Up to the mark, and 64 MiB above it; the kernel counts pages in batches, of less than a MiB.
    block = bytearray(max(0, before - resident()) + 64 * MIB)
    block[::1024] = b"x" * len(block[::1024])
    risen = resident_peak()
    assert risen is not None
    assert abs(risen - resident()) < 8 * MIB
    del block
    assert resident_peak() == pytest.approx(risen, abs=MIB)
    reset_resident_peak()  # which a system may refuse: then the mark stays
    assert resident_peak() <= risen + MIB


def test_where_the_system_does_not_tell_the_peak_is_n_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "Path", lambda _: Path("/nowhere/at/all"))
    monkeypatch.setitem(sys.modules, "resource", None)
    reset_resident_peak()
    assert resident_peak() is None


def test_the_peak_of_a_gpu_is_that_of_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch, 5, 7)
    assert [device_peak(name) for name in ("cuda", "cuda:0", "cuda:1")] == [5, 5, 7]
    reset_device_peak("cuda:1")
    assert [device_peak(torch.device(name)) for name in ("cuda", "cuda:1")] == [5, 0]


def test_no_gpu_is_asked_where_the_work_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, 5)
    for name in ("cpu", "mps"):
        reset_device_peak(name)
        assert device_peak(name) is None
    assert cuda.asked == []
