"""Quality signals, near-duplicates, pairs and curation: against slow loops, scikit-learn and cases made by hand."""

import math

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import slow
from cases import every
from jaguar_kit import (
    Component,
    PairSimilarity,
    connected_groups,
    curate,
    duplicate_pairs,
    keep_sharpest,
    pair_decisions,
)
from jaguar_kit_tools.experiments.analysis import recovered
from PIL import Image
from sklearn.metrics import confusion_matrix


def smooth_image(seed, side=64):
    """A random image without fine detail, uint8 (side, side, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def unit_vectors(count=20, dim=6, seed=0):
    return slow.unit_rows(np.random.default_rng(seed).normal(size=(count, dim)))


def build(name, **settings):
    return Component("duplicates", name, settings)


# quality


def gray_of(pixel):
    return 0.299 * float(pixel[0]) + 0.587 * float(pixel[1]) + 0.114 * float(pixel[2])


def slow_quality(image):
    """Sharpness, brightness, contrast, foreground and ratio of one image, pixel by pixel."""
    side = len(image)
    inside = [(y, x) for y in range(side) for x in range(side) if image.shape[2] == 3 or image[y, x, 3] > 0]
    inside = inside or [(y, x) for y in range(side) for x in range(side)]

    def gray(y, x):  # mirrored at the border, the border itself not repeated
        y, x = (abs(v) if v < side else 2 * (side - 1) - v for v in (y, x))
        return gray_of(image[y, x])

    laplacian = [gray(y - 1, x) + gray(y + 1, x) + gray(y, x - 1) + gray(y, x + 1) - 4 * gray(y, x) for y, x in inside]
    levels = [gray(y, x) for y, x in inside]
    share = len(inside) / side**2
    return [np.var(laplacian), np.mean(levels), np.std(levels), share, share / max(1 - share, 1e-6)]


@pytest.mark.parametrize("channels", [3, 4])
def test_quality_follows_from_a_loop_over_pixels(channels):
    pixels = np.random.default_rng(channels).integers(0, 256, (3, 9, 9, channels)).astype(np.uint8)
    np.testing.assert_allclose(jaguar_kit.quality_signals(pixels), [slow_quality(p) for p in pixels], rtol=1e-9)


def test_an_empty_mask_counts_as_none():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 4)).astype(np.uint8)
    image[..., 3] = 0
    told = jaguar_kit.quality_signals(image)
    pd.testing.assert_frame_equal(told, jaguar_kit.quality_signals(image[..., :3]))


def test_what_is_behind_the_animal_does_not_count():
    image = np.zeros((1, 12, 12, 4), np.uint8)
    image[0, 4:8, 4:8] = (100, 100, 100, 255)
    other = image.copy()
    other[0, 0, 0] = (255, 0, 255, 0)
    pd.testing.assert_frame_equal(jaguar_kit.quality_signals(image), jaguar_kit.quality_signals(other))
    told = jaguar_kit.quality_signals(image).iloc[0]
    assert told.brightness == pytest.approx(100)
    assert told.contrast == pytest.approx(0)
    assert told.ratio == pytest.approx(16 / 128)


def scaled(values):
    return [(v - min(values)) / (max(values) - min(values)) for v in values]


@every("seed", range(3))
def test_representativeness_is_the_cosine_with_the_mean_of_the_identity(seed):
    vectors, names = unit_vectors(seed=seed), np.array(list("aaaaaaaabbbbbbbccccd"))
    values = []
    for vector, name in zip(vectors, names):
        centre = np.mean([v for v, other in zip(vectors, names) if other == name], axis=0)
        values.append(vector @ centre / np.linalg.norm(centre))
    got = jaguar_kit.representativeness(vectors @ vectors.T, names)
    np.testing.assert_allclose(got, scaled(values), atol=1e-9)


@every("count", [2, 4, 20])
def test_uniqueness_is_the_mean_distance_to_the_three_nearest(count):
    vectors = unit_vectors(count)
    values = []
    for i in range(count):
        distances = sorted(1 - vectors[i] @ vectors[j] for j in range(count) if j != i)[:3]
        values.append(np.mean(distances))
    expected = scaled(values) if count > 2 else [0, 0]
    np.testing.assert_allclose(jaguar_kit.uniqueness(vectors @ vectors.T), expected, atol=1e-9)


# near-duplicates


@pytest.fixture(scope="module")
def likeness():
    """0 and 1 are equal, 2 has a little noise; 4 is 3 shifted by a pixel; 5 and 6 stand alone."""
    first, second = smooth_image(0), smooth_image(1)
    noise = np.random.default_rng(9).integers(-3, 4, first.shape)
    noisy = np.clip(first.astype(int) + noise, 0, 255).astype(np.uint8)
    pixels = [first, first, noisy, second, np.roll(second, 1, axis=1), smooth_image(2), smooth_image(3)]
    centres = np.eye(5)[[0, 0, 0, 1, 1, 2, 3]]
    vectors = slow.unit_rows(centres + 0.03 * np.random.default_rng(0).normal(size=centres.shape))
    vectors[1] = vectors[0]
    return PairSimilarity(np.stack(pixels), vectors @ vectors.T)


ALIKE = {(0, 1), (0, 2), (1, 2), (3, 4)}


@pytest.mark.parametrize("name", jaguar_kit.registered("duplicates"))
def test_every_method_finds_the_images_made_alike(name, likeness):
    pairs = duplicate_pairs(build(name), likeness, np.full(7, "a"))
    assert set(map(tuple, pairs)) == ({(0, 1)} if name == "exact_hash" else ALIKE)


@every("name", jaguar_kit.registered("duplicates"))
def test_pairs_lie_above_the_diagonal_once(name, likeness):
    pairs = duplicate_pairs(build(name), likeness, np.full(7, "a"), "across")
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(set(map(tuple, pairs))) == len(pairs)


def test_scope_tells_whether_pairs_of_two_identities_count(likeness):
    names = np.array(list("aabccdd"))
    within = duplicate_pairs(build("embedding"), likeness, names, "within")
    across = duplicate_pairs(build("embedding"), likeness, names, "across")
    assert set(map(tuple, within)) == {(0, 1), (3, 4)}
    assert set(map(tuple, across)) == ALIKE


def test_hash_distance_counts_bits(likeness):
    bits = jaguar_kit.perceptual_hashes(likeness.pixels)
    expected = [[sum(a != b for a, b in zip(one, other)) for other in bits] for one in bits]
    assert likeness.hash_distance.tolist() == expected


@every("threshold", [-0.5, 0.0, 0.3, 0.7])
def test_embedding_pairs_are_those_above_the_threshold(threshold):
    vectors = unit_vectors(12, 3)
    likeness = PairSimilarity(np.zeros((12, 8, 8, 3), np.uint8), vectors @ vectors.T)
    pairs = duplicate_pairs(build("embedding", threshold=threshold), likeness, np.arange(12), "across")
    expected = {(i, j) for i in range(12) for j in range(i + 1, 12) if vectors[i] @ vectors[j] > threshold}
    assert set(map(tuple, pairs)) == expected


@pytest.mark.parametrize("k", [1, 3, 50])
def test_knn_graph_wants_both_near_each_other(k):
    vectors = unit_vectors(12, 3)
    cosines = vectors @ vectors.T
    likeness = PairSimilarity(np.zeros((12, 8, 8, 3), np.uint8), cosines)

    def near(i, j):
        return j in sorted((o for o in range(12) if o != i), key=lambda o: -cosines[i, o])[:k]

    pairs = duplicate_pairs(build("knn_graph", k=k, threshold=0.2), likeness, np.zeros(12), "across")
    expected = {
        (i, j)
        for i in range(12)
        for j in range(i + 1, 12)
        if near(i, j) and near(j, i) and cosines[i, j] > 0.2
    }  # fmt: skip
    assert set(map(tuple, pairs)) == expected


def slow_clusters(cosines, threshold):
    """Average linkage: the two groups with the highest mean cosine are joined, while it reaches the threshold."""
    groups = [[i] for i in range(len(cosines))]
    while len(groups) > 1:
        mean, a, b = max(
            (np.mean([cosines[i][j] for i in groups[a] for j in groups[b]]), a, b)
            for a in range(len(groups))
            for b in range(a)
        )
        if mean < threshold:
            break
        groups[b] += groups.pop(a)
    return {tuple(sorted(group)) for group in groups}


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_clustering_is_average_linkage(threshold):
    vectors = unit_vectors(12, 3)
    same = build("clustering", threshold=threshold)(
        PairSimilarity(np.zeros((12, 8, 8, 3), np.uint8), vectors @ vectors.T)
    )
    assert {tuple(np.flatnonzero(row)) for row in same} == slow_clusters(vectors @ vectors.T, threshold)


def test_hashes_find_the_bursts_of_the_mini_dataset(mini):
    train = jaguar_kit.load_competition(mini).train
    views = pd.read_csv(mini / "views.csv").set_index("path").loc[train.path]
    bursts = jaguar_kit.column_groups(views.burst)
    store = jaguar_kit.open_store(mini, list(train.path), 128)
    likeness = PairSimilarity(store.pixels, np.eye(len(train)))
    pairs = duplicate_pairs(build("perceptual_hash"), likeness, train.identity.to_numpy(str))
    told = recovered(pairs, bursts)
    truth = {(i, j) for j in range(len(bursts)) for i in range(j) if bursts[i] == bursts[j]}
    found = set(map(tuple, pairs))
    assert told["precision"] == pytest.approx(len(found & truth) / len(found))
    assert told["recall"] == pytest.approx(len(found & truth) / len(truth))
    assert told["precision"] > 0.9
    assert told["recall"] > 0.9


def slow_groups(pairs, total):
    groups = [{i} for i in range(total)]
    for i, j in pairs:
        joined = groups[i] | groups[j]
        for member in joined:
            groups[member] = joined
    return {tuple(sorted(group)) for group in groups}


@every("count", [0, 1, 8, 30])
def test_groups_are_what_pairs_connect(count):
    pairs = np.random.default_rng(count).integers(0, 20, (count, 2))
    groups = connected_groups(pairs, 20)
    assert {tuple(np.flatnonzero(groups == g)) for g in groups} == slow_groups(pairs, 20)


@every("seed", range(5))
def test_of_each_group_the_sharpest_stays(seed):
    rng = np.random.default_rng(seed)
    groups, sharpness = rng.integers(0, 6, 15), rng.integers(0, 4, 15).astype(float)
    kept = keep_sharpest(groups, sharpness)
    for g in set(groups):
        members = [i for i in range(15) if groups[i] == g]
        assert [i for i in members if kept[i]] == [max(members, key=lambda i: (sharpness[i], -i))]


# pairs


@every("seed", range(3))
def test_decisions_on_pairs_agree_with_a_loop_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    names, vectors = rng.integers(0, 4, 15), np.round(unit_vectors(15, 3, seed), 1)
    cosines = vectors @ vectors.T
    same = [names[i] == names[j] for i in range(15) for j in range(i + 1, 15)]
    values = [cosines[i, j] for i in range(15) for j in range(i + 1, 15)]
    table = pair_decisions(cosines, names, [-0.2, 0.3, 0.8])
    for row, threshold in zip(table.to_dict("records"), [-0.2, 0.3, 0.8]):
        above = [value > threshold for value in values]
        apart, wrong, missed, hit = confusion_matrix(same, above, labels=[False, True]).ravel()
        assert row["threshold"] == threshold
        assert (row["same identity"], row["across identities"]) == (hit, wrong)
        assert (row["missed"], row["rightly apart"]) == (missed, apart)
        assert row["pairs above"] == sum(above)
        assert row["fdr"] == pytest.approx(sum(a and not s for a, s in zip(above, same)) / sum(above))


def test_without_pairs_above_there_is_no_false_discovery_rate():
    assert math.isnan(pair_decisions(np.eye(3), np.array(list("aab")), [0.5]).fdr[0])


# curation


@pytest.fixture(scope="module")
def case():
    """Signals, vectors and identities of 20 images: 12 of a (0 and 1 equal, 2 blurred), 4 of b (12 odd), 4 of c."""
    names = np.array(list("a" * 12 + "bbbb" + "cccc"))
    vectors = np.zeros((20, 23))
    for i, name in enumerate(names):
        vectors[i, "abc".index(name)] = 1  # towards its identity
        vectors[i, 3 + i] = 0.5 + 0.02 * i  # and towards its own
    vectors[12] = np.eye(23)[15]
    vectors[0] = vectors[1]
    sharpness = 100.0 + 7 * np.arange(20) % 20
    sharpness[[0, 1, 2]] = [100, 130, 1]
    return pd.DataFrame({"sharpness": sharpness, "contrast": 40.0}), slow.unit_rows(vectors), names


@pytest.fixture(scope="module")
def curated(case):
    signals, vectors, names = case
    return curate(signals, vectors @ vectors.T, names)


def test_each_stage_takes_what_it_says(curated):
    by_reason = {name: set(np.flatnonzero(curated.reason == name)) for name in set(curated.reason)}
    assert by_reason["near-duplicate"] == {0}
    assert by_reason["quality"] == {2}
    assert by_reason["untypical"] == {12}
    assert len(by_reason["too many"]) == 2  # 10, 3 and 4 are left: at most 5.67 + 3.09 of each
    assert by_reason["too many"] <= set(range(12))


def test_the_least_valuable_of_an_identity_go(case, curated):
    names, signals = case[2], curated.signals
    left = [i for i in range(20) if curated.reason[i] in ("", "too many") and names[i] == "a"]

    def rank(column, i):  # the share of images that are not above it; ties share the mean of their places
        below = sum(signals[column][j] < signals[column][i] for j in left)
        alike = sum(signals[column][j] == signals[column][i] for j in left)
        return (below + (alike + 1) / 2) / len(left)

    weights = {"representativeness": 0.5, "uniqueness": 0.3, "sharpness": 0.2}
    value = {i: sum(w * rank(column, i) for column, w in weights.items()) for i in left}
    assert {i: signals.value[i] for i in left} == pytest.approx(value)
    gone = [i for i in left if curated.reason[i]]
    assert max(value[i] for i in gone) <= min(value[i] for i in left if i not in gone)


def test_reasons_partition_what_is_removed(curated):
    assert ((curated.reason == "") == curated.kept).all()
    for row in curated.stages.itertuples():
        assert row.removed == (curated.reason == row.stage).sum()


def test_counts_of_the_stages_add_up(curated):
    left = 20 - curated.stages.removed.cumsum()
    assert curated.stages.left.tolist() == left.tolist()
    assert left.iloc[-1] == curated.kept.sum() == 15
    assert list(curated.stages.stage) == ["near-duplicate", "quality", "untypical", "too many"]


def test_low_contrast_is_bad_quality_too(case):
    signals, vectors, names = case
    contrast = np.full(20, 40.0)
    contrast[7] = 2
    done = curate(signals.assign(contrast=contrast), vectors @ vectors.T, names)
    assert set(np.flatnonzero(done.reason == "quality")) == {2, 7}


def test_images_of_two_identities_are_no_duplicates_of_each_other(case):
    signals, vectors, names = case
    vectors = vectors.copy()
    vectors[16] = vectors[13]
    assert set(np.flatnonzero(curate(signals, vectors @ vectors.T, names).reason == "near-duplicate")) == {0}


def test_curation_without_limits_takes_only_the_surplus(case):
    signals, vectors, names = case
    done = curate(signals, vectors @ vectors.T, names, duplicate=1.0, quality=0, typical=0)
    assert set(done.reason) == {"", "too many"}
