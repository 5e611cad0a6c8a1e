"""The table of the guide, "When something is wrong": each row is made to happen, and says what the guide says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import algorithms
from unlearn_kit import UnlearnTask, data, metrics, models
from unlearn_kit.data import where
from unlearn_kit.deployed import preflight
from unlearn_kit.deployed.unfinished import unfinished

GUIDE = Path(__file__).parents[2] / "docs" / "deployed-models.md"
COUNT = 12
X = torch.rand(COUNT, 3, 20, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(COUNT) % 3
TABLE = pd.DataFrame({"device": list("AABBAABBAABB"), "year": range(2010, 2010 + COUNT)})
GAPS = TABLE.assign(device=[None, *TABLE["device"][1:]])


def images(x: torch.Tensor = X) -> TensorDataset:
    return TensorDataset(x, Y)


def model(classes: int = 3) -> nn.Module:
    return models.build("small-cnn", classes, 3, width=4, seed=0)


def task(x: torch.Tensor = X, indices: Any = (0, 1)) -> UnlearnTask:
    return UnlearnTask.forget_samples(images(x), images(x), indices, validation=())


def choose(predicate: Callable[[Any], Any], table: Any = TABLE) -> UnlearnTask:
    return UnlearnTask.forget_where(images(), images(), table, TABLE, predicate)


def folder(root: Path, header: str = "file,label,split,patient", encoding: str = "utf-8") -> data.DataBundle:
    rows = [header]
    for i in range(6):
        Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(root / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'},{('07', 'Zoë', '07')[i % 3]}")
    (root / "metadata.csv").write_text("\n".join(rows), encoding=encoding)
    return data.load("image-folder", root)


def one_of(root: Path, places: list[int]) -> UnlearnTask:
    bundle = folder(root)
    return UnlearnTask.forget_samples(bundle.train, bundle.test, places)


def twice() -> UnlearnTask:
    again = X.clone()
    again[5] = again[0]
    return task(again)


def names() -> list[tuple[torch.Tensor, str]]:
    return [(x, "cat") for x in X]


def triples() -> list[Any]:
    return [(x, x, 1) for x in X]


def dicts() -> list[Any]:
    return [{"image": x, "label": 1} for x in X]


# What makes each row happen, by what the guide says is wrong. Called with an empty folder.
def at_once(root: Path) -> None:
    with unfinished(root / "device-b", "one"), unfinished(root / "device-b", "two"):
        pass


MISTAKES: dict[str, list[Callable[[Path], Any]]] = {
    "the table is in another order than the images": [
        lambda _: choose(where("device == B"), TABLE[::-1]),
        lambda _: choose(lambda t: t["device"] == "B", TABLE.sample(frac=1, random_state=0)),
    ],
    "the table of another split": [
        lambda _: choose(where("device == B"), TABLE[:5]),
        lambda _: choose(where("device == B"), TABLE[:5].to_dict("list")),
    ],
    "a column or a value that is not there": [
        lambda _: choose(lambda t: t["Device"] == "B"),
        lambda _: choose(where("devise == B")),
    ],
    "nothing is chosen": [lambda _: choose(lambda t: t["device"] == "b"), lambda _: choose(where("year < 1900"))],
    "a function would choose by a missing value": [
        lambda _: choose(lambda t: t["device"] != "B", GAPS),
        lambda _: choose(lambda t: ~(t["device"] == "B"), GAPS.to_dict("list")),
    ],
    "an expression is left open by a missing value": [
        lambda _: choose(where("device != B"), GAPS),
        lambda _: choose(where("not device in (A, B) or year == 2011"), GAPS),
    ],
    "comparisons without parentheses around `&`, or `and` between columns": [
        lambda _: choose(lambda t: t["device"] == "B" and t["year"] < 2019),
        lambda _: choose(lambda t: t["device"] == "B" & t["year"] < 2019),
    ],
    "other images of a patient stay": [lambda root: one_of(root, [1, 0])],
    "an encoding that is a guess": [lambda root: folder(root, encoding="cp1252")],
    "the files are in another column": [lambda root: folder(root, header="File,label,split,patient")],
    "the same picture is to be forgotten and to be kept": [lambda _: preflight(model(), twice())],
    "forget and retain data are swapped": [lambda _: preflight(model(), task(indices=range(8)))],
    "model and task are swapped": [
        lambda _: algorithms.finetune(task(), model()),
        lambda _: metrics.evaluate(task(), model()),
    ],
    "pixels in 0..255": [
        lambda _: metrics.evaluate(model(), task(X * 255)),
        lambda _: algorithms.finetune(model(), task(X * 255)),
        lambda _: preflight(model(), task(X * 255)),
    ],
    "pixels that are standardised already": [
        lambda _: metrics.evaluate(model(), task((X - 0.5) / 0.2)),
        lambda _: algorithms.finetune(model(), task((X - 0.5) / 0.2)),
    ],
    "two commands write one folder at once": [at_once],
    "another number of classes": [
        lambda _: preflight(model(4), task()),
        lambda _: algorithms.finetune(model(4), task()),
        lambda _: metrics.evaluate(model(4), task()),
    ],
    "names for labels": [
        lambda _: UnlearnTask.forget_class(names(), names(), 0),
        lambda _: UnlearnTask.forget_samples(names(), names(), [0]),
    ],
    "samples of three parts": [lambda _: UnlearnTask.forget_samples(triples(), triples(), [0])],
    "samples that are dicts": [lambda _: UnlearnTask.forget_samples(dicts(), dicts(), [0])],
    "a softmax at the end": [
        lambda _: preflight(nn.Sequential(model(), nn.Softmax(1)), task()),
        lambda _: algorithms.finetune(
            nn.Sequential(model(), nn.Softmax(1)), task(indices=range(4)), steps=1, batch_size=4
        ),
    ],
    "no GPU": [lambda _: algorithms.finetune(model(), task(), device="cuda:99")],
}


def guide() -> dict[str, str]:
    """Return what the guide says one sees, by what is wrong."""
    section = GUIDE.read_text(encoding="utf-8").partition("## When something is wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| .+ \|$", section, re.MULTILINE)
    return dict(rows)


def test_the_guide_and_this_table_have_the_same_rows() -> None:
    assert list(guide()) == list(MISTAKES)


@pytest.mark.parametrize(("mistake", "way"), [(name, i) for name, ways in MISTAKES.items() for i in range(len(ways))])
def test_a_mistake_is_told_as_the_guide_says(mistake: str, way: int, tmp_path: Path) -> None:
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            returned = MISTAKES[mistake][way](tmp_path)
            told += returned if isinstance(returned, list) else []
        except (ValueError, TypeError) as error:
            told.append(str(error))
    told += [str(warning.message) for warning in caught]
    assert any(guide()[mistake] in text for text in told), told
