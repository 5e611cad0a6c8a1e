"""Folders as hospitals have them: columns of any name, masks beside images, splits by patient or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from unlearn_kit import UnlearnTask
from unlearn_kit.data import labels_of, load, load_tensors, where
from unlearn_kit.errors import DataNotFoundError

COUNT = 24


def write(root: Path, **columns: Sequence[object]) -> Path:
    """Write 24 images with masks, the brightness of each its number, and a table of ``columns``."""
    for i in range(COUNT):
        Image.fromarray(np.full((4, 6), 10 * i, np.uint8)).save(root / f"{i:02}.png")
        mask = np.zeros((4, 6), np.uint8)
        mask[:, : i % 6] = 255
        Image.fromarray(mask).save(root / f"{i:02}_mask.png")
    pd.DataFrame(columns).to_csv(root / "metadata.csv", index=False)
    return root


FILES = [f"{i:02}.png" for i in range(COUNT)]
MASKS = [f"{i:02}_mask.png" for i in range(COUNT)]
PATIENTS = [f"{i // 3:02}" for i in range(COUNT)]


def numbers(data: object) -> list[int]:
    """Return which of the images a data set holds."""
    return [round(float(x.mean()) * 25.5) for x in load_tensors(data)[0]]


def test_columns_may_have_any_names_and_validation_data_are_told(tmp_path: Path) -> None:
    splits = [("train", "val", "test", "train")[i % 4] for i in range(COUNT)]
    write(tmp_path, path=FILES, diagnosis=["ab"[i % 2] for i in range(COUNT)], fold=splits, patient=PATIENTS)
    names = {"file_column": "path", "label_column": "diagnosis", "split_column": "fold"}
    bundle = load("image-folder", tmp_path, channels=1, **names)
    for data, table, places in (
        (bundle.train, bundle.train_metadata, [i for i in range(COUNT) if i % 4 in (0, 3)]),
        (bundle.validation, bundle.validation_metadata, list(range(1, COUNT, 4))),
        (bundle.test, bundle.test_metadata, list(range(2, COUNT, 4))),
    ):
        assert numbers(data) == places
        assert labels_of(data).tolist() == [i % 2 for i in places]
        assert table["path"].tolist() == [FILES[i] for i in places]
        assert table["patient"].tolist() == [PATIENTS[i] for i in places]
    with pytest.raises(DataNotFoundError, match=r"the table has the columns \['path', 'diagnosis', 'fold'"):
        load("image-folder", tmp_path, file_column="path")
    with pytest.raises(ValueError, match=r"expected no held_out where .* has a split of its own, but got 0.25"):
        load("image-folder", tmp_path, held_out=0.25, **names)


@pytest.mark.parametrize("group", [None, "patient"])
def test_without_a_split_a_share_is_held_out(tmp_path: Path, group: str | None) -> None:
    labels = ["ab"[i % 4 == 0] for i in range(COUNT)]
    write(tmp_path, file=FILES, label=labels, patient=PATIENTS)
    options = {"channels": 1, "held_out": 0.25, "group": group}
    bundle = load("image-folder", tmp_path, seed=1, **options)
    kept, held = numbers(bundle.train), numbers(bundle.test)
    assert sorted(kept + held) == list(range(COUNT))
    if group is None:  # a quarter of each class
        assert np.bincount(labels_of(bundle.test)).tolist() == [4, 2]  # of 18 and 6, halves to the even number
        assert {labels[i] for i in held} == {"a", "b"}
    else:  # two of eight patients, whole
        patients = {PATIENTS[i] for i in held}
        assert (len(patients), len(held)) == (2, 6)
        assert not patients & {PATIENTS[i] for i in kept}
    again = load("image-folder", tmp_path, seed=1, **options)
    assert numbers(again.test) == held
    assert any(numbers(load("image-folder", tmp_path, seed=s, **options).test) != held for s in range(2, 6))


def test_class_folders_may_be_without_a_split(tmp_path: Path) -> None:
    for i in range(12):
        place = tmp_path / "ab"[i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 6), 10 * i, np.uint8)).save(place / f"{i}.png")
    bundle = load("image-folder", tmp_path, channels=1, held_out=0.5)
    assert sorted(numbers(bundle.train) + numbers(bundle.test)) == list(range(12))
    assert [i % 2 for i in numbers(bundle.test)] == labels_of(bundle.test).tolist()
    assert np.bincount(labels_of(bundle.test)).tolist() == [3, 3]
    with pytest.raises(ValueError, match="expected a table with the column 'patient' for group, but there is no table"):
        load("image-folder", tmp_path, held_out=0.5, group="patient")
    with pytest.raises(DataNotFoundError, match=r"without a split say held_out=0\.25"):
        load("image-folder", tmp_path)


def test_masks_stand_beside_images_and_requests_select_them(tmp_path: Path) -> None:
    splits = ["test" if i % 3 == 2 else "train" for i in range(COUNT)]
    write(tmp_path, file=FILES, mask=MASKS, split=splits, device=["AB"[i % 2] for i in range(COUNT)])
    bundle = load("image-folder", tmp_path, channels=1, mask_column="mask", size=(4, 6))
    assert (bundle.task, bundle.num_classes, bundle.class_names) == ("segmentation", 2, ("background", "foreground"))
    x, y = load_tensors(bundle.train)
    places = [i for i in range(COUNT) if i % 3 != 2]
    assert x.shape == (16, 1, 4, 6)
    assert numbers(bundle.train) == places
    assert y.mean((1, 2, 3)).mul(6).round().tolist() == [i % 6 for i in places]
    # A table in another order is matched by file.
    shuffled = bundle.train_metadata.sample(frac=1, random_state=0)
    for table in (bundle.train_metadata, shuffled):
        task = UnlearnTask.forget_where(bundle.train, bundle.test, table, bundle.test_metadata, where("device == B"))
        assert task.kind == "segmentation"
        assert numbers(task.forget) == [i for i in places if i % 2]
    split = load("image-folder", write_again(tmp_path), channels=1, mask_column="mask", held_out=0.25)
    assert torch.is_tensor(split.test[0][1])
    assert len(split.test) == 6


def write_again(root: Path) -> Path:
    """Write the table without its split."""
    pd.read_csv(root / "metadata.csv").drop(columns="split").to_csv(root / "metadata.csv", index=False)
    return root


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": "a"}, {"held_out": 1.5}, r"expected held_out in \(0, 1\), but got 1.5"),
        ({"label": "a"}, {"held_out": 0.25, "group": "patent"}, "did you mean 'patient'"),
        ({"patient": "x"}, {"held_out": 0.25, "group": "patient"}, "two groups at least, to hold one out, but got 1"),
        ({"patient": ""}, {"held_out": 0.25, "group": "patient"}, "expected a patient for every image, of group"),
        ({"label": ""}, {"held_out": 0.25}, "expected a label for every image, but got none for 00.png"),
        ({"mask": ""}, {"held_out": 0.25, "mask_column": "mask"}, "expected a mask for every image"),
        ({}, {"held_out": 0.25, "mask_column": "masks"}, "expected a table with the column 'masks', but got"),
        (
            {"name": FILES},
            {"held_out": 0.25, "file_column": "name"},
            "to have no column 'file' beside 'name'",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, columns: dict[str, object], options: dict[str, object], message: str
) -> None:
    given = {"file": FILES, "label": ["a"] * COUNT, "mask": MASKS, "patient": PATIENTS}
    given |= {name: value if isinstance(value, list) else [value] * COUNT for name, value in columns.items()}
    write(tmp_path, **given)
    with pytest.raises(ValueError, match=message):
        load("image-folder", tmp_path, **options)


# What is in each image: every third has none of the findings, every fifth two of them.
SEEN = [["No Finding", "Edema", "Mass"][i % 3] + ("|Effusion" if i % 5 == 0 and i % 3 else "") for i in range(COUNT)]
SPLITS = [("train", "train", "test")[i // 8] for i in range(COUNT)]
FOUND = [[int(name in seen) for name in ("Edema", "Effusion", "Mass")] for seen in SEEN]


def test_findings_joined_in_one_column(tmp_path: Path) -> None:
    write(tmp_path, file=FILES, **{"Finding Labels": SEEN}, split=SPLITS, patient=PATIENTS)
    bundle = load("image-folder", tmp_path, channels=1, label_column="Finding Labels", label_separator="|")
    assert (bundle.task, bundle.num_classes) == ("multilabel", 3)
    assert bundle.class_names == ("Edema", "Effusion", "Mass")  # no finding is none
    assert labels_of(bundle.train).tolist() == FOUND[:16]
    assert labels_of(bundle.test).tolist() == FOUND[16:]
    assert bundle.train_metadata["Finding Labels"].tolist() == SEEN[:16]
    task = UnlearnTask.forget_class(bundle.train, bundle.test, 1, num_classes=3)
    assert numbers(task.forget) == [i for i in range(16) if FOUND[i][1]]
    drawn = load(
        "image-folder", tmp_path, channels=1, label_column="Finding Labels", label_separator="|", split_column="none",
        held_out=0.5,
    )  # fmt: skip
    held = torch.tensor(FOUND)[numbers(drawn.test)]
    assert held.sum(0).tolist() == [3, 2, 3] or (held.sum(0) > 0).all()  # each is on either side
    assert (labels_of(drawn.train).sum(0) > 0).all()


@pytest.mark.parametrize(("blank", "empty"), [("unknown", -1), ("absent", 0)])
def test_findings_in_columns_of_their_own(tmp_path: Path, blank: str, empty: int) -> None:
    edema = ["1.0", "0.0", "-1.0", ""] * 6
    mass = ["0", "1", "1", "0"] * 6
    write(tmp_path, Path=FILES, Edema=edema, Mass=mass, split=SPLITS)
    options = {"file_column": "Path", "finding_columns": ["Edema", "Mass"], "blank": blank}
    bundle = load("image-folder", tmp_path, channels=1, **options)
    assert (bundle.task, bundle.class_names) == ("multilabel", ("Edema", "Mass"))
    assert labels_of(bundle.train).tolist() == [[1, 0], [0, 1], [-1, 1], [empty, 0]] * 4
    assert bundle.train_metadata["findings"].tolist()[:4] == ["Edema", "Mass", "Mass", "No Finding"]


@pytest.mark.parametrize(
    ("columns", "options", "text"),
    [
        ({"label": ["a|"] * COUNT}, {"label_separator": "|"}, r"expected findings joined by '\|', but got 'a\|'"),
        (
            {"label": ["a|No Finding"] * COUNT},
            {"label_separator": "|"},
            "expected 'No Finding' to stand alone, but got",
        ),
        (
            {"label": ["a"] * COUNT},
            {"label_separator": "|"},
            r"expected two findings at least, joined by '\|', but got",
        ),
        (
            {"label": ["a|b"] * 16 + ["c"] * 8},
            {"label_separator": "|"},
            "expected every finding of the test images to have a training image, but got none for c",
        ),
        (
            {"a": ["1"] * COUNT, "b": ["2"] * COUNT},
            {"finding_columns": ["a", "b"]},
            "column 'b' to hold 1 .present., 0",
        ),
        (
            {"a": ["yes"] * COUNT, "b": ["1"] * COUNT},
            {"finding_columns": ["a", "b"]},
            "expected the column 'a' to hold 1",
        ),
        ({"a": ["1"] * COUNT}, {"finding_columns": ["a", "b"]}, r"expected a table with the columns \['a', 'b'\], but"),
        ({"a": ["1"] * COUNT}, {"finding_columns": ["a"]}, "expected finding_columns to be two columns at least, each"),
        (
            {"label": ["a|b"] * COUNT},
            {"label_separator": "|", "finding_columns": ["a", "b"]},
            "expected one of mask_column, label_separator and finding_columns, but got two",
        ),
    ],
)
def test_findings_that_cannot_be_read_are_named(
    tmp_path: Path, columns: dict[str, Sequence[object]], options: dict[str, object], text: str
) -> None:
    write(tmp_path, file=FILES, split=SPLITS, **columns)
    with pytest.raises(ValueError, match=text):
        load("image-folder", tmp_path, channels=1, **options)
