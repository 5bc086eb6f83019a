"""The table of answers: who is on each photograph, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaguar_kit import clean_label, cut_batches, rows_at_a_time

from .confidence import FRESH, LOOK, SURE
from .decisions import Decisions
from .grouping import MOST_GROUPED, grouped
from .likeness import Gallery, of_encounters
from .odds import Odds
from .season import Season

CANDIDATES, PICTURES = 5, 3  # animals that are offered for a photograph, and images of each

Pictures = list[list[list[int]]]  # for each photograph and candidate: images of the catalogue, most similar first


def answer_table(
    season: Season, ranked: Ranked, odds: Odds | None, decisions: Decisions, sure: float, fresh: float, weak: bool
) -> tuple[pd.DataFrame, Pictures]:
    """A row for each photograph, and for each of its candidates the images of the catalogue that are most like it."""
    table, known = season.new.table, season.known
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
    answers["encounter"] = pd.factorize(season.encounters)[0] + 1
    answers["encounter_identity"], answers["encounter_probability"] = names[:, 0], probability[:, 0]
    answers["group"], answers["group_probability"] = "", math.nan
    rows = np.flatnonzero(kind == FRESH)
    if odds and len(rows) <= MOST_GROUPED:
        groups, shares = grouped(season, rows, decisions)
        answers.loc[rows, "group"], answers.loc[rows, "group_probability"] = groups, shares
    answers = answers.assign(**candidate_columns(ranked, probability, known.path.to_numpy(str)))
    boxes = ["box"] if "box" in table and (table.box != "").any() else []
    for column in ("taken", "camera", "mark", *boxes):
        answers[column] = table[column].to_numpy()
    flank = flank_of(table, known.iloc[[shown[0][0] for shown in pictures]], answers["class"] == SURE)
    if flank is not None:
        answers["flank"] = flank
    answers["evidence"] = season.evidence
    answers["score"] = ranked.score[:, 0]
    return answers, pictures


@dataclass(frozen=True, eq=False)
class Ranked:
    """The first animals of a catalogue for each photograph, those of its whole encounter."""

    names: np.ndarray  # (Q, K), "" where one is ruled out
    score: np.ndarray  # how alike the encounter is to these (Q, K), falling, -inf where one is ruled out
    pictures: Pictures
    ruled_out: list[float]  # how alike encounters are to the most similar animal that somebody ruled out


def rank_animals(season: Season, decisions: Decisions) -> Ranked:
    """Compares all encounters of new photographs with the catalogue's, some at a time.

    Whom somebody ruled out is no candidate. A species that the tables tell is kept to.
    """
    table, identity = season.new.table, season.known.identity.to_numpy(str)
    gallery, animals = Gallery.of(identity, season.known_met), np.unique(identity)
    codes = np.unique(season.encounters, return_inverse=True)[1]
    order, out = np.argsort(codes, kind="stable"), ruled_out_of(codes, table.mark, animals, decisions)
    members = np.split(np.argsort(identity, kind="stable"), np.searchsorted(np.sort(identity), animals)[1:])
    shape = int(codes.max()) + 1, min(CANDIDATES, len(animals))
    top, score = np.empty(shape, int), np.empty(shape)
    pictures, no = [[] for _ in codes], []
    for part in cut_batches(np.arange(len(top)), max(1, rows_at_a_time(8 * len(identity)))):
        rows = order[np.isin(codes[order], part)]
        fitting = of_species(season, gallery, rows, codes[rows] - part[0])
        images, similarity = of_encounters(
            season.likeness, rows + len(identity), codes[rows] - part[0], gallery, fitting
        )
        best = by_animal(similarity, gallery.identity)
        for row, encounter in enumerate(part):
            if encounter in out:
                no.append(float(best[row, out[encounter]].max()))
                best[row, out[encounter]] = -np.inf
        top[part] = np.argsort(-best, axis=1, kind="stable")[:, : shape[1]]
        score[part] = np.take_along_axis(best, top[part], 1)
        for row, own in zip(rows, images):
            nearest = (members[one][np.argsort(-own[members[one]], kind="stable")] for one in top[codes[row]])
            pictures[row] = [found[:PICTURES].tolist() for found in nearest]
    names = np.where(np.isfinite(score), animals[top], "")
    return Ranked(names[codes], score[codes], pictures, [value for value in no if np.isfinite(value)])


def ruled_out_of(
    codes: np.ndarray, marks: pd.Series, animals: np.ndarray, decisions: Decisions
) -> dict[int, np.ndarray]:
    """For each encounter some photograph of which somebody said no to, the places of these animals."""
    places, found = {name: place for place, name in enumerate(animals)}, {}
    for code, mark in zip(codes, marks):
        names = [places[name] for name in decisions.rejected.get(mark, ()) if name in places]
        if names:
            found[int(code)] = np.union1d(found.get(int(code), []), names).astype(int)
    return found


def of_species(season: Season, gallery: Gallery, rows: np.ndarray, encounters: np.ndarray) -> np.ndarray | None:
    """Which encounters of the catalogue those of some photographs may be of, bool (U, G): no tables tell different
    species of them. None where nothing is told."""
    asked, known = season.new.table, season.known
    if "species" not in asked or "species" not in known:
        return None
    own, there = (table.species.map(clean_label).str.casefold().to_numpy(str) for table in (asked, known))
    own, there = own[rows], there[gallery.order[gallery.starts]]
    fine = np.ones((encounters[-1] + 1, len(there)), bool)
    for encounter, species in zip(encounters, own):
        fine[encounter] &= (species == "") | (there == "") | (there == species)
    return fine


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
