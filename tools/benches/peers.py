"""Other ways to do what follows the embeddings, in numpy: loops, ranked matrices, the paper's inverted index, faiss.

What stands in for the toolboxes and for the paper's algorithm is code of this file; compiled versions that some
toolboxes have, for the ranking above all, were not used. pytorch-metric-learning is itself.

Letters for shapes: N images, D embedding, K neighbours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .samples import K1, unit_rows

K2, LAMBDA = 6, 0.3  # of re-ranking, beside K1
HALF = round(K1 / 2) + 1  # length of the lists by which neighbours of neighbours join
EXPANSION_K, EXPANSION_ALPHA = 3, 0.0


# Mean average precision


def mean_over_identities(precision: np.ndarray, labels: np.ndarray) -> float:
    scored = ~np.isnan(precision)
    return float(np.mean([precision[scored & (labels == k)].mean() for k in np.unique(labels[scored])]))


def map_loop(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Query by query; what ties is retrieved together."""
    precision = np.full(len(labels), np.nan)
    for query, row in enumerate(similarity):
        distance, match = -np.delete(row, query), np.delete(labels, query) == labels[query]
        if match.any():
            order = np.argsort(distance)
            distance, match = distance[order], match[order]
            retrieved = np.searchsorted(distance, distance[match], "right")
            precision[query] = (np.cumsum(match)[retrieved - 1] / retrieved).mean()
    return mean_over_identities(precision, labels)


def map_ranked_matrix(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Ranks the whole distance matrix, then counts matches query by query; ties fall in any order."""
    order = np.argsort(1 - similarity, axis=1)
    matches = labels[order] == labels[:, None]
    precision = np.full(len(labels), np.nan)
    for query in range(len(labels)):
        found = matches[query, order[query] != query]
        if found.any():
            precision[query] = (found.cumsum() / np.arange(1, len(labels)))[found].mean()
    return mean_over_identities(precision, labels)


def map_metric_learning(unit: np.ndarray, labels: np.ndarray) -> float:
    """k=None ranks all others; "max_bin_count" would stop at the size of the largest identity."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    wanted = "mean_average_precision"
    calculator = AccuracyCalculator(include=(wanted,), avg_of_avgs=True, k=None, device=torch.device("cpu"))
    return calculator.get_accuracy(unit, labels)[wanted]


# Re-ranking


def relative_distance(unit: np.ndarray) -> np.ndarray:
    """2 - 2 cos, each row divided by its maximum, (N, N)."""
    distance = 2 - 2 * (unit @ unit.T)
    return distance / distance.max(axis=1, keepdims=True)


def final_similarity(shared: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """From the sums of minima of each two rows' weights, (N, N), and the relative distances."""
    jaccard = 1 - shared / (2 - shared)
    return 1 - ((1 - LAMBDA) * jaccard + LAMBDA * distance)


def rerank_loops(embeddings: np.ndarray) -> np.ndarray:
    """Word by word, in float64: sets, a dense matrix of weights, and minima over all pairs."""
    distance = relative_distance(unit_rows(embeddings.astype(np.float64)))
    order = np.argsort(distance, axis=1)

    def mutual(i: int, length: int) -> set[int]:
        return {j for j in order[i, :length].tolist() if i in order[j, :length]}

    weights = np.zeros_like(distance)
    for i in range(len(order)):
        neighbours = mutual(i, K1 + 1)
        members = set(neighbours)
        for j in neighbours:
            half = mutual(j, HALF)
            if 3 * len(half & neighbours) > 2 * len(half):
                members |= half
        for j in members:
            weights[i, j] = np.exp(-distance[i, j])
        weights[i] /= weights[i].sum()
    weights = np.stack([weights[nearest].mean(axis=0) for nearest in order[:, :K2]])
    shared = np.stack([np.minimum(row, weights).sum(axis=1) for row in weights])
    return final_similarity(shared, distance)


def mutual_neighbours(lists: np.ndarray, i: int, length: int) -> np.ndarray:
    near = lists[i, :length]
    return near[(lists[near, :length] == i).any(axis=1)]


def expanded_neighbours(lists: np.ndarray, i: int) -> np.ndarray:
    """The mutual neighbours of i, joined by those of a neighbour that lie mostly among them."""
    neighbours = mutual_neighbours(lists, i, K1 + 1)
    parts = [neighbours]
    for j in neighbours:
        half = mutual_neighbours(lists, j, HALF)
        if 3 * len(np.intersect1d(half, neighbours, assume_unique=True)) > 2 * len(half):
            parts.append(half)
    return np.unique(np.concatenate(parts))


def normalised_weights(distance: np.ndarray) -> np.ndarray:
    weights = np.exp(-distance)
    return weights / weights.sum()


def rerank_inverted_index(embeddings: np.ndarray) -> np.ndarray:
    """In the manner of the paper's authors: a dense matrix of weights, minima only where both are not zero."""
    distance = relative_distance(unit_rows(embeddings))
    lists = np.argpartition(distance, np.arange(K1 + 1), axis=1)[:, : K1 + 1]
    weights = np.zeros_like(distance)
    for i in range(len(lists)):
        members = expanded_neighbours(lists, i)
        weights[i, members] = normalised_weights(distance[i, members])
    weights = np.stack([weights[nearest].mean(axis=0) for nearest in lists[:, :K2]])
    holders = [np.flatnonzero(column) for column in weights.T]
    shared = np.zeros_like(distance)
    for i, row in enumerate(weights):
        for j in np.flatnonzero(row):
            shared[i, holders[j]] += np.minimum(row[j], weights[holders[j], j])
    return final_similarity(shared, distance)


def rerank_faiss(embeddings: np.ndarray) -> np.ndarray:
    """As re-ID toolboxes do with faiss: it finds the neighbours, and only weights that are not zero are kept."""
    import faiss

    unit = unit_rows(embeddings)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    lists = index.search(unit, K1 + 1)[1]
    distance = relative_distance(unit)
    members = [expanded_neighbours(lists, i) for i in range(len(lists))]
    weights = [normalised_weights(distance[i, near]) for i, near in enumerate(members)]
    spread = [mean_of_sparse([members[j] for j in near], [weights[j] for j in near]) for near in lists[:, :K2]]
    rows = np.repeat(np.arange(len(lists)), [len(columns) for columns, _ in spread])
    columns, values = (np.concatenate(part) for part in zip(*spread))
    by_column = np.argsort(columns, kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=len(lists)))[:-1]
    holders, held = np.split(rows[by_column], ends), np.split(values[by_column], ends)
    shared = np.zeros_like(distance)
    for i, (near, own) in enumerate(spread):
        for j, weight in zip(near, own):
            shared[i, holders[j]] += np.minimum(weight, held[j])
    return final_similarity(shared, distance)


def mean_of_sparse(columns: list[np.ndarray], values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of sparse rows, as the columns and values that are not zero."""
    found, places = np.unique(np.concatenate(columns), return_inverse=True)
    return found, (np.bincount(places, np.concatenate(values)) / len(columns)).astype(values[0].dtype)


# Query expansion and submission


def expansion_loop(embeddings: np.ndarray) -> np.ndarray:
    """Each row as the mean of itself and its K nearest others, weighted by cosine ** alpha, scaled to length 1."""
    unit = unit_rows(embeddings)
    expanded = np.empty_like(unit)
    for i, row in enumerate(unit):
        cosines = unit @ row
        nearest = np.argsort(-cosines)[: EXPANSION_K + 1]
        total = (np.maximum(cosines[nearest], 0)[:, None] ** EXPANSION_ALPHA * unit[nearest]).sum(axis=0)
        expanded[i] = total / np.linalg.norm(total)
    return expanded


def submission_loop(path: Path, similarity: np.ndarray, images: list[str], pairs: pd.DataFrame) -> Path:
    """As notebooks do: a row after the other into a list, which becomes a table, which is written."""
    position = {name: i for i, name in enumerate(images)}
    rows = []
    for row in pairs.itertuples(index=False):
        cosine = float(similarity[position[row.query_image], position[row.gallery_image]])
        rows.append({"row_id": row.row_id, "similarity": (cosine + 1) / 2})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path
