from __future__ import annotations

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


def test_growth_is_how_far_the_work_raised_the_mark_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = iter([100, 160, 160, 160])
    monkeypatch.setattr(cost_module, "resident_peak", lambda: next(marks))
    for growth in (60, 0):
        with measured() as cost:
            pass
        assert (cost.peak_memory, cost.memory_growth) == (160, growth)


def test_an_error_ends_the_measurement_and_passes() -> None:
    with pytest.raises(KeyError), measured() as cost:
        raise KeyError
    assert cost.seconds > 0


def test_where_the_system_does_not_tell_memory_is_n_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "resident_peak", lambda: None)
    with measured("cpu") as cost:
        pass
    assert (cost.peak_memory, cost.memory_growth, cost.device_memory) == (None, None, None)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="expected device to be usable here"), measured("gpu"):
        pass
    assert Cost() == Cost(0.0, 0, None, None, None)
