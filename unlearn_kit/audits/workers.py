"""Worker processes that each hold one object and call functions on it: what an audit spreads its runs over."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import connection
from typing import Any

import torch

from ..processes import Worker, settle_in, start_worker


class Workers:
    """Up to ``count`` processes, started when there is work, each on one thread; a context manager that ends them.

    Args:
        held: what every process gets a copy of, once; it must be possible to pickle.
        count: processes.

    A process imports the script that started it, which therefore has to keep its own work under
    ``if __name__ == "__main__":``; functions are sent by name, so that they must be found in a module.
    """

    def __init__(self, held: Any, count: int) -> None:
        self.held, self.count = held, count
        self._workers: list[Worker] = []
        self._there: set[connection.Connection] = set()
        self._call: object = None  # what the processes are working for

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def each(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield ``function(held, *job)`` of every job, in their order, each as soon as those before it are there.

        Where it ends early, by an error or because no more is asked for, all processes are killed; the next call starts
        others.

        Raises:
            Exception: What ``function`` raised, with the process's traceback as a note.
            TypeError: On what cannot be pickled.
            RuntimeError: When a process died.
        """
        if self._call is not None:  # an earlier call that was left, but not closed: its answers would come in
            self.close()
        call = self._call = object()
        try:
            yield from self._each(function, iter(jobs))
        except BaseException:
            if self._call is call:
                self.close()
            raise
        self._call = None

    def close(self) -> None:
        """Kill all processes, and wait until they are gone."""
        workers, self._workers, self._call = self._workers, [], None
        for process, _ in workers:
            process.kill()
        for process, pipe in workers:
            process.join()
            pipe.close()
        self._there.clear()

    def _each(self, function: Callable[..., Any], jobs: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
        ready = list(islice(jobs, self.count))
        self._start(len(ready) - len(self._workers))
        free, sent, wanted = list(self._workers), 0, 0
        running: dict[Any, tuple[int, Worker]] = {}
        found: dict[int, Any] = {}
        while True:
            while free and (ready or (ready := list(islice(jobs, 1)))):
                worker = free.pop()
                running[worker.pipe] = (sent, worker)
                _send(worker, _packed((function, ready.pop(0))))
                sent += 1
            while wanted in found:
                yield found.pop(wanted)
                wanted += 1
            if not running:
                return
            for pipe in connection.wait(list(running)):
                place, worker = running[pipe]
                answer = self._received(worker)
                if answer is not None:
                    found[place] = answer[0]
                    del running[pipe]
                    free.append(worker)

    def _start(self, more: int) -> None:
        if more <= 0:
            return
        held, started = _packed(self.held), []
        for _ in range(more):
            started.append(start_worker(_work, threads=1))
            self._workers.append(started[-1])
        for worker in started:
            _send(worker, held)

    def _received(self, worker: Worker) -> tuple[Any] | None:
        """Return an answer; None from a process that says it is there."""
        try:
            data = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            text = f"a worker process died ({worker.end()})"
            if worker.pipe not in self._there:
                text += "; a script that starts workers must do its own work under `if __name__ == '__main__':`"
            raise RuntimeError(text) from None
        if worker.pipe not in self._there:
            self._there.add(worker.pipe)
            return None
        value, error = _unpacked(data)
        if error is not None:
            raise error
        return (value,)


def _send(worker: Worker, data: bytes) -> None:
    # One that is dead already is found when its answer is waited for.
    with suppress(OSError):
        worker.pipe.send_bytes(data)


def _packed(value: Any) -> bytes:
    """Return ``value`` as bytes: tensors in shared memory would die with the process that made them."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)  # unlike pickle's own, it writes memory that tensors share once
    except Exception as error:
        raise TypeError(
            f"expected what workers are sent to be picklable (functions of modules, no lambdas), but got: {error}"
        ) from error
    return buffer.getvalue()


def _unpacked(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)  # from this program's own processes


def _work(pipe: connection.Connection) -> None:
    """Live as a process: take what it holds, then call functions until the program that started it is gone."""
    settle_in(threads=1)
    with suppress(EOFError, OSError):
        pipe.send_bytes(b"there")
        data, held = pipe.recv_bytes(), None
        while True:
            job = pipe.recv_bytes()
            try:
                # Not before: an object that cannot be made here is an error of the first job.
                if data:
                    held, data = _unpacked(data), b""
                function, arguments = _unpacked(job)
                answer = _packed((function(held, *arguments), None))
            except Exception as error:
                answer = _failure(error)
            pipe.send_bytes(answer)


def _failure(error: Exception) -> bytes:
    text = traceback.format_exc()
    error.add_note(f"in a worker process:\n{text}")
    try:
        data = _packed((None, error))
        _unpacked(data)
    except Exception:  # an error of a kind that does not survive pickling, told by its text
        return _packed((None, RuntimeError(text)))
    return data
