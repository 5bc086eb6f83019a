"""What `scale` measures, at which sizes, and the targets.

Data: seeded; tables of N images and N / 5 identities with a long tail, twenty images of a date; matrices of N / 15
identities with a long tail, from embeddings of 64 dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jaguar_kit as jk
import numpy as np
import pandas as pd
import torch

from ..identify import encounters, likeness
from .samples import SPREAD

MIB = 2**20
DIMENSIONS, CLASSES = 64, 31
NEAREST = 100
N_LOG_N = 1.2  # the largest exponent that passes for n log n at these sizes, for which the slope is 1.1
Call = Callable[[], Any]


# Inputs: each returns what is then measured


def long_tailed(size: int, identities: int) -> np.ndarray:
    """Labels (N,), the k-th identity's images being about 1 / k of the first's, at least one of each."""
    shares = 1 / np.arange(1, identities + 1)
    rng = np.random.default_rng(size)
    drawn = rng.choice(identities, size - identities, p=shares / shares.sum())
    return rng.permutation(np.r_[np.arange(identities), drawn])


def table_of(size: int) -> pd.DataFrame:
    """Images in the order of their files, numbered within a folder for each identity."""
    labels = np.sort(long_tailed(size, size // 5))
    names = pd.Series([f"id{label}" for label in labels])
    files = [f"{name}/IMG_{i:06d}.jpg" for i, name in enumerate(names)]
    dates = [f"2026-{i // 20 // 28 % 12 + 1:02d}-{i // 20 % 28 + 1:02d}" for i in range(size)]
    return pd.DataFrame({"filename": files, "path": files, "identity": names, "date": dates})


def hashes_of(size: int) -> np.ndarray:
    """Perceptual hashes, bool (N, 64), alike by twos."""
    return np.random.default_rng(size).integers(0, 2, (size // 2 + 1, 64), np.uint8).astype(bool).repeat(2, 0)[:size]


def embeddings_of(size: int) -> tuple[torch.Tensor, np.ndarray]:
    labels, rng = long_tailed(size, size // 15), np.random.default_rng(size)
    centres = rng.standard_normal((size // 15, DIMENSIONS), np.float32)
    noise = SPREAD * rng.standard_normal((size, DIMENSIONS), np.float32)
    return torch.from_numpy(centres[labels] + noise), labels


def matrix_of(size: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([size, seed]).random((size, size), np.float32))


def logits_of(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(size).standard_normal((size, CLASSES), np.float32))


def pk(size: int) -> Call:
    rows, codes = np.arange(size), long_tailed(size, size // 5)
    return lambda: jk.pk_batches(rows, codes, 0, np.random.default_rng(0))


def pk_of_one(size: int) -> Call:
    """Half of the images show one identity, so that most batches draw others again."""
    rows, codes = np.arange(size), np.arange(size) % (size // 5)
    codes[size // 2 :] = 0
    return lambda: jk.pk_batches(rows, codes, 0, np.random.default_rng(0))


def apart(size: int) -> Call:
    table, groups = table_of(size), np.arange(size) // 2
    return lambda: jk.apart(table, groups, 0, 0.2)


def encounters_in(size: int) -> Call:
    table = table_of(size)
    return lambda: jk.column_groups(jk.told_encounters(table, "date"))


def encounters_of(size: int) -> Call:
    table, hashes = table_of(size), hashes_of(size)
    return lambda: encounters.encounters_of(table, hashes)


def likeness_of_pairs(size: int) -> Call:
    """Four pairs of each image."""
    alike = likeness.Likeness(embeddings_of(size)[0], jk.as_geometry(None))
    pairs = np.stack([np.arange(4 * size) // 4, np.random.default_rng(0).integers(0, size, 4 * size)], 1)
    return lambda: likeness.likeness_of_pairs(alike, pairs)


def find_bursts(size: int) -> Call:
    table, hashes = table_of(size), hashes_of(size)
    return lambda: jk.find_bursts(table, hashes)


def closed_set_posterior(size: int) -> Call:
    logits = logits_of(size)
    return lambda: jk.closed_set_posterior(logits)


def evidence_of(size: int) -> jk.Retrieval:
    """Two kinds of evidence, as they stand before fusion."""
    one, other = matrix_of(size), matrix_of(size, 1)
    return jk.Retrieval(torch.zeros(size, 1), one, jk.as_geometry(None), evidence={"likeness": one, "posterior": other})


def fuse(size: int) -> Call:
    """By isotonic regression, fitted on few pairs."""
    scores, rng = [matrix_of(size), matrix_of(size, 1)], np.random.default_rng(0)
    fitted = jk.fit_calibration(values := rng.random(1000), rng.random(1000) < values)
    return lambda: jk.fuse(scores, [fitted, fitted])


def fuse_step(size: int) -> Call:
    state = evidence_of(size)
    return lambda: jk.fuse_step(state)


def rank_average(size: int) -> Call:
    scores = list(evidence_of(size).evidence.values())
    return lambda: jk.rank_average(*scores)


def posterior_step(size: int) -> Call:
    """With the logarithms that `fuse` takes."""
    logits, raw = logits_of(size), matrix_of(size)
    state = jk.Retrieval(logits, raw, jk.as_geometry(None), logits=lambda _: logits, similarity=raw)
    return lambda: jk.posterior_step(state)


def retrieval_metrics(size: int) -> Call:
    embeddings, labels = embeddings_of(size)
    similarity = jk.similarity_matrix(embeddings)
    return lambda: jk.retrieval_metrics(similarity, labels)


def metrics_of_embeddings(size: int) -> Call:
    embeddings, labels = embeddings_of(size)
    return lambda: jk.identity_balanced_map(jk.similarity_rows(embeddings), labels)


def top_k(size: int) -> Call:
    embeddings = embeddings_of(size)[0]
    return lambda: jk.top_k(embeddings, embeddings, min(NEAREST, size))


def shortlist_rescore(size: int) -> Call:
    similarity = matrix_of(size)
    return lambda: jk.shortlist_rescore(similarity, lambda queries, candidates: candidates % 7)


def k_reciprocal_rerank(size: int) -> Call:
    embeddings = embeddings_of(size)[0]
    return lambda: jk.k_reciprocal_rerank(embeddings)


@dataclass(frozen=True)
class Case:
    """What is measured at which sizes; targets hold at the size `at`, of memory in the case's unit."""

    make: Callable[[int], Call]
    sizes: tuple[int, ...]
    whole: tuple[int, ...] = ()  # sizes of --whole
    square: bool = False  # memory in matrices of N x N float32
    at: int = 0
    seconds: float = math.inf
    memory: float = math.inf
    exponent: float = math.inf

    def unit(self, size: int) -> int:
        return 4 * size**2 if self.square else MIB

    def memory_words(self, value: float) -> str:
        return f"{value:.2f} x N x N" if self.square else f"{value:,.0f} MiB"


TABLES = (12_500, 25_000, 50_000, 100_000)
MATRICES, SMALL = (2_000, 4_000, 6_000, 8_000), (2_500, 5_000, 10_000, 20_000)
WHOLE = (16_000, 32_000, 50_000)


def of_table(make: Callable[[int], Call], **target: float) -> Case:
    return Case(make, TABLES, at=TABLES[-1], exponent=N_LOG_N, **target)


def of_matrix(make: Callable[[int], Call], **target: float) -> Case:
    return Case(make, MATRICES, WHOLE, square=True, at=WHOLE[-1], **target)


def of_embeddings(make: Callable[[int], Call], sizes: tuple[int, ...] = SMALL) -> Case:
    return Case(make, sizes, WHOLE[-1:], at=WHOLE[-1], memory=2048)


CASES = {
    "pk_batches": of_table(pk, seconds=5),
    "pk_batches, half of one": of_table(pk_of_one, seconds=5),
    "apart": of_table(apart),
    "encounters_in": of_table(encounters_in),
    "find_bursts": of_table(find_bursts),
    "encounters_of": of_table(encounters_of),
    "likeness_of_pairs": of_table(likeness_of_pairs),
    "closed_set_posterior": of_matrix(closed_set_posterior, memory=1.3),
    "posterior_step": of_matrix(posterior_step),
    "fuse": of_matrix(fuse, memory=1.3),
    "fuse_step": of_matrix(fuse_step, memory=1.3),
    "rank_average": of_matrix(rank_average, memory=1.3),
    "retrieval_metrics": of_matrix(retrieval_metrics),
    "shortlist_rescore": of_matrix(shortlist_rescore),
    "k_reciprocal_rerank": of_matrix(k_reciprocal_rerank),
    "top_k": of_embeddings(top_k),
    "metrics of embeddings": of_embeddings(metrics_of_embeddings, MATRICES),
}
