"""What a wanted forget level costs to find: ``python -m benchmarks.studies.tuning --data digits --out DIR``.

The search of ``tune_tradeoff`` beside a grid and a simplex search of the same budget, all stopping where the target is
reached, on the same splits of the training data; neither held-out data nor a reference is read.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, get_args

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import algorithms
from unlearn_kit import UnlearnTask, load_model, save_model
from unlearn_kit.data import load
from unlearn_kit.engine import train
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import write_json
from unlearn_kit.metrics import summary
from unlearn_kit.seeding import isolated
from unlearn_kit.tuning import tune_tradeoff
from unlearn_kit.tuning.search import Method as Search

from ..demo.config import DemoConfig
from ..setup.methods import Method
from ..setup.recipes import RECIPES, Blueprint


def study(
    data: str,
    *,
    seeds: list[int],
    targets: list[float],
    method: Method,
    bounds: tuple[float, float],
    budget: int,
    out: Path,
) -> list[dict[str, Any]]:
    """Return every search for every target, for originals trained with each seed; one record each."""
    recipe, bundle, found = RECIPES[data], load(data), []
    task = UnlearnTask.forget_class(bundle.train, bundle.test, 0, num_classes=bundle.num_classes)
    for seed in seeds:
        with isolated(seed):
            model = Blueprint(recipe.model, bundle.num_classes, channels=bundle.train[0][0].shape[0])()
        kept = out / "models" / f"{data}-original-{seed}.safetensors"
        if kept.exists():
            model = load_model(model, kept)
        else:
            model = train(model, bundle.train, seed=seed, **DemoConfig(data=data).training).model
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_model(model, kept)
        for target in targets:
            for search in get_args(Search):
                began = time.perf_counter()
                tuned = tune_tradeoff(
                    getattr(algorithms, method.name),
                    model.eval(),
                    task,
                    target=target,
                    bounds=bounds,
                    budget=budget,
                    method=search,
                    seed=seed,
                    **method.options,
                )
                found.append(
                    {
                        "seed": seed,
                        "target": target,
                        "search": search,
                        "reached": tuned.reached,
                        "forget": tuned.forget,
                        "retain": tuned.retain,
                        "value": tuned.value,
                        "runs": tuned.runs,
                        "seconds": time.perf_counter() - began,
                    }
                )
    return found


def table(records: list[dict[str, Any]]) -> Table:
    """Return targets and searches, over the seeds."""
    made = Table(
        box=SIMPLE_HEAD, caption="level: on forget data that the inner runs did not see", caption_justify="left"
    )
    for heading in ("target", "search", "reached", "distance", "inner runs", "seconds"):
        made.add_column(heading, justify="left" if heading == "search" else "right")
    for target in sorted({record["target"] for record in records}):
        made.add_section()
        for search in get_args(Search):
            rows = [r for r in records if (r["target"], r["search"]) == (target, search)]
            distance, runs, seconds = (
                summary(values)
                for values in (
                    [abs(r["forget"] - target) for r in rows],
                    [r["runs"] for r in rows],
                    [r["seconds"] for r in rows],
                )
            )
            if distance is None or runs is None or seconds is None:
                continue
            reached = f"{sum(r['reached'] for r in rows)} of {len(rows)}"
            cells = (f"{distance.mean:.3f}", f"{runs.mean:.1f}", f"{seconds.mean:.0f}")
            made.add_row(f"{target:g}", search, reached, *cells)
    return made


def main() -> None:
    """Read the command line, measure, print, write ``tuning.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.tuning", description=__doc__)
    parser.add_argument(
        "--data", default="digits", choices=[n for n, r in RECIPES.items() if r.kind == "classification"]
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--targets", default="0.2,0.5")
    parser.add_argument(
        "--method", default="perturbed_sign:steps=15", help="NAME:OPTION=VALUE; its retain_weight is tuned"
    )
    parser.add_argument("--bounds", default="0.1,1000")
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("out/tuning"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    low, high = (float(part) for part in given.bounds.split(","))
    records = study(
        given.data,
        seeds=[int(part) for part in given.seeds.split(",")],
        targets=[float(part) for part in given.targets.split(",")],
        method=Method(given.method),
        bounds=(low, high),
        budget=given.budget,
        out=given.out,
    )
    write_json(
        {
            "command": "tuning_study",
            "arguments": {k: str(v) for k, v in vars(given).items()},
            "versions": versions(),
            "records": records,
        },
        given.out / "tuning.json",
    )
    Console().print(table(records))


if __name__ == "__main__":
    main()
