"""Functions called on one object in several processes, their answers in order: what an audit spreads its runs over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from ..processes import Pool


class Workers:
    """A :class:`~unlearn_kit.processes.Pool` whose answers come in the order of their jobs; a context manager.

    Args:
        held: What every process gets a copy of, once; it must be possible to pickle.
        count: Processes, each on one thread.
    """

    def __init__(self, held: Any, count: int) -> None:
        self._pool = Pool(held, count)
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
        self._call = None
        self._pool.close()

    def _each(self, function: Callable[..., Any], jobs: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
        running: list[int] = []  # in their order
        found: dict[int, Any] = {}
        while True:
            running += [self._pool.submit(function, *job) for job in islice(jobs, self._pool.free())]
            while running and running[0] in found:
                yield found.pop(running.pop(0))
            if not running:
                return
            for answer in self._pool.wait():
                if answer.error is not None:
                    raise answer.error
                found[answer.job] = answer.value
