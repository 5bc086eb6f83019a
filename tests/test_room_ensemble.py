"""Ensembles: of a recipe's runs and of folders that others left, their weights, and what each member is worth."""

from __future__ import annotations

import shutil

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from jaguar_kit import KitError, RunFolder, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import ensemble as ensemble_room
from tiny import ARCFACE, TINY

STEPS = ["tta", "posterior", {"name": "local", "detector": "sift", "size": 48, "points": 32}, "fuse"]


def recipe_of(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe({**TINY, "loss": ARCFACE, "postprocess": STEPS}, changes))


@pytest.fixture(scope="module")
def trained(mini, tmp_path_factory):
    """Two members of unlike backbones and sizes, and a third with folds, left in folders."""
    out = tmp_path_factory.mktemp("trained")
    small = recipe_of(name="small", seeds=[1])
    other = recipe_of(
        name="other", data={"size": 48}, model={"backbone": "test_vit", "input_size": 96, "head": "bn_neck"}
    )
    folds = recipe_of(name="folds", data={"split": {"name": "kfold", "folds": 2}})
    for recipe in (small, other, folds):
        run_recipe(recipe, mini, out, device="cpu")
    return out


def fused_slowly(members, part):
    """Likeness, names and spots, each averaged, standardised over pairs, and added, by numpy."""
    kept = [np.load(folder / f"{part}.npz") for folder in members]
    pairs = ~np.eye(len(kept[0]["images"]), dtype=bool)

    def standard(matrix):
        return (matrix - matrix[pairs].mean()) / matrix[pairs].std()

    share = np.mean([one["shares"].astype(float) for one in kept], 0)
    names = np.log(np.clip(np.sqrt(share) @ np.sqrt(share).T, 1e-12, None))
    means = [np.mean([standard(one[kind].astype(float)) for one in kept], 0) for kind in ("likeness", "strength")]
    return sum(standard(one) for one in (*means, names))


def same_order(found, expected):
    pairs = ~np.eye(len(found), dtype=bool)
    return np.corrcoef(found[pairs], expected[pairs])[0, 1] == pytest.approx(1, abs=1e-5)


def test_members_of_unlike_backbones_and_sizes_are_fused_from_their_folders_alone(trained, mini, tmp_path):
    names = [f"{name}@{mini.name}" for name in ("small", "other")]
    members = [str(trained / name) for name in names]
    for name in names:  # as another session would find them
        shutil.rmtree(trained / name / "analysis", ignore_errors=True)
    told = {"name": "evidence", "members": members, "steps": ["encounters"]}
    recipe = recipe_from_dict({"name": "fuse", "train": {"epochs": 0}, "data": {"size": 32}, "ensemble": told})
    result = run_recipe(recipe, mini, tmp_path, device="cpu")
    found = jaguar_kit.read_json(result.folder / "ensemble" / "metrics.json")
    assert [name.split("/")[-3:] for name in found["runs"]] == [
        [names[0], "default", "seed1"],
        [names[1], "default", "seed42"],
    ]
    jaguar_kit.validate_submission(result.folder / "ensemble" / "submission.csv", mini / "test.csv")
    folders = [trained / names[0] / "default" / "seed1", trained / names[1] / "default" / "seed42"]
    held_out = [m.evidence("validation") for place in members for m in ensemble_room.members_in(place)]
    assert same_order(ensemble_room.fused_evidence(held_out, np.ones(2)), fused_slowly(folders, "validation"))
    report = result.report.read_text(encoding="utf-8")
    assert "what each member is worth" in report
    assert not list(result.folder.glob("default*"))  # nothing was trained
    again = run_recipe(recipe, mini, tmp_path, device="cpu")
    assert jaguar_kit.read_json(again.folder / "ensemble" / "metrics.json") == found


def test_what_a_member_is_worth_is_measured_without_it(trained, mini):
    places = [trained / f"{name}@{mini.name}" for name in ("small", "other")]
    told = [m.evidence("validation") for place in places for m in ensemble_room.members_in(str(place))]
    labels, part = told[0].labels, jaguar_kit.Component("ensemble", "evidence")
    judged = ensemble_room.Judged(part, told, told, labels, None)
    worth = judged.worth(judged.ranked(part.build(held_out=told)(told)), ["one", "two"])
    alone = [jaguar_kit.identity_balanced_map(ensemble_room.fused_evidence([one], [1.0]), labels) for one in told]
    assert [row["map"] for row in worth["members"]] == pytest.approx(alone)
    assert [row["without_map"] for row in worth["members"]] == pytest.approx(alone[::-1])
    assert worth["best_choice"] >= max(alone) - 1e-9
    assert worth["overlap"][0][1] == worth["overlap"][1][0] <= 1 == worth["overlap"][0][0]


def test_test_images_are_fused_once_whether_their_names_are_known_or_not(trained, mini, tmp_path, monkeypatch):
    fused, members = [], [str(trained / f"{name}@{mini.name}") for name in ("small", "other")]

    def counted(told, *arguments, fuse=ensemble_room.fused_evidence, **settings):
        fused.append((len(told), "test_0001.png" in told[0].images))
        return fuse(told, *arguments, **settings)

    monkeypatch.setattr(ensemble_room, "fused_evidence", counted)
    told = {"name": "evidence", "members": members, "steps": [{"name": "k_reciprocal", "k1": 5, "k2": 2}]}
    recipe = recipe_from_dict({"name": "once", "train": {"epochs": 0}, "data": {"size": 32}, "ensemble": told})
    folder = run_recipe(recipe, mini, tmp_path, device="cpu").folder
    assert fused.count((2, True)) == 1
    found = jaguar_kit.read_json(folder / "ensemble" / "metrics.json")
    submitted = pd.read_csv(folder / "ensemble" / "submission.csv").merge(jaguar_kit.load_pairs(mini / "test.csv"))
    images = sorted(submitted.query_image.unique())
    matrix = submitted.pivot(index="query_image", columns="gallery_image", values="similarity")
    labels = pd.read_csv(mini / "solution.csv", index_col="filename").ground_truth[images].to_numpy(str)
    by_file = jaguar_kit.identity_balanced_map(matrix.loc[images, images].fillna(1).to_numpy(), labels)
    assert found["test_map"] == pytest.approx(by_file, abs=1e-6), "what is judged is what is submitted"


def test_folds_are_members_and_other_splits_have_no_validation_of_their_own(trained, mini, tmp_path):
    members = [str(trained / f"{name}@{mini.name}") for name in ("folds", "small")]
    recipe = recipe_from_dict(
        {
            "name": "f",
            "train": {"epochs": 0},
            "data": {"size": 32},
            "ensemble": {"name": "evidence", "members": members, "fitted": True},
        }
    )
    found = jaguar_kit.read_json(run_recipe(recipe, mini, tmp_path, device="cpu").folder / "ensemble" / "metrics.json")
    assert [name.split("/")[-1] for name in found["runs"]] == ["fold0", "fold1", "seed1"]
    assert "map" not in found
    assert "different images" in found["chosen"]["why"]
    assert 0 <= found["test_map"] <= 1


def evidence(strength, labels, seed):
    """Evidence of one kind, likeness, that is right by its strength."""
    noise = np.random.default_rng(seed).standard_normal((len(labels), len(labels)))
    likeness = strength * (labels[:, None] == labels) + (noise + noise.T) / 2
    images = np.array([f"{i}.jpg" for i in range(len(labels))])
    return ensemble_room.Evidence(images, likeness, likeness, labels=labels)


def test_fitted_weights_are_taken_only_where_they_are_better_than_equal_ones():
    labels = np.repeat(np.arange(24), 5)
    one_sided = [evidence(3.0, labels, 0), evidence(0.0, labels, 1), evidence(0.0, labels, 2)]
    weights, why = ensemble_room.choose_weights(one_sided, labels, None, "pairs")
    assert weights[0] > max(weights[1:])
    assert why["gain"][1] > 0
    alike = [evidence(1.0, labels, seed) for seed in (3, 4, 5)]
    weights, why = ensemble_room.choose_weights(alike, labels, None, "pairs")
    assert weights.tolist() == [1, 1, 1]
    assert why["gain"][1] <= 0
    weights, why = ensemble_room.choose_weights(one_sided, labels % 4, None, "pairs")
    assert (weights.tolist(), why["why"]) == ([1, 1, 1], "below 10 identities nothing is fitted")


def test_names_of_members_that_know_other_individuals_are_averaged_by_name():
    images = np.array(["a", "b"])
    one = ensemble_room.Evidence(
        images, np.eye(2), np.eye(2), shares=np.array([[0.9, 0.1], [0.2, 0.8]]), identities=("x", "y"), form="product"
    )
    two = ensemble_room.Evidence(
        images, np.eye(2), np.eye(2), shares=np.array([[0.5, 0.5], [0.0, 1.0]]), identities=("y", "z"), form="product"
    )
    mean = np.array([[0.9, (0.1 + 0.5) / 2, 0.5], [0.2, (0.8 + 0.0) / 2, 1.0]])
    mean /= mean.sum(1, keepdims=True)
    np.testing.assert_allclose(ensemble_room.mean_posterior([one, two], [1.0, 1.0]), mean @ mean.T, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ensemble": {"name": "evidence", "members": ["nowhere"]}}, "nowhere: holds no finished run"),
        ({"ensemble": {"name": "evidence", "weights": [1, 2]}, "seeds": [1]}, r"weights: 2 for 1 runs"),
        ({"ensemble": {"name": "evidence", "weights": [0]}}, "some above 0"),
        ({"ensemble": {"name": "mean", "steps": ["tta"]}}, "tta asks for more than similarities"),
        ({"ensemble": "meen"}, "did you mean 'mean'"),
    ],
)
def test_an_ensemble_that_can_not_be_is_refused_before_any_work(changes, words, mini, tmp_path):
    with pytest.raises(KitError, match=words):
        run_recipe(recipe_of(**changes), mini, tmp_path, device="cpu")
    assert not any(tmp_path.iterdir())


def test_a_member_of_other_test_images_is_refused(trained, mini, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained / f"small@{mini.name}", other)
    path = other / "default" / "seed1" / "test.npz"
    kept = dict(np.load(path))
    kept["images"] = np.array([f"x{name}" for name in kept["images"]])
    np.savez(path, **kept)
    recipe = recipe_from_dict(
        {
            "name": "f",
            "train": {"epochs": 0},
            "data": {"size": 32},
            "ensemble": {"name": "mean", "members": [str(other)]},
        }
    )
    with pytest.raises(KitError, match="its test images are others than those of"):
        run_recipe(recipe, mini, tmp_path / "out", device="cpu")


def test_a_whitening_head_follows_its_formula_and_stays_only_where_it_helps():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 8)
    signal, scene = rng.standard_normal((30, 6))[labels], 4 * rng.standard_normal((len(labels), 2))
    features = torch.from_numpy(np.concatenate([signal + 0.3 * rng.standard_normal(signal.shape), scene], 1)).float()
    head = jaguar_kit.build("head", "whiten", in_features=8, shrinkage=0.2)
    assert head.fit_where_better(features, labels, None) == ""
    points = features.numpy().astype(float)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    within = np.concatenate([points[labels == one] - points[labels == one].mean(0) for one in range(30)])
    scatter = within.T @ within / len(points)
    scatter = 0.8 * scatter + 0.2 * np.trace(scatter) / 8 * np.eye(8)
    np.testing.assert_allclose(np.linalg.inv(head.matrix.numpy() @ head.matrix.numpy()), scatter, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(head(features).numpy(), (points - points.mean(0)) @ head.matrix.numpy(), atol=1e-4)
    nothing = torch.from_numpy(np.eye(30)[labels] + 0.01 * rng.standard_normal((len(labels), 30))).float()
    plain = jaguar_kit.build("head", "whiten", in_features=30)
    assert "on others than it was fitted on" in plain.fit_where_better(nothing, labels, None)
    torch.testing.assert_close(plain(nothing), jaguar_kit.l2_normalize(nothing))


@pytest.mark.ci
def test_a_run_with_a_whitening_head_trains_its_classes_and_is_told_again(mini, tmp_path):
    head = {"head": {"name": "whiten"}}
    recipe = recipe_of(name="white", model=head, postprocess=["tta", "posterior", "fuse"])
    result = run_recipe(recipe, mini, tmp_path, device="cpu")
    told = RunFolder(result.folder / "default" / "seed42").metrics()
    again = recipe_of(
        name="again",
        model=head,
        postprocess=["tta", "posterior", "fuse"],
        train={"epochs": 0},
        checkpoint=str(result.folder / "default" / "seed42"),
    )
    other = run_recipe(again, mini, tmp_path, device="cpu")
    assert RunFolder(other.folder / "default" / "seed42").metrics()["map"] == pytest.approx(told["map"])
    with pytest.raises(KitError, match="'whiten' is fitted to features that stay"):
        recipe_of(model={**head, "freeze": False})
