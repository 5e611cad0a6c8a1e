"""Classification loaders, on tiny files written in the exact on-disk formats."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from unlearn_kit import data
from unlearn_kit.data import fashion_mnist, in_order, labels_of, load, load_tensors
from unlearn_kit.errors import DataNotFoundError

FASHION = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def expect(dataset, images: np.ndarray, labels) -> None:
    """The data set holds exactly these pixels, channels first, as float32 in [0, 1]."""
    x, y = load_tensors(dataset)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert np.array_equal(x.numpy(), images.astype(np.float32) / np.float32(255))
    assert y.tolist() == list(labels)
    assert labels_of(dataset).tolist() == list(labels)


# --- registry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("cifar", {}, ValueError, "expected name to be one of .* but got 'cifar'; did you mean 'cifar10'"),
        (3, {}, TypeError, "expected name to be a str, but got int"),
        ("digits", {"root": 3}, TypeError, "expected root to be a str or a Path, but got int"),
        (
            "digits:x",
            {},
            ValueError,
            "expected name to be 'digits', which has no members, but got 'digits:x'",
        ),
        ("digits:", {}, ValueError, "expected name to be 'digits', which has no members, but got 'digits:'"),
        ("medmnist:x", {"member": "y"}, ValueError, "but got both: 'medmnist:x', 'y'"),
    ],
)
def test_wrong_names_are_refused(name, options, error, text):
    with pytest.raises(error, match=text):
        load(name, **options)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10", "svhn", "medmnist:x", "image-folder"])
def test_an_unknown_option_is_named_with_the_nearest(name, tmp_path):
    family = name.split(":")[0]
    with pytest.raises(ValueError, match=f"every option of '{family}' .* 'trainsize'; did you mean 'train_size'"):
        load(name, tmp_path, trainsize=5)


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_exactly():
    bundle = load("digits")
    (x, y), (test_x, test_y) = load_tensors(bundle.train), load_tensors(bundle.test)
    assert (tuple(x.shape), tuple(test_x.shape)) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert x.dtype == torch.float32
    raw = load_digits()
    every = np.concatenate([np.c_[part.flatten(1) * 16, labels] for part, labels in ((x, y), (test_x, test_y))])
    meant = np.c_[raw.data, raw.target]
    assert np.array_equal(every[np.lexsort(every.T)], meant[np.lexsort(meant.T)])
    assert (bundle.name, bundle.task, bundle.num_classes) == ("digits", "classification", 10)
    assert bundle.class_names == tuple("0123456789")


def test_digits_split_is_stratified_fixed_and_seeded():
    first, again, other = load("digits"), load("digits"), load("digits", seed=1)
    counts = np.bincount(load_digits().target)
    held = np.bincount(labels_of(first.test))
    assert np.all(np.abs(held - 0.2 * counts) <= 1)
    assert torch.equal(load_tensors(first.train)[0], load_tensors(again.train)[0])
    assert not torch.equal(load_tensors(first.train)[0], load_tensors(other.train)[0])


def test_digits_leave_the_random_state_of_the_caller():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load("digits", train_size=10)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_digits_test_share(share):
    bundle = load("digits", test_share=share)
    assert len(bundle.test) == int(np.ceil(share * 1797))
    assert len(bundle.train) + len(bundle.test) == 1797


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"test_share": 0.0}, ValueError, r"expected test_share in \[0.01, 0.99\], but got 0.0"),
        ({"test_share": "a"}, TypeError, "expected test_share to be a number, but got str"),
        ({"seed": -1}, ValueError, "expected seed to be at least 0, but got -1"),
        ({"train_size": 0}, ValueError, "expected train_size to be at least 1, but got 0"),
        (
            {"train_size": 1438},
            ValueError,
            "expected train_size to be at most the 1437 training samples, but got 1438",
        ),
        (
            {"root": "x"},
            ValueError,
            "expected root to be None, since digits come with scikit-learn, but got 'x'",
        ),
    ],
)
def test_wrong_digits_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        load("digits", **options)


def test_train_size_draws_in_order_and_smaller_draws_are_part_of_larger_ones():
    whole, small, large, other = (
        load("digits", **options)
        for options in ({}, {"train_size": 20}, {"train_size": 300}, {"train_size": 20, "seed": 1})
    )
    drawn = [set(bundle.train.indices) for bundle in (small, large)]
    assert small.train.indices == sorted(drawn[0])
    assert [len(part) for part in drawn] == [20, 300]
    assert drawn[0] < drawn[1]
    assert small.train.indices != other.train.indices
    assert small.train.indices != list(range(20))
    assert torch.equal(load_tensors(small.train)[0], load_tensors(whole.train)[0][small.train.indices])
    assert torch.equal(load_tensors(small.test)[0], load_tensors(whole.test)[0])


# --- Fashion-MNIST --------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


FASHION_ARRAYS = (
    pixels(5, 28, 28),
    np.array([9, 0, 3, 3, 1], np.uint8),
    pixels(2, 28, 28, seed=1),
    np.array([4, 9], np.uint8),
)


def write_fashion(folder: Path, *, zipped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(FASHION, FASHION_ARRAYS, strict=True):
        content = idx(array)
        (folder / (f"{stem}.gz" if zipped else stem)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def expect_fashion(bundle) -> None:
    expect(bundle.train, FASHION_ARRAYS[0][:, None], FASHION_ARRAYS[1])
    expect(bundle.test, FASHION_ARRAYS[2][:, None], FASHION_ARRAYS[3])
    assert (bundle.num_classes, bundle.class_names[0], bundle.class_names[9]) == (
        10,
        "T-shirt/top",
        "Ankle boot",
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_fashion_mnist_from_a_root(tmp_path, zipped, below):
    write_fashion(tmp_path / "root" / below, zipped=zipped)
    expect_fashion(load("fashion-mnist", str(tmp_path / "root")))


@pytest.mark.parametrize("place", ["debian", "cache/unlearn-kit/FashionMNIST/raw"])
@pytest.mark.parametrize("root", [None, "empty"])
def test_fashion_mnist_is_found_without_its_own_root(tmp_path, place, root):
    write_fashion(tmp_path / place)
    expect_fashion(load("fashion-mnist", None if root is None else tmp_path / root))


def test_fashion_mnist_missing_names_every_place_and_the_remedies(tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        load("fashion-mnist", tmp_path)
    text = str(caught.value)
    places = (
        tmp_path,
        tmp_path / "FashionMNIST/raw",
        tmp_path / "debian",
        tmp_path / "cache/unlearn-kit/FashionMNIST/raw",
    )
    assert all(f"  {place} (" in text for place in places)
    assert "apt-get install dataset-fashion-mnist" in text
    assert "download=True" in text


def test_an_incomplete_root_is_an_error_even_where_another_copy_exists(tmp_path):
    write_fashion(tmp_path / "debian")
    (write_fashion(tmp_path / "root") / f"{FASHION[3]}.gz").unlink()
    with pytest.raises(DataNotFoundError, match=r"root \(lacks t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte\)"):
        load("fashion-mnist", tmp_path / "root")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda good: gzip.compress(good)[:-20], "to be a complete gzip file"),
        (lambda _: b"\x1f\x8b" + b"junk" * 9, "to be a complete gzip file"),
        (lambda good: good[:-1], "to hold 3920 bytes after its header, but got 3919"),
        (lambda good: good + b"\0", "to hold 3920 bytes after its header, but got 3921"),
        (lambda good: good[:9], "to hold a header of 16 bytes, but got a file of 9"),
        (lambda good: b"\0\0\x0d\x03" + good[4:], r"\(magic 00000803\), but got magic '00000d03'"),
        (lambda good: b"\0\0\x08\x01" + good[4:], "but got magic '00000801'"),
        (lambda _: b"", "but got magic ''"),
        (lambda _: idx(pixels(4, 28, 28)), "to hold one label an image, but got 4 images and 5 labels"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, damage, text):
    path = write_fashion(tmp_path, zipped=False) / FASHION[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{FASHION[0]}.* {text}"):
        load("fashion-mnist", tmp_path)


def test_a_label_outside_the_classes_is_refused(tmp_path):
    (write_fashion(tmp_path, zipped=False) / FASHION[1]).write_bytes(idx(np.array([0, 1, 10, 3, 200], np.uint8)))
    with pytest.raises(ValueError, match=r"expected the labels of .* in 0..9, but got \[10, 200\]"):
        load("fashion-mnist", tmp_path)


def test_fashion_mnist_as_debian_ships_it(monkeypatch):
    installed = Path("/usr/share/datasets/fashion-mnist")
    if not installed.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", installed)
    bundle = load("fashion-mnist", train_size=10_000)
    assert (len(bundle.train), len(bundle.test)) == (10_000, 10_000)
    assert torch.bincount(labels_of(bundle.test)).tolist() == [1000] * 10
    whole = bundle.train.dataset
    assert torch.bincount(whole.targets).tolist() == [6000] * 10
    # The mean pixel everyone normalises this data set with.
    assert whole.inputs.float().mean().item() / 255 == pytest.approx(0.2860, abs=1e-4)


# --- downloads ------------------------------------------------------------------------------------


def offer_downloads(monkeypatch, tmp_path) -> list[tuple]:
    """Put a torchvision in place whose downloads write tiny files, and return the list of its calls."""
    calls: list[tuple] = []

    def fashion(root, *, download):
        calls.append(("fashion-mnist", root, download))
        write_fashion(Path(root) / "FashionMNIST" / "raw")

    def cifar(root, *, download):
        calls.append(("cifar10", root, download))
        write_cifar_python(Path(root) / "cifar-10-batches-py")

    def svhn(root, *, split, download):
        calls.append(("svhn", root, download))
        write_svhn(Path(root), split)

    module = types.ModuleType("torchvision.datasets")
    module.FashionMNIST, module.CIFAR10, module.SVHN = fashion, cifar, svhn
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    return calls


@pytest.mark.parametrize(("name", "downloads"), [("fashion-mnist", 1), ("cifar10", 1), ("svhn", 2)])
@pytest.mark.parametrize("root", [None, "root"])
def test_downloads_happen_only_when_asked_for_and_only_once(tmp_path, monkeypatch, name, downloads, root):
    calls = offer_downloads(monkeypatch, tmp_path)
    folder = None if root is None else tmp_path / root
    with pytest.raises(DataNotFoundError, match="pass download=True"):
        load(name, folder)
    assert calls == []
    for _ in range(2):
        assert len(load(name, folder, download=True).test) > 0
        assert len(calls) == downloads
    meant = folder or tmp_path / "cache" / "unlearn-kit" / ("svhn" if name == "svhn" else "")
    assert {(Path(call[1]), call[2]) for call in calls} == {(meant, True)}


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "svhn"])
def test_download_must_be_a_bool(tmp_path, name):
    with pytest.raises(TypeError, match="expected download to be a bool, but got str: 'no'"):
        load(name, tmp_path, download="no")


# --- CIFAR-10 -------------------------------------------------------------------------------------

CIFAR_NAMES = [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]
CIFAR_BATCHES = [(pixels(2, 3072, seed=part), [part % 10, 9 - part]) for part in range(6)]


def write_cifar_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (batch, labels) in zip(CIFAR_NAMES, CIFAR_BATCHES, strict=True):
        records = (bytes([label]) + row.tobytes() for label, row in zip(labels, batch, strict=True))
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return folder


def python2_text(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<I", len(text)) + text


def python2_pickle(batch: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2's cPickle, protocol 2, wrote for {"data": ..., "labels": [...]} with its numpy."""
    count = len(batch)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_text(b"b") + b"\x87R("
        b"K\x01K" + bytes([count]) + b"M\x00\x0c\x86cnumpy\ndtype\n" + python2_text(b"u1") + b"K\x00K\x01\x87R("
        b"K\x03" + python2_text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    array += python2_text(batch.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + python2_text(b"data") + array + python2_text(b"labels") + listed + b"u."


def write_cifar_python(folder: Path, dump=python2_pickle) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in zip(CIFAR_NAMES, CIFAR_BATCHES, strict=True):
        (folder / name).write_bytes(dump(*batch))
    return folder


def modern_pickle(protocol: int):
    return lambda batch, labels: pickle.dumps({"data": batch, "labels": labels}, protocol=protocol)


def expect_cifar(bundle) -> None:
    every = np.concatenate([batch for batch, _ in CIFAR_BATCHES]).reshape(-1, 3, 32, 32)
    labels = [label for _, own in CIFAR_BATCHES for label in own]
    expect(bundle.train, every[:10], labels[:10])
    expect(bundle.test, every[10:], labels[10:])
    assert (bundle.num_classes, bundle.class_names[0], bundle.class_names[9]) == (10, "airplane", "truck")


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_binary_version(tmp_path, below):
    write_cifar_binary(tmp_path / below)
    expect_cifar(load("cifar10", tmp_path))


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize(
    "dump",
    [python2_pickle, modern_pickle(2), modern_pickle(4), modern_pickle(5)],
    ids=["python2", "2", "4", "5"],
)
def test_cifar10_python_version(tmp_path, below, dump):
    write_cifar_python(tmp_path / below, dump)
    expect_cifar(load("cifar10", tmp_path))


def test_cifar10_prefers_the_binary_version(tmp_path):
    write_cifar_python(tmp_path / "cifar-10-batches-py", lambda *_: b"no pickle")
    write_cifar_binary(tmp_path / "cifar-10-batches-bin")
    expect_cifar(load("cifar10", tmp_path))


def test_cifar10_missing_names_every_place_and_the_remedies(tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        load("cifar10", tmp_path)
    for text in (
        "cifar-10-batches-bin (no such folder)",
        "cifar-10-batches-py (no such folder)",
        "lacks data_batch_1.bin",
    ):
        assert text in str(caught.value)
    assert "pass download=True" in str(caught.value)


class Harm:
    """Pickled as a call that would make the file ``target``."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_cifar10_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    write_cifar_python(tmp_path)
    target = tmp_path / "harmed"
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({"data": Harm(target), "labels": []}))
    with pytest.raises(
        ValueError, match=r"data_batch_3 to be a pickle of plain values .* asks for (pathlib|builtins)\."
    ):
        load("cifar10", tmp_path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_no_builtin_can_be_named_by_a_cifar10_pickle(tmp_path, name):
    write_cifar_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(f"cbuiltins\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match=f"it asks for builtins.{name}"):
        load("cifar10", tmp_path)


def test_a_cifar10_pickle_may_encode_text_as_latin1_only(tmp_path):
    write_cifar_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"c_codecs\nencode\n(Vabc\nVzip\ntR.")
    with pytest.raises(ValueError, match="text encoded as 'zip'"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (python2_pickle(*CIFAR_BATCHES[5])[:-500], "but got: "),
        (pickle.dumps([1, 2]), "to hold a dictionary with 'data' and 'labels', but got list"),
        (pickle.dumps({"data": 1, "names": 2}), r"but got a dictionary with \['data', 'names'\]"),
        (
            pickle.dumps({"data": pixels(2, 9), "labels": [1, 2]}),
            r"to be uint8 \(2, 3072\), but got uint8 \(2, 9\)",
        ),
        (
            pickle.dumps({"data": pixels(2, 3072), "labels": [1]}),
            r"to be uint8 \(1, 3072\), but got uint8 \(2, 3072\)",
        ),
        (pickle.dumps({"data": pixels(1, 3072), "labels": 1}), "to be a list of ints, but got int"),
        (pickle.dumps({"data": pixels(1, 3072), "labels": [0.5]}), "to be integers, but got float64"),
        (pickle.dumps({"data": pixels(1, 3072), "labels": [-1]}), r"in 0..9, but got \[-1\]"),
    ],
)
def test_a_damaged_cifar10_pickle_is_named(tmp_path, content, text):
    write_cifar_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=f"test_batch.*{text}"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 3072], ids=["empty", "cut"])
def test_a_damaged_cifar10_binary_is_named(tmp_path, content):
    write_cifar_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(
        ValueError, match=f"data_batch_2.bin to hold records of 3073 bytes, but got {len(content)} bytes"
    ):
        load("cifar10", tmp_path)


# --- SVHN -----------------------------------------------------------------------------------------

SVHN_ARRAYS = {
    "train": (pixels(32, 32, 3, 4), [10, 1, 9, 10]),
    "test": (pixels(32, 32, 3, 2, seed=1), [5, 10]),
}


def write_svhn(folder: Path, split: str, **changes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = SVHN_ARRAYS[split]
    held = {"X": images, "y": np.array(labels, np.uint8)[:, None]} | changes
    savemat(folder / f"{split}_32x32.mat", held, do_compression=True)


def test_svhn(tmp_path):
    for split in SVHN_ARRAYS:
        write_svhn(tmp_path, split)
    bundle = load("svhn", tmp_path)
    for dataset, split in ((bundle.train, "train"), (bundle.test, "test")):
        images, labels = SVHN_ARRAYS[split]
        expect(
            dataset,
            np.stack([images[..., n].transpose(2, 0, 1) for n in range(len(labels))]),
            [n % 10 for n in labels],
        )
    assert bundle.class_names[0] == "0"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"y": np.array([[0], [1]], np.uint8)}, r"in 1..10, but got \[0\]"),
        ({"y": np.array([[1]], np.uint8)}, "one label an image, but got 2 images and 1 labels"),
        ({"X": pixels(2, 3, 32, 32)}, r"to have the shape \(H, W, 3, N\), but got \(2, 3, 32, 32\)"),
        ({"X": np.zeros((32, 32, 3, 2))}, "to hold uint8 images .*, but got float64"),
    ],
)
def test_wrong_svhn_contents_are_named(tmp_path, changes, text):
    write_svhn(tmp_path, "train")
    write_svhn(tmp_path, "test", **changes)
    with pytest.raises(ValueError, match=f"test_32x32.mat.*{text}"):
        load("svhn", tmp_path)


def test_a_damaged_or_foreign_svhn_file_is_named(tmp_path):
    write_svhn(tmp_path, "test")
    path = tmp_path / "train_32x32.mat"
    savemat(path, {"Z": np.zeros(2)})
    with pytest.raises(ValueError, match=r"train_32x32.mat to hold 'X' and 'y'"):
        load("svhn", tmp_path)
    write_svhn(tmp_path, "train")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"train_32x32.mat to be a MATLAB 5 file, but got: "):
        load("svhn", tmp_path)


# --- MedMNIST -------------------------------------------------------------------------------------


def write_medmnist(folder: Path, name: str = "toymnist", channels: tuple[int, ...] = (), **changes) -> dict:
    held = {}
    for split, labels in (("train", [0, 2, 1]), ("val", [1, 3]), ("test", [2])):
        held[f"{split}_images"] = pixels(len(labels), 28, 28, *channels, seed=len(labels))
        held[f"{split}_labels"] = np.array(labels, np.uint8)[:, None]
    np.savez_compressed(folder / f"{name}.npz", **(held | changes))
    return held


@pytest.mark.parametrize("include_val", [False, True])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "RGB"])
def test_medmnist(tmp_path, channels, include_val):
    held = write_medmnist(tmp_path, channels=channels)
    bundle = load("medmnist:toymnist", tmp_path, include_val=include_val)
    first = {
        split: held[f"{split}_images"].transpose(0, 3, 1, 2) if channels else held[f"{split}_images"][:, None]
        for split in ("train", "val", "test")
    }
    if include_val:
        expect(bundle.train, np.concatenate([first["train"], first["val"]]), [0, 2, 1, 1, 3])
    else:
        expect(bundle.train, first["train"], [0, 2, 1])
    expect(bundle.test, first["test"], [2])
    assert (bundle.name, bundle.num_classes, bundle.class_names) == (
        "medmnist:toymnist",
        4,
        ("0", "1", "2", "3"),
    )


def test_medmnist_by_option_and_from_the_packages_own_folder(tmp_path):
    (tmp_path / "home" / ".medmnist").mkdir(parents=True)
    write_medmnist(tmp_path / "home" / ".medmnist", "toymnist_64")
    assert load("medmnist", member="toymnist_64").name == "medmnist:toymnist_64"


@pytest.mark.parametrize("member", ["", "../toymnist", "a b"])
def test_medmnist_needs_the_name_of_a_set(tmp_path, member):
    with pytest.raises(ValueError, match="named as in 'medmnist:pneumoniamnist', but got"):
        load(f"medmnist:{member}", tmp_path)


def test_medmnist_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="named as in 'medmnist:pneumoniamnist', but got None"):
        load("medmnist", tmp_path)


def test_multi_label_medmnist_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="one label an image, but got 'chestmnist', which is multi-label"):
        load("medmnist:chestmnist", tmp_path)
    write_medmnist(tmp_path, train_labels=np.zeros((3, 14), np.uint8))
    with pytest.raises(ValueError, match=r"but got 'toymnist', which is multi-label \(14 an image\)"):
        load("medmnist:toymnist", tmp_path)


def test_medmnist_missing_names_the_place_and_the_remedy(tmp_path):
    with pytest.raises(
        DataNotFoundError, match=r"(?s)lacks toymnist.npz.*download toymnist.npz \(see https://medmnist.com"
    ):
        load("medmnist:toymnist", tmp_path)


def test_wrong_medmnist_files_are_named(tmp_path):
    path = tmp_path / "toymnist.npz"
    write_medmnist(tmp_path, train_images=pixels(3, 28, 28, 28))
    with pytest.raises(ValueError, match=r"toymnist.npz to be \(N, H, W\) .* but got \(3, 28, 28, 28\)"):
        load("medmnist:toymnist", tmp_path)
    write_medmnist(tmp_path, test_labels=np.array([{"a": 1}]))
    with pytest.raises(ValueError, match=r"toymnist.npz to be a complete .npz file of arrays"):
        load("medmnist:toymnist", tmp_path)
    np.savez(path, train_images=pixels(1, 28, 28))
    with pytest.raises(ValueError, match=r"toymnist.npz .* lacks \['train_labels', 'val_images'"):
        load("medmnist:toymnist", tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"toymnist.npz to be a complete .npz file of arrays"):
        load("medmnist:toymnist", tmp_path)
    with pytest.raises(TypeError, match="expected include_val to be a bool, but got int: 1"):
        load("medmnist:toymnist", tmp_path, include_val=1)


# --- image folders --------------------------------------------------------------------------------

FILES = {
    "train": ["train/cat/b.png", "train/cat/a10.png", "train/dog/nested/x.PNG", "train/ant/z.bmp"],
    "test": ["test/dog/1.png", "test/cat/2.png"],
}
SORTED = {
    "train": ["train/ant/z.bmp", "train/cat/a10.png", "train/cat/b.png", "train/dog/nested/x.PNG"],
    "test": ["test/cat/2.png", "test/dog/1.png"],
}
EVERY = [file for own in FILES.values() for file in own]


def picture_of(file: str) -> np.ndarray:
    return pixels(4, 6, 3, seed=EVERY.index(file))


def write_folders(root: Path) -> Path:
    for file in EVERY:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_of(file)).save(root / file)
    for name in ("train/cat/notes.txt", "train/cat/.hidden.png"):
        (root / name).write_bytes(b"no image")
    return root


def table_of(files: list[str], **columns) -> pd.DataFrame:
    return pd.DataFrame({"site": [f"site {EVERY.index(file)}" for file in files], "file": files, **columns})


def test_class_folders_in_sorted_order(tmp_path):
    bundle = load("image-folder", write_folders(tmp_path))
    for dataset, split, labels in ((bundle.train, "train", [0, 1, 1, 2]), (bundle.test, "test", [1, 2])):
        expect(dataset, np.stack([picture_of(file).transpose(2, 0, 1) for file in SORTED[split]]), labels)
    assert (bundle.class_names, bundle.num_classes) == (("ant", "cat", "dog"), 3)
    assert bundle.train_metadata is None
    assert bundle.test_metadata is None


def test_class_folders_may_be_links(tmp_path):
    root = write_folders(tmp_path / "root")
    (root / "train" / "cat").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert labels_of(load("image-folder", root).train).tolist() == [0, 1, 1, 2]


def test_labels_need_no_decoding(tmp_path):
    write_folders(tmp_path)
    for file in EVERY:
        (tmp_path / file).write_bytes(b"no image any more")
    bundle = load("image-folder", tmp_path)
    assert labels_of(bundle.train).tolist() == [0, 1, 1, 2]
    with pytest.raises(ValueError, match=r"z.bmp to be a complete image file, but got: "):
        bundle.train[0]


def test_metadata_rows_follow_the_samples(tmp_path):
    write_folders(tmp_path)
    shuffled = [EVERY[n] for n in (3, 5, 0, 2, 4, 1)]
    written = table_of(shuffled, age=[1.5, np.nan, 3, 4, 5, 6])
    written["file"] = ["./" + file.replace("/", "\\") if n % 2 else file for n, file in enumerate(shuffled)]
    written.to_csv(tmp_path / "metadata.csv", index=False)
    bundle = load("image-folder", tmp_path)
    for table, split in ((bundle.train_metadata, "train"), (bundle.test_metadata, "test")):
        assert table["file"].tolist() == SORTED[split]
        assert table["site"].tolist() == [f"site {EVERY.index(file)}" for file in SORTED[split]]
        assert table.index.tolist() == list(range(len(table)))
        assert list(table.columns) == ["site", "file", "age"]
    assert bundle.test_metadata["age"].isna().tolist() == [True, False]


def test_a_table_elsewhere_must_exist_and_is_used(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "tables").mkdir()
    table_of(EVERY).to_csv(tmp_path / "tables" / "other.csv", index=False)
    for path in ("tables/other.csv", tmp_path / "tables" / "other.csv"):
        assert load("image-folder", tmp_path, metadata=path).train_metadata["site"].iloc[0] == "site 3"
    with pytest.raises(FileNotFoundError, match=r"expected metadata to be an existing path, but got .*none.csv"):
        load("image-folder", tmp_path, metadata="none.csv")


def test_train_size_takes_the_metadata_along(tmp_path):
    write_folders(tmp_path)
    table_of(EVERY).to_csv(tmp_path / "metadata.csv", index=False)
    bundle = load("image-folder", tmp_path, train_size=2, seed=3)
    indices = bundle.train.indices
    assert len(indices) == 2
    assert bundle.train_metadata["file"].tolist() == [SORTED["train"][n] for n in indices]
    assert bundle.train_metadata.index.tolist() == [0, 1]
    x, _ = load_tensors(bundle.train)
    wanted = np.stack([picture_of(SORTED["train"][n]).transpose(2, 0, 1) for n in indices])
    assert np.array_equal(x.numpy(), wanted.astype(np.float32) / np.float32(255))
    assert len(bundle.test_metadata) == 2


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            table_of(EVERY[:4]),
            "a row of metadata for every image, but got none for test/cat/2.png, test/dog/1.png",
        ),
        (
            pd.DataFrame({"file": [*EVERY, "train/cat/lost.png"]}),
            "an image for every row of metadata, but got none for train/cat/lost.png",
        ),
        (pd.DataFrame({"file": [*EVERY, EVERY[0]]}), "one row an image, but got several for train/cat/b.png"),
        (pd.DataFrame({"name": EVERY}), r"metadata.csv to have a column 'file', but got \['name'\]"),
    ],
)
def test_tables_that_do_not_match_the_images_are_refused(tmp_path, table, text):
    write_folders(tmp_path)
    table.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=text):
        load("image-folder", tmp_path)


def test_an_unreadable_table_is_named(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(ValueError, match=r"metadata.csv to be a CSV table, but got: "):
        load("image-folder", tmp_path)


def write_flat(
    root: Path,
    files=("007.png", "b/2.png", "1.png"),
    labels=("NA", "10", "9"),
    splits=("train", "test", "train"),
):
    for n, file in enumerate(("007.png", "b/2.png", "1.png", "unlisted.png")):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(4, 4, seed=n)).save(root / file)
    rows = {"file": list(files), "label": list(labels), "split": list(splits), "site": ["x", "y", "z"]}
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


def test_a_flat_folder_in_the_order_of_its_table(tmp_path):
    write_flat(tmp_path, labels=("NA", " 10", "10"), splits=("train", "test ", "train"))
    bundle = load("image-folder", tmp_path, channels=1)
    expect(bundle.train, np.stack([pixels(4, 4, seed=0)[None], pixels(4, 4, seed=2)[None]]), [1, 0])
    expect(bundle.test, pixels(4, 4, seed=1)[None, None], [0])
    assert bundle.class_names == ("10", "NA")
    assert bundle.train_metadata["site"].tolist() == ["x", "z"]
    assert bundle.train_metadata["file"].tolist() == ["007.png", "1.png"]
    assert bundle.test_metadata["site"].tolist() == ["y"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"splits": ("train", "dev", "train")},
            r"column split to hold 'train', 'test', 'val' or 'valid', but got \['dev'\]",
        ),
        ({"splits": ("test",) * 3}, "expected at least one row with split 'train', but got none"),
        ({"labels": ("a", "a", "")}, "expected a label for every image, but got none for 1.png"),
        (
            {"files": ("007.png", "lost.png", "1.png")},
            "an image for every row of metadata, but got none for lost.png",
        ),
        ({}, r"class of the test images to have a training image, but got none for \['10'\]"),
    ],
)
def test_wrong_flat_tables_are_refused(tmp_path, changes, text):
    with pytest.raises(ValueError, match=text):
        load("image-folder", write_flat(tmp_path, **changes))


def test_image_folders_in_no_known_layout_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected root to be the folder of the images, but got None"):
        load("image-folder")
    with pytest.raises(DataNotFoundError, match=r"expected root to be a folder, but got .*nowhere"):
        load("image-folder", tmp_path / "nowhere")
    with pytest.raises(
        DataNotFoundError,
        match=r"no data in the layout .*expected train/CLASS/IMAGE .* file, label and split",
    ):
        load("image-folder", tmp_path)
    write_folders(tmp_path)
    Image.fromarray(pixels(4, 6, 3)).save(tmp_path / "train" / "stray.png")
    with pytest.raises(ValueError, match=r"to be in a class folder, but got train/stray.png"):
        load("image-folder", tmp_path)


def test_class_folders_without_an_image_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=r"no images in .*train"):
        load("image-folder", tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"channels": 2}, ValueError, "expected channels to be 1 or 3, but got 2"),
        ({"channels": "grey"}, TypeError, "expected channels to be an int, but got str"),
        ({"size": 5}, TypeError, r"expected size to be \(H, W\) or None, but got 5"),
        ({"size": (0, 5)}, ValueError, r"expected size\[0\] to be at least 1, but got 0"),
    ],
)
def test_wrong_picture_options_are_named(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        load("image-folder", write_folders(tmp_path), **options)


def test_size_is_height_and_width(tmp_path):
    bundle = load("image-folder", write_folders(tmp_path), size=[2, 3])
    x, _ = load_tensors(bundle.train)
    assert tuple(x.shape) == (4, 3, 2, 3)
    # Antialiased halving of an axis: a triangle over four pixels, clipped at the border.
    weights = np.array([[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]], float)
    across, down = weights / weights.sum(1, keepdims=True), np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    first = np.einsum("hH,wW,HWc->chw", down, across, picture_of(SORTED["train"][0]).astype(float))
    assert np.abs(x[0].numpy() * 255 - first).max() <= 1.01


def test_images_of_different_sizes_need_a_size(tmp_path):
    write_folders(tmp_path)
    Image.fromarray(pixels(5, 6, 3)).save(tmp_path / "train/dog/nested/x.PNG")
    dataset = load("image-folder", tmp_path).train
    with pytest.raises(
        ValueError, match=r"to be \(4, 6\) as .*z.bmp is, but got \(5, 6\) in .*x.PNG; pass size=\(H, W\)"
    ):
        dataset[3]
    assert load_tensors(load("image-folder", tmp_path, size=(4, 6)).train)[0].shape == (4, 3, 4, 6)


def test_workers_decode_the_same_images(tmp_path):
    train = load("image-folder", write_folders(tmp_path)).train
    alone, helped = (list(in_order(train, 3, workers=workers)) for workers in (0, 2))
    for (x, y), (other_x, other_y) in zip(alone, helped, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def save_and_read(tmp_path, picture: Image.Image, name: str = "p.png", **options) -> torch.Tensor:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / split / "a" / name)
    return load("image-folder", tmp_path, **options).train[0][0]


def test_grey_and_colour(tmp_path):
    colour, grey = pixels(3, 5, 3), pixels(3, 5)
    luma = save_and_read(tmp_path, Image.fromarray(colour), channels=1)
    assert tuple(luma.shape) == (1, 3, 5)
    # ITU-R 601-2, rounded to a byte.
    assert np.abs(luma[0].numpy() * 255 - colour @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    repeated = save_and_read(tmp_path, Image.fromarray(grey))
    assert np.array_equal(repeated.numpy(), np.stack([grey / np.float32(255)] * 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_grey_images_keep_their_precision(tmp_path, channels):
    deep = np.array([[0, 1, 256], [30_000, 65_534, 65_535]], np.uint16)
    x = save_and_read(tmp_path, Image.fromarray(deep), channels=channels)
    assert np.array_equal(x.numpy(), np.stack([deep / np.float32(65535)] * channels))
    assert save_and_read(tmp_path, Image.fromarray(deep), channels=channels, size=(4, 4)).shape == (
        channels,
        4,
        4,
    )


def test_transparency_is_dropped(tmp_path):
    content = pixels(3, 5, 4)
    x = save_and_read(tmp_path, Image.fromarray(content))
    assert np.array_equal(x.numpy(), content[..., :3].transpose(2, 0, 1) / np.float32(255))


def test_pixels_of_unknown_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"p.tiff to hold integer pixels, but got floating point ones"):
        save_and_read(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), "p.tiff")


def test_pixels_beyond_16_bits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"p.tiff in 0..65535, but got pixels in -1..70000"):
        save_and_read(tmp_path, Image.fromarray(np.array([[-1, 70_000]], np.int32)), "p.tiff")


def test_every_loader_is_a_module_with_a_load_function():
    folder = Path(data.__file__).parent
    assert all((folder / f"{module}.py").is_file() for module in data.LOADERS.values())
