"""Who is on these photographs? python tools/identify.py --backbone miewid --catalogue DIR --queries DIR --out DIR"""

from __future__ import annotations

import argparse
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    ANSWERS,
    ENCOUNTERS,
    Embedder,
    Geometry,
    KitError,
    LocalFeatures,
    Recipe,
    __version__,
    average_precision,
    cache_dir,
    check_model,
    claim,
    column_groups,
    cut_batches,
    device_name,
    echo,
    embedder_for,
    ends_alike,
    fingerprint,
    kept_tensor,
    known_backbone,
    load_weights,
    memory_format,
    mutual_matches,
    perceptual_hashes,
    pick_device,
    progress,
    read_arrays,
    recipe_from_dict,
    refuse_other_contents,
    rows_at_a_time,
    rows_by_code,
    save_tensors,
    similarity_matrix,
    weights_path,
    write_json,
    write_table,
)
from torch import Tensor

from ..experiments.analysis import connected_groups, differing_bits
from ..experiments.figures import threshold_figure
from ..experiments.open_set import (
    LEFT_OUT,
    calibrate_matches,
    confident,
    cross_fitted_score,
    fit_thresholds,
    guesses_table,
    nearest_identities,
)
from ..experiments.page import Page
from .albums import Album, Shelf, embed_album, load_catalogue, load_queries, mark_of, spots_of, with_facts
from .captures import sightings_page, sightings_table, write_captures
from .decisions import FOR_SPREADSHEETS, HISTORY, SETTINGS, Ledger, earlier_settings, write_decisions
from .review import review_data, write_page

# the model


def model_of(weights: str | Path | None, backbone: str | None) -> tuple[Recipe, set[str]]:
    """The recipe of a trained run with its identities, or one of a backbone's features as they are, which has none."""
    if (weights is None) == (backbone is None):
        raise KitError("--weights, --backbone: give one of them (a trained run, or the name or file of a backbone)")
    if weights is not None:
        check_is_run(Path(weights))
        _, metadata = load_weights(weights)
        recipe = recipe_from_dict(metadata["recipe"], str(weights))
        return replace(recipe, checkpoint=str(weights_path(weights)), soup=()), set(metadata["identities"])
    name, file = str(backbone), None
    if Path(name).suffix == ".safetensors":
        if not Path(name).is_file():
            raise KitError(
                f"--backbone: {name}: there is no such file (expected safetensors, or the name of a backbone)"
            )
        name, file = Path(name).stem, name
    known_backbone(name)
    model = {"backbone": name, "weights": file, "head": "none", "pretrained": True, "freeze": True}
    return recipe_from_dict({"name": "identify", "model": model, "background": "original"}), set()


def check_is_run(folder: Path) -> None:
    """Refuses the folder of a whole experiment, and lists its runs."""
    if folder.is_dir() and not (folder / "weights.safetensors").is_file():
        runs = sorted(path.parent for path in folder.glob("*/*/weights.safetensors"))
        if runs:
            shown = ", ".join(map(str, runs[:6])) + (", ..." if len(runs) > 6 else "")
            raise KitError(f"--weights: {folder}: is an experiment of {len(runs)} runs (expected one of them: {shown})")


# which photographs were taken together

MEETINGS = (*ENCOUNTERS, "date", "day")  # columns by which images of one identity were taken together
NEAR_DUPLICATE = 11  # bits of the perceptual hash that may differ
TOGETHER, NEARBY = 60.0, 900.0  # seconds between photographs of a camera: of one encounter, and of one where alike


def encounters_of(table: pd.DataFrame, hashes: np.ndarray) -> np.ndarray:
    """The encounter of each image of a catalogue (N,): images of one identity are of one when a column of `MEETINGS`
    has the same for them, or when they are near-duplicates by perceptual hash."""
    identities = pd.factorize(table.identity)[0]
    pairs = [np.empty((0, 2), int)]
    for column in (column_groups(table[name]) for name in MEETINGS if name in table):
        order = np.lexsort((column, identities))
        one, other = order[:-1], order[1:]
        same = (identities[one] == identities[other]) & (column[one] == column[other])
        pairs.append(np.stack([one[same], other[same]], 1))
    for rows in rows_by_code(np.arange(len(table)), identities).values():
        for part in cut_batches(rows, rows_at_a_time(8 * len(rows))):
            near = np.argwhere(differing_bits(hashes[part], hashes[rows]) <= NEAR_DUPLICATE)
            pairs.append(np.stack([part[near[:, 0]], rows[near[:, 1]]], 1))
    return connected_groups(np.concatenate(pairs), len(table))


def encounters_of_queries(
    table: pd.DataFrame, hashes: np.ndarray, alike: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The encounter of each new photograph (N,), by a column that tells it, else by time and likeness.

    Photographs of one camera within a minute are of one encounter, and within a quarter of an hour where `alike`,
    which takes positions (M,) and gives bool (M, M), says so; near-duplicates of one camera always are.
    """
    told = next((name for name in ENCOUNTERS if name in table and (table[name] != "").any()), None)
    if told:
        return column_groups(table[told])
    taken = pd.to_datetime(table.taken.where(table.taken.str.len() > 10), format="mixed", errors="coerce")
    seconds = (taken - pd.Timestamp(0)).dt.total_seconds().to_numpy(float)
    pairs = [np.empty((0, 2), int)]
    for rows in table.groupby("camera").indices.values():
        order = rows[np.argsort(seconds[rows], kind="stable")]
        follows = np.flatnonzero(np.diff(seconds[order]) <= TOGETHER)  # across the borders of batches too
        pairs.append(np.stack([order[follows], order[follows + 1]], 1))
        for part in cut_batches(order, 512):
            apart = np.abs(seconds[part, None] - seconds[part])
            near = differing_bits(hashes[part], hashes[part]) <= NEAR_DUPLICATE
            together = (near & ~(apart > NEARBY)) | (apart <= TOGETHER)  # no time is no reason against
            if ((apart <= NEARBY) & ~together).any():
                together |= (apart <= NEARBY) & alike(part)
            pairs.append(part[np.argwhere(together)])
    return connected_groups(np.concatenate(pairs), len(table))


# likeness

MARGIN = 0.7  # of the cosine of two spots that match
SHORTLIST = 30  # images of the catalogue whose spots are matched with those of a photograph
AMONG = 10  # and of the other photographs


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike photographs are: by their embeddings, and where spots were matched by these as well."""

    embeddings: Tensor  # of the catalogue (K, D), then of the photographs
    geometry: Geometry
    spots: Any = None  # log(1 + strength) of matching spots (N, N), sparse
    weight: float = 0.0  # of the spots beside the likeness of embeddings

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 (len(rows), len(columns))."""
        similarity = similarity_matrix(self.embeddings[rows], self.embeddings[columns], self.geometry).numpy()
        if self.spots is None:
            return similarity
        return similarity + self.weight * self.spots[rows][:, columns].toarray()


def nearest_pairs(likeness: Likeness, rows: np.ndarray, columns: np.ndarray, met: np.ndarray, most: int) -> np.ndarray:
    """Pairs (P, 2) of each row with the `most` columns that are most like it and of another encounter."""
    found = []
    for part in cut_batches(rows, rows_at_a_time(len(columns))):
        similarity = np.where(met[part, None] == met[columns], -np.inf, likeness(part, columns))
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        fine = np.isfinite(np.take_along_axis(similarity, best, 1))
        found.append(np.stack([np.repeat(part, best.shape[1]), columns[best.ravel()]], 1)[fine.ravel()])
    return np.concatenate(found)


def with_spots(
    likeness: Likeness, features: LocalFeatures, identity: np.ndarray, met: np.ndarray, device: torch.device
) -> Likeness:
    """The likeness with matching spots of the nearest images, weighed by logistic regression on the catalogue's pairs.

    identity (K,) of the catalogue, whose images come first; met (N,): encounters, pairs of which say nothing.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    total, known = len(met), np.arange(len(identity))
    asked = np.arange(len(identity), total)
    own = nearest_pairs(likeness, known, known, met, SHORTLIST)
    parts = [own, nearest_pairs(likeness, asked, known, met, SHORTLIST)] if len(asked) else [own]
    parts += [nearest_pairs(likeness, asked, asked, met, AMONG)] if len(asked) > 1 else []
    pairs = np.unique(np.sort(np.concatenate(parts), axis=1), axis=0)
    key = fingerprint("season 1", features.key, zlib.crc32(pairs.tobytes()), len(pairs))
    path = cache_dir() / "local" / f"{key}.safetensors"
    if (strength := kept_tensor(path, "strength", len(pairs))) is None:
        strength = strengths_of(features, pairs, device)
        save_tensors(path, {"strength": strength})
    value = np.log1p(strength.numpy())
    both = np.concatenate([pairs, pairs[:, ::-1]])
    spots = csr_matrix((np.tile(value, 2), (both[:, 0], both[:, 1])), shape=(total, total))
    fitted = own[own[:, 0] != own[:, 1]]
    same = identity[fitted[:, 0]] == identity[fitted[:, 1]]
    alike = likeness_of_pairs(likeness, fitted)
    shown = np.stack([alike, np.asarray(spots[fitted[:, 0], fitted[:, 1]]).ravel()], 1)
    spread = shown.std(0) + 1e-9
    weight = spread[0] / spread[1]
    if same.any() and not same.all():
        own_weights = LogisticRegression().fit(shown / spread, same).coef_[0]
        if own_weights[0] > 0:
            weight = max(float(own_weights[1] / own_weights[0]), 0.0) * weight
    return replace(likeness, spots=spots, weight=float(weight))


@torch.no_grad()
def strengths_of(features: LocalFeatures, pairs: np.ndarray, device: torch.device, block: int = 32) -> Tensor:
    """Sum over matching spots of (cosine - margin)+, as `local_similarity` has it, for pairs (P, 2) in order: (P,)."""
    strength, starts = torch.zeros(len(pairs)), np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) > 0])
    for start, end in progress(list(zip(starts, [*starts[1:], len(pairs)])), "matching spots"):
        own = features.descriptors[pairs[start, 0]].to(device).float()
        for first in range(start, end, block):
            rows = slice(first, min(first + block, end))
            others = features.descriptors[torch.from_numpy(pairs[rows, 1])].to(device).float()
            strength[rows] = mutual_matches(torch.einsum("kd,bld->bkl", own, others), MARGIN)[0].sum(1).cpu()
    return strength


def likeness_of_pairs(likeness: Likeness, pairs: np.ndarray) -> np.ndarray:
    """Likeness (P,) of pairs (P, 2)."""
    told = np.empty(len(pairs))
    for row, own in rows_by_code(np.arange(len(pairs)), pairs[:, 0]).items():
        told[own] = likeness(np.array([row]), pairs[own, 1])[0]
    return told


# confidence

LEAST_HELD_OUT = 30  # images to fit confidence on, where the weights were trained on the others
LEAST_DECIDED = 20  # decisions by which the share of new animals is told


def held_out_images(weights: str | Path, table: pd.DataFrame) -> np.ndarray:
    """Which images of a catalogue a run held out from its training, bool (N,), as the folder of its weights tells.

    An image is known by its path, of which the catalogue may tell less or more folders, or by its bare name where no
    image that was trained on has the same.
    """
    file = weights_path(weights).parent / "validation.npz"
    if not file.is_file():
        return np.zeros(len(table), bool)
    kept = read_arrays(file, "images", "labels")
    if "trained" not in kept:  # of an earlier version, which does not tell enough to know an image by its bare name
        pairs = set(zip(kept["images"], kept["labels"]))
        known = zip(table.path, table.get("filename", table.path), table.identity)
        return np.array([(path, label) in pairs or (name, label) in pairs for path, name, label in known], bool)
    by_name: dict[str, list[tuple]] = {}
    told = [*zip(kept["paths"], kept["labels"]), *((path, None) for path in kept["trained"])]
    for parts, label in ((Path(path).parts, label) for path, label in told):
        by_name.setdefault(parts[-1], []).append((parts, label))

    def held_out(path: str, identity: str) -> bool:
        own, called = Path(path).parts, by_name.get(Path(path).name, [])
        alike = [(parts, label) for parts, label in called if ends_alike(parts, own)] or called
        return bool(alike) and all(label == identity for _, label in alike)

    return np.array([held_out(path, identity) for path, identity in zip(table.path, table.identity)], bool)


def leave_one_out(table: pd.DataFrame, met: np.ndarray, likeness: Likeness, asked: np.ndarray) -> pd.DataFrame:
    """Guesses for images of the catalogue as queries: once among all others, once without their own identity.

    asked: bool (K,), which of the catalogue's images. Images of one encounter are not matched with each other, for a
    new photograph has no such twin there. precision: the query's average precision among images of other encounters.
    """
    identity, everything = table.identity.to_numpy(str), np.arange(len(table))
    found = []
    for rows in cut_batches(np.flatnonzero(asked), rows_at_a_time(len(table))):
        similarity = torch.from_numpy(likeness(rows, everything))
        own, twins, paths = identity[rows, None] == identity, met[rows, None] == met, table.path.iloc[rows]
        best, score = nearest_identities(similarity, identity, allowed=~twins)
        precision = average_precision(similarity, identity[rows], met[rows], identity, met)
        known = guesses_table(paths, "", best[:, 0], score[:, 0])
        known = known.assign(truth=identity[rows], known=True, precision=precision)
        best, score = nearest_identities(similarity, identity, allowed=~own)
        absent = guesses_table(paths, "", best[:, 0], score[:, 0])
        absent = absent.assign(truth=[name + LEFT_OUT for name in identity[rows]], known=False)
        found.append((known[(own & ~twins).any(1)], absent[absent.identity != ""]))
    return pd.concat([table for part in zip(*found) for table in part], ignore_index=True)


def catalogue_guesses(
    weights: str | Path | None, table: pd.DataFrame, met: np.ndarray, likeness: Likeness, identities: set[str]
) -> tuple[pd.DataFrame, str]:
    """Guesses for the catalogue's own images to fit confidence on, and in words which images they are.

    Where the weights were trained on some of its individuals, those images that were held out, if there are enough.
    """
    learned = identities & set(table.identity)
    held_out = held_out_images(weights, table) if weights is not None else np.zeros(len(table), bool)
    if learned and held_out.sum() >= LEAST_HELD_OUT:
        guesses = leave_one_out(table, met, likeness, held_out)
        if guesses.known.any():
            return guesses, (
                f"{held_out.sum()} images of the catalogue that the training of these weights left out (of "
                "individuals that it did see, so that strangers are harder to tell than here)"
            )
    told = "the catalogue" + (
        f", on {len(learned)} of whose individuals these weights were trained, so that confidence is too high"
        if learned
        else ""
    )
    return leave_one_out(table, met, likeness, np.ones(len(table), bool)), told


@dataclass(frozen=True, eq=False)
class Odds:
    """From the likeness to the most similar animal: how probable it is that it is that one, and that it is new."""

    right: Callable[[Any], np.ndarray]  # rising
    known: Callable[[Any], np.ndarray]  # rising
    levels: np.ndarray  # likenesses of the guesses, rising
    most: np.ndarray  # what the guesses from each level on allow to claim

    @staticmethod
    def of(guesses: pd.DataFrame, share_new: float, rejected: Sequence[float] = ()) -> Odds | None:
        """Fitted on guesses of which `share_new` are to be of new animals; None where nothing can be told.

        rejected: likenesses of best guesses that people said no to.
        """
        here = guesses[np.isfinite(guesses.score)]
        known, absent = np.flatnonzero(here.known), np.flatnonzero(~here.known)
        right = (here.known & (here.truth == here.identity)).to_numpy()
        if not len(absent) or not right.any():
            return None
        wanted = max(1, round(len(known) * share_new / max(1 - share_new, 0.02)))
        rows = np.r_[known, np.resize(absent[np.random.default_rng(0).permutation(len(absent))], wanted)]
        score, fine = here.score.to_numpy(float)[rows], right[rows]
        there = calibrate_matches(score, here.known.to_numpy()[rows])
        score, fine = np.r_[score, list(rejected)], np.r_[fine, np.zeros(len(rejected), bool)]
        order = np.argsort(-score, kind="stable")
        claimed = (np.cumsum(fine[order]) + 1) / (np.arange(len(order)) + 3)  # Laplace's rule, from each level on
        most = np.maximum.accumulate(claimed[::-1])
        return Odds(calibrate_matches(score, fine), there, score[order][::-1], most)

    def of_right(self, scores: Any) -> np.ndarray:
        """No more than what the guesses above some level below it bear out, so that few of them allow no certainty."""
        values = np.asarray(scores, np.float64)
        place = np.clip(np.searchsorted(self.levels, values, "right") - 1, 0, None)
        return np.minimum(confident(self.right, values), self.most[place])

    def of_new(self, scores: Any) -> np.ndarray:
        values = np.asarray(scores, np.float64)
        return np.minimum(1 - confident(self.known, values), 1 - self.of_right(values))


def rejected_guesses(season: Season, ledger: Ledger) -> list[float]:
    """For each photograph whose animals somebody ruled out, its likeness to the most similar of them."""
    identity, found = season.known.identity.to_numpy(str), []
    for row, mark in enumerate(season.new.table.mark):
        if names := ledger.rejected.get(mark):
            own = season.among_known(np.array([row]))[0][np.isin(identity, list(names))]
            found += [float(own.max())] if len(own) else []
    return found


def too_weak(guesses: pd.DataFrame, identities: int) -> bool:
    """Whether the model tells the catalogue's own animals apart no better than chance does."""
    from scipy.stats import binomtest

    known = guesses[guesses.known]
    right = int((known.truth == known.identity).sum())
    return not len(known) or binomtest(right, len(known), 1 / max(identities, 2), "greater").pvalue > 0.001


def share_of_new(ledger: Ledger, asked: float) -> tuple[float, str]:
    """Which share of photographs shows new animals, and in words how it is known: as was asked, until decisions tell.

    Then it is the share of new ones among the animals that were named: their photographs are no measure, for a new
    animal is new once, however often it came by.
    """
    named = ledger.named
    if len(named) < LEAST_DECIDED:
        return asked, f"if {asked:.0%} of photographs showed new animals (--share-new)"
    new, animals = named[named.decision == "new"].identity.nunique(), named.identity.nunique()
    share = (new + 1) / (animals + 2)
    return share, f"{share:.0%} of photographs taken to show new animals, as {new} of {animals} that were named are new"


def expected_right(
    guesses: pd.DataFrame,
    share_new: float,
    scores: np.ndarray,
    encounters: np.ndarray,
    rejected: Sequence[float] = (),
    draws: int = 200,
) -> tuple[float, float]:
    """The 95 % interval of how many names are right: individuals of the catalogue drawn anew for each fit, photographs
    of one encounter right or wrong together."""
    rng, animals = np.random.default_rng(0), guesses.truth.str.removesuffix(LEFT_OUT)
    rows = {name: np.flatnonzero(animals == name) for name in animals.unique()}
    names, told = list(rows), []
    codes = np.unique(encounters, return_inverse=True)[1]
    for _ in range(draws):
        drawn = guesses.iloc[np.concatenate([rows[names[i]] for i in rng.integers(0, len(names), len(names))])]
        odds = Odds.of(drawn, share_new, rejected)
        p = odds.of_right(scores) if odds else np.zeros(len(scores))
        told.append((rng.random(codes.max(initial=0) + 1)[codes] < p).sum())
    return float(np.quantile(told, 0.025)), float(np.quantile(told, 0.975))


# answers

CANDIDATES, PICTURES = 5, 3  # animals that are offered for a photograph, and images of each
SURE, LOOK, FRESH = "sure", "look", "new"
MOST_GROUPED = 5000  # new ones that are compared with each other


@dataclass(frozen=True, eq=False)
class Season:
    """A catalogue, the photographs of a season, and how alike all of them are."""

    shelf: Shelf
    new: Album
    likeness: Likeness
    known_met: np.ndarray  # encounters of the catalogue's images
    encounters: np.ndarray  # and of the photographs
    features: LocalFeatures | None = None

    @property
    def known(self) -> pd.DataFrame:
        return self.shelf.table

    def among_known(self, rows: np.ndarray) -> np.ndarray:
        total = len(self.known)
        return self.likeness(rows + total, np.arange(total))

    def among_new(self, rows: np.ndarray) -> np.ndarray:
        total = len(self.known)
        return self.likeness(rows + total, rows + total)


def by_animal(similarity: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """The likeness of the most similar image of each animal (Q, C), animals in order."""
    animals, codes = np.unique(identity, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.maximum.reduceat(similarity[:, order], np.searchsorted(codes[order], np.arange(len(animals))), axis=1)


def answer_table(
    season: Season, odds: Odds | None, ledger: Ledger, sure: float, fresh: float, weak: bool
) -> tuple[pd.DataFrame, list[list[list[int]]]]:
    """A row for each photograph, and for each of its candidates the images of the catalogue that are most like it.

    Whom somebody ruled out is no candidate. A species that the tables tell is kept to.
    """
    table, known = season.new.table, season.known
    identity = known.identity.to_numpy(str)
    animals = np.unique(identity)
    best = np.full((len(table), len(animals)), -np.inf)
    pictures: list[list[list[int]]] = []
    members = [np.flatnonzero(identity == name) for name in animals]
    out = np.array([[name in ledger.rejected.get(mark, ()) for name in animals] for mark in table.mark])
    top = np.empty((len(table), min(CANDIDATES, len(animals))), int)
    for rows in cut_batches(np.arange(len(table)), rows_at_a_time(len(known))):
        similarity = season.among_known(rows).astype(np.float64)
        if "species" in table and "species" in known:
            asked, there = table.species.to_numpy(str)[rows, None], known.species.to_numpy(str)
            similarity[(asked != there) & (asked != "") & (there != "")] = -np.inf
        best[rows] = np.where(out[rows], -np.inf, by_animal(similarity, identity))
        top[rows] = np.argsort(-best[rows], axis=1, kind="stable")[:, :CANDIDATES]
        for own, first in zip(similarity, top[rows]):
            nearest = (members[animal][np.argsort(-own[members[animal]], kind="stable")] for animal in first)
            pictures.append([found[:PICTURES].tolist() for found in nearest])
    answers = pd.DataFrame({"image": table.path})
    score = np.take_along_axis(best, top, 1)
    there = np.isfinite(score)
    names = np.where(there, animals[top], "")
    probability = odds.of_right(score) if odds else np.full(score.shape, math.nan)
    probability[:, 1:] *= np.cumprod(1 - probability[:, :-1], axis=1)
    strange = odds.of_new(score[:, 0]).round(4) if odds else np.full(len(table), math.nan)
    probability = probability.round(4)  # classes follow from what is written
    kind = np.full(len(table), LOOK, object)
    if odds and not weak:
        kind[probability[:, 0] >= sure] = SURE
        kind[strange >= fresh] = FRESH
    answers["class"] = kind
    answers["identity"] = names[:, 0]
    answers["probability"] = probability[:, 0]
    answers["probability_new"] = strange
    answers = answers.assign(**encounter_answers(season.encounters, best, animals, odds))
    answers["group"], answers["group_probability"] = "", math.nan
    rows = np.flatnonzero(kind == FRESH)
    if odds and len(rows) <= MOST_GROUPED:
        groups, shares = grouped(season, rows, odds, ledger)
        answers.loc[rows, "group"], answers.loc[rows, "group_probability"] = groups, shares
    paths = known.path.to_numpy(str)
    for rank in range(names.shape[1]):
        if rank:
            answers[f"identity_{rank + 1}"] = names[:, rank]
            answers[f"probability_{rank + 1}"] = probability[:, rank]
        match = [paths[shown[rank][0]] if fine[rank] else "" for shown, fine in zip(pictures, there)]
        answers[f"match_{rank + 1}"] = match
    for column in ("taken", "camera", "mark"):
        answers[column] = table[column].to_numpy()
    flank = flank_of(table, known.iloc[[shown[0][0] for shown in pictures]], answers["class"] == SURE)
    if flank is not None:
        answers["flank"] = flank
    answers["score"] = score[:, 0]
    return answers, pictures


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


def grouped(season: Season, rows: np.ndarray, odds: Odds, ledger: Ledger) -> tuple[list[str], np.ndarray]:
    """The groups of new animals among photographs, and how probable it is that two of a group show one."""
    among = odds.of_right(season.among_new(rows)) if len(rows) else np.zeros((0, 0))
    place = {mark: i for i, mark in enumerate(season.new.table.mark.to_numpy()[rows])}
    met = season.encounters[rows]
    must = [(i, j) for i, j in np.argwhere(met[:, None] == met) if i < j]
    must += [(place[a], place[b]) for a, b in ledger.links("yes") if a in place and b in place]
    cannot = [(place[a], place[b]) for a, b in ledger.links("no") if a in place and b in place]
    names = group_new(among, 0.5, must, cannot)
    shares = np.full(len(rows), math.nan)
    for name in set(names) - {""}:
        own = np.flatnonzero(np.array(names) == name)
        pairs = among[np.ix_(own, own)][~np.eye(len(own), dtype=bool)]
        shares[own] = round(float(pairs.mean()), 4)
    return names, shares


def group_new(
    similarity: np.ndarray,
    threshold: float,
    must: Iterable[tuple[int, int]] = (),
    cannot: Iterable[tuple[int, int]] = (),
) -> list[str]:
    """Names "new 1", "new 2", ... for queries (M, M) that resemble each other; "" for those that resemble none.

    Average linkage: the likeness of their images, averaged over two groups, must reach `threshold`. Pairs that `must`
    be linked are, pairs that `cannot` be linked never share a group, which goes before must.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(similarity) < 2:
        return [""] * len(similarity)
    distance, total = 1 - (similarity + similarity.T) / 2, len(similarity)
    apart = {frozenset(pair) for pair in cannot}
    linked_pairs = [pair for pair in must if frozenset(pair) not in apart]
    if linked_pairs:
        component = connected_groups(np.array(linked_pairs), total)
        distance[component[:, None] == component] = 0
    for i, j in map(tuple, apart):
        distance[i, j] = distance[j, i] = 4.0 * total**2  # keeps the average of any two groups above the threshold
    np.fill_diagonal(distance, 0)
    linked = AgglomerativeClustering(
        None, metric="precomputed", linkage="average", distance_threshold=1 - threshold + 1e-9
    )
    labels = linked.fit_predict(distance)
    sizes = pd.Series(labels).value_counts()
    numbers = {label: f"new {i}" for i, label in enumerate(sizes.index[sizes > 1], 1)}
    return [numbers.get(label, "") for label in labels]


# from folders to answers


def identify(
    weights: str | Path | None = None,
    catalogue: str | Path | None = None,
    queries: str | Path | None = None,
    out: str | Path = "answers",
    device: str = "auto",
    backbone: str | None = None,
    local: bool | None = None,
    sure: float | None = None,
    fresh: float | None = None,
    share_new: float | None = None,
    previous: str | Path | None = None,
    decisions: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Names the animals on photographs by those of a catalogue; writes answers.csv, review.html and more into `out`.

    weights: a run's folder or weights.safetensors; or backbone: a name or a safetensors file, whose features are used
    as they are. local: matching spots beside the likeness. catalogue: a folder of identity/*.jpg, one in a
    competition's layout, or a CSV with path and identity. queries: a folder of photographs, or a CSV with path.
    previous: an earlier folder of answers, whose decisions the catalogue grows by; what is not given is taken from it.

    Each image of the catalogue is asked for once with and once without its identity there, images of its encounter left
    out; from that come the probability that a name is right and that an animal is new. class: sure from probability
    `sure` on (0.95), new where the animal is new with probability `fresh` (0.75), else look. Where each animal has one
    image photographs are ranked, and nothing is claimed. Returns the answers, a row for each photograph.
    """
    out, begun = Path(out), time.time()
    if (out / "answers.csv").exists():
        raise KitError(f"{out}: holds answers already; choose a new --out, so that nothing is overwritten")
    refuse_other_contents(out, ANSWERS)
    earlier = Path(previous) if previous is not None else None
    model = {} if weights is None and backbone is None else {"weights": weights, "backbone": backbone}
    given = {"catalogue": catalogue, "queries": queries, "local": local, "sure": sure, "new": fresh}
    chosen = settled({**given, "share_new": share_new}, model, earlier_settings(earlier))
    device, weights = pick_device(device), chosen["weights"]
    recipe, identities = model_of(weights, chosen["backbone"])
    ledger = Ledger.read(earlier, [Path(path) for path in decisions])
    (known_root, known, said), (asked_root, asked, more) = (
        load_catalogue(chosen["catalogue"], recipe.data.masks),
        load_queries(chosen["queries"]),
    )
    (known, of_known), (asked, of_asked) = with_facts(known_root, known), with_facts(asked_root, asked)
    asked, left = without_known(asked_root, asked, known_root, known)
    grown, asked, told = split_by_decisions(ledger, asked_root, asked)
    for note in (notes := [*said, *more, *of_known, *of_asked, *left, *ledger.notes(known.identity), *told]):
        echo(f"  note: {note}")
    check_model(recipe)
    embedder = embedder_for(recipe)[0].to(device, memory_format=memory_format(device)).eval()
    season = read_season(recipe, embedder, (known_root, known), grown, (asked_root, asked), chosen["local"], device)
    if season.known.identity.nunique() < 2:
        only = season.known.identity.iloc[0]
        raise KitError(f"{chosen['catalogue']}: only {only!r} can be read (expected two identities or more)")
    trust = trust_in(season, weights, identities, ledger, chosen)
    answers, pictures = answer_table(season, trust.odds, ledger, chosen["sure"], chosen["new"], trust.weak)
    headline = trust.headline(answers)
    claim(out, ANSWERS)
    write_decisions(out / HISTORY, ledger.rows)
    paths = {key: None if chosen[key] is None else str(Path(chosen[key]).resolve()) for key in ("weights", *FOLDERS)}
    settings = {"jaguar_kit": __version__, **chosen, **paths, "root": str(asked_root.resolve())}
    write_json(out / SETTINGS, {**settings, "previous": None if earlier is None else str(earlier.resolve())})
    catalogue_now = season.known.drop(columns=["filename"], errors="ignore")
    write_table(out / "catalogue.csv", catalogue_now, FOR_SPREADSHEETS)
    seen = sightings_table(season, answers)
    write_captures(out, seen, season.new.table)
    page = report_page(trust, headline, answers, dict.fromkeys([*notes, *season.shelf.notes, *season.new.notes]))
    sightings_page(page, seen)
    report, named = page.write(out), {*season.known.identity, *ledger.last.identity}
    told = {"headline": headline, "cautions": trust.cautions(), "root": settings["root"], "names": sorted(named)}
    review = write_page(out / "review.html", {**review_data(out, season, answers, pictures), **told})
    write_table(
        out / "answers.csv", answers.drop(columns=["score"]), FOR_SPREADSHEETS
    )  # last: it says that all is there
    for line in headline:
        echo(f"  {line}")
    for path in (out / "answers.csv", report, review):
        echo(f"  wrote {path}")
    echo(f"  {(time.time() - begun) / max(len(answers), 1) * 1000 / 60:.1f} min for a thousand photographs here")
    return answers


FOLDERS = ("catalogue", "queries")
USUAL = {"local": False, "sure": 0.95, "new": 0.75, "share_new": 0.5}


def settled(given: Mapping[str, Any], model: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, what is not as it was in the week before, else as usual; weights and backbone go together."""
    model = model or {key: before.get(key) for key in ("weights", "backbone")}
    chosen = {**model, **{k: before.get(k, USUAL.get(k)) if value is None else value for k, value in given.items()}}
    for name, value in (("--sure", "sure"), ("--new", "new"), ("--share-new", "share_new")):
        if not isinstance(chosen[value], float) or not 0 < chosen[value] < 1:
            raise KitError(f"{name}: {chosen[value]} (expected a share above 0 and below 1)")
    for folder in FOLDERS:
        if chosen[folder] is None:
            raise KitError(f"--{folder}: is missing (expected a folder of photographs)")
    return chosen


def without_known(
    root: Path, asked: pd.DataFrame, known_root: Path, known: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """The queries without images that are the catalogue's own, and what is to be said about those."""
    there = {(known_root / path).resolve() for path in known.path}
    own = np.array([(root / path).resolve() in there for path in asked.path], bool)
    if own.all():
        raise KitError(f"--queries: {root}: all of its {len(asked)} images are in the catalogue")
    notes = [f"{own.sum()} of the photographs are in the catalogue itself and are left out"] if own.any() else []
    return asked[~own].reset_index(drop=True), notes


def split_by_decisions(
    ledger: Ledger, root: Path, asked: pd.DataFrame
) -> tuple[list[tuple[Path, pd.DataFrame]], pd.DataFrame, list[str]]:
    """Tables of photographs that were named, by their folders; those still to be asked for; and what is to be said.

    A photograph is known again by what its file holds, wherever it lies now.
    """
    named, notes = ledger.named, []
    if named.empty:
        return [], asked, notes
    here = asked.drop_duplicates("mark").set_index("mark")
    rows, gone = [], 0
    for row in named.itertuples():
        if row.mark in here.index:
            rows.append({**here.loc[row.mark].to_dict(), "root": str(root), "mark": row.mark, "identity": row.identity})
        elif (file := Path(row.root) / row.image).is_file() and mark_of(file) == row.mark:
            rows.append({"path": row.image, "root": row.root, "mark": row.mark, "identity": row.identity})
        else:
            gone += 1
    if gone:
        notes.append(f"{gone} photographs that were named are no longer where they were; their decisions are kept")
    asked = asked[~asked.mark.isin(set(named.mark))].reset_index(drop=True)
    if asked.empty:
        raise KitError(f"--queries: {root}: all of its photographs are decided (expected new ones)")
    tables = []
    for folder, own in pd.DataFrame(rows).groupby("root", sort=False) if rows else ():
        own = own.drop(columns=["root"]).fillna("").reset_index(drop=True)
        tables.append((Path(folder), with_facts(Path(folder), own.assign(filename=own.path))[0]))
    notes.append(f"the catalogue grows by {len(rows)} photographs that were named; they are not asked for again")
    return tables, asked, notes


def read_season(
    recipe: Recipe,
    embedder: Embedder,
    known: tuple[Path, pd.DataFrame],
    grown: Sequence[tuple[Path, pd.DataFrame]],
    asked: tuple[Path, pd.DataFrame],
    local: bool,
    device: torch.device,
) -> Season:
    """Embeds all photographs, finds encounters, and matches spots where asked to."""
    count, individuals = sum(len(table) for _, table in (known, *grown)), known[1].identity.nunique()
    echo(f"{len(asked[1])} photographs against {count} of {individuals} individuals on {device_name(device)}")
    labels = ["embedding the catalogue", *["embedding what was named"] * len(grown)]
    albums = [embed_album(recipe, embedder, *one, device, label) for one, label in zip((known, *grown), labels)]
    new = embed_album(recipe, embedder, *asked, device, "embedding the photographs")
    shelf = Shelf(tuple(albums))
    table = shelf.table.assign(day=lambda t: t.taken.str[:10])
    hashes = [perceptual_hashes(album.store.subset(album.rows)) for album in (*albums, new)]
    known_met = encounters_of(table, np.concatenate(hashes[:-1]))
    likeness = Likeness(torch.cat([shelf.embeddings, new.embeddings]), embedder.geometry)
    total, everything = len(table), np.arange(len(table))
    same = table.identity.to_numpy(str)
    part = everything[:: max(1, total // 500)]
    pairs = likeness(part, part)[(same[part, None] == same[part]) & (known_met[part, None] != known_met[part])]
    usual = float(np.median(pairs)) if len(pairs) else math.inf
    encounters = encounters_of_queries(
        new.table, hashes[-1], lambda rows: likeness(rows + total, rows + total) >= usual
    )
    features = None
    if local:
        features = spots_of([*albums, new], recipe.data.masks, device)
        met = np.r_[known_met, known_met.max(initial=0) + 1 + encounters]
        likeness = with_spots(likeness, features, same, met, device)
    return Season(shelf, new, likeness, known_met, encounters, features)


# how far answers can be trusted


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
        told = [
            f"{len(answers)} photographs: {counts.get(SURE, 0)} sure, {counts.get(LOOK, 0)} to look at, "
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


def trust_in(
    season: Season, weights: str | Path | None, identities: set[str], ledger: Ledger, chosen: Mapping[str, Any]
) -> Trust:
    """Fits confidence on the catalogue, where any animal has two images of it."""
    table, (share, words) = season.known, share_of_new(ledger, chosen["share_new"])
    guesses, fitted_on, odds, ruled_out = None, "", None, rejected_guesses(season, ledger)
    if not (single := not table.identity.duplicated().any()):
        guesses, fitted_on = catalogue_guesses(weights, table, season.known_met, season.likeness, identities)
        odds = Odds.of(guesses, share, ruled_out)
    weak = guesses is not None and too_weak(guesses, table.identity.nunique())
    return Trust(guesses, fitted_on, words, share, weak, single, chosen["sure"], chosen["new"], odds, ruled_out)


def report_page(trust: Trust, headline: Sequence[str], answers: pd.DataFrame, notes: Iterable[str]) -> Page:
    """How far the answers can be trusted; the pictures are on the page to review."""
    page = Page("Who is who")
    page.bullets(list(headline))
    page.text("The photographs, to confirm or reject one by one, are in review.html beside this page.")
    for note in (*trust.cautions(), *(f"Note: {note}" for note in notes)):
        page.note(note)
    if trust.odds is None:
        return page
    known, honest = trust.guesses[trust.guesses.known], cross_fitted_score(trust.guesses)
    page.heading("What to expect")
    page.text(
        "Identity-balanced mAP of the catalogue's images across encounters: "
        f"{known.groupby('truth').precision.mean().mean():.3f}."
    )
    if not math.isnan(honest["score"]):
        page.text(
            "With one threshold, fitted on the other half of the individuals, "
            f"{honest['baks']:.0%} of known individuals' photographs are named rightly and {honest['baus']:.0%} of new "
            "ones' are told to be new (means over individuals)."
        )
    scaled = trust.guesses.assign(score=trust.odds.of_right(trust.guesses.score))
    try:
        threshold = fit_thresholds(scaled)[""]
    except KitError:
        return page
    page.figure(
        "confidence",
        threshold_figure(scaled, {"": threshold}, fixed=()),
        "The catalogue's images as queries. Left, by the least probability of an answer: share of known individuals "
        "named rightly, of unknown ones told to be new, and the geometric mean of both; right, how sure answers are.",
    )
    counts = answers["class"].value_counts()
    page.heading("Answers")
    page.table(pd.DataFrame({"class": counts.index, "photographs": counts.to_numpy()}), "By class.")
    return page


def identify_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit identify --backbone NAME | --weights RUN --catalogue DIR --queries DIR --out DIR`."""
    parser = argparse.ArgumentParser(
        prog="jaguar_kit identify",
        description="Names the animals on photographs by a catalogue of known ones, and tells which may be new.",
    )
    parser.add_argument("--weights", help="a run's folder, such as runs/final/default/seed42")
    parser.add_argument("--backbone", help="features without training: miewid, any name of timm, or a safetensors file")
    parser.add_argument("--local", action="store_true", default=None, help="matching spots beside the likeness; slower")
    parser.add_argument("--catalogue", help="folder of identity/*.jpg, or a CSV with path and identity")
    parser.add_argument("--queries", help="folder of photographs, or a CSV with path")
    parser.add_argument("--out", help="new folder for answers.csv, review.html and report.html")
    parser.add_argument("--previous", help="last week's folder of answers: goes on with its catalogue and decisions")
    parser.add_argument(
        "--decisions", nargs="*", default=[], metavar="CSV", help="further files that the page exported"
    )
    parser.add_argument("--sure", type=float, help="least probability of a sure name (0.95)")
    parser.add_argument("--new", type=float, help="least probability of a new animal (0.75)")
    parser.add_argument(
        "--share-new",
        type=float,
        help="share of photographs that show new animals, until decisions tell (0.5)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args(argv)
    if given.out is None:
        raise KitError("--out: is missing (expected a new folder for the answers)")
    identify(
        given.weights, given.catalogue, given.queries, given.out, given.device, given.backbone, given.local,
        given.sure, given.new, given.share_new, given.previous, given.decisions,
    )  # fmt: skip
    return 0
