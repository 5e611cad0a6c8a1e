"""Every constructor splits training and held-out data by one rule, and refuses what it cannot split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.data import TensorImages, load_tensors, subset, where
from unlearn_kit.data.tensors import COMPARED
from unlearn_kit.seeding import generator

CLASSES = 4


def images(labels) -> TensorImages:
    """Images that hold their own position, so that a subset tells which samples it has."""
    targets = torch.as_tensor(labels)
    return TensorImages(torch.arange(len(targets), dtype=torch.float32).reshape(-1, 1, 1, 1), targets)


def train_set(count: int = 40, seed: int = 0) -> TensorImages:
    return images(torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed)))


def test_set() -> TensorImages:
    return train_set(20, seed=1)


test_set.__test__ = False


def positions(dataset) -> list[int]:
    return [int(x) for x in load_tensors(dataset)[0].flatten()] if len(dataset) else []


def held_out(task: UnlearnTask, side: str) -> list[int]:
    """Where the held-out samples of one side are, those that judge and those to choose by, none of which is both."""
    judge, choose = (positions(getattr(task, f"{side}_{part}")) for part in ("test", "validation"))
    assert not set(judge) & set(choose)
    return sorted(judge + choose)


def quarter(labels: np.ndarray) -> int:
    """How many are set aside: of each class a quarter, but one at least, and none where there is only one."""
    counts = np.bincount(labels)
    return int(sum(max(1, round(count / 4)) for count in counts if count > 1))


class Sealed(Dataset):
    """Labels to look at, samples of which only a few may be decoded."""

    def __init__(self, targets) -> None:
        self.targets, self.read = targets, 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int):
        self.read += 1
        assert self.read <= 2 * COMPARED, "more than a sample of the data was decoded"
        return torch.zeros(1), self.targets[index]


class Hidden(Dataset):
    """No labels to look at; remembers what was read."""

    def __init__(self, base) -> None:
        self.base, self.read = base, []

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int):
        self.read.append(index)
        x, y = self.base[index]
        return x, y if y.dim() else int(y)


# --- a class --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 3, np.int64(3)])
def test_a_class_is_forgotten_in_training_and_held_out_data(label):
    train, test = train_set(), test_set()
    task = UnlearnTask.forget_class(train, test, label)
    y, y_test = train.targets.numpy(), test.targets.numpy()
    assert positions(task.forget) == np.flatnonzero(y == label).tolist() == task.forget_indices.tolist()
    assert positions(task.retain) == np.flatnonzero(y != label).tolist()
    assert held_out(task, "forget") == np.flatnonzero(y_test == label).tolist()
    assert held_out(task, "retain") == np.flatnonzero(y_test != label).tolist()
    assert (task.num_classes, task.kind, task.forget_classes) == (CLASSES, "classification", (int(label),))
    assert task.rule == f"class {label} (validation: {quarter(y_test)} of 20 held-out samples, seed 0)"


@given(fraction=st.floats(0.01, 0.99), seed=st.integers(0, 20))
@settings(deadline=None, max_examples=25)
def test_a_fraction_of_a_class_is_some_of_it_and_holds_nothing_out(fraction, seed):
    train, test = train_set(), test_set()
    task = UnlearnTask.forget_class(train, test, 2, fraction=fraction, seed=seed)
    members = np.flatnonzero(train.targets.numpy() == 2).tolist()
    assert set(positions(task.forget)) < set(members) or len(task.forget) == len(members)
    assert len(task.forget) == max(1, round(fraction * len(members)))
    assert sorted(positions(task.forget) + positions(task.retain)) == list(range(40))
    assert held_out(task, "forget") == []
    assert held_out(task, "retain") == list(range(20))
    assert task.forget_classes == ()
    assert task.rule.startswith(f"{fraction:g} of class 2, seed {seed} (")


@pytest.mark.parametrize("make", [list, np.asarray, torch.tensor], ids=["list", "numpy", "tensor"])
def test_finding_a_class_decodes_few_samples(make):
    y, y_test = (np.random.default_rng(seed).integers(0, 10, 60_000) for seed in (0, 1))
    task = UnlearnTask.forget_class(Sealed(make(y.tolist())), Sealed(make(y_test.tolist())), 7)
    assert len(task.forget) == (y == 7).sum()
    assert len(task.forget_test) + len(task.forget_validation) == (y_test == 7).sum()
    assert len(task.forget) + len(task.retain) == 60_000


class Halving(Dataset):
    """As torchvision's: the labels that are held are changed when read. Draws as an augmentation does."""

    def __init__(self) -> None:
        self.targets, self.target_transform = [0, 1, 2, 3] * 3, lambda y: y % 2

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int):
        x = torch.full((1, 1, 1), float(index)) + 0 * torch.rand(()) * np.random.rand()  # noqa: NPY002
        return x, self.target_transform(self.targets[index])


def test_a_class_is_the_one_that_is_read_not_the_one_that_is_held():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    tasks = [
        UnlearnTask.forget_class(Halving(), Halving(), 1),
        UnlearnTask.forget_random(Halving(), Halving(), 0.5),
    ]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert [task.num_classes for task in tasks] == [2, 2]
    assert positions(tasks[0].forget) == held_out(tasks[0], "forget") == [1, 3, 5, 7, 9, 11]
    assert positions(tasks[0].retain) == held_out(tasks[0], "retain") == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: UnlearnTask.forget_random(a, b, 0.1),
        lambda a, b: UnlearnTask.forget_samples(a, b, [5]),
        lambda a, b: UnlearnTask.forget_class(a, b, 1, fraction=0.5),
        lambda a, b: UnlearnTask.forget_class(Subset(a, range(50)), Subset(b, range(50)), 1),
    ],
)
def test_no_other_rule_decodes_more_either(build):
    sealed = [Sealed((np.arange(1000) % 3).tolist()) for _ in range(2)]
    assert build(*sealed).num_classes == 3


def test_hidden_labels_are_read_once():
    train, test = Hidden(train_set()), Hidden(test_set())
    task = UnlearnTask.forget_class(train, test, 1)
    # And a few times more, to see what they are.
    assert set(train.read) == set(range(40))
    assert set(test.read) == set(range(20))
    assert max(len(train.read) - 40, len(test.read) - 20) <= 30
    assert positions(task.forget) == np.flatnonzero(train.base.targets.numpy() == 1).tolist()


def test_a_class_inside_subsets_of_subsets():
    train, test = train_set(), test_set()
    inner = Subset(Subset(train, range(5, 40)), range(0, 35, 2))
    task = UnlearnTask.forget_class(inner, test, 1)
    inside = range(5, 40, 2)
    assert positions(task.forget) == [i for i in inside if train.targets[i] == 1]
    assert positions(task.retain) == [i for i in inside if train.targets[i] != 1]
    assert task.forget.dataset is train
    assert [inside[i] for i in task.forget_indices] == positions(task.forget)


def test_classes_may_be_counted_in_or_told():
    train, test = images([0, 1, 0]), images([0, 2])
    assert UnlearnTask.forget_class(train, test, 1).num_classes == 3
    assert UnlearnTask.forget_class(train, test, 1, num_classes=7).num_classes == 7
    assert UnlearnTask.forget_samples(images([0, 0]), images([0]), [1]).num_classes == 2


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"label": 4}, ValueError, r"^expected label to be a class in \[0, 3\], but got 4$"),
        ({"label": -1}, ValueError, "^expected label to be at least 0, but got -1$"),
        ({"label": True}, TypeError, "^expected label to be an int, but got bool: True$"),
        ({"label": 1.0}, TypeError, "^expected label to be an int, but got float: 1.0$"),
        ({"label": 1, "fraction": 0}, ValueError, r"^expected fraction in \(0, 1\], but got 0$"),
        ({"label": 1, "fraction": 1.5}, ValueError, r"^expected fraction in \(0, 1\], but got 1.5$"),
        ({"label": 1, "num_classes": 3}, ValueError, "^expected num_classes to cover label 3, but got 3$"),
        ({"label": 1, "num_classes": 1}, ValueError, "^expected num_classes to be at least 2, but got 1$"),
        (
            {"label": 5, "num_classes": 6},
            ValueError,
            r"^expected at least one sample to forget, but got an empty forget set \(class 5 ",
        ),
    ],
)
def test_a_class_that_cannot_be_forgotten_is_refused(options, error, text):
    with pytest.raises(error, match=text):
        UnlearnTask.forget_class(train_set(), test_set(), **options)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0.0, 1.0], TypeError, "expected the labels of train to be integers, but got torch.float32"),
        (
            [[0], [1]],
            ValueError,
            r"expected the labels of train to be one class index a sample, but got shape \(2, 1\)",
        ),
        ([0, -1], ValueError, "expected labels of at least 0, but got -1"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused_by_every_rule(labels, error, text):
    train, test = images(labels), images([0, 1])
    for build in (
        lambda: UnlearnTask.forget_class(train, test, 1),
        lambda: UnlearnTask.forget_samples(train, test, [0]),
        lambda: UnlearnTask.forget_where(train, test, [1, 0], [0, 0], lambda t: np.array(t) > 0),
    ):
        with pytest.raises(error, match=text):
            build()


class Elsewhere(Dataset):
    """Yields another class than it holds, or masks beside the diagnosis that it holds."""

    def __init__(self, masks: bool = False) -> None:
        self.labels, self.masks = [0, 1, 2] * 20, masks

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        label = (self.labels[index] + 1) % 3
        return torch.full((1, 1, 1), float(index)), torch.full((2, 2), label) if self.masks else label


def test_the_class_that_is_yielded_is_forgotten():
    task = UnlearnTask.forget_class(Elsewhere(), Elsewhere(), 1)
    assert {y for _, y in (task.forget[i] for i in range(len(task.forget)))} == {1}
    assert positions(task.forget) == held_out(task, "forget") == list(range(0, 60, 3))


def test_the_kind_is_what_is_yielded():
    task = UnlearnTask.forget_samples(Elsewhere(masks=True), Elsewhere(masks=True), [3])
    assert (task.kind, task.num_classes) == ("segmentation", 3)


# --- samples --------------------------------------------------------------------------------------


@given(chosen=st.lists(st.integers(0, 39), min_size=1, max_size=40, unique=True))
@settings(deadline=None, max_examples=25)
def test_chosen_samples_and_the_rest_make_up_the_training_set(chosen):
    task = UnlearnTask.forget_samples(train_set(), test_set(), chosen)
    assert positions(task.forget) == sorted(chosen) == task.forget_indices.tolist()
    assert positions(task.retain) == [i for i in range(40) if i not in chosen]
    assert held_out(task, "forget") == []
    assert held_out(task, "retain") == list(range(20))
    assert (task.num_classes, task.forget_classes) == (CLASSES, ())
    assert task.rule.startswith(f"{len(chosen)} chosen samples (")


@pytest.mark.parametrize(
    "make",
    [tuple, np.asarray, torch.tensor, lambda i: np.asarray(i, np.uint8), lambda i: pd.Series(i, index=[7, 9])],
    ids=["tuple", "numpy", "tensor", "bytes", "pandas"],
)
def test_indices_come_in_any_sequence(make):
    assert positions(UnlearnTask.forget_samples(train_set(), test_set(), make([9, 3])).forget) == [3, 9]


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        ([], ValueError, "expected at least one sample to forget, but got an empty forget set"),
        ([1, 5, 1], ValueError, "expected indices without repetition, but got 1 repeated"),
        ([0, 40], ValueError, r"expected indices in \[0, 39\], but got \[40\]"),
        ([-1], ValueError, r"expected indices in \[0, 39\], but got \[-1\]"),
        ([1.0], TypeError, "expected indices to be integers, but got torch.float"),
        ([True, False], TypeError, "expected indices to be integers, but got torch.bool"),
    ],
)
def test_indices_that_name_no_samples_are_refused(indices, error, text):
    for given_indices in (indices, np.asarray(indices), torch.tensor(indices)):
        with pytest.raises(error, match=text):
            UnlearnTask.forget_samples(train_set(), test_set(), given_indices)


# --- random samples -------------------------------------------------------------------------------


@given(fraction=st.floats(0.03, 0.97), seed=st.integers(0, 50))
@settings(deadline=None, max_examples=25)
def test_random_samples_are_a_share_of_all(fraction, seed):
    task = UnlearnTask.forget_random(train_set(), test_set(), fraction, seed=seed)
    assert len(task.forget) == round(fraction * 40)
    assert sorted(positions(task.forget) + positions(task.retain)) == list(range(40))
    assert positions(task.forget) == task.forget_indices.tolist()
    assert len(task.forget_test) == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: UnlearnTask.forget_random(train_set(), test_set(), 0.3, seed=seed),
        lambda seed: UnlearnTask.forget_class(train_set(), test_set(), 1, fraction=0.5, seed=seed),
    ],
)
def test_the_draw_depends_on_the_seed_alone(build):
    before = torch.get_rng_state()
    first, again, other = (positions(build(seed).forget) for seed in (4, 4, 5))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_every_sample_is_as_likely_as_any_other():
    counts = np.zeros(40)
    for seed in range(300):
        counts[UnlearnTask.forget_random(train_set(), test_set(), 0.25, seed=seed).forget_indices] += 1
    # Binomial(300, 1/4): 75 on average, with a standard deviation of 7.5.
    assert counts.sum() == 3000
    assert np.abs(counts - 75).max() < 4.5 * 7.5


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.2, float("nan")])
def test_a_share_lies_between_nothing_and_all(fraction):
    with pytest.raises(ValueError, match=r"^expected fraction in \(0, 1\), but got"):
        UnlearnTask.forget_random(train_set(), test_set(), fraction)


def test_a_share_of_less_than_a_sample_is_nothing_to_forget():
    with pytest.raises(ValueError, match=r"got an empty forget set \(0.001 of all samples, seed 0 "):
        UnlearnTask.forget_random(train_set(), test_set(), 0.001)


# --- metadata -------------------------------------------------------------------------------------


def tables(kind):
    devices = [["A", "B"][i % 3 == 0] for i in range(40)]
    held_out = ["B" if i < 4 else "A" for i in range(20)]
    if kind == "dict":
        return [{"device": np.array(column)} for column in (devices, held_out)]
    dtype = {"pandas": None, "nullable": "string", "categories": "category"}[kind]
    # An index that is not 0, 1, ...: rows count by their place.
    return [
        pd.DataFrame({"device": pd.Series(column, dtype=dtype)}).set_index(pd.Index(range(0, 3 * len(column), 3)))
        for column in (devices, held_out)
    ]


@pytest.mark.parametrize("kind", ["dict", "pandas", "nullable", "categories"])
def test_metadata_split_training_and_held_out_data_alike(kind):
    task = UnlearnTask.forget_where(train_set(), test_set(), *tables(kind), lambda t: t["device"] == "B")
    assert positions(task.forget) == list(range(0, 40, 3)) == task.forget_indices.tolist()
    assert positions(task.retain) == [i for i in range(40) if i % 3]
    assert held_out(task, "forget") == [0, 1, 2, 3]
    assert held_out(task, "retain") == list(range(4, 20))
    assert task.num_classes == CLASSES


def test_metadata_may_hold_nothing_out():
    here, there = tables("pandas")
    there["device"] = "A"
    task = UnlearnTask.forget_where(train_set(), test_set(), here, there, lambda t: t["device"] == "B")
    assert held_out(task, "forget") == []
    assert held_out(task, "retain") == list(range(20))


@pytest.mark.parametrize(
    ("predicate", "text"),
    [
        (
            lambda t: (t["device"] == "B").astype(int),
            r"return 40 bools for train_metadata, but got int64 of shape \(40,\)",
        ),
        (lambda t: (t["device"] == "B")[:7], r"return 40 bools for train_metadata, but got bool of shape \(7,\)"),
        (lambda _: True, r"return 40 bools for train_metadata, but got bool of shape \(\)"),
        (
            lambda t: t["device"] == "C",
            r"some of the 40 rows of train_metadata, but got none; there are device \('[AB]', ",
        ),
    ],
)
def test_a_predicate_that_does_not_split_is_refused(predicate, text):
    with pytest.raises(ValueError, match=text):
        UnlearnTask.forget_where(train_set(), test_set(), *tables("pandas"), predicate)


def test_tables_that_do_not_fit_the_data_are_refused():
    here, there = tables("pandas")
    with pytest.raises(ValueError, match="test_metadata to have one row for each of 20 samples, but got 40 rows"):
        UnlearnTask.forget_where(train_set(), test_set(), here, here, lambda t: t["device"] == "B")
    with pytest.raises(TypeError, match="expected test_metadata to be a table with one row a sample, but got None"):
        UnlearnTask.forget_where(train_set(), test_set(), here, None, lambda t: t["device"] == "B")
    with pytest.raises(TypeError, match="expected train_metadata to be a table"):
        UnlearnTask.forget_where(train_set(), test_set(), None, there, lambda t: t["device"] == "B")


def chosen_where(table, predicate, train=None, count=40):
    train = train or train_set(count)
    none = {"device": np.array(["A"] * 20)}
    held = none if isinstance(table, dict) else pd.DataFrame(none)
    for column in table:
        held[column] = np.array([next(v for v in table[column] if not pd.isna(v))] * 20)
    return UnlearnTask.forget_where(train, test_set(), table, held, predicate).forget_indices.tolist()


@pytest.mark.parametrize("make", [pd.DataFrame, dict])
@pytest.mark.parametrize(
    ("predicate", "accident"),
    [
        (lambda t: t["device"] != "B", True),
        (lambda t: ~(t["device"] == "B"), True),
        (lambda t: ~np.isin(t["device"], ["B"]), True),
        (lambda t: ~(np.asarray(t["year"], float) > 2010), True),
        (lambda t: t["device"] == "B", False),
        (lambda t: (t["device"] != "B") & pd.notna(t["device"]), False),
        (lambda t: pd.isna(t["device"]), False),
        (lambda t: np.asarray(t["year"], float) > 2010, False),
    ],
)
def test_no_row_is_chosen_by_a_value_that_is_missing(make, predicate, accident):
    devices = [None if i in (3, 8) else "ABC"[i % 3] for i in range(40)]
    years = [np.nan if i in (5, 6) else 2000.0 + i for i in range(40)]
    table = make({"device": np.array(devices, dtype=object), "year": np.array(years)})
    if accident:
        with pytest.raises(ValueError, match=r"not to choose rows of train_metadata whose '(device|year)' is missing"):
            chosen_where(table, predicate)
        return
    wanted = np.asarray(predicate({"device": pd.Series(devices, dtype=object), "year": np.array(years)}), bool)
    assert chosen_where(table, predicate) == np.flatnonzero(wanted).tolist()


def test_an_answer_that_is_neither_yes_nor_no_is_refused():
    table = pd.DataFrame({"device": pd.Series(["A", None, "B", "C"] * 10, dtype="string")})
    with pytest.raises(ValueError, match=r"40 bools for train_metadata, but got object of shape .* missing values"):
        chosen_where(table, lambda t: t["device"] != "B")


def test_rows_in_disorder_are_refused_and_rows_of_a_part_are_not():
    table = pd.DataFrame({"x": np.arange(40)})
    with pytest.raises(ValueError, match=r"the order of the samples, but got an index in disorder"):
        chosen_where(table.sample(frac=1, random_state=0), lambda t: t["x"] < 3)
    with pytest.raises(ValueError, match="expected predicate to keep the order of the rows of train_metadata"):
        chosen_where(table, lambda t: t.sort_values("x", ascending=False)["x"] < 3)
    part = table.sample(n=10, random_state=0)
    assert chosen_where(part, lambda t: t["x"] == part["x"].iloc[4], Subset(train_set(), part.index.tolist())) == [4]
    assert chosen_where(table.iloc[::4], lambda t: t["x"] == 8, train_set(10)) == [2]
    assert chosen_where(part.reset_index(drop=True), lambda t: t["x"] == part["x"].iloc[4], train_set(10)) == [4]


def test_to_forget_all_training_samples_by_a_predicate_is_refused():
    with pytest.raises(ValueError, match="expected predicate to leave training samples to retain"):
        chosen_where(pd.DataFrame({"x": np.arange(40)}), lambda t: t["x"] > -1)


# --- masks ----------------------------------------------------------------------------------------


def masks(*shape: int, classes: int | None = None) -> TensorDataset:
    own = torch.Generator().manual_seed(0)
    y = torch.rand(shape, generator=own).round() if classes is None else torch.randint(classes, shape, generator=own)
    return TensorDataset(torch.arange(shape[0]).reshape(-1, 1, 1, 1) / 1.0, y)


@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (6, 3, 3)])
def test_float_masks_are_binary_segmentation(shape):
    task = UnlearnTask.forget_samples(masks(*shape), masks(*shape), [0, 4])
    assert (task.kind, task.num_classes) == ("segmentation", 2)
    assert positions(task.forget) == [0, 4]


@pytest.mark.parametrize("hide", [False, True])
def test_integer_masks_are_counted_unless_told(hide):
    base = masks(6, 3, 3, classes=4)
    train = Hidden(base) if hide else base
    task = UnlearnTask.forget_random(train, base, 0.5)
    assert (task.kind, task.num_classes) == ("segmentation", 4)
    base = masks(100, 3, 3, classes=4)
    told = Hidden(base)
    assert UnlearnTask.forget_random(told, base, 0.5, num_classes=9).num_classes == 9
    assert len(set(told.read)) < 20


def test_a_class_that_only_held_out_masks_show_counts():
    train, test = masks(6, 3, 3, classes=3), masks(6, 3, 3, classes=5)
    assert UnlearnTask.forget_samples(train, test, [0]).num_classes == 5


def test_masks_hold_no_class_to_forget_as_a_whole():
    with pytest.raises(ValueError, match=r"expected the labels of train to be one class index a sample, but got shape"):
        UnlearnTask.forget_class(masks(6, 3, 3, classes=2), masks(6, 3, 3, classes=2), 1)


# --- the value itself, and subset -----------------------------------------------------------------


def test_splits_may_be_given_as_they_are():
    parts = [images([0, 1]), images([1]), images([0]), images([1])]
    task = UnlearnTask(*parts, num_classes=2)
    assert (task.forget, task.retain, task.forget_test, task.retain_test) == tuple(parts)
    assert (task.kind, task.rule, task.forget_indices) == ("classification", "given splits", None)
    with pytest.raises(ValueError, match=r"got an empty forget set \(given splits\)"):
        UnlearnTask(subset(parts[0], []), *parts[1:], num_classes=2)
    with pytest.raises(ValueError, match="expected num_classes to be at least 2, but got 1"):
        UnlearnTask(*parts, num_classes=1)


def test_an_empty_training_set_is_refused():
    empty = subset(train_set(), [])
    with pytest.raises(ValueError, match="expected train to hold at least one sample, but got an empty data set"):
        UnlearnTask.forget_samples(empty, test_set(), [])
    assert len(UnlearnTask.forget_class(train_set(), empty, 1).retain_test) == 0


@pytest.mark.parametrize("make", [list, np.asarray, torch.tensor, pd.Series], ids=["list", "numpy", "tensor", "pandas"])
def test_a_mask_of_bools_means_the_samples_where_it_is_true(make):
    mask = [i % 4 == 1 for i in range(40)]
    assert positions(subset(train_set(), make(mask))) == list(range(1, 40, 4))
    inner = Subset(train_set(), range(20, 60 - 20))
    assert positions(subset(inner, make(mask[:20]))) == list(range(21, 40, 4))


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        ([True, False], ValueError, r"expected a mask of shape \(40,\), but got \(2,\)"),
        ([1.7], TypeError, r"expected indices\[0\] to be an int or a bool, but got float: 1.7"),
    ],
)
def test_a_subset_is_not_guessed_from_other_values(indices, error, text):
    with pytest.raises(error, match=text):
        subset(train_set(), indices)


# --- validation data ------------------------------------------------------------------------------


def test_a_quarter_of_each_class_is_set_aside_whatever_the_rule():
    train, test = train_set(), images([0] * 8 + [1] * 4 + [2] + [3] * 2)
    rules = [
        UnlearnTask.forget_class(train, test, 0),
        UnlearnTask.forget_class(train, test, 3, fraction=0.5),
        UnlearnTask.forget_random(train, test, 0.2, seed=5),
        UnlearnTask.forget_samples(train, test, [1]),
        UnlearnTask.forget_where(train, test, {"x": np.arange(40)}, {"x": np.arange(15)}, lambda t: t["x"] < 5),
    ]
    aside = [sorted(positions(t.forget_validation) + positions(t.retain_validation)) for t in rules]
    assert all(chosen == aside[0] for chosen in aside)
    assert np.bincount(test.targets[aside[0]].numpy(), minlength=4).tolist() == [2, 1, 0, 1]
    drawn = []
    for label, count in enumerate([2, 1, 0, 1]):
        order = torch.randperm(int((test.targets == label).sum()), generator=generator(0, "validation", label))
        drawn += np.flatnonzero(test.targets == label)[order[:count].numpy()].tolist()
    assert aside[0] == sorted(drawn)
    other = UnlearnTask.forget_class(train, test, 0, validation_seed=1)
    assert sorted(positions(other.forget_validation) + positions(other.retain_validation)) != aside[0]


def test_validation_data_of_their_own_are_split_by_the_same_rule():
    train, test, own = train_set(), test_set(), images([0, 1, 2, 0, 3])
    task = UnlearnTask.forget_class(train, test, 0, validation=own)
    assert positions(task.forget_validation) == [0, 3]
    assert positions(task.retain_validation) == [1, 2, 4]
    assert sorted(positions(task.forget_test) + positions(task.retain_test)) == list(range(20))
    assert task.rule == "class 0 (validation: 5 samples of their own)"
    tables = [{"x": np.arange(count)} for count in (40, 20, 5)]
    where = UnlearnTask.forget_where(
        train, test, *tables[:2], lambda t: t["x"] % 2 == 1, validation=own, validation_metadata=tables[2]
    )
    assert positions(where.forget_validation) == [1, 3]
    assert positions(where.retain_validation) == [0, 2, 4]
    with pytest.raises(
        TypeError, match="expected validation_metadata to be a table with one row a sample, but got None"
    ):
        UnlearnTask.forget_where(train, test, *tables[:2], lambda t: t["x"] > 3, validation=own)
    chosen = task.on_validation()
    assert positions(chosen.forget_test) == [0, 3]
    assert positions(chosen.retain_test) == [1, 2, 4]
    assert len(chosen.forget_validation) == len(chosen.retain_validation) == 0


def test_without_held_out_data_there_are_none_to_choose_by():
    empty = TensorImages(torch.empty(0, 1, 1, 1), torch.empty(0).long())
    task = UnlearnTask.forget_samples(train_set(), empty, [1])
    assert held_out(task, "forget") == held_out(task, "retain") == []


def test_an_expression_says_what_is_forgotten_and_a_slip_is_named():
    data = TensorDataset(torch.rand(8, 2), torch.arange(8) % 2)
    table = {"device": np.array(["A", "B"] * 4), "year": np.array(["2018", "2020", "", "2017"] * 2)}
    tables = (table, table)
    task = UnlearnTask.forget_where(
        data, data, *tables, where("device == B and year < 2019"), validation=data, validation_metadata=table
    )
    assert task.forget_indices.tolist() == [3, 7]
    assert task.rule == "device == B and year < 2019 (validation: 8 samples of their own)"
    assert repr(task) == "<UnlearnTask device == B and year < 2019: 2 of 8 images; validation 2, test 2>"
    own = UnlearnTask.forget_where(data, data, table, table, lambda t: t["device"] == "B", rule="device B")
    assert own.rule.startswith("device B (validation")
    with pytest.raises(ValueError, match="a value that occurs, one of 'A', 'B', but got 'C'"):
        UnlearnTask.forget_where(data, data, table, table, where("device in (A, C)"))
    with pytest.raises(ValueError, match=r"joined by & or \| each need parentheses"):
        UnlearnTask.forget_where(data, data, table, table, lambda t: t["device"] == "B" & t["year"] == "2020")
