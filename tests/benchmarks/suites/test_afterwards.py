"""What a killed process had started ends with it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks.suites import afterwards

psutil = pytest.importorskip("psutil")

# A child in a session of its own, as a cluster's agents are, that nobody tells of its parent's end.
STARTS = """
import subprocess, sys, time
from benchmarks.suites.afterwards import descendants, watch_over_children
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
before = descendants()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
guard = watch_over_children(before)
print(child.pid, guard.pid, other.pid, flush=True)
if "dismiss" in sys.argv:
    child.kill(); child.wait(); guard.communicate()
else:
    time.sleep(60)
"""


def ended(pid: int, within: float = 20) -> bool:
    """Whether a process is gone, or waits to be collected, in so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("how", ["kill", "dismiss"])
def test_children_end_with_a_maker_that_is_killed_and_the_guard_with_one_that_dismisses_it(how: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS, how], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        child, guard, other = map(int, maker.stdout.readline().split())
        if how == "kill":
            assert not ended(child, within=0.1)
            maker.kill()
        assert ended(child)
        assert ended(guard)
        assert not ended(other, within=0.1)  # which was there before
        psutil.Process(other).kill()


def test_another_process_with_the_number_of_one_that_is_gone_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        command = [sys.executable, afterwards.__file__, f"{child.pid}:1.0"]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        assert child.poll() is None
        child.kill()
