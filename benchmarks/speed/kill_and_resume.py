"""Kill a run (SIGKILL) at random moments, resume it, and compare with an uninterrupted one.

``python -m benchmarks.speed.kill_and_resume [SUITE] [--kills 10] [--workers 2]``: leaves with 1 when a finished run is
repeated, a file is half-written, or any result differs in anything but its cost.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..suites.store import Store

COMMAND = (sys.executable, "-c", "from benchmarks.cli import main; main()", "run")


def main() -> int:
    """Run the check, print what happened, and return 1 when there are faults."""
    parser = argparse.ArgumentParser(description="Kill a run at random moments, resume it, compare.")
    parser.add_argument("suite", nargs="?", default="quick")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default=None)
    given = parser.parse_args()
    options = ["--workers", str(given.workers), *([] if given.only is None else ["--only", given.only])]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        started = time.monotonic()
        subprocess.run([*COMMAND, given.suite, "--out", str(whole), *options], check=True, stderr=subprocess.DEVNULL)
        print(f"uninterrupted: {len(times(whole))} nodes in {time.monotonic() - started:.0f} s")
        faults = kill_often(
            [*COMMAND, given.suite, "--out", str(killed), *options], killed, len(times(whole)), given.kills
        )
        faults += compare(whole, killed)
    for fault in faults:
        print(f"FAULT {fault}")
    print("results are equal; nothing was repeated or half-written" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


def kill_often(command: list[str], out: Path, total: int, kills: int) -> list[str]:
    """Kill the command ``kills`` times, each once some more nodes are finished, then let it end.

    Args:
        command: What is run.
        out: The folder that it writes.
        total: How many nodes it has to finish.
        kills: How often it is killed.

    Returns:
        The faults, in words.
    """
    faults = []
    before: dict[str, int] = {}
    for kill in range(kills):
        # Somewhere in its own share of the nodes: early and late moments alike.
        target = int(total * (kill + random.random()) / kills)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(times(out)) < target:
                time.sleep(0.02)
            time.sleep(random.random())
            process.kill()
        now = times(out)
        faults += [f"{name} was written again" for name in before if now.get(name) != before[name]]
        for path in (out / "results").glob("*.json"):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                faults.append(f"{path.name} is half-written")
        before = now
        print(f"killed with {len(now)} of {total} nodes finished", flush=True)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    now = times(out)
    return faults + [f"{name} was written again" for name in before if now.get(name) != before[name]]


def compare(one: Path, other: Path) -> list[str]:
    """Return where the records of two folders differ, costs aside."""
    first, second = records(one), records(other)
    faults = [f"{key} is in one folder only" for key in first.keys() ^ second.keys()]
    return faults + [
        f"{first[key]['name']} differs" for key in first.keys() & second.keys() if first[key] != second[key]
    ]


def records(out: Path) -> dict[str, dict[str, Any]]:
    """Return every record without its cost, by its key."""
    return {r["key"]: {k: v for k, v in r.items() if k != "cost"} for r in Store(out, create=False).records()}


def times(out: Path) -> dict[str, int]:
    """Return when each record was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}


if __name__ == "__main__":
    sys.exit(main())
