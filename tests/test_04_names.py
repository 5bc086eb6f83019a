"""Folders, names and labels as people and machines leave them: read, or left out aloud, and never mixed up."""

import os
import re
import sys
import unicodedata
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from cases import every
from jaguar_kit import KitError, find_bursts, load_competition, run_recipe
from jaguar_kit_tools.identify import confidence
from PIL import Image

NOTHING = np.zeros(64, bool)


def paint(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return path


def album(root: Path, *more: str, count: int = 3) -> Path:
    """A folder of two individuals, and further images."""
    for i, name in enumerate([f"{cat}/{i}.png" for cat in ("Ana", "Bela") for i in range(count)] + list(more)):
        paint(root / name, i)
    return root


def told(root: Path) -> str:
    return " | ".join(load_competition(root).notes)


# bursts


def table_of(*rows):
    """Images (path, identity)."""
    return pd.DataFrame([{"path": path, "filename": path, "identity": identity} for path, identity in rows])


def test_numbers_are_neighbours_within_one_card_only():
    """Two cards with the same numbers: images alternate by number, yet each burst lies on one card."""
    rows = [(f"Ana/card{card}/IMG_{i:04d}.jpg", "Ana") for i in range(1, 7) for card in (1, 2)]
    hashes = np.array([[card] * 64 for _ in range(1, 7) for card in (0, 1)], bool)  # cards show other scenes
    bursts = find_bursts(table_of(*rows), hashes)
    assert len(set(bursts)) == 2
    assert [bursts[i] == bursts[0] for i in range(12)] == [True, False] * 6


@every(
    ("first", "second", "one"),
    [
        ("a/IMG_0001.jpg", "a/IMG_0002.jpg", True),
        ("a/IMG_0009.jpg", "a/IMG_0010.jpg", True),
        ("a/IMG_9.jpg", "a/IMG_10.jpg", True),
        ("a/IMG_0001.jpg", "b/IMG_0002.jpg", False),
        ("a/IMG_0001.jpg", "a/DSC_0002.jpg", False),
        ("a/IMG_0001.jpg", "a/IMG_0002_crop.jpg", False),
        ("a/IMG_0001_crop.jpg", "a/IMG_0002_crop.jpg", True),
        ("a/IMG_0001.jpg", "a/IMG_0003.jpg", False),
        ("a/2/x.jpg", "a/3/x.jpg", False),
        ("a/20240101_120000123456.jpg", "a/20240101_120000123457.jpg", True),
    ],
)
def test_names_are_neighbours_that_differ_by_one_in_their_last_number(first, second, one):
    bursts = find_bursts(table_of((first, "Ana"), (second, "Ana")), np.array([NOTHING, NOTHING]))
    assert (bursts[0] == bursts[1]) == one


def test_a_burst_safe_split_parts_no_burst_of_several_cards():
    rng = np.random.default_rng(0)
    rows, hashes, truth = [], [], []
    for cat in ("Ana", "Bela"):
        for card in range(3):
            for burst in range(4):
                scene = rng.random(64) < 0.5
                for shot in range(3):
                    rows.append((f"{cat}/card{card}/IMG_{burst * 10 + shot:04d}.jpg", cat))
                    hashes.append(scene)
                    truth.append(f"{cat} {card} {burst}")
    order = rng.permutation(len(rows))
    train, truth = table_of(*[rows[i] for i in order]), np.array(truth)[order]
    hashes = np.array(hashes)[order]
    (split,) = jaguar_kit.build("split", "burst_safe", train=train, hashes=lambda: hashes, split_seed=1)
    assert len(split[1]) > 0
    assert not set(truth[split[0]]) & set(truth[split[1]])


# joins


def with_views(root: Path, text: str) -> pd.DataFrame:
    (root / "views.csv").write_text(text, encoding="utf-8")
    return load_competition(root).train


def two_cards(root: Path) -> Path:
    for i, name in enumerate(["Ana/c1/IMG_1.png", "Ana/c2/IMG_1.png", "Bela/c1/IMG_1.png", "Bela/c1/IMG_2.png"]):
        paint(root / name, i)
    return root


def test_views_are_joined_by_path_where_names_repeat(tmp_path):
    rows = "".join(
        f"{path},{i}\n" for i, path in enumerate(["Ana/c1/IMG_1.png", "Ana/c2/IMG_1.png", "Bela/c1/IMG_1.png"])
    )
    train = with_views(two_cards(tmp_path), f"path,burst\n{rows}")
    assert [None if pd.isna(b) else b for b in train.burst] == ["0", "1", "2", None]
    assert "views.csv: tells burst of 3 of 4 training images" in told(tmp_path)


def test_bare_names_join_only_what_has_no_namesake(tmp_path):
    train = with_views(two_cards(tmp_path), "filename,burst\nIMG_1.png,7\nIMG_2.png,8\n")
    assert [None if pd.isna(b) else b for b in train.burst] == [None, None, None, "8"]
    assert "tells burst of 1 of 4 training images" in told(tmp_path)


def test_views_that_match_nothing_are_told_with_an_example(tmp_path):
    with_views(two_cards(tmp_path), "path,burst\nelsewhere/x.png,7\n")
    assert "of 0 of 4 training images (it names elsewhere/x.png, the images are called Ana/c1/IMG_1.png)" in told(
        tmp_path
    )


def test_rows_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(KitError, match=r"views\.csv: more than one row for Ana/c1/IMG_1\.png, with different values"):
        with_views(two_cards(tmp_path), "path,burst\nAna/c1/IMG_1.png,1\nAna/c1/IMG_1.png,2\n")


def test_a_split_by_a_column_that_stayed_empty_stops(tmp_path):
    with_views(two_cards(tmp_path), "path,burst\nelsewhere/x.png,7\n")
    raw = {"name": "x", "data": {"size": 16, "split": {"name": "burst_safe", "column": "burst"}}}
    raw["model"] = {"backbone": "test_resnet", "pretrained": False}
    with pytest.raises(KitError, match=r"data\.split\.column: 'burst' is empty for all 4 training images"):
        run_recipe(jaguar_kit.recipe_from_dict(raw), data=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_partly_empty_column_is_counted(tmp_path):
    album(tmp_path / "data", count=6)
    with_views(tmp_path / "data", "path,burst\n" + "".join(f"Ana/{i}.png,{i // 2}\n" for i in range(6)))
    raw = {"name": "x", "data": {"size": 16, "split": {"name": "burst_safe", "column": "burst", "validation": 0.4}}}
    data = jaguar_kit.open_data(jaguar_kit.recipe_from_dict(raw), load_competition(tmp_path / "data"))
    assert "6 of 12 training images have no burst; each counts as one of its own" in data.competition.notes


def test_masks_are_not_shared_by_images_of_one_name(tmp_path):
    paths = ["a/x.png", "b/x.png"]
    for name in (*paths, "masks/x.png"):
        paint(tmp_path / name)
    with pytest.raises(KitError, match="has no mask for 2 images"):
        jaguar_kit.mask_paths(tmp_path, paths, "masks")


def test_held_out_images_are_known_by_their_paths(tmp_path):
    np.savez(
        tmp_path / "validation.npz",
        images=["Ana/c1/IMG_1.jpg", "Bela/c1/IMG_9.jpg"],
        paths=["Ana/c1/IMG_1.jpg", "Bela/c1/IMG_9.jpg"],
        labels=["Ana", "Bela"],
        trained=["Ana/c2/IMG_1.jpg", "Ana/c1/IMG_2.jpg"],
    )
    rows = [("Ana/c1/IMG_1.jpg", "Ana"), ("Ana/c2/IMG_1.jpg", "Ana"), ("IMG_1.jpg", "Ana"), ("c1/IMG_1.jpg", "Ana")]
    rows += [("copies/IMG_9.jpg", "Bela"), ("copies/IMG_9.jpg", "Ana"), ("Ana/c1/IMG_2.jpg", "Ana")]
    found = confidence.held_out_images(tmp_path, table_of(*rows))
    assert found.tolist() == [True, False, False, True, True, False, False]


# folders that are no individual


@every("marker", [".jaguar_kit", "experiment.json", "answers.csv"])
def test_results_inside_the_data_are_left_out(marker, tmp_path):
    root = album(tmp_path, "runs/tiny/figures/map.png", "runs/tiny/figures/curves.png")
    (root / "runs" / "tiny" / marker).write_text("x")
    assert load_competition(root).identities == ["Ana", "Bela"]
    assert "runs/tiny (results of this kit)" in told(root)


def test_a_run_into_its_own_data_leaves_the_data_as_they_were(tmp_path):
    root = album(tmp_path, count=5)
    raw = {
        "name": "tiny",
        "data": {"size": 16, "split": {"name": "stratified", "validation": 0.4}},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "head": "linear"},
        "train": {"epochs": 1, "batch_size": 4},
    }
    recipe = jaguar_kit.recipe_from_dict(raw)
    first = run_recipe(recipe, data=root, out=root / "runs")
    assert load_competition(root).identities == ["Ana", "Bela"]
    assert run_recipe(recipe, data=root, out=root / "runs").table.equals(first.table)


@every("names", [("train", "val"), ("Train", "TEST", "valid"), ("DCIM",), ("100CANON", "101CANON"), ("masks",)])
def test_names_of_splits_masks_and_cameras_alone_are_refused(names, tmp_path):
    for name in names:
        paint(tmp_path / name / "a.png")
    with pytest.raises(KitError, match=rf"{names[0]}.* are names of splits, masks or cameras, no individuals") as error:
        load_competition(tmp_path)
    assert "--data" in str(error.value)


@every("name", ["test", "masks", "DCIM", "100MEDIA", "gallery", "train_images", "val2017", "masks_sam"])
def test_names_of_splits_masks_and_cameras_beside_individuals_are_left_out(name, tmp_path):
    root = album(tmp_path, f"{name}/1.png", f"{name}/2.png")
    assert load_competition(root).identities == ["Ana", "Bela"]
    assert f"no individuals and are left out: {name} (2 images)" in told(root)


@every(
    "name",
    ["20231234", "123_4567", "Mask of Zorro", "testudo", "001_Ajax", "101TIGER", "123Luna_", "Misc", "Dev", "Thumbs"],
)
def test_names_that_only_resemble_them_are_individuals(name, tmp_path):
    assert name in load_competition(album(tmp_path, f"{name}/1.png")).identities


def test_masks_of_the_recipe_are_no_individual(tmp_path):
    root = album(tmp_path, "outlines/Ana/0.png")
    assert "outlines" in load_competition(root).identities
    assert load_competition(root, masks="outlines").identities == ["Ana", "Bela"]


LITTER = ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".thumbnails"]


@every("name", LITTER)
@every("place", ["", "Ana/"])
def test_what_a_system_leaves_is_no_image(name, place, tmp_path):
    root = album(tmp_path, f"{place}{name}/thumb.png")
    assert load_competition(root).paths == [f"{cat}/{i}.png" for cat in ("Ana", "Bela") for i in range(3)]
    assert f"{place}{name} (1 files)" in told(root)


# images passed over


def test_folders_and_cards_that_are_links_are_read(tmp_path):
    album(tmp_path / "data")
    paint(tmp_path / "disk" / "Cora" / "1.png")
    paint(tmp_path / "card" / "9.png")
    (tmp_path / "data" / "Cora").symlink_to(tmp_path / "disk" / "Cora")
    (tmp_path / "data" / "Ana" / "card").symlink_to(tmp_path / "card")
    found = load_competition(tmp_path / "data")
    assert found.identities == ["Ana", "Bela", "Cora"]
    assert "Ana/card/9.png" in found.paths
    assert "2 links to folders were followed: Ana/card, Cora" in told(tmp_path / "data")


def test_links_in_a_circle_and_to_nowhere_end_and_are_told(tmp_path):
    root = album(tmp_path)
    (root / "Ana" / "again").symlink_to(root)
    (root / "Bela" / "gone.png").symlink_to(root / "nowhere.png")
    assert len(load_competition(root).train) == 6
    assert re.search(r"2 links lead nowhere, or where a folder was read already: Ana/again, Bela/gone\.png", told(root))


def test_what_can_not_be_read_is_counted_by_its_ending(tmp_path):
    root = album(tmp_path)
    for name in ("Cora/1.cr2", "Cora/2.cr2", "Cora/clip.MOV", "Ana/notes", "list.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "Dora").mkdir()
    notes = told(root)
    assert "no images that can be read here: 2 .cr2, 1 .txt, 1 without ending, 1 .mov" in notes
    assert "2 folders have no image that can be read: Cora (2 .cr2, 1 .mov), Dora (empty)" in notes


@pytest.mark.skipif("HEIF" in jaguar_kit.image_formats(), reason="pillow-heif is installed")
def test_heic_is_counted_with_advice_where_it_can_not_be_read(tmp_path):
    root = album(tmp_path)
    (root / "Ana" / "x.HEIC").write_bytes(b"x")
    assert "1 .heic; pip install pillow-heif reads .heic" in told(root)


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    root = album(tmp_path)

    def forbidden(top, onerror=None, followlinks=False):
        onerror(PermissionError(13, "Permission denied", str(root / "Ana")))
        return iter(())

    monkeypatch.setattr(os, "walk", forbidden)
    with pytest.raises(KitError, match=r"Ana: can't be read: Permission denied; make it readable"):
        load_competition(root)


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_names_that_are_not_utf8_are_refused_before_any_work(tmp_path):
    root = album(tmp_path)
    os.rename(root / "Ana" / "0.png", os.fsencode(root / "Ana") + b"/caf\xe9.png")
    with pytest.raises(KitError, match=r"Ana: the name b'caf\\xe9\.png' is not UTF-8; rename it"):
        load_competition(root)


def test_images_deeper_in_a_part_that_no_table_names_are_told(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    paint(root / "train" / "train" / "more" / "train_0001.png")
    (note,) = [note for note in load_competition(root).notes if "stand in no table" in note]
    assert note.startswith("1 images in train/")
    assert "more/train_0001.png" in note


# labels


SAME = [
    "Zoë",
    unicodedata.normalize("NFD", "Zoë"),
    " Zoë",
    "Zoë ",
    "Zo\u200bë",
    "Zoë\ufeff",
    "\u2060Zoë",
    "Zo\u00adë",
    "Zoë\u200d",
]


@every("label", SAME)
def test_what_nobody_sees_makes_no_other_animal(label):
    assert jaguar_kit.clean_label(label) == "Zoë"


@every("label", ["علی\u200cرضا", "Ягуар", "雪豹", "Ξένια", "a.b-c_d", "El Jefe", "👩\u200d👧"])
def test_names_of_every_language_stay_as_they_are(label):
    assert jaguar_kit.clean_label(label) == label


def test_one_animal_under_several_spellings_is_one_and_is_told(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    table = pd.read_csv(root / "train.csv")
    rows = np.flatnonzero(table.ground_truth == "cat00")
    table.loc[rows, "ground_truth"] = [SAME[i % len(SAME)] for i in range(len(rows))]
    table.to_csv(root / "train.csv", index=False)
    found = load_competition(root)
    assert found.identities == ["Zoë", *[f"cat0{i}" for i in range(1, 6)]]
    (note,) = [note for note in found.notes if "without what nobody sees" in note]
    assert f"{sum(SAME[i % len(SAME)] != 'Zoë' for i in range(len(rows)))} labels" in note


def test_folders_of_several_spellings_are_one_animal(tmp_path):
    root = album(tmp_path, *[f"{name}/{i}.png" for i, name in enumerate(SAME[:3])])
    assert load_competition(root).identities == ["Ana", "Bela", "Zoë"]


@every(
    "label",
    ["unknown", "NA", "Unidentified", "n_a", "unknown 12", "No ID", "not identified", "??", "Nala", "Nona", "Unky"],
)
def test_labels_that_may_be_none_are_told(label, tmp_path):
    notes = told(album(tmp_path, f"{label}/1.png"))
    assert (f"1 images are of an individual called {label!r}" in notes) == (label not in ("Nala", "Nona", "Unky"))


def test_names_that_differ_by_case_alone_are_told(tmp_path):
    assert "whose names differ by case alone are taken for several: Ana and ana" in told(album(tmp_path, "ana/1.png"))


def test_new_individual_is_no_label(tmp_path):
    with pytest.raises(KitError, match="'new_individual' is the answer for animals that nobody knows, no label"):
        load_competition(album(tmp_path, "new_individual/1.png"))


def test_a_label_of_nothing_visible_is_empty(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    table = pd.read_csv(root / "train.csv")
    table.loc[3, "ground_truth"] = "\u200b "
    table.to_csv(root / "train.csv", index=False)
    with pytest.raises(KitError, match=r"train\.csv: ground_truth: empty for train_0004\.png"):
        load_competition(root)


def test_a_partial_solution_is_told(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    pd.read_csv(root / "solution.csv").iloc[1:].to_csv(root / "solution.csv", index=False)
    assert "solution.csv: tells 15 of 16 test images, so that nothing is scored by it" in told(root)


def test_an_empty_species_is_that_of_its_dataset(tmp_path):
    rows = ["image_id,identity,path,orientation,species,split,dataset"]
    for i, (name, species, dataset) in enumerate(
        [("a", "lynx", "L"), ("a", "lynx", "L"), ("b", "", "S"), ("b", " ", "S")]
    ):
        paint(tmp_path / f"{i}.png")
        rows.append(f"{i},{name},{i}.png,left,{species},database,{dataset}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    found = load_competition(tmp_path)
    assert list(found.train.species) == ["lynx", "lynx", "S", "S"]
    assert "species: empty in 2 rows, where dataset stands for it" in " ".join(found.notes)


def test_another_burst_column_makes_other_data(tmp_path):
    root = album(tmp_path)
    with_views(root, "path,burst\nAna/0.png,1\n")
    one = load_competition(root).fingerprint
    with_views(root, "path,burst\nAna/0.png,2\n")
    assert load_competition(root).fingerprint != one


def test_a_link_stands_for_no_real_folder(tmp_path):
    root = album(tmp_path)
    (root / "A best of").symlink_to(root / "Bela")
    assert load_competition(root).identities == ["Ana", "Bela"]
    assert "1 links lead nowhere, or where a folder was read already: A best of" in told(root)


def test_masks_beside_an_individual_s_images_are_none_of_them(tmp_path):
    root = album(tmp_path, "Ana/masks/0.png")
    assert len(load_competition(root).train) == 6
    assert "Ana/masks (1 files)" in told(root)


@every("spelling", ["outlines", "./outlines", "{root}/outlines", "link"])
def test_masks_are_left_out_however_they_are_named(spelling, tmp_path):
    root = album(tmp_path / "data", "outlines/Ana/0.png")
    (tmp_path / "data" / "link").symlink_to(root / "outlines")
    assert load_competition(root, masks=spelling.format(root=root)).identities == ["Ana", "Bela"]


def test_one_image_in_two_rows_is_refused(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    table = pd.read_csv(root / "train.csv")
    again = table.iloc[[3]].assign(filename="./" + table.filename[3])
    pd.concat([table, again]).to_csv(root / "train.csv", index=False)
    with pytest.raises(KitError, match=r"train\.csv: filename: more than one row for .*train_0004\.png"):
        load_competition(root)


def test_views_may_tell_more_folders_and_names_beside_paths(tmp_path):
    rows = "".join(f"data/old/{p},{Path(p).name},{i}\n" for i, p in enumerate(["Ana/c1/IMG_1.png", "Ana/c2/IMG_1.png"]))
    train = with_views(two_cards(tmp_path), f"path,filename,burst\n{rows}")
    assert [None if pd.isna(b) else b for b in train.burst] == ["0", "1", None, None]


def test_views_of_another_folder_do_not_join_by_the_bare_name(tmp_path):
    train = with_views(two_cards(tmp_path), "path,burst\nMara/c9/IMG_2.png,7\n")
    assert train.burst.isna().all()


def test_a_solution_without_labels_scores_nothing(mini, tmp_path):
    import shutil

    root = Path(shutil.copytree(mini, tmp_path / "data"))
    pd.read_csv(root / "solution.csv").assign(ground_truth="").to_csv(root / "solution.csv", index=False)
    assert load_competition(root).solution is None
    assert "solution.csv: tells 0 of 16 test images" in told(root)


def test_other_images_of_the_same_size_are_other_data(tmp_path):
    root = album(tmp_path)
    for name, seed in (("Ana/0.bmp", 1), ("Bela/0.bmp", 2)):
        paint(root / name, seed)
    before = load_competition(root).fingerprint
    one, other = (root / "Ana/0.bmp").read_bytes(), (root / "Bela/0.bmp").read_bytes()
    assert len(one) == len(other)
    (root / "Ana/0.bmp").write_bytes(other)
    (root / "Bela/0.bmp").write_bytes(one)
    assert load_competition(root).fingerprint != before


def test_two_masks_of_one_image_are_refused(tmp_path):
    for name in ("a/x.png", "masks/a/x.png", "masks/a/x.bmp"):
        paint(tmp_path / name)
    with pytest.raises(KitError, match="are both the mask of one image; remove one"):
        jaguar_kit.mask_paths(tmp_path, ["a/x.png"], "masks")


@every("sign", "\ufe0f\u2061\u034f\u180e\u061c\u206a\u3164\x7f\U000e0020")
def test_no_invisible_sign_makes_another_animal(sign):
    assert jaguar_kit.clean_label(f"Lu{sign}na{sign}") == "Luna"
    assert jaguar_kit.clean_label(f"豹{sign}一") == "豹一"


@every("label", ["New_Individual", "NEW_INDIVIDUAL", "new individual", "new-individual"])
def test_new_individual_is_no_label_however_it_is_written(label, tmp_path):
    with pytest.raises(KitError, match="the answer for animals that nobody knows"):
        load_competition(album(tmp_path, f"{label}/1.png"))
