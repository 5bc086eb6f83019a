"""Chains of steps: each that is taken equals a slow evaluation, and none has a step that changes nothing."""

from __future__ import annotations

import jaguar_kit
import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, postprocess

IMAGES, LENGTH, CLASSES = 10, 5, 4
DRAWN = np.random.default_rng(5)
EMBEDDINGS = DRAWN.normal(size=(IMAGES, LENGTH)) * DRAWN.uniform(0.5, 2, size=(IMAGES, 1))
MIRRORED = EMBEDDINGS + 0.4 * DRAWN.normal(size=(IMAGES, LENGTH))
WEIGHTS = DRAWN.normal(size=(LENGTH, CLASSES))
STEPS = (
    "tta",
    "query_expansion",
    "database_augmentation",
    "k_reciprocal",
    "blend",
    "posterior",
    "fuse",
    "fuse by rank",
)


def step_of(name):
    settings_of = {
        "query_expansion": {"k": 2, "alpha": 1.0},
        "database_augmentation": {"k": 3},
        "k_reciprocal": {"k1": 4, "k2": 2},
        "blend": {"raw_weight": 0.3},
        "fuse by rank": {"name": "fuse", "kind": "rank"},
    }
    return {"name": name, **settings_of.get(name, {})}


def as_taken(names):
    """The similarities of the kit, or None where it refuses the chain."""
    views = lambda scales, flip: torch.from_numpy(MIRRORED)  # noqa: E731
    logits = lambda points: points @ torch.from_numpy(WEIGHTS)  # noqa: E731
    try:
        return postprocess([step_of(name) for name in names], torch.from_numpy(EMBEDDINGS), views, None, logits).numpy()
    except KitError:
        return None


def unit(points):
    return [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in points]


def cosines(points):
    points = unit(points)
    return [[sum(a * b for a, b in zip(one, other)) for other in points] for one in points]


def averaged(points, k, weigh):
    """Each point, of length 1, with its k nearest others, weighed by their rank and cosine."""
    points, found = unit(points), []
    for i, row in enumerate(cosines(points)):
        nearest = sorted((j for j in range(len(row)) if j != i), key=lambda j: -row[j])[:k]
        shares = [weigh(rank, row[j]) for rank, j in enumerate(nearest)]
        total = [points[i][d] + sum(w * points[j][d] for w, j in zip(shares, nearest)) for d in range(len(points[i]))]
        found.append(total)
    return unit(found)


def named(points, lengths):
    """sum_c sqrt(p_c q_c) of the softmax of logits of points as long as they were at first."""
    shares = []
    for row, length in zip(unit(points), lengths):
        logits = [sum(x * length * w for x, w in zip(row, column)) for column in WEIGHTS.T]
        powers = [np.exp(value - max(logits)) for value in logits]
        shares.append([power / sum(powers) for power in powers])
    return [[sum((p * q) ** 0.5 for p, q in zip(one, other)) for other in shares] for one in shares]


def to_unit(matrix):
    others = [matrix[i][j] for i in range(len(matrix)) for j in range(len(matrix)) if i != j]
    low, high = min(others), max(others)
    return [[1.0 if i == j else (x - low) / (high - low) for j, x in enumerate(row)] for i, row in enumerate(matrix)]


def added(evidence):
    total = np.zeros((IMAGES, IMAGES))
    for matrix in map(np.array, evidence):
        total += matrix / matrix[~np.eye(IMAGES, dtype=bool)].std(ddof=1)
    return to_unit(total.tolist())


def ranked(evidence):
    total = np.zeros((IMAGES, IMAGES))
    off = [(i, j) for i in range(IMAGES) for j in range(IMAGES) if i != j]
    for matrix in evidence:
        values = [matrix[i][j] for i, j in off]
        for i, j in off:
            below = sum(v < matrix[i][j] for v in values) + 0.5 * (sum(v == matrix[i][j] for v in values) - 1)
            total[i, j] += below / (len(off) - 1) / len(evidence)
    return (total + np.eye(IMAGES)).tolist()


def slowly(names):
    """The similarities by loops over images, one step after the other."""
    points, lengths = EMBEDDINGS.tolist(), [float(np.linalg.norm(row)) for row in EMBEDDINGS]
    raw, likeness, evidence = cosines(points), None, []
    for name in names:
        now = cosines(points) if likeness is None else likeness
        if name == "tta":
            points = MIRRORED.tolist()
        elif name == "query_expansion":
            points = averaged(points, 2, lambda rank, cosine: max(cosine, 0))
        elif name == "database_augmentation":
            points = averaged(points, 3, lambda rank, cosine: (3 - rank) / 4)
        elif name == "k_reciprocal":
            likeness = jaguar_kit.k_reciprocal_rerank(similarity=np.array(now), k1=4, k2=2).tolist()
        elif name == "blend":
            likeness = [[0.3 * a + 0.7 * b for a, b in zip(*rows)] for rows in zip(raw, now)]
        elif name == "posterior":
            likeness = named(points, lengths)
            evidence = [*(evidence or [now]), np.log(np.maximum(likeness, 1e-12)).tolist()]
        else:
            likeness, evidence = (ranked if name == "fuse by rank" else added)(evidence), []
    return np.array(cosines(points) if likeness is None else likeness)


@settings(max_examples=60, deadline=None)
@example(["tta", "posterior", "fuse"])
@example(["query_expansion", "posterior", "posterior", "fuse", "k_reciprocal", "blend"])
@example(["k_reciprocal", "posterior", "fuse by rank"])
@given(st.lists(st.sampled_from(STEPS), max_size=5))
def test_a_chain_that_is_taken_is_that_of_a_slow_evaluation_and_each_of_its_steps_counts(names):
    found = as_taken(names)
    if found is None:
        return
    ties = 0.03 if "fuse by rank" in names else 2e-6  # rounding may tell equals apart, which half a rank is between
    np.testing.assert_allclose(found, slowly(names), atol=ties)
    for number, name in enumerate(names):
        fewer = [*names[:number], *names[number + 1 :]]
        idle = name.startswith("fuse") or name == "posterior"  # without it the others are no chain
        if not idle and fewer != names and (less := as_taken(fewer)) is not None:
            assert not np.allclose(found, less, atol=1e-9), f"{name} of {names} changes nothing"


def rests_on(names):
    """The steps, by their numbers, that the result rests on; None where one goes back, or has nothing to work on."""
    points, likeness, evidence = set(), None, []
    for number, name in enumerate(names):
        now = points if likeness is None else likeness
        if name in ("tta", "query_expansion", "database_augmentation"):
            if likeness is not None:
                return None
            points = {number} if name == "tta" else {number, *points}
        elif name == "posterior":
            likeness, evidence = {number, *points}, [*(evidence or [now]), {number, *points}]
        elif name == "blend" and not now:
            return None
        elif name in ("k_reciprocal", "blend"):
            likeness = {number, *now}
        elif not evidence:
            return None
        else:
            likeness, evidence = set.union({number}, *evidence), []
    return points if likeness is None else likeness


@settings(max_examples=200, deadline=None)
@example(["tta", "tta"])
@example(["posterior", "k_reciprocal", "fuse"])
@given(st.lists(st.sampled_from(STEPS), max_size=5))
def test_a_chain_is_refused_only_where_it_goes_back_or_its_result_does_not_rest_on_every_step(names):
    found = rests_on(names)
    assert (as_taken(names) is not None) == (found == set(range(len(names))))
