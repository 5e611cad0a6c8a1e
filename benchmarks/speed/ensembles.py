"""``python -m benchmarks.speed.ensembles``: networks trained at once against one after the other.

Same work both ways: the digits, the same subsets, batches and steps, one thread, one process; weights are built and
data are read on both sides. The times are of the process's CPU, which a busy machine disturbs less than wall time.
The sequential loop trains fewer networks and is scaled up, since it costs the same for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unlearn_kit import data, models
from unlearn_kit.audits.ensembles import train_ensemble


def measure(
    network: str,
    count: int,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    alone: int = 4,
    repeats: int = 3,
    chunk: int = 64,
) -> dict[str, Any]:
    """Measure the CPU seconds of a network, both ways: the smallest of ``repeats``, taken in turns.

    Args:
        network: Its name.
        count: How many are trained at once.
        epochs: Of each training.
        batch_size: Of each training.
        alone: How many are trained one after the other.
        repeats: How often both ways are measured.
        chunk: How many are stacked.

    Returns:
        The seconds of a network both ways, their ratio, and what was asked.
    """
    digits = data.load("digits").train
    half = len(digits) // 2
    subsets = [torch.randperm(len(digits), generator=torch.Generator().manual_seed(i))[:half] for i in range(count)]

    def seconds(mode: Any, number: int) -> float:
        began = time.process_time()
        train_ensemble(
            lambda: models.build(network, 10),
            digits,
            subsets[:number],
            seeds=range(number),
            epochs=epochs,
            batch_size=batch_size,
            mode=mode,
            chunk=chunk,
        )
        return (time.process_time() - began) / number

    for mode in ("sequential", "vmap"):  # What torch imports at the first step is nobody's cost.
        seconds(mode, 1)
    taken = [(seconds("sequential", min(alone, count)), seconds("vmap", count)) for _ in range(repeats)]
    one, many = (min(column) for column in zip(*taken, strict=True))
    return {
        "network": network,
        "models": count,
        "sequential_seconds": one,
        "ensemble_seconds": many,
        "ratio": one / many,
        "epochs": epochs,
        "samples": half,
        "batch_size": batch_size,
        "chunk": chunk,
        "repeats": repeats,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.ensembles", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["mlp", "small-cnn"], choices=["mlp", "small-cnn"])
    parser.add_argument("--models", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--alone", type=int, default=4, help="networks that the sequential loop trains")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=64, help="networks at once")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [
            measure(
                network,
                count,
                epochs=chosen.epochs,
                batch_size=chosen.batch_size,
                alone=chosen.alone,
                repeats=chosen.repeats,
                chunk=chosen.chunk,
            )
            for network in chosen.networks
            for count in chosen.models
        ]
    finally:
        torch.set_num_threads(threads)
    if chosen.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(title="CPU milliseconds a network, one thread", caption="ratio: sequential over at once")
    for heading in ("network", "models", "one after the other", "at once", "ratio"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in rows:
        times = (f"{1000 * row[key]:.1f}" for key in ("sequential_seconds", "ensemble_seconds"))
        table.add_row(row["network"], str(row["models"]), *times, f"{row['ratio']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
