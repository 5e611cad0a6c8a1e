from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.suites import store as module
from benchmarks.suites.records import NodeCost, Record
from benchmarks.suites.store import STALE, Claim, Store
from unlearn_kit.errors import CheckpointError
from unlearn_kit.files import write_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def record(key: str = "k", name: str = "a name") -> Record:
    cost = NodeCost(
        seconds=1.5,
        cpu_seconds=1.25,
        node_seconds=2,
        peak_memory_bytes=7,
        device_memory_bytes=None,
        finished="2026-01-01T00:00:00+00:00",
    )
    return Record(
        key=key,
        kind="original",
        name=name,
        status="ok",
        reason=None,
        config={"seed": 0},
        needs={},
        versions={"torch": "2"},
        threads=1,
        hashes={"data": "0", "model": "1"},
        history=[{"step": 0, "total": 0.5}],
        parameters=3,
        cost=cost,
    )


def names(store: Store) -> list[str]:
    return sorted(p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file())


def test_what_is_written_is_read(store: Store) -> None:
    store.write(record(), {"w": torch.arange(3)})
    assert store.read("k") == replace(record(), tensors=True)
    assert torch.equal(store.tensors("k")["w"], torch.arange(3))
    assert [found.key for found in store.records()] == ["k"]
    assert not store.has("other")


def test_nothing_half_written_is_read(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write(record(), {"w": torch.zeros(2)})
    path = store.path("results", "k")
    whole = path.read_text()
    for broken in (whole[: len(whole) // 2], "", "[]", whole.replace('"format": 1', '"format": 0'), "\0" * 40):
        path.write_text(broken)
        assert store.read("k") is None
        assert not caplog.records  # a runner does it again, and asks often
        assert list(store.records()) == []
        (said,) = caplog.messages
        assert said.startswith(f"skipped a record that cannot be read: {path}: ")
        caplog.clear()
    path.write_text(whole)
    store.path("tensors", "k", ".safetensors").unlink()
    assert store.read("k") is None  # the record promises weights that are not there
    assert list(store.records()) == []
    assert caplog.messages[0].endswith("k.safetensors, but there is no such file")


def test_a_record_under_another_name_is_none(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write(record("j"), {})
    path = store.path("results", "j").rename(store.path("results", "k"))
    assert store.read("k") is None
    assert list(store.records()) == []
    assert caplog.messages == [f"skipped a record that cannot be read: {path}: key: expected 'k', but got 'j'"]


def test_damaged_tensors_are_named_with_what_to_do(store: Store) -> None:
    store.write(record(), {"w": torch.zeros(2)})
    path = store.path("tensors", "k", ".safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"cannot read '.*tensors/k\.safetensors'.*; remove that file and run"):
        store.tensors("k")
    path.unlink()
    assert not store.has("k")


def test_a_failure_is_no_result_and_goes_when_there_is_one(store: Store) -> None:
    store.write_failure("k", {"reason": "why", "traceback": "where"})
    assert not store.has("k")
    assert json.loads(store.path("failures", "k").read_text())["traceback"] == "where"
    store.write(record(), {})
    assert names(store) == ["results/k.json"]


def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(record(name="first"), {})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; what is finished is kept: .*run the same command"):
        store.write(record(name="second"), {"w": torch.zeros(3)})
    with pytest.raises(OSError, match="what is finished is kept"):
        store.write_failure("j", {})
    monkeypatch.undo()
    assert store.read("k") == record(name="first")
    assert names(store) == ["results/k.json"]


def test_a_limit_on_file_sizes_leaves_no_half_file(tmp_path: Path) -> None:
    # A real refusal by the kernel in the middle of a write, in a process of its own.
    Store(tmp_path).write(record("small"), {})
    code = (
        "import resource, signal, sys, torch\n"
        "from dataclasses import replace\n"
        "from benchmarks.suites.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "big = replace(store.read('small'), key='big')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "for values in (replace(big, name='x' * 9000), {}), (big, {'w': torch.zeros(9000)}):\n"
        "    try:\n        store.write(*values)\n    except OSError as error:\n        print('REFUSED', error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert shown.stdout.count("REFUSED") == shown.stdout.count("what is finished is kept") == 2
    assert names(Store(tmp_path)) == ["results/small.json"]


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"expected out to be a folder that can be written to, but got '.*taken'"):
        Store(tmp_path / "taken")

    def refused(value: object, path: Path) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(module, "write_json", refused)
    with pytest.raises(OSError, match="Read-only file system"):
        Store(tmp_path / "other")


def test_a_folder_is_opened_while_another_runner_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(value: object, path: Path) -> Path:
        written = write_json(value, path)
        monkeypatch.undo()
        Store(tmp_path)  # the other writes its probe, and removes it, before this one removes its own
        return written

    monkeypatch.setattr(module, "write_json", write)
    assert names(Store(tmp_path)) == []


def test_leftovers_of_killed_processes_are_swept_but_not_of_living_ones(store: Store) -> None:
    old, new = store.root / "results" / ".k.json.1.tmp", store.root / "results" / ".j.json.2.tmp"
    old.write_text("{")
    new.write_text("{")
    os.utime(old, (time.time() - STALE - 1,) * 2)
    Store(store.root)
    assert names(store) == ["results/.j.json.2.tmp"]
    assert list(store.records()) == []


def test_a_claim_is_one_runners_until_it_is_released(store: Store) -> None:
    mine = store.claim("k")
    assert mine is not None
    assert store.claim("k") is None
    assert store.claim("other") is not None
    mine.release()
    mine.release()  # once more does no harm
    again = store.claim("k")
    assert again is not None
    again.release()


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "k.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom benchmarks.suites.store import Claim\n"
        "claim = Claim.take(Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert Claim.take(path) is None
        holder.kill()
        holder.wait()
    found = Claim.take(path)
    assert found is not None
    found.release()


def test_a_lock_on_a_removed_file_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    path = tmp_path / "k.lock"
    lock = fcntl.flock

    def removed_meanwhile(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        path.unlink()

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    assert Claim.take(path) is None
