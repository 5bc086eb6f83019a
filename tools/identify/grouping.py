"""Groups of new animals: photographs of nobody in the catalogue that show the same one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaguar_kit import cut_batches, rows_at_a_time

from .decisions import Decisions
from .evidence import images_of
from .likeness import CrossFitted, Gallery, Likeness
from .odds import Tilt
from .season import Season

MOST_GROUPED = 5000  # new ones that are compared with each other
TOLD_BY = 400  # encounters of the catalogue that tell how alike two of one animal are


@dataclass(frozen=True, eq=False)
class Sameness:
    """How probable it is that two encounters show one animal, from how alike they are."""

    tilt: Tilt  # pairs of one animal against pairs of two
    share: float  # of pairs that show one, among all that are compared
    levels: np.ndarray  # how alike the catalogue's pairs are, rising
    most: np.ndarray  # share of pairs of one animal that are as alike or more, over that of pairs of two, by level

    @staticmethod
    def of(season: Season) -> Sameness | None:
        """As encounters of the catalogue tell, those that one likeness asks for as strangers'; None where no animal has
        two."""
        gallery = Gallery.of(season.known.identity.to_numpy(str), season.known_met)
        some = np.random.default_rng(0).permutation(len(gallery.identity))[:TOLD_BY]
        one, other = np.triu_indices(len(some), 1)
        same = gallery.identity[some[one]] == gallery.identity[some[other]]
        if not same.any() or same.all():
            return None
        crossed, pairs = CrossFitted.of(season.learned.crossed or season.likeness, len(gallery.identity)), []
        for group, likeness in enumerate(crossed.strange):
            own = some[crossed.group[some] == group]
            if len(own) > 1:
                rows, encounters = images_of(gallery, own)
                upper = np.triu_indices(len(own), 1)
                alike = between(likeness, rows, encounters, gallery, gallery.met[rows])[upper]
                pairs.append((alike, gallery.identity[own[upper[0]]] == gallery.identity[own[upper[1]]]))
        if not pairs:
            return None
        alike, one_animal = map(np.concatenate, zip(*pairs))
        return Sameness.fit(alike, one_animal, float(same.mean()))

    @staticmethod
    def fit(alike: np.ndarray, same: np.ndarray, share: float) -> Sameness:
        """From how alike pairs (P,) are, and whether they show one animal, bool (P,)."""
        order = np.argsort(alike, kind="stable")
        both = np.stack([same[order], ~same[order]])
        from_on = (np.cumsum(both[:, ::-1], 1)[:, ::-1] + 1) / (both.sum(1, keepdims=True) + 2)  # by Laplace's rule
        most = np.maximum.accumulate(from_on[0] / from_on[1])
        return Sameness(Tilt.of(alike, same * 1.0, ~same * 1.0), share, alike[order], most)

    def among(self, alike: np.ndarray) -> np.ndarray:
        """For all pairs of new encounters (M, M). The share of them that shows one animal is half told by themselves
        (EM), and half by the catalogue's: they are pairs of few encounters, and what is amiss with one is with many."""
        place = np.clip(np.searchsorted(self.levels, alike, "right") - 1, 0, None)
        ratio = np.minimum(np.exp(self.tilt(alike)), self.most[place])
        pairs, share = ratio[np.triu_indices(len(alike), 1)], self.share
        for _ in range(30 if len(pairs) else 0):
            share = (np.mean(share * pairs / (share * pairs + 1 - share)) + self.share) / 2
        return share * ratio / (share * ratio + 1 - share)


def between(
    likeness: Likeness, rows: np.ndarray, encounters: np.ndarray, gallery: Gallery, met: np.ndarray | None = None
) -> np.ndarray:
    """How alike encounters are (M, M): the mean over all pairs of their images, standardised for both. No spread counts
    as less than the median one: to whom nearly nothing of the catalogue is alike, anything that is would seem the same.

    rows (R,), encounters (R,): images, and codes from 0 that rise; met (R,): of the catalogue's own images, their
    encounters, which tell nothing of what is usual.
    """
    known, parts = np.arange(len(gallery.met)), likeness.parts(rows, rows)
    if likeness.by_query:
        usual = np.empty((len(parts), 2, len(rows)))
        for part in cut_batches(np.arange(len(rows)), rows_at_a_time(len(known))):
            others = np.ones((len(part), len(known)), bool) if met is None else met[part, None] != gallery.met
            for kind, matrix in enumerate(likeness.parts(rows[part], known)):
                mean = np.mean(matrix, 1, where=others)
                usual[kind][:, part] = mean, np.std(matrix, 1, where=others)
        usual[:, 1] = np.maximum(usual[:, 1], np.median(usual[:, 1], axis=1, keepdims=True))
        parts = [
            np.where(spread[:, None] > 1e-9, one - mean[:, None], 0.0) / np.maximum(spread, 1e-9)[:, None]
            for one, (mean, spread) in zip(parts, usual)
        ]
    whole = sum(parts)
    sizes, starts = np.bincount(encounters), np.searchsorted(encounters, np.arange(encounters[-1] + 1))
    means = np.add.reduceat(np.add.reduceat(whole, starts, axis=0), starts, axis=1) / np.outer(sizes, sizes)
    return (means + means.T) / 2


def grouped(season: Season, rows: np.ndarray, decisions: Decisions) -> tuple[list[str], np.ndarray]:
    """The groups of new animals among photographs, and how probable it is that two encounters of a group show one."""
    same = Sameness.of(season) if len(rows) > 1 else None
    if same is None:
        return [""] * len(rows), np.full(len(rows), math.nan)
    codes = np.unique(season.encounters[rows], return_inverse=True)[1]
    order, known = np.argsort(codes, kind="stable"), season.known
    gallery = Gallery.of(known.identity.to_numpy(str), season.known_met)
    among = same.among(between(season.likeness, rows[order] + len(known), codes[order], gallery))
    place = {mark: i for i, mark in enumerate(season.new.table.mark.to_numpy()[rows])}
    firsts = np.unique(codes, return_index=True)[1]
    must = [(int(firsts[code]), i) for i, code in enumerate(codes) if firsts[code] != i]
    must += [(place[a], place[b]) for a, b in decisions.links("yes") if a in place and b in place]
    cannot = [(place[a], place[b]) for a, b in decisions.links("no") if a in place and b in place]
    return group_new(among[codes][:, codes], 0.5, must, cannot)


def group_new(
    similarity: np.ndarray,
    threshold: float,
    must: Iterable[tuple[int, int]] = (),
    cannot: Iterable[tuple[int, int]] = (),
) -> tuple[list[str], np.ndarray]:
    """Names "new 1", "new 2", ... for queries (M, M) that show the same animal, "" for those of whom there is one; and
    how probable it is on average that two of a group do.

    Groups are joined by their best pairs, the most similar two first: the likeness of each of their members to the
    most similar member of the other, on average, must reach `threshold`. So two flanks of an animal meet where a
    photograph shows both, and one mistaken pair joins no large groups. Pairs that `must` be linked are, pairs that
    `cannot` be linked never share a group, which goes before must.
    """
    total, best = len(similarity), (similarity + similarity.T) / 2  # of each query to the members of each group
    named, apart, sums = np.arange(total), np.zeros((total, total), bool), np.zeros(total)
    for i, j in cannot:
        apart[i, j] = apart[j, i] = i != j
    mean, sizes = best.copy(), np.ones(total)  # mean: of each group's members to each group

    def join(one: int, other: int, probable: float) -> None:
        sums[one] += sums[other] + sizes[one] * sizes[other] * probable
        mean[one] = (sizes[one] * mean[one] + sizes[other] * mean[other]) / (sizes[one] + sizes[other])
        best[:, one] = np.maximum(best[:, one], best[:, other])
        named[named == other] = one
        sizes[one], sizes[other] = sizes[one] + sizes[other], 0
        mean[:, one] = np.bincount(named, best[:, one], total) / np.maximum(sizes, 1)
        apart[one] |= apart[other]
        apart[:, one] |= apart[:, other]

    def joined(one: int) -> np.ndarray:
        """How alike a group is to all others."""
        fine = (sizes > 0) & ~apart[one] & (np.arange(total) != one)
        return np.where(fine, (mean[one] + mean[:, one]) / 2, -np.inf)

    for i, j in ((named[i], named[j]) for i, j in must):
        if i != j and not apart[i, j]:
            join(i, j, 1.0)
    nearest = np.array([joined(one).max(initial=-np.inf) if sizes[one] else -np.inf for one in range(total)])
    while total and nearest.max() >= threshold - 1e-9:
        one = int(nearest.argmax())
        likeness = joined(one)
        if likeness.max() < nearest[one]:  # it was that of a group that has changed since
            nearest[one] = likeness.max()
            continue
        other = int(likeness.argmax())
        join(one, other, min(float(likeness[other]), 1.0))
        nearest[other] = -np.inf
        likeness = joined(one)
        nearest = np.where(sizes > 0, np.maximum(nearest, likeness), -np.inf)
        nearest[one] = likeness.max()
    return names_of_groups(named, sums, sizes)


def names_of_groups(named: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of groups of two at least, the largest first, and the mean of their pairs' probabilities."""
    counts, shares = pd.Series(named).value_counts(), np.full(len(named), math.nan)
    numbers = {label: f"new {i}" for i, label in enumerate(counts.index[counts > 1], 1)}
    for label in numbers:
        shares[named == label] = round(float(2 * sums[label] / (sizes[label] * (sizes[label] - 1))), 4)
    return [numbers.get(label, "") for label in named], shares
