"""Reading samples: the fast path and the DataLoader path agree with reading one sample after the other."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets.vision import StandardTransform

from unlearn_kit.data import TensorImages, in_order, iterate, labels_of, load_tensors, resolve, subset, tensors
from unlearn_kit.data.tensors import COMPARED, held_in_tensors, read_labels

COUNT = 12


def images(count: int = COUNT, seed: int = 0) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    return TensorImages(
        torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8, generator=own),
        torch.randint(0, 4, (count,), generator=own),
    )


class Plain(Dataset):
    """A data set that only knows ``__getitem__``; counts how often it is asked."""

    def __init__(self, base: TensorImages) -> None:
        self.base, self.reads = base, 0

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int):
        self.reads += 1
        x, y = self.base[index]
        return x, int(y)


class Listed(Plain):
    """As torchvision's data sets: labels in a list."""

    def __init__(self, base: TensorImages, name: str = "targets") -> None:
        super().__init__(base)
        setattr(self, name, base.targets.tolist())


class Rolling(Dataset):
    """Draws from every global random state when read, as augmentation does."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int):
        return torch.rand(2), index


class Raised:
    """Reads each sample with inputs that are 1 larger and a target that is 1 larger, whatever is held."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 1, y + 1

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class RaisedSubset(Raised, Subset): ...


class RaisedTensors(Raised, TensorDataset): ...


class RaisedImages(Raised, TensorImages): ...


class RaisedTogether(Raised, ConcatDataset): ...


class RaisedInBatches(TensorDataset):
    def __getitems__(self, indices):
        return [(x + 1, y + 1) for x, y in (self[index] for index in indices)]


class Counted(TensorImages):
    """Counts the batches that are asked for."""

    asked = 0

    def batch(self, indices):
        self.asked += 1
        return super().batch(indices)


def tensor_set() -> TensorDataset:
    held = images()
    return TensorDataset(held.inputs.float() / 255, held.targets)


RAISED = {
    "subset": lambda: RaisedSubset(images(), range(COUNT)),
    "subset of a subset": lambda: RaisedSubset(Subset(images(), range(COUNT)), range(COUNT)),
    "TensorDataset": lambda: RaisedTensors(*tensor_set().tensors),
    "TensorDataset, batches": lambda: RaisedInBatches(*tensor_set().tensors),
    "TensorImages": lambda: RaisedImages(images().inputs, images().targets),
    "concatenated": lambda: RaisedTogether([Subset(images(), range(5)), Subset(images(), range(5, COUNT))]),
}
KINDS = {
    "TensorImages": images,
    "TensorDataset": tensor_set,
    "plain": lambda: Plain(images()),
    "concatenated": lambda: ConcatDataset([images(5, 1), images(7, 2)]),
}
chains = st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), max_size=3)


def nest(dataset, chain):
    """Subsets of subsets, and the positions in ``dataset`` they mean, worked out with lists."""
    meant = list(range(len(dataset)))
    for raw in chain:
        indices = [value % len(meant) for value in raw]
        dataset = Subset(dataset, indices)
        meant = [meant[index] for index in indices]
    return dataset, meant


def one_by_one(dataset, positions):
    pairs = [dataset[int(position)] for position in positions]
    return torch.stack([x for x, _ in pairs]), torch.tensor([int(y) for _, y in pairs])


# --- TensorImages ---------------------------------------------------------------------------------


def test_bytes_are_read_as_float32_of_a_255th():
    held = images()
    x, y = held.batch(torch.tensor([3, 0, 3]))
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), held.inputs.numpy()[[3, 0, 3]].astype(np.float32) / np.float32(255))
    assert torch.equal(y, held.targets[[3, 0, 3]])
    assert held.inputs.dtype == torch.uint8


def test_reading_never_changes_what_is_held():
    held = images()
    before = held.inputs.clone()
    held[0][0].fill_(7)
    held.batch(torch.arange(COUNT))[0].zero_()
    assert torch.equal(held.inputs, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_floating_point_inputs_are_kept_exactly(dtype):
    inputs = torch.linspace(0, 1, 6, dtype=dtype).reshape(2, 3)
    x, _ = TensorImages(inputs, torch.tensor([0, 1])).batch(torch.tensor([1, 0]))
    assert x.dtype == dtype
    assert torch.equal(x, inputs.flip(0))


def test_single_samples_count_from_either_end_and_stop():
    held = images()
    assert torch.equal(held[-1][0], held[COUNT - 1][0])
    with pytest.raises(IndexError):
        held[COUNT]
    with pytest.raises(IndexError):
        held[-COUNT - 1]
    assert len(list(held)) == COUNT


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "text"),
    [
        (
            np.zeros((2, 1, 2, 2)),
            torch.zeros(2),
            TypeError,
            "expected inputs to be a Tensor, but got ndarray",
        ),
        (torch.zeros(2, 1, 2, 2), [0, 1], TypeError, "expected targets to be a Tensor, but got list"),
        (torch.zeros(2, 1), torch.zeros(3), ValueError, "but got 2 inputs and 3 targets"),
        (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2), TypeError, "but got torch.int64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(inputs, targets, error, text):
    with pytest.raises(error, match=text):
        TensorImages(inputs, targets)


# --- resolve and subset ---------------------------------------------------------------------------


@given(chain=chains)
@settings(max_examples=40, deadline=None)
def test_resolve_finds_the_data_below_any_chain_of_subsets(chain):
    base = images()
    nested, meant = nest(base, chain)
    found, indices = resolve(nested)
    assert found is base
    assert (indices is None) == (not chain)
    assert indices is None or indices.tolist() == meant


@given(chain=chains, raw=st.lists(st.integers(0, 10**6), max_size=6))
@settings(max_examples=40, deadline=None)
def test_subset_is_flat_and_means_the_same_samples(chain, raw):
    base = images()
    nested, meant = nest(base, chain)
    indices = [value % len(meant) for value in raw]
    flat = subset(nested, indices)
    assert flat.dataset is base
    assert flat.indices == [meant[index] for index in indices]
    assert len(flat) == len(raw)


@pytest.mark.parametrize("make", [list, np.asarray, torch.tensor], ids=["list", "numpy", "tensor"])
def test_subset_takes_any_sequence_of_indices(make):
    assert subset(images(), make([4, 1, 1])).indices == [4, 1, 1]


def test_a_resolved_slice_of_a_concatenation_stays_whole():
    both = ConcatDataset([images(3), images(4)])
    base, indices = resolve(Subset(both, [6, 0]))
    assert base is both
    assert indices.tolist() == [6, 0]


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(COUNT)), lambda d: subset(d, range(COUNT))])
def test_a_subclass_that_reads_otherwise_is_read_its_own_way(kind, wrap):
    plain, own = images(), RAISED[kind]()
    dataset = wrap(own)
    assert resolve(dataset)[0] is own
    assert not held_in_tensors(dataset)
    assert labels_of(dataset) is None
    x, y = load_tensors(dataset)
    assert torch.equal(x, plain.inputs.float() / 255 + 1)
    assert torch.equal(y, plain.targets + 1)


def test_a_subclass_that_reads_alike_is_still_read_a_batch_at_a_time():
    dataset = Counted(images().inputs, images().targets)
    assert held_in_tensors(Subset(dataset, [3, 1]))
    load_tensors(Subset(dataset, [3, 1]))
    assert dataset.asked == 1
    assert torch.equal(labels_of(dataset), dataset.targets)


# --- labels_of ------------------------------------------------------------------------------------


@given(chain=chains, kind=st.sampled_from(["images", "tensors", "targets", "labels", "concatenated"]))
@settings(max_examples=60, deadline=None)
def test_labels_equal_those_of_the_samples_of_which_few_are_read(chain, kind):
    base = {
        "images": images,
        "tensors": tensor_set,
        "targets": lambda: Listed(images()),
        "labels": lambda: Listed(images(), "labels"),
        "concatenated": lambda: ConcatDataset([Listed(images(5, 1)), Subset(images(9, 2), range(1, 8))]),
    }[kind]()
    nested, meant = nest(base, chain)
    found = labels_of(nested)
    parts = base.datasets if kind == "concatenated" else [base]
    assert all(part.reads <= COMPARED for part in parts if isinstance(part, Plain))
    assert torch.equal(found, one_by_one(base, meant)[1])


@pytest.mark.parametrize(
    "dataset",
    [
        Plain(images()),
        Subset(Plain(images()), [1]),
        ConcatDataset([images(), Plain(images())]),
    ],
    ids=["plain", "subset", "concatenated"],
)
def test_labels_that_are_not_exposed_are_none(dataset):
    assert labels_of(dataset) is None


def test_labels_that_are_no_numbers_are_none():
    held = Listed(images())
    held.targets = [{"boxes": 1}, {"boxes": 2}]
    assert labels_of(held) is None


@pytest.mark.parametrize(
    ("attributes", "believed"),
    [
        ({"target_transform": lambda y: y % 2}, False),
        ({"transforms": StandardTransform(None, lambda y: y % 2)}, False),
        ({"transforms": lambda x, y: (x, y % 2)}, False),
        ({"target_transform": None, "transforms": None}, True),
        ({"transform": lambda x: -x, "transforms": StandardTransform(lambda x: -x, None)}, True),
    ],
)
def test_labels_that_a_transform_may_change_are_not_believed(attributes, believed):
    held = Listed(images())
    vars(held).update(attributes)
    for dataset in (held, Subset(held, [2, 0]), ConcatDataset([images(), held])):
        assert (labels_of(dataset) is not None) == believed


GPU = FakeTensorMode(allow_non_fake_inputs=True)  # Its tensors are not there, and say that they are on a GPU.


def on_a_gpu():
    with GPU:
        return torch.zeros(COUNT, 1, device="cuda"), torch.zeros(COUNT, dtype=torch.int64, device="cuda")


@pytest.mark.parametrize("kind", ["images", "tensors"])
def test_labels_held_on_a_gpu_are_found_on_the_cpu(kind):
    held = {"images": TensorImages, "tensors": TensorDataset}[kind](*on_a_gpu())
    for dataset in (held, Subset(held, [3, 1]), ConcatDataset([held, Subset(held, [3])])):
        assert labels_of(dataset).device.type == "cpu"


def test_labels_read_from_a_gpu_are_found_on_the_cpu(monkeypatch):
    monkeypatch.setattr(tensors, "in_order", lambda _: iter([on_a_gpu()]))
    assert read_labels(Plain(images())).device.type == "cpu"


class Shifted(Listed):
    """Yields another label than it holds, of one class or of all."""

    def __init__(self, changed, by=1) -> None:
        super().__init__(images(200))
        self.changed, self.by = changed, by

    def __getitem__(self, index: int):
        x, y = super().__getitem__(index)
        return x, y + self.by if y in self.changed else y


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(0, 200, 2)), lambda d: ConcatDataset([d, d])])
@pytest.mark.parametrize("changed", [range(4), [2]], ids=["all classes", "one class"])
def test_labels_are_those_that_are_yielded_where_others_are_held(changed, wrap):
    dataset = wrap(Shifted(changed))
    before = torch.get_rng_state()
    assert labels_of(dataset) is None
    assert read_labels(dataset).tolist() == [y for _, y in (dataset[i] for i in range(len(dataset)))]
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_of_another_number_than_samples_are_none_of_the_samples():
    held = Listed(images())
    held.targets = [0, 1, 2]
    assert labels_of(held) is None
    assert torch.equal(read_labels(held), held.base.targets)


class Masked(Listed):
    """Has a diagnosis for each image, and yields its mask."""

    def __getitem__(self, index: int):
        return super().__getitem__(index)[0], torch.full((2, 2), index % 3)


def test_a_diagnosis_beside_masks_is_no_label_of_theirs():
    assert labels_of(Masked(images(), "labels")) is None
    assert read_labels(Masked(images(), "labels")).shape == (COUNT, 2, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_labels_are_labels(dtype):
    x, y = images().inputs.float(), images().targets
    for dataset in (TensorDataset(x, y.to(dtype)), TensorImages(x, y.to(dtype)), Plain(TensorImages(x, y.to(dtype)))):
        for labels in (read_labels(dataset), load_tensors(dataset)[1]):
            assert torch.equal(labels.long(), y)
            assert labels.amax() == 3  # torch has no maximum of wide unsigned integers


# --- iterate, in_order, load_tensors --------------------------------------------------------------


@given(
    kind=st.sampled_from(sorted(KINDS)),
    chain=chains,
    raw=st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_batches_equal_reading_sample_by_sample(kind, chain, raw):
    base = KINDS[kind]()
    nested, meant = nest(base, chain)
    batches = [torch.tensor([value % len(meant) for value in batch]) for batch in raw]
    read = list(iterate(nested, batches))
    assert len(read) == len(batches)
    for (x, y), batch in zip(read, batches, strict=True):
        expected_x, expected_y = one_by_one(nested, batch)
        assert torch.equal(x, expected_x)
        assert y.dtype == torch.int64
        assert torch.equal(y, expected_y)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_workers_change_nothing(kind):
    dataset = Subset(KINDS[kind](), [7, 0, 11, 3, 3])
    alone, helped = (list(in_order(dataset, 2, workers=workers)) for workers in (0, 2))
    assert [len(x) for x, _ in alone] == [2, 2, 1]
    for (x, y), (other_x, other_y) in zip(alone, helped, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@given(count=st.integers(1, 20), size=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_in_order_yields_every_sample_once(count, size):
    held = images(count)
    x, y = (torch.cat(parts) for parts in zip(*in_order(held, size), strict=True))
    assert torch.equal(y, held.targets)
    assert torch.equal(x, held.inputs.float() / 255)
    sizes = [len(part) for _, part in in_order(held, size)]
    assert sizes == [size] * (count // size) + ([count % size] if count % size else [])


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_asked_for_as_they_are_read(kind, workers):
    asked = []

    def batches():
        for number in range(1000):
            asked.append(number)
            yield torch.tensor([number % COUNT])

    reading = iterate(KINDS[kind](), batches(), workers=workers)
    for _ in range(3):
        next(reading)
    reading.close()
    # A worker may have two more waiting for it.
    assert len(asked) <= 3 + 2 * workers + 1


def test_in_order_of_nothing_yields_nothing():
    assert list(in_order(subset(images(), []))) == []


def test_in_order_puts_batches_on_the_device():
    assert {t.device.type for pair in in_order(images(), 5, device="meta") for t in pair} == {"meta"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_load_tensors_joins_all_batches(kind):
    dataset = Subset(KINDS[kind](), [7, 0, 11])
    x, y = load_tensors(dataset)
    expected_x, expected_y = one_by_one(dataset, range(3))
    assert torch.equal(x, expected_x)
    assert torch.equal(y, expected_y)


def test_load_tensors_refuses_an_empty_data_set():
    with pytest.raises(ValueError, match="expected dataset to hold at least one sample, but got an empty data set"):
        load_tensors(subset(images(), []))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_reading_leaves_the_random_state_of_the_caller(kind, workers):
    dataset = KINDS[kind]()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    list(in_order(dataset, 5, workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_random_reads_in_workers_repeat():
    first, second = (load_tensors(Rolling(), workers=2)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert len(first.unique()) == first.numel()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"workers": -1}, ValueError, "expected workers to be at least 0, but got -1"),
        ({"batch_size": 0}, ValueError, "expected batch_size to be at least 1, but got 0"),
        ({"batch_size": 2.0}, TypeError, "expected batch_size to be an int, but got float: 2.0"),
    ],
)
def test_wrong_reading_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        list(in_order(images(), **options))
