"""Files decoded once: the same numbers, in memory where they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_kit import UnlearnTask, data
from unlearn_kit.data import load_tensors
from unlearn_kit.data.pictures import PictureFiles
from unlearn_kit.data.sample_files import files_of
from unlearn_kit.deployed.reading import read_once
from unlearn_kit.hashing import hash_dataset
from unlearn_kit.tasks import DATA

DRAW = np.random.default_rng(0)


def folder(root: Path, deep: bool = False, sizes: bool = False, masks: bool = False) -> data.DataBundle:
    """Write twelve pictures of two classes, or with masks, and load them."""
    rows = ["file,label,mask,split,device"]
    for i in range(12):
        shape = (6 + i * sizes, 5)
        pixels = DRAW.integers(0, 65536 if deep else 256, shape).astype(np.uint16 if deep else np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        Image.fromarray((pixels > 99).astype(np.uint8) * 255).save(root / f"m{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},m{i}.png,{'train' if i < 7 else 'test'},{'AB'[i // 2 % 2]}")
    (root / "metadata.csv").write_text("\n".join(rows))
    return data.load("image-folder", root, channels=1, mask_column="mask" if masks else None)


def asked(bundle: data.DataBundle) -> UnlearnTask:
    return UnlearnTask.forget_where(
        bundle.train, bundle.test, bundle.train_metadata, bundle.test_metadata, data.where("device == B")
    )


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_what_is_held_in_memory_is_what_the_files_hold(tmp_path: Path, deep: bool, masks: bool) -> None:
    task = asked(folder(tmp_path, deep=deep, masks=masks))
    held, words = read_once(task)
    for name in DATA:
        before, after = getattr(task, name), getattr(held, name)
        assert len(before) == len(after)
        if not len(before):
            continue
        for old, new in zip(load_tensors(before), load_tensors(after), strict=True):
            assert old.dtype == new.dtype
            assert torch.equal(old, new)
        assert hash_dataset(before) == hash_dataset(after)
        assert after.dataset.inputs.dtype == (torch.float32 if deep else torch.uint8)
        assert files_of(after) == files_of(before)
    assert held.rule == task.rule
    # Twelve pictures of 30 pixels, and their targets.
    kept = 12 * (30 * (4 if deep else 1) + (30 * 4 if masks else 8))
    assert words == f"Files: 12, decoded once and held in {kept / 2**20:.1f} MiB of memory"
    # Nothing is left to be read, and nothing of it is said twice.
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert hash_dataset(held.retain) == hash_dataset(read_once(held)[0].retain)
    assert read_once(held)[1] is None


def test_what_does_not_fit_or_may_change_is_read_anew(tmp_path: Path) -> None:
    task = asked(folder(tmp_path))
    held, words = read_once(task, limit=200)
    assert held.forget.dataset is task.forget.dataset
    assert words is not None
    assert words.startswith("Files: 12, decoded each time they are read, as memory of")
    deep = asked(folder(tmp_path, deep=True))
    assert read_once(deep, limit=12 * 50)[0].forget.dataset is deep.forget.dataset
    unequal = asked(folder(tmp_path, sizes=True, masks=True))
    assert read_once(unequal)[0].forget.dataset is unequal.forget.dataset


class Drawing(PictureFiles):
    """Pictures that may come out in another way each time."""


def test_data_of_a_user_s_own_stay_as_they_are(tmp_path: Path) -> None:
    files = folder(tmp_path).train
    own = Drawing(files.paths, files.targets, channels=1)
    task = UnlearnTask.forget_samples(own, own, [0])
    held, words = read_once(task)
    assert (held.forget.dataset is own, words) == (True, None)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    task = asked(folder(tmp_path))
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"5.png to be a complete image file"):
        read_once(task)
