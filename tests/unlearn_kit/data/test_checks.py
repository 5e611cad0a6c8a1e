"""One door for data: what is no data set of pairs is refused by the argument, the form that came and the remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from unlearn_kit import UnlearnTask, engine, metrics
from unlearn_kit.data import TensorImages
from unlearn_kit.data.checks import check_dataset
from unlearn_kit.engine.streams import Stream

X, Y = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
GOOD = TensorDataset(X, Y)


class Yields(Dataset):
    """Yields what a function makes of the position."""

    def __init__(self, make) -> None:
        self.make = make

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return self.make(index)


class Endless(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


PICTURE = Image.new("RGB", (4, 4))
BAD = {
    "triples": (Yields(lambda i: (X[i], Y[i], i)), TypeError, r"but got tuple of \(Tensor, Tensor, int\)"),
    "dicts": (Yields(lambda i: {"image": X[i], "label": 1}), TypeError, r"keys \['image', 'label'\]"),
    "inputs alone": (Yields(lambda i: X[i]), TypeError, r"but got Tensor of shape \(3, 4, 4\)"),
    "picture": (Yields(lambda _: (PICTURE, 1)), TypeError, r"input of .* to be a Tensor, but got Image; .*ToTensor"),
    "picture as mask": (Yields(lambda i: (X[i], PICTURE)), TypeError, "target of .* but got Image; .*target_transform"),
    "no sample": (Yields(lambda _: None), TypeError, r"a pair \(input, target\), but got None"),
    "no target": (Yields(lambda i: (X[i], None)), TypeError, "class index or a mask, but got None"),
    "no input": (Yields(lambda _: (None, 1)), TypeError, "to be a Tensor, but got None"),
    "names": (Yields(lambda i: (X[i], "cat")), TypeError, "but got the text 'cat'; number the classes"),
    "list": (Yields(lambda i: (X[i], [1, 2])), TypeError, r"class index or a mask, but got list of \(int, int\)"),
    "bytes": (Yields(lambda i: ((255 * X[i]).byte(), 1)), TypeError, r"torch.uint8; .*TensorImages"),
    "numpy bytes": (Yields(lambda _: (np.zeros((3, 4, 4), np.uint8), 1)), TypeError, "but got torch.uint8"),
    "nan": (Yields(lambda i: (X[i] / 0 * 0, 1)), ValueError, "input of .* to be finite"),
    "sparse": (Yields(lambda i: (X[i].to_sparse(), 1)), TypeError, "to be a dense tensor, but got torch.sparse_coo"),
    "complex": (Yields(lambda i: (X[i] + 1j, 1)), TypeError, "but got torch.complex64"),
    "fraction": (Yields(lambda i: (X[i], 1.9)), TypeError, r"labels of .* to be integers, but got 1\.9"),
    "nothing": (None, TypeError, "but got None"),
    "arrays": ((X, Y), TypeError, r"but got tuple of \(Tensor, Tensor\); pass TensorDataset\(inputs, targets\)"),
    "array": (X, TypeError, r"but got Tensor of shape \(6, 3, 4, 4\)"),
    "numpy": ([X.numpy(), Y.numpy()], TypeError, r"but got list of \(ndarray, ndarray\); pass TensorDataset"),
    "endless": (Endless(), TypeError, "but got Endless, an IterableDataset, whose samples have no positions"),
    "loader": (DataLoader(GOOD), TypeError, "but got a DataLoader; pass its .dataset"),
    "path": ("data/train", TypeError, "but got str"),
    "mapping": ({"train": GOOD}, TypeError, r"but got dict with the keys \['train'\]"),
    "number": (3, TypeError, "but got int"),
    "iterator": (iter([(X[0], 0)]), TypeError, "but got list_iterator"),
    "model": (nn.Linear(1, 1), TypeError, "but got Linear"),
}  # fmt: skip

DOORS = {
    "forget_class train": (lambda d: UnlearnTask.forget_class(d, GOOD, 1), "train"),
    "forget_class test": (lambda d: UnlearnTask.forget_class(GOOD, d, 1), "test"),
    "forget_samples": (lambda d: UnlearnTask.forget_samples(d, GOOD, [0]), "train"),
    "forget_random": (lambda d: UnlearnTask.forget_random(d, GOOD, 0.5), "train"),
    "forget_mask_class": (lambda d: UnlearnTask.forget_mask_class(d, GOOD, 1), "train"),
    "task": (lambda d: UnlearnTask(d, GOOD, GOOD, GOOD, 3), "forget"),
    "train": (lambda d: engine.train(nn.Linear(1, 3), d, epochs=1), "dataset"),
    "stream": (lambda d: Stream("retain", d, 2, 0), "stream 'retain'"),
    "accuracy": (lambda d: metrics.accuracy(nn.Identity(), d), "dataset"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("form", BAD)
def test_what_is_no_data_set_of_pairs_is_refused_by_name(form, door):
    (data, error, text), (call, name) = BAD[form], DOORS[door]
    if (form, door) == ("nan", "accuracy"):
        text, name = "logits to be finite", "logits"
    with pytest.raises(error, match=text) as caught:
        call(data)
    assert name in str(caught.value).split("but got")[0]


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        list(zip(X, Y, strict=True)),
        [(x.numpy(), np.int64(y)) for x, y in zip(X, Y, strict=True)],
        [(x, int(y)) for x, y in zip(X, Y, strict=True)],
        [[x, np.uint16(y)] for x, y in zip(X, Y, strict=True)],
        TensorImages((255 * X).byte(), Y.to(torch.uint8)),
        (),
    ],
)
def test_pairs_of_any_make_pass(data):
    state = torch.get_rng_state()
    check_dataset("data", data)
    assert torch.equal(torch.get_rng_state(), state)
    if len(data):
        assert UnlearnTask.forget_class(data, data, 1).forget_indices.tolist() == [1, 4]


def test_names_of_classes_beside_numbers_do_no_harm():
    class Named(Yields):
        labels = ("cat", "dog", "owl", "cat", "dog", "owl")

    data = Named(lambda i: (X[i], i % 3))
    assert UnlearnTask.forget_class(data, data, 2).forget_indices.tolist() == [2, 5]


def test_a_few_samples_tell():
    read = []
    check_dataset("data", Yields(lambda i: read.append(i) or (X[i], 0)))
    assert {0, 5} <= set(read)
    assert len(read) <= 3


@pytest.mark.parametrize("indices", [{1, 4}, frozenset({1, 4}), range(1, 5, 3), np.array([1, 4], np.uint16)])
def test_samples_are_named_by_any_collection(indices):
    assert UnlearnTask.forget_samples(GOOD, GOOD, indices).forget_indices.tolist() == [1, 4]


@pytest.mark.parametrize("indices", [{"a"}, ["1"], None, "12", [[1], [2, 3]]])
def test_what_names_no_samples_is_refused(indices):
    with pytest.raises(TypeError, match="expected indices to be integers, but got "):
        UnlearnTask.forget_samples(GOOD, GOOD, indices)


def test_kinds_that_are_none_or_another_are_refused():
    with pytest.raises(ValueError, match="but got 'Segmentation'; did you mean 'segmentation'"):
        UnlearnTask(GOOD, GOOD, GOOD, GOOD, 3, kind="Segmentation")
    with pytest.raises(ValueError, match="expected kind to be what forget yields, which are class labels"):
        UnlearnTask(GOOD, GOOD, GOOD, GOOD, 3, kind="segmentation")
    with pytest.raises(ValueError, match=r"expected the labels of forget in 0..1, but got 2..2"):
        UnlearnTask(GOOD, GOOD, GOOD, GOOD, 2)


def test_mask_classes_may_be_numpys():
    masks = TensorDataset(X, Y[:, None, None].expand(-1, 4, 4))
    assert UnlearnTask.forget_mask_class(masks, masks, np.int64(1)).forget_indices.tolist() == [1, 4]
