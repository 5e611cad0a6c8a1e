"""Worker processes of this machine: each with a pipe of its own and a fixed number of threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Worker(NamedTuple):
    """A process, and this end of the pipe to it."""

    process: Any
    pipe: connection.Connection

    def end(self) -> str:
        """Wait until it is gone, and return how it ended: a signal's name, or an exit code."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def start_worker(life: Callable[..., None], *arguments: Any, threads: int) -> Worker:
    """Start a process that runs ``life(pipe, *arguments)``, with the other end of the pipe.

    It is a fresh one (spawned, not forked), imports the script that started it, and should begin by
    :func:`settle_in`. Numerical libraries get ``threads`` threads.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=life, args=(theirs, *arguments), daemon=True)
    # Read once, when a library is loaded: before the process has said anything of its own.
    known = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        process.start()
    finally:
        for name, value in known.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    return Worker(process, mine)


def settle_in(threads: int) -> None:
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
