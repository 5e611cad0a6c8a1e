"""``python -m benchmarks.speed loop``: what a step of ``engine.fit`` costs beyond the same step in a bare PyTorch loop.

A network so small that its arithmetic is nothing, one thread, CPU time; both ways in turns, and the median of their
differences. ``--beside FOLDER`` measures another checkout of the repository in the same run: before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Phase, fit

BATCH = 32


def images(count: int, seed: int) -> TensorImages:
    """Return random images of three classes."""
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=source), torch.randint(3, (count,), generator=source))


FORGET, RETAIN = images(64, 0), images(256, 1)


def network(layers: int) -> nn.Module:
    """Return a network of so many hidden layers of 16 units."""
    torch.manual_seed(0)
    hidden = [part for _ in range(layers - 1) for part in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), *hidden, nn.Linear(16, 3))


def bare(layers: int, steps: int) -> None:
    """Train by hand: away from the labels of the forget data, toward those of the retain data."""
    model = network(layers).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(steps):
        forget, retain = (torch.randperm(len(data))[:BATCH] for data in (FORGET, RETAIN))
        optimizer.zero_grad(set_to_none=True)
        away = F.cross_entropy(model(FORGET.inputs[forget]), FORGET.targets[forget])
        (F.cross_entropy(model(RETAIN.inputs[retain]), RETAIN.targets[retain]) - away).backward()
        optimizer.step()


def ours(layers: int, steps: int) -> None:
    """Train the same by the engine."""
    objective = L.cross_entropy(on="retain") - L.cross_entropy(on="forget")
    fit(network(layers), Phase(objective, {"forget": FORGET, "retain": RETAIN}, steps=steps, batch_size=BATCH))


def per_step(train: Callable[[int, int], None], layers: int, steps: int) -> float:
    """Return the milliseconds of CPU time a step."""
    began = time.process_time()
    train(layers, steps)
    return (time.process_time() - began) / steps * 1000


def measure(layers: int, steps: int, repeats: int) -> list[tuple[float, float]]:
    """Return milliseconds a step by hand and by the engine, one pair a repeat."""
    torch.set_num_threads(1)
    for train in (bare, ours):
        train(layers, 20)
    return [(per_step(bare, layers, steps), per_step(ours, layers, steps)) for _ in range(repeats)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in processes of their own, of this checkout and of another in turns."""
    parser = argparse.ArgumentParser(description="Milliseconds of CPU time that a step costs over a bare loop.")
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 30], help="hidden layers of the network")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", type=Path, default=None, help="another checkout of the repository")
    parser.add_argument("--one", type=int, default=None, help="print the JSON of one pair of so many layers")
    given = parser.parse_args(arguments)
    if given.one is not None:
        print(json.dumps(measure(given.one, given.steps, 1)))
        return
    here = Path(__file__).parents[2]
    checkouts = {"here": here} | ({} if given.beside is None else {str(given.beside): given.beside})
    for layers in given.layers:
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
        for _ in range(given.repeats):
            for name, folder in checkouts.items():
                # This script, whatever the other checkout has, on the library of each.
                command = [sys.executable, str(Path(__file__)), "--one", str(layers), "--steps", str(given.steps)]
                environment = os.environ | {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1"}
                ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                pairs[name] += json.loads(ended.stdout.splitlines()[-1])
        for name, found in pairs.items():
            alone, engine = median(one for one, _ in found), median(other for _, other in found)
            over = median(other - one for one, other in found)
            print(f"{layers} layers, {name}: bare {alone:.2f} ms, engine {engine:.2f} ms, over it {over:.2f} ms a step")


if __name__ == "__main__":
    main()
