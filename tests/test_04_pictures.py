"""Images from elsewhere: any depth, broken metadata, masks of labels, and nothing that starts another program."""

import struct

import jaguar_kit
import numpy as np
import PIL
import pytest
from cases import every
from jaguar_kit import open_store, read_image
from PIL import Image


def gradient(top: int, dtype=np.uint16) -> np.ndarray:
    return np.linspace(0, top, 64 * 64).reshape(64, 64).astype(dtype)


@every("top", [255, 1023, 4095, 16383, 65535])
@every("ending", ["png", "tif"])
def test_deep_gray_shows_its_whole_range_whatever_its_depth(top, ending, tmp_path):
    Image.fromarray(gradient(top)).save(tmp_path / f"x.{ending}")
    values = np.asarray(read_image(tmp_path / f"x.{ending}")[0])[..., 0]
    np.testing.assert_allclose(values, np.linspace(0, 255, 64 * 64).reshape(64, 64), atol=1.6)


@every("top", [1.0, 255.0, 1000.0])
@every("odd", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_no_number_spoils_no_other(top, odd, tmp_path):
    values = gradient(1, np.float32) * np.float32(top)
    values[3, 3] = odd
    Image.fromarray(values).save(tmp_path / "x.tif")
    read = np.asarray(read_image(tmp_path / "x.tif")[0])[..., 0]
    most = 255 if top < 1000 else 1000 / 1023 * 255
    assert read[-1, -1] == pytest.approx(most, abs=1)
    assert read[32, 32] == pytest.approx(most / 2, abs=3)
    assert read[3, 3] in ((round(most), int(most)) if odd == np.inf else (0,))


def exif_of(*tags: bytes) -> bytes:
    """A little TIFF directory with the given entries of twelve bytes."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + b"\0\0\0\0"


ORIENTATION = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # lies on its side
FAR_AWAY = struct.pack("<HHII", 0x010F, 2, 4000, 0x7FFFFFFF)  # a text that lies outside of the file
ODD_TYPE = struct.pack("<HHII", 0x9999, 99, 7, 1)  # of a type that there is not
ODD_VALUE = struct.pack("<HHIHH", 0x0112, 3, 1, 77, 0)


@every(
    ("exif", "turned"),
    [
        (exif_of(ORIENTATION), True),
        (exif_of(FAR_AWAY, ORIENTATION), int(PIL.__version__.split(".")[0]) >= 13),  # earlier ones read no further
        (exif_of(ORIENTATION, ODD_TYPE), True),
        (exif_of(ODD_VALUE), False),
        (exif_of(FAR_AWAY), False),
        (b"Exif\0\0II*\0", False),
        (b"Exif\0\0garbage", False),
        (b"", False),
    ],
)
def test_broken_metadata_make_no_image_unreadable(exif, turned, tmp_path):
    image = Image.new("RGB", (60, 20), (200, 10, 10))
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg")[0].size == ((20, 60) if turned else (60, 20))
    assert not open_store(tmp_path, ["x.jpg"], 16).unreadable


@every("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation, tmp_path):
    from PIL import ImageOps

    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")[0]), expected)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@every("name", ["x.jpg", "x.png", "x.eps"])
def test_no_image_starts_another_program(name, tmp_path, monkeypatch):
    import subprocess

    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    (tmp_path / name).write_bytes(EPS)
    store = open_store(tmp_path, [name], 16, bad_images="skip")
    assert store.unreadable == (0,)
    assert not started
    assert ".eps" not in jaguar_kit.image_suffixes()


@every("white", [1, 255])
@every("dtype", [np.uint8, np.uint16])
def test_a_mask_of_zeros_and_ones_is_black_and_white(white, dtype, tmp_path):
    mask = np.zeros((20, 20), dtype)
    mask[5:15] = white
    Image.new("RGB", (20, 20)).save(tmp_path / "x.jpg")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    alpha = np.asarray(read_image(tmp_path / "x.jpg", tmp_path / "mask.png")[1])
    assert set(np.unique(alpha)) == {0, 255}
    assert (alpha == 255).mean() == 0.5


@every("odd", [3.4e38, -3.4e38, 65535])
def test_a_value_for_no_data_or_a_hot_pixel_darkens_no_image(odd, tmp_path):
    values = gradient(1999, np.float32)
    values[3, 3] = odd
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert np.asarray(read_image(tmp_path / "x.tif")[0])[..., 0].std() > 30


def test_signed_values_show_their_range_and_no_values_are_told(tmp_path):
    Image.fromarray(np.linspace(-3000, -1001, 4096).reshape(64, 64).astype(np.int32)).save(tmp_path / "x.tif")
    assert np.asarray(read_image(tmp_path / "x.tif")[0])[..., 0].std() > 30
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "y.tif")
    assert open_store(tmp_path, ["y.tif"], 16, bad_images="skip").unreadable == (0,)


def test_a_pipe_is_no_image(tmp_path):
    import os

    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(OSError, match="is no file"):
        read_image(tmp_path / "x.png")
