"""How far the answers of a season can be trusted, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .confidence import FRESH, LOOK, SURE, Odds, catalogue_guesses, expected_right, too_weak
from .decisions import Decisions
from .season import Season

LEAST_DECIDED = 20  # decisions by which the share of new animals is told


@dataclass(frozen=True, eq=False)
class Trust:
    """What confidence was fitted on, and what may be said because of it."""

    guesses: pd.DataFrame | None
    fitted_on: str
    share_words: str
    share_new: float
    weak: bool
    single: bool
    sure: float
    fresh: float
    odds: Odds | None
    ruled_out: Sequence[float] = ()

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
            return [
                *told,
                f"too weak: on {self.guesses.known.sum()} images of the catalogue this model can't be told from chance",
            ]
        certain = answers[answers["class"] == SURE]
        for kind, rows in (("first names", answers), ("sure ones", certain)):
            if len(rows):
                scores = rows.score.to_numpy()
                low, high = expected_right(
                    self.guesses, self.share_new, scores, rows.encounter.to_numpy(), self.ruled_out
                )
                right = self.odds.of_right(scores).sum()
                told.append(f"about {right:.0f} of these {len(rows)} {kind} should be right [{low:.0f} to {high:.0f}]")
        return told

    def cautions(self) -> list[str]:
        """What a reader must know, in sentences."""
        if self.single:
            return ["Each animal of the catalogue has one image, so that nothing tells how sure a match is."]
        if self.odds is None:
            return [
                "No image of the catalogue is recognised among the others, so that nothing tells how sure a match is."
            ]
        known = self.guesses[self.guesses.known]
        right = (known.identity == known.truth).mean()
        said = [
            f"Probabilities are fitted on {self.fitted_on}; {self.share_words}. sure: right with probability "
            f"{self.sure:.0%} at least; new: a new animal with {self.fresh:.0%} at least.",
            f"{len(known)} of its images, each asked for among images of other encounters: the right animal is first "
            f"for {right:.0%}. Who is known from one flank only may be called new when seen from the other.",
        ]
        if self.weak:
            said.insert(
                0,
                "This model is too weak for these animals, or the catalogue too small to tell: nothing is called "
                "recognised. Train one, or take another backbone.",
            )
        return said


def trust_in(season: Season, identities: set[str], decisions: Decisions, chosen: Mapping[str, Any]) -> Trust:
    """Fits confidence on the catalogue, where any animal has two images of it; identities: whom the weights know."""
    table, (share, words) = season.known, share_of_new(decisions, chosen["share_new"])
    guesses, fitted_on, odds, ruled_out = None, "", None, rejected_guesses(season, decisions)
    if not (single := not table.identity.duplicated().any()):
        guesses, fitted_on = catalogue_guesses(chosen["weights"], table, season.known_met, season.likeness, identities)
        odds = Odds.of(guesses, share, ruled_out)
    weak = guesses is not None and too_weak(guesses, table.identity.nunique())
    return Trust(guesses, fitted_on, words, share, weak, single, chosen["sure"], chosen["new"], odds, ruled_out)


def share_of_new(decisions: Decisions, asked: float) -> tuple[float, str]:
    """Which share of photographs shows new animals, and in words how it is known: as was asked, until decisions tell.

    Then it is the share of new ones among the animals that were named: their photographs are no measure, for a new
    animal is new once, however often it came by.
    """
    named = decisions.named
    if len(named) < LEAST_DECIDED:
        return asked, f"if {asked:.0%} of photographs showed new animals (--share-new)"
    new, animals = named[named.decision == "new"].identity.nunique(), named.identity.nunique()
    share = (new + 1) / (animals + 2)
    return share, f"{share:.0%} of photographs taken to show new animals, as {new} of {animals} that were named are new"


def rejected_guesses(season: Season, decisions: Decisions) -> list[float]:
    """For each photograph whose animals somebody ruled out, its likeness to the most similar of them."""
    identity, found = season.known.identity.to_numpy(str), []
    for row, mark in enumerate(season.new.table.mark):
        if names := decisions.rejected.get(mark):
            own = season.among_known(np.array([row]))[0][np.isin(identity, list(names))]
            found += [float(own.max())] if len(own) else []
    return found
