"""Segmentation data: files in their published layouts, synthetic lesions, template slices."""

from __future__ import annotations

import pickle
import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_kit.data import DataBundle, load, load_tensors, mni_slices
from unlearn_kit.data.mask_pairs import MaskPairs, hold_out
from unlearn_kit.errors import DataNotFoundError


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Fail when the global random states of Python, NumPy and torch are not what they were."""
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    yield
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def write_image(path: Path, level: int, shape: tuple[int, int] = (12, 10)) -> None:
    """An RGB image of one colour, which JPEG keeps to within two levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.empty((*shape, 3), np.uint8)
    pixels[:] = (level, level // 2, 255 - level)
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, rows: int, shape: tuple[int, int] = (12, 10), mode: str = "L") -> None:
    """A mask whose first ``rows`` rows are foreground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[:rows] = 255
    Image.fromarray(pixels).convert(mode).save(path)


def check_order(dataset: MaskPairs, numbers: list[int], level: Callable[[int], int]) -> None:
    """Image ``n`` has the colour ``level(n)`` and ``n % 5 + 1`` rows of mask."""
    assert len(dataset) == len(numbers)
    for (image, mask), number in zip((dataset[i] for i in range(len(dataset))), numbers, strict=True):
        expected = torch.tensor([level(number), level(number) // 2, 255 - level(number)]) / 255
        assert image.dtype == mask.dtype == torch.float32
        assert image.shape == (3, 12, 10)
        assert (image - expected[:, None, None]).abs().max() <= 2.01 / 255
        assert mask.shape == (1, 12, 10)
        assert mask[0].sum(dim=1).tolist() == [10.0] * (number % 5 + 1) + [0.0] * (11 - number % 5)


# ---------------------------------------------------------------------------------------------- mask pairs


def test_mask_pairs_decode_and_resize_as_pil_does(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    drawn = np.random.default_rng(1).integers(0, 2, (23, 21), dtype=np.uint8) * 255
    Image.fromarray(drawn).save(tmp_path / "m.png")

    image, mask = MaskPairs([tmp_path / "a.png"], [tmp_path / "m.png"])[0]
    assert np.array_equal((image * 255).round().numpy().astype(np.uint8), pixels.transpose(2, 0, 1))
    assert np.array_equal(mask[0].numpy(), drawn / 255)

    image, mask = MaskPairs([tmp_path / "a.png"], [tmp_path / "m.png"], size=(9, 13))[0]
    bilinear = np.asarray(Image.fromarray(pixels).resize((13, 9), Image.Resampling.BILINEAR))
    nearest = np.asarray(Image.fromarray(drawn).resize((13, 9), Image.Resampling.NEAREST))
    assert np.allclose(image.numpy(), bilinear.transpose(2, 0, 1) / 255, atol=1e-6)
    assert np.array_equal(mask[0].numpy(), nearest / 255)


@pytest.mark.parametrize("foreground", [1, 255])
def test_masks_of_any_brightness_are_binary_and_an_empty_one_stays_empty(tmp_path: Path, foreground: int) -> None:
    write_image(tmp_path / "a.png", 7, (2, 2))
    for name, levels in (("full", [[0, foreground], [foreground, 0]]), ("empty", [[0, 0], [0, 0]])):
        Image.fromarray(np.array(levels, np.uint8)).save(tmp_path / f"{name}.png")
        mask = MaskPairs([tmp_path / "a.png"], [tmp_path / f"{name}.png"])[0][1]
        assert mask.tolist() == [(np.array(levels) / foreground).tolist()]


def test_mask_pairs_read_nothing_until_asked_and_name_the_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    write_mask(tmp_path / "m.png", 3)
    pairs = MaskPairs([tmp_path / "broken.jpg"], [tmp_path / "m.png"])
    with pytest.raises(ValueError, match=r"expected .*broken\.jpg to be a complete image file"):
        pairs[0]


def test_mask_pairs_refuse_masks_that_do_not_fit(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 7)
    write_mask(tmp_path / "m.png", 3, shape=(10, 12))
    with pytest.raises(ValueError, match=r"mask m\.png .* image a\.png, \(H, W\) = \(12, 10\), but got \(10, 12\)"):
        MaskPairs([tmp_path / "a.png"], [tmp_path / "m.png"], size=(8, 8))[0]
    with pytest.raises(ValueError, match="expected one mask an image, but got 1 images and 0 masks"):
        MaskPairs([tmp_path / "a.png"], [])


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (64, TypeError, r"expected size to be \(H, W\) or None, but got 64"),
        ("64", TypeError, r"expected size to be \(H, W\) or None, but got '64'"),
        ((64,), TypeError, r"expected size to be \(H, W\) or None"),
        ((64, 0), ValueError, r"expected size\[1\] to be at least 1, but got 0"),
        ((6.5, 8), TypeError, r"expected size\[0\] to be an int"),
    ],
)
def test_sizes_that_are_none_are_refused(size: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        MaskPairs([], [], size=size)  # type: ignore[arg-type]


def test_a_share_is_held_out_without_overlap_and_never_all_or_nothing() -> None:
    kept, held = hold_out(40, 0.25, 0)
    assert len(held) == 10
    assert sorted(kept + held) == list(range(40))
    assert (kept, held) == (sorted(kept), sorted(held))
    assert hold_out(40, 0.25, 0) == (kept, held)
    assert hold_out(40, 0.25, 1) != (kept, held)
    assert [len(part) for part in hold_out(3, 0.01, 0)] == [2, 1]
    assert [len(part) for part in hold_out(3, 0.99, 0)] == [1, 2]
    with pytest.raises(ValueError, match=r"expected share in \(0, 1\), but got 1.0"):
        hold_out(3, 1.0, 0)
    with pytest.raises(ValueError, match="images to hold a share out of to be at least 2, but got 1"):
        hold_out(1, 0.5, 0)


# ------------------------------------------------------------------------------------------------ ISIC 2018


def write_isic(root: Path, split: str, numbers: list[int]) -> None:
    for number in numbers:
        name = f"ISIC_{number:07d}"
        write_image(root / f"ISIC2018_Task1-2_{split}_Input" / f"{name}.jpg", number)
        write_mask(root / f"ISIC2018_Task1_{split}_GroundTruth" / f"{name}_segmentation.png", number % 5 + 1)
    (root / f"ISIC2018_Task1-2_{split}_Input" / "ATTRIBUTION.txt").write_text("who took the pictures")


def test_isic_reads_its_folders_in_name_order(tmp_path: Path) -> None:
    write_isic(tmp_path, "Training", [30, 4, 200])
    write_isic(tmp_path, "Validation", [77, 8])
    bundle = load("isic2018", tmp_path, size=None)
    check_order(bundle.train, [4, 30, 200], lambda n: n)
    check_order(bundle.test, [8, 77], lambda n: n)
    assert (bundle.name, bundle.task, bundle.num_classes) == ("isic2018", "segmentation", 2)
    assert bundle.class_names == ("background", "lesion")
    assert bundle.train_metadata.image.tolist() == ["ISIC_0000004", "ISIC_0000030", "ISIC_0000200"]
    assert bundle.train_metadata.split.tolist() == ["training"] * 3
    assert bundle.test_metadata.to_dict("list") == {
        "image": ["ISIC_0000008", "ISIC_0000077"],
        "split": ["validation"] * 2,
    }
    assert load("isic2018", tmp_path).train[0][0].shape == (3, 256, 256)


def test_isic_prefers_test_then_validation_then_a_share(tmp_path: Path) -> None:
    write_isic(tmp_path, "Training", list(range(10)))
    with random_state_kept():
        share = load("isic2018", tmp_path, share=0.3)
    assert (len(share.train), len(share.test)) == (7, 3)
    assert share.test_metadata.split.tolist() == ["training"] * 3
    names = share.train_metadata.image.tolist() + share.test_metadata.image.tolist()
    assert sorted(names) == [f"ISIC_{n:07d}" for n in range(10)]
    again, other = (load("isic2018", tmp_path, share=0.3, seed=seed) for seed in (0, 3))
    assert again.test_metadata.equals(share.test_metadata)
    assert not other.test_metadata.equals(share.test_metadata)

    write_isic(tmp_path, "Validation", [50])
    (tmp_path / "ISIC2018_Task1-2_Test_Input").mkdir()  # images without masks do not count
    assert load("isic2018", tmp_path).test_metadata.split.tolist() == ["validation"]
    write_isic(tmp_path, "Test", [60])
    assert load("isic2018", tmp_path).test_metadata.image.tolist() == ["ISIC_0000060"]
    assert load("isic2018", tmp_path, held_out="validation").test_metadata.image.tolist() == ["ISIC_0000050"]
    assert len(load("isic2018", tmp_path, held_out="share").test) == 2


def test_isic_errors_say_what_is_missing_and_where(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="expected root to be the folder of isic2018, but got None"):
        load("isic2018")
    with pytest.raises(DataNotFoundError, match=r"nowhere missing; expected:\n  ISIC2018_Task1-2_Training_Input"):
        load("isic2018", tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match="ISIC2018_Task1_Training_GroundTruth missing"):
        load("isic2018", tmp_path)
    write_isic(tmp_path, "Training", list(range(14)))
    with pytest.raises(DataNotFoundError, match="ISIC2018_Task1-2_Test_Input, ISIC2018_Task1_Test_GroundTruth missing"):
        load("isic2018", tmp_path, held_out="test")
    with pytest.raises(ValueError, match=r"expected held_out to be one of .* did you mean 'validation'"):
        load("isic2018", tmp_path, held_out="validatoin")
    truths = tmp_path / "ISIC2018_Task1_Training_GroundTruth"
    for number in (3, 7):
        (truths / f"ISIC_{number:07d}_segmentation.png").unlink()
    text = "14 masks in .* 2 are missing: ISIC_0000003_segmentation.png, ISIC_0000007_segmentation.png$"
    with pytest.raises(DataNotFoundError, match=text):
        load("isic2018", tmp_path)
    for mask in truths.glob("*.png"):
        mask.unlink()
    with pytest.raises(DataNotFoundError, match=r"14 are missing: .*ISIC_0000009_segmentation.png and 4 more"):
        load("isic2018", tmp_path)
    for image in (tmp_path / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"):
        image.unlink()
    with pytest.raises(DataNotFoundError, match=r"expected images ISIC_\*\.jpg in .* but there are none"):
        load("isic2018", tmp_path)


# ------------------------------------------------------------------------------------------------ CHASE-DB1


@pytest.fixture
def chase(tmp_path: Path) -> Path:
    for position in reversed(range(28)):
        name = f"Image_{position // 2 + 1:02d}{'LR'[position % 2]}"
        write_image(tmp_path / f"{name}.jpg", 9 * position)
        write_mask(tmp_path / f"{name}_1stHO.png", position % 5 + 1, mode="1")
        write_mask(tmp_path / f"{name}_2ndHO.png", 9, mode="1")
    return tmp_path


def test_chase_splits_its_images_by_patient(chase: Path) -> None:
    bundle = load("chase-db1", chase, size=None)
    check_order(bundle.train, list(range(20)), lambda n: 9 * n)
    check_order(bundle.test, list(range(20, 28)), lambda n: 9 * n)
    assert bundle.class_names == ("background", "vessel")
    assert (bundle.task, bundle.num_classes) == ("segmentation", 2)
    assert bundle.train_metadata.patient.tolist() == [n // 2 + 1 for n in range(20)]
    assert bundle.test_metadata.image.tolist() == [f"Image_{n}{eye}" for n in range(11, 15) for eye in "LR"]
    assert bundle.test_metadata.eye.tolist() == ["L", "R"] * 4
    assert bundle.test_metadata.index.tolist() == list(range(8))


def test_chase_reads_the_annotator_asked_for(chase: Path) -> None:
    second = load("chase-db1", chase, size=(12, 10), annotator=2)
    inputs, targets = load_tensors(second.test)
    assert inputs.shape == (8, 3, 12, 10)
    assert targets.sum(dim=(1, 2, 3)).tolist() == [90.0] * 8
    with pytest.raises(ValueError, match="expected annotator to be 1 or 2, but got 3"):
        load("chase-db1", chase, annotator=3)


def test_chase_names_missing_files(chase: Path) -> None:
    (chase / "Image_14R_2ndHO.png").unlink()
    assert len(load("chase-db1", chase).test) == 8
    with pytest.raises(DataNotFoundError, match=r"28 masks in .* 1 are missing: Image_14R_2ndHO\.png$"):
        load("chase-db1", chase, annotator=2)
    (chase / "Image_02L.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"28 images in .* 1 are missing: Image_02L\.jpg$"):
        load("chase-db1", chase)
    with pytest.raises(
        DataNotFoundError, match=r"Image_01L\.jpg missing; expected:\n  Image_01L\.jpg  Image_01L_1stHO"
    ):
        load("chase-db1", chase.parent)


# ---------------------------------------------------------------------------------------------------- DRIVE


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    for split, numbers in (("training", range(40, 20, -1)), ("test", range(20, 0, -1))):
        for n in numbers:
            write_image(tmp_path / split / "images" / f"{n:02d}_{split}.tif", 6 * n)
            write_mask(tmp_path / split / "1st_manual" / f"{n:02d}_manual1.gif", n % 5 + 1, mode="P")
            write_mask(tmp_path / split / "mask" / f"{n:02d}_{split}_mask.gif", 12, mode="P")
    return tmp_path


def test_drive_reads_tif_images_and_gif_masks_in_order(drive: Path) -> None:
    bundle = load("drive", str(drive), size=None)
    check_order(bundle.train, list(range(21, 41)), lambda n: 6 * n)
    check_order(bundle.test, list(range(1, 21)), lambda n: 6 * n)
    assert bundle.class_names == ("background", "vessel")
    assert (bundle.task, bundle.num_classes) == ("segmentation", 2)
    assert bundle.train_metadata.to_dict("list") == {"image": list(range(21, 41)), "split": ["training"] * 20}
    assert bundle.test_metadata.to_dict("list") == {"image": list(range(1, 21)), "split": ["test"] * 20}


def test_drive_can_hold_out_a_share_where_test_masks_are_withheld(drive: Path) -> None:
    for mask in (drive / "test" / "1st_manual").iterdir():
        mask.unlink()
    with pytest.raises(DataNotFoundError, match=r"20 masks in .* 20 are missing: 01_manual1\.gif, .* and 10 more"):
        load("drive", drive)
    (drive / "test" / "1st_manual").rmdir()
    with pytest.raises(DataNotFoundError, match=r"test/1st_manual missing; expected:[\s\S]*held_out=\"share\""):
        load("drive", drive)
    with random_state_kept():
        bundle = load("drive", drive, size=None, held_out="share", seed=2)
    kept, held = bundle.train_metadata.image.tolist(), bundle.test_metadata.image.tolist()
    assert (len(kept), len(held)) == (15, 5)
    assert sorted(kept + held) == list(range(21, 41))
    check_order(bundle.train, kept, lambda n: 6 * n)
    check_order(bundle.test, held, lambda n: 6 * n)
    with pytest.raises(ValueError, match=r"expected held_out to be one of \['test', 'share'\], but got 'auto'"):
        load("drive", drive, held_out="auto")


def test_lazy_data_sets_travel_to_worker_processes(drive: Path) -> None:
    bundle = load("drive", drive, size=(6, 5))
    copy = pickle.loads(pickle.dumps(bundle.test))
    assert all(torch.equal(a, b) for a, b in zip(copy[3], bundle.test[3], strict=True))


# ---------------------------------------------------------------------------------------- synthetic lesions


def overlaps(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Intersection over union of each pair of masks."""
    a, b = a.numpy().reshape(len(a), -1) > 0, b.numpy().reshape(len(b), -1) > 0
    return np.logical_and(a, b).sum(1) / np.logical_or(a, b).sum(1)


@pytest.fixture(scope="module")
def lesions() -> DataBundle:
    return load("synthetic-lesions")


@pytest.fixture(scope="module")
def true_lesions() -> DataBundle:
    return load("synthetic-lesions", jitter=0)


def test_synthetic_lesions_are_what_a_bundle_promises(lesions: DataBundle) -> None:
    assert (lesions.name, lesions.task, lesions.num_classes) == ("synthetic-lesions", "segmentation", 2)
    assert lesions.class_names == ("background", "lesion")
    for dataset, table, count in (
        (lesions.train, lesions.train_metadata, 200),
        (lesions.test, lesions.test_metadata, 100),
    ):
        assert dataset.inputs.shape == (count, 3, 48, 48)
        assert dataset.inputs.dtype == torch.uint8
        assert dataset.targets.shape == (count, 1, 48, 48)
        assert dataset.targets.dtype == torch.float32
        assert dataset.targets.unique().tolist() == [0.0, 1.0]
        assert dataset.targets.flatten(1).any(dim=1).all()
        assert table.columns.tolist() == ["patient", "device", "lesion_size", "annotation_iou"]
        assert len(table) == count


def test_annotation_jitter_leaves_three_quarters_of_the_overlap(lesions: DataBundle, true_lesions: DataBundle) -> None:
    for split in ("train", "test"):
        measured = overlaps(getattr(lesions, split).targets, getattr(true_lesions, split).targets)
        reported = getattr(lesions, f"{split}_metadata").annotation_iou
        assert np.allclose(measured, reported)
        assert 0.70 < measured.mean() < 0.78
        assert 0.05 < measured.std() < 0.12  # it varies from image to image
    size = true_lesions.train.targets.mean(dim=(1, 2, 3))
    assert np.allclose(size, lesions.train_metadata.lesion_size)
    assert (true_lesions.train_metadata.annotation_iou == 1).all()


def test_more_jitter_means_less_overlap(true_lesions: DataBundle) -> None:
    means = [
        overlaps(load("synthetic-lesions", jitter=j, test_size=25, train_size=1).test.targets, truth).mean()
        for truth in [true_lesions.test.targets[:25]]
        for j in (0.05, 0.1, 0.2, 0.4)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.9
    assert means[-1] < 0.6


def test_annotation_jitter_cannot_be_read_off_the_image(lesions: DataBundle, true_lesions: DataBundle) -> None:
    assert torch.equal(lesions.train.inputs, true_lesions.train.inputs)
    drawn, truth = (b.train.targets.mean(dim=(1, 2, 3)).log() for b in (lesions, true_lesions))
    grown = (drawn - truth).numpy()
    assert grown.std() > 0.15
    pixels = lesions.train.inputs.float().mean(dim=(2, 3)).numpy()
    for seen in (truth.numpy(), *pixels.T, lesions.train.inputs.float().std(dim=(1, 2, 3)).numpy()):
        assert abs(np.corrcoef(grown, seen)[0, 1]) < 0.2  # three standard errors at 200 images


def test_the_same_seed_gives_the_same_bits_however_many_images(lesions: DataBundle) -> None:
    with random_state_kept():
        few = load("synthetic-lesions", train_size=9, test_size=5)
    assert torch.equal(few.train.inputs, lesions.train.inputs[:9])
    assert torch.equal(few.train.targets, lesions.train.targets[:9])
    assert torch.equal(few.test.inputs, lesions.test.inputs[:5])
    assert few.train_metadata.equals(lesions.train_metadata[:9])
    other = load("synthetic-lesions", train_size=9, test_size=5, seed=1)
    assert not torch.equal(few.train.inputs, other.train.inputs)
    assert not torch.equal(few.test.targets, other.test.targets)
    assert not torch.equal(few.train.inputs[:5], few.test.inputs)


def test_lesions_are_darker_than_the_skin_around_them(true_lesions: DataBundle) -> None:
    images, masks = load_tensors(true_lesions.train)
    inside = (images * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3)) / 3
    outside = (images * (1 - masks)).sum(dim=(1, 2, 3)) / (1 - masks).sum(dim=(1, 2, 3)) / 3
    assert (outside - inside > 0.05).float().mean() > 0.98


def test_patients_have_one_device_and_stay_in_one_split(lesions: DataBundle) -> None:
    table = lesions.train_metadata
    assert table.patient.tolist() == [f"train-{i // 4:03d}" for i in range(200)]
    assert (table.groupby("patient").device.nunique() == 1).all()
    assert set(table.device) == {"A", "B", "C"}
    assert table.device.value_counts().min() >= 60
    assert not set(table.patient) & set(lesions.test_metadata.patient)


def test_devices_differ_in_colour_noise_and_blur() -> None:
    shots = {d: load("synthetic-lesions", train_size=12, test_size=1, devices=[d]).train for d in "ABCD"}
    images = {device: load_tensors(dataset)[0] for device, dataset in shots.items()}
    warmth = {d: float(x[:, 0].mean() / x[:, 2].mean()) for d, x in images.items()}
    assert warmth["B"] > warmth["A"] > warmth["C"]
    brightness = {d: float(x.mean()) for d, x in images.items()}
    assert brightness["D"] == min(brightness.values())
    corner = {d: float((x[:, :, :4, 1:8] - x[:, :, :4, 0:7]).std() / x.mean()) for d, x in images.items()}
    assert corner["C"] == max(corner.values())
    assert all(torch.equal(shots["A"].targets, dataset.targets) for dataset in shots.values())


def test_lesions_come_in_other_sizes_with_the_same_contours(true_lesions: DataBundle) -> None:
    large = load("synthetic-lesions", train_size=3, test_size=1, size=96, jitter=0).train
    assert large.inputs.shape == (3, 3, 96, 96)
    pooled = torch.nn.functional.avg_pool2d(large.targets, 2).round()
    assert overlaps(pooled, true_lesions.train.targets[:3]).min() > 0.93


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"root": "somewhere"}, ValueError, "expected root to be None, since synthetic-lesions is generated"),
        ({"train_size": 0}, ValueError, "expected train_size to be at least 1, but got 0"),
        ({"test_size": 1.5}, TypeError, "expected test_size to be an int"),
        ({"size": 8}, ValueError, "expected size to be at least 16, but got 8"),
        ({"seed": -1}, ValueError, "expected seed to be at least 0, but got -1"),
        ({"devices": ()}, ValueError, "expected devices to name at least one of .*'A'.*, but got \\(\\)"),
        ({"devices": ("A", "Z")}, ValueError, "expected devices to be one of .* but got 'Z'"),
        ({"jitter": 1.2}, ValueError, r"expected jitter in \[0, 1\], but got 1.2"),
    ],
)
def test_synthetic_lesions_refuse_wrong_options(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load("synthetic-lesions", **options)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------- MNI slices


@pytest.fixture(scope="module")
def template() -> object:
    pytest.importorskip("nilearn")
    return mni_slices.read_template()


@pytest.fixture
def template_at_hand(template: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares a test that is not about the template the reading of it."""
    monkeypatch.setattr(mni_slices, "read_template", lambda: template)


@pytest.fixture(scope="module")
def slices() -> DataBundle:
    pytest.importorskip("nilearn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the template was downloaded"))
        with random_state_kept():
            return load("mni-slices")


def test_slices_are_what_a_bundle_promises(slices: DataBundle) -> None:
    assert (slices.name, slices.task, slices.num_classes) == ("mni-slices", "segmentation", 2)
    assert slices.class_names == ("background", "grey matter")
    for dataset, table in ((slices.train, slices.train_metadata), (slices.test, slices.test_metadata)):
        assert dataset.inputs.shape == (len(table), 1, 64, 64)
        assert dataset.targets.shape == (len(table), 1, 64, 64)
        assert dataset.targets.dtype == torch.float32
        assert dataset.targets.unique().tolist() == [0.0, 1.0]
        assert set(table.plane) == {"axial", "coronal", "sagittal"}
        assert (dataset.targets.mean(dim=(1, 2, 3)) > 0.02).all()
    assert len(slices.train) > 150
    assert len(slices.test) > 80


def test_held_out_slices_are_blocks_apart_from_those_trained_on(slices: DataBundle) -> None:
    for plane in ("axial", "coronal", "sagittal"):
        kept, held = (
            table.position[table.plane == plane].to_numpy() for table in (slices.train_metadata, slices.test_metadata)
        )
        assert np.abs(kept[:, None] - held).min() == 5  # four millimetres lie between
        assert (np.diff(held) > 1).sum() == 2  # three blocks
        assert 0.2 < len(held) / (np.ptp(np.concatenate([kept, held])) + 1) < 0.4
    sagittal = slices.train_metadata.position[slices.train_metadata.plane == "sagittal"]
    assert sagittal.max() <= 0


def test_no_slice_is_there_twice(slices: DataBundle) -> None:
    images = torch.cat([slices.train.inputs, slices.test.inputs]).flatten(1)
    assert len(torch.unique(images, dim=0)) == len(images)


def test_a_slice_shows_the_template_at_its_position(slices: DataBundle) -> None:
    from nilearn import datasets

    t1, grey, white = (
        np.asarray(getattr(datasets, f"load_mni152_{kind}template")(resolution=1).dataobj, np.float32)
        for kind in ("", "gm_", "wm_")
    )
    low, high = (np.argwhere(t1 > 0.2).min(0), np.argwhere(t1 > 0.2).max(0) + 1)
    width = max(high - low) + 8
    for plane, axis, row in (("axial", 2, 20), ("coronal", 1, 40), ("sagittal", 0, 5)):
        table = slices.train_metadata[slices.train_metadata.plane == plane]
        index, position = table.index[row], table.position.iloc[row]
        voxel = position + (98, 134, 72)[axis]
        rows = [a for a in range(3) if a != axis]

        def shrink(volume: np.ndarray, axis: int = axis, rows: list[int] = rows, voxel: int = voxel) -> np.ndarray:
            flat = np.rot90(volume.take(voxel, axis)[tuple(slice(low[a], high[a]) for a in rows)])
            square = np.zeros((width, width), np.float32)
            top, left = (width - flat.shape[0]) // 2, (width - flat.shape[1]) // 2
            square[top : top + flat.shape[0], left : left + flat.shape[1]] = flat
            return np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.BILINEAR))

        seen = slices.train[index]
        assert np.abs(seen[0][0].numpy() - shrink(t1)).max() < 1.1 / 255
        g, w = shrink(grey), shrink(white)
        neither = shrink(np.clip(1 - grey - white, 0, 1))
        clear = np.abs(g - np.maximum(w, neither)) > 1e-3
        assert ((g > w) & (g > neither))[clear].tolist() == (seen[1][0].numpy() == 1)[clear].tolist()


@pytest.mark.usefixtures("template_at_hand")
def test_tissue_masks_refine_grey_matter(slices: DataBundle) -> None:
    tissue = load("mni-slices", classes="tissue")
    assert (tissue.num_classes, len(tissue.class_names)) == (3, 3)
    assert tissue.train.targets.dtype == torch.int64
    assert tissue.train.targets.shape == (len(slices.train), 64, 64)
    assert tissue.train.targets.unique().tolist() == [0, 1, 2]
    assert torch.equal((tissue.train.targets == 1).float(), slices.train.targets[:, 0])
    assert torch.equal(tissue.train.inputs, slices.train.inputs)
    brightness = [tissue.train.inputs[:, 0][tissue.train.targets == k].float().mean() for k in range(3)]
    assert brightness == sorted(brightness)  # a T1 image: white matter is brightest


@pytest.mark.usefixtures("template_at_hand")
def test_planes_spacing_and_size_are_options() -> None:
    bundle = load("mni-slices", planes=["coronal"], spacing=3, size=32, gap=0)
    assert set(bundle.train_metadata.plane) == {"coronal"}
    positions = np.concatenate([bundle.train_metadata.position, bundle.test_metadata.position])
    assert (np.diff(np.sort(positions)) == 3).all()
    assert bundle.test.inputs.shape[1:] == (1, 32, 32)


@pytest.mark.usefixtures("template_at_hand")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"root": "somewhere"},
            ValueError,
            "expected root to be None, since mni-slices comes with the nilearn",
        ),
        ({"size": 8}, ValueError, "expected size to be at least 16, but got 8"),
        ({"classes": "gray"}, ValueError, "expected classes to be one of .* did you mean 'grey'"),
        ({"planes": ()}, ValueError, "expected planes to name each of .* at most once, but got \\(\\)"),
        ({"planes": ["axial", "axial"]}, ValueError, "at most once, but got"),
        ({"planes": ["axail"]}, ValueError, "expected planes to be one of .* did you mean 'axial'"),
        ({"spacing": 0}, ValueError, "expected spacing to be at least 1, but got 0"),
        ({"gap": -1}, ValueError, "expected gap to be at least 0, but got -1"),
        ({"share": 0}, ValueError, r"expected share in \(0, 1\), but got 0"),
        ({"min_brain": 1.0}, ValueError, r"expected min_brain in \[0, 1\), but got 1.0"),
        ({"gap": 200}, ValueError, "no training slices are left; a smaller spacing, gap or min_brain"),
        ({"min_brain": 0.99}, ValueError, "no training slices are left"),
        ({"spacing": 60}, ValueError, "no held-out slices are left"),
    ],
)
def test_mni_slices_refuse_wrong_options(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load("mni-slices", **options)  # type: ignore[arg-type]


def test_mni_slices_without_nilearn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(ImportError, match=r"mni-slices needs nilearn: pip install 'unlearn-kit\[medical\]'"):
        load("mni-slices")
