"""Open sets: the score of known and unknown individuals, thresholds, AnimalCLEF's layout, its split, answers and runs.

The references are slow loops written from the definitions; they stand beside what they check.
"""

import itertools
import json
import math
import shutil
from types import SimpleNamespace

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import (
    KitError,
    load_competition,
    make_mini_dataset,
    recipe_from_dict,
)
from jaguar_kit_tools.experiments import mini_dataset, open_set
from jaguar_kit_tools.experiments import report as report_room
from jaguar_kit_tools.experiments.open_set import (
    OpenSetJudge,
    answers_of,
    balanced_accuracy,
    best_beside,
    calibrate_matches,
    cross_fitted_score,
    fit_thresholds,
    nearest_identities,
    open_set_score,
    score_guesses,
    shares_of_score,
    threshold_curve,
    validate_answers,
    write_answers,
)
from PIL import Image
from sklearn.model_selection import train_test_split

NEW = "new_individual"
PROPERTY = settings(deadline=None, max_examples=60)
KNOWN, UNKNOWN = ("a", "b", "c"), ("x", "y")


# the references


def slow_balanced(truth, right):
    """Mean over the true identities of the share of their queries that are right."""
    shares = []
    for identity in sorted(set(truth)):
        own = [r for t, r in zip(truth, right) if t == identity]
        shares.append(sum(own) / len(own))
    return sum(shares) / len(shares) if shares else math.nan


def slow_open_set_score(truth, answer, known):
    pairs = list(zip(truth, answer))
    of_known = [(t, a) for t, a in pairs if t in known]
    of_unknown = [(t, a) for t, a in pairs if t not in known]
    baks = slow_balanced([t for t, _ in of_known], [t == a for t, a in of_known])
    baus = slow_balanced([t for t, _ in of_unknown], [a == NEW for _, a in of_unknown])
    return {"baks": baks, "baus": baus, "score": (baks * baus) ** 0.5}


def slow_score(guesses, thresholds):
    """The score of guesses, each taken where it reaches its species' threshold."""
    species, identity, score, truth, known = (
        list(guesses[c]) for c in ("species", "identity", "score", "truth", "known")
    )
    rows = zip(species, identity, score)
    answer = [name if value >= thresholds.get(of, thresholds.get("")) else NEW for of, name, value in rows]
    return slow_open_set_score(truth, answer, {name for name, there in zip(truth, known) if there})["score"]


def candidates(scores):
    """Every score, and a value below, between and above: no other threshold decides otherwise."""
    values = sorted(set(scores))
    return [values[0] - 1, *values, *[(a + b) / 2 for a, b in itertools.pairwise(values)], values[-1] + 1]


def slow_nearest(similarity, identities, k, allowed):
    """For each query the best score of each identity, best first, equal ones by name; "" where there are no more."""
    names_found, scores_found = [], []
    for i, row in enumerate(similarity):
        best = {}
        for j, identity in enumerate(identities):
            if allowed is None or allowed[i][j]:
                best[identity] = max(best.get(identity, -math.inf), row[j])
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:k]
        ranked += [("", -math.inf)] * (k - len(ranked))
        names_found.append([name for name, _ in ranked])
        scores_found.append([score for _, score in ranked])
    return names_found, scores_found


def guesses_of(*rows):
    """A table of guesses from (species, identity, score, truth); what begins with x or y is unknown."""
    table = pd.DataFrame(rows, columns=["species", "identity", "score", "truth"])
    table.insert(0, "image_id", [str(i) for i in range(len(table))])
    return table.assign(known=~table.truth.str.startswith(("x", "y")))


@st.composite
def guesses(draw, species=("",), least=2, most=10):
    """Guesses with ties (scores in eighths), of both kinds of individuals."""
    row = st.tuples(
        st.sampled_from(species), st.sampled_from(KNOWN), st.integers(0, 8), st.sampled_from([*KNOWN, *UNKNOWN])
    )
    rows = draw(st.lists(row, min_size=least, max_size=most))
    rows = [(s, i, score / 8, t) for s, i, score, t in rows]
    rows += [(draw(st.sampled_from(species)), "a", draw(st.integers(0, 8)) / 8, t) for t in ("a", "x")]
    return guesses_of(*rows)


def assert_same_score(got, expected, about=""):
    assert got.keys() == {"baks", "baus", "score"}
    for name in got:
        assert got[name] == pytest.approx(expected[name], rel=1e-12, nan_ok=True), f"{name} {about}"


# the score


@PROPERTY
@given(
    st.lists(
        st.tuples(st.sampled_from([*KNOWN, *UNKNOWN]), st.sampled_from([*KNOWN, *UNKNOWN, NEW])),
        min_size=0,
        max_size=15,
    ),
    st.sets(st.sampled_from([*KNOWN, *UNKNOWN])),
)
def test_the_score_is_that_of_the_slow_loops(pairs, known):
    truth, answer = [t for t, _ in pairs], [a for _, a in pairs]
    assert_same_score(open_set_score(truth, answer, known), slow_open_set_score(truth, answer, known))


def test_the_score_of_cases_worked_by_hand():
    for truth, answer, known, baks, baus in (
        ("a b x", f"a b {NEW}", "a b", 1, 1),  # all right
        ("a b x", f"{NEW} a b", "a b", 0, 0),  # all wrong
        ("a b", f"a {NEW}", "a b", 0.5, math.nan),  # none unknown, and a known one answered new
        ("x y", f"a {NEW}", "a b", math.nan, 0.5),  # none known, and an unknown one answered with a name
        ("a a a a", f"a a a {NEW}", "a", 0.75, math.nan),  # one class
        ("x x x x", f"{NEW} a a a", "a", math.nan, 0.25),
        ("a a a b", "a a b b", "a b", 5 / 6, math.nan),  # each identity counts alike, not each query
        ("a x x x y", f"a {NEW} {NEW} {NEW} a", "a", 1, 0.5),
        ("x", "x", "a", math.nan, 0),  # even its own name is wrong for one that nobody knows
        ("a x", "b y", "a", 0, 0),
    ):
        told = open_set_score(truth.split(), answer.split(), known.split())
        expected = {"baks": baks, "baus": baus, "score": math.sqrt(baks * baus)}
        assert_same_score(told, expected, f"{truth} answered {answer}")


def test_the_score_is_the_geometric_mean():
    told = open_set_score(["a", "a", "x", "x", "x", "x"], ["a", NEW, NEW, "a", "a", "a"], ["a"])
    assert told == {"baks": 0.5, "baus": 0.25, "score": pytest.approx(math.sqrt(0.125))}


def test_without_queries_every_score_is_nan():
    assert all(math.isnan(value) for value in open_set_score([], [], ["a"]).values())


def test_each_query_needs_one_answer():
    for truth, answer in ((["a"], ["a", "b"]), (["a", "b"], []), ([["a", "b"]], [["a", "b"]])):
        with pytest.raises(KitError, match=r"expected one (label )?for each"):
            open_set_score(truth, answer, ["a"])


def test_tables_are_compared_by_place_not_by_their_index():
    truth, answer = pd.Series(["a", "x"], index=[7, 7]), pd.Series(["a", NEW], index=[1, 0])
    assert open_set_score(truth, answer, pd.Series(["a"]))["score"] == 1


@PROPERTY
@given(st.lists(st.tuples(st.sampled_from(KNOWN), st.booleans()), min_size=1, max_size=12))
def test_balanced_accuracy_is_that_of_the_slow_loops(pairs):
    truth, right = np.array([t for t, _ in pairs]), np.array([r for _, r in pairs])
    assert balanced_accuracy(truth, right) == pytest.approx(slow_balanced(truth, right))


def test_balanced_accuracy_of_nothing_is_nan():
    assert math.isnan(balanced_accuracy(np.array([], str), np.array([], bool)))


# the nearest identities


@PROPERTY
@given(st.data())
def test_nearest_identities_are_those_of_the_slow_loops(data):
    rows, size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7))
    eighths = st.lists(st.integers(-8, 8), min_size=rows * size, max_size=rows * size)
    similarity = np.array(data.draw(eighths), np.float32).reshape(rows, size) / 8
    identities = data.draw(st.lists(st.sampled_from("dbca"), min_size=size, max_size=size))
    flags = st.lists(st.booleans(), min_size=rows * size, max_size=rows * size)
    allowed = data.draw(st.none() | flags.map(lambda x: np.array(x).reshape(rows, size)))
    k = data.draw(st.integers(1, len(set(identities))))
    found, scores = nearest_identities(similarity, identities, k, allowed)
    expected_names, expected_scores = slow_nearest(similarity.tolist(), identities, k, allowed)
    assert found.tolist() == expected_names
    np.testing.assert_array_equal(scores, expected_scores)


def test_rows_with_nothing_allowed_have_no_identity():
    allowed = np.array([[False, False, False], [True, False, False]])
    found, scores = nearest_identities(np.ones((2, 3), np.float32), ["b", "a", "a"], 2, allowed)
    assert found.tolist() == [["", ""], ["b", ""]]
    assert scores.tolist() == [[-math.inf, -math.inf], [1, -math.inf]]


def test_the_best_image_of_an_identity_tells_not_their_mean():
    found, scores = nearest_identities(torch.tensor([[0.9, -1.0, 0.5, 0.5]]), ["a", "a", "b", "b"], 2)
    assert found.tolist() == [["a", "b"]]
    np.testing.assert_allclose(scores, [[0.9, 0.5]], rtol=1e-6)


def test_more_identities_than_there_are_leave_empty_places():
    found, scores = nearest_identities(np.array([[0.25, 0.5]], np.float32), ["a", "b"], 4)
    assert found.shape == (1, 4), "(N, k) is promised, and '' with -inf where fewer than k identities are allowed"
    assert found.tolist() == [["b", "a", "", ""]]
    assert scores.tolist() == [[0.5, 0.25, -math.inf, -math.inf]]


def test_no_query_has_no_identity():
    try:
        found, scores = nearest_identities(np.zeros((0, 3), np.float32), ["a", "b", "b"], 2)
    except ValueError as error:
        pytest.fail(f"no query is no fault, but: {error}")
    assert found.shape == scores.shape == (0, 2)


def test_nearest_identities_refuse_another_number_of_names():
    with pytest.raises(KitError, match="does not fit 2 identities"):
        nearest_identities(np.eye(3, dtype=np.float32), ["a", "b"])


def test_many_queries_are_answered_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    similarity, identities = rng.random((37, 11)).astype(np.float32), rng.choice(list("abcd"), 11)
    whole = nearest_identities(similarity, identities, 3)
    monkeypatch.setattr(open_set, "rows_at_a_time", lambda *_: 5)
    for got, expected in zip(nearest_identities(similarity, identities, 3), whole):
        np.testing.assert_array_equal(got, expected)


# answers and thresholds


def test_a_guess_is_taken_from_its_species_threshold_on():
    table = guesses_of(("cat", "a", 0.5, "a"), ("cat", "a", 0.4, "a"), ("dog", "b", 0.4, "b"), ("elk", "c", 0.2, "c"))
    assert answers_of(table, {"cat": 0.5, "dog": 0.3, "": 0.25}).tolist() == ["a", NEW, "b", NEW]
    assert answers_of(table, {"": 0.4}).tolist() == ["a", "a", "b", NEW]


def test_a_species_without_a_threshold_is_refused():
    with pytest.raises(KitError, match="there is none for species 'dog'"):
        answers_of(guesses_of(("cat", "a", 0.5, "a"), ("dog", "a", 0.5, "a")), {"cat": 0.5})


@PROPERTY
@given(guesses())
def test_the_curve_is_the_score_at_each_of_its_thresholds(table):
    curve = threshold_curve(table)
    values = sorted(set(table.score))
    assert len(curve) == len(values) + 1
    assert (np.searchsorted(values, curve.threshold) == np.arange(len(curve))).all()  # one in each gap, and both ends
    for row in curve.itertuples():
        expected = open_set_score(table.truth, answers_of(table, {"": row.threshold}), table.truth[table.known])
        assert_same_score({"baks": row.baks, "baus": row.baus, "score": row.score}, expected)


@PROPERTY
@given(guesses(species=("", "cat", "dog")), st.integers(-1, 9))
def test_the_score_of_guesses_is_that_of_the_slow_loops(table, eighths):
    thresholds = {"": eighths / 8, "cat": 0.5}
    assert score_guesses(table, thresholds)["score"] == pytest.approx(slow_score(table, thresholds))


@PROPERTY
@given(guesses(most=14))
def test_no_other_threshold_is_better(table):
    fitted = fit_thresholds(table)
    assert fitted.keys() == {""}
    assert slow_score(table, fitted) == pytest.approx(max(slow_score(table, {"": t}) for t in candidates(table.score)))


def test_scores_that_are_the_nearest_numbers_are_told_apart():
    for score in (0.3, 0.5, 0.7, 0.9, 0.999):
        table = guesses_of(("", "a", np.nextafter(score, 1), "a"), ("", "a", score, "x"))
        fitted = fit_thresholds(table)
        assert score_guesses(table, fitted)["score"] == threshold_curve(table).score.max() == 1, score


@PROPERTY
@given(guesses(species=("cat", "dog", "elk"), most=14))
def test_thresholds_by_species_are_never_worse_than_one(table):
    fitted = fit_thresholds(table, per_species=True)
    several = set(table.species) if table.species.nunique() > 1 else set()
    assert fitted.keys() == {"", *several}
    assert fitted[""] == fit_thresholds(table)[""]
    assert slow_score(table, fitted) >= slow_score(table, {"": fitted[""]}) - 1e-12


def test_queries_without_a_species_do_not_spoil_the_others_thresholds():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = [
            (rng.choice(["", "cat", "dog"]), rng.choice(KNOWN), float(rng.random()), truth)
            for truth in rng.choice([*KNOWN, *UNKNOWN], 12)
        ]
        table = guesses_of(*rows, ("cat", "a", 0.5, "a"), ("dog", "a", 0.4, "x"))
        fitted = fit_thresholds(table, per_species=True)
        one = slow_score(table, {"": fitted[""]})
        assert slow_score(table, fitted) >= one - 1e-12, f"seed {seed}: one threshold for all scores more"


SCALES = {
    "apart": [
        *[("cat", "a", s, t) for s, t in ((0.9, "a"), (0.8, "a"), (0.7, "x1"), (0.6, "x2"))],
        *[("dog", "b", s, t) for s, t in ((0.4, "b"), (0.3, "b"), (0.2, "y1"), (0.1, "y2"))],
    ],
    "overlapping": [
        *[("cat", "a", s, t) for s, t in ((0.95, "a"), (0.9, "a"), (0.85, "x1"), (0.8, "a"), (0.7, "x1"), (0.6, "x2"))],
        *[("dog", "b", s, t) for s, t in ((0.45, "b"), (0.4, "y1"), (0.35, "b"), (0.3, "b"), (0.2, "y1"), (0.1, "y2"))],
    ],
    "three": [
        *[("cat", "a", s, t) for s, t in ((0.9, "a"), (0.8, "a"), (0.7, "x1"), (0.65, "x2"))],
        *[("dog", "b", s, t) for s, t in ((0.6, "b"), (0.55, "b"), (0.5, "y1"), (0.45, "y2"))],
        *[("elk", "c", s, t) for s, t in ((0.3, "c"), (0.2, "c"), (0.1, "x3"), (0.05, "y3"))],
    ],
}


@pytest.mark.parametrize("name", SCALES)
def test_thresholds_by_species_are_better_and_best_where_species_differ_in_scale(name):
    table = guesses_of(*SCALES[name])
    species = sorted(set(table.species))
    grid = [candidates(table.score[table.species == s]) for s in species]
    best = max(slow_score(table, dict(zip(species, chosen))) for chosen in itertools.product(*grid))
    fitted = fit_thresholds(table, per_species=True)
    assert slow_score(table, fitted) == pytest.approx(best)
    assert best > slow_score(table, fit_thresholds(table)) + 0.05


@PROPERTY
@given(guesses(species=("cat", "dog"), most=8), st.integers(0, 9))
def test_best_beside_is_the_best_given_the_others(table, eighths):
    now = {"cat": eighths / 8 - 1 / 16, "dog": 0.4}
    own = (table.species == "cat").to_numpy()
    if not own.any():
        return
    taken, left = shares_of_score(table)
    others = ~own & (table.score >= 0.4).to_numpy(), ~own & (table.score < 0.4).to_numpy()
    beside = taken[others[0]].sum(), left[others[1]].sum()
    found = best_beside(table.score.to_numpy()[own], taken[own], left[own], beside, now["cat"])
    best = max(slow_score(table, {**now, "cat": t}) for t in candidates(table.score[own]))
    assert slow_score(table, {**now, "cat": found}) == pytest.approx(best, abs=1e-6)
    if slow_score(table, now) ** 2 >= best**2 - 1e-13:
        assert found == now["cat"]  # the present one, on a tie


def test_a_threshold_needs_both_kinds_of_queries():
    for truth, kind in (("ab", "known"), ("xy", "unknown")):
        with pytest.raises(KitError, match=f"all 2 queries are of {kind} individuals; both kinds are needed"):
            fit_thresholds(guesses_of(*[("", "a", 0.5, name) for name in truth]))


# the cross-fitted score


def test_no_half_is_judged_by_a_threshold_of_its_own():
    # Fitted on itself, each half would score 1; by the other half's threshold one of two is wrong in each.
    table = guesses_of(("", "a", 0.9, "a"), ("", "a", 0.8, "x"), ("", "b", 0.3, "b"), ("", "b", 0.2, "y"))
    assert score_guesses(table, fit_thresholds(table))["score"] == pytest.approx(math.sqrt(0.5))
    for seed in range(6):
        told = cross_fitted_score(table, seed=seed)
        assert_same_score(told, {"baks": 0.5, "baus": 0.5, "score": 0.5}, f"seed {seed}")


def animals_of_two_species(seed):
    """Guesses for 15 queries of five known individuals and 8 of four unknown ones."""
    rng = np.random.default_rng(seed)
    truths = rng.permutation([*"abcde" * 3, *["x1", "x2", "x3", "y1"] * 2])
    rows = zip(rng.choice(["cat", "dog"], 23), rng.random(23), truths)
    return guesses_of(*[(s, rng.choice(list("abcde")), r, t) for s, r, t in rows])


@pytest.mark.parametrize(("seed", "per_species"), [(0, False), (1, True), (2, False), (3, True)])
def test_halves_share_no_identity_and_each_is_judged_by_the_other(seed, per_species, monkeypatch):
    table, fitted_on, judged = animals_of_two_species(seed), [], []
    fit, answer = open_set.fit_thresholds, open_set.answers_of
    monkeypatch.setattr(open_set, "fit_thresholds", lambda t, *a: (fitted_on.append(t), fit(t, *a))[1])
    monkeypatch.setattr(open_set, "answers_of", lambda t, *a: (judged.append(t), answer(t, *a))[1])
    told = cross_fitted_score(table, per_species, seed=seed)
    assert len(fitted_on) == len(judged) == 2
    for fitted, others in zip(fitted_on, judged):
        assert not set(fitted.truth) & set(others.truth)
        assert sorted([*fitted.image_id, *others.image_id]) == sorted(table.image_id)
        assert fitted.known.any()
        assert not fitted.known.all()
    given_answers = dict(
        pair
        for fitted, others in zip(fitted_on, judged)
        for pair in zip(others.image_id, answer(others, fit(fitted, per_species)))
    )
    answers = [given_answers[name] for name in table.image_id]
    assert_same_score(told, slow_open_set_score(list(table.truth), answers, set("abcde")))


def test_a_half_that_lacks_a_kind_makes_the_score_nan():
    for known, unknown in (("a", "xy"), ("ab", "x"), ("abc", "")):
        table = guesses_of(*[("", "a", i / 8, t) for i, t in enumerate([*known * 2, *unknown * 2])])
        told = cross_fitted_score(table)
        assert told.keys() == {"baks", "baus", "score"}
        assert all(math.isnan(value) for value in told.values()), f"known {known}, unknown {unknown}"


# confidence


@pytest.mark.parametrize("size", [60, 1500])
def test_confidence_rises_with_the_score_and_fits_how_often_it_is_right(size):
    rng = np.random.default_rng(1)
    scores = rng.uniform(-1, 1, size)
    right = rng.random(size) < (scores + 1) / 2
    confidence = calibrate_matches(scores, right)(np.linspace(-1, 1, 41))
    assert (np.diff(confidence) > 0).all()
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert np.abs(confidence - np.linspace(0, 1, 41)).mean() < 0.12


def test_confidence_rises_even_where_the_wrong_matches_score_higher():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1])
    confidence = calibrate_matches(scores, scores < 0.5)([0.1, 0.5, 0.9])
    assert (np.diff(confidence) > 0).all(), f"Calibrator is strictly rising, so that order is kept; got {confidence}"


def test_no_scores_have_no_confidence():
    calibrate = calibrate_matches(np.arange(8.0), np.arange(8) > 3)
    try:
        confidence = calibrate(np.zeros(0))
    except ValueError as error:
        pytest.fail(f"nothing to calibrate is no fault, but: {error}")
    assert confidence.shape == (0,)


# AnimalCLEF's layout

COLUMNS = ["image_id", "identity", "path", "date", "orientation", "species", "split", "dataset"]


def album(root, known=4, queries=3):
    """A small folder in AnimalCLEF's layout: images 1, 2, ... of two species; even rows of the database are pairs."""
    rows = []
    for i in range(1, 2 * known + queries + 1):
        database = i <= 2 * known
        species = ("lynx", "turtle")[(i - 1) // 2 % 2]
        rows.append(
            {
                "image_id": str(i),
                "identity": f"{species}{(i - 1) // 2}" if database else "",
                "path": f"images/{i:02d}.png",
                "date": "2024-05-01",
                "orientation": ("left", "right", "top")[i % 3],
                "species": species,
                "split": "database" if database else "query",
                "dataset": "Made",
            }
        )
        path = root / rows[-1]["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (12, 20, 3), np.uint8)
        Image.fromarray(noise).save(path)
    write_metadata(root, pd.DataFrame(rows, columns=COLUMNS))
    return root


def metadata(root):
    return pd.read_csv(root / "metadata.csv", dtype=str, keep_default_na=False)


def write_metadata(root, table):
    table.to_csv(root / "metadata.csv", index=False)


def with_cell(row, column, value):
    def change(root):
        table = metadata(root)
        table.loc[row, column] = value
        write_metadata(root, table)

    return change


def without_column(column):
    return lambda root: write_metadata(root, metadata(root).drop(columns=column))


def only(split):
    return lambda root: write_metadata(root, metadata(root).query(f"split == '{split}'"))


def without_images(root):
    for name in ("02", "10"):
        (root / "images" / f"{name}.png").unlink()


def one_individual(root):
    table = metadata(root)
    table.loc[table.split == "database", "identity"] = "lynx0"
    write_metadata(root, table)


def with_solution(*rows):
    return lambda root: pd.DataFrame(rows, columns=["image_id", "identity"]).to_csv(root / "solution.csv", index=False)


FAULTS = {
    "unknown split": (with_cell(1, "split", "train"), "metadata.csv", "split: 'train'"),
    "a query with an identity": (
        with_cell(9, "identity", "lynx0"),
        "metadata.csv",
        "identity: given for 1 queries",
        "10",
    ),
    "images missing": (without_images, "metadata.csv", "path: 2 images", "images/02.png", "images/10.png"),
    "image_id twice": (with_cell(3, "image_id", "1"), "metadata.csv", "image_id: more than one row for 1"),
    "no database": (only("query"), "metadata.csv", "split: no row is of the database"),
    "an empty identity": (with_cell(2, "identity", " "), "metadata.csv", "identity: empty for 3"),
    "one individual": (one_individual, "metadata.csv", "identity: only one identity, 'lynx0'"),
    "a solution without identity": (
        lambda root: pd.DataFrame({"image_id": ["9"]}).to_csv(root / "solution.csv", index=False),
        "solution.csv",
        "identity",
    ),
    "a solution with a row twice": (
        with_solution(("9", "a"), ("9", "b"), ("10", "a"), ("11", "a")),
        "solution.csv",
        "image_id: more than one row",
    ),
}


def refusal_of(change, root):
    """The one line with which a changed album is refused."""
    change(album(root))
    with pytest.raises(KitError) as error:
        load_competition(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_columns_that_are_missing_are_named(tmp_path):
    for column in ("image_id", "identity", "path", "orientation", "species", "split"):
        told = refusal_of(without_column(column), tmp_path / column)
        assert f"metadata.csv: column '{column}' is missing" in told, column


def test_cells_that_lead_nowhere_are_named(tmp_path):
    cells = [("path", path) for path in ("../01.png", "images/../../a.png", "/etc/passwd", "")]
    for number, (column, value) in enumerate([*cells, ("split", "")]):
        told = refusal_of(with_cell(0, column, value), tmp_path / str(number))
        assert f"{column}: {value!r}" in told, (column, value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_tables_is_one_line_and_leaves_nothing(fault, tmp_path, write_recipe, capsys):
    change, *told = FAULTS[fault]
    data, out = album(tmp_path / "data"), tmp_path / "out"
    change(data)
    recipe = write_recipe(tiny_recipe())
    code = jaguar_kit.main(jaguar_kit.run_command, [str(recipe), "--data", str(data), "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for part in told:
        assert part in said
    assert not out.exists()


def test_the_layout_is_recognised_and_its_columns_are_kept(tmp_path):
    competition = load_competition(album(tmp_path / "data"))
    assert competition.open_set
    assert competition.pairs is None
    assert competition.solution is None
    assert competition.train.filename.tolist() == [str(i) for i in range(1, 9)]
    assert competition.test.filename.tolist() == ["9", "10", "11"]
    assert set(competition.train.columns) == {"filename", *COLUMNS[1:]}
    assert set(competition.test.columns) == {"filename", *COLUMNS[2:]}
    assert competition.train.orientation[:3].tolist() == ["right", "top", "left"]
    assert competition.paths == [f"images/{i:02d}.png" for i in range(1, 12)]
    assert not competition.notes


def test_columns_that_nothing_needs_may_be_missing_or_more(tmp_path):
    root = album(tmp_path / "data")
    write_metadata(root, metadata(root).drop(columns=["date", "dataset"]).assign(filename="no", weather="rain"))
    train = load_competition(root).train
    assert train.filename[0] == "1"
    assert train.weather[0] == "rain"


def test_identities_with_one_image_are_noted(tmp_path):
    root = album(tmp_path / "data")
    with_cell(0, "identity", "alone")(root)
    (note,) = load_competition(root).notes
    assert "2 identities have one image and stay in training: alone, lynx0" in note


def test_the_solution_is_read_in_the_order_of_the_queries(tmp_path):
    root = album(tmp_path / "data")
    with_solution(("11", "lynx0"), ("9", "nobody"), ("10", "turtle1"))(root)
    competition = load_competition(root)
    assert competition.solution.tolist() == ["nobody", "turtle1", "lynx0"]
    assert competition.solution.index.tolist() == competition.test.filename.tolist()


def test_without_queries_the_database_is_all_there_is(tmp_path):
    root = album(tmp_path / "data")
    only("database")(root)
    competition = load_competition(root)
    assert competition.open_set
    assert len(competition.test) == 0


def test_what_decides_a_run_changes_the_fingerprint_of_the_data(tmp_path):
    root = album(tmp_path / "data")
    before, table = load_competition(root).fingerprint, metadata(root)
    for column in ("identity", "orientation", "species"):
        other = table.copy()
        other.loc[[0, 2], column] = table.loc[[2, 0], column].to_numpy()  # exchanged: as many bytes as before
        write_metadata(root, other)
        assert load_competition(root).fingerprint != before, f"another {column} is taken for the same data"


# the mini-dataset

IMAGES = 90


@pytest.fixture(scope="module")
def open_mini(tmp_path_factory):
    """The folder of a mini-dataset of an open set; it is shared, so only read it."""
    return make_mini_dataset(tmp_path_factory.mktemp("open") / "mini", identities=9, images=IMAGES, layout="animalclef")


@pytest.fixture
def undrawn(monkeypatch):
    """Mini-datasets get their tables, and images of a few grey pixels."""
    monkeypatch.setattr(mini_dataset, "draw_animal", lambda *_: Image.new("RGBA", (6, 4)))
    monkeypatch.setattr(mini_dataset, "draw_coat", lambda *_: None)
    monkeypatch.setattr(mini_dataset, "draw_scene", lambda *_: None)


def test_the_mini_dataset_is_an_open_set_of_three_species(open_mini):
    competition = load_competition(open_mini)
    train, test = competition.train, competition.test
    assert competition.open_set
    assert len(train) + len(test) == IMAGES
    assert set(train.columns) == {"filename", *COLUMNS[1:]}
    assert sorted(set(train.species)) == sorted(set(test.species)) == ["loggerhead turtle", "lynx", "salamander"]
    known = competition.solution.isin(competition.identities).to_numpy()
    for species in set(train.species):
        counts = train.identity[train.species == species].value_counts()
        assert (counts > 1).sum() == 3  # of the nine
        assert (counts == 1).sum() >= 1
        of_species = (test.species == species).to_numpy()
        assert (known & of_species).any()
        assert (~known & of_species).any()
    species_of = train.groupby("identity").species.nunique()
    assert (species_of == 1).all()
    assert any("one image" in note for note in competition.notes)


def test_the_sample_submission_is_valid(open_mini):
    competition = load_competition(open_mini)
    path = open_mini / "sample_submission.csv"
    assert validate_answers(path, competition.test.filename, competition.identities) == {"rows": len(competition.test)}


def test_salamanders_are_drawn_turned_as_their_orientation_tells(open_mini):
    table = metadata(open_mini)
    for row in table.groupby("orientation").head(4).itertuples():
        with Image.open(open_mini / row.path) as image:
            assert (image.height > image.width) == (row.orientation == "top")
    assert set(table.species[table.orientation == "top"]) == {"salamander"}


def everything_in(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_same_arguments_draw_the_same_files_and_others_do_not(open_mini, tmp_path, monkeypatch):
    draw, number, blank = mini_dataset.draw_animal, itertools.count(), Image.new("RGBA", (6, 4))
    monkeypatch.setattr(mini_dataset, "draw_animal", lambda *given: blank if next(number) % 6 else draw(*given))
    first, again = (
        everything_in(make_mini_dataset(tmp_path / name, identities=6, images=54, seed=1, layout="animalclef"))
        for name in ("first", "again")
    )
    other = everything_in(open_mini)  # of another seed
    assert first == again
    assert first["metadata.csv"] != other["metadata.csv"]
    assert set(first.values()).isdisjoint(v for k, v in other.items() if k.endswith(".jpg"))


def test_as_many_images_are_drawn_as_were_asked_for(undrawn, tmp_path):
    for images in (54, 55, 56):
        root = make_mini_dataset(tmp_path / str(images), identities=6, images=images, layout="animalclef")
        assert len(metadata(root)) == images, "`images` counts training and test images together"


def test_every_known_individual_has_several_images_in_the_database(undrawn, tmp_path):
    for seed in range(8):
        root = make_mini_dataset(tmp_path / str(seed), identities=6, images=54, seed=seed, layout="animalclef")
        names = load_competition(root).train.groupby("species").identity
        assert names.apply(lambda own: (own.value_counts() > 1).sum()).tolist() == [2, 2, 2], f"seed {seed}"


def test_too_few_images_or_identities_are_refused(tmp_path):
    for identities, images in ((9, 80), (6, 53), (5, 100), (2, 100)):
        with pytest.raises(KitError, match=r"too few .*expected at least"):
            make_mini_dataset(tmp_path / "mini", identities=identities, images=images, layout="animalclef")
        assert not (tmp_path / "mini").exists(), (identities, images)


def test_an_unknown_layout_is_refused_and_another_one_not_drawn_over(tmp_path):
    with pytest.raises(KitError, match="layout"):
        make_mini_dataset(tmp_path / "mini", layout="animalcelf")
    record = tmp_path / "old" / "mini.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"identities": 6, "images": 72, "seed": 0, "round": 1}))
    assert make_mini_dataset(tmp_path / "old", 6, 72) == tmp_path / "old"  # drawn before there were layouts
    with pytest.raises(KitError, match="holds something else"):
        make_mini_dataset(tmp_path / "old", 6, 72, layout="animalclef")


# images turned by their orientation


def as_square(pixels, size):
    return np.asarray(jaguar_kit.fit_square(Image.fromarray(np.ascontiguousarray(pixels)), size, "squash"))


@pytest.mark.parametrize("channels", [3, 4])
def test_stored_pixels_are_those_of_an_image_turned_by_hand(channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, channels), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    quarters = {90: 1, 180: 2, 270: 3, -90: 3, 360: 0, 0: 0}
    store = jaguar_kit.open_store(tmp_path, ["a.png"] * 6, 16, cache=tmp_path / "cache", turns=[*quarters])
    for stored, degrees in zip(store.pixels, quarters):
        expected = np.rot90(pixels, quarters[degrees])
        np.testing.assert_array_equal(stored[..., :3], as_square(expected[..., :3], 16), f"{degrees} degrees")
        if channels == 4:
            np.testing.assert_array_equal(stored[..., 3], as_square(expected[..., 3], 16), f"{degrees} degrees")


def test_a_slanting_turn_keeps_the_whole_image(tmp_path):
    Image.new("RGB", (30, 30), "white").save(tmp_path / "a.png")
    store = jaguar_kit.open_store(tmp_path, ["a.png"], 40, cache=tmp_path / "cache", turns=[45])
    stored = store.pixels[0]
    assert stored[20, 20].min() == 255
    assert stored[0, 0].max() == stored[-1, 0].max() == 0  # the corners, where nothing is
    assert stored.mean() / 255 == pytest.approx(0.5, abs=0.04)


def test_other_turns_are_another_store_and_no_turn_is_the_plain_one(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    keys = [
        jaguar_kit.open_store(tmp_path, ["a.png"], 8, cache=tmp_path / "cache", turns=turns).key
        for turns in ([], [0], [0.0], [90], [180])
    ]
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_a_recipe_turns_database_and_queries_by_their_label(open_mini):
    competition = load_competition(open_mini)
    recipe = recipe_from_dict(tiny_recipe(data={"turn": {"top": -90}}))
    store = jaguar_kit.open_data(recipe, competition).store
    labels = [*competition.train.orientation, *competition.test.orientation]
    turned = np.flatnonzero(np.array(labels) == "top")
    assert turned.min() < len(competition.train) <= turned.max()
    for place in (turned.min(), turned.max(), labels.index("right")):
        with Image.open(open_mini / competition.paths[place]) as image:
            pixels = np.rot90(np.asarray(image.convert("RGB")), 3 if labels[place] == "top" else 0)
        np.testing.assert_array_equal(store.pixels[place], as_square(pixels, 32))


def test_views_turn_test_images_as_they_turn_training_images(mini, tmp_path):
    root = shutil.copytree(mini, tmp_path / "data")
    competition = load_competition(root)
    files = [*competition.train.filename, *competition.test.filename]
    pd.DataFrame({"filename": files, "orientation": "top"}).to_csv(root / "views.csv", index=False)
    turned = jaguar_kit.turns_of(load_competition(root), {"top": 90.0})
    assert list(turned) == [90.0] * len(files)


def test_an_unknown_orientation_is_refused_with_a_suggestion(open_mini):
    with pytest.raises(KitError, match=r"data\.turn\.topp: no image has this orientation; did you mean 'top'\?"):
        jaguar_kit.turns_of(load_competition(open_mini), {"topp": 90.0})


def test_a_table_without_orientations_can_not_be_turned(mini):
    with pytest.raises(KitError, match=r"data\.turn: .* no column orientation"):
        jaguar_kit.turns_of(load_competition(mini), {"top": 90.0})
    assert jaguar_kit.turns_of(load_competition(mini), {}) == []


# the split


def database(counts, seed=0):
    """A table of the database in mixed order, from {species: images of each identity}, with an index of its own."""
    rows = [(f"{s}{i:02d}", s) for s, of_species in counts.items() for i, n in enumerate(of_species) for _ in range(n)]
    table = pd.DataFrame(rows, columns=["identity", "species"]).sample(frac=1, random_state=seed)
    return table.assign(filename=[f"{i}.png" for i in range(len(table))])


MANY = {"lynx": [9] * 10 + [1] * 3, "turtle": [7] * 21 + [1], "newt": [8] * 4}


def split(table, seed=42, **options):
    ((train, validation),) = jaguar_kit.lookup("split", "open_set")(table, lambda: None, seed, **options)
    return train, validation


def held_out_of(table, train, validation):
    return set(table.identity.iloc[validation]) - set(table.identity.iloc[train])


@pytest.mark.parametrize(("share", "expected"), [(0.1, (1, 2, 1)), (0.3, (3, 6, 1)), (0.5, (5, 10, 2))])
def test_a_share_of_the_identities_of_each_species_is_held_out_whole(share, expected):
    table = database(MANY)
    for seed in range(5):
        train, validation = split(table, seed, unknown=share)
        held_out = held_out_of(table, train, validation)
        found = [sum(name.startswith(species) for name in held_out) for species in ("lynx", "turtle", "newt")]
        assert tuple(found) == expected, f"seed {seed}"
        assert table.identity.iloc[validation].isin(held_out).sum() == table.identity.isin(held_out).sum()


def test_the_parts_are_disjoint_and_complete_and_singles_train():
    for seed in range(5):
        table = database(MANY, seed)
        train, validation = split(table, seed)
        assert sorted([*train, *validation]) == list(range(len(table))), f"seed {seed}"
        assert (np.diff(validation) > 0).all()
        counts = table.identity.value_counts()
        assert set(counts.index[counts == 1]) <= set(table.identity.iloc[train])


def test_the_other_identities_are_split_as_stratified_does():
    table = database(MANY)
    for seed in range(3):
        train, validation = split(table, seed, validation=0.25)
        held_out = held_out_of(table, train, validation)
        rest = np.flatnonzero(~table.identity.isin(held_out))
        several = rest[(table.identity.iloc[rest].map(table.identity.value_counts()) > 1).to_numpy()]
        fit, test = train_test_split(several, test_size=0.25, stratify=table.identity.iloc[several], random_state=seed)
        others = validation[~table.identity.iloc[validation].isin(held_out).to_numpy()]
        assert sorted(others) == sorted(test), f"seed {seed}"
        assert set(fit) <= set(train)


def test_the_split_follows_its_seed():
    table = database(MANY)
    first, again, other = (split(table, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert held_out_of(table, *first) != held_out_of(table, *other)


def test_without_species_all_identities_are_one_pool():
    table = database({"cat": [6] * 20}).drop(columns="species")
    assert len(held_out_of(table, *split(table, unknown=0.2))) == 4


def test_too_few_identities_of_a_species_are_refused():
    for pool in ([5, 5], [5, 5, 1], [5]):
        with pytest.raises(KitError, match=r"data\.split: open_set needs three identities with two images or more"):
            split(database({"lynx": [9] * 9, "turtle": pool}))


def test_the_split_is_named_in_recipes():
    parts = jaguar_kit.build("split", "open_set", train=database(MANY), hashes=lambda: None, split_seed=3, unknown=0.2)
    assert all(np.array_equal(a, b) for a, b in zip(parts[0], split(database(MANY), 3, unknown=0.2)))


# the file of answers

IDS, NAMES = ["0007", "7", "b,1", 'q"', "ü"], ["lynx,1", 'the "old" one', "Žofie", "007"]


def test_answers_come_back_as_they_were_written(tmp_path):
    path = write_answers(tmp_path / "new" / "submission.csv", IDS, [*NAMES, NEW], NAMES)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert table.to_dict("list") == {"image_id": IDS, "identity": [*NAMES, NEW]}
    assert validate_answers(path, IDS, NAMES) == {"rows": 5}
    assert validate_answers(path, IDS[::-1], NAMES) == {"rows": 5}  # the order is free


def test_an_answer_that_nobody_has_is_not_written(tmp_path):
    for answer in ("lynx", "", "new individual", float("nan")):
        with pytest.raises(KitError, match=r"submission\.csv: image_id b: identity: .* is not known"):
            write_answers(tmp_path / "submission.csv", ["a", "b"], ["lynx1", answer], ["lynx1", "lynx2"])
        assert not list(tmp_path.iterdir()), answer


def test_each_fault_of_a_file_of_answers_is_named(tmp_path):
    path = tmp_path / "submission.csv"
    for text, told in (
        ("image_id,answer\na,p\nb,p\n", "columns image_id,answer (expected image_id,identity)"),
        ("identity,image_id\np,a\np,b\n", "columns identity,image_id"),
        ("image_id,identity,score\na,p,1\nb,p,1\n", "columns image_id,identity,score"),
        ("image_id,identity\na,p\nb,lynx_01\n", "image_id b: identity: 'lynx_01' is not known; did you mean 'lynx_1'?"),
        ("image_id,identity\na,p\nb,p\na,p\n", "image_id a stands more than once"),
        ("image_id,identity\na,p\n", "image_id b is missing (expected each of 2 queries once)"),
        ("image_id,identity\na,p\nb,p\nc,p\n", "image_id c is no query"),
        ("image_id,identity\n", "has no rows"),
        ("image_id,identity\na,\nb,p\n", "image_id a: identity: '' is not known"),
    ):
        path.write_text(text)
        with pytest.raises(KitError) as error:
            validate_answers(path, ["a", "b"], ["p", "lynx_1"])
        assert told in str(error.value)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_of_answers_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KitError, match="there is no such file"):
        validate_answers(tmp_path / "submission.csv", ["a"], ["p"])


# the epoch that is kept


def slow_kept(rows):
    """The rule: keep an epoch when its loss and its accuracy are both better than those of the one kept before."""
    kept_loss, kept_accuracy, kept = rows[0]["val_loss"], rows[0]["accuracy"], 0
    for number, row in enumerate(rows):
        if row["val_loss"] < kept_loss and row["accuracy"] > kept_accuracy:
            kept_loss, kept_accuracy, kept = row["val_loss"], row["accuracy"], number
    return kept


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_an_epoch_is_kept_when_loss_and_accuracy_are_both_better(pairs):
    rows = [{"val_loss": loss / 4, "accuracy": accuracy / 6} for loss, accuracy in pairs]
    assert jaguar_kit.best_epoch(rows, "loss_and_accuracy") == slow_kept(rows)


def test_an_epoch_better_in_one_alone_is_not_kept():
    rows = [(1.0, 0.5), (0.9, 0.5), (0.8, 0.4), (1.1, 0.9), (0.95, 0.6), (0.96, 0.9), (0.9, 0.7)]
    rows = [{"val_loss": loss, "accuracy": accuracy} for loss, accuracy in rows]
    assert [jaguar_kit.best_epoch(rows[: n + 1], "loss_and_accuracy") for n in range(7)] == [0, 0, 0, 0, 4, 4, 6]


def test_without_validation_the_last_epoch_is_kept():
    rows = [{"val_loss": math.nan, "accuracy": math.nan}] * 3
    assert jaguar_kit.best_epoch(rows, "loss_and_accuracy") == 2


def test_accuracy_and_loss_are_of_the_learned_identities_only():
    torch.manual_seed(0)
    loss = jaguar_kit.build("loss", "cross_entropy", embedding_dim=4, num_identities=3)
    embeddings, labels = torch.randn(7, 4), torch.tensor([0, 1, -1, 2, 2, -2, 0])
    there = labels >= 0
    logits = loss.logits(embeddings[there]).detach()
    told = jaguar_kit.classifier_metrics(loss, embeddings, labels)
    assert told["accuracy"] == pytest.approx(float((logits.argmax(1) == labels[there]).double().mean()))
    expected = torch.nn.functional.cross_entropy(logits, labels[there])
    assert told["val_loss"] == pytest.approx(float(expected), rel=1e-6)


def test_there_is_no_accuracy_without_classes_or_known_individuals():
    triplet = jaguar_kit.build("loss", "triplet", embedding_dim=4, num_identities=2)
    told = jaguar_kit.classifier_metrics(triplet, torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 0, 1]))
    assert math.isnan(told["accuracy"])
    assert math.isfinite(told["val_loss"])
    loss = jaguar_kit.build("loss", "cross_entropy", embedding_dim=4, num_identities=2)
    told = jaguar_kit.classifier_metrics(loss, torch.randn(2, 4), torch.tensor([-1, -2]))
    assert all(math.isnan(value) for value in told.values())


def test_the_head_none_leaves_the_features_as_they_are():
    head = jaguar_kit.build("head", "none", in_features=5)
    features = torch.randn(3, 5)
    assert torch.equal(head(features), features)
    assert not list(head.parameters())
    embedder = jaguar_kit.build_embedder(recipe_from_dict(tiny_recipe()).model)
    assert embedder.embedding_dim == embedder.pooling.width(embedder.backbone)


# whole runs


def tiny_recipe(**changes):
    plain = {
        "name": "tiny",
        "data": {"size": 32, "split": "open_set"},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "freeze": False, "head": "none"},
        "loss": "cross_entropy",
        "train": {"epochs": 1, "batch_size": 16, "lr": 2e-3},
    }
    return jaguar_kit.merge_recipe(plain, changes)


RUNS = {
    "nearest": {"open_set": {"decide": "nearest", "thresholds": "one"}},
    "softmax": {
        "open_set": {"decide": "softmax", "thresholds": "per_species"},
        "train": {"epochs": 3, "select": "loss_and_accuracy", "patience": 0},
    },
    "stratified": {"open_set": {"decide": "nearest", "thresholds": "one"}, "data": {"split": "stratified"}},
    "fixed": {"open_set": {"decide": "nearest", "threshold": 0.3}},
}


def run(folder, out, detailed=False, **changes):
    """The result of a recipe; what its report draws, which takes time, are at most the thresholds."""
    figure, left_out = (
        jaguar_kit.Page.figure,
        ["report_curves", *([] if detailed else ["report_detail", "run_details"])],
    )

    def thresholds_only(page, name, *more):
        if name.endswith("thresholds"):
            figure(page, name, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "figure", thresholds_only)
        for part in left_out:
            patch.setattr(report_room, part, lambda *_: None)
        return jaguar_kit.run_recipe(recipe_from_dict(tiny_recipe(**changes)), data=folder, out=out, device="cpu")


@pytest.fixture(scope="module")
def finished(open_mini, tmp_path_factory):
    """Results by name of run; each is made once, when it is first asked for."""
    out, made = tmp_path_factory.mktemp("runs"), {}

    def result(name):
        if name not in made:
            made[name] = run(open_mini, out / name, detailed=True, **RUNS[name])
        return made[name]

    return result


def place_of(result):
    return result.folder / "default" / "seed42"


def metrics_of(result):
    return json.loads((place_of(result) / "metrics.json").read_text())


def guesses_in(result, name):
    texts = dict.fromkeys(("image_id", "species", "identity", "truth"), str)
    return pd.read_csv(place_of(result) / f"{name}_guesses.csv", dtype=texts, keep_default_na=False)


def retold(truth, answer, known):
    return pytest.approx(slow_open_set_score(list(truth), list(answer), set(known)), nan_ok=True, rel=1e-9)


@pytest.mark.parametrize("name", RUNS)
def test_the_submission_is_valid_and_follows_from_guesses_within_zero_and_one(name, finished, open_mini):
    competition = load_competition(open_mini)
    path = place_of(finished(name)) / "submission.csv"
    told = validate_answers(path, competition.test.filename, competition.identities)
    assert told == {"rows": len(competition.test)}
    answers = pd.read_csv(path, dtype=str).set_index("image_id").identity
    guesses = guesses_in(finished(name), "test").set_index("image_id")
    assert answers.to_dict() == guesses.answer.to_dict()
    for table in (guesses, guesses_in(finished(name), "validation")):
        assert table.score.between(0, 1).all()
        assert (table.identity != "").all()


@pytest.mark.parametrize("name", RUNS)
def test_the_scores_follow_from_the_tables_of_guesses(name, finished, open_mini):
    told, table = metrics_of(finished(name))["open_set"], guesses_in(finished(name), "validation")
    known = set(table.truth[table.known])
    assert told["given" if name == "fixed" else "fitted"] == retold(table.truth, table.answer, known)
    assert told["fixed"].keys() == {"0.6", "0.65", "0.68", "0.7"}
    for fixed, score in told["fixed"].items():
        assert score == retold(table.truth, np.where(table.score >= float(fixed), table.identity, NEW), known)
    least = table.species.map(lambda s: told["thresholds"].get(s, told["thresholds"][""]))
    assert (table.answer == np.where(table.score >= least, table.identity, NEW)).all()
    per_species = RUNS[name]["open_set"].get("thresholds") == "per_species"
    if name != "fixed":
        assert told["cross_fitted"] == pytest.approx(cross_fitted_score(table, per_species))
        assert told["thresholds"] == pytest.approx(fit_thresholds(table, per_species))


@pytest.mark.parametrize("name", RUNS)
def test_the_test_scores_follow_from_guesses_and_solution(name, finished, open_mini):
    told, table = metrics_of(finished(name))["open_set"], guesses_in(finished(name), "test")
    truth = pd.read_csv(open_mini / "solution.csv", dtype=str).set_index("image_id").identity[table.image_id]
    known = load_competition(open_mini).identities
    assert told["test"] == retold(truth, table.answer, known)
    for fixed, score in told["test_fixed"].items():
        assert score == retold(truth, np.where(table.score >= float(fixed), table.identity, NEW), known)


@pytest.mark.parametrize("name", ["nearest", "softmax", "stratified"])
def test_the_fitted_threshold_is_no_worse_than_any_fixed_one(name, finished):
    told = metrics_of(finished(name))["open_set"]
    assert told["fitted"]["score"] > 0
    assert told["fitted"]["score"] >= max(score["score"] for score in told["fixed"].values())


@pytest.mark.parametrize("name", ["nearest", "stratified"])
def test_the_nearest_is_looked_for_within_the_species(name, finished, open_mini):
    train = load_competition(open_mini).train
    species_of = train.drop_duplicates("identity").set_index("identity").species
    for part in ("validation", "test"):
        table = guesses_in(finished(name), part)
        assert (species_of[table.identity].to_numpy() == table.species.to_numpy()).all()


@pytest.mark.parametrize("name", ["nearest", "softmax"])
def test_unknown_individuals_are_those_held_out_whole(name, finished, open_mini):
    table, train = guesses_in(finished(name), "validation"), load_competition(open_mini).train
    learned, held_out = split(train)
    expected = held_out_of(train, learned, held_out)
    assert set(table.truth[~table.known]) == expected
    assert len(table) == len(held_out)
    assert not set(table.identity) & expected
    told = metrics_of(finished(name))["open_set"]
    assert "held out whole" in told["unknown"]
    assert told["decide"] == name


def test_the_test_is_answered_from_the_whole_database(finished, open_mini):
    train = load_competition(open_mini).train
    held_out = held_out_of(train, *split(train))
    assert held_out & set(guesses_in(finished("nearest"), "test").identity)
    assert not held_out & set(guesses_in(finished("softmax"), "test").identity)  # a class for what was learned only


def test_softmax_names_the_most_probable_class(finished):
    place, table = place_of(finished("softmax")), guesses_in(finished("softmax"), "validation")
    tensors, told = jaguar_kit.load_weights(place)
    embeddings = torch.from_numpy(np.load(place / "validation.npz")["embeddings"])
    score, best = (embeddings @ tensors["loss.weight"].T + tensors["loss.bias"]).softmax(1).max(1)
    assert table.identity.tolist() == [told["identities"][i] for i in best]
    np.testing.assert_allclose(table.score, score, rtol=1e-4)


def test_accuracy_is_the_share_of_known_queries_named_rightly(finished):
    result = finished("softmax")
    table, told = guesses_in(result, "validation"), metrics_of(result)
    expected = (table.identity == table.truth)[table.known].mean()
    assert told["accuracy"] == pytest.approx(expected)
    log = pd.read_csv(place_of(result) / "log.csv")
    assert log.accuracy[told["best_epoch"]] == pytest.approx(expected)
    assert finished("softmax").table.accuracy[0] == pytest.approx(expected)


def test_the_run_keeps_the_epoch_in_which_both_improved(finished):
    log = pd.read_csv(place_of(finished("softmax")) / "log.csv").to_dict("records")
    assert len(log) == 4
    assert metrics_of(finished("softmax"))["best_epoch"] == slow_kept(log[1:]) + 1


def test_where_no_identity_is_held_out_each_is_left_out_of_the_gallery_once(finished, open_mini):
    result = finished("stratified")
    table, told = guesses_in(result, "validation"), metrics_of(result)["open_set"]
    absent = table[~table.known]
    assert len(absent) == table.known.sum() == len(table) / 2
    assert absent.truth.str.endswith(" (left out)").all()
    assert (absent.truth.str.removesuffix(" (left out)") != absent.identity).all()
    assert sorted(absent.image_id) == sorted(table.image_id[table.known])
    assert "left out of the gallery" in told["unknown"]
    assert told["unknown"] in (result.folder / "report.md").read_text()


def test_known_individuals_are_ranked_against_the_gallery_and_across_encounters(finished, open_mini):
    result = finished("nearest")
    told = metrics_of(result)["open_set"]["retrieval"]
    assert told.keys() == {"validation", "test"}
    table = guesses_in(result, "test")
    truth = pd.read_csv(open_mini / "solution.csv", dtype=str).set_index("image_id").identity[table.image_id]
    there = truth.isin(load_competition(open_mini).identities).to_numpy()
    assert told["test"]["top1"] == pytest.approx((table.identity == truth.to_numpy())[there].mean())
    assert 0 < told["test"]["map"] <= 1
    assert "Queries of known individuals against the gallery" in (result.folder / "report.md").read_text()


@given(st.integers(0, 1000))
@PROPERTY
def test_a_gallery_of_other_species_and_of_ones_own_encounter_does_not_count(seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"identity": list("aabbccdd"), "species": ["lynx"] * 4 + ["turtle"] * 4, "filename": "x.png"})
    table["encounter"] = [0, 1, 2, 2, 3, 3, 4, 5]
    judge = object.__new__(OpenSetJudge)
    embedder = SimpleNamespace(geometry=jaguar_kit.build("geometry", "cosine"))
    object.__setattr__(judge, "trainer", SimpleNamespace(embedder=embedder))
    object.__setattr__(judge, "competition", SimpleNamespace(train=table))
    judge.__dict__["database"] = points = torch.from_numpy(rng.normal(size=(8, 3)))
    asked, gallery = np.array([0, 2, 4, 6]), np.array([1, 3, 5, 7])
    told = judge.retrieved(points[asked], table.iloc[asked], table.identity.iloc[asked], gallery)
    unit = points / points.norm(dim=1, keepdim=True)
    found = {"": [], "_across": []}
    for i in asked:
        for kind, own in found.items():
            left = [j for j in gallery if table.species[j] == table.species[i]]
            left = [j for j in left if not kind or table.encounter[j] != table.encounter[i]]
            if any(table.identity[j] == table.identity[i] for j in left):
                rank = sorted(left, key=lambda j: -float(unit[i] @ unit[j]))
                own.append(1 / (1 + [table.identity[j] == table.identity[i] for j in rank].index(True)))
    assert told["map"] == pytest.approx(np.mean(found[""]))
    assert told["map_across"] == pytest.approx(np.mean(found["_across"]))


@pytest.mark.parametrize("name", RUNS)
def test_the_report_tells_how_known_and_new_are_told_apart_and_the_honest_score(name, finished):
    result, told = finished(name), metrics_of(finished(name))["open_set"]
    page = (result.folder / "report.md").read_text()
    assert "### Known or new" in page
    kinds = ("given", "test") if name == "fixed" else ("fitted", "cross_fitted", "test")
    lines = [line for line in page.splitlines() if line.startswith(("| fitted", "| given")) or ", published" in line]
    assert len(lines) == 4 + len(kinds) - 1
    for key in kinds:
        assert f"{told[key]['score']:.4f}" in page
    for species, threshold in told["thresholds"].items():
        assert f"{species or 'all'} {threshold:.4f}" in page
    assert told["confidence"] in page
    assert (result.folder / "figures" / "run0-thresholds.png").is_file()
    assert "://" not in result.report.read_text()
    row = pd.read_csv(result.folder / "results.csv").iloc[0]
    assert row.open_set == pytest.approx(told["given" if name == "fixed" else "cross_fitted"]["score"])
    assert row.test_open_set == pytest.approx(told["test"]["score"])


def test_a_threshold_of_the_recipe_is_taken_as_it_is(finished):
    assert metrics_of(finished("fixed"))["open_set"]["thresholds"] == {"": 0.3}


def test_each_species_has_a_threshold_where_that_is_asked_for(finished):
    thresholds = metrics_of(finished("softmax"))["open_set"]["thresholds"]
    assert thresholds.keys() == {"", "loggerhead turtle", "lynx", "salamander"}


def test_auto_takes_what_is_better_when_cross_fitted(finished, open_mini, tmp_path):
    table = guesses_in(finished("nearest"), "validation")
    one, each = (cross_fitted_score(table, per_species)["score"] for per_species in (False, True))
    told = metrics_of(run(open_mini, tmp_path))["open_set"]  # the defaults: nearest, auto
    assert (len(told["thresholds"]) > 1) == (each > one)
    assert told["cross_fitted"]["score"] == pytest.approx(max(one, each))


def test_a_finished_run_is_not_run_again(finished, open_mini):
    result = finished("softmax")
    before = {p.name: p.stat().st_mtime_ns for p in place_of(result).iterdir()}
    again = run(open_mini, result.folder.parent, **RUNS["softmax"])
    assert {p.name: p.stat().st_mtime_ns for p in place_of(result).iterdir()} == before
    assert again.table.equals(result.table)


def test_the_same_recipe_answers_the_same_in_another_folder(finished, open_mini, tmp_path):
    again = run(open_mini, tmp_path, **RUNS["nearest"])
    for name in ("submission.csv", "validation_guesses.csv", "test_guesses.csv"):
        assert (place_of(again) / name).read_bytes() == (place_of(finished("nearest")) / name).read_bytes()


REFUSED = {
    "softmax, nothing held out": (
        {"open_set": {"decide": "softmax"}, "data": {"split": "stratified"}},
        "open_set.threshold",
    ),
    "softmax of images compared": ({"open_set": {"decide": "softmax"}, "loss": "triplet"}, "open_set.decide"),
    "a threshold above one": ({"open_set": {"threshold": 1.5}}, "open_set.threshold"),
    "another decision": ({"open_set": {"decide": "votes"}}, "open_set.decide"),
    "an unknown setting": ({"open_set": {"treshold": 0.5}}, "did you mean 'threshold'?"),
    "an orientation that is not there": ({"data": {"turn": {"topp": 90}}}, "did you mean 'top'?"),
    "a turn that is no number": ({"data": {"turn": {"top": "up"}}}, "data.turn"),
    "accuracy of a loss that has none": ({"loss": "triplet", "train": {"select": "loss_and_accuracy"}}, "train.select"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_decided_is_refused_before_any_work(name, open_mini, write_recipe, tmp_path, capsys):
    changes, told = REFUSED[name]
    recipe, out = write_recipe(tiny_recipe(**changes)), tmp_path / "out"
    code = jaguar_kit.main(jaguar_kit.run_command, [str(recipe), "--data", str(open_mini), "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 2, "nothing says that such a run can't do what the recipe asks for"
    assert said.count("\n") == 1
    assert told in said
    assert not out.exists()


def test_softmax_with_a_threshold_needs_nothing_held_out_and_names_its_score(open_mini, tmp_path, capsys):
    changes = {"open_set": {"decide": "softmax", "threshold": 0.2}, "data": {"split": "stratified"}}
    result = run(open_mini, tmp_path, **changes)
    told, table = metrics_of(result)["open_set"], guesses_in(result, "validation")
    assert table.known.all()
    assert math.isnan(told["given"]["score"])
    assert told["given"]["baks"] == pytest.approx(slow_balanced(table.truth, table.answer == table.truth))
    assert told["thresholds"] == {"": 0.2}
    assert math.isfinite(told["test"]["score"])
    assert "held out whole" not in told["unknown"], "it tells of identities held out whole, but there are none"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "validation mAP" in line]
    assert line.endswith("on the test")
    assert "open-set" in line, f"what the test score is of is not told: {line}"


def changed(root, folder, change):
    """A copy of a folder, its metadata changed."""
    shutil.copytree(root, folder)
    write_metadata(folder, change(metadata(folder)))
    return folder


@pytest.mark.parametrize("decide", ["nearest", "softmax"])
def test_queries_of_a_species_that_the_database_lacks_are_new(decide, open_mini, tmp_path):
    strangers = metadata(open_mini).query("split == 'query'").image_id[:3].tolist()
    data = changed(
        open_mini, tmp_path / "data", lambda t: t.assign(species=t.species.mask(t.image_id.isin(strangers), "ibex"))
    )
    try:
        result = run(data, tmp_path / "runs", open_set={"decide": decide})
    except ValueError as error:
        pytest.fail(f"a traceback after the training, not a line before it: {error}")
    if decide == "nearest":
        answers = guesses_in(result, "test").set_index("image_id").answer
        assert answers[strangers].tolist() == [NEW] * 3


def test_a_species_with_one_individual_does_not_end_a_run(open_mini, tmp_path):
    table = metadata(open_mini)
    one = table.identity[(table.species == "lynx") & (table.split == "database")].mode()[0]
    data = changed(open_mini, tmp_path / "data", lambda t: t[(t.species != "lynx") | t.identity.isin(["", one])])
    try:
        result = run(data, tmp_path / "runs", **RUNS["stratified"])
    except KitError as error:
        pytest.fail(f"after the training it says: {error}")
    assert (place_of(result) / "submission.csv").is_file()


@pytest.mark.parametrize("gone", ["queries", "solution"])
def test_without_queries_or_solution_a_run_tells_what_it_can(gone, open_mini, tmp_path):
    keep = (lambda t: t[t.split == "database"]) if gone == "queries" else (lambda t: t)
    data = changed(open_mini, tmp_path / "data", keep)
    (data / "solution.csv").unlink()
    result = run(data, tmp_path / "runs")
    told = metrics_of(result)["open_set"]
    assert "test" not in told
    assert math.isfinite(told["cross_fitted"]["score"])
    assert (place_of(result) / "submission.csv").exists() == (gone == "solution")


@pytest.mark.parametrize(
    ("changes", "submission"),
    [
        (
            {"data": {"split": "all"}, "open_set": {"decide": "softmax", "threshold": 0.3}},
            "default/seed42/submission.csv",
        ),
        ({"data": {"split": "kfold"}}, "default/seed42/submission.csv"),
        ({"ensemble": "mean", "seeds": [1, 2]}, "ensemble/submission.csv"),
    ],
    ids=["all", "kfold", "ensemble"],
)
def test_queries_are_answered_or_the_recipe_is_refused(changes, submission, open_mini, tmp_path):
    try:
        result = run(open_mini, tmp_path, **changes)
    except KitError:
        assert not list(tmp_path.rglob("weights.safetensors"))
        return
    assert (result.folder / submission).is_file(), "the run says nothing, and answers no query"


@pytest.mark.parametrize("name", ["animalclef25", "animalclef25_retrieval"])
def test_the_recipes_ask_for_an_open_set(name):
    path = jaguar_kit.Path(jaguar_kit.__file__).parent / "recipes" / f"{name}.yaml"
    recipe = jaguar_kit.load_recipe(path)
    assert recipe.data.split.name == "open_set"
    assert recipe.open_set is not None
    small = jaguar_kit.smoke(recipe)
    assert small.data.mini.layout == "animalclef"
    assert yaml.safe_load(path.read_text())["data"]["split_seed"] == 42


def test_a_fitted_threshold_is_told_on_the_scale_on_which_it_can_be_given(finished, open_mini, tmp_path):
    told = metrics_of(finished("nearest"))["open_set"]
    config = RUNS["nearest"]["open_set"]
    if len(told["thresholds"]) > 1:
        pytest.skip("one number can't stand for several")
    given = {**RUNS["nearest"], "open_set": {**config, "threshold": round(told["similarity"][""], 6)}}
    answers = guesses_in(run(open_mini, tmp_path, **given), "test").answer
    assert (answers == guesses_in(finished("nearest"), "test").answer).mean() > 0.95


@pytest.mark.slow
def test_a_threshold_that_was_fitted_beats_every_fixed_one_on_unseen_queries(tmp_path):
    """The fixed ones are for sure answers, which a small network never gives."""
    data = make_mini_dataset(tmp_path / "data", identities=18, images=450, seed=5, layout="animalclef")
    weights = jaguar_kit.small_backbone()
    model = {"backbone": "test_resnet", "weights": str(weights), "input_size": 96}
    recipe = tiny_recipe(
        name="learned",
        data={"size": 96, "split": {"name": "open_set", "unknown": 0.3}},
        model={**model, "head": {"name": "linear", "output": 64}, "pretrained": True, "freeze": True},
        train={"epochs": 30, "batch_size": 32, "lr": 2e-3, "patience": 0},
        open_set={"decide": "nearest"},
    )
    told = metrics_of(jaguar_kit.run_recipe(recipe_from_dict(recipe), data, tmp_path, "cpu"))["open_set"]
    assert told["test"]["score"] > max(score["score"] for score in told["test_fixed"].values())


def test_thresholds_by_species_beat_one_for_unseen_animals_when_species_differ_in_scale():
    rng, rows = np.random.default_rng(0), []
    for species, middle in (("lynx", 0.3), ("salamander", 0.7)):
        for animal in range(30):
            known = animal % 2 == 0
            for score in rng.normal(middle + (0.08 if known else -0.08), 0.05, 3):
                truth = f"{species}{animal}"
                rows.append(("", species, truth if known else "other", score, truth, known))
    table = pd.DataFrame(rows, columns=["image_id", "species", "identity", "score", "truth", "known"])
    assert cross_fitted_score(table, True)["score"] > cross_fitted_score(table, False)["score"] + 0.1
    judge = SimpleNamespace(config=jaguar_kit.OpenSet(thresholds="auto"))
    assert OpenSetJudge.per_species(judge, table), "auto takes what is better"
    assert not OpenSetJudge.per_species(judge, table.assign(species="lynx"))
