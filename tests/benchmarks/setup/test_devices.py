from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from benchmarks.setup.devices import check_device, gpu_of_worker


def test_workers_take_the_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", lambda index: taken.append(index) or nullcontext())
    for place in range(5):
        with gpu_of_worker("cuda", place), gpu_of_worker("cuda:1", place):
            pass
    assert taken == [0, 1, 2, 0, 1]


def test_on_other_devices_no_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("device_count", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a GPU was asked"))
    with gpu_of_worker("cpu", 1):
        assert check_device("cpu") == "cpu"


def test_gpus_are_counted_and_not_used_to_see_whether_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("a GPU was used"))
    assert [check_device(name) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ValueError, match="expected device to be one of this machine's, but got 'cuda:2'"):
        check_device("cuda:2")
