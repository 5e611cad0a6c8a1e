"""Defaults that transfer: chosen on a few tasks by validation data, shown on others by test data.

    python -m benchmarks.studies.defaults --out out/defaults --root /data

Every method gets as many trials as any other: the default it starts with, and settings drawn from the ranges of
``default_ranges``. A setting's score is how much further than a second retrained model it stays from the retrained
reference, by the average gap on validation data, at least 0, as a mean over the tuning tasks. A default changes where
the best setting is better by more than the distance between two retrained models, and costs no more than half of
retraining or than the default did. A trial ends where it can no longer be that setting.

What is measured is kept under ``OUT``: a run that was stopped goes on where it was. Without ``--root``, a folder that
holds ``medmnist/dermamnist.npz``, the task of dermamnist is left out, and the tables do not name them.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import algorithms
from unlearn_kit import DivergenceError
from unlearn_kit.data import DataBundle, load
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import make_folder, write_json, write_text
from unlearn_kit.metrics import Evaluation, evaluate

from ..setup.methods import METHODS
from .default_ranges import FORMER, MENDED, RANGES, trials
from .default_tables import page
from .samples import Memorised, SampleStudy

NETWORK = "small-cnn"
EPOCHS = {"digits": 30, "fashion-mnist": 12, "dermamnist": 30}
FASHION = 5_000  # training images; all 60,000 cost twelve times as much a trial
DEAREST = 0.5  # share of retraining that a setting may cost


@dataclass(frozen=True)
class Place:
    """A class of a data set to forget, with the seeds of training."""

    data: str
    label: int
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        """Return its name in tables."""
        return f"{self.data} class {self.label}"


TUNING = (
    Place("digits", 3, (100, 101, 102)),
    Place("fashion-mnist", 7, (100,)),
    Place("dermamnist", 4, (100,)),
)
AGAIN = Place("digits", 3, (0, 1, 2))  # the class of the tuning, by other seeds and by test data
CLOTHES = Place("fashion-mnist", 0, (0,))
REPORT = (AGAIN, *(Place("digits", label, (0,)) for label in (0, 5, 8)), CLOTHES)


class Bench:
    """Models, made once and kept, and records of all that was measured, by what was asked."""

    def __init__(self, out: Path, root: Path | None) -> None:
        self.out, self.root = make_folder("out", out), root
        self.path = out / "records.json"
        self.records: dict[str, dict[str, Any]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    @functools.cache  # noqa: B019 - one bench a process
    def bundle(self, data: str) -> DataBundle:
        """Return a data set."""
        if data == "dermamnist":
            return load("medmnist:dermamnist", None if self.root is None else self.root / "medmnist")
        return load(data, train_size=FASHION) if data == "fashion-mnist" else load(data)

    @functools.cache  # noqa: B019
    def setting(self, place: Place, seed: int, judged: bool) -> PlaceModels:
        """Return the models of a place at a seed."""
        training = {"epochs": EPOCHS[place.data], "batch_size": 128, "lr": 0.05, "weight_decay": 5e-4}
        case = Memorised(self.bundle(place.data), NETWORK, training, f"class:{place.label}")
        return PlaceModels(case, seed, self.out / "models", place, judged)

    def cell(self, place: Place, seed: int, method: str, options: Mapping[str, Any], judged: bool) -> dict[str, Any]:
        """Return what a method does there, measured now or before; on test data where it is judged."""
        asked = json.dumps([str(place), seed, method, dict(options), "test" if judged else "validation"])
        if asked not in self.records:
            self.records[asked] = self.setting(place, seed, judged).measure(method, options)
            write_json(self.records, self.path)
            print(asked, {k: round(v, 4) if isinstance(v, float) else v for k, v in self.records[asked].items()})
        return self.records[asked]


class PlaceModels:
    """The original and two references of a place and a seed, and what the references score."""

    def __init__(self, case: Memorised, seed: int, folder: Path, place: Place, judged: bool) -> None:
        shared = SampleStudy(case, seed, make_folder("out", folder / place.data))
        own = SampleStudy(case, seed, make_folder("out", folder / f"{place.data}-{place.label}"))
        self.seed, self.task, self.original = seed, case.task(seed), shared.original()
        retrained = [own.reference(number, self.task) for number in (0, 1)]
        self.judged_on = self.task if judged else self.task.on_validation()
        self.base = evaluate(retrained[0], self.judged_on)
        self.second = evaluate(retrained[1], self.judged_on, reference=self.base)
        # The first epoch of a process takes longer than all others.
        self.seconds = min(own.retraining_seconds(self.task) for _ in range(2))

    def measure(self, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scores of a method, or of "reference", "second reference" and "original", as a record."""
        known = {"reference": self.base, "second reference": self.second}
        if method in known:
            return scores(known[method])
        if method == "original":
            return scores(evaluate(self.original, self.judged_on, reference=self.base))
        started = time.process_time()
        try:
            found = getattr(algorithms, method)(self.original, self.task, seed=self.seed, **options)
        except (DivergenceError, ValueError, TypeError) as error:
            return {"gap": None, "reason": str(error)}
        work = (time.process_time() - started) / self.seconds
        told = {"work": work, "strength": found.details.get("strength")}
        return scores(evaluate(found.model, self.judged_on, reference=self.base)) | told


def scores(found: Evaluation) -> dict[str, Any]:
    """Return the figures that make the gap, and it."""
    own = {"forget": found.forget, "retain": found.retain, "test": found.retain_test, "membership": found.membership}
    return own | {"gap": found.average_gap}


def excess(mine: float | None, second: float) -> float:
    """Return by how much a gap exceeds that of a second reference; infinite where nothing came of a method."""
    return math.inf if mine is None else max(0.0, mine - second)


def mean_over(places: Sequence[Place]) -> Iterator[tuple[Place, int, float]]:
    """Yield every place and seed with its weight in a mean over places, of a mean over seeds."""
    for place in places:
        for seed in place.seeds:
            yield place, seed, 1 / (len(places) * len(place.seeds))


def between_references(bench: Bench, places: Sequence[Place]) -> float:
    """Return the gap between two retrained models, as a mean over the places, on validation data."""
    return math.fsum(w * bench.cell(p, s, "second reference", {}, False)["gap"] for p, s, w in mean_over(places))


def tune(bench: Bench, method: str, places: Sequence[Place], count: int, margin: float) -> dict[str, Any]:
    """Return the score of a method's default, and the setting that beats it by more than ``margin`` and all others.

    Scores are sums of what is at least 0: a trial whose sum can no longer be the best ends there, and changes nothing.
    Nor does any trial where the default is no further than the margin from the best score there is.
    """
    bound = dearest = math.inf
    found: dict[str, Any] = {"method": method, "best": None, "trials": 0, "ended early": 0}
    for number, options in enumerate(trials(method, count)):
        if bound <= 0:
            break
        found["trials"] += number > 0
        score = work = 0.0
        for place, seed, weight in mean_over(places):
            own = bench.cell(place, seed, method, options, False)
            score += weight * excess(own["gap"], bench.cell(place, seed, "second reference", {}, False)["gap"])
            work += weight * own.get("work", 0.0)
            if number and (score >= bound or work > dearest):
                found["ended early"] += 1
                break
        else:
            reached = {"options": options, "score": score, "work": work}
            if number == 0:
                found["start"], bound, dearest = reached, score - margin, max(DEAREST, work)
            else:
                found["best"], bound = reached, score
    return found


def report(bench: Bench, chosen: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every method on test data, of places that nothing was chosen on, as one record a run.

    Methods whose default changed are run with that before the study and that after it; all others show on Fashion and
    on the class of the tuning alone whether they forget.
    """
    rows = []
    for place, seed, _ in mean_over(REPORT):

        def row(method: str, when: str, options: Mapping[str, Any]) -> None:
            own = bench.cell(place, seed, method, options, True)  # noqa: B023 - called in the round that defines it
            rows.append({"place": str(place), "seed": seed, "method": method, "when": when} | own)  # noqa: B023

        for known in ("reference", "second reference", "original"):
            row(known, "", {})
        for method in METHODS:
            changed = method in FORMER or method in chosen
            if changed:
                row(method, "before", FORMER.get(method, {}))
            if changed or place in (CLOTHES, AGAIN):
                row(method, "after", after(method, chosen))
    return rows


def after(method: str, chosen: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the options of a method's default after the study."""
    return chosen.get(method, FORMER.get(method, {}) | MENDED.get(method, {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; write ``defaults.json`` and ``defaults.md``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.defaults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="folder that holds medmnist/dermamnist.npz")
    parser.add_argument("--methods", nargs="*", default=list(RANGES), choices=list(RANGES), metavar="METHOD")
    parser.add_argument("--trials", type=int, default=6, help="settings drawn for each method beside its default")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bench = Bench(given.out, given.root)
    places = [place for place in TUNING if place.data != "dermamnist" or given.root is not None]
    if given.root is None:
        print("dermamnist is left out: no --root that holds medmnist/dermamnist.npz was given")
    margin = between_references(bench, places)
    tuned = [tune(bench, method, places, given.trials, margin) for method in given.methods]
    chosen = {found["method"]: found["best"]["options"] for found in tuned if found["best"] is not None}
    record = {
        "arguments": {"trials": given.trials, "methods": given.methods},
        "versions": versions(),
        "tuning": [str(place) for place in places],
        "margin": margin,
        "tuned": tuned,
        "chosen": chosen,
        "report": report(bench, chosen),
        "places": {"again": str(AGAIN), "fashion": str(CLOTHES)},
    }
    write_json(record, given.out / "defaults.json")
    write_text(page(record), given.out / "defaults.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
