"""Probabilities of names and of new animals: against simulated truth, at any share of strangers."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import build
from jaguar_kit_tools.benches import strangers
from jaguar_kit_tools.identify.grouping import Sameness, between
from jaguar_kit_tools.identify.likeness import Gallery, Likeness
from jaguar_kit_tools.identify.odds import SHARES, Odds, Tilt, Trials, drawn_weeks, interval_of
from scipy.sparse import csr_matrix
from scipy.stats import norm

PROPERTY = settings(deadline=None, max_examples=60)


def guesses_of(rng, count=400, share=0.5):
    """Likeness of right names, of wrong ones, and of strangers' names; those of the last two are alike."""
    known = rng.random(count) >= share
    right = known & (rng.random(count) < 0.7)
    score = rng.normal(np.where(right, 2.0, 0.0), 1.0)
    truth = [f"{'a' if one else 'b'}{i % 40}" for i, one in enumerate(right)]
    identity = [name if one else "x" for name, one in zip(truth, right)]
    return pd.DataFrame({"identity": identity, "truth": truth, "known": known, "score": score})


# groups of new animals


def pairs_like(same, rng):
    """How alike pairs are: those of one animal somewhat more, and two of a hundred of two animals by a bush."""
    bush = rng.random(len(same)) < 0.02
    return rng.normal(np.where(same, 1.5, np.where(bush, 6.0, 0.0)), 1.0)


def test_pairs_are_no_surer_than_the_pairs_of_the_catalogue_bear_out():
    rng = np.random.default_rng(0)
    same = np.arange(8000) < 200
    found = Sameness.fit(pairs_like(same, rng), same, 0.025)
    upper, together = np.triu_indices(120, 1), rng.random(7140) < 0.025
    alike = np.zeros((120, 120))
    alike[upper] = pairs_like(together, rng)
    told = found.among(alike + alike.T)[upper]
    assert told.sum() == pytest.approx(together.sum(), rel=0.4)
    assert (told > 0.5).mean() <= 0.001, "a bush is no animal"
    alike[0, 1] = 30.0  # as no pair of the catalogue is
    assert math.exp(found.tilt(np.array([30.0]))[0]) > 1000, "the straight line alone would be sure"
    assert found.among(alike + alike.T)[0, 1] < 0.6
    assert (np.diff(found.most) >= 0).all()
    assert np.isfinite(found.among(np.array([[1.0]]))).all()  # a single encounter


def test_whom_nobody_of_the_catalogue_is_like_is_not_the_same_as_anybody_who_is():
    rng = np.random.default_rng(0)
    spots = np.zeros((12, 12))
    spots[:8, :8] = np.abs(rng.normal(size=(8, 8)))  # of the catalogue
    spots[8:10, :8] = spots[:8, 8:10].T + np.abs(rng.normal(size=(2, 8)))
    spots[8, 9] = spots[9, 8] = spots[10, 11] = spots[11, 10] = 0.5  # of the last two nobody's match any but these
    likeness = Likeness(torch.eye(12), build("geometry", "cosine"), csr_matrix(spots), by_query=True)
    gallery = Gallery.of(np.array([f"a{i // 2}" for i in range(8)]), np.arange(8))
    found = between(likeness, np.arange(8, 12), np.arange(4), gallery)
    assert np.abs(found).max() < 10
    np.testing.assert_allclose(found, found.T)


# ratios of densities


def test_the_ratio_of_two_normal_densities_is_found():
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(1.5, 1.0, 4000), rng.normal(0.0, 1.0, 6000)]
    one = np.arange(10_000) < 4000
    tilt = Tilt.of(scores, one * 1.0, ~one * 1.0)
    points = np.linspace(-1, 3, 9)
    np.testing.assert_allclose(tilt(points), norm.logpdf(points, 1.5) - norm.logpdf(points), atol=0.15)


def test_how_often_a_score_counts_is_as_if_it_stood_there_so_often():
    rng = np.random.default_rng(0)
    scores, one = rng.normal(size=60), rng.integers(0, 4, 60) * 1.0
    other = rng.integers(0, 4, 60) * 1.0
    rows = np.r_[np.repeat(np.arange(60), one.astype(int)), np.repeat(np.arange(60), other.astype(int))]
    first = np.arange(len(rows)) < one.sum()
    counted, repeated = Tilt.of(scores, one, other), Tilt.of(scores[rows], first * 1.0, ~first * 1.0)
    assert (counted.level, counted.slope) == pytest.approx((repeated.level, repeated.slope), abs=1e-6)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5))
def test_a_ratio_never_falls_and_is_finite(seed, ones, others):
    rng = np.random.default_rng(seed)
    scores = np.r_[rng.normal(size=ones), rng.normal(size=others) + rng.choice([0, 50])]
    one = np.arange(len(scores)) < ones
    found = Tilt.of(scores, one * 1.0, ~one * 1.0)(np.array([-100.0, -1.0, 0.0, 1.0, 100.0]))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


# probabilities


@every("share", [0.1, 0.5, 0.9])
def test_probabilities_hold_on_new_guesses_of_any_share_of_strangers(share):
    rng = np.random.default_rng(1)
    odds, fresh = Odds.of(guesses_of(rng, 4000)), guesses_of(rng, 20_000, share)
    assert odds.of_week(fresh.score.to_numpy(), np.arange(len(fresh))).share == pytest.approx(share, abs=0.06)
    odds = odds.at(share)
    p, right = odds.of_right(fresh.score), (fresh.known & (fresh.truth == fresh.identity)).to_numpy()
    new, strange = odds.of_new(fresh.score), ~fresh.known.to_numpy()
    for told, so in ((p, right), (new, strange)):
        for low, high in ((0.1, 0.3), (0.3, 0.6), (0.6, 0.9)):
            own = (told >= low) & (told < high)
            if own.sum() > 200:
                assert so[own].mean() == pytest.approx(told[own].mean(), abs=0.1)
    assert (np.diff(p[np.argsort(fresh.score)]) >= -1e-12).all()
    assert (p + new <= 1 + 1e-12).all()


def test_few_guesses_allow_no_certainty():
    few = pd.DataFrame({"identity": "a", "truth": ["a"] * 5 + ["b"] * 5, "known": [True] * 5 + [False] * 5})
    odds = Odds.of(few.assign(score=[9.0] * 5 + [0.0] * 5))
    assert odds.at(0.5).of_right([9.0])[0] <= 6 / 7 + 1e-9  # Laplace: five of five
    assert odds.at(0.01).of_right([9.0])[0] <= 6 / 7 + 1e-9
    assert odds.at(0.99).of_new([0.0])[0] < 1
    assert odds.at(0.5).of_new([-math.inf])[0] == 1  # like nobody at all
    assert odds.at(0.5).of_right([-math.inf])[0] == 0


def test_rejected_names_lower_what_is_claimed():
    guesses = guesses_of(np.random.default_rng(0), 300)
    usual, sharper = (Odds.of(guesses, no).at(0.5) for no in ((), [2.0] * 60))
    assert (sharper.of_right([1.0, 2.0, 3.0]) < usual.of_right([1.0, 2.0, 3.0])).all()
    weeks = [drawn_weeks(guesses, np.linspace(0, 3, 200), np.arange(200), 0.5, no)[0] for no in ((), [2.0] * 60)]
    assert weeks[1].sum() < weeks[0].sum()


def test_photographs_of_one_encounter_count_as_one():
    odds, rng = Odds.of(guesses_of(np.random.default_rng(0))), np.random.default_rng(1)
    scores, encounters = rng.normal(1, 1, 30), np.arange(30)
    once = odds.of_week(scores, encounters)
    five = odds.of_week(np.repeat(scores, 5), np.repeat(encounters, 5))
    np.testing.assert_allclose(once.likely, five.likely, atol=1e-9)
    right, _ = drawn_weeks(guesses_of(rng), np.repeat(scores, 5), np.repeat(encounters, 5), 0.5)
    assert set(right.reshape(-1, 30, 5).sum(2).ravel()) == {0, 5}  # right or wrong together
    assert (right[0] == right[1]).all()  # at one share, that was given
    assert (right[0] == right[2]).all()


def test_the_interval_is_that_of_any_share_there_may_be():
    rng = np.random.default_rng(0)
    guesses, scores = guesses_of(rng), guesses_of(rng, 60, 0.5).score.to_numpy()
    right, shares = drawn_weeks(guesses, scores, np.arange(60))
    expected, low, high = interval_of(right)
    assert (right[1] >= right[2]).all()  # with fewer strangers more names are right
    assert low < np.quantile(right[0].sum(1), 0.1) < expected < np.quantile(right[0].sum(1), 0.9) < high
    few, many = (
        drawn_weeks(guesses, scores, np.arange(60), share)[0][0].sum(1).mean()
        for share in np.quantile(shares, [0.1, 0.9])
    )
    assert low <= many < expected < few <= high


def test_the_likeliest_share_is_that_of_expectation_and_maximisation():
    rng = np.random.default_rng(0)
    odds, scores = Odds.of(guesses_of(rng)), guesses_of(rng, 500, 0.3).score.to_numpy()
    share, density = 0.5, sum(odds.densities(scores))
    for _ in range(500):
        share = (share / (share + (1 - share) * density)).mean()
    assert SHARES[odds.of_week(scores, np.arange(500)).likely.argmax()] == pytest.approx(share, abs=0.03)


def test_an_encounter_more_is_taken_from_another_animal():
    told = {"own": [0.2, -np.inf, 0.9], "another": [0.2, -np.inf, 0.8], "rival": 0.5, "score": 0.6, "known": False}
    guesses = pd.DataFrame({"identity": "x", "truth": ["a (left out)", "b (left out)", "c (left out)"], **told})
    trials = Trials.of(guesses)
    score, kinds = trials.drawn(0.0, np.random.default_rng(0), np.ones(3))
    assert score.tolist() == [0.5, 0.5, 0.9, 0.6, 0.6, 0.6]
    assert kinds.tolist() == [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    score, (right, wrong, strange) = trials.usual(1.0, 8)
    assert set(score[:27].reshape(9, 3)[1:, 0].round(4)) == {0.5, 0.5375, 0.6125, 0.6875, 0.7625}  # of .2 to .8
    assert (right + wrong).sum() == pytest.approx(3)
    assert strange.sum() == 3
    assert right[:27].reshape(9, 3).sum(0).tolist() == pytest.approx([0.5, 0.5, 1.0])
    many = [trials.drawn(1.0, np.random.default_rng(seed), np.ones(3))[1][0, :3] for seed in range(400)]
    assert np.mean(many, 0) == pytest.approx([0.5, 0.5, 1.0], abs=0.1)
    assert trials.drawn(1.0, np.random.default_rng(0), np.array([3.0, 0.0, 2.0]))[1].sum(1)[2] == 5


def test_where_nothing_can_be_told_there_are_no_odds():
    guesses = guesses_of(np.random.default_rng(0))
    assert Odds.of(guesses[guesses.known]) is None
    assert Odds.of(guesses[~guesses.known]) is None
    right, shares = drawn_weeks(guesses[~guesses.known], np.ones(9), np.arange(9))
    assert not right.any()
    assert np.isin(shares, SHARES).all()


# weeks, simulated


def weeks(name, draws):
    return strangers.shares_told(strangers.simulated(strangers.STRENGTHS[name]), draws)


@pytest.mark.ci
@every("name", ["weak", "strong"])
def test_headlines_hold_at_any_share_of_strangers(name):
    table = weeks(name, 4)
    assert (table.holds >= 3).all()
    assert table.holds.sum() >= 11
    assert (table.told == (4 if name == "strong" else 0)).all()
    assert name == "strong" or table.new.sum() == 0  # none is called new where nobody knows how many there are
    if name == "strong":
        assert (table["share"] - table.strangers).abs().max() < 0.1
        assert table["sure and right"].sum() >= 0.95 * table.sure.sum() > 0
        assert table["new and so"].sum() >= 0.75 * table.new.sum() > 0


@pytest.mark.slow
@every("name", list(strangers.STRENGTHS))
def test_headlines_hold_in_thirty_six_of_forty_weeks(name):
    table = weeks(name, 40)
    assert (table.holds >= 36).all()
    assert name != "strong" or (table.told == 40).all()


def test_weeks_of_photographs_part_encounters_and_strangers():
    rng = np.random.default_rng(0)
    identity = np.repeat([f"a{i:02d}" for i in range(40)], 24)
    met = np.repeat(np.arange(240), 4)
    for share in (0.0, 0.5, 1.0):
        kept, week = strangers.parted(identity, met, share, rng)
        assert not set(met[kept]) & set(met[week])
        assert pd.Series(met[kept]).groupby(identity[kept]).nunique().min() >= 2
        assert np.isin(identity[week], identity[kept]).mean() == pytest.approx(1 - share, abs=0.04)
        assert strangers.WEEK <= len(week) < strangers.WEEK + 8
