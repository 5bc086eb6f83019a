"""How far the answers of a season can be trusted, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .answers import Ranked
from .confidence import FRESH, LOOK, SURE, catalogue_guesses, too_weak
from .odds import Odds, drawn_weeks, interval_of
from .season import Season

UNTOLD = 0.9  # a share of new animals whose interval is wider than this is not told


@dataclass(frozen=True, eq=False)
class Trust:
    """What confidence was fitted on, and what may be said because of it."""

    guesses: pd.DataFrame | None
    fitted_on: str
    weak: bool
    single: bool
    sure: float
    fresh: float
    odds: Odds | None
    right: np.ndarray  # bool (3, draws, N): which first names are right, as `drawn_weeks` tells
    shares: np.ndarray  # (draws,): of photographs that show new animals
    asked: float | None = None  # the share, where it was given
    evidence: str = "features"  # in words
    head: str = ""  # what became of it, a sentence

    def headline(self, answers: pd.DataFrame) -> list[str]:
        """How many are sure, to look at, and new, and how many names are to be expected right."""
        counts = answers["class"].value_counts()
        pictures, animals = answers.image.nunique(), len(answers)
        what = "photographs" if pictures == animals else f"animals on {pictures} photographs"
        told = [
            f"{animals} {what}: {counts.get(SURE, 0)} sure, {counts.get(LOOK, 0)} to look at, "
            f"{counts.get(FRESH, 0)} probably new"
        ]
        if self.odds is None:
            return [*told, "candidates are ranked, and nothing tells how sure they are"]
        if self.weak:
            tried = f"on {self.guesses.known.sum()} encounters of the catalogue"
            return [*told, f"too weak: {tried} this model can't be told from chance"]
        certain = (answers["class"] == SURE).to_numpy()
        for kind, rows in (("first names", np.ones(len(answers), bool)), ("sure ones", certain)):
            if rows.any():
                right, low, high = interval_of(self.right[:, :, rows])
                about = f"about {right:.0f} of these {rows.sum()} {kind} should be right"
                told.append(f"{about} [{low:.0f} to {high:.0f}]")
        return [*told, *self.share_told]

    @property
    def share_told(self) -> list[str]:
        """A sentence where the photographs don't tell how many of them show new animals."""
        low, high = np.quantile(self.shares, [0.025, 0.975])
        if self.asked is not None or high - low <= UNTOLD:
            return []
        return [f"how many show new animals can't be told, so that none is called new: from {low:.0%} to {high:.0%}"]

    @property
    def levels(self) -> tuple[float, float]:
        """From which probability on a name is sure, and an animal new: none is where the share of them is not told."""
        return self.sure, np.inf if self.odds is not None and self.share_told else self.fresh

    @property
    def share_words(self) -> str:
        """Which share of photographs is taken to show new animals, and how it is known."""
        if self.asked is not None:
            return f"if {self.asked:.0%} of photographs showed new animals (--share-new)"
        low, high = np.quantile(self.shares, [0.025, 0.975])
        span = f"[{low:.0%} to {high:.0%}]"
        return f"{self.odds.share:.0%} of photographs taken to show new animals, by their likenesses {span}"

    def cautions(self) -> list[str]:
        """What a reader must know, in sentences."""
        head = [self.head] if self.head else []
        if self.single:
            return [*head, "Each animal of the catalogue has one image, so that nothing tells how sure a match is."]
        if self.odds is None:
            return [
                *head,
                "No encounter of the catalogue is recognised by the others, so that nothing tells how sure a match is.",
            ]
        known = self.guesses[self.guesses.known]
        right = (known.identity == known.truth).mean()
        said = [
            f"Compared by {self.evidence}, means over the photographs of an encounter.",
            *head,
            f"Probabilities are fitted on {self.fitted_on}; {self.share_words}. sure: right with probability "
            f"{self.sure:.0%} at least; new: a new animal with {self.fresh:.0%} at least.",
            f"{len(known)} of its encounters, each asked for among the others: the right animal is first "
            f"for {right:.0%}. Who is known from one flank only may be called new when seen from the other.",
        ]
        if self.weak:
            said.insert(
                0,
                "This model is too weak for these animals, or the catalogue too small to tell: nothing is called "
                "recognised. Train one, or take another backbone.",
            )
        return said


def trust_in(season: Season, ranked: Ranked, identities: set[str], chosen: Mapping[str, Any]) -> Trust:
    """Fits confidence on the catalogue, where any animal has two images of it, and to the week's photographs.

    identities: whom the weights know.
    """
    table, asked, scores, ruled_out = season.known, chosen["share_new"], ranked.score[:, 0], ranked.ruled_out
    right, shares = np.zeros((3, 1, len(scores)), bool), np.zeros(1)
    guesses, fitted_on, odds = None, "", None
    likeness = season.learned.crossed or season.likeness
    if not (single := not table.identity.duplicated().any()):
        guesses, fitted_on = catalogue_guesses(chosen["weights"], table, season.known_met, likeness, identities)
        odds = Odds.of(guesses, ruled_out)
    if odds is not None:
        odds = odds.of_week(scores, season.encounters) if asked is None else odds.at(asked)
        right, shares = drawn_weeks(guesses, scores, season.encounters, asked, ruled_out)
    weak = guesses is not None and too_weak(guesses)
    levels, words = (chosen["sure"], chosen["new"]), (season.evidence, season.learned.words)
    return Trust(guesses, fitted_on, weak, single, *levels, odds, right, shares, asked, *words)
