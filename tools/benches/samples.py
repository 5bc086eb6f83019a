"""Synthetic embeddings that benches work on: long-tailed identities, clustered."""

from __future__ import annotations

import numpy as np

IDENTITIES = {371: 31, 2000: 100, 5000: 300}  # other sizes: one for every 15 images
DIMENSIONS = 256
SPREAD = 2.0  # standard deviation within an identity, that of the identities' centres being 1
K1 = 20  # neighbours that re-ranking looks at, whose order must not hang on rounding


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def nearly_tied(embeddings: np.ndarray, margin: float = 1e-6) -> np.ndarray:
    """Rows whose nearest K1 + 1 neighbours are not all told apart by `margin` in cosine."""
    unit = unit_rows(embeddings)
    nearest = np.sort(np.partition(-(unit @ unit.T), K1 + 1, axis=1)[:, : K1 + 2], axis=1)
    return np.flatnonzero((np.diff(nearest, axis=1) < margin).any(axis=1))


def clustered(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) and labels (N,); the k-th identity has about 1/k as many images as the first."""
    random = np.random.default_rng(size)
    identities = IDENTITIES.get(size, max(2, size // 15))
    shares = 1 / np.arange(1, identities + 1)
    shares[-1] = 0  # the last has a single image, which has no positive to find
    drawn = random.choice(identities, size - identities, p=shares / shares.sum())
    labels = random.permutation(np.concatenate([np.arange(identities), drawn]))
    centres = random.standard_normal((identities, DIMENSIONS))
    embeddings = np.empty((size, DIMENSIONS), np.float32)
    rows = np.arange(size)
    while len(rows):
        embeddings[rows] = centres[labels[rows]] + SPREAD * random.standard_normal((len(rows), DIMENSIONS))
        rows = nearly_tied(embeddings)
    return embeddings, labels
