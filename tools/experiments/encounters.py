"""Encounters as evidence: images of one animal at one place and time are one query, and one answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaguar_kit import Retrieval, register
from torch import Tensor


def mean_over_encounters(similarity: Tensor, encounters: np.ndarray) -> Tensor:
    """Mean of the similarities (N, N) over all pairs of two images' encounters (N,), an image with itself left out."""
    codes = torch.from_numpy(pd.factorize(encounters)[0]).to(similarity.device)
    sizes, with_itself = torch.bincount(codes).double(), similarity.diagonal().double()
    by_row = similarity.new_zeros(len(sizes), len(codes)).double().index_add_(0, codes, similarity.double())
    total = by_row.new_zeros(len(sizes), len(sizes)).index_add_(1, codes, by_row)
    pairs = sizes[:, None] * sizes
    total.diagonal().sub_(torch.zeros_like(sizes).index_add_(0, codes, with_itself))
    pairs.diagonal().sub_(sizes)
    mean = (total / pairs.clamp(min=1)).to(similarity)
    return mean[codes][:, codes].fill_diagonal_(1)


@register("postprocess", "encounters")
def encounters_step(state: Retrieval) -> Retrieval:
    """Two images are as alike as those of their two encounters are on average: what is known to be one animal is one
    query, and one answer. Encounters are those of `data.encounter`; a solution is not needed.

    >>> postprocess(["encounters"], torch.eye(4), encounters=[0, 0, 1, 1]).shape
    torch.Size([4, 4])
    """
    if state.encounters is None:
        return state
    return replace(state, similarity=mean_over_encounters(state.matrix(), state.encounters))
