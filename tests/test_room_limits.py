"""What a reader must find on every report: twelve points, among them confounders and limits."""

from __future__ import annotations

import re

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from cases import every
from jaguar_kit import load_recipe, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments.analysis_words import separation
from jaguar_kit_tools.experiments.limits import animal_limit, choice_limit, confounder_words, limit_words
from jaguar_kit_tools.experiments.smoke import made_small
from sklearn.metrics import roc_auc_score
from test_room_reports import THREE, log_of, logs_of, recipe_of, table_of

MESSAGE = (
    r"!\[(No variant is told from|Told from|The highest mean is|Of \d+ (runs|epochs number \d+)"
    r"|search\.space: the best of)"
)
POINTS = {  # what a page must hold, as a pattern
    "question": r"\*\*Question\.\*\* \w",
    "intervention": r"\*\*Intervention\.\*\* \w",
    "what varied": r"### What (each variant changes|the search varies)\n\n\||^Nothing varies",
    "data": r"\*\*Data\.\*\* .*: \d+ images of \d+ identities in \d+ encounters",
    "protocol": r"\*\*How it was measured\.\*\* Identity-balanced mAP of validation images, split \w",
    "table with an interval": r"\| low(_animals)? \||fewer than 10 identities that count: there is no interval\.",
    "figure with a message": MESSAGE,
    "confounders": r"### Confounders\n\n\* \w",
    "answer": r"## Answer\n\n\* \w",
    "limits": r"### Limits\n\n\* \w",
    "next step": r"### What next\n\n\* \w",
    "command": r"## The same again\n\n```\n[^`]*python -m jaguar_kit (run|report) ",
}


OF_ANALYSES = POINTS | {  # on a page without runs
    "what varied": r"### What varied\n\n\* \w",
    "data": r"\*\*Data\.\*\* .*: \d+ images of \d+ identities",
    "protocol": r"\*\*Protocol\.\*\* \w",
    "table with an interval": r"\| low \|",
    "figure with a message": r"!\[\w+ ranks (best|pairs) with AUC ",
}


def points_missing(told, points=POINTS):
    return [point for point, pattern in points.items() if not re.search(pattern, told, re.MULTILINE)]


def test_a_page_without_its_points_is_found_out():
    assert points_missing("# A page\n\nof words") == list(POINTS)


@pytest.mark.ci
@every("name", ["lbe06a", "lbe09", "eda02", "lbe10", "evidence"])
def test_every_point_is_on_the_page(name, tmp_path):
    recipe = load_recipe(name)
    result = run_recipe(made_small(recipe), out=tmp_path, device="cpu")
    told = (result.folder / "report.md").read_text()
    assert points_missing(told) == []
    assert recipe.question.strip() in told
    assert recipe.intervention.strip() in told
    assert recipe.protocol.strip() in told
    assert "The images are drawn: nothing here is of real animals." in told


@pytest.mark.ci
def test_every_point_is_on_the_page_of_an_analysis(tmp_path):
    result = run_recipe(made_small(load_recipe("eda03")), out=tmp_path, device="cpu")
    told = (result.folder / "report.md").read_text()
    assert points_missing(told, OF_ANALYSES) == []
    assert "The images are drawn: nothing here is of real animals." in told


def test_the_cosine_s_auc_is_that_of_scikit_learn_and_its_interval_goes_over_identities():
    rng, names = np.random.default_rng(0), np.repeat([f"i{k}" for k in range(12)], 4)
    vectors = rng.normal(size=(48, 8)) + np.repeat(rng.normal(size=(12, 8)), 4, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (row,) = separation({"m": vectors @ vectors.T}, names).to_dict("records")
    pairs = [(i, j) for i in range(48) for j in range(i)]
    assert row["auc"] == roc_auc_score(
        [names[i] == names[j] for i, j in pairs], [vectors[i] @ vectors[j] for i, j in pairs]
    )
    own = []
    for name in np.unique(names):
        asked = [(i, j) for i in range(48) for j in range(48) if names[i] == name and i != j]
        own.append(roc_auc_score([names[j] == name for _, j in asked], [vectors[i] @ vectors[j] for i, j in asked]))
    assert row["of_an_identity"] == pytest.approx(np.mean(own))
    assert (row["low"], row["high"]) == pytest.approx(jaguar_kit.mean_interval(own))


def test_intervals_over_animals_stand_in_the_table(tmp_path):
    table, rng = table_of(first={1: 0.5}, second={1: 0.6}), jaguar_kit.np.random.default_rng(0)
    by_identity = pd.DataFrame({"first": rng.random(20), "second": rng.random(20)})
    jaguar_kit.write_report(tmp_path, recipe_of(), table, logs_of(table), [], by_identity=by_identity)
    told = (tmp_path / "report.md").read_text()
    low, high = jaguar_kit.mean_interval(by_identity["second"])
    row = next(line for line in told.splitlines() if line.startswith("| second | 1 |"))
    assert f"| {low:.4f} | {high:.4f} |" in row
    assert "low animals to high animals: 95 % over identities." in told
    few = by_identity[:9]
    jaguar_kit.write_report(tmp_path, recipe_of(), table, logs_of(table), [], by_identity=few)
    told = (tmp_path / "report.md").read_text()
    assert "low_animals" not in told
    assert "One seed, and fewer than 10 identities that count: there is no interval." in told


def confounders_of(table, **settings):
    recipe = recipe_from_dict({"name": "tried", **settings})
    return " ".join(confounder_words(recipe, table, logs_of(table, log_of(0.1, 0.2, 0.3))))


def test_what_differs_beside_the_intervention_is_named():
    alike = table_of(first=THREE, second=THREE)
    assert confounders_of(alike).startswith("Each variant has the seeds, the validation images and the length")
    assert "Other seeds than first's: second" in confounders_of(table_of(first=THREE, second={1: 0.4}))
    longer = alike.assign(epochs=[10] * 3 + [20] * 3)
    assert "epochs of training, from 10 (first) to 20 (second)" in confounders_of(longer)
    larger = alike.assign(trainable=[100] * 3 + [130] * 3)
    assert "parameters that learn, from 100 (first) to 130 (second)" in confounders_of(larger)
    elsewhere = alike.assign(validated_on=["a"] * 3 + ["b"] * 3)
    assert "Validated on other images than first: second" in confounders_of(elsewhere)
    both = {"variants": {"first": {}, "second": {"loss": "triplet", "train": {"lr": 0.1}}}}
    assert "More than one thing at once differs in second" in confounders_of(alike, **both)
    assert "draws all its settings at once" in confounders_of(
        alike, search={"space": {"train.lr": {"low": 0.1, "high": 1}}}
    )


def test_the_scene_is_a_confounder_unless_it_is_left_out():
    table = table_of(first=THREE)
    assert "how much of it is the scene is not told (data.split: encounter_safe" in confounders_of(table)
    across = table.assign(map_across=0.3, identities_across=30)
    assert "which stands beside it, leaves them out" in confounders_of(across)
    assert "but of 9 identities, too few to tell anything" in confounders_of(across.assign(identities_across=9))


def test_limits_say_what_seeds_animals_and_choices_do_not_tell():
    one, many = table_of(first={1: 0.5}), table_of(first=THREE, second=THREE)
    assert limit_words(recipe_of(), one)[0].startswith("One seed:")
    assert limit_words(recipe_of(), many, synthetic=True)[:2] == [
        "The images are drawn: nothing here is of real animals.",
        "3 seeds: intervals over them tell of other seeds, not of other animals.",
    ]
    precision = pd.DataFrame({"first": range(10)})
    assert animal_limit(precision).startswith("10 identities: intervals")
    assert animal_limit(pd.DataFrame()).startswith("Seeds split anew")
    assert animal_limit(precision[:9]).startswith("9 identities are fewer than 10")
    assert "the epoch and the best of 2 variants" in choice_limit(recipe_of(), many)
    last = recipe_of(train={"select": "last"})
    assert choice_limit(last, one) == "Nothing is chosen by the validation images. No test image was scored."
    assert "The test images, which chose nothing" in choice_limit(last, one.assign(test_map=0.3))
