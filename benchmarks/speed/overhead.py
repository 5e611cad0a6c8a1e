"""What a run's own machinery costs: the wall time that no worker spent on a node.

``python -m benchmarks.speed.overhead [SUITE] [--workers 2] [--only PATTERN] [--out DIR]`` runs what of a suite is not
in the folder yet (a new one unless given). A worker's wall time is start-up, work on nodes, and waiting (for the runner
to plan, hand out and write, or for a node that another one needs). All but the work is overhead here, so the figure is
an upper bound, and falls with the suite's length.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..suites import read_suite
from ..suites.runner import run_suite


def main() -> None:
    """Run the suite and print its overhead."""
    parser = argparse.ArgumentParser(description="The share of the wall time that no worker spends on a node.")
    parser.add_argument("suite", nargs="?", default="quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default=None)
    parser.add_argument("--out", type=Path, default=None, help="keep the results in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = given.out if given.out is not None else Path(folder)
        summary = run_suite(read_suite(given.suite), out, workers=given.workers, only=given.only, progress=True)
    wall, worked = summary.seconds, summary.worked
    print(f"{len(summary.done)} nodes: {wall:.1f} s of wall time, {worked:.1f} s of work on {given.workers} workers")
    print(f"overhead {1 - worked / given.workers / wall:.1%}")


if __name__ == "__main__":
    main()
