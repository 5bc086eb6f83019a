"""How alike photographs are: by their embeddings, and by matching spots."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaguar_kit import (
    Geometry,
    cache_dir,
    cut_batches,
    fingerprint,
    kept_tensor,
    progress,
    rows_at_a_time,
    rows_by_code,
    save_tensors,
    similarity_matrix,
)
from torch import Tensor

from ..experiments.spots import LocalFeatures, mutual_matches

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

    total, known = len(met), np.arange(len(identity))
    own = nearest_pairs(likeness, known, known, met, SHORTLIST)
    pairs = pairs_to_match(likeness, own, known, np.arange(len(identity), total), met)
    value = np.log1p(kept_strengths(features, pairs, device).numpy())
    both = np.concatenate([pairs, pairs[:, ::-1]])
    spots = csr_matrix((np.tile(value, 2), (both[:, 0], both[:, 1])), shape=(total, total))
    fitted = own[own[:, 0] != own[:, 1]]
    alike = likeness_of_pairs(likeness, fitted)
    shown = np.stack([alike, np.asarray(spots[fitted[:, 0], fitted[:, 1]]).ravel()], 1)
    same = identity[fitted[:, 0]] == identity[fitted[:, 1]]
    return replace(likeness, spots=spots, weight=weight_of_spots(shown, same))


def pairs_to_match(
    likeness: Likeness, own: np.ndarray, known: np.ndarray, asked: np.ndarray, met: np.ndarray
) -> np.ndarray:
    """Pairs (P, 2) in order: `own` of the catalogue's images, the photographs' with these and with each other."""
    parts = [own, nearest_pairs(likeness, asked, known, met, SHORTLIST)] if len(asked) else [own]
    parts += [nearest_pairs(likeness, asked, asked, met, AMONG)] if len(asked) > 1 else []
    return np.unique(np.sort(np.concatenate(parts), axis=1), axis=0)


def weight_of_spots(shown: np.ndarray, same: np.ndarray) -> float:
    """What a pair's spots weigh beside its likeness: shown (P, 2) has both, same (P,) whether one animal is on both."""
    from sklearn.linear_model import LogisticRegression

    spread = shown.std(0) + 1e-9
    weight = spread[0] / spread[1]
    if same.any() and not same.all():
        own_weights = LogisticRegression().fit(shown / spread, same).coef_[0]
        if own_weights[0] > 0:
            weight = max(float(own_weights[1] / own_weights[0]), 0.0) * weight
    return float(weight)


def kept_strengths(features: LocalFeatures, pairs: np.ndarray, device: torch.device) -> Tensor:
    """`strengths_of` these pairs, (P,), from the cache where they were matched before."""
    key = fingerprint("season 1", features.key, zlib.crc32(pairs.tobytes()), len(pairs))
    path = cache_dir() / "local" / f"{key}.safetensors"
    if (strength := kept_tensor(path, "strength", len(pairs))) is None:
        strength = strengths_of(features, pairs, device)
        save_tensors(path, {"strength": strength})
    return strength


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
