"""What a catalogue tells of its own recognition: each of its images asked for among the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import average_precision, cut_batches, ends_alike, read_arrays, rows_at_a_time, weights_path

from ..experiments.open_set import LEFT_OUT, guesses_table, nearest_identities
from .evidence import images_of
from .likeness import CrossFitted, Gallery, Likeness, means_of_rows, of_encounters

SURE, LOOK, FRESH = "sure", "look", "new"  # classes of answers
LEAST_HELD_OUT = 30  # images to fit confidence on, where the weights were trained on the others
MOST_ASKED = 4000  # encounters to fit it on: more of them tell no more


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


def leave_one_out(
    table: pd.DataFrame, met: np.ndarray, likeness: Likeness | CrossFitted, asked: np.ndarray
) -> pd.DataFrame:
    """Guesses for encounters of the catalogue as queries: once among all others, once without their own identity.

    asked: bool (K,), by which of the catalogue's images; image_id is an encounter's first. precision: its average
    precision among images of other encounters; own: likeness to its animal's other encounters, and another: to one of
    these, -inf where there are none; rival: to the most similar one of other animals; met and nearest: its own
    encounter and the most similar one.
    """
    identity = table.identity.to_numpy(str)
    gallery, found = Gallery.of(identity, met), []
    everyone, wanted = np.arange(len(gallery.identity)), np.unique(gallery.met[asked])
    at_once, crossed = max(1, rows_at_a_time(8 * len(table))), CrossFitted.of(likeness, len(everyone))
    batches = ((one, other, part) for one, other, some in crossed.asking(wanted) for part in cut_batches(some, at_once))
    for as_known, as_strange, part in batches:
        rows, encounters = images_of(gallery, part, asked)
        own, twins = gallery.identity[part, None] == gallery.identity, part[:, None] == everyone
        names, first = gallery.identity[part], rows[np.unique(encounters, return_index=True)[1]]
        images, similarity = of_encounters(as_known, rows, encounters, gallery, ~twins)
        best, score = nearest_identities(finite(similarity), gallery.identity, allowed=~twins)
        precision = average_precision(means_of_rows(images, encounters), names, part, identity, gallery.met)
        paths = table.path.iloc[first]
        others = np.where(own & ~twins, similarity, -np.inf)
        turn = np.where(own & ~twins, finite(similarity) * 9973 % 1, -1.0)  # any of them, whatever their order
        another = np.take_along_axis(others, turn.argmax(1)[:, None], 1)[:, 0]
        rival = np.where(own, -np.inf, similarity).max(1)
        facts = {"own": others.max(1), "another": another, "rival": rival, "met": part, "nearest": similarity.argmax(1)}
        known = guesses_table(paths, "", best[:, 0], score[:, 0])
        known = known.assign(truth=names, known=True, precision=precision, **facts)
        without = finite(of_encounters(as_strange, rows, encounters, gallery, ~own)[1])
        best, score = nearest_identities(without, gallery.identity, allowed=~own)
        absent = guesses_table(paths, "", best[:, 0], score[:, 0])
        absent = absent.assign(truth=[name + LEFT_OUT for name in names], known=False, **facts)
        found.append((known[(own & ~twins).any(1)], absent[absent.identity != ""]))
    return pd.concat([table for part in zip(*found) for table in part], ignore_index=True)


def finite(similarity: np.ndarray) -> np.ndarray:
    """With what is not compared behind all else."""
    return np.where(np.isfinite(similarity), similarity, -1e9)


def catalogue_guesses(
    weights: str | Path | None,
    table: pd.DataFrame,
    met: np.ndarray,
    likeness: Likeness | CrossFitted,
    identities: set[str],
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
    encounters, codes = np.unique(met, return_inverse=True)
    some = np.random.default_rng(0).permutation(len(encounters)) < MOST_ASKED
    return leave_one_out(table, met, likeness, some[codes]), told


def too_weak(guesses: pd.DataFrame, draws: int = 999) -> bool:
    """Whether the catalogue's own animals are told apart no better than by chance: whether as many names are right in
    any of so many catalogues whose encounters are dealt out among its animals anew, whoever is most similar to whom, or
    whoever was named, for what was fitted on a catalogue names those more often that it has more of."""
    known = guesses[guesses.known]
    if known.empty:
        return True
    names = pd.Series(np.r_[guesses.truth.str.removesuffix(LEFT_OUT), known.identity], dtype=str)
    _, rows, codes = np.unique(np.r_[guesses.met, known.nearest], return_index=True, return_inverse=True)
    labels, rng = pd.factorize(names.iloc[rows])[0], np.random.default_rng(0)
    own, nearest = codes[: len(guesses)][guesses.known], codes[len(guesses) :]
    right = int((labels[own] == labels[nearest]).sum())
    if any(((dealt := rng.permutation(labels))[own] == dealt[nearest]).sum() >= right for _ in range(draws)):
        return True
    return any((rng.permutation(labels[own]) == labels[nearest]).sum() >= right for _ in range(draws))
