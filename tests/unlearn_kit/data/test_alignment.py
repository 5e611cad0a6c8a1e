"""Tables of every form, in any order: the rows of the samples, or a refusal that says what to do."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.data import where
from unlearn_kit.data.alignment import aligned
from unlearn_kit.data.mask_pairs import MaskPairs
from unlearn_kit.data.pictures import PictureFiles

COUNT = 8
FILES = [Path("images") / "ab"[i % 2] / f"{i}.png" for i in range(COUNT)]
NAMES = [file.name for file in FILES]
PICTURES = PictureFiles(FILES, torch.arange(COUNT) % 2)
MASKED = MaskPairs(FILES, [Path("masks") / f"{i}_mask.png" for i in range(COUNT)])
PLAIN = TensorDataset(torch.rand(COUNT, 2), torch.arange(COUNT) % 2)
ORDER = [3, 1, 7, 0, 2, 6, 5, 4]
PLACES = list(range(COUNT))


class Polars:
    """As a polars table: columns, and a dict of them on request."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.columns = frame, list(frame.columns)

    def to_dict(self, as_series: bool = True) -> dict[str, list[Any]]:
        assert not as_series
        return self.frame.to_dict("list")


class Arrow:
    """As a table of Arrow."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.columns = frame, ["no names"]

    def to_pydict(self) -> dict[str, list[Any]]:
        return self.frame.to_dict("list")


FORMS = {
    "pandas": lambda t: t,
    "dict of lists": lambda t: t.to_dict("list"),
    "dict of arrays": lambda t: {name: t[name].to_numpy() for name in t},
    "dict of series": lambda t: {name: t[name] for name in t},
    "list of dicts": lambda t: t.to_dict("records"),
    "csv reader": lambda t: list(csv.DictReader(io.StringIO(t.to_csv(index=False)))),
    "structured array": lambda t: t.to_records(index=False),
    "polars": Polars,
    "arrow": Arrow,
}


def place(table: Any) -> list[int]:
    """Return the column that holds what each row is of."""
    return [int(value) for value in table["place"]]


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_any_form_is_read_and_matched_by_file(form: str) -> None:
    table = pd.DataFrame({"file": NAMES, "place": PLACES})
    make = FORMS[form]
    assert place(aligned("train", PLAIN, make(table))) == PLACES
    shuffled = make(table.iloc[ORDER].reset_index(drop=True))
    for data in (PICTURES, MASKED):
        assert place(aligned("train", data, shuffled)) == PLACES
    assert place(aligned("train", Subset(PICTURES, [5, 2]), make(table.iloc[[2, 5]]))) == [5, 2]
    assert place(aligned("train", Subset(PICTURES, [5, 2]), shuffled, key="file")) == [5, 2]
    # What is asked of it is a rule of the whole road.
    held = make(table)
    task = UnlearnTask.forget_where(PLAIN, PLAIN, make(table), held, where("place in (3, 5)"))
    assert task.forget_indices is not None
    assert task.forget_indices.tolist() == [3, 5]
    task = UnlearnTask.forget_where(PLAIN, PLAIN, make(table), held, lambda t: t["file"] == "5.png")
    assert task.forget_indices is not None
    assert task.forget_indices.tolist() == [5]


@pytest.mark.parametrize("column", ["file", "image", "Dateiname"])
@pytest.mark.parametrize("write", [str, lambda f: f.name, lambda f: f"{f.parent.name}\\{f.name}"])
def test_whatever_column_names_the_files_is_found(column: str, write: Any) -> None:
    names = [write(file) for file in FILES]
    table = pd.DataFrame({"device": "A", column: names, "place": PLACES, "mask": [m.name for m in MASKED.masks]})
    shuffled = table.iloc[ORDER].reset_index(drop=True)
    assert place(aligned("train", PICTURES, shuffled.drop(columns="mask"))) == PLACES
    assert place(aligned("train", MASKED, shuffled)) == PLACES
    assert place(aligned("train", MASKED, shuffled.drop(columns=column))) == PLACES  # by the masks


@pytest.mark.parametrize("key", ["file", "id", "path"])
def test_a_key_takes_the_rows_of_the_samples_from_a_larger_table(key: str) -> None:
    names = {"file": NAMES, "id": [file.stem for file in FILES], "path": [str(file) for file in FILES]}[key]
    table = pd.DataFrame({key: [*names, "other.png", "other.png"], "place": [*PLACES, 98, 99]})
    shuffled = table.sample(frac=1, random_state=0)
    assert place(aligned("train", PICTURES, shuffled, key=key)) == PLACES
    # A data set that keeps a table knows its samples by it; numbers are the text that they are written as.
    keeping = TensorDataset(torch.rand(3, 2), torch.arange(3))
    keeping.metadata = pd.DataFrame({"number": ["07", "7", "8"]})
    given = pd.DataFrame({"number": ["8", "7", "07", "9"], "place": [2, 1, 0, 9]})
    assert place(aligned("train", keeping, given, key="number")) == [0, 1, 2]
    assert place(aligned("train", Subset(keeping, [2, 0]), given, key="number")) == [2, 0]
    with pytest.raises(ValueError, match="a row of train_metadata for every sample, but got none for 07"):
        aligned("train", keeping, given.assign(number=[8, 7, 7.0, 9]), key="number")


def test_letters_of_two_parts_are_the_letters_of_one() -> None:
    files = [Path("Mu\u0308ller.png"), Path("b.png")]
    table = pd.DataFrame({"file": ["b.png", "M\u00fcller.png"], "place": [1, 0]})
    assert place(aligned("train", PictureFiles(files, torch.zeros(2)), table)) == [0, 1]


def test_values_of_two_part_letters_are_selected_with_the_others() -> None:
    places = ["K\u00f6ln", "Ko\u0308ln", "Kiel", "Kiel", "Bonn", "Bonn", "Bonn", "Bonn"]
    for written in places[:2]:
        assert ask(where(f"place == {written}"), pd.DataFrame({"place": places})) == [0, 1]


TABLE = pd.DataFrame({"file": NAMES, "place": PLACES})


@pytest.mark.parametrize(
    ("data", "table", "options", "message"),
    [
        (PLAIN, TABLE[:5], {}, "one row for each of 8 samples, but got 5 rows; is it the table of another split"),
        (
            PICTURES,
            TABLE[:5],
            {},
            "each of 8 samples, but got 5 rows; .* key='file' takes the rows of these files alone",
        ),
        (PLAIN, TABLE.iloc[ORDER], {}, r"order of the samples, but got an index in disorder, \[3, 1, 7, 0\]...; sort"),
        (PLAIN, {"a": np.arange(5)}, {}, "one row for each of 8 samples, but got 5 rows"),
        (PLAIN, {"a": np.arange(8), "b": [1]}, {}, "one row for each of 8 samples, but got 1 in the column 'b'"),
        (PLAIN, {"a": np.zeros((8, 2))}, {}, r"one value a sample, but got 'a' of shape \(8, 2\)"),
        (PLAIN, {"a": "text"}, {}, r"one value a sample, but got 'a' of shape \(\)"),
        (PLAIN, {}, {}, "one row for each of 8 samples, but got no columns"),
        (
            Subset(PLAIN, [1, 4, 6]),
            TABLE.iloc[[1, 4, 5]],
            {},
            r"those of its samples, at \[1, 4, 6\]... .* \[1, 4, 5\]",
        ),
        (
            PICTURES,
            TABLE.assign(file=[f"x{n}" for n in NAMES]),
            {},
            "none for 0.png, 1.png.*the table of another split",
        ),
        (
            PICTURES,
            TABLE.rename(columns={"file": "image"}).assign(image="z.png"),
            {},
            "but got 'z.png' in 'image'; is it",
        ),
        (PICTURES, TABLE.assign(file=[*NAMES[:-1], NAMES[0]]), {}, "for every sample, but got none for 7.png"),
        (PICTURES, TABLE.iloc[[*PLACES, 0]], {"key": "file"}, "one row a sample, but got several for 0.png"),
        (
            PictureFiles([Path("a/0.png"), Path("b/0.png")], torch.zeros(2)),
            TABLE[:2],
            {},
            "but got one for all of '0.png'",
        ),
        (
            PLAIN,
            TABLE,
            {"key": "file"},
            "expected train to know the names of its samples for key, .* got TensorDataset",
        ),
        (PICTURES, TABLE, {"key": "files"}, "expected key to be one of .* did you mean 'file'"),
    ],
)
def test_rows_that_do_not_fit_the_samples_are_refused(data: Any, table: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aligned("train", data, table, **options)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("metadata.csv", r"but got str; read it first, as by pandas.read_csv\(path, dtype=str\)"),
        (Path("metadata.csv"), "but got PosixPath; read it first"),
        (TABLE["file"], "but got Series"),
        ([1, 2], "but got list"),
        (np.zeros((8, 2)), "but got ndarray"),
        (None, "to be a table with one row a sample, but got None"),
    ],
)
def test_what_is_no_table_is_named(table: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        aligned("train", PLAIN, table)


def ask(predicate: Any, table: Any = None) -> list[int]:
    table = pd.DataFrame({"device": list("AABBCCAB"), "year": range(2015, 2023)}) if table is None else table
    task = UnlearnTask.forget_where(PLAIN, PLAIN, table, table, predicate)
    assert task.forget_indices is not None
    return task.forget_indices.tolist()


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        (lambda t: t["device"] == "B" & t["year"] == 2019, "each need parentheses, and 'and', 'or', 'not' are & | ~"),
        (lambda t: t["device"] == "B" and t["year"] == 2019, "each need parentheses, and 'and', 'or', 'not' are & | ~"),
        (lambda t: t["year"] > 2016 & t["year"] < 2019, "each need parentheses"),
        (lambda t: t["devise"] == "B", r"no column 'devise' among \['device', 'year'\]; did you mean 'device'\?"),
        (lambda t: t["device"] == "b", r"but got none; there are device \('A', 'B', 'C'\), year \('2015', "),
        (lambda t: t["year"] == "2019", r"but got none; there are device .*, year \('2015', "),
        (lambda t: (t["device"] == "B")[:3], r"8 bools for train_metadata, but got bool of shape \(3,\)"),
        (lambda _: [True, False], r"8 bools for train_metadata, but got bool of shape \(2,\)"),
        (lambda t: np.flatnonzero(t["device"] == "B"), r"8 bools for train_metadata, but got int64"),
        (lambda t: t[t["device"] == "B"], "8 bools for train_metadata, but got object"),
        (where("devise == B"), "one of 'device', 'year', but got 'devise'; did you mean 'device'"),
        (where("device == b"), "one of 'A', 'B', 'C', but got 'b'; did you mean 'B'"),
        (where("device == D"), "one of 'A', 'B', 'C', but got 'D'"),
        (where("year < 1900"), r"but got none; there are year \('2015', '2016', .*\.\.\.\)$"),
        (where("year > 0"), "leave training samples to retain, but got all of them"),
    ],
)
def test_a_question_that_does_not_fit_the_table_is_told_what_would(predicate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(predicate)


FLAGS, YEARS = [False, True, False, False, True, False, False, False], [2015, 2016, 2017, 2018, 2019, 2020, 2021, 2022]
FLAGGED: dict[str, Any] = {
    "pandas": pd.DataFrame({"flag": FLAGS, "year": YEARS}),
    "nullable": pd.DataFrame({"flag": FLAGS, "year": YEARS}).convert_dtypes(),
    "objects": pd.DataFrame({"flag": pd.Series(FLAGS, dtype=object), "year": YEARS}),
    "a missing flag": pd.DataFrame({"flag": [None, *FLAGS[1:]], "year": YEARS}),
    "lists": {"flag": FLAGS, "year": YEARS},
    "arrays": {"flag": np.array(FLAGS), "year": np.array(YEARS, dtype=np.int16)},
    "columns": {"flag": pd.Series(FLAGS), "year": pd.Series(YEARS)},
    "rows": [{"flag": flag, "year": year} for flag, year in zip(FLAGS, YEARS, strict=True)],
}


@pytest.mark.parametrize("table", FLAGGED.values(), ids=FLAGGED)
def test_bools_joined_with_integers_are_refused_since_other_rows_would_be_chosen(table: Any) -> None:
    for predicate in (
        lambda t: t["flag"] | t["year"] == 2019,
        lambda t: t["year"] == 2019 | t["flag"],
        lambda t: t["flag"] & t["year"] != 1,
        lambda t: t["year"] ^ t["flag"] == 2018,
        lambda t: (t["year"] > 2020) | t["year"] == 2023,
    ):
        with pytest.raises(ValueError, match=r"predicate .* train_metadata, but .* parentheses"):
            ask(predicate, table)


@pytest.mark.parametrize("name", ["pandas", "lists", "arrays", "columns", "rows", "objects"])
def test_bools_joined_with_bools_and_bits_with_bits_choose_their_rows(name: str) -> None:
    table = FLAGGED[name]
    assert ask(lambda t: (t["flag"] == True) | (t["year"] == 2020), table) == [1, 4, 5]  # noqa: E712
    assert ask(lambda t: (t["year"] & 1) == 1, table) == [0, 2, 4, 6]
    assert ask(lambda t: ~((t["year"] < 2021) | (t["year"] == 2022)), table) == [6]
    if name != "objects":
        assert ask(lambda t: t["flag"] & (t["year"] == 2019), table) == [4]


def test_none_chosen_since_values_are_missing_says_so() -> None:
    table = pd.DataFrame({"device": list("AABBCCAB"), "year": [None, None, 2, 3, 4, 5, 6, 7]})
    with pytest.raises(ValueError, match=r"'C'\), year \('2'.*; 2 rows of these are not forgotten, .*: 'year' in 2"):
        ask(where("device == A and year < 3"), table)


IDS = ["07", "7", "1.1", "1.10", "1E5", "100000", "12345678901234567", "12345678901234568"]


@pytest.mark.parametrize("at", range(COUNT))
def test_ids_as_text_stay_apart_in_expressions(at: int) -> None:
    table = pd.DataFrame({"id": IDS})
    for written in (f"id == {IDS[at]}", f'id == "{IDS[at]}"', f"id in ('{IDS[at]}')"):
        assert ask(where(written), table) == [at]
    assert ask(where(f"id != {IDS[at]}"), table) == [place for place in PLACES if place != at]


def test_whole_numbers_stay_apart_and_floats_that_cannot_tell_are_refused() -> None:
    big = 12345678901234560
    table = pd.DataFrame({"id": [big + i for i in range(COUNT)]})
    assert ask(where(f"id == {big + 7}"), table) == [7]
    assert ask(where(f"id in ({big + 1}, {big + 2})"), table) == [1, 2]
    with pytest.raises(
        ValueError, match="'id' to hold numbers that a float tells apart, but got 12345678901234560; read"
    ):
        ask(where(f"id == {big}"), table.astype(float))
    nullable = pd.DataFrame({"year": pd.array([2015, None, *range(2017, 2023)], dtype="Int64"), "x": [1.0, 2.5] * 4})
    assert ask(where("year < 2018.0 and x == 1"), nullable) == [0, 2]
    with pytest.warns(UserWarning, match="'year' in 1"):
        assert ask(where("year == 2017.0"), nullable) == [2]


@pytest.mark.parametrize("gap", [None, "", "  ", np.nan, pd.NA, pd.NaT], ids=str)
def test_a_gap_of_any_kind_is_missing(gap: Any) -> None:
    table = pd.DataFrame({"device": pd.Series(["A", gap, *"BBCCAB"], dtype=object)})
    for expression, rows in (
        ("device != A", [2, 3, 4, 5, 7]),
        ("not device == A", [2, 3, 4, 5, 7]),
        ("device not in (A, B)", [4, 5]),
        ("not (device in (A, B))", [4, 5]),
        ("not (device == A or device == B)", [4, 5]),
        ("device == A", [0, 6]),
    ):
        with pytest.warns(UserWarning, match="1 rows of train_metadata are not forgotten, .*'device' in 1"):
            assert ask(where(expression), table) == rows
    assert ask(where("device is missing"), table) == [1]
    assert ask(where("device != A or device is missing"), table) == [1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("cell", ["nan", "inf", "1_000", "soon", "2,5"])
def test_what_is_no_number_is_not_compared_as_one(cell: str) -> None:
    table = pd.DataFrame({"year": ["1", cell, *"234567"]})
    with pytest.raises(ValueError, match=f"expected 'year' to hold numbers where '<' compares it, but got '{cell}'"):
        ask(where("year < 3"), table)
