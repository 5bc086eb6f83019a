"""Slow and obvious float64 references, written as loops from the published formulas, to test the kit against."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def candidates(query, labels, encounters=None, gallery_labels=None, gallery_encounters=None) -> list[int]:
    """The columns that count for a query: not itself, and none of its encounter."""
    if gallery_labels is None:
        met = range(len(labels)) if encounters is None else encounters
        return [i for i in range(len(labels)) if met[i] != met[query]]
    if encounters is None:
        return list(range(len(gallery_labels)))
    return [i for i in range(len(gallery_labels)) if gallery_encounters[i] != encounters[query]]


def shown(labels, encounters=None, gallery_labels=None, gallery_encounters=None) -> list:
    """The identity of each column."""
    return list(labels if gallery_labels is None else gallery_labels)


def average_precision(similarity, labels, *others_told) -> list[float]:
    """Average precision of each query: sum over distinct similarities, falling, of recall gained times precision.

    Everything of one similarity is retrieved at once, as in scikit-learn's average_precision_score; NaN without another
    image of its identity. `others_told`: encounters, gallery_labels, gallery_encounters.
    """
    similarity, labels, gallery = np.asarray(similarity, np.float64), list(labels), shown(labels, *others_told)
    result = []
    for query in range(len(labels)):
        others = candidates(query, labels, *others_told)
        positives = sum(gallery[i] == labels[query] for i in others)
        if positives == 0:
            result.append(math.nan)
            continue
        total, found_before = 0.0, 0
        for threshold in sorted({similarity[query, i] for i in others}, reverse=True):
            retrieved = [i for i in others if similarity[query, i] >= threshold]
            found = sum(gallery[i] == labels[query] for i in retrieved)
            total += (found - found_before) / positives * found / len(retrieved)
            found_before = found
        result.append(total)
    return result


def per_identity(similarity, labels, *others_told) -> dict[str, float]:
    """Mean average precision of the queries of each identity that has two images or more."""
    precision, labels = average_precision(similarity, labels, *others_told), list(labels)
    result = {}
    for identity in sorted(set(labels)):
        own = [p for p, label in zip(precision, labels) if label == identity and not math.isnan(p)]
        if own:
            result[str(identity)] = sum(own) / len(own)
    return result


def identity_balanced_map(similarity, labels, *others_told) -> float:
    """Mean over identities of the mean average precision of their queries; NaN when nothing can be scored."""
    values = list(per_identity(similarity, labels, *others_told).values())
    return sum(values) / len(values) if values else math.nan


def first_ranks(similarity, labels, *others_told) -> list[int]:
    """Rank of the best image of the same identity for each query that has one, behind all others that tie with it."""
    similarity, labels, gallery = np.asarray(similarity, np.float64), list(labels), shown(labels, *others_told)
    ranks = []
    for query in range(len(labels)):
        others = candidates(query, labels, *others_told)
        right = [similarity[query, i] for i in others if gallery[i] == labels[query]]
        wrong = [similarity[query, i] for i in others if gallery[i] != labels[query]]
        if right:
            ranks.append(1 + sum(value >= max(right) for value in wrong))
    return ranks


def cmc(similarity, labels, k: int, *others_told) -> float:
    """Share of queries with an image of the same identity among the k most similar others."""
    ranks = first_ranks(similarity, labels, *others_told)
    return sum(rank <= k for rank in ranks) / len(ranks) if ranks else math.nan


def minp(similarity, labels, *others_told) -> float:
    """Mean over queries of positives / how many others are as similar as the last positive or more (Ye et al. 2021)."""
    similarity, labels, gallery = np.asarray(similarity, np.float64), list(labels), shown(labels, *others_told)
    shares = []
    for query in range(len(labels)):
        others = candidates(query, labels, *others_told)
        right = [similarity[query, i] for i in others if gallery[i] == labels[query]]
        if right:
            shares.append(len(right) / sum(similarity[query, i] >= min(right) for i in others))
    return sum(shares) / len(shares) if shares else math.nan


def ordered_pairs(similarity, labels, *others_told) -> tuple[list[float], list[float]]:
    """Similarities of all ordered pairs of one identity, and of all ordered pairs of two."""
    similarity, labels, gallery = np.asarray(similarity, np.float64), list(labels), shown(labels, *others_told)
    same, different = [], []
    for i in range(len(labels)):
        for j in candidates(i, labels, *others_told):
            (same if labels[i] == gallery[j] else different).append(float(similarity[i, j]))
    return same, different


def pair_auc(similarity, labels, *others_told) -> float:
    """Share of (same, different) couples of pairs in which the same pair is more similar; a tie counts half."""
    same, different = ordered_pairs(similarity, labels, *others_told)
    won = sum(1.0 if s > d else 0.5 if s == d else 0.0 for s in same for d in different)
    return won / (len(same) * len(different)) if same and different else math.nan


def pair_ap(similarity, labels, *others_told) -> float:
    """Average precision of all ordered pairs in one list, those of one identity being the positives."""
    same, different = ordered_pairs(similarity, labels, *others_told)
    if not same or not different:
        return math.nan
    total, found_before = 0.0, 0
    for threshold in sorted({*same, *different}, reverse=True):
        found = sum(s >= threshold for s in same)
        retrieved = found + sum(d >= threshold for d in different)
        total += (found - found_before) / len(same) * found / retrieved
        found_before = found
    return total


def fnmr(similarity, labels, rate: Fraction, *others_told) -> float:
    """Share of same-identity pairs below the lowest threshold that at most a share `rate` of the others reach."""
    same, different = ordered_pairs(similarity, labels, *others_told)
    if not same or not different:
        return math.nan
    missed = [
        sum(s < threshold for s in same) / len(same)
        for threshold in sorted({*same, *different, math.inf})
        if sum(d >= threshold for d in different) <= rate * len(different)
    ]
    return missed[0]


def retrieval_metrics(similarity, labels, *others_told) -> dict:
    """All retrieval metrics by name; `retrieval_map` is the plain mean over the queries that can be scored."""
    scored = [p for p in average_precision(similarity, labels, *others_told) if not math.isnan(p)]
    return {
        "map": identity_balanced_map(similarity, labels, *others_told),
        "retrieval_map": sum(scored) / len(scored) if scored else math.nan,
        "top1": cmc(similarity, labels, 1, *others_told),
        "pair_auc": pair_auc(similarity, labels, *others_told),
        "pair_ap": pair_ap(similarity, labels, *others_told),
        "fnmr@0.001": fnmr(similarity, labels, Fraction(1, 1000), *others_told),
        "fnmr@0.01": fnmr(similarity, labels, Fraction(1, 100), *others_told),
        "fnmr@0.1": fnmr(similarity, labels, Fraction(1, 10), *others_told),
        "cmc@1": cmc(similarity, labels, 1, *others_told),
        "cmc@5": cmc(similarity, labels, 5, *others_told),
        "cmc@10": cmc(similarity, labels, 10, *others_told),
        "minp": minp(similarity, labels, *others_told),
        "per_identity": per_identity(similarity, labels, *others_told),
    }


def unit_rows(embeddings) -> np.ndarray:
    """Rows divided by their length, float64."""
    return np.array([row / math.sqrt(sum(x * x for x in row)) for row in np.asarray(embeddings, np.float64)])


def cosines(embeddings) -> np.ndarray:
    """Cosine of each pair of rows, float64 (N, N)."""
    unit = unit_rows(embeddings)
    return np.array([[sum(a * b for a, b in zip(x, y)) for y in unit] for x in unit])


def query_expansion(embeddings, k: int, alpha: float) -> np.ndarray:
    """Each unit embedding averaged with its k nearest others, weighted by max(cosine, 0) ** alpha, at unit length."""
    unit, similarity = unit_rows(embeddings), cosines(embeddings)
    expanded = []
    for i in range(len(unit)):
        others = sorted((j for j in range(len(unit)) if j != i), key=lambda j: (-similarity[i, j], j))
        total = unit[i].copy()  # itself, with weight 1
        for j in others[:k]:
            total += max(similarity[i, j], 0.0) ** alpha * unit[j]
        expanded.append(total)
    return unit_rows(expanded)


def k_reciprocal_rerank(similarity, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> np.ndarray:
    """Similarities (N, N) after k-reciprocal re-ranking (Zhong et al. 2017) of a set against itself.

    similarity (N, N): cosines. The original distance is 2 - 2 cos, each row divided by its maximum. Neighbour lists
    start with the image itself; among others of equal distance the first row comes first. A row without any distance
    stays zero.
    """
    similarity = np.asarray(similarity, np.float64)
    size = len(similarity)
    distance = np.zeros((size, size))
    for i in range(size):
        row = [2 - 2 * similarity[i, j] for j in range(size)]
        for j in range(size):
            distance[i, j] = row[j] / max(row) if max(row) > 0 else 0.0
    ranking = [[i, *sorted((j for j in range(size) if j != i), key=lambda j: (distance[i, j], j))] for i in range(size)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    weights = np.zeros((size, size))
    for i in range(size):
        first = reciprocal(i, k1)
        expanded = set(first)
        for candidate in first:
            further = reciprocal(candidate, int(np.around(k1 / 2)))
            if 3 * len(further & first) > 2 * len(further):
                expanded |= further
        raw = {j: math.exp(-distance[i, j]) for j in expanded}
        for j in expanded:
            weights[i, j] = raw[j] / sum(raw.values())
    if k2 > 1:
        averaged = np.zeros_like(weights)
        for i in range(size):
            nearest = ranking[i][:k2]
            for j in nearest:
                averaged[i] += weights[j] / len(nearest)
        weights = averaged
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            shared = sum(min(a, b) for a, b in zip(weights[i], weights[j]))
            jaccard = 1 - shared / (2 - shared)
            result[i, j] = 1 - ((1 - lambda_value) * jaccard + lambda_value * distance[i, j])
    return result


def k_reciprocal_rerank_two_sets(query, gallery, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> np.ndarray:
    """Re-ranked similarities (Q, G) of query embeddings (Q, D) to gallery embeddings (G, D).

    Distances, row maxima and neighbour lists run over the union of both, as in Zhong et al. 2017.
    """
    union = np.concatenate([np.asarray(query, np.float64), np.asarray(gallery, np.float64)])
    return k_reciprocal_rerank(cosines(union), k1, k2, lambda_value)[: len(query), len(query) :]


def arcface_logits(embeddings, weight, labels, margin: float, scale: float) -> np.ndarray:
    """Scaled cosines (B, C); the target's is cos(theta + margin), or cos(theta) - margin sin(margin) beyond pi."""
    embeddings, weight = unit_rows(embeddings), unit_rows(weight)
    logits = np.zeros((len(embeddings), len(weight)))
    for i, embedding in enumerate(embeddings):
        for identity, proxy in enumerate(weight):
            cosine = min(1.0, max(-1.0, sum(a * b for a, b in zip(embedding, proxy))))
            if identity == labels[i]:
                theta = math.acos(cosine)
                beyond = theta + margin >= math.pi
                cosine = cosine - margin * math.sin(margin) if beyond else math.cos(theta + margin)
            logits[i, identity] = scale * cosine
    return logits


def focal_cross_entropy(logits, labels, gamma: float = 0.0) -> float:
    """Mean of (1 - p) ** gamma * -log p over the batch, p being the softmax probability of the target."""
    total = 0.0
    for row, label in zip(logits, labels):
        most = max(row)
        log_p = row[label] - most - math.log(sum(math.exp(x - most) for x in row))
        total -= (1 - math.exp(log_p)) ** gamma * log_p
    return total / len(logits)


def arcface_loss(embeddings, weight, labels, margin: float, scale: float, gamma: float = 0.0) -> float:
    """ArcFace (Deng et al. 2019), with gamma > 0 focal (Lin et al. 2017)."""
    return focal_cross_entropy(arcface_logits(embeddings, weight, labels, margin, scale), labels, gamma)


def numerical_gradient(function, point, step: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar function of an array, one coordinate at a time."""
    point = np.array(point, np.float64)
    gradient = np.zeros_like(point)
    for place in np.ndindex(point.shape):
        up, down = point.copy(), point.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


def generalised_mean(places, p: float) -> np.ndarray:
    """(mean over places of max(x, 1e-6) ** p) ** (1 / p) of a feature map (B, D, h, w), as (B, D)."""
    places = np.asarray(places, np.float64)
    result = np.zeros(places.shape[:2])
    for b in range(places.shape[0]):
        for d in range(places.shape[1]):
            values = [max(x, 1e-6) for x in places[b, d].ravel()]
            largest = max(values)  # taken out, so that no power overflows
            result[b, d] = largest * (sum((x / largest) ** p for x in values) / len(values)) ** (1 / p)
    return result


SPACES = ("euclidean", "poincare", "lorentz")  # of curvature -1, as far as the radius 0.95 in the ball


def longest_embedding(space: str) -> float:
    """Euclidean length of the embeddings that are furthest out."""
    return {"euclidean": math.inf, "poincare": 0.95, "lorentz": 2 * 0.95 / (1 - 0.95**2)}[space]


def brought_inside(embeddings, space: str) -> np.ndarray:
    """Embeddings as points of the space; what is too far out is shortened."""
    rows = np.asarray(embeddings, np.float64)
    return np.array([row * min(1.0, longest_embedding(space) / math.sqrt(sum(x * x for x in row))) for row in rows])


def space_distance(x, y, space: str) -> float:
    """Distance of two points by the arcosh formulas."""
    if space == "euclidean":
        return math.dist(x, y)
    inner, xx, yy = (sum(a * b for a, b in zip(u, v)) for u, v in ((x, y), (x, x), (y, y)))
    if space == "poincare":
        cosh = 1 + 2 * math.dist(x, y) ** 2 / ((1 - xx) * (1 - yy))
    else:
        cosh = math.sqrt(1 + xx) * math.sqrt(1 + yy) - inner
    return math.acosh(max(cosh, 1.0))


def space_similarities(queries, gallery, space: str) -> np.ndarray:
    """1 - d ** 2 / 2 of each query and each point of the gallery."""
    queries, gallery = brought_inside(queries, space), brought_inside(gallery, space)
    return np.array([[1 - space_distance(x, y, space) ** 2 / 2 for y in gallery] for x in queries])


def tangent(point, space: str) -> np.ndarray:
    """The vector at the origin whose exponential map is the point."""
    length = math.sqrt(sum(x * x for x in point))
    back = {"euclidean": float, "poincare": math.atanh, "lorentz": math.asinh}[space]
    return np.asarray(point) * (back(length) / length)


def exponential(vector, space: str) -> np.ndarray:
    """The exponential map at the origin, no further out than the radius."""
    length = math.sqrt(sum(x * x for x in vector))
    there = {"euclidean": float, "poincare": math.tanh, "lorentz": math.sinh}[space]
    return np.asarray(vector) * (min(there(length), longest_embedding(space)) / length)


def space_average_with_nearest(embeddings, k: int, weigh, space: str) -> np.ndarray:
    """Each point averaged with its k nearest others in the tangent space of the origin.

    weigh(rank from 1, similarity): weight of a neighbour; the point itself weighs 1.
    """
    points, similarity = brought_inside(embeddings, space), space_similarities(embeddings, embeddings, space)
    averaged = []
    for i in range(len(points)):
        others = sorted((j for j in range(len(points)) if j != i), key=lambda j: (-similarity[i, j], j))
        total, weights = tangent(points[i], space), 1.0
        for rank, j in enumerate(others[:k], 1):
            weight = weigh(rank, similarity[i, j])
            total, weights = total + weight * tangent(points[j], space), weights + weight
        averaged.append(exponential(total / weights, space))
    return np.array(averaged)
