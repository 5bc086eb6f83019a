"""Evidence: means over the photographs of two encounters, and what the catalogue says helps."""

import jaguar_kit
import numpy as np
import pytest
import torch
from cases import every
from jaguar_kit_tools.identify import likeness as likeness_tool
from jaguar_kit_tools.identify.evidence import Recognised, chosen, images_of, recognised
from jaguar_kit_tools.identify.likeness import Gallery, Likeness, of_encounters, pairs_to_match, symmetric


def likeness_of(vectors, **more):
    return Likeness(torch.tensor(vectors, dtype=torch.float32), jaguar_kit.build("geometry", "cosine"), **more)


def spots_of(matrix):
    one, other = np.triu_indices(len(matrix), 1)
    return symmetric(np.stack([one, other], 1), matrix[one, other], len(matrix))


def slow_means(parts, rows, encounters, met, allowed, by_query):
    """How alike each encounter (of rows) is to each one of the catalogue: loops over all pairs of their images."""
    codes = sorted(set(met))
    found = np.full((max(encounters) + 1, len(codes)), -np.inf)
    for own in range(max(encounters) + 1):
        columns = [j for j in range(len(met)) if allowed[own][codes.index(met[j])]]
        whole = {}
        for i in (row for row, one in enumerate(encounters) if one == own):
            for part in parts:
                values = part[rows[i]][columns]
                mean, spread = (values.mean(), values.std()) if by_query else (0.0, 1.0)
                for j in columns:
                    whole[i, j] = whole.get((i, j), 0.0) + (part[rows[i]][j] - mean) / spread
        for place, code in enumerate(codes):
            if allowed[own][place]:
                found[own, place] = np.mean([value for (_, j), value in whole.items() if met[j] == code])
        if by_query:
            there = found[own][np.isfinite(found[own])]
            found[own] = (found[own] - there.mean()) / there.std()
    return found


@every("by_query", [False, True])
@every("spots", [False, True])
def test_encounters_are_alike_by_the_mean_over_all_pairs_of_their_images(by_query, spots):
    rng = np.random.default_rng(0)
    vectors, met = rng.normal(size=(16, 5)), np.array([3, 1, 1, 7, 7, 7, 2, 3, 2, 1])
    matched = rng.random((16, 16))
    matched = matched + matched.T
    likeness = likeness_of(vectors, by_query=by_query, spots=spots_of(matched) if spots else None)
    rows, encounters = np.array([12, 10, 15, 11, 13, 14]), np.array([0, 0, 1, 2, 2, 2])
    gallery = Gallery.of(met.astype(str), met)
    assert gallery.identity.tolist() == ["1", "2", "3", "7"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = [unit @ unit.T, *([matched] if spots else [])]
    for allowed in (np.ones((3, 4), bool), np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]], bool)):
        images, found = of_encounters(likeness, rows, encounters, gallery, allowed)
        expected = slow_means(parts, rows, encounters, met, allowed, by_query)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert images.shape == (6, 10)


def catalogue(rng, noise=1.0, animals=30):
    """Identities, encounters and features: three encounters of each animal, two images of each encounter."""
    seen = np.repeat(np.arange(animals), 6)
    features = rng.normal(size=(animals, 16))[seen] + noise * rng.normal(size=(len(seen), 16))
    return np.char.add("a", seen.astype(str)), np.repeat(np.arange(3 * animals), 2), features


def test_encounters_are_recognised_among_the_others_alone():
    identity, met, features = catalogue(np.random.default_rng(0), noise=0.1)
    met[:6] = 0  # the first animal has one encounter
    found = recognised(likeness_of(features), identity, np.unique(met, return_inverse=True)[1], np.arange(88))
    assert np.isnan(found.rank[0])
    assert (found.rank[1:] == 1).all()


def test_what_is_better_is_so_by_more_than_chance():
    animal = np.repeat(np.arange(40), 3)
    rank = np.random.default_rng(0).random(120)
    assert Recognised(rank + 0.1, animal).better_than(Recognised(rank, animal))
    assert not Recognised(rank, animal).better_than(Recognised(rank, animal))
    assert not Recognised(rank[::-1], animal).better_than(Recognised(rank, animal))
    few = animal < 10
    assert not Recognised(rank[few] + 0.1, animal[few]).better_than(Recognised(rank[few], animal[few]))


def test_spots_are_taken_where_they_help_and_left_where_they_do_not(capsys):
    rng = np.random.default_rng(0)
    identity, met, features = catalogue(rng, noise=1.5)
    plain, same = likeness_of(features), identity[:, None] == identity

    def with_matrix(matrix):
        return lambda likeness: likeness_tool.replace(likeness, spots=spots_of(matrix), by_query=True)

    helpful, words = chosen(plain, identity, met, with_matrix(rng.random((180, 180)) + same))
    assert helpful.spots is not None
    assert words == "features and matching spots, standardised for each photograph"
    misled, words = chosen(plain, identity, met, with_matrix(5 * rng.random((180, 180))))
    assert misled.spots is None
    assert words in ("features", "features, standardised for each photograph")
    assert "matching spots do not help" in capsys.readouterr().out
    few = np.isin(identity, [f"a{i}" for i in range(8)])  # too few animals to tell: what was asked for is done
    asked, _ = chosen(likeness_of(features[few]), identity[few], met[few], with_matrix(rng.random((48, 48))))
    assert asked.spots is not None


def test_images_of_encounters_stand_one_behind_another():
    gallery = Gallery.of(list("abab"), [5, 2, 5, 2])
    rows, encounters = images_of(gallery, np.array([1, 0]))
    assert rows.tolist() == [0, 2, 1, 3]
    assert encounters.tolist() == [0, 0, 1, 1]
    rows, encounters = images_of(gallery, np.array([1, 0]), np.array([False, True, True, True]))
    assert rows.tolist() == [2, 1, 3]
    assert encounters.tolist() == [0, 1, 1]


@pytest.mark.parametrize("most", [10**6, 100])
def test_all_pairs_are_matched_where_they_are_few(most, monkeypatch):
    monkeypatch.setattr(likeness_tool, "ALL_PAIRS", most)
    monkeypatch.setattr(likeness_tool, "SHORTLIST", 3)
    monkeypatch.setattr(likeness_tool, "AMONG", 2)
    likeness, met = likeness_of(np.random.default_rng(0).normal(size=(40, 4))), np.arange(40) // 2
    pairs = pairs_to_match(likeness, np.arange(30), np.arange(30, 40), met)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (met[pairs[:, 0]] != met[pairs[:, 1]]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    if most > 1000:
        assert len(pairs) == 40 * 39 // 2 - 20
    else:
        assert len(pairs) < 40 * 3 + 10 * 2 + 1
        matrix, known = likeness(np.arange(40), np.arange(40)), np.arange(30)
        for row in range(40):
            others = known[met[known] != met[row]]
            best = others[np.argsort(-matrix[row, others])[:3]]
            assert {tuple(sorted((row, int(one)))) for one in best} <= set(map(tuple, pairs))
