"""``python -m benchmarks.speed scale``: time and memory of what comes before the first step, against the data's size.

Images are made when they are read, as those of files are decoded, and labels are a list of ints, as torchvision holds
them. Every size has a process of its own. Memory is the most that a stage adds to what the process held before it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

from algorithms import finetune
from unlearn_kit import UnlearnTask, data
from unlearn_kit.engine import resumable
from unlearn_kit.hashing import known_by
from unlearn_kit.memory import reset_resident_peak, resident_peak

SIZES = (10_000, 100_000, 1_280_000)
CLASSES, SIDE, MIB = 1000, 8, 2**20


class Lazy(Dataset[tuple[Tensor, int]]):
    """Images that are made when they are read, and how many were."""

    def __init__(self, count: int, seed: int) -> None:
        drawn = torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed))
        self.targets: list[int] = drawn.tolist()
        self.read = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read += 1
        return torch.full((3, SIDE, SIDE), (index % 251) / 251), self.targets[index]


def measure(count: int) -> list[tuple[str, float, float | None, int]]:
    """Return of every stage its name, wall seconds, MiB beyond what was held before, and the images that it read."""
    import pandas as pd

    train, test = Lazy(count, 0), Lazy(max(count // 25, 2 * CLASSES), 1)
    train_table = pd.DataFrame({"year": torch.arange(len(train)).remainder(12).numpy() + 2010})
    test_table = pd.DataFrame({"year": torch.arange(len(test)).remainder(12).numpy() + 2010})
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES))
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(2))[: count // 100]
    tasks: list[UnlearnTask] = []
    with tempfile.TemporaryDirectory() as folder:

        def resumed() -> None:
            with resumable(folder, seconds=0):
                finetune(model, tasks[0], steps=2, batch_size=8)

        stages: dict[str, Callable[[], object]] = {
            "task: a class": lambda: tasks.append(UnlearnTask.forget_class(train, test, 3)),
            "task: samples": lambda: UnlearnTask.forget_samples(train, test, chosen),
            "task: a tenth": lambda: UnlearnTask.forget_random(train, test, 0.1),
            "task: metadata": lambda: UnlearnTask.forget_where(
                train, test, train_table, test_table, data.where("year == 2013")
            ),
            "a revision of 2 steps": lambda: finetune(model, tasks[0], steps=2, batch_size=8),
            "the same, resumable": resumed,
            "hash for a cache": lambda: known_by(train),
        }
        finetune(model, UnlearnTask.forget_class(test, test, 3), steps=1, batch_size=8)  # imports
        rows = []
        for name, stage in stages.items():
            read = train.read + test.read
            reset_resident_peak()
            held, began = resident_peak(), time.perf_counter()
            stage()
            seconds, peak = time.perf_counter() - began, resident_peak()
            added = None if held is None or peak is None else (peak - held) / MIB
            rows.append((name, seconds, added, train.read + test.read - read))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description="Time and memory before the first step, against the size of the data.")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="training images")
    parser.add_argument("--one", type=int, default=None, help="print the JSON of one size")
    given = parser.parse_args(arguments)
    if given.one is not None:
        print(json.dumps(measure(given.one)))
        return
    table = Table("images", "stage", "seconds", "MiB", "images read")
    for count in given.sizes:
        command = [sys.executable, "-m", "benchmarks.speed.scale", "--one", str(count)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, seconds, added, read in json.loads(ended.stdout.splitlines()[-1]):
            table.add_row(f"{count:,}", name, f"{seconds:.2f}", "-" if added is None else f"{added:.0f}", f"{read:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
