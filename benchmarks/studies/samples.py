"""How near methods come to the model that never saw single samples, or patients, beside how near two such models are.

    python -m benchmarks.studies.samples --data fashion-mnist --seeds 3,4,5 --out out/samples

Of every seed one original and two references are trained, once, and kept under ``OUT/models``. The table has the scores
of both references, of doing nothing, and of every method: its gap to the first reference, and its work, the CPU time
as a share of that of retraining, of which one epoch is timed in the same minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import algorithms
from unlearn_kit import UnlearnTask, load_model, save_model
from unlearn_kit import losses as L
from unlearn_kit.data import DataBundle, load, load_tensors, subset
from unlearn_kit.data.mask_pairs import MaskPairs, hold_out
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.engine import train
from unlearn_kit.files import plain, write_json, write_text
from unlearn_kit.metrics import Evaluation, evaluate
from unlearn_kit.modules import blank_copy
from unlearn_kit.seeding import derive, generator, isolated

from ..setup.methods import Method, as_options
from ..setup.recipes import RECIPES, Blueprint, ForgetRule

PATIENTS = 8  # of lgg-mri, to forget
# Of data whose folder must be given: the loader and its options, the network, and passes until it knows them by heart.
LEARNED: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "dermamnist": ("medmnist:dermamnist", {}, "small-cnn", 80),
    "pneumoniamnist": ("medmnist:pneumoniamnist", {}, "small-cnn", 40),
    "cifar10-jpeg": ("image-folder", {"train_size": 1_000}, "resnet18", 12),
}
MATCHED = ("matched", "transformed")  # targets that an adapter can be led to


@dataclass(frozen=True)
class Memorised:
    """A data set whose single samples a network memorises, and how that network is trained.

    Attributes:
        bundle: The data.
        model: A name of ``unlearn_kit.models.MODELS``.
        training: Options of ``engine.train``.
        forget: A rule, such as random:0.1; of patients None.
    """

    bundle: DataBundle
    model: str
    training: dict[str, Any]
    forget: str | None = None

    @property
    def fresh(self) -> Blueprint:
        """Return what builds a network with fresh weights."""
        return Blueprint(self.model, self.bundle.num_classes, self.bundle.train[0][0].shape[0])

    def loss(self, stream: str) -> L.Term:
        """Return what is minimised on ``stream``."""
        return L.dice_bce(on=stream) if self.bundle.task == "segmentation" else L.cross_entropy(on=stream)

    def task(self, seed: int) -> UnlearnTask:
        """Return what is forgotten with that seed."""
        if self.forget is not None:
            # As the first request of a suite is drawn.
            return ForgetRule(self.forget).task(self.bundle, derive(seed, "request", 0))
        table: Any = self.bundle.train_metadata
        names = sorted(set(table["patient"]))
        order = torch.randperm(len(names), generator=generator(seed, "patients"))[:PATIENTS]
        chosen = np.flatnonzero(table["patient"].isin([names[i] for i in order.tolist()]))
        return UnlearnTask.forget_samples(
            self.bundle.train, self.bundle.test, chosen, num_classes=2, validation=self.bundle.validation
        )


def case_of(name: str, root: Path | None) -> Memorised:
    """Return the case of a data set by name."""
    if name == "lgg-mri":
        if root is None:
            raise ValueError("expected root to be the folder of lgg-mri, but got None")
        training = {"epochs": 60, "batch_size": 16, "lr": 2e-3, "optimizer": "adam", "weight_decay": 0.0}
        return Memorised(lgg(root), "unet", training)
    if name in LEARNED:
        source, options, model, epochs = LEARNED[name]
        training = {"epochs": epochs, "batch_size": 128, "lr": 0.05, "optimizer": "sgd", "weight_decay": 5e-4}
        bundle = load(source, root, **options)
        return Memorised(in_memory(bundle), model, training, "random:0.1")
    options = {"train_size": 10_000} if name == "fashion-mnist" else {}
    bundle, recipe = load(name, root, **options), RECIPES[name]
    names = ("epochs", "batch_size", "lr", "optimizer", "weight_decay")
    training = {option: getattr(recipe, option) for option in names}
    if name == "fashion-mnist":
        training["epochs"] = 30  # until the network knows its samples by heart
    return Memorised(bundle, recipe.model, training, "random:0.1")


def in_memory(bundle: DataBundle) -> DataBundle:
    """Return the bundle with its images read once, since every pass over them would decode them again."""
    train, test = (TensorImages(*load_tensors(part)) for part in (bundle.train, bundle.test))
    validation = None if bundle.validation is None else TensorImages(*load_tensors(bundle.validation))
    return replace(bundle, train=train, test=test, validation=validation)


def lgg(root: Path, size: int = 48) -> DataBundle:
    """Return the MRI slices with a mask that is not empty, of ``root``; whole patients are held out.

    Half of the held-out patients are validation data.
    """
    import pandas as pd

    table = pd.read_csv(root / "metadata.csv")
    table = table[table["abnormal_share"] > 0].reset_index(drop=True)
    pairs = MaskPairs([root / f for f in table["file"]], [root / f for f in table["mask"]], size=(size, size))
    held = TensorImages(*load_tensors(pairs))
    trained = np.flatnonzero(table["split"] == "train")
    patients = sorted(set(table["patient"][table["split"] == "test"]))
    judged, chosen_by = ({patients[i] for i in part} for part in hold_out(len(patients), 0.5, 0))
    return DataBundle(
        name="lgg-mri",
        train=subset(held, trained),
        test=subset(held, np.flatnonzero(table["patient"].isin(judged))),
        validation=subset(held, np.flatnonzero(table["patient"].isin(chosen_by))),
        num_classes=2,
        task="segmentation",
        class_names=("background", "abnormality"),
        train_metadata=table.iloc[trained].reset_index(drop=True),
    )


@dataclass
class SampleStudy:
    """One seed of a case: its models, made once, and the rows of its table."""

    case: Memorised
    seed: int
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    originals: Path | None = None  # where the original is kept, which other requests may share; None for ``folder``

    def original(self) -> nn.Module:
        """Return the network trained on all data, as a suite trains it."""

        def make() -> nn.Module:
            with isolated(self.seed):
                fresh = self.case.fresh()
            loss = self.case.loss("train")
            return train(fresh, self.case.bundle.train, seed=self.seed, objective=loss, **self.case.training).model

        return self._stored("original", make, self.originals)

    def reference(self, number: int, task: UnlearnTask) -> nn.Module:
        """Return the network retrained without the forget data; the first as a suite trains it."""
        seed = self.seed if number == 0 else derive(self.seed, "reference", number)

        def make() -> nn.Module:
            fresh, loss = self.case.fresh, self.case.loss("retain")
            options = {"build": fresh, "objective": loss, **self.case.training}
            return algorithms.retrain(fresh().eval(), task, seed=seed, **options).model

        return self._stored(f"reference{number}", make)

    def _stored(self, name: str, make: Any, folder: Path | None = None) -> nn.Module:
        path = (folder or self.folder) / f"{self.seed}-{name}.safetensors"
        if not path.exists():
            save_model(make(), path)
        with isolated(0):
            model: nn.Module = self.case.fresh()
        return load_model(model, path).eval()

    def add(self, name: str, found: Evaluation, seconds: float | None = None, details: Any = None) -> None:
        """Note a row and show it."""
        scores = found.as_dict()
        row: dict[str, Any] = {"seed": self.seed, "method": name}
        row |= {key: scores[key] for key in ("forget", "retain", "test", "membership", "average_gap") if key in scores}
        if seconds is not None:
            row["work"] = seconds / self.retraining
        self.rows.append(row | ({} if details is None else {"details": details}))
        print(line(row), flush=True)

    def run(self, methods: Sequence[str], references: int) -> None:
        """Judge the references, the original and every method."""
        task, original = self.case.task(self.seed), self.original()
        retrained = [self.reference(number, task) for number in range(references)]
        base = evaluate(retrained[0], task)
        self.add("reference", base)
        for number, model in enumerate(retrained[1:], 2):
            self.add(f"reference {number}", evaluate(model, task, reference=base))
        self.add("original", evaluate(original, task, reference=base))
        for text in methods:
            self.retraining = self.retraining_seconds(task)
            started = time.process_time()
            made = self._revise(original, task, text)
            seconds = time.process_time() - started
            self.add(text, evaluate(made.model, task, reference=base), seconds, made.details)

    def retraining_seconds(self, task: UnlearnTask) -> float:
        """Return the CPU time that retraining takes now, by one of its epochs."""
        started = time.process_time()
        options = self.case.training | {"epochs": 1}
        train(self.case.fresh(), task.retain, objective=self.case.loss("train"), **options)
        return (time.process_time() - started) * float(self.case.training["epochs"])

    def _revise(self, original: nn.Module, task: UnlearnTask, text: str) -> Any:
        method = Method(text.partition("->")[0])
        options = as_options(method.options)
        towards = text.partition("->")[2]
        if towards:
            options["erase_to"] = target_of(towards, original, task)
        return getattr(algorithms, method.name)(blank_copy(original), task, seed=self.seed, **options)


def target_of(name: str, original: nn.Module, task: UnlearnTask) -> L.Target:
    """Return a target that depends on the original and the task, by name.

    Raises:
        ValueError: On another name.
    """
    from unlearn_kit import difficulty
    from unlearn_kit.errors import check_choice

    if check_choice("a target", name, MATCHED) == "matched":
        return difficulty.matched(original, task)
    return L.Transformed(original)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table as Markdown."""
    names = ("forget", "retain", "test", "membership", "average_gap", "work")
    cells = ["" if row.get(name) is None else f"{row[name]:.4f}" for name in names]
    return f"| {row['seed']} | {row['method']} | {' | '.join(cells)} |"


HEAD = "| seed | method | forget | retain | test | membership AUC | gap | work |\n|" + "---|" * 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write ``samples.json`` and ``samples.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.samples", description=__doc__)
    parser.add_argument("--data", required=True, help="fashion-mnist, synthetic-lesions, lgg-mri, dermamnist, ...")
    parser.add_argument("--root", type=Path, help="folder of the data, where it has one")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[3, 4, 5])
    parser.add_argument("--references", type=int, default=2, help="retrained models a seed")
    parser.add_argument(
        "--methods", nargs="*", default=["quantile_matching"], help="NAME:option=value, or NAME->target"
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    (given.out / "models").mkdir(parents=True, exist_ok=True)
    case, rows = case_of(given.data, given.root), []
    print(HEAD)
    for seed in given.seeds:
        study = SampleStudy(case, seed, given.out / "models")
        study.run(given.methods, given.references)
        rows += study.rows
        write_json(plain(rows), given.out / "samples.json")
        write_text("\n".join([HEAD, *map(line, rows)]) + "\n", given.out / "samples.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
