"""Tables and pictures as they come: ids stay text, pictures stand upright, masks mean what their file says."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_kit import UnlearnTask
from unlearn_kit.data import load
from unlearn_kit.data.mask_pairs import MaskPairs
from unlearn_kit.data.pictures import MAX_PIXELS, read_picture
from unlearn_kit.data.tables import read_table


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def column(tmp_path: Path, *cells: str):
    lines = ["file,id", *(f"{i}.png,{cell}" for i, cell in enumerate(cells))]
    return read_table(write(tmp_path / "metadata.csv", *lines), text=("file",))[0]["id"]


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (("07", "7"), "07"),
        (("07", "08"), "07"),
        (("1.1", "1.10"), "1.10"),
        (("1.10", "1.20"), "1.10"),
        (("1E5", "100000"), "1E5"),
        (("1e5", "2e5"), "1e5"),
        (("12345678901234567", "12345678901234568"), "12345678901234567"),
        (("0x10", "16"), "0x10"),
        (("+7", "7"), "+7"),
        (("1_000", "1000"), "1_000"),
        (("1", "1.0"), "1"),
        (("inf", "1"), "inf"),
        (("7", "seven"), "7"),
        (("0.1", "0.10000000000000001"), "0.1"),
        (("2020-01-02", "2020-01-03"), "2020-01-02"),
        (("-0", "0"), "-0"),
        (("07", "7", ""), "7"),
    ],
)
def test_ids_are_the_text_that_is_written(tmp_path, cells, wanted):
    found = column(tmp_path, *cells)
    assert (found == wanted).tolist() == [cell == wanted for cell in cells]


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (("7", "-12", "0"), [7, -12, 0]),
        (("1.5", "0.25", "-3.0"), [1.5, 0.25, -3.0]),
        (("1", "2.5"), [1, 2.5]),
        (("True", "False"), [True, False]),
    ],
)
def test_numbers_that_are_written_as_such_are_numbers(tmp_path, cells, wanted):
    found = column(tmp_path, *cells)
    assert found.tolist() == wanted
    assert found.dtype != object


@pytest.mark.parametrize("cell", ["", "NA", "nan", "None"])
def test_empty_cells_are_missing_values(tmp_path, cell):
    assert column(tmp_path, "A", cell, "B").isna().tolist() == [False, True, False]
    assert column(tmp_path, "2001", cell, "2010").gt(2005).tolist() == [False, False, True]


def folder(root: Path, *lines: str) -> Path:
    """A folder of four training images and two test images, with a table."""
    for i in range(6):
        Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(root / f"{i}.png")
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'}," for i in range(6)]
    write(root / "metadata.csv", "file,label,split,patient", *(row + id_ for row, id_ in zip(rows, lines, strict=True)))
    return root


def test_a_patients_request_selects_that_patient(tmp_path):
    bundle = load("image-folder", folder(tmp_path, "07", "7", "1E5", "100000", "8", "9"))
    for patient, place in (("07", 0), ("7", 1), ("1E5", 2), ("100000", 3)):
        task = UnlearnTask.forget_where(
            bundle.train,
            bundle.test,
            bundle.train_metadata,
            bundle.test_metadata,
            lambda t, p=patient: t["patient"] == p,
        )
        assert task.forget_indices.tolist() == [place]


def test_rows_are_matched_with_the_files_of_an_image_folder(tmp_path):
    bundle = load("image-folder", folder(tmp_path, *"uvwxyz"))
    shuffled = bundle.train_metadata.iloc[[2, 0, 3, 1]]
    for table in (shuffled, shuffled.reset_index(drop=True)):
        tables = table, bundle.test_metadata
        task = UnlearnTask.forget_where(bundle.train, bundle.test, *tables, lambda t: t["patient"] == "w")
        assert task.forget_indices.tolist() == [2]
    tables = shuffled.assign(file=[f"here/{file}" for file in shuffled["file"]]), bundle.test_metadata
    with pytest.raises(ValueError, match=r"a row of train_metadata for every sample, but got none for 0\.png"):
        UnlearnTask.forget_where(bundle.train, bundle.test, *tables, lambda t: t["patient"] == "w")


# --- tables that are none -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("file,device,device", "a.png,A,B"), "columns of distinct names, but got twice device"),
        (("file, device,device ", "a.png,A,B"), "columns of distinct names, but got twice device"),
        (("file,device", "a.png,A,extra"), "the 2 fields of its header, but got 3 in line 2"),
        (("file,device", "a.png,A", "b.png"), "the 2 fields of its header, but got 1 in line 3"),
        (("file,device", "a.png,A", "./a.png,B"), "one row an image, but got several for a.png"),
        (("file,device", "a.png,A", "a.png,A"), "one row an image, but got several for a.png"),
        (("file,device", "../a.png,A"), "inside the folder of the images, but got '../a.png'"),
        (("file,device", "x/../../a.png,A"), "inside the folder of the images, but got 'x/../../a.png'"),
        (("file,device", "/etc/a.png,A"), "inside the folder of the images, but got '/etc/a.png'"),
        (("file,device", "C:\\a.png,A"), "inside the folder of the images, but got 'C:"),
        (("file,device", "..\\a.png,A"), "inside the folder of the images, but got '..\\"),
        (("image;device", "a.png;A"), "a column 'file', but got ['image', 'device']"),
        (("file,device", '"a.png,A'), "to be a CSV table, but got: "),
        (("file,device", "a.png,\0"), "to be a CSV table, but got: "),
    ],
)
def test_tables_that_say_two_things_are_refused(tmp_path, lines, text):
    path = write(tmp_path / "metadata.csv", *lines)
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        read_table(path, text=("file",))
    assert str(path) in str(caught.value)


WORDS = 'file{0}device{0}note\r\na.png{0}Gerät 1{0}"two\nlines"\r\n{0}{0}\r\nb.png{0}B{0}x\r\n\r\n'


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize("says", [False, True])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.filterwarnings("ignore:metadata.csv. read as cp1252, which is a guess")
def test_encodings_and_separators_are_found_out_and_told(tmp_path, separator, encoding, says, told):
    path = tmp_path / "metadata.csv"
    path.write_bytes(((f"sep={separator}\r\n" if says else "") + WORDS.format(separator)).encode(encoding))
    options = {"encoding": encoding, "separator": separator} if told and encoding != "utf-8-sig" else {}
    table, notes = read_table(path, text=("file",), **options)
    assert table.to_dict("list") == {
        "file": ["a.png", "b.png"],
        "device": ["Gerät 1", "B"],
        "note": ["two\nlines", "x"],
    }
    assert any(repr(separator) in note for note in notes) == (separator != ",")
    read_as = {"utf-16": "utf-16", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be"}.get(encoding, "cp1252")
    assert any(f"read as {read_as}" in note for note in notes) == (
        not options and encoding not in ("utf-8", "utf-8-sig")
    )


def test_a_guess_about_a_table_warns_with_words_to_look_at(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_bytes("file,device\na.png,Gerät\n".encode("cp1250"))
    with pytest.warns(UserWarning, match=r"read as cp1252, which is a guess.*look whether Gerät is written rightly"):
        read_table(path, text=("file",))


@pytest.mark.parametrize(
    ("raw", "options", "text"),
    [
        (
            b"file,device\na.png,\x81\n",
            {},
            "to be a CSV table, but got: 'utf-8' codec can't decode byte 0x81 .*encoding=",
        ),
        (b"file,device\na.png,\xe4\n", {"encoding": "utf-8"}, "to be written in utf-8, but got: 'utf-8' codec"),
        (
            b"file,device\n",
            {"encoding": "klingon"},
            "encoding to be one that Python knows, such as 'cp1252', but got 'kli",
        ),
        (b"file,device\n", {"separator": "::"}, "expected separator to be one character, but got '::'"),
        (b"sep=;\nfile;x\n", {"separator": ","}, "separator to be ';', as the first line of .*csv says, but got ','"),
        (
            b"file;x,file\na;b,c\n",
            {},
            r"a column 'file' by one separator, but got it by each of \[',', ';'\]; say which",
        ),
        (b"File;device\n", {}, r"a column 'file', but got \['File', 'device'\]; did you mean file_column='File'\?"),
        (b"file,device\n ,A\n", {}, "to name a file, but got an empty one"),
        (b"sep=;\nfile;device\na.png;A;x\n", {}, "the 2 fields of its header, but got 3 in line 3"),
        (b"file,,\na.png,1,2\n", {}, "columns of distinct names, but got twice ''"),
        (b"", {}, "to be a CSV table, but got: no columns"),
        (b"PK\x03\x04\x14\x00", {}, "but got an Excel workbook; save it as CSV UTF-8"),
        (b"file\n", {"encoding": 8}, "expected encoding to be a str or None, but got int: 8"),
        (b"file\n", {"separator": b";"}, "expected separator to be a str or None, but got bytes"),
    ],
)
def test_what_cannot_be_read_as_a_table_is_told(tmp_path, raw, options, text):
    path = tmp_path / "metadata.csv"
    path.write_bytes(raw)
    with pytest.raises((ValueError, TypeError), match=text):
        read_table(path, text=("file",), **options)


def test_an_image_folder_tells_what_was_found_out_about_its_table(tmp_path):
    folder(tmp_path, *"uvwxyz")
    path = tmp_path / "metadata.csv"
    path.write_bytes(path.read_text().replace(",", ";").replace("u\n", "Zoë\n").encode("latin-1"))
    with pytest.warns(UserWarning, match="which is a guess"):
        bundle = load("image-folder", tmp_path)
    assert bundle.train_metadata["patient"].tolist() == ["Zoë", "v", "w", "x"]
    assert [note.partition(",")[0] for note in bundle.notes] == [
        "metadata.csv: fields are separated by ';'",
        "metadata.csv: read as cp1252",
    ]
    assert load("image-folder", tmp_path, encoding="latin-1").notes == bundle.notes[:1]


def test_a_link_back_is_refused_and_a_link_elsewhere_is_followed(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / split / "cat" / "0.png")
    (tmp_path / "dogs").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "dogs" / "1.png")
    (root / "train" / "dog").symlink_to(tmp_path / "dogs")
    assert len(load("image-folder", root).train) == 2
    (root / "train" / "cat" / "again").symlink_to(root / "train")
    with pytest.raises(ValueError, match=r"expected every folder once, but got .*train' again by the link .*again"):
        load("image-folder", root)


# --- pictures -------------------------------------------------------------------------------------

# How each EXIF orientation is set upright.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


def save(path: Path, pixels: np.ndarray, orientation: int | None = None) -> Path:
    picture, exif = Image.fromarray(pixels), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    picture.save(path, exif=exif)
    return path


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_pictures_stand_upright(tmp_path, orientation, ending):
    stored = pixels(12, 8, 3)
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal((255 * read_picture(path)).round().numpy(), TURNS[orientation](stored).transpose(2, 0, 1))


def test_a_jpeg_on_its_side_has_the_shape_it_is_shown_in(tmp_path):
    path = save(tmp_path / "a.jpg", pixels(12, 8, 3), 6)
    assert read_picture(path).shape == (3, 8, 12)


def pair(tmp_path: Path, image: int | None, mask: int | None, shape=(12, 8), turned: bool = False):
    """An image whose red channel is its mask, both stored as they say they lie."""
    marks = np.zeros(shape, np.uint8)
    marks[:3, :2] = 255
    stored = np.stack([marks] * 3, axis=2)
    image_file = save(tmp_path / "image.png", stored, image)
    mask_file = save(tmp_path / "mask.png", np.ascontiguousarray(TURNS[image or 1](marks)) if turned else marks, mask)
    return MaskPairs([image_file], [mask_file])


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("how", ["both say so", "stored pixels", "turned pixels"])
def test_masks_are_turned_with_their_images(tmp_path, orientation, how):
    if how != "both say so" and orientation < 5:
        with pytest.raises(ValueError, match=r"mask\.png to say which way up it is, as its image image\.png"):
            pair(tmp_path, orientation, None)[0]
        return
    own = orientation if how == "both say so" else None
    x, y = pair(tmp_path, orientation, own, turned=how == "turned pixels")[0]
    assert torch.equal(x[:1], y)
    assert x.shape == (3, *TURNS[orientation](np.zeros((12, 8))).shape)


def test_a_square_mask_that_may_lie_either_way_is_refused(tmp_path):
    with pytest.raises(ValueError, match="to say which way up it is"):
        pair(tmp_path, 6, None, shape=(8, 8))[0]
    x, y = pair(tmp_path, 6, 6, shape=(8, 8))[0]
    assert torch.equal(x[:1], y)


def test_a_picture_too_large_is_refused_by_its_header(tmp_path):
    path, side = tmp_path / "large.png", 9000

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=rf"large\.png to have at most {MAX_PIXELS} pixels .* but got 9000 x 9000"):
        read_picture(path)


@pytest.mark.parametrize("damage", ["cut", "nothing", "text", "header"])
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "tif", "bmp", "webp", "ppm"])
def test_damaged_pictures_are_named(tmp_path, ending, damage):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels(12, 8, 3)).save(path)
    whole = path.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "nothing": b"", "text": b"no image", "header": bytes(8) + whole[8:]}
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=re.escape(f"expected {path} to be a complete image file, but got: ")):
        read_picture(path)


# --- masks ----------------------------------------------------------------------------------------

SHAPE = np.zeros((12, 8), np.uint8)
SHAPE[3:9, 2:6] = 1


def foreground(tmp_path: Path, mask: Image.Image, ending: str = "png", **options) -> np.ndarray:
    image, file = tmp_path / "image.png", tmp_path / f"mask.{ending}"
    Image.fromarray(np.zeros((12, 8, 3), np.uint8)).save(image)
    mask.save(file, **options)
    return MaskPairs([image], [file])[0][1][0].numpy()


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    mask = Image.fromarray(indices, "L").copy()
    mask = Image.frombytes("P", mask.size, mask.tobytes())
    mask.putpalette([value for colour in colours for value in colour])
    return mask


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


@pytest.mark.parametrize(
    "mask",
    [
        palette(SHAPE, *VOC),
        palette(SHAPE, *[(i, i, i) for i in range(256)]),
        palette(SHAPE, (0, 0, 0), (0, 0, 2)),
        palette(SHAPE, *[(0, 0, 0)] * 3),
        palette(2 * SHAPE, (0, 0, 0), (255, 255, 255), (0, 0, 9)),
        palette(1 - SHAPE, (255, 255, 255), (0, 0, 0)),
        palette(SHAPE + SHAPE * (np.arange(8) > 3), (0, 0, 0), (0, 0, 2), (255, 255, 255)).copy(),
    ],
    ids=["voc", "grey", "dark", "black", "dark second", "white is first", "two classes"],
)
def test_a_palettes_index_is_what_counts(tmp_path, mask):
    assert np.array_equal(foreground(tmp_path, mask), SHAPE)


def test_a_palettes_void_is_no_foreground(tmp_path):
    indices = SHAPE.copy()
    indices[0] = 255
    with pytest.raises(ValueError, match=r"mask\.png to be a binary mask, but got the palette's indices \[0, 1, 255\]"):
        foreground(tmp_path, palette(indices, *VOC, *[(224, 224, 192)] * 253))


@pytest.mark.parametrize("colour", [0, 10, 255])
@pytest.mark.parametrize("opacity", [1, 255])
def test_the_opacity_is_the_mask_where_the_colours_tell_nothing(tmp_path, colour, opacity):
    for mode, bands in (("RGBA", 3), ("LA", 1)):
        levels = [np.full_like(SHAPE, colour)] * bands + [SHAPE * opacity]
        assert np.array_equal(foreground(tmp_path, Image.fromarray(np.stack(levels, axis=2), mode)), SHAPE)


def test_colours_under_an_even_opacity_are_the_mask(tmp_path):
    levels = [SHAPE * 255] * 3 + [np.full_like(SHAPE, 255)]
    assert np.array_equal(foreground(tmp_path, Image.fromarray(np.stack(levels, axis=2), "RGBA")), SHAPE)


def test_noise_of_compression_is_no_foreground(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 4, SHAPE.shape).astype(np.uint8)
    assert not foreground(tmp_path, Image.fromarray(noise)).any()
    assert not foreground(tmp_path, Image.fromarray(noise), "jpg", quality=100, subsampling=0).any()
    speckled = np.where(SHAPE == 1, 255 - noise, noise).astype(np.uint8)
    assert np.array_equal(foreground(tmp_path, Image.fromarray(speckled)), SHAPE)
    assert np.array_equal(foreground(tmp_path, Image.fromarray(SHAPE * 255), "jpg", quality=90), SHAPE)


def test_dark_levels_that_may_be_classes_are_refused(tmp_path):
    classes = SHAPE.copy()
    classes[5:7, 3:5] = 2
    with pytest.raises(ValueError, match=r"mask\.png to be a binary mask, but got 3 levels of at most 2 of 255"):
        foreground(tmp_path, Image.fromarray(classes))
