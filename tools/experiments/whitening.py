"""Whitening: a head that is fitted to a frozen backbone's features, not learned."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    FEWEST,
    Part,
    Range,
    Tensor,
    average_precision,
    interval_over_identities,
    l2_normalize,
    register,
    similarity_rows,
)


@register("head", "whiten")
class Whiten(Part):
    """Unit features whitened by their scatter within individuals: W ** -1/2 (x - mean), nothing of which is learned by
    gradients; W is shrunk towards a multiple of the identity. Of a frozen backbone, and only where identities that it
    was not fitted on are told better by it; else features stay as they are.

    >>> head = Whiten(in_features=2)
    >>> head.fit_scatter(torch.eye(2).repeat(4, 1), np.repeat([0, 1], 4))
    >>> head(torch.eye(2)).shape
    torch.Size([2, 2])
    """

    in_features: int
    shrinkage: Annotated[float, Range(above=0, high=1)] = 0.1

    def __post_init__(self) -> None:
        self.num_features = self.in_features
        self.register_buffer("mean", torch.zeros(self.in_features))
        self.register_buffer("matrix", torch.eye(self.in_features))

    def forward(self, features: Tensor) -> Tensor:
        return (l2_normalize(features.float()) - self.mean) @ self.matrix

    def fit_scatter(self, features: Tensor, codes: np.ndarray) -> None:
        """Fits mean and matrix to features (N, D) of individuals (N,)."""
        points, rows = l2_normalize(features.double().cpu()), torch.from_numpy(np.asarray(codes))
        means = torch.zeros(int(rows.max()) + 1, points.shape[1], dtype=torch.float64).index_add_(0, rows, points)
        within = points - (means / torch.bincount(rows).clamp(min=1)[:, None])[rows]
        scatter = within.T @ within / len(points)
        values, vectors = torch.linalg.eigh(scatter)
        values = (1 - self.shrinkage) * values.clamp(min=0) + self.shrinkage * values.mean().clamp(min=1e-12)
        self.mean.copy_(points.mean(0))
        self.matrix.copy_(vectors * values.rsqrt() @ vectors.T)

    def leave(self) -> None:
        """Makes it leave features as they are."""
        self.mean.zero_()
        self.matrix.copy_(torch.eye(self.in_features))

    def fit_where_better(self, features: Tensor, codes: np.ndarray, met: np.ndarray | None) -> str:
        """Fits it to features (N, D) of individuals (N,) where cross-fitting over individuals shows a gain in mAP,
        across encounters (N,) where those are told; why not, where it leaves features as they are."""
        half = np.isin(codes, np.random.default_rng(0).permutation(codes.max() + 1)[::2])
        gains = np.full(len(codes), math.nan)
        for fitted, asked in ((half, ~half), (~half, half)):
            if fitted.any() and asked.any():
                self.fit_scatter(features[fitted], pd.factorize(codes[fitted])[0])
                told, own = (codes[asked], None if met is None else met[asked]), features[asked]
                whitened, plain = (average_precision(similarity_rows(one), *told) for one in (self(own), own))
                gains[asked] = whitened - plain
        low, high = interval_over_identities(gains, codes)
        if low > 0:
            self.fit_scatter(features, codes)
            return ""
        self.leave()
        few = f"fewer than {FEWEST} individuals tell whether it helps"
        return (
            few if math.isnan(low) else f"it changes mAP by {low:+.3f} to {high:+.3f} on others than it was fitted on"
        )
