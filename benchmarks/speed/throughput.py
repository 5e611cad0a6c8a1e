"""How much faster two workers are than one.

``python -m benchmarks.speed.throughput [SUITE] [--only PATTERN]`` runs the suite in two new folders and prints the
ratio of the wall times. Other work on the machine spoils it.
"""

from __future__ import annotations

import argparse
import tempfile

from ..suites import read_suite
from ..suites.runner import run_suite


def main() -> None:
    """Run the suite twice and print the ratio of the wall times."""
    parser = argparse.ArgumentParser(description="Wall time of a suite with one worker and with two.")
    parser.add_argument("suite", nargs="?", default="quick")
    parser.add_argument("--only", default=None)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    seconds = {}
    for workers in (1, given.workers):
        with tempfile.TemporaryDirectory() as folder:
            summary = run_suite(read_suite(given.suite), folder, workers=workers, only=given.only)
        seconds[workers] = summary.seconds
        print(f"{workers} workers: {len(summary.done)} nodes in {summary.seconds:.1f} s", flush=True)
    print(f"ratio {seconds[1] / seconds[given.workers]:.2f}")


if __name__ == "__main__":
    main()
