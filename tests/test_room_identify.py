"""Who is who in a folder of photographs: catalogues, queries, answers with probabilities, groups of new animals.

One small network is trained once; all but the last parts use its weights.
"""

import base64
import io
import itertools
import re
import shutil
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, load_competition, make_mini_dataset, recipe_from_dict
from jaguar_kit_tools.identify import albums as albums_tool
from jaguar_kit_tools.identify import confidence as confidence_tool
from jaguar_kit_tools.identify import decisions as decisions_tool
from jaguar_kit_tools.identify import facts
from jaguar_kit_tools.identify import review as review_tool
from jaguar_kit_tools.identify.answers import answer_table, rank_animals
from jaguar_kit_tools.identify.confidence import held_out_images, leave_one_out, too_weak
from jaguar_kit_tools.identify.encounters import encounters_of
from jaguar_kit_tools.identify.grouping import group_new, grouped
from jaguar_kit_tools.identify.identify import identify
from jaguar_kit_tools.identify.likeness import Likeness
from jaguar_kit_tools.identify.odds import Odds
from jaguar_kit_tools.identify.season import Season
from PIL import Image

NEW = "new"
SURE, LOOK = "sure", "look"
PROPERTY = settings(deadline=None, max_examples=60)
STRANGERS = ("cat04", "cat05")  # left out of every catalogue
RECIPE = {
    "name": "knows",
    "data": {"size": 48},
    "background": "black",
    "augment": ["affine"],
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 48, "freeze": False},
    "loss": {"name": "arcface", "margin": 0.2, "scale": 16},
    "train": {"epochs": 20, "batch_size": 16, "lr": 2e-3, "weight_decay": 1e-2, "schedule": "cosine", "patience": 0},
}


@contextmanager
def undrawn():
    """Pages without figures, and with thumbnails of a few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
        patch.setattr(review_tool, "THUMB", 8)
        yield


class Place:
    """Weights, a catalogue of the first four cats, and queries: copies of known images, and images of strangers."""

    def __init__(self, root: Path):
        self.data = make_mini_dataset(root / "data", identities=6, images=120)
        with jaguar_kit.quiet(), undrawn():
            result = jaguar_kit.run_recipe(recipe_from_dict(RECIPE), data=self.data, out=root / "runs", device="cpu")
        self.weights = result.folder / "default" / "seed42"
        competition = load_competition(self.data)
        train = competition.train
        self.known = train[~train.identity.isin(STRANGERS)].reset_index(drop=True)
        self.catalogue = self.folder_of(self.known, root / "catalogue")
        copies = self.known.groupby("identity").head(3)
        self.queries = root / "queries"
        self.truth = {}  # identity of each query, NEW for strangers
        self.copy_of = {}  # the image of the catalogue that a query is a copy of
        for rows, below in (
            (copies, "copies/of known"),
            (train[train.identity.isin(STRANGERS)], "strangers"),
            (competition.test.assign(identity=competition.solution.to_numpy()), "others/2024/May"),
        ):
            (self.queries / below).mkdir(parents=True)
            for row in rows.itertuples():
                name = f"{below}/{row.filename}"
                shutil.copy(self.data / row.path, self.queries / name)
                self.truth[name] = NEW if row.identity in STRANGERS else row.identity
                if rows is copies:
                    self.copy_of[name] = f"{row.identity}/{row.filename}"

    def folder_of(self, rows: pd.DataFrame, folder: Path) -> Path:
        for row in rows.itertuples():
            (folder / row.identity).mkdir(parents=True, exist_ok=True)
            shutil.copy(self.data / row.path, folder / row.identity / row.filename)
        return folder

    def identify(self, out: Path, catalogue: Path | None = None, queries: Path | None = None, **more) -> pd.DataFrame:
        with undrawn():
            return identify(self.weights, catalogue or self.catalogue, queries or self.queries, out, "cpu", **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def drawn(place, tmp_path_factory):
    """All queries answered by the catalogue's folder: what was written, returned, said, and put on the page."""
    said, out = io.StringIO(), tmp_path_factory.mktemp("answers") / "new" / "out"
    with redirect_stdout(said):
        answers = identify(place.weights, place.catalogue, place.queries, out, "cpu")
    return SimpleNamespace(out=out, answers=answers, said=said.getvalue())


@pytest.fixture(scope="module")
def told(drawn):
    """The folder of these answers, and their table."""
    return drawn.out, drawn.answers


def command(*arguments) -> int:
    return jaguar_kit.main(jaguar_kit.any_command, ["identify", *map(str, arguments)])


def answers_in(out):
    assert (out / "answers.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # the mark that spreadsheets know
    return pd.read_csv(out / "answers.csv", encoding="utf-8-sig", keep_default_na=False)


def probabilities(answers):
    ranks = ("probability", *(f"probability_{rank}" for rank in range(2, 6)))
    return answers[[name for name in ranks if name in answers]].to_numpy(float)


def assert_by_probability(answers, sure=0.95, fresh=0.75):
    """sure from some probability of its name on, new from some probability of a new animal on, else to look at."""
    expected = np.where(answers.probability_new >= fresh, NEW, np.where(answers.probability >= sure, SURE, LOOK))
    assert answers["class"].tolist() == expected.tolist()
    assert (answers.probability + answers.probability_new <= 1 + 1e-3).all()


# the answers


def test_every_query_has_a_row_with_candidates(told, place):
    out, answers = told
    written = answers_in(out)
    assert written.image.tolist() == sorted(place.truth)
    assert list(written.columns)[:4] == ["image", "class", "identity", "probability"]
    assert {"encounter", "encounter_identity", "group", "match_1", "identity_4", "taken", "camera"} <= set(written)
    shown = answers.drop(columns="score")
    pd.testing.assert_frame_equal(written[["image", "class", "identity"]], shown[["image", "class", "identity"]])
    np.testing.assert_allclose(probabilities(written), probabilities(shown))


def test_probabilities_fall_and_decide_the_class(told):
    _, answers = told
    told = probabilities(answers)
    assert told.shape[1] == 4  # of four animals
    assert told.min() >= 0
    assert told.max() <= 1
    assert (np.diff(told, axis=1) <= 1e-9).all()
    assert_by_probability(answers)


def test_the_candidates_differ_and_their_matches_show_them(told, place):
    _, answers = told
    names = answers[["identity", "identity_2", "identity_3"]].set_axis([1, 2, 3], axis=1)
    assert all(row.nunique() == 3 for _, row in names.iterrows())
    for rank in (1, 2, 3):
        assert (answers[f"match_{rank}"].str.partition("/")[0] == names[rank]).all()
        assert all((place.catalogue / match).is_file() for match in answers[f"match_{rank}"])


def test_copies_of_known_images_are_recognised(told, place):
    _, answers = told
    answers = answers.set_index("image")
    for query, image in place.copy_of.items():
        assert answers.identity[query] == place.truth[query]
        assert answers["class"][query] != NEW
        assert answers.match_1[query] == image


def test_strangers_are_found_and_known_ones_named(told, place):
    _, answers = told
    truth = answers.image.map(place.truth)
    assert answers.probability_new[truth == NEW].mean() > answers.probability_new[truth != NEW].mean()
    assert answers.probability[truth != NEW].mean() > answers.probability[truth == NEW].mean()
    others = answers.image.str.startswith("others") & (truth != NEW)
    assert (answers.identity == truth)[others].mean() > 2 * 0.25  # a guess names one in four


def test_groups_are_of_new_ones_and_of_two_at_least(told):
    _, answers = told
    assert (answers["class"][answers.group != ""] == NEW).all()
    sizes = answers.group[answers.group != ""].value_counts()
    assert (sizes >= 2).all()
    assert set(sizes.index) == {f"new {i}" for i in range(1, len(sizes) + 1)}
    assert answers.group_probability[answers.group != ""].between(0, 1).all()


def test_it_says_how_many_are_sure_and_how_many_names_should_be_right(drawn, place):
    counts = drawn.answers["class"].value_counts()
    assert f"{len(drawn.answers)} photographs against {len(place.known)} of 4 individuals" in drawn.said
    headline = f"{counts.get(SURE, 0)} sure, {counts.get(LOOK, 0)} to look at, {counts.get(NEW, 0)} probably new"
    expected = re.search(
        r"about (\d+) of these \d+ first names should be right \[(\d+) to (\d+)\]", drawn.said
    ).groups()
    right, low, high = map(int, expected)
    assert low <= right <= high
    assert low <= drawn.answers.probability.sum() <= high
    for page in (drawn.said, (drawn.out / "report.md").read_text(), (drawn.out / "review.html").read_text()):
        assert headline in page
    assert f"wrote {drawn.out / 'review.html'}" in drawn.said


def test_the_report_is_self_contained(told):
    page = (told[0] / "report.html").read_text()
    assert "://" not in page
    for source in re.findall(r'src="([^"]*)"', page):
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).verify()


def held_out_of(place):
    """How many images of the catalogue the run did not train on, from what it left behind."""
    labels = np.load(place.weights / "validation.npz")["labels"]
    return int(np.isin(labels, place.known.identity).sum())


TOO_SURE = "on 4 of whose individuals these weights were trained, so that confidence is too high"


def test_the_report_tells_that_the_weights_know_these_animals(told, place):
    assert held_out_of(place) < confidence_tool.LEAST_HELD_OUT
    assert TOO_SURE in (told[0] / "report.md").read_text()


@pytest.mark.parametrize("alone", [False, True])
def test_confidence_is_fitted_on_what_was_held_out_where_that_is_enough(alone, place, tmp_path, monkeypatch):
    monkeypatch.setattr(confidence_tool, "LEAST_HELD_OUT", held_out_of(place))
    fitted_on, fit = [], Odds.of
    monkeypatch.setattr(Odds, "of", lambda guesses, *a: (fitted_on.append(guesses), fit(guesses, *a))[1])
    weights = place.weights
    if alone:  # without the run's list of images
        weights = shutil.copy(place.weights / "weights.safetensors", tmp_path / "alone.safetensors")
    with jaguar_kit.quiet(), undrawn():
        answers = identify(weights, place.catalogue, place.queries, tmp_path / "out", "cpu")
    page = (tmp_path / "out" / "report.md").read_text()
    asked = {Path(name).name for name in fitted_on[0].image_id}
    if alone:
        assert TOO_SURE in page
        assert asked <= set(place.known.filename)  # an encounter by its first
    else:
        assert f"{held_out_of(place)} images of the catalogue that the training of these weights left out" in page
        assert TOO_SURE not in page
        images = set(np.load(place.weights / "validation.npz")["images"])
        assert set() < asked <= images & set(place.known.filename)
    if "too weak" in page:
        assert (answers["class"] == LOOK).all()
    else:
        assert_by_probability(answers)


def test_images_that_were_held_out_are_known_by_their_names(place, tmp_path):
    images = set(np.load(place.weights / "validation.npz")["images"])
    for weights in (place.weights, place.weights / "weights.safetensors"):
        found = held_out_images(weights, place.known)
        assert found.tolist() == [name in images for name in place.known.filename]
        assert found.sum() == held_out_of(place)
    assert not held_out_images(tmp_path, place.known).any()  # where nothing tells


def test_images_that_were_held_out_are_known_by_their_numbers_in_metadata_too(tmp_path):
    np.savez(tmp_path / "validation.npz", images=["17", "4", "3"], labels=["a", "b", "c"])
    table = pd.DataFrame({"filename": ["3", "4", "17"], "path": ["i/00003.jpg", "i/00004.jpg", "i/00017.jpg"]})
    found = held_out_images(tmp_path, table.assign(identity=["another", "b", "a"]))
    assert found.tolist() == [False, True, True]


# catalogues and queries of other kinds


@pytest.fixture
def csv_catalogue(place, tmp_path):
    """write(columns) -> a CSV of the catalogue in mixed order, images below its own folder."""

    def write(**columns):
        folder = tmp_path / "album"
        shutil.copytree(place.data / "train", folder / "train", dirs_exist_ok=True)
        table = place.known.sample(frac=1, random_state=0).assign(**columns)
        table.to_csv(folder / "catalogue.csv", index=False)
        return folder / "catalogue.csv"

    return write


def competition_of(place, folder):
    shutil.copytree(place.data, folder)
    train = pd.read_csv(folder / "train.csv")
    train[~train.ground_truth.isin(STRANGERS)].to_csv(folder / "train.csv", index=False)
    (folder / "views.csv").unlink()
    return folder


def same_images(match):
    return match.str.rpartition("/")[2]


@pytest.mark.parametrize("kind", ["csv", "csv as in a competition", "competition"])
def test_the_kind_of_catalogue_changes_no_answer(kind, place, told, csv_catalogue, tmp_path):
    if kind == "competition":
        catalogue = competition_of(place, tmp_path / "competition")
    else:
        catalogue = csv_catalogue()
        table = pd.read_csv(catalogue)[["path", "identity"]]
        if kind != "csv":
            table = table.set_axis(["filename", "ground_truth"], axis=1)
        table.to_csv(catalogue, index=False)
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", catalogue)
    expected = told[1]
    assert answers.image.equals(expected.image)
    np.testing.assert_allclose(answers.probability, expected.probability, atol=0.01)
    assert (answers.identity == expected.identity).mean() > 0.97  # but for ties
    assert (same_images(answers.match_1) == same_images(expected.match_1)).mean() > 0.97
    assert_by_probability(answers)


def test_the_flank_is_that_of_the_image_a_sure_one_is_known_by(place, csv_catalogue, tmp_path):
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", csv_catalogue(), sure=0.01, fresh=0.99)
    flank = place.known.set_index("path").flank[answers.match_1].to_numpy()
    assert answers.flank.tolist() == np.where(answers["class"] == SURE, flank, "").tolist()
    assert {"left", "right"} <= set(answers.flank)


@pytest.mark.ci
def test_a_catalogue_in_the_layout_of_an_open_set_is_read_with_its_orientation(place, tmp_path):
    data = make_mini_dataset(tmp_path / "three", identities=6, images=54, layout="animalclef")
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", data)
    told = (tmp_path / "out" / "report.md").read_text()
    assert "too weak" in told or "fitted on the catalogue;" in told  # the weights know none of these
    train = load_competition(data).train.set_index("path")
    orientation = train.orientation[answers.match_1].to_numpy()
    assert answers.flank.tolist() == np.where(answers["class"] == SURE, orientation, "").tolist()
    assert answers.identity.tolist() == train.identity[answers.match_1].tolist()


def test_queries_of_a_csv_are_answered_in_its_order(place, told, tmp_path):
    wanted = sorted(place.truth)[::-2]
    pd.DataFrame({"path": wanted, "note": "seen"}).to_csv(place.queries / "some.csv", index=False)
    try:
        with jaguar_kit.quiet():
            answers = place.identify(tmp_path / "out", queries=place.queries / "some.csv")
    finally:
        (place.queries / "some.csv").unlink()
    assert answers.image.tolist() == wanted
    alone = told[1][~told[1].encounter.duplicated(keep=False)].set_index("image")  # others have lost some of theirs
    answers = answers.set_index("image").loc[alone.index.intersection(wanted)]
    assert len(answers) > 10
    expected = alone.loc[answers.index]
    assert answers.identity.tolist() == expected.identity.tolist()
    np.testing.assert_allclose(answers.score, expected.score, atol=1e-6)
    np.testing.assert_allclose(answers.probability, expected.probability, atol=0.15)  # at another share of strangers


def test_folders_are_read_below_and_hidden_or_other_files_left(tmp_path):
    for name in ("b/c/1.JPG", "a.png", ".hidden/2.png", ".3.png", "b/notes.txt", "ä b.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    root, table, notes = facts.load_queries(tmp_path)
    assert root == tmp_path
    assert "1 .txt" in notes[0]
    assert ".hidden (1 files)" in notes[1]
    assert table.path.tolist() == ["a.png", "b/c/1.JPG", "ä b.webp"]


def test_a_catalogue_may_be_a_csv_with_either_names_of_columns(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    for columns, text in {
        "path,identity": "{0},p\n{1},q\n",
        "filename,ground_truth": "{0},p\n{1},q\n",
        "identity,note,path": "p,x,{0}\nq,y,{1}\n",
        "path,filename,identity": "{0},x,p\n{1},y,q\n",
        "path,identity,ground_truth": "{0},p,p\n{1},q,q\n",
    }.items():
        (tmp_path / "known.csv").write_text(columns + "\n" + text.format("1.png", "2.png"))
        try:
            root, table, _ = facts.load_catalogue(tmp_path / "known.csv")
        except AttributeError as error:
            pytest.fail(f"{columns}: a traceback: {error}")
        assert root == tmp_path, columns
        assert table.path.tolist() == ["1.png", "2.png"], columns
        assert table.identity.tolist() == ["p", "q"], columns


# photographs that are broken, few, or all known


def test_broken_photographs_are_told_and_left_out(place, told, tmp_path, capsys):
    queries, catalogue = tmp_path / "queries", tmp_path / "catalogue"
    shutil.copytree(place.queries, queries)
    shutil.copytree(place.catalogue, catalogue)
    (queries / "a broken.jpg").write_bytes(b"\xff\xd8 and no more")
    (queries / "strangers" / "cut.png").write_bytes((place.catalogue / "cat00/train_0001.png").read_bytes()[:300])
    (catalogue / "cat01" / "empty.jpg").write_bytes(b"")
    answers = place.identify(tmp_path / "out", catalogue, queries)
    said = capsys.readouterr().out
    assert f"2 images in {queries} can't be read and are left out: a broken.jpg, strangers/cut.png" in said
    assert f"1 images in {catalogue} can't be read and are left out: cat01/empty.jpg" in said
    expected = told[1]
    assert answers.image.tolist() == expected.image.tolist()
    np.testing.assert_allclose(answers.probability, expected.probability, atol=1e-3)
    assert answers.match_1.tolist() == expected.match_1.tolist()


def test_where_nobody_is_new_there_is_nobody_to_group(place, tmp_path):
    queries = tmp_path / "queries"
    shutil.copytree(place.queries / "copies", queries)
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", queries=queries)
    assert (answers["class"] != NEW).all()
    assert (answers.group == "").all()


def test_one_stranger_alone_is_in_no_group(place, told, tmp_path):
    _, answers = told
    least = answers.sort_values("probability_new").image.iloc[-1]
    (tmp_path / "queries").mkdir()
    shutil.copy(place.queries / least, tmp_path / "queries" / "one.png")
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", queries=tmp_path / "queries", fresh=0.5, share_new=0.5)
    (row,) = answers.to_dict("records")
    assert (row["image"], row["class"], row["group"]) == ("one.png", NEW, "")


def test_a_catalogue_of_two_individuals_is_enough(place, told, tmp_path):
    two = place.folder_of(place.known[place.known.identity.isin(["cat00", "cat01"])], tmp_path / "two")
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", two)
    assert set(answers.identity) == {"cat00", "cat01"}
    assert set(answers["class"]) <= {SURE, LOOK, NEW}


def test_images_without_masks_are_compared_with_a_warning(place, tmp_path, capsys):
    for folder, names in ((place.catalogue, "catalogue"), (place.queries, "queries")):
        for path in folder.rglob("*.png"):
            to = (tmp_path / names / path.relative_to(folder)).with_suffix(".jpg")
            to.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB").save(to, quality=95)
    answers = place.identify(tmp_path / "out", tmp_path / "catalogue", tmp_path / "queries")
    said = capsys.readouterr().out
    assert f"background black, but {tmp_path / 'catalogue'} has no masks" in said
    assert len(answers) == len(place.truth)
    copies = answers[answers.image.str.startswith("copies")]
    expected = [place.truth[query.replace(".jpg", ".png")] for query in copies.image]
    assert copies.identity.tolist() == expected


@pytest.mark.ci
def test_of_weights_that_tell_nobody_apart_nothing_is_called_recognised(place, tmp_path, capsys):
    little = {"train": {"epochs": 1, "lr": 1e-6}, "data": {"size": 16}, "model": {"input_size": 32}}
    recipe = recipe_from_dict(jaguar_kit.merge_recipe(RECIPE, {"seeds": [0], **little}))
    table = place.known.copy()
    table["identity"] = np.random.default_rng(0).permutation(table.identity)  # nothing to tell apart by
    with jaguar_kit.quiet(), undrawn():
        result = jaguar_kit.run_recipe(recipe, data=place.data, out=tmp_path / "runs", device="cpu")
    shuffled = place.folder_of(table, tmp_path / "shuffled")
    place.weights, kept = result.folder / "default" / "seed0", place.weights
    try:
        answers = place.identify(tmp_path / "out", shuffled)
    finally:
        place.weights = kept
    assert (answers["class"] == LOOK).all()
    assert "too weak" in capsys.readouterr().out
    assert "nothing is called recognised" in (tmp_path / "out" / "report.md").read_text()


# refusals


def test_the_command_answers(place, told, tmp_path, capsys):
    arguments = ("--weights", place.weights / "weights.safetensors", "--catalogue", place.catalogue)
    arguments += ("--queries", place.queries, "--out", tmp_path / "out", "--device", "cpu")
    with undrawn():
        assert command(*arguments) == 0
    assert "to look at" in capsys.readouterr().out
    assert (tmp_path / "out" / "answers.csv").read_bytes() == (told[0] / "answers.csv").read_bytes()


def empty_folder(place, tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def only_texts(place, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    return tmp_path / "texts"


def only_broken(place, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no image")
    return tmp_path / "broken"


def missing(name):
    return lambda place, tmp_path: tmp_path / name


def csv_of(text):
    def write(place, tmp_path):
        shutil.copy(place.catalogue / "cat00" / "train_0001.png", tmp_path / "a.png")
        shutil.copy(place.catalogue / "cat00" / "train_0001.png", tmp_path / "b.png")
        (tmp_path / "table.csv").write_text(text)
        return tmp_path / "table.csv"

    return write


def individuals(*names, broken=False, count=None):
    def write(place, tmp_path):
        rows = place.known[place.known.identity.isin(names)]
        folder = place.folder_of(rows.groupby("identity").head(count or len(rows)), tmp_path / "few")
        if broken:
            (folder / "other").mkdir()
            (folder / "other" / "a.jpg").write_bytes(b"no image")
        return folder

    return write


def file_of(name, content):
    def write(place, tmp_path):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def foreign_weights(place, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


REFUSALS = {
    "queries: an empty folder": ("queries", empty_folder, "empty", "has no images"),
    "queries: no images": ("queries", only_texts, "texts", "has no images"),
    "queries: no folder": ("queries", missing("gone"), "gone", "there is no such folder"),
    "queries: no CSV": ("queries", missing("gone.csv"), "gone.csv", "there is no such file"),
    "queries: nothing readable": ("queries", only_broken, "broken", "none of its 1 images can be read"),
    "queries: a CSV without path": ("queries", csv_of("image\na.png\n"), "table.csv", "column 'path' is missing"),
    "queries: a CSV without rows": ("queries", csv_of("path\n"), "table.csv", "has no rows"),
    "queries: a CSV of what is not there": ("queries", csv_of("path\na.png\nc.png\n"), "path: 1 images", "c.png"),
    "queries: a path upwards": ("queries", csv_of("path\n../a.png\n"), "table.csv: path", "'../a.png'"),
    "queries: an image": ("queries", file_of("a.jpg", b""), "a.jpg", "there is no such folder"),
    "catalogue: an empty folder": ("catalogue", empty_folder, "empty", "has neither train.csv nor folders"),
    "catalogue: no folder": ("catalogue", missing("gone"), "gone", "there is no such folder"),
    "catalogue: no CSV": ("catalogue", missing("gone.csv"), "gone.csv", "there is no such file"),
    "catalogue: a CSV without path": ("catalogue", csv_of("identity\np\n"), "table.csv", "column 'path' is missing"),
    "catalogue: a CSV without identity": ("catalogue", csv_of("path\na.png\n"), "table.csv", "'identity' is missing"),
    "catalogue: an empty identity": (
        "catalogue",
        csv_of("path,identity\na.png,p\nb.png,\n"),
        "identity: empty",
        "b.png",
    ),
    "catalogue: an image twice": ("catalogue", csv_of("path,identity\na.png,p\na.png,q\n"), "table.csv", "a.png"),
    "catalogue: one individual": ("catalogue", individuals("cat00"), "few", "only one identity, 'cat00'"),
    "catalogue: one individual that can be read": ("catalogue", individuals("cat00", broken=True), "few", "identit"),
    "weights: none": ("weights", missing("gone"), "gone", "there is no such weights file"),
    "weights: an empty folder": ("weights", empty_folder, "empty", "there is no such weights file"),
    "weights: no weights": ("weights", file_of("a.safetensors", b"x" * 99), "a.safetensors", "not a complete"),
    "weights: a text": ("weights", file_of("a.txt", b"hello"), "a.txt", "not a complete"),
    "weights: of something else": ("weights", foreign_weights, "other.safetensors", "not written by a run of this kit"),
    "device": ("device", lambda *_: "tpu", "device", "did you mean 'cpu'?"),
}


@pytest.mark.parametrize("option", ["queries", "catalogue", "weights", "device"])
def test_bad_input_is_one_line_and_leaves_nothing(option, place, tmp_path, capsys):
    usual = {"weights": place.weights, "catalogue": place.catalogue, "queries": place.queries, "device": "cpu"}
    for number, (name, (at_fault, make, *parts)) in enumerate(REFUSALS.items()):
        if at_fault != option:
            continue
        own = tmp_path / str(number)
        own.mkdir()
        given_options = {**usual, "out": own / "out", option: make(place, own)}
        code = command(*[text for key, value in given_options.items() for text in (f"--{key}", value)])
        said = capsys.readouterr().err
        assert code == 2, name
        assert said.startswith("error: "), name
        assert said.count("\n") == 1, name
        assert [part for part in parts if part not in said] == [], name
        assert not (own / "out").exists(), name


def test_answers_are_never_overwritten(place, told, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(told[0], out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    options = ("--weights", place.weights, "--catalogue", place.catalogue, "--queries", place.queries, "--out", out)
    assert command(*options) == 2
    said = capsys.readouterr().err
    assert "holds answers already" in said
    assert said.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


@pytest.mark.ci
def test_what_was_interrupted_can_be_done_again(place, tmp_path, monkeypatch, capsys):
    options = ["--weights", place.weights, "--catalogue", place.catalogue, "--queries", place.queries]
    options += ["--out", tmp_path / "out", "--device", "cpu"]

    def interrupted(self, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "write", interrupted)
        assert command(*options) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert command(*options) == 0, f"the same command is refused: {capsys.readouterr().err.strip()}"
    assert (tmp_path / "out" / "report.html").is_file()


# groups of new animals


def similarities(size, together, within=0.9, between=0.1):
    matrix = np.full((size, size), between)
    for group in together:
        matrix[np.ix_(group, group)] = within
    np.fill_diagonal(matrix, 1)
    return matrix


def test_who_resembles_each_other_has_one_name():
    for size, together, expected in (
        (0, [], []),
        (1, [], [""]),
        (2, [[0, 1]], ["new 1", "new 1"]),
        (3, [], ["", "", ""]),
        (5, [[0, 3], [1, 2, 4]], ["new 2", "new 1", "new 1", "new 2", "new 1"]),  # the largest is the first
        (4, [[1, 3]], ["", "new 1", "", "new 1"]),
        (3, [[0, 1, 2]], ["new 1"] * 3),
    ):
        assert group_new(similarities(size, together), 0.5)[0] == expected, (size, together)


def test_groups_are_joined_by_their_best_pairs():
    matrix = similarities(4, [])
    matrix[0, 1] = matrix[1, 0] = 0.95
    matrix[1, 2] = matrix[2, 1] = 0.9  # one flank, both, the other: the first and the last are nothing alike
    last = ((0.1 + 0.9) / 2 + 0.9) / 2
    names, shares = group_new(matrix, 0.6)
    assert names == ["new 1", "new 1", "new 1", ""]
    assert shares[:3] == pytest.approx((0.95 + 2 * last) / 3, abs=1e-4)
    assert np.isnan(shares[3])
    assert group_new(matrix, 0.75)[0] == ["new 1", "new 1", "", ""]
    names, shares = group_new(matrix, 0.6, cannot=[(0, 2)])
    assert names == ["new 1", "new 1", "", ""]
    assert shares[:2] == pytest.approx(0.95)
    names, shares = group_new(matrix, 0.6, must=[(2, 3)], cannot=[(0, 2)])
    assert names[0] == names[1] != names[2] == names[3]
    assert shares[2:] == pytest.approx(1.0)


def test_one_mistaken_pair_joins_no_large_groups():
    matrix = similarities(8, [[0, 1, 2, 3], [4, 5, 6, 7]])
    matrix[3, 4] = matrix[4, 3] = 0.85
    names, _ = group_new(matrix, 0.5)
    assert names[0] == names[1] == names[2]
    assert names[5] == names[6] == names[7] != names[0]


def test_a_likeness_that_reaches_the_threshold_suffices():
    groups, _ = group_new(np.array([[1.0, 0.5], [0.5, 1.0]]), 0.5)
    assert groups == ["new 1", "new 1"], "it must reach the threshold, as an answer's confidence must"


def slow_groups(matrix, threshold):
    groups = [[i] for i in range(len(matrix))]

    def alike(one, other):
        return (np.mean([matrix[i, other].max() for i in one]) + np.mean([matrix[i, one].max() for i in other])) / 2

    while len(groups) > 1:
        one, other = max(itertools.combinations(groups, 2), key=lambda pair: alike(*pair))
        if alike(one, other) < threshold:
            break
        groups = [group for group in groups if group not in (one, other)] + [one + other]
    return groups


@PROPERTY
@given(st.integers(2, 9), st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_groups_are_those_of_best_pairs(size, seed, threshold):
    rng = np.random.default_rng(seed)
    matrix = rng.random((size, size))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    names, shares = group_new(matrix.copy(), threshold)
    for group in slow_groups(matrix, threshold):
        assert all((names[i] == "") == (len(group) == 1) == np.isnan(shares[i]) for i in group)
        assert len(group) == 1 or [i for i in range(size) if names[i] == names[group[0]]] == sorted(group)


@every("noise", [0.5, 0.9, 1.4])
def test_a_group_is_as_probable_as_it_says(noise):
    rng, claimed, so = np.random.default_rng(0), [], []
    for _ in range(3):
        centres = rng.normal(size=(90, 16))
        seen = np.r_[np.repeat(np.arange(60), 3), np.repeat(np.arange(60, 90), 4)]
        vectors = centres[seen] + noise * rng.normal(size=(len(seen), 16))
        season = season_of(album([f"a{i}" for i in seen[:180]], vectors[:180]), album(["?"] * 120, vectors[180:]))
        names, shares = grouped(season, np.arange(120), NOBODY_SAID)
        new, names = seen[180:], np.array(names)
        one, other = np.triu_indices(120, 1)
        pairs = (names[one] != "") & (names[one] == names[other])
        claimed += shares[one[pairs]].tolist()
        so += (new[one] == new[other])[pairs].tolist()
    assert noise > 1 or len(so) > 100
    assert not so or np.mean(so) > np.mean(claimed) - 0.15, (len(so), np.mean(so), np.mean(claimed))


# the catalogue's images as queries


def album(identities, embeddings, images=None, **columns):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (len(identities), 32, 32, 3), np.uint8)
    pixels = noise if images is None else noise[images]
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(identities))], "identity": identities, **columns})
    vectors = torch.tensor(np.asarray(embeddings), dtype=torch.float32)
    return albums_tool.Album(table, vectors, jaguar_kit.perceptual_hashes(pixels))


def slow_leave_one_out(identities, embeddings, met, asked):
    """(path, identity, truth, known, score) of each encounter: among all others, where its own identity is left, and
    without its identity. Encounters are compared by the mean over all pairs of their images."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    images = {m: [i for i in range(len(met)) if met[i] == m] for m in met}
    asking = {m: [i for i in own if i in asked] for m, own in images.items()}
    name = {m: identities[own[0]] for m, own in images.items()}

    def alike(one, other):
        return np.mean([[unit[i] @ unit[j] for j in images[other]] for i in asking[one]])

    rows = []
    for without in (False, True):
        for m in sorted(m for m, own in asking.items() if own):
            others = [o for o in images if o != m and not (without and name[o] == name[m])]
            if without or any(name[o] == name[m] for o in others):
                best = max(others, key=lambda o: alike(m, o))
                truth = f"{name[m]} (left out)" if without else name[m]
                rows.append((f"{asking[m][0]}.jpg", name[best], truth, not without, alike(m, best)))
    return rows


def left_out(catalogue, asked=None):
    """Guesses for all images of a catalogue, or for those asked for by their places."""
    size = len(catalogue.table)
    wanted = np.isin(np.arange(size), range(size) if asked is None else asked)
    met = encounters_of(catalogue.table, catalogue.hashes)
    likeness = Likeness(catalogue.embeddings, jaguar_kit.build("geometry", "cosine"))
    return leave_one_out(catalogue.table, met, likeness, wanted)


NAMES = list("aaabbbcccd")
BURSTS = ["1", "1", "2", "3", "3", "3", "", "", "", "4"]


@pytest.mark.parametrize(("column", "answerable"), [(None, 9), ("burst", 5), ("encounter", 5)])
def test_each_encounter_is_asked_for_with_and_without_its_identity(column, answerable):
    met = [f"{name} {(column and burst) or 9 - i}" for i, (name, burst) in enumerate(zip(NAMES, BURSTS))]
    for seed, asked in itertools.product(range(2), ([1, 4, 8, 9], range(10))):
        embeddings = np.random.default_rng(seed).normal(size=(10, 4))
        catalogue = album(NAMES, embeddings, **({column: BURSTS} if column else {}))
        told = left_out(catalogue, asked)
        codes = encounters_of(catalogue.table, catalogue.hashes)
        expected = slow_leave_one_out(NAMES, embeddings, codes, asked)
        assert pd.factorize(codes)[0].tolist() == pd.factorize(np.array(met))[0].tolist()
        assert list(zip(told.image_id, told.identity, told.truth, told.known)) == [row[:4] for row in expected]
        np.testing.assert_allclose(told.score, [row[4] for row in expected], atol=1e-5)
        known = told[told.known]
        np.testing.assert_allclose(known.score, np.maximum(known.own, known.rival), atol=1e-9)
        assert (known.another <= known.own + 1e-9).all()
        assert np.isfinite(known.another).all()
        assert (told.own[~told.known & ~told.met.isin(known.met)] == -np.inf).all()
        if not column:
            precision = jaguar_kit.average_precision(jaguar_kit.similarity_matrix(embeddings), NAMES, met)
            own = [int(path.partition(".")[0]) for path in known.image_id]
            np.testing.assert_allclose(known.precision, precision[own], atol=1e-5)
    assert told.known.sum() == answerable  # of all


def test_near_duplicates_are_not_matched_with_each_other():
    embeddings = np.random.default_rng(0).normal(size=(6, 4))
    embeddings[1] = embeddings[0]
    told = left_out(album(list("aabbcc"), embeddings, images=[0, 0, 2, 3, 4, 5]))  # the first two are one image
    assert told.image_id[told.known].tolist() == ["2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert told.image_id[~told.known].tolist() == ["0.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    told = left_out(album(list("aabbcc"), embeddings, images=[0, 1, 2, 0, 4, 5]))  # of two individuals: no twins
    assert told.known.sum() == 6


def season_of(catalogue, queries, encounters=None):
    """A season of two albums, with embeddings compared by their cosine."""
    facts = {"taken": "", "camera": "", "mark": [f"m{i}" for i in range(len(queries.table))]}
    new = replace(queries, table=queries.table.assign(**facts))
    vectors = torch.cat([catalogue.embeddings, queries.embeddings])
    likeness = Likeness(vectors, jaguar_kit.build("geometry", "cosine"))
    met = np.arange(len(new.table)) if encounters is None else np.asarray(encounters)
    return Season(albums_tool.Shelf((catalogue,)), new, likeness, np.arange(len(catalogue.table)), met)


def plain_odds():
    """The likeness itself is the probability."""
    return SimpleNamespace(of_right=lambda s: np.clip(s, 0, 1), of_new=lambda s: 1 - np.clip(s, 0, 1))


NOBODY_SAID = decisions_tool.Decisions(pd.DataFrame(columns=list(decisions_tool.COLUMNS), dtype=str))


def answered(season, odds, *levels):
    return answer_table(season, rank_animals(season, NOBODY_SAID), odds, NOBODY_SAID, *levels, False)


def test_answers_follow_from_likeness_and_probability():
    catalogue = album(list("aabbccdd"), np.eye(8) + 0.01, flank=["left", "right"] * 4)
    mixed = np.eye(8)[1] + 0.5 * np.eye(8)[2] + 0.25 * np.eye(8)[7]
    season = season_of(catalogue, album(["?"] * 3, [np.eye(8)[5], mixed, np.ones(8)], encounter=["1", "2", "3"]))
    answers, pictures = answered(season, plain_odds(), 0.95, 0.55)
    assert answers.image.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert answers["class"].tolist() == [SURE, LOOK, NEW]
    assert answers.identity[:2].tolist() == ["c", "a"]
    assert answers.match_1[:2].tolist() == ["5.jpg", "1.jpg"]
    assert answers.flank.tolist() == ["right", "", ""]
    assert answers.loc[1, ["identity_2", "identity_3"]].tolist() == ["b", "d"]
    assert answers.loc[1, ["match_2", "match_3"]].tolist() == ["2.jpg", "7.jpg"]
    assert pictures[1][:2] == [[1, 0], [2, 3]]
    unit = mixed / np.linalg.norm(mixed)
    rows = (np.eye(8) + 0.01) / np.linalg.norm(np.eye(8) + 0.01, axis=1, keepdims=True)
    likeness = [rows[1] @ unit, rows[2] @ unit, rows[7] @ unit]
    wrong = (1 - likeness[0], (1 - likeness[0]) * (1 - likeness[1]))
    expected = [likeness[0], likeness[1] * wrong[0], likeness[2] * wrong[1]]
    assert answers.loc[1, ["probability", "probability_2", "probability_3"]].tolist() == pytest.approx(
        expected, abs=1e-4
    )
    assert answers.group.tolist() == ["", "", ""]
    assert answers.encounter_identity.tolist()[:2] == ["c", "a"]


def test_a_species_keeps_others_out_and_none_told_keeps_nobody_out():
    catalogue = album(list("abc"), np.eye(3), species=["jaguar", "ocelot", ""])
    queries = album(["?"] * 3, [[1, 0.9, 0]] * 3, species=["ocelot", "jaguar", ""])
    answers, _ = answered(season_of(catalogue, queries), plain_odds(), 0.95, 0.9)
    assert answers.identity.tolist() == ["b", "a", "a"]
    offered = answers[["identity", "identity_2", "identity_3"]].apply(lambda row: set(row) - {""}, axis=1)
    assert offered.tolist() == [{"b", "c"}, {"a", "c"}, {"a", "b", "c"}]


def test_an_encounter_is_asked_for_once_and_answered_once():
    catalogue = album(list("ab"), np.eye(2))
    season = season_of(catalogue, album(["?"] * 3, [[1, 0.2], [0.8, 1], [0, 1]]), [7, 7, 3])
    answers, _ = answered(season, plain_odds(), 0.95, 0.9)
    assert answers.identity.tolist() == ["a", "a", "b"]
    assert answers.encounter.tolist() == [1, 1, 2]
    assert answers.encounter_identity.tolist() == ["a", "a", "b"]
    assert (answers.encounter_probability == answers.probability).all()
    unit = np.array([[1, 0.2], [0.8, 1]]) / np.linalg.norm([[1, 0.2], [0.8, 1]], axis=1, keepdims=True)
    assert answers.score[:2].tolist() == pytest.approx([unit[:, 0].mean()] * 2)


def test_who_is_ruled_out_on_one_photograph_is_no_candidate_of_its_encounter():
    catalogue = album(list("ab"), np.eye(2))
    season = season_of(catalogue, album(["?"] * 3, [[1, 0.2], [0.8, 1], [0, 1]]), [7, 7, 3])
    said = (("m1", "a"), ("m2", "a"), ("m2", "b"))
    rows = [(mark, f"{mark}.jpg", "/", "no", name, "Ana", "1") for mark, name in said]
    decisions = decisions_tool.Decisions(pd.DataFrame(rows, columns=list(decisions_tool.COLUMNS)))
    ranked = rank_animals(season, decisions)
    assert ranked.names.tolist() == [["b", ""], ["b", ""], ["", ""]]  # nobody is left for the last, and none is named
    assert ranked.ruled_out == pytest.approx([1.0, 0.803], abs=1e-3)


def test_catalogues_with_one_picture_of_each_are_ranked_without_confidence(place, tmp_path):
    alone = place.folder_of(place.known.drop_duplicates("identity"), tmp_path / "alone")
    with jaguar_kit.quiet():
        answers = place.identify(tmp_path / "out", alone)
    assert (answers["class"] == LOOK).all()
    assert answers[["probability", "probability_new"]].isna().all(axis=None)
    assert answers.identity.isin(place.known.identity).all()
    assert "nothing tells how sure a match is" in (tmp_path / "out" / "report.md").read_text()


@every("sizes", [[10] * 10, [100] + [4] * 9, [60, 30] + [4] * 8])
def test_a_model_that_guesses_is_too_weak_however_uneven_the_catalogue_is(sizes):
    names = np.repeat([f"a{i}" for i in range(len(sizes))], sizes)
    rng = np.random.default_rng(0)
    random = left_out(album(names, rng.normal(size=(len(names), 32))))
    assert too_weak(random)
    own = rng.normal(size=(len(sizes), 32))[np.repeat(np.arange(len(sizes)), sizes)]
    assert not too_weak(left_out(album(names, own + rng.normal(size=own.shape))))
    assert too_weak(random[~random.known])
    met = np.arange(len(names)) % 3 == 0  # encounters that are asked for; the most similar ones are mostly others
    catalogue = album(names, own + 0.5 * rng.normal(size=own.shape))
    assert not too_weak(left_out(catalogue, np.flatnonzero(met)))


def test_images_of_one_date_are_twins():
    told = left_out(album(list("aabb"), np.eye(4) + 0.1, date=["1", "1", "1", "2"]))
    assert told.image_id[told.known].tolist() == ["2.jpg", "3.jpg"]


@pytest.mark.ci
def test_photographs_of_the_catalogue_itself_are_no_queries(place, tmp_path, capsys):
    (tmp_path / "mixed").mkdir()
    shutil.copytree(place.catalogue, tmp_path / "mixed" / "known")
    shutil.copytree(place.queries, tmp_path / "mixed" / "new")
    answers = place.identify(tmp_path / "out", tmp_path / "mixed" / "known", tmp_path / "mixed")
    assert set(answers.image) == {f"new/{name}" for name in place.truth}
    assert (
        f"{len(place.known)} of the photographs are in the catalogue itself" in (tmp_path / "out/report.md").read_text()
    )
    with pytest.raises(KitError, match="are in the catalogue"):
        place.identify(tmp_path / "none", place.catalogue, place.catalogue)


def test_a_competitions_folder_asks_for_its_test_images(place):
    root, asked, _ = facts.load_queries(place.data)
    assert root == place.data
    assert asked.path.tolist() == load_competition(place.data).test.path.tolist()


def test_earlier_answers_are_no_photographs(tmp_path):
    for name in ("a.png", "answers/figures/new-001.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "answers" / "answers.csv").write_text("image\n")
    assert facts.load_queries(tmp_path)[1].path.tolist() == ["a.png"]


@pytest.mark.ci
def test_embeddings_are_kept_for_the_next_photographs(place, tmp_path, monkeypatch):
    with jaguar_kit.quiet():
        first = place.identify(tmp_path / "first")
        monkeypatch.setattr(albums_tool, "embed", None)
        again = place.identify(tmp_path / "again")
    pd.testing.assert_frame_equal(first, again)


def test_a_mark_is_that_of_the_file_whatever_a_table_says(tmp_path):
    for number in range(2):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    table = pd.DataFrame({"path": ["0.png", "1.png"], "mark": "torn ear"})
    told = facts.with_facts(tmp_path, table)[0].mark
    assert told.tolist() == [facts.mark_of(tmp_path / name) for name in table.path]


@pytest.mark.ci
def test_cards_of_photographs_to_look_at_hold_their_evidence(place, tmp_path):
    out = tmp_path / "out"
    answers = place.identify(out, sure=0.999999, fresh=0.999999, cards=2)
    assert (answers["class"] == "look").any()
    pages = sorted((out / "cards").glob("*.html"))
    assert len(pages) == 2
    assert [page.with_suffix(".png").is_file() for page in pages] == [True, True]
    best = answers[answers["class"] == "look"].sort_values("score", ascending=False).iloc[0]
    told = next(page.read_text() for page in pages if Path(best.image).stem in page.name)
    for fact in ("Together", "Likeness", "Flanks", "Encounter", "Without scenes", "Spots", "Where it rests"):
        assert f"<dt>{fact}</dt>" in told
    assert best.identity in told
    assert not (tmp_path / "cards").exists()
