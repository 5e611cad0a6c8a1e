from __future__ import annotations

import resource
import sys
import time

import pytest
import torch

from unlearn_kit.metrics import Cost, measured
from unlearn_kit.metrics import cost as cost_module


def test_the_clock_of_a_block_lies_between_two_clocks_around_it() -> None:
    with measured() as cost:
        start = time.perf_counter()
        sum(range(10_000))
        inside = time.perf_counter() - start
        assert cost.seconds == 0  # not known before the end
        cost.samples += 64
    assert inside <= cost.seconds <= time.perf_counter() - start + 1
    assert cost.samples == 64
    assert cost.device_memory is None or torch.cuda.is_available()


def test_memory_is_the_high_water_mark_of_the_process() -> None:
    with measured() as cost:
        # More than was ever resident, so that the mark must rise.
        unit = 1 if sys.platform == "darwin" else 1024
        block = bytearray(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 8 + 2**24)
        block[::1024] = b"x" * len(block[::1024])
    assert cost.peak_memory == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert cost.memory_growth >= 0
    with measured() as again:
        pass
    assert again.memory_growth == 0
    assert again.peak_memory >= cost.peak_memory


def test_an_error_ends_the_measurement_and_passes() -> None:
    with pytest.raises(KeyError), measured() as cost:
        raise KeyError
    assert cost.seconds > 0


def test_where_the_system_does_not_tell_memory_is_n_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "_resident_peak", lambda: None)
    with measured("cpu") as cost:
        pass
    assert (cost.peak_memory, cost.memory_growth, cost.device_memory) == (None, None, None)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RuntimeError, match="device"), measured("gpu"):
        pass
    assert Cost() == Cost(0.0, 0, None, None, None)
