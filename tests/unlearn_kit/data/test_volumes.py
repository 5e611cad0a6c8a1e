"""Volumes of a user's own: read from NIfTI and NumPy files, with masks and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearn_kit import UnlearnTask, data
from unlearn_kit.data.tensors import drawn
from unlearn_kit.data.volumes import VolumeFiles, is_volume, read_volume

DRAW = np.random.default_rng(0)
SHAPE = (3, 4, 5)


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ", ".npy", ".npz"])
def test_bytes_are_read_alike_from_every_form(tmp_path: Path, suffix: str) -> None:
    values = DRAW.integers(0, 256, SHAPE).astype(np.uint8)
    path = write(tmp_path / f"a{suffix}", values)
    assert is_volume(path)
    volume = read_volume(path)
    assert (volume.dtype, volume.shape) == (torch.float32, (1, *SHAPE))
    assert np.array_equal(volume[0].numpy(), values.astype(np.float32) / np.float32(255))


def test_channels_are_the_last_axis_of_nifti_and_the_first_of_numpy(tmp_path: Path) -> None:
    values = DRAW.random((2, *SHAPE)).astype(np.float32)
    there = read_volume(write(tmp_path / "a.npy", values))
    nifti = read_volume(write(tmp_path / "a.nii.gz", np.moveaxis(values, 0, -1)))
    timed = read_volume(write(tmp_path / "b.nii", np.moveaxis(values, 0, -1)[:, :, :, None]))
    assert torch.equal(there, torch.from_numpy(values))
    assert torch.equal(there, nifti)
    assert torch.equal(there, timed)
    monai = pytest.importorskip("monai.transforms")
    theirs = monai.Compose([monai.LoadImage(image_only=True), monai.EnsureChannelFirst()])(tmp_path / "a.nii.gz")
    assert torch.equal(nifti, torch.as_tensor(theirs.numpy()))


def test_a_window_says_which_values_become_0_and_1(tmp_path: Path) -> None:
    values = np.linspace(-1000, 2000, 60).reshape(SHAPE).astype(np.int16)
    path = write(tmp_path / "ct.nii.gz", values)
    found = read_volume(path, window=(-200.0, 300.0))[0].numpy()
    assert found == pytest.approx(np.clip((values.astype(float) + 200) / 500, 0, 1), abs=1e-6)
    assert read_volume(path, window="each").aminmax() == (0, 1)
    assert read_volume(write(tmp_path / "flat.npy", np.full(SHAPE, 7.0)), window="each").unique().tolist() == [0]
    with pytest.raises(ValueError, match=r"to hold bytes or numbers in \[0, 1\], but got int16 from -1000 to"):
        read_volume(path)
    scaled = pytest.importorskip("nibabel").Nifti1Image(values, np.eye(4))
    scaled.header.set_slope_inter(0.5, 10)  # numbers that the header says are to be scaled
    pytest.importorskip("nibabel").save(scaled, tmp_path / "scaled.nii")
    assert read_volume(tmp_path / "scaled.nii", window=(-490.0, 1010.0))[0].numpy() == pytest.approx(
        (values.astype(float) + 1000) / 3000, abs=1e-3
    )


def test_sizes_and_labels(tmp_path: Path) -> None:
    image = write(tmp_path / "a.npy", np.full(SHAPE, 0.25))
    mask = DRAW.integers(0, 3, SHAPE).astype(np.uint8)
    masks = [write(tmp_path / "m.npy", mask), write(tmp_path / "b.npy", 255 * (mask > 1))]
    x, y = VolumeFiles([image], masks[:1], classes=3)[0]
    assert (x.shape, y.dtype) == ((1, *SHAPE), torch.int64)
    assert np.array_equal(y.numpy(), mask)
    x, y = VolumeFiles([image], masks[1:])[0]
    assert (y.dtype, y.shape) == (torch.float32, (1, *SHAPE))
    assert np.array_equal(y[0].numpy(), mask > 1)
    x, y = VolumeFiles([image], masks[:1], classes=3, size=(6, 8, 10))[0]
    assert torch.equal(x, torch.full((1, 6, 8, 10), 0.25))
    assert np.array_equal(y.numpy(), mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    labelled = VolumeFiles([image, image], torch.tensor([1, 0]))
    assert [int(label) for _, label in labelled] == [1, 0]
    assert data.labels_of(labelled).tolist() == [1, 0]


BROKEN: dict[str, tuple[Any, str]] = {
    "text": (b"hello", "to be a complete file of a volume"),
    "objects": (np.array([[["a"]]], dtype=object), "to be a complete file of a volume"),
    "flat": (np.zeros((3, 4)), r"three axes, or four with the channels, but got float64 of shape \(3, 4\)"),
    "complex": (np.zeros(SHAPE, complex), "to hold real numbers"),
    "empty": (np.zeros((0, 3, 3)), "to hold real numbers"),
    "nan": (np.full(SHAPE, np.nan), "to hold finite numbers, but some are not"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "x.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(ValueError, match=rf"expected .*x.npy .*{message}"):
        read_volume(path)
    cut = write(tmp_path / "y.nii.gz", np.zeros(SHAPE, np.uint8))
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"y.nii.gz to be a complete file of a volume"):
        read_volume(cut)


def test_what_would_take_all_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_kit.data.volumes.MAX_NUMBERS", 59)
    for suffix in (".npy", ".npz", ".nii"):
        path = write(tmp_path / f"a{suffix}", np.zeros(SHAPE))
        with pytest.raises(ValueError, match="numbers, where 59"):
            read_volume(path)


def test_masks_that_do_not_belong_to_their_volume_are_refused(tmp_path: Path) -> None:
    image = write(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    moved = np.eye(4)
    moved[0, 0] = -1  # the other hand
    for values, affine, message in (
        (np.zeros((3, 4, 6), np.uint8), None, r"one channel of \(3, 4, 5\), but got \(1, 3, 4, 6\)"),
        (np.zeros(SHAPE, np.uint8), moved, "but their affine matrices differ"),
        (np.arange(60, dtype=np.uint8).reshape(SHAPE), None, r"0 and 1, or 0 and 255, but got \[0, 1, 2"),
        (np.full(SHAPE, 0.5, np.float32), None, r"0 and 1, or 0 and 255, but got \[0.5\]"),
    ):
        mask = write(tmp_path / "m.nii.gz", values, affine)
        with pytest.raises(ValueError, match=message):
            VolumeFiles([image], [mask])[0]
    with pytest.raises(ValueError, match=r"whole numbers in 0..2, but got \[0, 1, 2, 3"):
        VolumeFiles(
            [image], [write(tmp_path / "m.nii.gz", np.arange(60).reshape(SHAPE).astype(np.uint8) % 4)], classes=3
        )[0]
    with pytest.raises(ValueError, match="expected one target a volume"):
        VolumeFiles([image], [])
    other = write(tmp_path / "b.npy", np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match=r"to be \(1, 3, 4, 5\), .* pass size="):
        VolumeFiles([image, other], torch.tensor([0, 1]))[1]


def folder(root: Path, suffix: str = ".npy", count: int = 8) -> Path:
    """Write volumes of two patients each with masks, and their table."""
    rows = ["file,mask,kind,patient,split"]
    for i in range(count):
        values = DRAW.integers(0, 256, (4, 4, 4)).astype(np.uint8)
        write(root / f"v{i}{suffix}", values)
        write(root / f"m{i}{suffix}", (values > 127).astype(np.uint8))
        rows.append(f"v{i}{suffix},m{i}{suffix},{'ab'[i % 2]},{i // 2:02},{'train' if i < count - 2 else 'test'}")
    (root / "metadata.csv").write_text("\n".join(rows))
    return root


def test_a_folder_of_volumes_becomes_a_task(tmp_path: Path) -> None:
    bundle = data.load("volume-folder", folder(tmp_path, ".nii.gz"), mask_column="mask")
    assert (bundle.name, bundle.task, bundle.num_classes) == ("volume-folder", "segmentation", 2)
    assert (len(bundle.train), len(bundle.test)) == (6, 2)
    table = bundle.train_metadata
    # In any order of the rows: the volumes know their files.
    for rows in (table, table[::-1]):
        task = UnlearnTask.forget_where(
            bundle.train, bundle.test, rows, bundle.test_metadata, data.where("patient == 01")
        )
        assert [path.name for path in (task.forget.dataset.paths[i] for i in task.forget.indices)] == [
            "v2.nii.gz",
            "v3.nii.gz",
        ]
    named = data.load("volume-folder", tmp_path, label_column="kind")
    assert (named.task, named.class_names, data.labels_of(named.test).tolist()) == (
        "classification",
        ("a", "b"),
        [0, 1],
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": (4, 4)}, TypeError, r"expected size to be \(D, H, W\) or None"),
        ({"window": "all"}, ValueError, "expected window to be one of"),
        ({"window": (3, 3)}, ValueError, "with low < high"),
        ({"window": 3}, TypeError, r"expected window to be \(low, high\), 'each' or None"),
        ({"classes": 1}, ValueError, "expected classes to be at least 2"),
        ({"group": "ward"}, ValueError, "expected group to be one of"),
        ({"metadata": "pictures.csv"}, ValueError, r"expected volumes \(.nii, .nii.gz, .npy, .npz\), but got p.png"),
    ],
)
def test_wrong_options_of_a_folder(tmp_path: Path, options: Any, error: type[Exception], message: str) -> None:
    (folder(tmp_path) / "pictures.csv").write_text("file,mask,split\np.png,m0.npy,train\nv0.npy,m0.npy,test")
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(error, match=message):
        data.load("volume-folder", tmp_path, mask_column="mask", **options)
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no table of volumes in"):
        data.load("volume-folder", tmp_path)


def test_volumes_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_kit.data.tensors.NUMBERS_AT_ONCE", 130)
    train = data.load("volume-folder", folder(tmp_path), mask_column="mask").train
    held = data.TensorImages(*data.load_tensors(train))
    for volumes in (train, held, torch.utils.data.TensorDataset(held.inputs, held.targets), drawn(train, 0)):
        assert [len(x) for x, _ in data.in_order(volumes)] == [2, 2, 2]
        assert [len(x) for x, _ in data.in_order(volumes, batch_size=1)] == [1] * 6
    images = data.TensorImages(torch.rand(4, 3, 10, 10), torch.arange(4))
    assert [len(x) for x, _ in data.in_order(images)] == [4]
