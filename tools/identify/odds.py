"""How probable names and new animals are: fitted on guesses for a catalogue, at the share of strangers of a week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..experiments.open_set import LEFT_OUT, confident

SHARES = np.sin(np.linspace(0, np.pi / 2, 65)) ** 2  # of strangers, as dense as Jeffreys' prior has them
EVENLY = np.full(len(SHARES), 1 / len(SHARES))
DRAWS = 200  # of the catalogue's individuals, for intervals


@dataclass(frozen=True)
class Tilt:
    """The logarithm of the ratio of two densities of a score: a straight line that never falls."""

    level: float = 0.0
    slope: float = 0.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return np.clip(self.level + self.slope * scores, -30, 30)

    @staticmethod
    def of(scores: np.ndarray, one: np.ndarray, other: np.ndarray) -> Tilt:
        """Logistic regression on scores (N,), each of which counts so many times as `one` and as `other`, with Platt's
        targets, so that no number of scores is beyond doubt."""
        total, others, count = one.sum(), other.sum(), one + other
        if not total or not others:
            return Tilt()
        centre = np.average(scores, weights=count)
        spread = float(np.sqrt(np.average((scores - centre) ** 2, weights=count))) or 1.0
        x = np.stack([np.ones(len(scores)), (scores - centre) / spread])
        wanted = one * (total + 1) / (total + 2) + other / (others + 2)
        fitted = np.array([np.log(total / others), 0.0])
        for _ in range(25):  # Newton's
            p = 1 / (1 + np.exp(-np.clip(fitted @ x, -30, 30)))
            curvature = (x * (count * p * (1 - p))) @ x.T + 1e-6 * np.eye(2)
            step = np.clip(np.linalg.solve(curvature, x @ (wanted - count * p)), -2, 2)
            fitted = fitted + step
            if np.abs(step).max() < 1e-6:
                break
        if fitted[1] <= 0:
            return Tilt()
        slope = float(fitted[1] / spread)
        return Tilt(float(fitted[0] - np.log(total / others) - slope * centre), slope)


@dataclass(frozen=True, eq=False)
class Odds:
    """From the likeness to the most similar animal: how probable it is that it is that one, and that it is new.

    Names of known animals are right or wrong, strangers have none; the scores of the three are told apart, and mixed
    by the share of strangers, of which each of `shares` is as probable as `likely` says.
    """

    named: float  # share of known animals whose first name is right
    right: Tilt  # right names against names of strangers
    wrong: Tilt  # wrong names of known animals against names of strangers
    levels: np.ndarray  # scores of the guesses, rising
    tails: np.ndarray  # (3, L): shares of known animals named rightly, of known ones, of strangers, from each level on
    heads: np.ndarray  # (2, L): shares of known animals, and of strangers, up to each level
    shares: np.ndarray  # of strangers that are looked at
    likely: np.ndarray  # how probable each is

    @staticmethod
    def of(guesses: pd.DataFrame, rejected: Sequence[float] = ()) -> Odds | None:
        """Fitted on guesses, None where nothing can be told; rejected: scores of guesses that people said no to."""
        return Odds.fit(*Trials.of(guesses).usual(), rejected)

    @staticmethod
    def fit(score: np.ndarray, kinds: np.ndarray, rejected: Sequence[float] = ()) -> Odds | None:
        """Fitted on scores (N,), each of which counts so many times as a right name, a wrong one, and a stranger's:
        kinds (3, N)."""
        more = np.zeros((3, len(rejected)))
        more[1] = 1
        score, kinds = np.r_[score, list(rejected)], np.concatenate([kinds, more], 1)
        order = np.argsort(score, kind="stable")
        order = order[np.isfinite(score[order]) & (kinds[:, order].sum(0) > 0)]
        score, (right, wrong, strange) = score[order], kinds[:, order]
        seen = right + wrong
        if not strange.any() or not right.any():
            return None
        total, strangers = seen.sum() + 2, strange.sum() + 2  # by Laplace's rule
        from_on = np.cumsum([right[::-1], seen[::-1], strange[::-1]], 1)[:, ::-1] + [[1], [2], [1]]
        up_to = np.cumsum([seen, strange], 1) + np.array([[1], [2]])
        against = (Tilt.of(score, one, strange) for one in (right, wrong))
        named = float((right.sum() + 1) / total)
        tails, heads = from_on / [[total], [total], [strangers]], up_to / [[total], [strangers]]
        return Odds(named, *against, score, tails, heads, SHARES, EVENLY)

    def at(self, share: float) -> Odds:
        """Where so many of the photographs show strangers."""
        return replace(self, shares=np.array([share]), likely=np.ones(1))

    def of_week(self, scores: np.ndarray, encounters: np.ndarray) -> Odds:
        """Where strangers are as many as the likenesses of a week's photographs tell, those of an encounter once."""
        there = np.isfinite(scores)
        codes = np.unique(encounters[there], return_inverse=True)[1]
        right, wrong = self.densities(scores[there])
        mixed = np.log(np.outer(right + wrong, 1 - self.shares) + self.shares)
        told = (mixed / np.bincount(codes)[codes][:, None]).sum(0)
        likely = np.exp(told - told.max())
        return replace(self, likely=likely / likely.sum())

    @property
    def share(self) -> float:
        """Of strangers, as it is to be expected."""
        return float(self.shares @ self.likely)

    def densities(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of right names and of wrong names of known animals, over that of strangers."""
        return self.named * np.exp(self.right(scores)), (1 - self.named) * np.exp(self.wrong(scores))

    def mixed(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How probable it is that names are right, and that animals are new, over all shares: (N,) both."""
        right, wrong = (one[:, None] for one in self.densities(scores))
        total = (1 - self.shares) * (right + wrong) + self.shares
        return ((1 - self.shares) * right / total) @ self.likely, (self.shares / total) @ self.likely

    def expected(self, scores: np.ndarray) -> np.ndarray:
        """How probable it is that names are right (N,), by what the fit says alone; none is where nothing is alike."""
        return confident(lambda finite: self.mixed(finite)[0], scores)

    @cached_property
    def most(self) -> np.ndarray:
        """What the guesses from each level on bear out, so that few of them allow no certainty."""
        right, seen, strange = self.tails
        return np.maximum.accumulate((1 - self.share) * right / ((1 - self.share) * seen + self.share * strange))

    @cached_property
    def most_new(self) -> np.ndarray:
        """And those up to each level."""
        seen, strange = self.heads
        claimed = self.share * strange / ((1 - self.share) * seen + self.share * strange)
        return np.maximum.accumulate(claimed[::-1])[::-1]

    def of_right(self, scores: Any) -> np.ndarray:
        values = np.asarray(scores, np.float64)
        place = np.clip(np.searchsorted(self.levels, values, "right") - 1, 0, None)
        return np.minimum(self.expected(values), self.most[place])

    def of_new(self, scores: Any) -> np.ndarray:
        values = np.asarray(scores, np.float64)
        place = np.clip(np.searchsorted(self.levels, values, "left"), None, len(self.levels) - 1)
        known = confident(lambda one: 1 - self.mixed(one)[1], values)
        new = np.where(np.isfinite(values), np.minimum(1 - known, self.most_new[place]), 1.0)  # like nobody at all
        return np.minimum(new, 1 - self.of_right(values))


@dataclass(frozen=True, eq=False)
class Trials:
    """Encounters of a catalogue that were asked for: what each is like, and how often it counts."""

    own: np.ndarray  # likeness to the own animal's other encounters, -inf where there are none
    rival: np.ndarray  # to the most similar encounter of the others
    another: np.ndarray  # to one other encounter of the own animal, -inf where there are none
    stranger: np.ndarray  # to the most similar one where the own animal is not there
    known: np.ndarray  # how often it counts as a known animal, and
    strange: np.ndarray  # as a stranger
    animal: np.ndarray  # codes

    @staticmethod
    def of(guesses: pd.DataFrame) -> Trials:
        """From guesses as `leave_one_out` has them, or from a table of score, known, truth and identity alone."""
        animal = pd.factorize(guesses.truth.str.removesuffix(LEFT_OUT))[0]
        known, score = guesses.known.to_numpy(bool), guesses.score.to_numpy(float)
        if "own" in guesses:
            own, rival, another = guesses.loc[~known, ["own", "rival", "another"]].to_numpy(float).T
            once = np.ones(len(own))
            return Trials(own, rival, another, score[~known], once, once, animal[~known])
        right, nothing = (guesses.truth == guesses.identity).to_numpy(), np.full(len(score), -np.inf)
        own = np.where(known, np.where(right, score, np.finfo(float).min), -np.inf)
        rival = np.where(known & right, -np.inf, score)
        return Trials(own, rival, nothing, score, known * 1.0, ~known * 1.0, animal)

    def usual(self, often: float = 0.5, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and how often each is that of a right name, a wrong one, and a stranger's.

        New photographs find all encounters of their animal in the catalogue; one that is asked for is missing among
        its own. For a share `often` of them one that is `another` of any animal takes its place, in so many steps.
        """
        found = self.another[np.isfinite(self.another) & (self.known > 0)]
        if not len(found):
            return self.scored(self.own, self.known, self.strange)
        found = np.quantile(found, (np.arange(steps) + 0.5) / steps)
        own = np.maximum(self.own, np.r_[-np.inf, found][:, None])
        known = self.known * np.r_[1 - often, np.full(steps, often / steps)][:, None]
        return self.scored(own.ravel(), known.ravel(), self.strange)

    def drawn(self, often: float, rng: np.random.Generator, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same where each counts so many `times` (N,), and is given what takes the place at random."""
        own, known = self.own, self.known * times
        chance = np.where(np.isfinite(self.another), known, 0.0)
        if chance.any():
            found = self.another[rng.choice(len(chance), len(own), p=chance / chance.sum())]
            own = np.maximum(own, np.where(rng.random(len(own)) < often, found, -np.inf))
        return self.scored(own, known, self.strange * times)

    def scored(self, own: np.ndarray, known: np.ndarray, strange: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and kinds for likeness to the own animal (a multiple of N,), and how often each counts."""
        rival, known = np.resize(self.rival, len(own)), np.where(np.isfinite(own), known, 0.0)
        right, kinds = own >= rival, np.zeros((3, len(own) + len(strange)))
        kinds[0, : len(own)], kinds[1, : len(own)], kinds[2, len(own) :] = known * right, known * ~right, strange
        return np.r_[np.maximum(own, rival), self.stranger], kinds


def drawn_weeks(
    guesses: pd.DataFrame,
    scores: np.ndarray,
    encounters: np.ndarray,
    share: float | None = None,
    rejected: Sequence[float] = (),
    draws: int = DRAWS,
) -> tuple[np.ndarray, np.ndarray]:
    """Which names of a week are right, bool (3, draws, N), and the share of strangers, (draws,), as far as can be told.

    The catalogue's individuals are drawn anew each time, and how much one more encounter tells of an animal; names of
    one encounter are right or wrong together: first at the share drawn, then at a low one and at a high one, below and
    above which it is with a tenth each, so that an interval of any share there may be can be told. share: of strangers,
    where it is known.
    """
    rng, trials = np.random.default_rng(0), Trials.of(guesses)
    animals, codes = int(trials.animal.max(initial=-1)) + 1, np.unique(encounters, return_inverse=True)[1]
    right, shares = np.zeros((3, draws, len(scores)), bool), np.empty(draws)
    for draw in range(draws):
        times = rng.multinomial(animals, np.full(animals, 1 / animals))[trials.animal]
        odds = Odds.fit(*trials.drawn(rng.random(), rng, times), rejected)
        if odds is None:
            shares[draw] = rng.choice(SHARES) if share is None else share
            continue
        odds = odds.of_week(scores, encounters) if share is None else odds.at(share)
        shares[draw] = rng.choice(odds.shares, p=odds.likely)
        chance = rng.random(codes.max(initial=0) + 1)[codes]
        low, high = odds.shares[np.searchsorted(np.cumsum(odds.likely), [0.1, 0.9]).clip(0, len(odds.shares) - 1)]
        for row, one in enumerate((shares[draw], low, high)):
            right[row, draw] = chance < odds.at(one).expected(scores)
    return right, shares


def interval_of(right: np.ndarray) -> tuple[float, float, float]:
    """How many names should be right, and the 95 % interval of that number, of `drawn_weeks` (3, draws, N)."""
    drawn, most, least = right.sum(2)
    return float(drawn.mean()), float(np.floor(np.quantile(least, 0.025))), float(np.ceil(np.quantile(most, 0.975)))
