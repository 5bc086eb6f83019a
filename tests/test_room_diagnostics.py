"""Diagnostics find what was built into images, tables and networks: scenes, flanks, encounters, wrong labels."""

import math
import re
import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from jaguar_kit import Component, KitError, RunFolder, expand, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import diagnostics, scenes
from jaguar_kit_tools.experiments.comparison import remake_report, report_command
from jaguar_kit_tools.experiments.diagnostics import (
    Matches,
    by_flank,
    causes_of,
    doubtful_labels,
    encounter_shares,
    errors_by_cause,
    flank_errors,
    flip_words,
    flips_of,
    mirror_table,
    tag,
)
from jaguar_kit_tools.experiments.looks import Look, Network, told_by
from jaguar_kit_tools.experiments.scenes import hide_border, hide_centre, in_centre, reliance, two_by_two
from PIL import Image
from tiny import TINY
from torch import nn

# networks that are known to see one thing only


class ReadsOnePart(nn.Module):
    """A network whose embedding is the colours of the centre, or of the rim, in 8 x 8 places, and a bias."""

    def __init__(self, part, side=32):
        super().__init__()
        inside = in_centre(side, side).float()
        weight = inside if part == "coat" else 1 - inside
        self.where = nn.Parameter(weight, requires_grad=False)
        self.geometry = jaguar_kit.build("geometry", "cosine")
        self.embedding_dim = 192

    def forward(self, images):
        return F.adaptive_avg_pool2d(images * self.where, 8).flatten(1) + 0.3


def coats_and_scenes(identities=12, each=4, side=32, seed=0):
    """Images uint8 (N, side, side, 4) in which every animal has its own colour in the centre, before a scene of another
    colour, which goes with the animal, and the names."""
    rng = np.random.default_rng(seed)
    inside = in_centre(side, side).numpy()
    coats, places = rng.integers(30, 226, (2, identities, 3))
    images, labels = [], []
    for animal in range(identities):
        for _ in range(each):
            image = np.empty((side, side, 4))
            image[..., :3] = np.where(inside[..., None], coats[animal], places[animal]) + rng.normal(0, 4, 3)
            image[..., 3] = 255 * inside
            images.append(image.clip(0, 255).astype(np.uint8))
            labels.append(f"animal{animal:02d}")
    return np.stack(images), np.array(labels)


class Stand:
    """What a look has of a run, with a network and images that a test has made."""

    def __init__(self, part, images, labels, background="original"):
        store = jaguar_kit.as_store(images)
        self.labels, self.positions = labels, np.arange(len(labels))
        self.images = type("Images", (), {"store": store})
        prepare = jaguar_kit.Preparation(Component("background", "original"), (), 32, (0.5,) * 3, (0.25,) * 3)
        source = jaguar_kit.PixelSource(store, prepare, torch.device("cpu"))
        self.network = Network(ReadsOnePart(part), source)
        recipe = recipe_from_dict({"name": part, "background": background})
        self.spec = type("Spec", (), {"variant": part, "recipe": recipe})


@pytest.mark.parametrize("masks", [True, False])
def test_a_network_that_learned_scenes_leans_on_the_context_and_one_that_learned_coats_does_not(masks):
    images, labels = coats_and_scenes()
    images = images if masks else images[..., :3]
    by_scene, by_coat = (reliance(Stand(part, images, labels)) for part in ("scene", "coat"))
    assert by_scene["reliance"] > 0.5
    assert by_scene["low"] > 0
    assert by_scene["leans more on"] == "the context"
    assert by_coat["reliance"] == pytest.approx(0, abs=0.02)
    assert by_coat["leans more on"] == "the animal"
    assert by_scene["share of change"] == pytest.approx(1, abs=0.05)
    assert by_coat["share of change"] == pytest.approx(0, abs=0.05)
    state = "mAP swapped" if masks else "mAP border hidden"
    assert by_scene[state] < by_scene["mAP original"] - 0.5
    assert "it leans on the context; its embeddings hang more on the context" in scenes.reliance_words(by_scene)
    assert "no reliance on the context is shown; its embeddings hang more on the animal" in scenes.reliance_words(
        by_coat
    )


def test_few_identities_have_no_interval_and_no_verdict():
    images, labels = coats_and_scenes(identities=4)
    told = reliance(Stand("scene", images, labels))
    assert math.isnan(told["low"])
    assert told["leans more on"] == "not to be told"
    assert "too few identities" in scenes.reliance_words(told)
    assert "trained with" not in scenes.reliance_words(told)
    cut_out = reliance(Stand("coat", images, labels, background="black"))
    assert "on images as they are (it was trained with the background black)" in scenes.reliance_words(cut_out)


def test_centre_and_border_are_halves_and_hide_each_other():
    inside = in_centre(64, 64)
    assert inside.float().mean() == pytest.approx(0.5, abs=0.02)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(hide_border(images)[..., inside], images[..., inside])
    assert torch.equal(hide_border(images) + hide_centre(images), images)


def test_a_network_that_learned_scenes_is_found_out_by_those_of_the_mini_dataset(mini):
    views = pd.read_csv(mini / "views.csv")
    store = jaguar_kit.open_store(mini, list(views.path), 32)
    labels, flanks = views.identity.to_numpy(str), views.flank.to_numpy(str)
    told = {}
    for part in ("scene", "coat"):
        stand = Stand(part, store, labels)
        similarity = jaguar_kit.similarity_matrix(stand.network.embeddings(stand.positions)).numpy()
        matches = Matches(similarity, labels, flanks, scenes=views.scene.to_numpy(str))
        same = causes_of(matches)["first match of the same scene"]
        told[part] = {**reliance(stand), "same scene": same[matches.wrong].mean()}
    chance = np.mean([(views.scene == scene).mean() for scene in views.scene])
    assert told["scene"]["same scene"] > 2 * chance, "its errors are those of the place"
    assert told["scene"]["same scene"] > told["coat"]["same scene"] + 0.2
    assert told["scene"]["share of change"] > told["coat"]["share of change"] + 0.1, "of which half is scene here"
    assert told["scene"]["reliance"] > told["coat"]["reliance"]


def test_training_and_testing_with_and_without_background_are_four_numbers():
    images, labels = coats_and_scenes()
    table = two_by_two([Stand("scene", images, labels), Stand("coat", images, labels, "black")])
    assert list(table["trained on"]) == ["original", "black"]
    leaning, bare = table.to_dict("records")
    assert leaning["mAP tested with"] == pytest.approx(1, abs=0.02)
    assert leaning["mAP tested without"] < 0.5
    assert leaning["low"] > 0.3
    assert bare["lost without"] == pytest.approx(0, abs=0.02)
    assert two_by_two([Stand("scene", images, labels)]).empty
    assert two_by_two([Stand("scene", images[..., :3], labels), Stand("coat", images[..., :3], labels, "black")]).empty


# flanks and encounters


def two_flanks(apart=True, identities=12, seed=0):
    """Embeddings in which a flank has its own direction; the flanks of an animal have nothing in common, or all."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"animal{i:02d}" for i in range(identities)], 8)
    flanks = np.tile(np.repeat(["left", "right"], 4), identities)
    encounters = np.arange(len(labels)) // 2
    centres = rng.normal(size=(identities, 2, 32))
    centres[:, 1] = centres[:, 1] if apart else centres[:, 0]
    vectors = centres[np.repeat(np.arange(identities), 8), (flanks == "right").astype(int)]
    vectors = vectors + 0.2 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Matches(vectors @ vectors.T, labels, flanks, encounters)


def test_flanks_that_share_nothing_are_found_within_and_not_across():
    own, other = by_flank(two_flanks()).to_dict("records")
    assert own["map"] == pytest.approx(1, abs=0.01)
    assert own["top1"] == 1
    assert other["map"] < 0.3
    assert other["low"] - 0.1 < other["chance"] < other["high"] + 0.1, "across flanks it guesses"
    assert own["queries"] == other["queries"] == 96
    alike = by_flank(two_flanks(apart=False)).to_dict("records")
    assert [row["map"] for row in alike] == pytest.approx([1, 1], abs=0.01)


def test_maps_by_flank_are_those_of_the_parts_themselves():
    matches = two_flanks(seed=3)
    left, right = (np.flatnonzero(matches.flanks == flank) for flank in ("left", "right"))
    expected = np.full(len(matches.labels), math.nan)
    for part in (left, right):
        block = matches.similarity[np.ix_(part, part)]
        expected[part] = jaguar_kit.average_precision(block, matches.labels[part], matches.encounters[part])
    by_identity = pd.Series(expected).groupby(matches.labels).mean()
    assert by_flank(matches)["map"][0] == pytest.approx(by_identity.mean())


def test_images_of_no_told_flank_are_neither_asked_for_nor_found():
    matches = two_flanks(identities=6)
    flanks = matches.flanks.copy()
    flanks[::4] = ""
    told = flanks != ""
    some = Matches(matches.similarity[np.ix_(told, told)], *(values[told] for values in (matches.labels, flanks)))
    whole, part = by_flank(Matches(matches.similarity, matches.labels, flanks)), by_flank(some)
    pd.testing.assert_frame_equal(whole, part)
    assert whole.queries.sum() <= 2 * told.sum()


def test_an_error_whose_animal_is_there_from_the_other_flank_only_is_a_flank_error():
    labels = np.array(["a", "a", "b", "b", "c", "c"])
    flanks = np.array(["left", "right", "left", "left", "left", "left"])
    similarity = np.full((6, 6), 0.1)
    for one, other, value in ((0, 2, 0.9), (1, 3, 0.8), (2, 3, 0.95), (4, 5, 0.5)):
        similarity[one, other] = similarity[other, one] = value
    told = flank_errors(Matches(similarity, labels, flanks))
    assert (told["errors"], told["flank errors"]) == (2, 2)
    assert told["share of errors"] == 1
    assert told["share of right"] == 0
    assert told["wrong match of another flank"] == 0.5, "1 shows the right flank, its match 3 the left one"
    untold = flank_errors(Matches(similarity, labels, np.array(["left", "", "left", "left", "left", "left"])))
    assert untold["flank errors"] == 0, "what nobody tells is not guessed"


def test_columns_that_tell_flanks_are_taken_in_order_and_never_guessed():
    table = pd.DataFrame({"orientation": ["top", "nan", " Left "], "flank": ["unknown", "", None]})
    column, values = told_by(table, ("flank", "orientation"))
    assert column == "orientation"
    assert list(values) == ["top", "", "Left"]
    assert told_by(table, ("flank",))[0] == ""


def test_first_matches_of_the_own_encounter_are_counted():
    labels = np.array(list("aaabbb"))
    encounters = np.array([0, 0, 1, 2, 3, 4])
    similarity = np.eye(6)
    for one, other in ((0, 1), (2, 0), (3, 4), (5, 2)):
        similarity[one, other] = similarity[other, one] = 0.9 - 0.1 * one
    told = encounter_shares(Matches(similarity, labels, encounters=encounters))
    assert told["right first matches"] == 5
    assert told["of the same encounter"] == pytest.approx(2 / 5)
    assert told["queries with one there"] == pytest.approx(2 / 6)


def test_corners_tell_flank_and_encounter():
    matches = Matches(np.eye(2), np.array(["a", "a"]), np.array(["left", "right"]), np.array([4, 4]))
    assert tag(matches, 0, 1) == "right ="
    assert tag(matches, 0, 0) == "left"
    assert tag(Matches(np.eye(2), np.array(["a", "a"]), None, np.array([4, 4])), 0, 1) == "="
    assert tag(Matches(np.eye(2), np.array(["a", "a"])), 0, 1) == ""


def test_a_tag_is_drawn_in_the_corner_of_its_image_alone():
    images = [Image.new("RGB", (64, 64), "white")] * 3
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    plain, tagged = (
        np.asarray(jaguar_kit.contact_sheet(images, list("aab"), similarity, [0], ["query"], tag=tag)).astype(int)
        for tag in (None, lambda query, image: "L" if image == 2 else "")
    )
    changed = np.argwhere(np.abs(plain - tagged).sum(2) > 0)
    assert len(changed)
    assert (changed[:, 0] < 25).all()
    assert np.ptp(changed[:, 1]) < 25, "one image has it"


# mirror images


def test_a_network_that_can_not_tell_left_from_right_is_found_by_mirror_images():
    labels = np.repeat(list("abcd"), 2)
    similarity = 0.2 + 0.6 * (labels[:, None] == labels) + 0.2 * np.eye(8)
    blind, seeing = (mirror_table(Matches(similarity, labels), value * np.eye(8)) for value in (0.99, 0.1))
    assert blind["above the nearest other"][0] == 1
    assert seeing["above the nearest other"][0] == 0
    assert blind.set_index("image and")["median"].to_dict() == pytest.approx(
        {"its own mirror image": 0.99, "its animal": 0.8, "the nearest other animal": 0.2}
    )
    recipe = recipe_from_dict({"name": "mirrored", "augment": ["flip"], "postprocess": ["tta"]})
    assert "hardly tells the two apart" in flip_words(recipe, blind)
    assert "it tells the two apart;" in flip_words(recipe, seeing)


def test_flips_in_training_and_test_are_named():
    def told(**settings):
        return flips_of(recipe_from_dict({"name": "one", **settings}))

    assert told() == []
    assert len(told(augment=["affine_erasing"])) == len(told(augment=["flip"])) == 1
    assert told(augment=["rotation"], postprocess=[{"name": "tta", "flip": False, "scales": [1.0, 1.2]}]) == []
    assert told(postprocess=["tta"]) == ["test-time augmentation averages an image with its mirror image"]


# causes, and wrong labels


def test_causes_are_told_by_how_often_they_come_with_errors():
    labels = np.repeat([f"animal{i}" for i in range(10)], 4)
    rng, total = np.random.default_rng(0), 40
    scenes_told = np.array([f"place{i}" for i in rng.integers(4, 12, total)])
    similarity = 0.5 * (labels[:, None] == labels) + 0.1 * rng.random((total, total))
    for query, match in ((0, 4), (8, 12), (16, 20), (24, 28)):  # other animals at the same place
        scenes_told[[query, match]] = f"shared{query}"
        similarity[query, match] = 0.9
    similarity[33, 0] = 0.9  # and one without a reason
    sharp = np.r_[np.full(39, 100.0), 1.0]
    signals = pd.DataFrame({"sharpness": sharp, "brightness": np.linspace(100, 150, total)})
    counts = {name: 20 - 18 * (name == "animal9") for name in np.unique(labels)}
    matches = Matches(similarity, labels, scenes=scenes_told, counts=counts)
    table = errors_by_cause(matches, signals)
    assert matches.wrong.sum() == 5
    first, last = table.iloc[0], table.iloc[-1]
    assert first.cause == "first match of the same scene"
    assert first["errors with it"] == 4
    assert first["share of errors"] == 0.8
    assert first["share of right"] < 0.2
    assert last.cause == "none of these"
    causes = causes_of(matches, signals)
    assert list(np.flatnonzero(causes["fewer than 5 images of its animal trained"])) == [36, 37, 38, 39]
    assert list(np.flatnonzero(causes["blurred"])) == [39]
    assert set(np.flatnonzero(causes["dark or bright"])) >= {0, 39}


def test_a_wrong_label_put_into_the_mini_dataset_is_listed(mini):
    views = pd.read_csv(mini / "views.csv").query("split == 'train'").reset_index(drop=True)
    store = jaguar_kit.open_store(mini, list(views.path), 64)
    labels = views.identity.to_numpy(str)
    burst = next(rows for _, rows in views.groupby("burst") if len(rows) > 1)
    before = doubtful_labels(store, labels, bits=11)
    wrong = labels.copy()
    wrong[burst.index[0]] = next(name for name in labels if name != labels[burst.index[0]])
    pairs = doubtful_labels(store, wrong, bits=11)
    found = {tuple(sorted(pair)) for pair in pairs[["one", "other"]].to_numpy().tolist()}
    assert (burst.index[0], burst.index[1]) in found
    assert len(pairs) > len(before)
    assert pairs.bits.is_monotonic_increasing


# on the page


@pytest.fixture(scope="module")
def trained(mini, tmp_path_factory):
    variants = {"original": {}, "black": {"background": "black"}}
    recipe = {**TINY, "variants": variants, "train": {**TINY["train"], "epochs": 2}, "seeds": [1]}
    return run_recipe(recipe, data=mini, out=tmp_path_factory.mktemp("runs"), device="cpu")


def look_at(result, variant="original"):
    recipe, data = jaguar_kit.room("experiments.comparison").experiment_in(result.folder)
    spec = next(one for one in expand(recipe) if one.variant == variant)
    competition = jaguar_kit.load_competition(data)
    images = jaguar_kit.open_data(spec.recipe, competition)
    return Look(spec, images, RunFolder(result.folder / spec.folder), torch.device("cpu"))


def test_a_look_reads_the_network_that_was_validated(trained):
    look = look_at(trained)
    embeddings = look.network.embeddings(look.positions)
    np.testing.assert_allclose(embeddings, look.kept["embeddings"], atol=1e-4)
    assert look.flank_column == "flank"
    assert set(look.flanks) == {"left", "right"}
    logits = look.network.logits(embeddings)
    assert look.network.names
    assert logits.shape == (len(look.positions), len(look.network.identities))
    learned = np.isin(look.labels, look.network.identities)
    right = np.array(look.network.identities)[logits.argmax(1)] == look.labels
    assert right[learned].mean() == pytest.approx(look.there.metrics()["accuracy"], abs=1e-6)


def test_every_report_tells_scene_flanks_encounters_and_errors(trained):
    page = (trained.folder / "report.md").read_text()
    told = page.partition("## What did it look at?")[2].partition("\n## ")[0]
    for heading in ("Scene", "Encounters", "Flank and view", "Errors by cause", "Labels to check"):
        assert f"### {heading}" in told, heading
    assert "Flanks by the column flank" in told
    assert "swapped: before the scene of another image" in told
    assert "neither training nor test-time augmentation mirrors images" in told
    assert (trained.folder / "figures" / "confusions.png").is_file()
    assert "In the corners: the flank, and = for the query's own encounter." in page
    assert "black: behind the backgrounds" in told, "each variant that is shown has a row"


@pytest.mark.ci
def test_a_report_looks_at_the_scene_when_it_is_asked_to(trained):
    report_command([str(trained.folder), "--look", "scene", "--device", "cpu"])
    page = (trained.folder / "report.md").read_text()
    assert page.count("### Scene") == 1
    assert "Trained with and without background, each tested with and without" in page
    table = pd.read_csv(trained.folder / "analysis" / "two-by-two.csv")
    assert list(table["trained on"]) == ["original", "black"]
    with pytest.raises(KitError, match=r"--look: 'scenes' is not known; did you mean 'scene'\?"):
        remake_report(trained.folder, looks=["scenes"])
    with pytest.raises(KitError, match="--look: is for the report of one folder"):
        report_command([str(trained.folder), str(trained.folder), "--look", "scene"])


def scene_of(folder):
    return (folder / "report.md").read_text().partition("### Scene")[2].partition("\n### ")[0]


@pytest.mark.ci
def test_what_a_look_found_stays_when_the_report_is_drawn_again(trained, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "kept"))
    report_command([str(folder), "--look", "scene", "cards", "--device", "cpu"])
    cards = sorted(path.name for path in (folder / "figures").glob("card*"))
    first = scene_of(folder)
    report_command([str(folder), "--device", "cpu"])
    assert scene_of(folder) == first
    told, page = ((folder / name).read_text() for name in ("report.md", "report.html"))
    assert "Trained with and without background" in first
    assert told.count("### Scene") == told.count("### Evidence of single pairs") == 1
    assert all(f"figures/{name}" in told for name in cards)
    assert page.count("A wrong first match.") >= 1
    assert "older state" not in told


@pytest.mark.ci
def test_what_a_look_found_of_other_runs_is_called_older(trained, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "kept"))
    report_command([str(folder), "--look", "scene", "--device", "cpu"])
    place = folder / "black" / "seed1" / "metrics.json"
    place.write_text(place.read_text().replace('"epochs": 2', '"epochs": 2.0'))
    report_command([str(folder), "--device", "cpu"])
    assert re.match(r"\n\nNote: of an older state of the runs, made \d{4}-\d\d-\d\d \d\d:\d\d; ", scene_of(folder))
    assert f"tools/report.py {folder} --look scene makes it again." in scene_of(folder)
    assert "Trained with and without background" in scene_of(folder)
    report_command([str(folder), "--look", "scene", "--device", "cpu"])
    assert "older state" not in scene_of(folder)


def test_what_a_look_left_may_be_damaged(trained, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "kept"))
    (folder / "analysis").mkdir(exist_ok=True)
    (folder / "analysis" / "look-cards.json").write_text("{}")
    report_command([str(folder), "--device", "cpu"])
    assert "look-cards.json" in (folder / "report.md").read_text()
    assert "--look cards makes it again" in (folder / "report.md").read_text()


def test_weights_that_are_gone_leave_the_rest_of_the_page(trained, tmp_path):
    look = look_at(trained)
    page = jaguar_kit.Page()
    gone = Look(look.spec, look.images, RunFolder(tmp_path), look.device)
    gone.__dict__["kept"] = look.kept
    diagnostics.report_diagnostics(page, [gone])
    told = "\n".join(page.lines)
    assert "Reliance on context of original is not measured: its network can't be read here" in told
    assert "### Errors by cause" in told


def test_a_look_at_runs_is_refused_where_none_is_made(mini, tmp_path):
    recipe = {**TINY, "train": {"epochs": 0}, "analysis": ["scene"]}
    with pytest.raises(KitError, match="analysis: scene: looks at trained runs, and none is made here"):
        run_recipe(recipe, data=mini, out=tmp_path)
