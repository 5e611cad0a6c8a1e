"""Pictures that are there twice are counted and named."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.data import TensorImages, duplicates
from unlearn_kit.data.pictures import PictureFiles

PIXELS = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def images(places, labels) -> TensorImages:
    return TensorImages(PIXELS[list(places)], torch.tensor(labels))


def test_copies_are_named_with_whether_their_targets_agree():
    train, test = images([0, 1, 2, 1, 0], [0, 1, 0, 1, 1]), images([3, 2, 4], [1, 0, 0])
    found = duplicates({"train": train, "test": test})
    assert [(pair.first, pair.second, pair.same_target) for pair in found.pairs] == [
        (("train", 1), ("train", 3), True),
        (("train", 0), ("train", 4), False),
        (("train", 2), ("test", 1), True),
    ]
    both = ("train", "train"), ("test", "train"), ("test", "test")
    assert [len(found.between(*names)) for names in both] == [2, 1, 0]
    assert str(found) == (
        "2 copies within train: train[1] is train[3], train[0] is train[4] with another target\n"
        "1 copies of train in test: train[2] is test[1]"
    )


def test_a_copy_in_another_type_or_a_subset_is_a_copy():
    floats = TensorDataset(PIXELS.float() / 255, torch.zeros(8, dtype=torch.uint8))
    found = duplicates({"bytes": images([5], [0]), "floats": Subset(floats, [2, 5])})
    assert [(pair.second, pair.same_target) for pair in found.pairs] == [(("floats", 1), True)]


def test_all_different_pictures_and_no_pictures_give_nothing():
    found = duplicates({"train": images(range(8), [0] * 8), "test": ()}, distance=0)
    assert (found.pairs, str(found)) == ((), "")


def test_pictures_that_look_alike_are_found_when_asked_for():
    coarse = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(coarse, 32, mode="bicubic")
    brighter = TensorDataset(smooth[[4, 2]] * 0.9 + 0.05, torch.tensor([0, 1]))
    first = TensorDataset(smooth, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert duplicates({"a": first, "b": brighter}).pairs == ()
    found = duplicates({"a": first, "b": brighter}, distance=8).pairs
    assert [(pair.first, pair.second, pair.same_target, pair.exact) for pair in found] == [
        (("a", 4), ("b", 0), True, False),
        (("a", 2), ("b", 1), False, False),
    ]
    assert str(found[1]) == "a[2] is b[1] nearly with another target"
    # Of large even areas little is left to compare, and of very small pictures as well.
    sparse = torch.zeros(2, 1, 32, 32)
    sparse[0, :, 4:8, 4:8] = sparse[1, :, 20:24, 20:24] = 1
    for different in (sparse, torch.eye(9).reshape(9, 1, 3, 3)):
        assert duplicates({"a": TensorDataset(different, torch.zeros(len(different)).long())}, distance=8).pairs == ()
    even = TensorDataset(torch.tensor([0.1, 0.5, 0.9]).reshape(3, 1, 1, 1).expand(-1, 1, 8, 8), torch.zeros(3).long())
    assert duplicates({"even": even}, distance=8).pairs == ()


def test_a_task_tells_what_it_forgets_and_keeps():
    train, test = images([0, 1, 2, 3, 1], [0, 1, 0, 1, 0]), images([4, 3], [0, 1])
    found = UnlearnTask.forget_samples(train, test, [1, 3], validation=images([5], [0])).duplicates()
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        (("forget", 0), ("retain", 2)),
        (("forget", 1), ("retain_test", 1)),
    ]
    masks = TensorImages(PIXELS, torch.zeros(8, 28, 28).long().index_fill_(1, torch.tensor([3]), 1))
    assert UnlearnTask.forget_mask_class(masks, masks, 1, validation=()).duplicates().between("forget", "retain") == ()


def test_what_is_no_data_set_is_named():
    with pytest.raises(TypeError, match=r"expected datasets\['test'\] to be a map-style data set"):
        duplicates({"train": images([0], [0]), "test": None})
    with pytest.raises(ValueError, match="expected distance to be at least 0, but got -1"):
        duplicates({}, distance=-1)


def test_files_are_named_where_the_data_know_them(tmp_path):
    for name in ("benign-1.png", "malignant-2.png"):
        Image.fromarray(PIXELS[0, 0].numpy()).save(tmp_path / name)
    paths = [tmp_path / "benign-1.png", tmp_path / "malignant-2.png"]
    files = PictureFiles(paths, torch.tensor([0, 1]), channels=1)
    found = duplicates({"train": files, "test": Subset(files, [1])})
    assert str(found).splitlines() == [
        "1 copies within train: train[0] (benign-1.png) is train[1] (malignant-2.png) with another target",
        "1 copies of train in test: train[0] (benign-1.png) is test[0] (malignant-2.png) with another target",
    ]


@pytest.mark.parametrize(("limit", "read"), [(100, 48), (48, 48), (24, 24), (4, 3), (1, 3)])
def test_of_many_pictures_some_are_read_and_counted(limit, read):
    sets = {
        "forget": images([0] * 8, [0] * 8),
        "retain": images([1] * 30, [0] * 30),
        "test": images([2] * 10, [0] * 10),
    }
    found = duplicates(sets, limit=limit)
    assert (found.total, abs(found.read - read) <= 1) == (48, True)
    assert found == duplicates(sets, limit=limit)
    # Positions are those of the data sets, not of what was drawn; what is to be forgotten comes first.
    shifted = {"forget": images(range(4), [0] * 4), "retain": images([7] * 96 + [*range(4)], [0] * 100)}
    places = [pair for pair in duplicates(shifted, limit=60).pairs if pair.first[0] == "forget"]
    assert {(pair.first[1], pair.second[1]) for pair in places} < {(i, 96 + i) for i in range(4)}
    with pytest.raises(ValueError, match="expected limit to be at least 1, but got 0"):
        duplicates(sets, limit=0)
