"""Encounters: what tells them, splits that keep them whole, and what a run says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jaguar_kit import KitError, load_competition, load_recipe, make_mini_dataset, recipe_from_dict, run_recipe


@pytest.fixture
def other_views(mini, tmp_path):
    """other_views(change) -> a copy of the mini-dataset, its views.csv changed."""

    def copy(change):
        root = tmp_path / "other"
        shutil.copytree(mini, root)
        change(pd.read_csv(root / "views.csv", dtype=str)).to_csv(root / "views.csv", index=False)
        return root

    return copy


def opened(root, **data):
    recipe = recipe_from_dict({"name": "met", "data": {"size": 32, **data}})
    return jaguar_kit.open_data(recipe, load_competition(root))


def same_groups(one, other):
    return (np.asarray(one)[:, None] == np.asarray(one)).tolist() == (
        np.asarray(other)[:, None] == np.asarray(other)
    ).tolist()


def test_a_burst_is_an_encounter_in_training_and_test_images(mini):
    images, views = opened(mini).competition, pd.read_csv(mini / "views.csv").set_index("path")
    for table in (images.train, images.test):
        assert same_groups(table.encounter, views.burst[table.path])
    assert any("encounters are told by the column burst" in note for note in images.notes)
    assert "identity" not in images.test


def test_the_column_encounter_comes_before_others_and_a_named_one_before_all(other_views):
    root = other_views(lambda views: views.assign(encounter=views.scene, visit=views.flank))
    train = opened(root).competition.train
    assert same_groups(train.encounter, train.scene)
    train = opened(root, encounter="visit").competition.train
    assert same_groups(train.encounter, train.flank)


def test_a_date_is_an_encounter_of_each_identity(other_views):
    root = other_views(lambda views: views.assign(date="2024-05-01"))
    train = opened(root, encounter="date").competition.train
    assert same_groups(train.encounter, train.identity)


def test_dates_of_unknown_animals_tell_nothing_so_that_near_duplicates_are_looked_for(other_views):
    root = other_views(lambda views: views.assign(date="2024-05-01"))
    images = opened(root, encounter="date")
    test, train = images.competition.test, images.competition.train
    hashes = jaguar_kit.perceptual_hashes(images.store.subset(len(train) + np.arange(len(test))))
    assert same_groups(test.encounter, jaguar_kit.find_bursts(test.assign(identity=""), hashes))
    assert test.encounter.duplicated().any()
    assert any("which are near-duplicates with neighbouring" in note for note in images.competition.notes)


def test_an_encounter_may_have_images_in_both_tables(other_views):
    root = other_views(lambda views: views.assign(encounter=views.scene))
    images, views = opened(root).competition, pd.read_csv(root / "views.csv").set_index("path")
    both = pd.concat([images.train, images.test])
    assert same_groups(both.encounter, views.scene[both.path])


def test_without_a_column_near_duplicates_are_found(other_views):
    root = other_views(lambda views: views.drop(columns="burst"))
    images = opened(root)
    hashes = jaguar_kit.perceptual_hashes(images.store.subset(np.arange(len(images.competition.train))))
    expected = jaguar_kit.find_bursts(images.competition.train, hashes)
    assert same_groups(images.competition.train.encounter, expected)
    assert any("encounters are near-duplicates" in note for note in images.competition.notes)
    assert set(images.competition.test.encounter).isdisjoint(images.competition.train.encounter)


@pytest.mark.parametrize(
    ("column", "message"),
    [("brust", r"data\.encounter: 'brust' is in no table.*did you mean 'burst'"), ("empty", "is empty for all")],
)
def test_a_column_that_tells_nothing_is_one_line(other_views, column, message):
    root = other_views(lambda views: views.assign(empty=""))
    with pytest.raises(KitError, match=message):
        opened(root, encounter=column)


def test_a_random_split_says_how_many_encounters_it_parts_and_a_safe_one_parts_none(mini):
    said = [note for note in opened(mini).competition.notes if "parts" in note]
    assert len(said) == 1
    assert "encounter_safe keeps them whole" in said[0]
    images = opened(mini, split="encounter_safe")
    ((rows, held_out),) = images.splits
    met = images.competition.train.encounter.to_numpy()
    assert not set(met[rows]) & set(met[held_out])
    assert set(images.competition.train.identity.iloc[rows]) == set(images.competition.train.identity)
    assert not [note for note in images.competition.notes if "parts" in note]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=4, max_size=60), st.integers(0, 5))
def test_groups_stay_whole_and_identities_stay_in_training(drawn, seed):
    table = pd.DataFrame({"identity": [f"cat{i}" for i, _ in drawn], "encounter": [10 * i + e for i, e in drawn]})
    ((rows, held_out),) = jaguar_kit.encounter_safe_split(table, None, seed, 0.3)
    assert sorted([*rows, *held_out]) == list(range(len(table)))
    assert not set(table.encounter.iloc[rows]) & set(table.encounter.iloc[held_out])
    assert set(table.identity.iloc[rows]) == set(table.identity)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=12, max_size=80),
    st.integers(0, 5),
    st.integers(2, 3),
    st.booleans(),
)
def test_what_validates_across_encounters_has_partners_there_and_leaves_two_images(drawn, seed, encounters, mixed):
    """mixed: an encounter may show several identities."""
    met = [e if mixed else 10 * i + e for i, e in drawn]
    table = pd.DataFrame({"identity": [f"cat{i}" for i, _ in drawn], "encounter": met})
    try:
        ((rows, held_out),) = jaguar_kit.encounter_safe_split(table, None, seed, 0.5, encounters)
    except KitError:
        assume(False)
    assert sorted([*rows, *held_out]) == list(range(len(table)))
    assert 0 < len(held_out) <= 0.5 * len(table) + 0.5
    own, out = table.iloc[rows], table.iloc[held_out]
    assert not set(own.encounter) & set(out.encounter)
    assert (own.identity.value_counts().reindex(out.identity.unique()) >= 2).all()
    if not mixed:
        assert (out.groupby("identity").encounter.nunique() == encounters).all()


def test_holding_out_two_encounters_measures_across_them(other_views):
    root, found = other_views(lambda views: views.drop(columns="scene")), []
    for encounters in (1, 2):
        images = opened(root, split={"name": "encounter_safe", "encounters": encounters, "validation": 0.25})
        held_out = images.competition.train.iloc[images.splits[0][1]]
        found.append(held_out.groupby("identity").encounter.nunique())
    assert (found[1] == 2).all(), "every image that validates has a partner in another encounter"
    assert len(found[1]) < len(found[0])


def test_a_row_of_views_tells_of_one_image_though_both_parts_have_its_name(mini, tmp_path):
    root = tmp_path / "twice"
    shutil.copytree(mini, root)
    table, test = pd.read_csv(root / "train.csv"), load_competition(mini).test
    paths = load_competition(mini).train.path
    name = Path(test.path.iloc[0]).name
    old = root / paths.iloc[0]
    old.rename(old.with_name(name))
    table.loc[0, "filename"] = name
    table.to_csv(root / "train.csv", index=False)
    own = str(Path(paths.iloc[0]).with_name(name))
    views = pd.DataFrame({"path": [own], "flank": ["left"]})
    views.to_csv(root / "views.csv", index=False)
    found = load_competition(root)
    assert found.train.flank.iloc[0] == "left"
    assert found.test.get("flank", pd.Series(dtype=object)).isna().all(), "a test image of that name is another image"
    views.rename(columns={"path": "filename"}).assign(filename=name).to_csv(root / "views.csv", index=False)
    found = load_competition(root)
    assert found.train.flank.isna().all(), "a bare name that two images have tells of neither"


def test_an_open_set_reads_views_and_names_what_may_be_masks(tmp_path):
    root = make_mini_dataset(tmp_path / "clef", identities=9, images=90, layout="animalclef")
    competition = load_competition(root)
    paths = [*competition.train.path, *competition.test.path]
    pd.DataFrame({"path": paths, "visit": [f"v{i // 2}" for i in range(len(paths))]}).to_csv(
        root / "views.csv", index=False
    )
    (root / "masks").mkdir()
    found = load_competition(root)
    assert found.train.visit.iloc[0] == "v0"
    assert found.test.visit.notna().all()
    assert any("masks may hold masks, and is not read (name it in data.masks)" in note for note in found.notes)
    assert not any("may hold masks" in note for note in load_competition(root, "masks").notes)


def test_several_splits_are_a_grid(write_recipe):
    recipe = load_recipe(write_recipe({"name": "both", "splits": ["stratified", "encounter_safe"]}))
    assert [spec.variant for spec in jaguar_kit.expand(recipe)] == ["split=stratified", "split=encounter_safe"]
    assert [spec.recipe.data.split.name for spec in jaguar_kit.expand(recipe)] == ["stratified", "encounter_safe"]


@pytest.mark.ci
def test_a_run_has_a_twin_of_every_map(mini, tmp_path):
    recipe = recipe_from_dict(
        {
            "name": "twins",
            "data": {"size": 32},
            "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
            "train": {"epochs": 2, "select": "map_across", "monitor": "map_across"},
            "postprocess": ["query_expansion"],
        }
    )
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    row = result.table.iloc[0]
    names_of_twins = ("map", "map_postprocessed", "test_map", "test_map_postprocessed", "untrained")
    for name in names_of_twins:
        assert 0 < row[f"{name}_across"] <= 1
    folder = jaguar_kit.RunFolder(result.folder / "default" / "seed42")
    arrays, images = folder.arrays("validation.npz", "embeddings", "labels"), opened(mini).competition.train
    met = images.set_index("filename").encounter[arrays["images"]].to_numpy()
    cosines = jaguar_kit.similarity_matrix(arrays["embeddings"])
    expected = jaguar_kit.identity_balanced_map(cosines, arrays["labels"], met)
    assert row.map_across == pytest.approx(expected)
    assert folder.log().map_across.notna().all()
    assert "across encounters" in result.report.read_text(encoding="utf-8")


def test_selecting_across_encounters_needs_some(other_views, tmp_path):
    root = other_views(lambda views: views.assign(encounter=views.path))
    recipe = recipe_from_dict({"name": "none", "data": {"size": 32}, "train": {"select": "map_across"}})
    with pytest.raises(KitError, match=r"train\.select: map_across needs encounters"):
        jaguar_kit.open_data(recipe, load_competition(root))
