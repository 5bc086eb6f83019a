"""Which evidence names animals: what helps the catalogue's own encounters to be recognised, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaguar_kit import cut_batches, echo, rows_at_a_time

from .likeness import Gallery, Likeness, of_encounters

TRIED = 1000  # encounters of the catalogue that choose evidence
LEAST = 20  # individuals with two encounters at least, below which nothing is chosen


@dataclass(frozen=True, eq=False)
class Recognised:
    """How well encounters of a catalogue are recognised among its others."""

    rank: np.ndarray  # one over the place of the own animal (U,), NaN where it has no other encounter
    animal: np.ndarray  # codes (U,)

    def better_than(self, other: Recognised) -> bool:
        """Whether it is by more than chance does, a standard error over individuals."""
        there = np.isfinite(self.rank) & np.isfinite(other.rank)
        animals, codes = np.unique(self.animal[there], return_inverse=True)
        if len(animals) < LEAST:
            return False
        gain = np.bincount(codes, (self.rank - other.rank)[there]) / np.bincount(codes)
        return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def recognised(likeness: Likeness, identity: np.ndarray, met: np.ndarray, asked: np.ndarray) -> Recognised:
    """Each of the `asked` encounters (codes of met) of a catalogue asked for among the others."""
    gallery = Gallery.of(identity, met)
    animals, codes = np.unique(gallery.identity, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts, ranks = np.searchsorted(codes[order], np.arange(len(animals))), np.full(len(asked), np.nan)
    for part in cut_batches(np.arange(len(asked)), max(1, rows_at_a_time(8 * len(met)))):
        rows, encounters = images_of(gallery, asked[part])
        allowed = asked[part, None] != np.arange(len(gallery.identity))
        found = of_encounters(likeness, rows, encounters, gallery, allowed)[1]
        best = np.maximum.reduceat(found[:, order], starts, axis=1)
        own = np.take_along_axis(best, codes[asked[part], None], 1)
        ranks[part] = np.where(np.isfinite(own[:, 0]), 1 / np.maximum((best >= own).sum(1), 1), np.nan)
    return Recognised(ranks, codes[asked])


def images_of(
    gallery: Gallery, encounters: np.ndarray, asked: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The images of encounters, one behind another, and the place of each one's encounter among these; asked: bool
    (K,), which images alone."""
    ends = np.r_[gallery.starts, len(gallery.order)]
    rows = [gallery.order[ends[code] : ends[code + 1]] for code in encounters]
    if asked is not None:
        rows = [own[asked[own]] for own in rows]
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), list(map(len, rows)))


def chosen(
    likeness: Likeness,
    identity: np.ndarray,
    met: np.ndarray,
    match_spots: Callable[[Likeness], Likeness] | None = None,
) -> tuple[Likeness, str]:
    """The likeness standardised for each photograph, and with the spots that `match_spots` adds, each where it helps
    the catalogue's encounters to be recognised; and in words which of these.

    identity (K,) and met (K,): of the catalogue, encounters.
    """
    codes = np.unique(met, return_inverse=True)[1]
    asked = np.random.default_rng(0).permutation(codes.max() + 1)[:TRIED]
    now = recognised(likeness, identity, codes, asked)
    if match_spots is not None:
        spotted = match_spots(likeness)
        if (then := recognised(spotted, identity, codes, asked)).better_than(now) or len(set(then.animal)) < LEAST:
            return spotted, "features and matching spots, standardised for each photograph"
        echo("  note: matching spots do not help to recognise the catalogue's own animals, and are left out")
    even = replace(likeness, by_query=True)
    if recognised(even, identity, codes, asked).better_than(now):
        return even, "features, standardised for each photograph"
    return likeness, "features"
