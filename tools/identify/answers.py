"""The table of answers: who is on each photograph, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaguar_kit import clean_label, cut_batches, rows_at_a_time

from .confidence import FRESH, LOOK, SURE, Odds
from .decisions import Decisions
from .grouping import MOST_GROUPED, grouped
from .season import Season

CANDIDATES, PICTURES = 5, 3  # animals that are offered for a photograph, and images of each

Pictures = list[list[list[int]]]  # for each photograph and candidate: images of the catalogue, most similar first


def answer_table(
    season: Season, odds: Odds | None, decisions: Decisions, sure: float, fresh: float, weak: bool
) -> tuple[pd.DataFrame, Pictures]:
    """A row for each photograph, and for each of its candidates the images of the catalogue that are most like it.

    Whom somebody ruled out is no candidate. A species that the tables tell is kept to.
    """
    table, known = season.new.table, season.known
    ranked = rank_animals(season, decisions)
    names, pictures = ranked.names, ranked.pictures
    probability, strange = probabilities(ranked.score, odds)
    kind = np.full(len(table), LOOK, object)
    if odds and not weak:
        kind[probability[:, 0] >= sure] = SURE
        kind[strange >= fresh] = FRESH
    answers = pd.DataFrame({"image": table.path})
    answers["class"] = kind
    answers["identity"] = names[:, 0]
    answers["probability"] = probability[:, 0]
    answers["probability_new"] = strange
    answers = answers.assign(**encounter_answers(season.encounters, ranked.best, ranked.animals, odds))
    answers["group"], answers["group_probability"] = "", math.nan
    rows = np.flatnonzero(kind == FRESH)
    if odds and len(rows) <= MOST_GROUPED:
        groups, shares = grouped(season, rows, odds, decisions)
        answers.loc[rows, "group"], answers.loc[rows, "group_probability"] = groups, shares
    answers = answers.assign(**candidate_columns(ranked, probability, known.path.to_numpy(str)))
    boxes = ["box"] if "box" in table and (table.box != "").any() else []
    for column in ("taken", "camera", "mark", *boxes):
        answers[column] = table[column].to_numpy()
    flank = flank_of(table, known.iloc[[shown[0][0] for shown in pictures]], answers["class"] == SURE)
    if flank is not None:
        answers["flank"] = flank
    answers["score"] = ranked.score[:, 0]
    return answers, pictures


@dataclass(frozen=True, eq=False)
class Ranked:
    """The animals of a catalogue in the order in which photographs are like them."""

    animals: np.ndarray  # names (C,)
    best: np.ndarray  # likeness of each photograph to each animal (Q, C), -inf where it is ruled out
    top: np.ndarray  # the first animals for each photograph (Q, K)
    pictures: Pictures

    @property
    def score(self) -> np.ndarray:
        """Likeness to the first animals (Q, K), falling."""
        return np.take_along_axis(self.best, self.top, 1)

    @property
    def names(self) -> np.ndarray:
        """Of the first animals (Q, K), "" where one is ruled out."""
        return np.where(np.isfinite(self.score), self.animals[self.top], "")


def rank_animals(season: Season, decisions: Decisions) -> Ranked:
    """Compares all photographs with the catalogue, a batch at a time."""
    table, identity = season.new.table, season.known.identity.to_numpy(str)
    animals = np.unique(identity)
    best = np.full((len(table), len(animals)), -np.inf)
    pictures: Pictures = []
    members = [np.flatnonzero(identity == name) for name in animals]
    out = np.array([[name in decisions.rejected.get(mark, ()) for name in animals] for mark in table.mark])
    top = np.empty((len(table), min(CANDIDATES, len(animals))), int)
    for rows in cut_batches(np.arange(len(table)), rows_at_a_time(len(identity))):
        similarity = within_species(season, rows)
        best[rows] = np.where(out[rows], -np.inf, by_animal(similarity, identity))
        top[rows] = np.argsort(-best[rows], axis=1, kind="stable")[:, :CANDIDATES]
        for own, first in zip(similarity, top[rows]):
            nearest = (members[animal][np.argsort(-own[members[animal]], kind="stable")] for animal in first)
            pictures.append([found[:PICTURES].tolist() for found in nearest])
    return Ranked(animals, best, top, pictures)


def within_species(season: Season, rows: np.ndarray) -> np.ndarray:
    """The likeness of photographs to the catalogue's images (R, K), -inf where both tell different species."""
    asked, known = season.new.table, season.known
    similarity = season.among_known(rows).astype(np.float64)
    if "species" in asked and "species" in known:
        own, there = (table.species.map(clean_label).str.casefold().to_numpy(str) for table in (asked, known))
        own = own[rows, None]
        similarity[(own != there) & (own != "") & (there != "")] = -np.inf
    return similarity


def by_animal(similarity: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """The likeness of the most similar image of each animal (Q, C), animals in order."""
    animals, codes = np.unique(identity, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.maximum.reduceat(similarity[:, order], np.searchsorted(codes[order], np.arange(len(animals))), axis=1)


def probabilities(score: np.ndarray, odds: Odds | None) -> tuple[np.ndarray, np.ndarray]:
    """How probable each candidate is (Q, K), and a new animal (Q,), as they are written; score (Q, K), falling.

    A candidate counts where those before it are wrong.
    """
    if not odds:
        return np.full(score.shape, math.nan), np.full(len(score), math.nan)
    probability = odds.of_right(score)
    probability[:, 1:] *= np.cumprod(1 - probability[:, :-1], axis=1)
    return probability.round(4), odds.of_new(score[:, 0]).round(4)  # classes follow from what is written


def candidate_columns(ranked: Ranked, probability: np.ndarray, paths: np.ndarray) -> dict[str, object]:
    """For each candidate its name and probability, which the first has already, and its most similar image."""
    names, there = ranked.names, np.isfinite(ranked.score)
    columns: dict[str, object] = {}
    for rank in range(names.shape[1]):
        if rank:
            columns[f"identity_{rank + 1}"] = names[:, rank]
            columns[f"probability_{rank + 1}"] = probability[:, rank]
        columns[f"match_{rank + 1}"] = [
            paths[shown[rank][0]] if fine[rank] else "" for shown, fine in zip(ranked.pictures, there)
        ]
    return columns


def flank_of(asked: pd.DataFrame, matches: pd.DataFrame, sure: pd.Series) -> np.ndarray | None:
    """The flank that a photograph shows: its own, where its table tells, else that of the image a sure one is known by.

    None where neither table has a column flank or orientation.
    """
    for table, told in ((asked, np.ones(len(asked), bool)), (matches, sure.to_numpy(bool))):
        column = next((c for c in ("flank", "orientation") if c in table), None)
        if column:
            return np.where(told, table[column].to_numpy(str), "")
    return None


def encounter_answers(
    encounters: np.ndarray, best: np.ndarray, animals: np.ndarray, odds: Odds | None
) -> dict[str, np.ndarray]:
    """One answer for all photographs of an encounter: the animal that is most like them on average.

    best (Q, C): likeness of each photograph to each animal. Its probability is that of one photograph with the mean
    likeness, which several that agree surpass.
    """
    codes = np.unique(encounters, return_inverse=True)[1]
    sizes = np.bincount(codes)
    finite = np.where(np.isfinite(best), best, best[np.isfinite(best)].min(initial=0.0) - 1)
    means = np.stack([np.bincount(codes, column) for column in finite.T], 1) / sizes[:, None]
    top = means.argmax(1)
    probability = odds.of_right(means.max(1)) if odds else np.full(len(means), math.nan)
    order = np.unique(codes, return_index=True)[1]
    number = np.argsort(np.argsort(order, kind="stable"), kind="stable") + 1
    return {
        "encounter": number[codes],
        "encounter_identity": animals[top][codes],
        "encounter_probability": probability[codes].round(4),
    }
