"""How probable a name is: fitted on images of the catalogue, each asked for among the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaguar_kit import average_precision, cut_batches, ends_alike, read_arrays, rows_at_a_time, weights_path

from ..experiments.open_set import LEFT_OUT, calibrate_matches, confident, guesses_table, nearest_identities
from .likeness import Likeness

SURE, LOOK, FRESH = "sure", "look", "new"  # classes of answers
LEAST_HELD_OUT = 30  # images to fit confidence on, where the weights were trained on the others


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


def too_weak(guesses: pd.DataFrame, identities: int) -> bool:
    """Whether the model tells the catalogue's own animals apart no better than chance does."""
    from scipy.stats import binomtest

    known = guesses[guesses.known]
    right = int((known.truth == known.identity).sum())
    return not len(known) or binomtest(right, len(known), 1 / max(identities, 2), "greater").pvalue > 0.001


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
