"""A pool of worker processes of this machine: each holds one object and calls functions on it, on its own threads.

Suites spread their nodes over it, audits their trainings.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of a job."""


class Answer(NamedTuple):
    """What came of a job: a value, or the error that ended it.

    Attributes:
        job: The number that :meth:`Pool.submit` returned.
        value: What the function returned.
        error: What it raised, with the process's traceback as a note; a :class:`WorkerDiedError` when its process died.
    """

    job: int
    value: Any = None
    error: Exception | None = None


class _Worker(NamedTuple):
    """A process, this end of the pipe to it, and its place among those of the pool."""

    process: Any
    pipe: connection.Connection
    place: int

    def end(self) -> str:
        """Wait until it is gone, and return how it ended: a signal's name, or an exit code."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


class Pool:
    """Up to ``count`` processes, started when there is work for them.

    A process that dies takes one job with it, and another takes its place. A process imports the script that started
    it, which therefore has to keep its own work under ``if __name__ == "__main__":``; functions are sent by name, so
    that they must be found in a module.

    Args:
        held: What every process gets a copy of, once; it must be possible to pickle.
        count: Processes.
        threads: Threads of each, also of its numerical libraries.
        prepare: Called once in each process as ``prepare(held, place)``, with the process's place from 0 to
            ``count - 1``; what it returns is what functions are called with instead of ``held``.
    """

    def __init__(
        self, held: Any, count: int, *, threads: int = 1, prepare: Callable[[Any, int], Any] | None = None
    ) -> None:
        self.count, self.threads = count, threads
        self._given, self._packed = (prepare, held), b""
        self._vacant = list(reversed(range(count)))
        self._idle: list[_Worker] = []
        self._busy: dict[connection.Connection, tuple[int, _Worker]] = {}
        self._there: set[connection.Connection] = set()
        self._jobs = 0

    def free(self) -> int:
        """Return how many more jobs are taken now."""
        return self.count - len(self._busy)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Begin ``function(held, *arguments)`` in a process, and return the number of the job.

        Raises:
            TypeError: On what cannot be pickled; no process is started for it.
            RuntimeError: When no process is free.
        """
        if not self.free():
            raise RuntimeError(f"expected a free process, but all {self.count} are at work")
        job = _pack((function, arguments))
        worker = self._idle.pop() if self._idle else self._start()
        number, self._jobs = self._jobs, self._jobs + 1
        self._busy[worker.pipe] = (number, worker)
        _send(worker, job)
        return number

    def wait(self, timeout: float | None = None) -> list[Answer]:
        """Return what ended since the last call; wait for at least one, but no longer than ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        found: list[Answer] = []
        while self._busy and not found:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = connection.wait(list(self._busy), left)
            if not ready:
                break
            found += [answer for pipe in ready if (answer := self._receive(*self._busy[pipe])) is not None]  # type: ignore[index]
        return found

    def close(self) -> None:
        """Kill all processes, and wait until they are gone; a later job starts others."""
        workers = [*self._idle, *(worker for _, worker in self._busy.values())]
        self._idle, self._busy = [], {}
        self._there.clear()
        self._vacant = list(reversed(range(self.count)))
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()

    def _start(self) -> _Worker:
        self._packed = self._packed or _pack(self._given)
        place = self._vacant.pop()
        process, pipe = start_process(_live, self.threads, place)
        worker = _Worker(process, pipe, place)
        _send(worker, self._packed)
        return worker

    def _receive(self, job: int, worker: _Worker) -> Answer | None:
        """Return an answer; None from a process that says it is there."""
        try:
            data = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            return Answer(job, error=self._dead(worker))
        if worker.pipe not in self._there:
            self._there.add(worker.pipe)
            return None
        del self._busy[worker.pipe]
        self._idle.append(worker)
        return Answer(job, *_unpack(data))

    def _dead(self, worker: _Worker) -> WorkerDiedError:
        text = f"a worker process died ({worker.end()})"
        if worker.pipe not in self._there:
            text += "; a script that starts workers must do its own work under `if __name__ == '__main__':`"
        self._there.discard(worker.pipe)
        del self._busy[worker.pipe]
        self._vacant.append(worker.place)
        worker.pipe.close()
        return WorkerDiedError(text)


def start_process(life: Callable[..., None], threads: int, *arguments: Any) -> tuple[Any, connection.Connection]:
    """Start a process that runs ``life(pipe, threads, *arguments)``; return it and the other end of the pipe.

    It is a fresh one (spawned, not forked). Numerical libraries get ``threads`` threads.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=life, args=(theirs, threads, *arguments), daemon=True)
    # Read once, when a library is loaded: before the process has said anything of its own.
    known = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        process.start()
    finally:
        for name, value in known.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    return process, mine


def _send(worker: _Worker, data: bytes) -> None:
    # One that is dead already is found when its answer is waited for.
    with suppress(OSError):
        worker.pipe.send_bytes(data)


def _pack(value: Any) -> bytes:
    """Return ``value`` as bytes: tensors in shared memory would die with the process that made them."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)  # unlike pickle's own, it writes memory that tensors share once
    except Exception as error:
        raise TypeError(
            f"expected what workers are sent to be picklable (functions of modules, no lambdas), but got: {error}"
        ) from error
    return buffer.getvalue()


def _unpack(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)  # from this program's own processes


def _live(pipe: connection.Connection, threads: int, place: int) -> None:
    """Live as a process: take what it holds, then call functions until the program that started it is gone."""
    _settle_in(threads)
    with suppress(EOFError, OSError):
        pipe.send_bytes(b"there")
        data, held = pipe.recv_bytes(), None
        while True:
            job = pipe.recv_bytes()
            try:
                # Not before: an object that cannot be made here is an error of the first job.
                if data:
                    prepare, held = _unpack(data)
                    held, data = held if prepare is None else prepare(held, place), b""
                function, arguments = _unpack(job)
                answer = _pack((function(held, *arguments), None))
            except Exception as error:
                answer = _failure(error)
            pipe.send_bytes(answer)


def _failure(error: Exception) -> bytes:
    text = traceback.format_exc()
    error.add_note(f"in a worker process:\n{text}")
    try:
        data = _pack((None, error))
        _unpack(data)
    except Exception:  # an error of a kind that does not survive pickling, told by its text
        return _pack((None, RuntimeError(text)))
    return data


def _settle_in(threads: int) -> None:
    """Take a worker process's threads, leave interruptions to the process that started it, and end with that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # It may be killed while this works for minutes: nobody would want the result.
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)


def _leave_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
