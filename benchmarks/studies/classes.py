"""How near methods come to retraining when a class goes, how deep that is, and at what share of the work.

    python -m benchmarks.studies.classes --classes 0,5,8 --seeds 0,1,2 --methods perturbed_sign:fast --out out/classes

Of every seed one original and, of every class, its references are trained once and kept under ``OUT/models``. Work is
CPU time on one thread as a share of that of retraining, of which one epoch is timed in the same minute; a method runs
three times, and the median counts. Beside the gap stand what only features tell: how often the class is known again
from 1 sample without the head (``audits.few_shot_recovery``), and the margin of the class's logit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import few_shot_recovery
from unlearn_kit.data import load
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import plain, write_json, write_text
from unlearn_kit.metrics import evaluate

from ..setup.recipes import RECIPES
from .samples import Memorised, SampleStudy

COLUMNS = ("forget", "retain", "test", "membership", "average_gap", "head_free", "margin", "speed")
HEAD = f"| class | seed | method | {' | '.join(COLUMNS)} |\n|" + "---|" * (3 + len(COLUMNS))


class ClassStudy(SampleStudy):
    """One class and one seed; the original is that of all classes."""

    repeats = 3

    def run(self, methods: Sequence[str], references: int) -> None:
        """Judge the references, the original and every method."""
        task, original = self.case.task(self.seed), self.original()
        retrained = [self.reference(number, task) for number in range(references)]
        base = evaluate(retrained[0], task)
        for number, model in enumerate(retrained, 1):
            self.judge("reference" if number == 1 else f"reference {number}", model, task, base)
        self.judge("original", original, task, base)
        for text in methods:
            whole = self.retraining_seconds(task)
            spent = []
            for _ in range(self.repeats):
                started = time.process_time()
                made = self._revise(original, task, text)
                spent.append(time.process_time() - started)
            self.judge(text, made.model, task, base, whole / statistics.median(spent))

    def judge(self, name: str, model: nn.Module, task: UnlearnTask, base: Any, speed: float | None = None) -> None:
        """Note a row and show it."""
        found = evaluate(model, task, reference=base).as_dict()
        few = few_shot_recovery(model, task, seed=self.seed)
        row = {"class": self.case.forget, "seed": self.seed, "method": name, "speed": speed}
        row |= {key: found[key] for key in COLUMNS if key in found}
        if few is not None:
            row |= {"head_free": few.features[1], "margin": few.margin}
        self.rows.append(row)
        print(shown(row), flush=True)


def shown(row: dict[str, Any]) -> str:
    """Return a row of the table as Markdown."""
    cells = ["" if row.get(name) is None else f"{row[name]:.4f}" for name in COLUMNS]
    return f"| {row['class']} | {row['seed']} | {row['method']} | {' | '.join(cells)} |"


def means(rows: Sequence[dict[str, Any]]) -> str:
    """Return the mean of every column by method, and its largest gap, as Markdown."""
    lines = [f"| method | runs | {' | '.join(COLUMNS)} | largest gap |", "|" + "---|" * (3 + len(COLUMNS))]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        columns = [[row[name] for row in own if row.get(name) is not None] for name in COLUMNS]
        cells = [f"{statistics.mean(values):.4f}" if values else "" for values in columns]
        largest = max(row["average_gap"] for row in own)
        lines.append(f"| {method} | {len(own)} | {' | '.join(cells)} | {largest:.4f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write ``classes.json`` and ``classes.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.classes", description=__doc__)
    parser.add_argument("--data", default="fashion-mnist", choices=list(RECIPES))
    parser.add_argument("--train-size", type=int, help="training images (default: all)")
    parser.add_argument("--epochs", type=int, help="of original and references (default: the recipe's)")
    parser.add_argument("--classes", type=lambda text: text.split(","), default=["0", "5", "8"])
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--references", type=int, default=2, help="retrained models a seed and class")
    parser.add_argument("--methods", nargs="*", default=["perturbed_sign", "perturbed_sign:fast"])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = RECIPES[given.data]
    bundle = load(given.data, **({} if given.train_size is None else {"train_size": given.train_size}))
    training = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "lr", "optimizer", "weight_decay")}
    training |= {} if given.epochs is None else {"epochs": given.epochs}
    case = Memorised(bundle, recipe.model, training)
    rows: list[dict[str, Any]] = []
    print(HEAD)
    for label in given.classes:
        folder = given.out / "models" / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        for seed in given.seeds:
            asked = replace(case, forget=f"class:{label}")
            study = ClassStudy(asked, seed, folder, originals=folder.parent)
            study.run(given.methods, given.references)
            rows += study.rows
            write_json({"versions": versions(), "training": training, "rows": plain(rows)}, given.out / "classes.json")
            text = "\n\n".join([means(rows), "\n".join([HEAD, *map(shown, rows)])])
            write_text(text + "\n", given.out / "classes.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
