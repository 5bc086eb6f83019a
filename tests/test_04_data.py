"""4. Data."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jaguar_kit as jk
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, load_competition, make_mini_dataset, open_store, read_image
from jaguar_kit_tools.experiments import mini_dataset
from PIL import Image
from sklearn.model_selection import train_test_split

NAMES = ("a.png", "b.png", "c.png", "d.png")
TRAIN = "filename,ground_truth\na.png,Ana\nb.png,Ana\nc.png,Bela\nd.png,Bela\n"
TEST = "row_id,query_image,gallery_image\n0,t1.png,t2.png\n1,t2.png,t1.png\n"


def paint(path: Path, colour: object = (10, 20, 30), size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder(train_csv, test_csv, ...) -> a data folder in the competition's layout."""

    def make(
        train: str = TRAIN,
        test: str | None = None,
        nested: bool = True,
        names: Sequence[str] = NAMES,
        test_names: Sequence[str] = ("t1.png", "t2.png", "t3.png"),
        **tables: str,
    ) -> Path:
        root = tmp_path / "data"
        for part, images in (("train", names), ("test", test_names if test is not None else ())):
            for name in images:
                paint(root / part / (part if nested else "") / name)
        (root / "train.csv").write_text(train, encoding="utf-8")
        if test is not None:
            (root / "test.csv").write_text(test, encoding="utf-8")
        for name, text in tables.items():
            (root / f"{name}.csv").write_text(text, encoding="utf-8")
        return root

    return make


def refusal(root: Path) -> str:
    """The one line with which a data folder is refused."""
    with pytest.raises(KitError) as error:
        load_competition(root)
    line = str(error.value)
    assert "\n" not in line
    return line


# the competition's layout


@pytest.mark.parametrize("nested", [True, False])
def test_both_nestings_are_read(folder, nested):
    root = folder(test=TEST, nested=nested)
    competition = load_competition(str(root))
    assert list(competition.train.filename) == list(NAMES)
    assert list(competition.train.identity) == ["Ana", "Ana", "Bela", "Bela"]
    assert competition.identities == ["Ana", "Bela"]
    assert list(competition.test.filename) == ["t1.png", "t2.png"]
    assert len(competition.paths) == 6
    assert all((root / path).is_file() for path in competition.paths)
    assert Path(competition.paths[0]) == Path("train/train/a.png" if nested else "train/a.png")


def test_images_may_lie_beside_the_tables(tmp_path):
    for name in NAMES:
        paint(tmp_path / name)
    (tmp_path / "train.csv").write_text(TRAIN)
    assert load_competition(tmp_path).paths == list(NAMES)


def test_the_mini_dataset_is_a_competition(mini):
    competition = load_competition(mini)
    assert len(competition.train) + len(competition.test) == 72
    assert len(competition.identities) == 6
    told = "views.csv: tells flank, burst, scene, split of"
    assert competition.notes == (f"{mini / told} 56 of 56 training images", f"{mini / told} 16 of 16 test images")
    assert {"flank", "burst", "scene"} <= set(competition.train.columns)
    assert competition.solution.isin(competition.identities).all()
    assert list(competition.solution.index) == list(competition.test.filename)


def test_labels_are_text(folder):
    for label in ("007", "NA", "nan", "null", "1e3", "True", "-", "Ñandú", "1.0"):
        train = f"filename,ground_truth\na.png,{label}\nb.png,{label}\nc.png,Bela\n"
        competition = load_competition(folder(train, names=NAMES[:3]))
        assert list(competition.train.identity) == [label, label, "Bela"]


def test_filenames_are_text(tmp_path):
    for name in ("007", "1e3"):
        paint(tmp_path / "train" / "x.png").rename(tmp_path / "train" / name)
    (tmp_path / "train.csv").write_text("filename,ground_truth\n007,Ana\n1e3,Bela\n")
    assert load_competition(tmp_path).paths == ["train/007", "train/1e3"]


def test_byte_order_mark_carriage_returns_and_quotes_are_no_fault(folder):
    root = folder()
    (root / "train.csv").write_bytes(
        b'\xef\xbb\xbffilename,ground_truth\r\n"a.png","Ana, the first"\r\nb.png,Bela\r\nc.png,Bela\r\nd.png,Bela\r\n'
    )
    assert load_competition(root).identities == ["Ana, the first", "Bela"]


def test_images_in_folders_below_are_found(folder):
    train = "filename,ground_truth\nx/a.png,Ana\ny/a.png,Bela\n"
    competition = load_competition(folder(train, names=("x/a.png", "y/a.png")))
    assert competition.paths == ["train/train/x/a.png", "train/train/y/a.png"]


def test_further_columns_are_kept(folder):
    train = "id,filename,ground_truth,site\n1,a.png,Ana,north\n2,b.png,Bela,south\n"
    competition = load_competition(folder(train, names=NAMES[:2]))
    assert list(competition.train.site) == ["north", "south"]


@pytest.mark.parametrize("column", ["identity", "path"])
def test_a_column_named_like_the_kits_own_does_not_disturb(folder, column):
    train = f"filename,ground_truth,{column}\na.png,Ana,1\nb.png,Ana,2\nc.png,Bela,3\n"
    competition = load_competition(folder(train, names=NAMES[:3]))
    assert competition.identities == ["Ana", "Bela"]
    assert competition.paths == [f"train/train/{name}" for name in NAMES[:3]]


def test_images_that_stand_in_no_table_are_noted(folder):
    root = folder(test=TEST)
    paint(root / "train" / "train" / "extra.jpg")
    (root / "train" / "train" / "notes.txt").write_text("no image")
    notes = load_competition(root).notes
    assert notes == (
        "1 images in train/ stand in no table and are not used: extra.jpg",
        "1 images in test/ stand in no table and are not used: t3.png",
    )


def test_identities_with_one_image_are_noted(folder):
    train = "filename,ground_truth\na.png,Ana\nb.png,Ana\nc.png,Cora\nd.png,Bela\n"
    (note,) = load_competition(folder(train)).notes
    assert note == "2 identities have one image and stay in training: Bela, Cora"


def test_fingerprint_changes_with_labels_and_not_with_the_place(folder, tmp_path):
    root = folder(test=TEST)
    before = load_competition(root).fingerprint
    moved = root.rename(tmp_path / "moved")
    assert load_competition(moved).fingerprint == before
    (moved / "train.csv").write_text(TRAIN.replace("b.png,Ana", "b.png,Bela"))
    assert load_competition(moved).fingerprint != before


# pairs and their solution


def test_pairs_may_be_incomplete_and_in_any_order(mini, tmp_path):
    pairs = pd.read_csv(mini / "test.csv").sample(frac=0.3, random_state=0)
    for name in ("train.csv", "solution.csv"):
        (tmp_path / name).write_bytes((mini / name).read_bytes())
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(mini / part)
    pairs.to_csv(tmp_path / "test.csv", index=False)
    competition = load_competition(tmp_path)
    assert list(competition.pairs.row_id) == list(pairs.row_id)
    assert list(competition.pairs.query_image) == list(pairs.query_image)
    assert list(competition.pairs.gallery_image) == list(pairs.gallery_image)
    assert list(competition.test.filename) == sorted({*pairs.query_image, *pairs.gallery_image})


def test_an_image_that_is_only_gallery_is_a_test_image(folder):
    test = "row_id,query_image,gallery_image\n5,t1.png,t3.png\n"
    assert list(load_competition(folder(test=test)).test.filename) == ["t1.png", "t3.png"]


def test_an_image_may_be_compared_with_itself(folder):
    test = "row_id,query_image,gallery_image\n5,t1.png,t1.png\n"
    assert list(load_competition(folder(test=test)).test.filename) == ["t1.png"]


def test_without_pairs_there_is_nothing_to_submit(folder):
    competition = load_competition(folder())
    assert competition.pairs is None
    assert competition.solution is None
    assert len(competition.test) == 0
    assert competition.paths == [f"train/train/{name}" for name in NAMES]


def test_a_solution_is_ordered_like_the_test_images(folder):
    solution = "filename,ground_truth\nother.png,X\nt2.png,007\nt1.png,NA\n"
    competition = load_competition(folder(test=TEST, solution=solution))
    assert competition.solution.to_dict() == {"t1.png": "NA", "t2.png": "007"}
    assert list(competition.solution.index) == list(competition.test.filename)


def test_a_solution_that_does_not_cover_the_test_images_is_not_used(folder):
    assert load_competition(folder(test=TEST, solution="filename,ground_truth\nt1.png,X\n")).solution is None


def test_a_solution_that_names_an_image_twice_is_refused_in_one_line(folder):
    solution = "filename,ground_truth\nt1.png,X\nt1.png,Y\nt2.png,X\n"
    assert "solution.csv" in refusal(folder(test=TEST, solution=solution))


# views


@pytest.mark.parametrize("key", ["filename", "path"])
def test_views_are_joined_by_filename(folder, key):
    prefix = "train/train/" if key == "path" else ""
    views = f"{key},burst,identity\n" + "".join(f"{prefix}{name},{i},other\n" for i, name in enumerate(NAMES[::-1]))
    train = load_competition(folder(views=views)).train
    assert list(train.burst) == ["3", "2", "1", "0"]
    assert list(train.identity) == ["Ana", "Ana", "Bela", "Bela"]


def test_views_need_not_name_every_image(folder):
    train = load_competition(folder(views="filename,burst\nb.png,7\nb.png,7\nz.png,9\n")).train
    assert len(train) == 4
    assert list(train.burst.isna()) == [True, False, True, True]
    assert train.burst[1] == "7"


def test_views_without_a_filename_are_refused(folder):
    assert "views.csv: column 'path' is missing" in refusal(folder(views="burst\n1\n"))


# plain folders


def test_a_folder_of_folders_is_read(tmp_path):
    for name in ("007/b.JPG", "007/a.jpg", "NA/c.webp", ".hidden/d.png"):
        paint(tmp_path / name)
    (tmp_path / "NA" / "notes.txt").write_text("no image")
    competition = load_competition(tmp_path)
    assert competition.identities == ["007", "NA"]
    assert competition.paths == ["007/a.jpg", "007/b.JPG", "NA/c.webp"]
    assert competition.pairs is None
    assert competition.notes == (
        "1 identities have one image and stay in training: NA",
        "1 images are of an individual called 'NA'; leave them out if it is none",
        f"{tmp_path}: files that are no images that can be read here: 1 .txt",
        f"{tmp_path}: 1 folders hold no data and are left out: .hidden (1 files)",
    )


def test_a_folder_named_like_an_image_is_no_image(tmp_path):
    for name in ("x/a.jpg", "y/b.jpg"):
        paint(tmp_path / name)
    (tmp_path / "x" / "album.jpg").mkdir()
    assert load_competition(tmp_path).paths == ["x/a.jpg", "y/b.jpg"]


def test_a_folder_without_data_is_refused(tmp_path):
    for number, names in enumerate([(), ("a.jpg", "b.jpg"), ("x/notes.txt",)]):
        root = tmp_path / str(number)
        root.mkdir()
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"")
        told = refusal(root)
        assert told.startswith(f"{root}: has neither train.csv nor folders of images (identity/*.jpg)")
        assert told.endswith("; there are 1 .txt") == ("x/notes.txt" in names), told


def test_one_identity_is_too_few(tmp_path):
    paint(tmp_path / "Ana" / "a.jpg")
    assert "only one identity, 'Ana'" in refusal(tmp_path)


# what is refused


def test_a_missing_folder_is_told(tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "nowhere")
    assert "there is no such folder" in refusal(paint(tmp_path / "file.png"))


def test_a_fault_in_train_csv_is_told_in_one_line(folder):
    for train, line in (
        ("", "not a readable CSV: No columns to parse from file"),
        ("filename,ground_truth\n", "has no rows below its header"),
        (
            "file,ground_truth\na.png,Ana\n",
            "column 'filename' is missing (expected filename,ground_truth; found file,ground_truth)",
        ),
        (
            "filename;ground_truth\na.png;Ana\n",
            "column 'filename' is missing (expected filename,ground_truth; found filename;ground_truth)",
        ),
        ("filename,ground_truth\na.png,Ana\nb.png,\nc.png, \n", "ground_truth: empty for b.png, c.png"),
        ("filename,ground_truth\na.png,Ana\nb.png\n", "ground_truth: empty for b.png"),
        ("filename,ground_truth\na.png,A\nb.png,B\na.png,B\nb.png,B\n", "filename: more than one row for a.png, b.png"),
        (
            "filename,ground_truth\na.png,Ana\nb.png,Ana\n",
            "ground_truth: only one identity, 'Ana'; at least two are needed",
        ),
    ):
        root = folder(train)
        assert refusal(root) == f"{root / 'train.csv'}: {line}"


def test_a_fault_in_test_csv_is_told_in_one_line(folder):
    for test, line in (
        ("row_id,query_image,gallery_image\n", "has no rows below its header"),
        (
            "id,query_image,gallery_image\n0,t1.png,t2.png\n",
            "column 'row_id' is missing (expected row_id,query_image,gallery_image; "
            "found id,query_image,gallery_image)",
        ),
        ("row_id,query_image,gallery_image\n3,t1.png,t2.png\n3,t2.png,t1.png\n", "row_id: more than one row for 3"),
        (
            "row_id,query_image,gallery_image\n3,t1.png,\n",
            "query_image, gallery_image: '' is not an image inside the data folder",
        ),
        (
            "row_id,query_image,gallery_image\n3,t1.png,t2.png\n4,t2.png\n",
            "query_image, gallery_image: '' is not an image inside the data folder",
        ),
    ):
        root = folder(test=test)
        assert refusal(root) == f"{root / 'test.csv'}: {line}"


def test_missing_images_are_counted_and_the_first_listed(folder):
    rows = "".join(f"missing{i}.png,Ana\n" for i in range(120))
    root = folder(TRAIN + rows)
    assert refusal(root) == (
        f"{root / 'train.csv'}: 120 images are not in {root / 'train'}: "
        + ", ".join(f"missing{i}.png" for i in range(12))
        + " and 108 more"
    )


def test_all_missing_test_images_are_listed(folder):
    test = "row_id,query_image,gallery_image\n0,t1.png,x.png\n1,y.png,t1.png\n2,x.png,y.png\n"
    root = folder(test=test)
    assert refusal(root) == f"{root / 'test.csv'}: 2 images are not in {root / 'test'}: x.png, y.png"


def test_a_folder_is_no_image(folder):
    root = folder("filename,ground_truth\na.png,Ana\nalbum,Bela\n")
    (root / "train" / "train" / "album").mkdir()
    assert "1 images are not in" in refusal(root)


OUTSIDE = [
    "../a.png",
    "x/../../a.png",
    "/etc/passwd",
    "..\\a.png",
    "x\\..\\..\\a.png",
    "\\\\host\\share\\a.png",
    "C:\\a.png",
    "C:a.png",
    "..",
    " ",
]


def test_names_that_lead_out_of_the_folder_are_refused(folder):
    for name in OUTSIDE:
        root = folder(f'filename,ground_truth\na.png,Ana\n"{name}",Bela\n')
        paint(root / "a.png")
        assert refusal(root) == f"{root / 'train.csv'}: filename: {name!r} is not an image inside the data folder"


def test_pairs_that_lead_out_of_the_folder_are_refused(folder):
    for name in OUTSIDE:
        root = folder(test=f'row_id,query_image,gallery_image\n0,t1.png,"{name}"\n')
        assert f"{name!r} is not an image inside the data folder" in refusal(root)


def test_a_table_that_is_no_csv_is_refused_in_one_line(folder):
    root, lines = folder(), TRAIN.encode()
    for content in (TRAIN.encode("utf-16"), lines[:22] + b"\xff\xfe.png,Ana\n", lines + b'"open,Ana\n', b"\0\0"):
        (root / "train.csv").write_bytes(content)
        assert refusal(root).startswith(f"{root / 'train.csv'}: "), content


# reading an image


def colour_at(image: Image.Image, x: int = 0, y: int = 0) -> object:
    return image.getpixel((x, y))


def test_gray_becomes_rgb(tmp_path):
    rgb, alpha = read_image(paint(tmp_path / "x.png", 77, mode="L"))
    assert (rgb.mode, rgb.size, alpha) == ("RGB", (8, 6), None)
    assert colour_at(rgb) == (77, 77, 77)


def test_one_bit_becomes_black_and_white(tmp_path):
    rgb, alpha = read_image(paint(tmp_path / "x.png", 1, mode="1"))
    assert (colour_at(rgb), alpha) == ((255, 255, 255), None)


@pytest.fixture
def palette() -> Image.Image:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((0, 0), 0)
    return image


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_becomes_its_colours(tmp_path, palette, suffix):
    palette.save(tmp_path / f"x.{suffix}")
    rgb, alpha = read_image(tmp_path / f"x.{suffix}")
    assert alpha is None
    assert (colour_at(rgb), colour_at(rgb, 1)) == ((9, 8, 7), (200, 100, 50))


@pytest.mark.parametrize(("transparency", "mask"), [(0, (0, 255)), (bytes([10, 200]), (10, 200))])
def test_palette_with_transparency_keeps_colours_and_gives_a_mask(tmp_path, palette, transparency, mask):
    palette.save(tmp_path / "x.png", transparency=transparency)
    rgb, alpha = read_image(tmp_path / "x.png")
    assert (colour_at(rgb), colour_at(rgb, 1)) == ((9, 8, 7), (200, 100, 50))
    assert (alpha.mode, colour_at(alpha), colour_at(alpha, 1)) == ("L", *mask)


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("RGB", (1, 2, 3))])
def test_a_transparent_colour_gives_a_mask(tmp_path, mode, colour):
    image = Image.new(mode, (8, 6), colour)
    image.putpixel((1, 0), 5 if mode == "L" else (5, 5, 5))
    image.save(tmp_path / "x.png", transparency=colour)
    rgb, alpha = read_image(tmp_path / "x.png")
    assert colour_at(rgb) == (colour if mode == "RGB" else (77, 77, 77))
    assert (colour_at(alpha), colour_at(alpha, 1)) == (0, 255)


def test_gray_with_alpha_keeps_gray_under_alpha_0(tmp_path):
    rgb, alpha = read_image(paint(tmp_path / "x.png", (77, 0), mode="LA"))
    assert (colour_at(rgb), colour_at(alpha)) == ((77, 77, 77), 0)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_rgb_keeps_what_lies_under_alpha_0(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.new("RGBA", (8, 6), (200, 100, 50, 0)).save(path, **options)
    rgb, alpha = read_image(path)
    assert (rgb.mode, colour_at(rgb), colour_at(alpha)) == ("RGB", (200, 100, 50), 0)


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_becomes_rgb(tmp_path, suffix):
    rgb, alpha = read_image(paint(tmp_path / f"x.{suffix}", (0, 255, 255, 0), mode="CMYK"))
    assert alpha is None
    assert np.abs(np.subtract(colour_at(rgb), (255, 0, 0))).max() <= 3


def test_lab_colours_are_no_mask(tmp_path):
    image = Image.new("LAB", (8, 6), (128, 128, 128))
    image.save(tmp_path / "x.tiff")
    _, alpha = read_image(tmp_path / "x.tiff")
    assert alpha is None
    assert not jk.has_alpha(tmp_path / "x.tiff")


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_become_8(tmp_path, suffix):
    values = np.array([[0, 257, 100 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    rgb, alpha = read_image(tmp_path / f"x.{suffix}")
    assert alpha is None
    assert np.asarray(rgb)[0].tolist() == [[v, v, v] for v in (0, 1, 100, 255)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_images_are_upright_by_their_exif_tag(tmp_path, mode):
    image = Image.new(mode, (8, 6), 0 if mode in "LP" else (0,) * len(mode))
    image.putpixel((0, 0), {"RGB": (255, 0, 0), "RGBA": (255, 0, 0, 255), "L": 255, "P": 1}[mode])
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "x.png", exif=exif)
    rgb, alpha = read_image(tmp_path / "x.png")
    assert rgb.size == (6, 8)
    assert np.argwhere(np.asarray(rgb)[..., 0] == 255).tolist() == [[0, 5]]
    assert (alpha is None) == (mode != "RGBA")
    if alpha is not None:
        assert np.argwhere(np.asarray(alpha) == 255).tolist() == [[0, 5]]


def test_a_mask_is_gray_or_alpha(tmp_path):
    path, white = paint(tmp_path / "x.png", (1, 2, 3, 77), mode="RGBA"), (255, 255, 255)
    masks = [("L", 200, 200), ("1", 1, 255), ("RGB", white, 255), ("RGBA", (99, 99, 99, 40), 99), ("LA", (99, 40), 99)]
    for mode, colour, mask in masks:
        rgb, alpha = read_image(path, paint(tmp_path / "m.png", colour, mode=mode))
        assert (colour_at(rgb), alpha.mode, colour_at(alpha)) == ((1, 2, 3), "L", mask), mode


def test_masks_of_every_kind_mean_the_same(tmp_path):
    shape = np.zeros((8, 8), np.uint8)
    shape[:4] = 1
    palette = Image.fromarray(shape, "L").convert("P")
    palette.putdata(shape.ravel().tolist())
    palette.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)  # VOC's
    kinds = {"gray": Image.fromarray(255 * shape), "labels": Image.fromarray(shape), "two": Image.fromarray(2 * shape)}
    kinds |= {"opaque": kinds["gray"].convert("RGBA"), "la": kinds["gray"].convert("LA"), "palette": palette}
    kinds["alpha"] = Image.merge("LA", [Image.new("L", (8, 8), 7), kinds["gray"]])
    for name, image in kinds.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(jk.read_mask(tmp_path / f"{name}.png")), 255 * shape), name


def test_a_mask_of_another_size_is_refused(tmp_path):
    image, mask = paint(tmp_path / "x.png"), paint(tmp_path / "m.png", 0, (6, 8), "L")
    with pytest.raises(OSError, match=r"its mask is 6 x 8 px, the image 8 x 6$"):
        read_image(image, mask)


# making it square


def stripes(width: int, height: int) -> Image.Image:
    """Red left third, green middle, blue right."""
    image = np.zeros((height, width, 3), np.uint8)
    for c, columns in enumerate(np.array_split(np.arange(width), 3)):
        image[:, columns, c] = 255
    return Image.fromarray(image)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_every_fit_gives_the_square_asked_for(fit):
    sizes = [(90, 30), (30, 90), (32, 32), (7, 5), (400, 1), (1, 1)]
    for size, (mode, colour) in itertools.product(sizes, {"RGB": (50, 60, 70), "L": 50}.items()):
        square = jk.fit_square(Image.new(mode, size, colour), 32, fit)
        assert (square.size, square.mode) == ((32, 32), mode), size
        assert np.asarray(square).reshape(32 * 32, -1).max(0).tolist() == np.ravel(colour).tolist(), (size, mode)


def test_squash_keeps_everything():
    square = np.asarray(jk.fit_square(stripes(90, 30), 30, "squash"))
    assert square[15, 3].tolist() == [255, 0, 0]
    assert square[15, 15].tolist() == [0, 255, 0]
    assert square[15, 27].tolist() == [0, 0, 255]


def test_pad_keeps_proportions_between_zeros():
    square = np.asarray(jk.fit_square(stripes(90, 30), 30, "pad"))
    assert not square[:9].any()
    assert not square[21:].any()
    assert square[11:19].any(2).all()
    assert square[15, [3, 15, 27]].argmax(1).tolist() == [0, 1, 2]


def test_crop_keeps_the_middle():
    square = np.asarray(jk.fit_square(stripes(90, 30), 30, "crop"))
    assert (square[:, 3:27].argmax(2) == 1).all()
    upright = np.asarray(jk.fit_square(stripes(90, 30).transpose(Image.Transpose.ROTATE_90), 30, "crop"))
    assert (upright[3:27].argmax(2) == 1).all()


# the store


def test_store_holds_the_images_in_order(tmp_path):
    colours = [(i, 2 * i, 255 - i) for i in range(20)]
    paths = [paint(tmp_path / f"{i}.png", colour).name for i, colour in enumerate(colours)]
    store = open_store(tmp_path, paths[::-1], 16)
    assert (store.pixels.shape, store.pixels.dtype, len(store)) == ((20, 16, 16, 3), np.uint8, 20)
    assert not store.has_masks
    assert [tuple(store.pixels[i, 8, 8]) for i in range(20)] == colours[::-1]
    assert store.unreadable == ()


def test_store_reads_batches_as_tensors(tmp_path):
    paths = [paint(tmp_path / f"{i}.png", (i, 0, 9)).name for i in range(5)]
    store = open_store(tmp_path, paths, 16)
    for positions in ([4, 0, 4], np.array([4, 0, 4]), torch.tensor([4, 0, 4])):
        batch = store.read(positions)
        assert (batch.shape, batch.dtype) == ((3, 3, 16, 16), torch.uint8)
        assert batch[:, 0, 3, 3].tolist() == [4, 0, 4]
        assert batch[:, 2, 3, 3].tolist() == [9, 9, 9]


def test_reading_does_not_hand_out_the_store_itself(tmp_path):
    paths = [paint(tmp_path / "x.png", (5, 5, 5)).name]
    store = open_store(tmp_path, paths, 16)
    store.read([0]).zero_()
    assert (store.pixels == 5).all()


def test_a_thumbnail_is_rgb(tmp_path):
    paths = [paint(tmp_path / "x.png", (200, 100, 50, 0), mode="RGBA").name]
    thumbnail = open_store(tmp_path, paths, 16).thumbnail(0)
    assert (thumbnail.mode, thumbnail.size, colour_at(thumbnail)) == ("RGB", (16, 16), (200, 100, 50))


def test_rgb_stays_under_alpha_0_when_resized(tmp_path):
    image = np.full((64, 64, 4), (200, 100, 50, 0), np.uint8)
    image[:, 32:, 3] = 255
    Image.fromarray(image).save(tmp_path / "x.png")
    pixels = open_store(tmp_path, ["x.png"], 16).pixels[0]
    assert np.abs(pixels[..., :3].astype(int) - (200, 100, 50)).max() <= 1
    assert (pixels[:, :7, 3] == 0).all()
    assert (pixels[:, 9:, 3] == 255).all()


def test_images_without_alpha_are_opaque_beside_those_with(tmp_path):
    paths = [paint(tmp_path / "a.png").name, paint(tmp_path / "b.png", (1, 2, 3, 9), mode="RGBA").name]
    store = open_store(tmp_path, paths, 16)
    assert store.has_masks
    assert store.read([0, 1])[:, 3, 8, 8].tolist() == [255, 9]


def test_padding_lies_outside_the_mask(tmp_path):
    paths = [paint(tmp_path / "x.png", (9, 9, 9, 255), (40, 20), "RGBA").name]
    alpha = open_store(tmp_path, paths, 16, "pad").pixels[0, ..., 3]
    assert alpha[:, 8].tolist() == [0] * 4 + [255] * 8 + [0] * 4


def test_the_cache_is_used_again(tmp_path, monkeypatch):
    paths = [paint(tmp_path / f"{i}.png", (i, i, i)).name for i in range(3)]
    first = open_store(tmp_path, paths, 16, cache=tmp_path / "cache")

    def never(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(jk, "decode", never)
    again = open_store(tmp_path, paths, 16, cache=tmp_path / "cache")
    assert again.key == first.key
    assert (again.pixels == first.pixels).all()


def test_the_cache_is_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))
    store = open_store(tmp_path, [paint(tmp_path / "x.png").name], 16)
    assert sorted(os.listdir(tmp_path / "cache" / "pictures")) == [f"{store.key}.json", f"{store.key}.npy"]


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_image_is_noticed(tmp_path, same_size):
    path = tmp_path / "x.bmp"  # as many bytes whatever its colours
    first = open_store(tmp_path, [paint(path, (1, 1, 1)).name], 16)
    before = path.stat()
    paint(path, (2, 2, 2), size=(8, 6) if same_size else (8, 7))
    assert (path.stat().st_size == before.st_size) == same_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (1 if same_size else 0)))
    second = open_store(tmp_path, ["x.bmp"], 16)
    assert second.key != first.key
    assert (second.pixels == 2).all()


def test_the_key_changes_with_size_fit_names_and_masks(tmp_path):
    paths = [paint(tmp_path / f"{i}.png").name for i in range(2)]
    paint(tmp_path / "masks" / "0.png", 255, mode="L")
    paint(tmp_path / "masks" / "1.png", 255, mode="L")
    keys = [
        open_store(tmp_path, paths, 16).key,
        open_store(tmp_path, paths, 17).key,
        open_store(tmp_path, paths, 16, "pad").key,
        open_store(tmp_path, paths[::-1], 16).key,
        open_store(tmp_path, paths[:1], 16).key,
        open_store(tmp_path, paths, 16, masks="masks").key,
    ]
    assert len(set(keys)) == len(keys)


@pytest.fixture
def with_broken(tmp_path) -> tuple[Path, list[str]]:
    """Five images, of which the first, the third and the last can't be read."""
    root = tmp_path / "images"
    paths = [paint(root / f"{i}.jpg", (90, 90, 90), (64, 64)).name for i in range(5)]
    (root / "0.jpg").write_bytes(b"")
    (root / "2.jpg").write_bytes(b"this is no image")
    (root / "4.jpg").write_bytes((root / "3.jpg").read_bytes()[:-60])
    return root, paths


def test_unreadable_images_stop_with_all_their_names(with_broken, tmp_path):
    root, paths = with_broken
    for _ in range(2):  # what failed once leaves nothing behind that could pass for success
        with pytest.raises(KitError) as error:
            open_store(root, paths, 16, cache=tmp_path / "cache")
        line = str(error.value)
        assert "\n" not in line
        assert line.startswith("3 images can't be read: ")
        assert "data.bad_images: skip" in line
        assert [name in line for name in paths] == [True, False, True, False, True]
        assert list((tmp_path / "cache").rglob("*.npy")) == []


def test_unreadable_images_can_be_skipped(with_broken):
    root, paths = with_broken
    for _ in range(2):
        store = open_store(root, paths, 16, bad_images="skip")
        assert store.unreadable == (0, 2, 4)
        assert not store.pixels[[0, 2, 4]].any()
        assert store.pixels[[1, 3]].all()


def test_what_was_skipped_once_still_stops(with_broken):
    root, paths = with_broken
    open_store(root, paths, 16, bad_images="skip")
    with pytest.raises(KitError, match="3 images can't be read") as error:
        open_store(root, paths, 16)
    assert [name in str(error.value) for name in paths] == [True, False, True, False, True]


def test_a_mended_image_is_read(with_broken):
    root, paths = with_broken
    open_store(root, paths, 16, bad_images="skip")
    for name in ("0.jpg", "2.jpg", "4.jpg"):
        paint(root / name, (90, 90, 90))
    assert open_store(root, paths, 16).unreadable == ()


def test_images_that_are_gone_are_listed(tmp_path):
    paint(tmp_path / "a.png")
    with pytest.raises(KitError) as error:
        open_store(tmp_path, ["x.png", "a.png", "y.png"], 16)
    assert "x.png" in str(error.value)
    assert "y.png" in str(error.value)


# masks in a folder of their own


@pytest.mark.parametrize("place", ["masks", "masks/train/train"])
@pytest.mark.parametrize("inside", [True, False])
def test_masks_have_the_names_of_their_images(tmp_path, place, inside):
    root = tmp_path / "data"
    paths = [f"train/train/{i}.jpg" for i in range(3)]
    for i, path in enumerate(paths):
        paint(root / path, (100, 100, 100))
        paint((root if inside else tmp_path) / place / f"{i}.png", 100 + i, mode="L")
    store = open_store(root, paths, 16, masks="masks" if inside else str(tmp_path / "masks"))
    assert store.pixels[:, 8, 8, 3].tolist() == [100, 101, 102]
    assert (store.pixels[..., :3] == 100).all()


def test_masks_in_matching_folders_win_over_equal_names(tmp_path):
    paths = ["train/1.png", "test/1.png"]
    for i, path in enumerate(paths):
        paint(tmp_path / path)
        paint(tmp_path / "masks" / path, 50 + i, mode="L")
    assert open_store(tmp_path, paths, 16, masks="masks").pixels[:, 8, 8, 3].tolist() == [50, 51]


def test_notes_beside_the_masks_are_no_masks(tmp_path):
    paint(tmp_path / "a.jpg")
    paint(tmp_path / "masks" / "a.png", 77, mode="L")
    (tmp_path / "masks" / "a.txt").write_text("drawn by hand")
    assert open_store(tmp_path, ["a.jpg"], 16, masks="masks").pixels[0, 8, 8, 3] == 77


def test_all_missing_masks_are_listed(tmp_path):
    paths = [paint(tmp_path / f"p{i}.jpg").name for i in range(4)]
    paint(tmp_path / "masks" / "p2.png", 255, mode="L")
    with pytest.raises(KitError) as error:
        open_store(tmp_path, paths, 16, masks="masks")
    assert str(error.value) == f"data.masks: {tmp_path / 'masks'}: has no mask for 3 images: p0.jpg, p1.jpg, p3.jpg"


def test_a_missing_folder_of_masks_is_told(tmp_path):
    with pytest.raises(KitError, match=r"^data\.masks: .*nowhere: there is no such folder$"):
        open_store(tmp_path, [paint(tmp_path / "x.png").name], 16, masks="nowhere")


def test_a_mask_that_does_not_fit_is_told_with_its_image(tmp_path):
    paint(tmp_path / "x.jpg")
    paint(tmp_path / "masks" / "x.png", 255, (9, 9), "L")
    with pytest.raises(KitError, match=r"x\.jpg \(its mask is 9 x 9 px, the image 8 x 6\)"):
        open_store(tmp_path, ["x.jpg"], 16, masks="masks")


def test_a_changed_mask_is_noticed(tmp_path):
    paint(tmp_path / "x.jpg")
    mask = paint(tmp_path / "masks" / "x.png", 255, mode="L")
    first = open_store(tmp_path, ["x.jpg"], 16, masks="masks")
    paint(mask, 90, mode="L")
    os.utime(mask, ns=(0, 0))
    second = open_store(tmp_path, ["x.jpg"], 16, masks="masks")
    assert (first.pixels[..., 3].max(), second.pixels[..., 3].max()) == (255, 90)


# splits


def table(identities: Sequence[str], **columns: Sequence) -> pd.DataFrame:
    names = [f"train_{i:04d}.png" for i in range(len(identities))]
    return pd.DataFrame({"filename": names, "identity": list(identities), **columns})


def split(
    name: str, train: pd.DataFrame, split_seed: int = 42, hashes: Callable | None = None, **given: object
) -> list:
    return jk.build("split", name, train=train, hashes=hashes, split_seed=split_seed, **given)


COUNTS = st.lists(st.integers(1, 9), min_size=2, max_size=8)


def tables(counts: Sequence[int], seed: int) -> pd.DataFrame:
    """Identities with these numbers of images in random order, under an index that is no row number."""
    identities = np.repeat([f"cat{i}" for i in range(len(counts))], counts)
    train = table(np.random.default_rng(seed).permutation(identities))
    return train.set_index(np.arange(len(train))[::-1] * 3)


def test_stratified_is_what_scikit_learn_makes_of_the_rows_of_the_csv(mini):
    csv, train = pd.read_csv(mini / "train.csv"), load_competition(mini).train
    for share, seed in itertools.product((0.2, 0.31), (0, 42)):
        expected = train_test_split(csv.filename, test_size=share, stratify=csv.ground_truth, random_state=seed)
        (parts,) = split("stratified", train, seed, validation=share)
        for rows, filenames in zip(parts, expected):
            assert list(rows) == sorted(rows)
            assert set(train.filename.iloc[rows]) == set(filenames), (share, seed)


def test_stratified_keeps_singles_in_training_and_splits_the_others_as_if_they_were_alone():
    identities = ["solo", *["a", "b"] * 10, "one"]
    ((train, validation),) = split("stratified", table(identities))
    _, expected = train_test_split(np.arange(20), test_size=0.2, stratify=identities[1:-1], random_state=42)
    assert {0, 21} <= set(train)
    assert list(validation) == sorted(expected + 1)


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.integers(0, 99), st.sampled_from([0.2, 0.5]))
def test_stratified_partitions_or_tells_a_share_that_works(counts, seed, share):
    assume(max(counts) > 1)
    train = tables(counts, seed)
    try:
        ((left, right),) = split("stratified", train, validation=share)
    except KitError as error:
        share = float(str(error).partition("; try ")[2].partition(" or ")[0])
        ((left, right),) = split("stratified", train, validation=share)
    assert sorted([*left, *right]) == list(range(len(train)))
    several = train.identity.map(train.identity.value_counts()).to_numpy() > 1
    assert several[right].all()
    assert len(right) == np.ceil(share * several.sum())


@pytest.mark.parametrize("name", ["stratified", "kfold"])
def test_single_images_alone_can_not_be_split(name):
    with pytest.raises(KitError, match=r"^data\.split"):
        split(name, table("abcdefg"))


def test_burst_safe_leaves_single_images_in_training():
    ((left, right),) = split("burst_safe", table("abcdefg", burst=list("1234567")), column="burst")
    assert (list(left), list(right)) == ([0, 1, 2, 3, 4, 5, 6], [])


def test_stratified_refuses_a_share_that_can_not_be():
    for share in (0, 0.95, -1, "most"):
        with pytest.raises(KitError, match=f"split stratified: validation: '?{share}"):
            split("stratified", table("aabb"), validation=share)


@settings(max_examples=30, deadline=None)
@given(COUNTS, st.integers(0, 99), st.integers(2, 4))
def test_kfold_validates_every_image_once(counts, seed, folds):
    assume(max(counts) >= folds)
    train = tables(counts, seed)
    splits = split("kfold", train, folds=folds)
    assert len(splits) == folds
    for left, right in splits:
        assert sorted([*left, *right]) == list(range(len(train)))
    several = np.flatnonzero(train.identity.map(train.identity.value_counts()).to_numpy() > 1)
    assert sorted(np.concatenate([right for _, right in splits])) == list(several)


def test_kfold_spreads_identities_and_depends_on_the_seed():
    train = table(["a", "b"] * 10)
    splits = split("kfold", train)
    assert len(splits) == 5
    assert all(list(train.identity.iloc[right].value_counts()) == [2, 2] for _, right in splits)
    again, other = split("kfold", train), split("kfold", train, split_seed=1)
    assert all((a[1] == b[1]).all() for a, b in zip(splits, again))
    assert not all((a[1] == b[1]).all() for a, b in zip(splits, other))


def test_kfold_needs_an_identity_with_as_many_images():
    with pytest.raises(KitError, match=r"data\.split\.folds: 5 is more than the 4 images"):
        split("kfold", table("aaaabb"))
    assert len(split("kfold", table("aaaabb"), folds=4)) == 4


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(0, 99), st.floats(0, 1))
def test_burst_safe_never_splits_a_burst(counts, seed, share):
    train = tables(counts, seed)
    rng = np.random.default_rng(seed)
    train["burst"] = [f"{identity}-{rng.integers(4)}" for identity in train.identity]
    ((left, right),) = split("burst_safe", train, seed, validation=share, column="burst")
    assert sorted([*left, *right]) == list(range(len(train)))
    assert not set(train.burst.iloc[left]) & set(train.burst.iloc[right])
    assert set(train.identity.iloc[left]) == set(train.identity)
    held_out = train.identity.iloc[right].value_counts()
    assert all(held <= share * (train.identity == identity).sum() + 0.5 for identity, held in held_out.items())


def test_burst_safe_works_by_hashes_on_the_mini_dataset(mini):
    competition = load_competition(mini)
    store = open_store(mini, competition.paths, 64)
    pixels = store.pixels[: len(competition.train)]
    for split_seed in range(5):
        ((left, right),) = split("burst_safe", competition.train, split_seed, lambda: jk.perceptual_hashes(pixels))
        assert 0 < len(right) < len(left)
        assert not set(competition.train.burst.iloc[left]) & set(competition.train.burst.iloc[right])


def test_burst_safe_does_not_hash_when_a_column_tells():
    train = table("aaaabbbb", burst=list("11223344"))
    ((left, right),) = split("burst_safe", train, hashes=None, validation=0.5, column="burst")
    assert len(left) == len(right) == 4


class Counted(np.ndarray):
    """Numbers that count, all together, how many of them are looked at, wherever they are compared or sorted."""

    looked_at = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        Counted.looked_at += self.size
        return getattr(ufunc, method)(*map(np.asarray, inputs), **named)

    def __array_function__(self, function, types, arguments, named):
        Counted.looked_at += self.size
        return function(*[np.asarray(one) if isinstance(one, Counted) else one for one in arguments], **named)


def test_the_work_of_keeping_groups_apart_grows_as_the_images_do():
    """Four times as many images, in groups of two, are looked at about as often each."""
    looked_at = {}
    for count in (200, 800):
        train, Counted.looked_at = pd.DataFrame({"identity": [f"cat{row // 10}" for row in range(count)]}), 0
        ((left, right),) = jk.apart(train, (np.arange(count) // 2).view(Counted), 0, 0.2)
        assert len(right) == count // 5
        assert not set(left // 2) & set(right // 2)
        looked_at[count] = Counted.looked_at / count
    assert 1 <= looked_at[800] <= 1.5 * looked_at[200], looked_at


def test_burst_safe_suggests_the_nearest_column():
    with pytest.raises(KitError, match=r"data\.split\.column: 'brst' .*; did you mean 'burst'\?"):
        split("burst_safe", table("aabb", burst=list("1234")), column="brst")


@pytest.mark.parametrize("name", ["stratified", "kfold", "burst_safe"])
def test_a_split_is_the_same_every_time_and_another_for_another_seed(mini, name):
    train = load_competition(mini).train
    given = {"column": "burst"} if name == "burst_safe" else {}
    held_out = [split(name, train, seed, **given)[0][1].tolist() for seed in (1, 1, 2)]
    assert held_out[0] == held_out[1] != held_out[2]


# bursts


NEAR, FAR = np.zeros(64, bool), np.ones(64, bool)


def bursts_of(names: Sequence[str], identities: str, hashes: Sequence[np.ndarray], **given: int) -> list[set[int]]:
    train = pd.DataFrame({"filename": list(names), "identity": list(identities)})
    bursts = jk.find_bursts(train, np.array(hashes), **given)
    assert bursts.shape == (len(train),)
    return sorted((set(np.flatnonzero(bursts == b)) for b in np.unique(bursts)), key=min)


def test_a_burst_is_neighbouring_numbers_that_look_alike():
    names = [f"x{i}.png" for i in (1, 2, 3, 5, 6)]
    assert bursts_of(names, "aaaaa", [NEAR, NEAR, FAR, FAR, FAR]) == [{0, 1}, {2}, {3, 4}]


def test_a_burst_belongs_to_one_identity():
    assert bursts_of(["1.png", "2.png", "3.png"], "aba", [NEAR] * 3) == [{0}, {1}, {2}]


def test_bursts_do_not_depend_on_the_order_of_rows():
    names = ["img_10.jpg", "img_9.jpg", "img_11.jpg", "img_100.jpg"]
    assert bursts_of(names, "aaaa", [NEAR] * 4) == [{0, 1, 2}, {3}]


@pytest.mark.parametrize(("differing", "found"), [(11, [{0, 1}]), (12, [{0}, {1}])])
def test_the_distance_is_the_most_that_may_differ(differing, found):
    other = NEAR.copy()
    other[:differing] = True
    assert bursts_of(["1.png", "2.png"], "aa", [NEAR, other]) == found
    assert bursts_of(["1.png", "2.png"], "aa", [NEAR, other], distance=12) == [{0, 1}]


def test_names_without_a_number_are_in_no_burst():
    assert bursts_of(["one.png", "two.png", "three.png"], "aaa", [NEAR] * 3) == [{0}, {1}, {2}]


def test_the_number_is_that_of_the_name_and_not_of_its_suffix():
    for suffix in (".jp2", ".png", "_x.JPG", ""):
        names = [f"cat7/IMG_{i:04d}{suffix}" for i in (8, 9, 12)]
        assert bursts_of(names, "aaa", [NEAR] * 3) == [{0, 1}, {2}], suffix


def test_very_long_numbers_are_no_fault():
    names = [f"20240131{10**20 + i}.png" for i in range(2)]
    assert bursts_of(names, "aa", [NEAR, NEAR]) == [{0, 1}]


def test_bursts_of_the_mini_dataset_are_found(mini):
    train = load_competition(mini).train
    pixels = open_store(mini, list(train.path), 64).pixels
    found = jk.find_bursts(train, jk.perceptual_hashes(pixels))
    told = train.burst.to_numpy()
    pairs = np.triu_indices(len(train), 1)
    same, truly = ((b[:, None] == b[None])[pairs] for b in (found, told))
    assert truly.sum() >= 10
    assert (same & truly).sum() / same.sum() >= 0.9
    assert (same & truly).sum() / truly.sum() >= 0.9


def test_hashes_overlook_light_but_not_content(mini):
    train = load_competition(mini).train
    pixels = np.array(open_store(mini, list(train.path[:12]), 64).pixels)
    hashes = jk.perceptual_hashes(pixels)
    assert (hashes.shape, hashes.dtype) == ((12, 64), bool)
    darker = jk.perceptual_hashes((pixels * 0.7).astype(np.uint8))
    assert (hashes != darker).sum(1).max() <= 4
    assert (jk.perceptual_hashes(pixels[..., :3]) == hashes).all()
    assert np.median((hashes[:, None] != hashes[None]).sum(2)[~np.eye(12, dtype=bool)]) > 11


# the mini-dataset


SMALL = {"identities": 2, "images": 16, "seed": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return make_mini_dataset(tmp_path_factory.mktemp("small") / "round1", **SMALL)


@pytest.fixture(scope="module")
def small_round2(tmp_path_factory) -> Path:
    return make_mini_dataset(tmp_path_factory.mktemp("small") / "round2", **SMALL, round=2)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def rgba(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def test_the_same_arguments_draw_the_same_files(small, tmp_path, drawn_anew):
    assert contents(make_mini_dataset(str(tmp_path / "new" / "again"), **SMALL)) == contents(small)


def test_another_seed_draws_other_images(mini, small):
    first, second = (rgba(root / "train" / "train" / "train_0001.png") for root in (mini, small))
    assert first.shape != second.shape or (first != second).any()


def test_mini_has_the_files_of_the_competition(mini):
    csvs = {"train.csv", "test.csv", "sample_submission.csv", "solution.csv", "views.csv"}
    assert set(os.listdir(mini)) == {"train", "test", "mini.json", *csvs}
    train, test, views, solution, sample = (
        pd.read_csv(mini / f"{name}.csv") for name in ("train", "test", "views", "solution", "sample_submission")
    )
    assert list(train.columns) == ["filename", "ground_truth"]
    assert list(test.columns) == ["row_id", "query_image", "gallery_image"]
    assert list(sample.columns) == ["row_id", "similarity"]
    assert len(train) + len(solution) == len(views) == 72
    assert set(train.filename) == set(os.listdir(mini / "train" / "train"))
    assert set(solution.filename) == set(os.listdir(mini / "test" / "test"))
    assert all((mini / path).is_file() for path in views.path)
    assert list(sample.row_id) == list(test.row_id) == list(range(len(test)))
    assert list(zip(test.query_image, test.gallery_image)) == list(itertools.permutations(sorted(solution.filename), 2))


def test_views_agree_with_the_tables(mini):
    views = pd.read_csv(mini / "views.csv").set_index("filename")
    for name in ("train", "solution"):
        told = pd.read_csv(mini / f"{name}.csv").set_index("filename").ground_truth
        assert (views.identity[told.index] == told).all()


def test_test_identities_are_all_known_from_training(mini, small_round2):
    for root in (mini, small_round2):
        train, solution = pd.read_csv(root / "train.csv"), pd.read_csv(root / "solution.csv")
        assert set(train.ground_truth) == set(solution.ground_truth)


def test_a_burst_is_one_animal_on_one_flank_in_one_scene_and_one_part(mini):
    views = pd.read_csv(mini / "views.csv")
    for column in ("identity", "flank", "scene", "split"):
        assert (views.groupby("burst")[column].nunique() == 1).all()
    assert views.burst.value_counts().max() in (2, 3)
    assert (views.groupby("identity").flank.nunique() == 2).all()


def test_counts_have_a_long_tail(mini):
    counts = pd.read_csv(mini / "views.csv").identity.value_counts().sort_index().to_numpy()
    assert (np.diff(counts) <= 0).all()
    assert counts[0] >= 1.5 * counts[-1]
    assert counts[-1] >= 6


@given(st.integers(2, 60), st.integers(0, 3000))
def test_long_tail_gives_away_every_image(identities, more):
    counts = mini_dataset.long_tail(identities, 6 * identities + more)
    assert counts.sum() == 6 * identities + more
    assert counts.min() >= 6
    assert (np.diff(counts) <= 0).all()


@given(st.integers(6, 60), st.integers(0, 10_000))
def test_every_identity_has_a_pair_of_images_on_both_sides(count, seed):
    rows = pd.DataFrame(mini_dataset.plan_identity(np.random.default_rng(seed), count))
    assert len(rows) == count
    assert rows.split.value_counts().reindex(["train", "test"]).min() >= 2  # one alone has nothing to be found
    assert (rows.groupby("burst").split.nunique() == 1).all()


def test_alpha_is_the_animal_and_round_1_keeps_the_scene_around_it(small):
    for path in sorted((small / "train" / "train").iterdir()):
        pixels = rgba(path)
        share = (pixels[..., 3] > 127).mean()
        assert 0.02 < share < 0.9
        around = pixels[pixels[..., 3] == 0][:, :3]
        assert around.mean() > 10
        assert around.std() > 1


def test_round_2_blackens_what_lies_around_the_animal(small, small_round2):
    for path in sorted((small / "train" / "train").iterdir()):
        first, second = rgba(path), rgba(small_round2 / "train" / "train" / path.name)
        inside = first[..., 3] > 0
        assert (first[..., 3] == second[..., 3]).all()
        assert (first[inside] == second[inside]).all()
        assert not second[~inside].any()


def test_round_2_renumbers_the_test_images(small, small_round2):
    assert (small / "train.csv").read_bytes() == (small_round2 / "train.csv").read_bytes()
    names, alphas, answers = [], [], []
    for root in (small, small_round2):
        solution = pd.read_csv(root / "solution.csv")
        names.append(list(solution.filename))
        alphas.append([rgba(root / "test" / "test" / name)[..., 3].tobytes() for name in solution.filename])
        answers.append(dict(zip(alphas[-1], solution.ground_truth)))
    assert names[0] == names[1]
    assert alphas[0] != alphas[1]
    assert answers[0] == answers[1]  # the same images, and each is still the same animal


def test_the_same_dataset_is_left_as_it_is(small, monkeypatch):
    monkeypatch.setattr(mini_dataset, "draw_mini_dataset", None)
    before = contents(small)
    assert make_mini_dataset(small, **SMALL) == small
    assert contents(small) == before


def test_another_dataset_is_not_overwritten(small):
    for other in ({"seed": 2}, {"images": 18}, {"round": 2}, {"identities": 3, "images": 18}):
        with pytest.raises(KitError, match="holds something else already"):
            make_mini_dataset(small, **{**SMALL, **other})
    assert json.loads((small / "mini.json").read_text()) == {**SMALL, "round": 1, "layout": "jaguar"}


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(KitError, match="holds something else already"):
        make_mini_dataset(tmp_path, **SMALL)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "mini").write_text("dear")
    with pytest.raises(KitError, match="mini"):
        make_mini_dataset(tmp_path / "mini", **SMALL)
    assert (tmp_path / "mini").read_text() == "dear"


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(root, **made_with):
        (root / "train").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(mini_dataset, "draw_mini_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_mini_dataset(tmp_path / "mini", **SMALL)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_may_be_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(mini_dataset, "draw_mini_dataset", lambda root, **made_with: root.mkdir())
    (tmp_path / "mini").mkdir()
    make_mini_dataset(tmp_path / "mini", **SMALL)
    assert os.listdir(tmp_path / "mini") == ["mini.json"]


def test_arguments_that_can_not_be_are_refused_before_any_drawing(tmp_path):
    for arguments, line in (
        ({"identities": 1}, "mini-dataset.identities: 1 is out of range (expected at least 2 and at most 500)"),
        ({"identities": "3"}, "mini-dataset.identities: '3' is not a whole number (example: 32)"),
        ({"images": 11}, "mini-dataset.images: 11 is out of range (expected at least 12 and at most 50000)"),
        ({"identities": 3, "images": 17}, "mini-dataset.images: 17 is too few for 3 identities (expected at least 18)"),
        ({"seed": -1}, "mini-dataset.seed: -1 is out of range (expected at least 0)"),
        ({"round": 3}, "mini-dataset.round: 3 is not known; expected one of: 1, 2"),
    ):
        with pytest.raises(KitError) as error:
            make_mini_dataset(tmp_path / "mini", **{**SMALL, **arguments})
        assert str(error.value) == line
        assert os.listdir(tmp_path) == []


def test_folders_within_an_identity_belong_to_it_and_loose_images_are_told(tmp_path):
    for name in ("ana/2021/left/a.png", "ana/b.png", "bo/c.png", "loose.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    competition = load_competition(tmp_path)
    assert list(competition.train.identity) == ["ana", "ana", "bo"]
    assert any("loose.png" in note for note in competition.notes)


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("filename,ground_truth\na.png,x,left\nb.png,y,left\n")
    with pytest.raises(KitError, match=r"train\.csv: not a readable CSV"):
        load_competition(tmp_path)


def test_a_burst_of_two_identities_stays_on_one_side():
    train = pd.DataFrame({"identity": ["a", "b"] * 40, "sighting": np.repeat(np.arange(40), 2).astype(str)})
    split = jk.build("split", "burst_safe", train=train, hashes=None, split_seed=0, validation=0.25, column="sighting")
    (rows, held_out), sightings = split[0], train.sighting.to_numpy()
    assert not set(sightings[rows]) & set(sightings[held_out])
    assert 14 <= len(held_out) <= 22


def test_a_cut_cache_is_decoded_again(mini, tmp_path):
    paths = list(load_competition(mini).paths)[:3]
    whole = open_store(mini, paths, 16, cache=tmp_path).pixels.copy()
    stored = next((tmp_path / "pictures").glob("*.npy"))
    stored.write_bytes(stored.read_bytes()[:200])
    assert np.array_equal(open_store(mini, paths, 16, cache=tmp_path).pixels, whole)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fit": "Squash"}, r"^open_store: fit: 'Squash' is not known; did you mean 'squash'\?$"),
        ({"bad_images": "ignore"}, r"^open_store: bad_images: 'ignore' is not known"),
        ({"size": 0}, r"^open_store: size: 0 is out of range \(expected at least 1 and at most 16384\)$"),
    ],
)
def test_a_store_that_there_is_not_is_one_line(settings, words, tmp_path):
    paint(tmp_path / "x.png")
    with pytest.raises(KitError, match=words):
        open_store(tmp_path, ["x.png"], **{"size": 16, **settings})
