"""data.extra: folders of other data that are trained on, never validated, their identities kept apart."""

from __future__ import annotations

import shutil

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from jaguar_kit import KitError, load_competition, make_mini_dataset, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments.open_set import vote
from jaguar_kit_tools.experiments.runs import images_for

SMALL = {
    "data": {"size": 32},
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    "train": {"epochs": 1},
}


@pytest.fixture(scope="module")
def more(mini, tmp_path_factory):
    """A folder of images by identity, two of which have names that the mini-dataset has too."""
    root = tmp_path_factory.mktemp("more") / "zoo"
    other = make_mini_dataset(root.parent / "other", identities=6, images=72, seed=9)
    for name, own in pd.read_csv(other / "train.csv").groupby("ground_truth"):
        (root / name).mkdir(parents=True)
        for file in own.filename[:3]:
            shutil.copy(other / "train" / "train" / file, root / name / file)
    return root


def recipe_with(extra, **changes):
    return recipe_from_dict({"name": "extra", **SMALL, **changes, "data": {**SMALL["data"], "extra": extra}})


def test_extra_images_train_and_never_validate_and_their_identities_stay_apart(mini, more, tmp_path):
    plain = jaguar_kit.open_data(recipe_with([]), load_competition(mini))
    recipe = recipe_with([str(more)])
    specs = jaguar_kit.expand(recipe)
    (competition,) = jaguar_kit.load_competitions(specs, mini).values()
    images = jaguar_kit.open_data(recipe, competition)
    (rows, held_out), (own_rows, own_held_out) = images.splits[0], plain.splits[0]
    assert held_out.tolist() == own_held_out.tolist()
    assert rows[: len(own_rows)].tolist() == own_rows.tolist()
    own = len(plain.competition.train)
    assert sorted(rows[len(own_rows) :]) == list(range(own, own + len(list(more.rglob("*.png")))))
    train = images.competition.train
    assert set(train.identity[own:]) == {f"zoo/{name}" for name in plain.competition.identities}
    first = int(rows[-1])
    source = jaguar_kit.read_image(more / train.filename[first].removeprefix("zoo/"))[0]
    shown = np.asarray(jaguar_kit.fit_square(source, 32, "squash"))
    assert np.array_equal(images.store.pixels[first][..., :3], shown)


def test_a_run_tells_what_trains_besides_and_keeps_its_validation(mini, more, tmp_path):
    told = {}
    for extra in ([], [str(more)]):
        result = run_recipe(recipe_with(extra), data=mini, out=tmp_path / str(len(extra)), device="cpu")
        told[len(extra)] = jaguar_kit.RunFolder(result.folder / "default" / "seed42").metrics()["validated"]
        weights = jaguar_kit.load_weights(result.folder / "default" / "seed42")[1]
        assert any(name.startswith("zoo/") for name in weights["identities"]) == bool(extra)
    assert told[0] == told[1]
    assert "train besides, and never validate or answer" in (result.folder / "report.md").read_text()


@pytest.mark.parametrize("decide", ["nearest", "softmax"])
def test_extra_identities_are_no_answers_in_an_open_set(decide, more, tmp_path):
    data = make_mini_dataset(tmp_path / "open", identities=6, images=54, layout="animalclef")
    loss = {"loss": "cross_entropy", "open_set": {"decide": decide, "threshold": 0.0}}
    recipe = jaguar_kit.override(recipe_with([str(more)], **loss), "data.split.validation=0.35", "here")
    result = run_recipe(recipe, data=data, out=tmp_path / "runs", device="cpu")
    answers = pd.read_csv(result.folder / "default" / "seed42" / "submission.csv")
    assert not answers.identity.str.startswith("zoo/").any()
    table = pd.read_csv(result.folder / "default" / "seed42" / "test_guesses.csv")
    assert not table.identity.str.startswith("zoo/").any()


def test_what_can_not_be_extra_is_one_line(mini, more, tmp_path):
    for data, message in (
        ({"extra": [str(tmp_path / "none")]}, "there is no such folder"),
        ({"extra": [str(more), str(more)]}, "two folders are called 'zoo'"),
        ({"extra": [str(more)], "masks": "train"}, r"expected alpha"),
    ):
        recipe = recipe_from_dict({"name": "x", **SMALL, "data": {**SMALL["data"], **data}})
        with pytest.raises(KitError, match=message):
            run_recipe(recipe, data=mini, out=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()


# several models for an open set


def test_models_vote_by_their_confidence():
    tables = [
        pd.DataFrame({"image_id": ["x", "y"], "identity": names, "score": scores})
        for names, scores in ((["a", "a"], [0.9, 0.4]), (["b", "b"], [0.5, 0.3]), (["b", "c"], [0.5, 0.1]))
    ]
    told = vote(tables)
    assert told.identity.tolist() == ["b", "a"]
    assert told.score.tolist() == pytest.approx([1.0 / 3, 0.4 / 3])
    alone = vote(tables[:1])
    assert alone.score.tolist() == [0.9, 0.4]


@pytest.mark.ci
@pytest.mark.parametrize("decide", ["nearest", "softmax"])
def test_several_models_answer_an_open_set_together(decide, tmp_path):
    data = make_mini_dataset(tmp_path / "open", identities=9, images=150, layout="animalclef")
    split = {"split": {"name": "open_set", "validation": 0.3, "unknown": 0.2}}
    told = {
        **SMALL,
        "name": "vote",
        "loss": "cross_entropy",
        "open_set": {"decide": decide},
        "data": {"size": 32, **split},
    }
    recipe = recipe_from_dict({**told, "seeds": [1, 2], "ensemble": "mean"})
    result = run_recipe(recipe, data=data, out=tmp_path / "runs", device="cpu")
    known = load_competition(data).identities
    jaguar_kit.validate_answers(
        result.folder / "ensemble" / "submission.csv", load_competition(data).test.filename, known
    )
    fused = jaguar_kit.read_json(result.folder / "ensemble" / "metrics.json")
    assert 0 <= fused["test"]["score"] <= 1
    assert fused["test"]["baus"] == pytest.approx(
        jaguar_kit.open_set_score(
            pd.read_csv(data / "solution.csv", dtype=str).set_index("image_id").identity,
            pd.read_csv(result.folder / "ensemble" / "submission.csv", dtype=str).identity,
            known,
        )["baus"]
    )
    assert "Ensemble" in (result.folder / "report.md").read_text()
    with pytest.raises(KitError, match="one model or ensemble: mean"):
        run_recipe(jaguar_kit.override(recipe, "ensemble=rank", "x"), data=data, out=tmp_path / "more", device="cpu")


# wherever runs read their data


def seen_by(weights):
    """How many identities of the further folder the weights know."""
    return sum(name.startswith("zoo/") for name in jaguar_kit.load_weights(weights)[1]["identities"])


def test_every_run_of_a_search_trains_on_extra_images(mini, more, tmp_path, monkeypatch):
    monkeypatch.setattr(jaguar_kit, "rooms_for", lambda _: False)  # no report
    space = {"train.lr": {"low": 1e-4, "high": 1e-3}}
    recipe = recipe_with([str(more)], search={"trials": 1, "space": space})
    folder = run_recipe(recipe, data=mini, out=tmp_path, device="cpu").folder
    made = [path.parent for path in folder.rglob("weights.safetensors")]
    assert len(made) == 3, "a trial, the best again, and the baseline"
    assert [seen_by(place) for place in made] == [6, 6, 6]


def test_a_run_beside_others_opens_the_same_images_as_one_alone(mini, more, tmp_path):
    recipe = recipe_with([str(more)])
    (competition,) = jaguar_kit.load_competitions(jaguar_kit.expand(recipe), mini).values()
    alone = jaguar_kit.open_data(recipe, competition)
    beside = images_for(recipe, mini, tmp_path)
    assert beside.fingerprint == alone.fingerprint
    assert beside.competition.identities == alone.competition.identities
    for one, other in zip(beside.splits[0], alone.splits[0]):
        assert np.array_equal(one, other)


def test_images_of_the_data_are_no_extra_images_under_another_name(mini, tmp_path):
    copies = tmp_path / "copies"
    for number, row in enumerate(pd.read_csv(mini / "train.csv").head(4).itertuples()):
        (copies / row.ground_truth).mkdir(parents=True, exist_ok=True)
        shutil.copy(mini / "train" / "train" / row.filename, copies / row.ground_truth / f"renamed{number}.png")
    asked = jaguar_kit.load_competition(mini).test.path[0]
    (copies / "stranger").mkdir()
    shutil.copy(mini / asked, copies / "stranger" / "asked.png")
    for folder, count in ((mini, 56), (copies, 5)):
        with pytest.raises(KitError, match=rf"data\.extra: .*: {count} of its images are images of .*, too"):
            run_recipe(recipe_with([str(folder)]), data=mini, out=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_a_column_of_the_user_s_own_that_is_called_extra_changes_nothing(mini, more, tmp_path):
    data = shutil.copytree(mini, tmp_path / "data")
    train = pd.read_csv(data / "train.csv")
    train.assign(extra=["seen by Joe" if row % 2 else "" for row in range(len(train))]).to_csv(
        data / "train.csv", index=False
    )
    for folders in ([], [str(more)]):
        recipe = recipe_with(folders)
        told = []
        for root in (mini, data):
            (competition,) = jaguar_kit.load_competitions(jaguar_kit.expand(recipe), root).values()
            images = jaguar_kit.open_data(recipe, competition)
            told.append([part.tolist() for part in images.splits[0]])
            assert jaguar_kit.own_rows(images.competition.train).sum() == len(train)
        assert told[0] == told[1]
    assert images.competition.train.extra[1] == "seen by Joe"


def test_a_project_that_was_moved_with_its_extra_images_is_the_same_data(mini, more, tmp_path, monkeypatch):
    monkeypatch.setattr(jaguar_kit, "rooms_for", lambda _: False)  # no report
    first, second = tmp_path / "first", tmp_path / "second"
    for source, name in ((mini, "data"), (more, "zoo")):
        shutil.copytree(source, first / name)
    tables = []
    for place in (first, second):
        if place == second:
            shutil.move(first, second)
        monkeypatch.chdir(place)
        tables.append(run_recipe(recipe_with(["zoo"]), data="data", out="runs", device="cpu").table)
    pd.testing.assert_frame_equal(tables[0], tables[1])
