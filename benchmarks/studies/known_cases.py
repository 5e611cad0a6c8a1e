"""Which audits tell which model from a retrained one: ``python -m benchmarks.studies.known_cases --out DIR``.

A class of the digits is forgotten, and every audit is run on models of which it is known what they are: the original,
references, the original with its head alone edited so that the class is not named, and the original trained on without
the class. What an audit says of a model counts only where it is farther from the reference than another reference is.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import algorithms
from unlearn_kit import UnlearnTask, metrics
from unlearn_kit.audits import Ensemble, ensemble_margins, train_ensemble
from unlearn_kit.data import load
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import write_json, write_text
from unlearn_kit.heads import head_name
from unlearn_kit.seeding import derive

from ..audit.figures import FEW, FIGURES, Ideal, Pair, figures
from ..setup.recipes import RECIPES, Blueprint
from .known_cases_tables import tables

LABEL = 3
FAR_DOWN = 3_000.0  # logits
CASES = ORIGINAL, REFERENCE, SECOND, THIRD, HEAD, DEEP, TUNED = (
    "original",
    "reference",
    "second reference",
    "third reference",
    "head-only edit",
    "the same, far down",
    "fine-tuned original",
)
JUDGED = (ORIGINAL, HEAD, DEEP, TUNED, THIRD)
Values = dict[str, float | None]


@dataclass(frozen=True)
class KnownModels:
    """What is judged: models by case, each case with as many, and the references that attacks learn from."""

    task: UnlearnTask
    cases: dict[str, list[nn.Module]]
    further: list[nn.Module]


def trained(models: int, *, network: str, epochs: int, **data: Any) -> KnownModels:
    """Return ``models`` originals, references and second and third references, and what was made of the originals."""
    bundle, recipe = load("digits", **data), RECIPES["digits"]
    task = UnlearnTask.forget_class(bundle.train, bundle.test, LABEL, num_classes=bundle.num_classes)
    everything = torch.ones(len(bundle.train), dtype=torch.bool)
    kept = everything.clone()
    kept[task.forget_indices] = False
    count = 3 * models + FEW
    ensemble = train_ensemble(
        Blueprint(network, bundle.num_classes, channels=1),
        bundle.train,
        [everything] * models + [kept] * count,
        seeds=[derive(0, "known cases", place) % 2**31 for place in range(models + count)],
        epochs=epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
    )
    networks = list(ensemble.models())
    originals, *groups = (networks[first : first + models] for first in range(0, 4 * models, models))
    cases = dict(zip((ORIGINAL, REFERENCE, SECOND, THIRD), (originals, *groups), strict=True))
    for case, extra in ((HEAD, 0.0), (DEEP, FAR_DOWN)):
        cases[case] = [head_edited(*pair, task, extra) for pair in zip(originals, groups[0], strict=True)]
    cases[TUNED] = [
        algorithms.finetune(model, task, epochs=10, seed=place).model for place, model in enumerate(originals)
    ]
    return KnownModels(task, cases, networks[4 * models :])


def head_edited(original: nn.Module, reference: nn.Module, task: UnlearnTask, extra: float = 0.0) -> nn.Module:
    """Return the original with the class's bias lowered: to the reference's mean margin, and until none is named.

    And by ``extra`` more, which makes it slow to relearn.
    """
    edited = copy.deepcopy(original)
    head = edited.get_submodule(head_name(edited, task.forget[0][0].unsqueeze(0)))
    if not isinstance(head, nn.Linear):
        raise ValueError(f"expected a linear head, but got {type(head).__name__}")
    mine, theirs = (_class_margins(model, task.forget) for model in (original, reference))
    with torch.no_grad():
        head.bias[LABEL] -= max(float(mine.mean() - theirs.mean()), float(mine.max()) + 0.1) + extra
    return edited


def _class_margins(model: nn.Module, dataset: Any) -> Tensor:
    """Return the class's logit above the largest other one, ``(N,)``."""
    logits, _ = metrics.predict(model, dataset)
    others = logits.clone()
    others[:, LABEL] = -torch.inf
    return logits[:, LABEL] - others.amax(dim=1)


def judged(drawn: KnownModels, place: int) -> dict[str, Values]:
    """Return every figure of each case's model at one place, beside the reference and the original there."""
    task, original, reference = drawn.task, drawn.cases[ORIGINAL][place], drawn.cases[REFERENCE][place]
    ideal = Ideal.of(reference, original, task, place, drawn.further)
    return {case: figures(Pair(models[place], ideal, original, task, place)) for case, models in drawn.cases.items()}


def told(key: str, values: Mapping[str, Sequence[Values]], case: str) -> str:
    """Say whether a figure tells a case from the reference: "yes", "no", or "in part".

    Yes: even the smallest distance to the reference, over the seeds, is larger than the largest between the reference
    and the second. A further reference would be told so once in C(2n, n) studies of n seeds: of 3, once in 20. No: the
    mean distance is no larger than the mean between references.
    """
    mine, between = (_gaps(key, values, one) for one in (case, SECOND))
    if not mine or not between:
        return "n/a"
    if min(mine) > max(between):
        return "yes"
    return "in part" if np.mean(mine) > np.mean(between) else "no"


def _gaps(key: str, values: Mapping[str, Sequence[Values]], case: str) -> list[float]:
    """Return how far each model of a case is from the reference beside it, where both have the figure."""
    pairs = [(one[key], ideal[key]) for one, ideal in zip(values[case], values[REFERENCE], strict=True)]
    return [abs(mine - theirs) for mine, theirs in pairs if mine is not None and theirs is not None]


def over_many(drawn: KnownModels) -> dict[str, dict[str, Any]]:
    """Return what U-LiRA and KLoM say of each case over all its models, beside the reference's."""
    margins = {case: ensemble_margins(Ensemble.of(models), drawn.task.forget) for case, models in drawn.cases.items()}
    found: dict[str, dict[str, Any]] = {}
    for case in (*JUDGED, SECOND):
        lira = metrics.u_lira(margins[case], margins[REFERENCE])
        klom = metrics.klom(margins[case], margins[REFERENCE])
        if lira is None or klom is None:
            continue
        found[case] = {
            "u_lira": lira.accuracy,
            "interval": list(lira.interval),
            "klom_median": klom.median,
            "klom_p95": klom.p95,
            "floor_median": klom.floor_median,
            "floor_p95": klom.floor_p95,
            "p_value": klom.p_value,
        }
    return found


def study(
    models: int,
    seeds: int,
    *,
    network: str = RECIPES["digits"].model,
    epochs: int = RECIPES["digits"].epochs,
    say: Callable[[str], None] = print,
    **data: Any,
) -> dict[str, Any]:
    """Return every figure of every case by seed, what tells which, and what is said over all models.

    Args:
        models: Of each case, behind U-LiRA and KLoM.
        seeds: How many of them all other audits are run on.
        network: By name.
        epochs: Of training.
        say: Told how far it is.
        **data: Options of the digits' loader.
    """
    began = time.perf_counter()
    drawn = trained(models, network=network, epochs=epochs, **data)
    say(f"trained: {time.perf_counter() - began:.0f} s")
    values: dict[str, list[Values]] = {case: [] for case in CASES}
    for place in range(seeds):
        for case, found in judged(drawn, place).items():
            values[case].append(found)
        say(f"seed {place}: {time.perf_counter() - began:.0f} s")
    shown = [figure for figure in FIGURES if any(one[figure.key] is not None for one in values[ORIGINAL])]
    return {
        "arguments": {"models": models, "seeds": seeds},
        "label": LABEL,
        "far_down": FAR_DOWN,
        "titles": {figure.key: figure.title for figure in shown},
        "cases": [REFERENCE, SECOND, *JUDGED],
        "values": values,
        "told": {figure.key: {case: told(figure.key, values, case) for case in JUDGED} for figure in shown},
        "over_many": over_many(drawn),
        "versions": versions(),
    }


def main(given: Sequence[str] | None = None) -> None:
    """Read the command line, run the study, write ``known_cases.json`` and ``known_cases.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.known_cases", description=__doc__)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/known-cases"))
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    found = study(options.models, options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(found, options.out / "known_cases.json")
    write_text(tables(found), options.out / "known_cases.md")


if __name__ == "__main__":
    main()
