"""How alike photographs and encounters are: by their embeddings, and by matching spots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaguar_kit import (
    Geometry,
    computed_by,
    cut_batches,
    fingerprint,
    rows_at_a_time,
    sha_of,
    similarity_matrix,
)
from torch import Tensor

from ..experiments.spots import ALL_PAIRS, LocalFeatures, mutual_matches
from .kept import kept_rows, row_key

MARGIN = 0.7  # of the cosine of two spots that match
SHORTLIST = 30  # images of the catalogue whose spots are matched with those of a photograph, at least
AMONG = 10  # and of the other photographs
ODD = np.uint64(0x9E3779B97F4A7C15)  # by which two keys become that of a pair
AT_ONCE = 1024  # pairs that are matched before somebody can stop it


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike photographs are: by their embeddings, and where spots were matched by these as well."""

    embeddings: Tensor  # of the catalogue (K, D), then of the photographs
    geometry: Geometry
    spots: Any = None  # log(1 + strength) of matching spots (N, N), sparse
    by_query: bool = False  # whether evidence is standardised for each photograph, over the catalogue's images

    def parts(self, rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
        """Each kind of evidence, float64 (len(rows), len(columns))."""
        found = [similarity_matrix(self.embeddings[rows], self.embeddings[columns], self.geometry).double().numpy()]
        if self.spots is not None:
            found.append(self.spots[rows][:, columns].toarray().astype(np.float64))
        return found

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """That of embeddings, float64 (len(rows), len(columns))."""
        return self.parts(rows, columns)[0]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """By which likeness each encounter of a catalogue is asked for: by one that was fitted without it, and where it is
    asked for as a stranger's, without its animal."""

    known: Sequence[Likeness]
    part: np.ndarray  # of encounters (G,), which of `known` asks for it
    strange: Sequence[Likeness]
    group: np.ndarray  # of encounters (G,), which of `strange` asks for it

    @staticmethod
    def of(likeness: Likeness | CrossFitted, encounters: int) -> CrossFitted:
        """That of a likeness which nothing was fitted for."""
        if isinstance(likeness, CrossFitted):
            return likeness
        once = np.zeros(encounters, int)
        return CrossFitted([likeness], once, [likeness], once)

    def asking(self, encounters: np.ndarray) -> Iterator[tuple[Likeness, Likeness, np.ndarray]]:
        """Those (codes) that two likenesses ask for, as a known animal's and as a stranger's, for all that ask."""
        both = self.part[encounters] * len(self.strange) + self.group[encounters]
        for pair in np.unique(both):
            part, group = divmod(int(pair), len(self.strange))
            yield self.known[part], self.strange[group], encounters[both == pair]


@dataclass(frozen=True, eq=False)
class Gallery:
    """The encounters of a catalogue's images, which stand one behind another."""

    met: np.ndarray  # of images (K,), codes
    order: np.ndarray  # of images, by encounter
    starts: np.ndarray  # of encounters there (G,)
    identity: np.ndarray  # of encounters (G,)

    @staticmethod
    def of(identity: np.ndarray, met: np.ndarray) -> Gallery:
        codes = np.unique(np.asarray(met), return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 1))
        return Gallery(codes, order, starts, np.asarray(identity)[order[starts]])

    def means(self, matrix: np.ndarray) -> np.ndarray:
        """Of images (R, K) over encounters (R, G)."""
        sizes = np.diff([*self.starts, len(self.order)])
        return np.add.reduceat(matrix[:, self.order], self.starts, axis=1) / sizes


def standardised(matrix: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Rows with mean 0 and standard deviation 1 over what is `allowed`, 0 where that is all alike."""
    there = np.isfinite(matrix) if allowed is None else allowed & np.isfinite(matrix)
    number, values = np.maximum(there.sum(1, keepdims=True), 1), np.where(there, matrix, 0.0)
    apart = np.where(there, values - values.sum(1, keepdims=True) / number, 0.0)
    spread = np.sqrt((apart**2).sum(1, keepdims=True) / number)
    apart = matrix - values.sum(1, keepdims=True) / number
    return np.where(spread > 1e-9, apart / np.maximum(spread, 1e-9), np.minimum(apart, 0.0))


def means_of_rows(matrix: np.ndarray, encounters: np.ndarray) -> np.ndarray:
    """Of rows (R, K) over encounters (U, K), which are rising codes from 0."""
    starts = np.searchsorted(encounters, np.arange(encounters[-1] + 1))
    return np.add.reduceat(matrix, starts, axis=0) / np.bincount(encounters)[:, None]


def of_encounters(
    likeness: Likeness, rows: np.ndarray, encounters: np.ndarray, gallery: Gallery, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How alike images are to the catalogue's (R, K), and their encounters to the catalogue's (U, G), which is the mean
    over all pairs of the images of two.

    rows (R,): images, those of an encounter one behind another; encounters (R,): theirs, rising codes from 0; allowed:
    bool (U, G), the other encounters are -inf.
    """
    images = None if allowed is None else allowed[:, gallery.met][encounters]
    parts = likeness.parts(rows, np.arange(len(gallery.met)))
    by_image = sum(standardised(part, images) for part in parts) if likeness.by_query else sum(parts)
    by_encounter = gallery.means(means_of_rows(by_image, encounters))
    if likeness.by_query:  # a mean of several photographs is no less extreme than one alone
        by_encounter = standardised(by_encounter, allowed)
    return by_image, by_encounter if allowed is None else np.where(allowed, by_encounter, -np.inf)


# matching spots


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
    likeness: Likeness, features: LocalFeatures, known: int, met: np.ndarray, device: torch.device
) -> Likeness:
    """The likeness with matching spots of all images, or of the nearest ones where there are many.

    known: how many images are the catalogue's, which come first; met (N,): encounters, pairs of which say nothing.
    """
    pairs = pairs_to_match(likeness, np.arange(known), np.arange(known, len(met)), met)
    spots = symmetric(pairs, np.log1p(kept_strengths(features, pairs, device).numpy()), len(met))
    return replace(likeness, spots=spots, by_query=True)


def symmetric(pairs: np.ndarray, values: np.ndarray, total: int) -> Any:
    """The sparse matrix (N, N) of values (P,) of pairs (P, 2)."""
    from scipy.sparse import csr_matrix

    both = np.concatenate([pairs, pairs[:, ::-1]])
    return csr_matrix((np.tile(values, 2), (both[:, 0], both[:, 1])), shape=(total, total))


def pairs_to_match(likeness: Likeness, known: np.ndarray, asked: np.ndarray, met: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) in order: of the catalogue's images, and the photographs' with these and with each other; all where
    that takes minutes, else of the nearest."""
    total = len(known) + len(asked)
    if total * (total - 1) // 2 <= ALL_PAIRS:
        one, other = np.triu_indices(total, 1)
        return np.stack([one, other], 1)[met[one] != met[other]]
    most = max(SHORTLIST, ALL_PAIRS // total)
    parts = [nearest_pairs(likeness, known, known, met, most)]
    parts += [nearest_pairs(likeness, asked, known, met, most)] if len(asked) else []
    parts += [nearest_pairs(likeness, asked, asked, met, AMONG)] if len(asked) > 1 else []
    return np.unique(np.sort(np.concatenate(parts), axis=1), axis=0)


def kept_strengths(features: LocalFeatures, pairs: np.ndarray, device: torch.device) -> Tensor:
    """`strengths_of` these pairs, (P,), those from the cache that were matched before."""
    own = np.array([row_key(sha_of(spots)) for spots in features.descriptors])
    swapped = own[pairs[:, 0]] > own[pairs[:, 1]]  # one of two is always the first, wherever they stand
    pairs = np.where(swapped[:, None], pairs[:, ::-1], pairs)
    both = own[pairs].view(np.uint64)
    keys = (both[:, 0] * ODD + both[:, 1]).view(np.int64)
    order = np.argsort(pairs[:, 0], kind="stable")  # so that the spots of an image are taken up once

    def make(positions: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        positions = order[positions]
        return np.ones(len(positions), bool), {"strength": strengths_of(features, pairs[positions], device)}

    kind = fingerprint("strengths 1", MARGIN, *computed_by(None, device))
    there, rows = kept_rows(f"strengths-{kind}", keys[order], make, "matching spots", batch=AT_ONCE)
    found = torch.zeros(len(pairs))
    found[torch.from_numpy(order[there])] = rows["strength"] if len(there) else found[:0]
    return found


@torch.no_grad()
def strengths_of(features: LocalFeatures, pairs: np.ndarray, device: torch.device) -> Tensor:
    """Sum over matching spots of (cosine - margin)+, as `local_similarity` has it, for pairs (P, 2): (P,).

    On a CPU pair by pair, and on a GPU in blocks of one shape, so that no other pair changes a digit.
    """
    strength, block = torch.zeros(len(pairs)), 32 if device.type == "cuda" else 1
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) != 0])
    for start, end in zip(starts, [*starts[1:], len(pairs)]):
        own = features.descriptors[pairs[start, 0]].to(device).float()
        for first in range(start, end, block):
            rows = np.arange(first, min(first + block, end))
            others = features.descriptors[torch.from_numpy(pairs[np.resize(rows, block), 1])].to(device).float()
            found = mutual_matches(torch.einsum("kd,bld->bkl", own, others), MARGIN)[0].sum(1).cpu()
            strength[rows] = found[: len(rows)]
    return strength
