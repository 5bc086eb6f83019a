"""Which photographs were taken together: encounters of a catalogue's images, and of new photographs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaguar_kit import ENCOUNTERS, column_groups, cut_batches, rows_at_a_time, rows_by_code

from ..experiments.analysis import connected_groups
from ..experiments.quality import differing_bits

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


@dataclass(frozen=True, eq=False)
class Alike:
    """How alike photographs are, and what that says of them."""

    of: Callable[[np.ndarray], np.ndarray]  # positions (M,) to likenesses (M, M)
    usual: float = math.inf  # from which on two show one animal, as a rule
    least: float = -math.inf  # below which they do not, though they were taken together


def encounters_of_queries(table: pd.DataFrame, hashes: np.ndarray, alike: Alike) -> np.ndarray:
    """The encounter of each new animal (N,), by a column that tells it, else by time, place and likeness.

    Photographs of one camera within a minute are of one encounter unless they are too unlike, within a quarter of an
    hour where they are as alike as usual; near-duplicates of one camera always are. Cameras of one station meet one
    animal from both sides: what each of them alone saw within a minute of the other is one encounter, unless both tell
    the same flank and are too unlike. Where a camera saw several, those that are as alike as usual are joined, most
    alike first. Two animals on one photograph are never of one encounter.
    """
    photograph = column_groups(table.path) if "path" in table else np.arange(len(table))
    told = next((name for name in ENCOUNTERS if name in table and (table[name] != "").any()), None)
    if told:
        return within_told(column_groups(table[told]), photograph, alike)
    seconds = seconds_of(table.taken)
    camera = column_groups(table.station + "\n" + table.camera if "station" in table else table.camera)
    groups = Groups(photograph)
    for rows in rows_by_code(np.arange(len(table)), camera).values():
        order = rows[np.argsort(seconds[rows], kind="stable")]
        join_of_camera(groups, order, seconds, hashes, alike)
    if "station" in table:
        for station, rows in table.groupby("station").indices.items():
            if station:
                join_of_station(groups, rows, seconds, camera, table, alike)
    return groups.numbers()


def seconds_of(taken: pd.Series) -> np.ndarray:
    """Seconds of a clock (N,), NaN where no time of the day is told."""
    times = pd.to_datetime(taken.where(taken.str.len() > 10), format="mixed", errors="coerce")
    times = times.to_numpy("datetime64[s]")
    return np.where(np.isnat(times), math.nan, times.astype(np.int64))


class Groups:
    """Animals that are joined one after the other, but never two of one photograph."""

    def __init__(self, photograph: np.ndarray):
        self.root = np.arange(len(photograph))
        several = np.bincount(photograph, minlength=1)[photograph] > 1
        self.photographs = {row: {photograph[row]} if several[row] else set() for row in range(len(photograph))}

    def find(self, row: int) -> int:
        while self.root[row] != row:
            self.root[row] = row = self.root[self.root[row]]
        return row

    def join(self, one: int, other: int) -> bool:
        """Whether both are of one group now."""
        one, other = self.find(one), self.find(other)
        if one != other:
            if self.photographs[one] & self.photographs[other]:
                return False
            self.photographs[one] |= self.photographs.pop(other)
            self.root[other] = one
        return True

    def join_all(self, pairs: np.ndarray, likeness: np.ndarray) -> None:
        """Joins pairs (P, 2), the most alike first."""
        for one, other in pairs[np.argsort(-likeness, kind="stable")].tolist():
            self.join(one, other)

    def numbers(self) -> np.ndarray:
        return np.unique([self.find(row) for row in range(len(self.root))], return_inverse=True)[1]


def within_told(groups: np.ndarray, photograph: np.ndarray, alike: Alike) -> np.ndarray:
    """Groups that a column tells, several animals of one photograph apart."""
    if len(np.unique(photograph)) == len(photograph):
        return groups
    parted = Groups(photograph)
    for rows in rows_by_code(np.arange(len(groups)), groups).values():
        if len(rows) > 1:
            pairs = np.argwhere(np.triu(np.ones((len(rows), len(rows)), bool), 1))
            parted.join_all(rows[pairs], alike.of(rows)[tuple(pairs.T)])
    return parted.numbers()


def join_of_camera(
    groups: Groups, order: np.ndarray, seconds: np.ndarray, hashes: np.ndarray, alike: Alike, size: int = 512
) -> None:
    """Joins what one camera took together; order: rows by time."""
    pairs, likeness = [np.empty((0, 2), int)], [np.empty(0)]
    for start in range(0, len(order), size // 2):  # each row with the quarter of a thousand before and behind it
        part = order[start : start + size]
        apart = np.abs(seconds[part, None] - seconds[part])
        near = differing_bits(hashes[part], hashes[part]) <= NEAR_DUPLICATE
        together = near & ~(apart > NEARBY)  # no time is no reason against
        soon = np.triu(apart <= NEARBY, 1)
        values = np.zeros(together.shape)
        if soon.any():
            values = alike.of(part)
            together |= soon & np.where(apart <= TOGETHER, values >= alike.least, values >= alike.usual)
        found = np.argwhere(np.triu(together, 1))
        pairs.append(part[found])
        likeness.append((values + near)[tuple(found.T)])  # near-duplicates first
        if start + size >= len(order):
            break
    groups.join_all(np.concatenate(pairs), np.concatenate(likeness))


def join_of_station(
    groups: Groups, rows: np.ndarray, seconds: np.ndarray, camera: np.ndarray, table: pd.DataFrame, alike: Alike
) -> None:
    """Joins what several cameras of a station saw at about the same time: of each camera one encounter at most."""
    rows = rows[~np.isnan(seconds[rows])]
    rows = rows[np.argsort(seconds[rows], kind="stable")]
    met = list(rows_by_code(rows, np.array([groups.find(row) for row in rows], int)).values())
    met.sort(key=lambda own: seconds[own[0]])
    of = np.array([camera[own[0]] for own in met], int)
    pairs = []
    for i, own in enumerate(met):
        for j in range(i + 1, len(met)):
            if seconds[met[j][0]] - seconds[own].max() > TOGETHER:
                break
            if of[i] != of[j]:
                pairs.append((i, j))
    if not pairs:
        return
    beside = Counter((i, of[j]) for one in pairs for i, j in (one, one[::-1]))
    flank = next((table[name].to_numpy(str) for name in ("flank", "orientation") if name in table), None)
    fine, likeness = [], []
    for i, j in pairs:
        value = alike.of(np.r_[met[i], met[j]])[: len(met[i]), len(met[i]) :].max()
        alone = beside[i, of[j]] == beside[j, of[i]] == 1
        shown = [set() if flank is None else set(flank[met[k]]) for k in (i, j)]
        comparable = len(shown[0]) == 1 and shown[0] == shown[1] != {""}
        fine.append(value >= alike.usual or (alone and not (comparable and value < alike.least)))
        likeness.append(value)
    cameras = Groups(of)
    cameras.join_all(np.array(pairs)[fine], np.array(likeness)[fine])
    for i, own in enumerate(met):
        groups.join(own[0], met[cameras.find(i)][0])
