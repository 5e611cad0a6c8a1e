"""A process that outlives its maker, however that dies, to end what the maker had started.

    python afterwards.py PID:STARTED ...

It waits until its standard input is closed, which the system does when the maker is killed, and then ends the processes
that it was given: a Ray cluster's agents live on when their cluster is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence


def descendants() -> frozenset[str]:
    """Return the present descendants of this process, each as ``PID:STARTED``."""
    import psutil

    return frozenset(f"{child.pid}:{child.create_time()!r}" for child in psutil.Process().children(recursive=True))


def watch_over_children(others: frozenset[str] = frozenset()) -> subprocess.Popen[bytes]:
    """Start what ends the present descendants of this process once it is gone; close its ``stdin`` to dismiss it.

    Args:
        others: Those that were there before, which are somebody else's and live on.
    """
    started = sorted(descendants() - others)
    command = [sys.executable, __file__, *started]  # as a file: the package would bring in all of torch
    # In a session of its own, so that no signal to the maker's group reaches it.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Wait for the end of the maker, then end the processes."""
    import psutil

    wanted = [text.split(":") for text in (sys.argv[1:] if arguments is None else arguments)]
    sys.stdin.buffer.read()
    for pid, started in wanted:
        try:
            process = psutil.Process(int(pid))
            if process.create_time() == float(started):  # Else another one has its number now.
                process.kill()
        except psutil.Error:
            continue


if __name__ == "__main__":
    main()
