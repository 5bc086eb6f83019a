"""Which photographs were taken together: encounters of a catalogue's images, and of new photographs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from jaguar_kit import ENCOUNTERS, column_groups, cut_batches, rows_at_a_time, rows_by_code

from ..experiments.analysis import connected_groups, differing_bits

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
    taken = taken.to_numpy("datetime64[s]")  # of any year, where nanoseconds end in 2262
    seconds = np.where(np.isnat(taken), math.nan, taken.astype(np.int64))
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
