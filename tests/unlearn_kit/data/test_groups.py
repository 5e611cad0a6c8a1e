"""Patients and other groups: counted, and told where a request takes them in part."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.data import load, where
from unlearn_kit.errors import DataWarning

DATA = TensorDataset(torch.rand(12, 1, 2, 2), torch.arange(12) % 2)
PATIENTS = ["07"] * 5 + ["7"] * 3 + ["a b", "", "", ""]
TABLE = pd.DataFrame({"patient": PATIENTS, "device": list("AABBB") + ["B"] * 3 + ["A"] * 4})


def folder(root: Path, column: str = "patient") -> Path:
    """Write twelve training images with patients, and four held-out ones."""
    rows = [f"file,label,split,{column},device"]
    for i in range(16):
        Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(root / f"{i:02}.png")
        patient, device = (PATIENTS[i], TABLE["device"][i]) if i < 12 else ("new", "AB"[i % 2])
        rows.append(f"{i:02}.png,{'ab'[i % 2]},{'train' if i < 12 else 'test'},{patient},{device}")
    (root / "metadata.csv").write_text("\n".join(rows))
    return root


def told(make) -> tuple[UnlearnTask, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = make()
    assert all(warning.category is DataWarning and warning.filename == __file__ for warning in caught)
    notes = [str(warning.message) for warning in caught]
    assert list(task.notes) == notes
    return task, notes


def test_a_sample_of_a_patient_with_others_says_so(tmp_path: Path) -> None:
    bundle = load("image-folder", folder(tmp_path))
    task, (note,) = told(lambda: UnlearnTask.forget_samples(bundle.train, bundle.test, [1]))
    assert note == (
        "patient forgotten in part: '07' (1 of 5 images); 4 other images of them stay in the data to keep. "
        'To forget them whole: patient == "07"'
    )
    assert repr(task) == "<UnlearnTask 1 chosen samples: 1 of 12 images, 1 of 3 patients; validation 0, test 0>"
    assert task.on_validation().notes == (note,)
    # What the remedy says selects them whole.
    whole, notes = told(
        lambda: UnlearnTask.forget_where(bundle.train, bundle.test, None, None, where('patient == "07"'))
    )
    assert len(whole.forget) == 5
    assert not [note for note in notes if "in part" in note]
    # A smaller draw of the images keeps their rows.
    part = Subset(bundle.train, [0, 1, 5, 9])
    _, (note,) = told(lambda: UnlearnTask.forget_samples(part, bundle.test, [1, 3]))
    assert "'07' (1 of 2 images); 1 other" in note


@pytest.mark.parametrize("column", ["Patient_ID", "subject", "participant-id", "pseudonym"])
def test_a_column_of_people_is_known_by_its_name_or_said(tmp_path: Path, column: str) -> None:
    bundle = load("image-folder", folder(tmp_path, column), group=column if column == "pseudonym" else None)
    task, (note,) = told(lambda: UnlearnTask.forget_samples(bundle.train, bundle.test, [1, 5]))
    assert note.startswith(f"{column} forgotten in part: '07' (1 of 5 images), '7' (1 of 3 images); 6 other")
    assert note.endswith(f'To forget them whole: {column} in ("07", "7")')
    assert task.division is not None
    assert (task.division.groups, task.division.touched) == (3, 2)


def test_a_rule_that_takes_a_part_of_a_patient_says_so() -> None:
    make = lambda: UnlearnTask.forget_where(DATA, DATA, TABLE, TABLE, where("device == B"))  # noqa: E731
    task, (note,) = told(make)
    assert "'07' (3 of 5 images); 2 other images" in note
    assert repr(task) == "<UnlearnTask device == B: 6 of 12 images, 2 of 3 patients; validation 2, test 4>"
    # As do lambdas, and groups of another column.
    _, notes = told(lambda: UnlearnTask.forget_where(DATA, DATA, TABLE, TABLE, lambda t: t["device"] == "B"))
    assert notes == [note]
    _, (_, other) = told(
        lambda: UnlearnTask.forget_where(DATA, DATA, TABLE, TABLE, where("patient == 07"), groups="device")
    )
    assert other.startswith("device forgotten in part: 'A' (2 of 6 images), 'B' (3 of 6 images)")


@pytest.mark.parametrize("make", [list, np.array, lambda v: torch.tensor([int(x or 99) for x in v])])
def test_groups_may_be_given_one_a_sample(make) -> None:
    groups = make(["1"] * 5 + ["2"] * 7)
    task, (note,) = told(lambda: UnlearnTask.forget_samples(DATA, DATA, [0, 1, 5], groups=groups))
    assert "group forgotten in part: '1' (2 of 5 images), '2' (1 of 7 images)" in note
    assert note.endswith("add the other samples, at 2, 3, 4, 6, 7, 8, 9, 10, 11")
    assert task.division is not None
    assert task.division.words == "2 of 2 groups"
    _, notes = told(lambda: UnlearnTask.forget_samples(DATA, DATA, range(5), groups=groups))
    assert notes == []


def test_groups_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected groups to have one for each of 12 samples, but got \(3,\)"):
        UnlearnTask.forget_samples(DATA, DATA, [0], groups=["a", "b", "c"])
    with pytest.raises(
        ValueError, match="expected a table with the column 'patient' for groups, but there is no table"
    ):
        UnlearnTask.forget_samples(DATA, DATA, [0], groups="patient")
    with pytest.raises(
        ValueError, match=r"expected groups to be one of \['patient', 'device'\].*did you mean 'patient'"
    ):
        UnlearnTask.forget_where(DATA, DATA, TABLE, TABLE, where("device == B"), groups="Patent")


def test_many_groups_in_part_are_counted() -> None:
    groups = np.arange(12) % 6
    _, (note,) = told(lambda: UnlearnTask.forget_samples(DATA, DATA, range(6), groups=groups))
    assert "'4' (1 of 2 images) and 1 more; 6 other images" in note
    # A draw at random divides patients by design; it counts them and says nothing.
    table = DATA.tensors[0]
    random, notes = told(lambda: UnlearnTask.forget_random(TensorDataset(table, DATA.tensors[1]), DATA, 0.5))
    assert (random.division, notes) == (None, [])


def test_rows_left_open_by_a_missing_value_are_told_with_the_remedy() -> None:
    table = pd.DataFrame({"device": ["A", "B", None, "B"] * 3, "scan year": ["1", "", "", "2"] * 3})
    task, (note,) = told(
        lambda: UnlearnTask.forget_where(DATA, DATA, table, table, where("not device == A and `scan year` > 0"))
    )
    assert task.forget_indices is not None
    assert task.forget_indices.tolist() == [3, 7, 11]
    assert note == (
        "6 rows of train_metadata are not forgotten, since what is asked for is missing: 'device' in 3, "
        "'scan year' in 6. '(... or device is missing)' around what is asked forgets them, "
        "'and device is not missing' says that they stay"
    )
    said = where("not device == A and `scan year` is not missing and device is not missing")
    assert told(lambda: UnlearnTask.forget_where(DATA, DATA, table, table, said))[1] == []


def test_patients_in_two_splits_are_told(tmp_path: Path) -> None:
    path = folder(tmp_path) / "metadata.csv"
    path.write_text(
        path.read_text().replace("14.png,a,test,new", "14.png,a,test,07").replace("15.png,b,test", "15.png,b,val")
    )
    assert load("image-folder", tmp_path).notes == (
        "patient in two splits, which flatters: train and test share '07'; held_out= with group= holds them out whole",
    )
