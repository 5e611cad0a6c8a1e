"""The pool of worker processes: places, deaths, errors."""

from __future__ import annotations

import multiprocessing
import operator
import os

import pytest

from unlearn_kit import processes
from unlearn_kit.processes import Pool, WorkerDiedError


def test_each_process_keeps_its_place_and_hands_it_on_when_it_dies() -> None:
    pool = Pool(10, 2, prepare=operator.add)  # each holds 10 plus its place
    try:
        jobs = [pool.submit(divmod, 4) for _ in range(2)]
        assert pool.free() == 0
        with pytest.raises(RuntimeError, match="expected a free process, but all 2 are at work"):
            pool.submit(divmod, 4)
        found = []
        while len(found) < 2:
            found += pool.wait()
        assert {answer.job: answer.value for answer in found} == {jobs[0]: (2, 2), jobs[1]: (2, 3)}
        # The job that kills its process is alone in being lost, and says how: its place is its exit code's last digit.
        dying = pool.submit(os._exit)
        (lost,) = pool.wait()
        assert (lost.job, lost.value, type(lost.error)) == (dying, None, WorkerDiedError)
        place = int(str(lost.error)[-2])
        assert str(lost.error) == f"a worker process died (exit code {10 + place})"
        again = {pool.submit(operator.mul, 1), pool.submit(operator.mul, 1)}
        found = []
        while len(found) < 2:
            found += pool.wait()
        assert {answer.job for answer in found} == again
        assert sorted(answer.value for answer in found) == [10, 11]
        assert pool.wait(0.01) == []
    finally:
        pool.close()
    assert multiprocessing.active_children() == []


def test_an_error_keeps_its_kind_and_tells_where_it_was() -> None:
    try:
        divmod(1, 0)
    except ZeroDivisionError as error:
        _, got = processes._unpack(processes._failure(error))
    assert type(got) is ZeroDivisionError
    assert "in a worker process:\nTraceback" in got.__notes__[0]

    class LocalError(Exception):
        """Cannot be found by its name."""

    _, got = processes._unpack(processes._failure(LocalError("odd")))
    assert type(got) is RuntimeError
