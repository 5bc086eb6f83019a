"""Groups of new animals: photographs of nobody in the catalogue that show the same one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..experiments.analysis import connected_groups
from .confidence import Odds
from .decisions import Decisions
from .season import Season

MOST_GROUPED = 5000  # new ones that are compared with each other


def grouped(season: Season, rows: np.ndarray, odds: Odds, decisions: Decisions) -> tuple[list[str], np.ndarray]:
    """The groups of new animals among photographs, and how probable it is that two of a group show one."""
    among = odds.of_right(season.among_new(rows)) if len(rows) else np.zeros((0, 0))
    place = {mark: i for i, mark in enumerate(season.new.table.mark.to_numpy()[rows])}
    met = season.encounters[rows]
    must = [(i, j) for i, j in np.argwhere(met[:, None] == met) if i < j]
    must += [(place[a], place[b]) for a, b in decisions.links("yes") if a in place and b in place]
    cannot = [(place[a], place[b]) for a, b in decisions.links("no") if a in place and b in place]
    names = group_new(among, 0.5, must, cannot)
    shares = np.full(len(rows), math.nan)
    for name in set(names) - {""}:
        own = np.flatnonzero(np.array(names) == name)
        pairs = among[np.ix_(own, own)][~np.eye(len(own), dtype=bool)]
        shares[own] = round(float(pairs.mean()), 4)
    return names, shares


def group_new(
    similarity: np.ndarray,
    threshold: float,
    must: Iterable[tuple[int, int]] = (),
    cannot: Iterable[tuple[int, int]] = (),
) -> list[str]:
    """Names "new 1", "new 2", ... for queries (M, M) that resemble each other; "" for those that resemble none.

    Average linkage: the likeness of their images, averaged over two groups, must reach `threshold`. Pairs that `must`
    be linked are, pairs that `cannot` be linked never share a group, which goes before must.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(similarity) < 2:
        return [""] * len(similarity)
    distance, total = 1 - (similarity + similarity.T) / 2, len(similarity)
    apart = {frozenset(pair) for pair in cannot if len(set(pair)) == 2}  # a photograph and itself are one
    linked_pairs = [pair for pair in must if frozenset(pair) not in apart]
    if linked_pairs:
        component = connected_groups(np.array(linked_pairs), total)
        distance[component[:, None] == component] = 0
    for i, j in map(tuple, apart):
        distance[i, j] = distance[j, i] = 4.0 * total**2  # keeps the average of any two groups above the threshold
    np.fill_diagonal(distance, 0)
    linked = AgglomerativeClustering(
        None, metric="precomputed", linkage="average", distance_threshold=1 - threshold + 1e-9
    )
    labels = linked.fit_predict(distance)
    sizes = pd.Series(labels).value_counts()
    numbers = {label: f"new {i}" for i, label in enumerate(sizes.index[sizes > 1], 1)}
    return [numbers.get(label, "") for label in labels]
