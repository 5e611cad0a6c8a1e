"""``python -m benchmarks.speed gpu``: revisions of ResNet-18 at CIFAR size on a GPU: seconds, memory, the same bits.

Images are random: only time, memory and bits are asked for. Every recipe runs three times: once to warm up, and twice
with one seed, whose weights must not differ; in float32 and, through Accelerate, in bfloat16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import algorithms
from unlearn_kit import UnlearnResult, UnlearnTask, models
from unlearn_kit.data import TensorImages
from unlearn_kit.files import write_json
from unlearn_kit.memory import device_peak, reset_device_peak
from unlearn_kit.modules import same_state

# The headline recipes as they are, and the reference for one epoch.
RECIPES: dict[str, dict[str, Any]] = {
    "perturbed_sign": {},
    "erase_to_retain": {"rounds": 1, "restore_epochs": 0},
    "boundary_shrink": {},
    "neg_grad_plus": {},
    "retrain": {"epochs": 1},
}
MIB = 2**20


def images(count: int, seed: int) -> TensorImages:
    """Return random images of ten classes, held as bytes."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, 3, 32, 32), generator=source, dtype=torch.uint8)
    return TensorImages(x, torch.arange(count) % 10)


def measure(network: str, count: int, device: str, precision: str, recipes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row a recipe: the seconds of a revision, peak memory, and whether two of one seed are the same bits."""
    task = UnlearnTask.forget_class(images(count, 0), images(max(count // 5, 100), 1), 0)
    model = models.build(network, 10, channels=3, seed=0).to(device)
    rows = []
    for name in recipes:
        algorithm: Callable[..., UnlearnResult] = getattr(algorithms, name)
        options = dict(RECIPES[name])
        if precision != "float32":
            from accelerate import Accelerator

            options["accelerator"] = Accelerator(mixed_precision="bf16", cpu=torch.device(device).type == "cpu")
        algorithm(model, task, **options)
        made = []
        reset_device_peak(device)
        for _ in range(2):
            began = time.perf_counter()
            result = algorithm(model, task, seed=1, **options)
            _wait(device)
            made.append((time.perf_counter() - began, result))
        peak = device_peak(device)
        (_, first), (seconds, second) = made
        rows.append(
            {
                "recipe": name,
                "precision": precision,
                "seconds": seconds,
                "device MiB": None if peak is None else peak / MIB,
                "same bits": same_state(first.model, second.model),
            }
        )
    return rows


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every recipe in both precisions and print the table."""
    parser = argparse.ArgumentParser(description="Seconds and memory of revisions on a GPU.")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the rows")
    given = parser.parse_args(arguments)
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("expected a GPU for --device cuda, but torch sees none")
    rows: list[dict[str, Any]] = []
    for precision in ("float32", "bfloat16"):
        rows += measure(given.network, given.images, given.device, precision, given.recipes)
        if given.out is not None:  # after each precision: a limit of time may end the rest
            write_json({"torch": torch.__version__, "network": given.network, "rows": rows}, given.out)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
