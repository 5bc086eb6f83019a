"""Retrieval metrics against slow loops, scikit-learn, and cases worked out by hand."""

import math
from itertools import permutations

import jaguar_kit
import numpy as np
import pytest
import slow
import torch
from cases import every
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, average_precision, chance_map, identity_balanced_map, retrieval_metrics
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

PROPERTY = settings(deadline=None, max_examples=50)
SHARES = ("map", "retrieval_map", "top1", "pair_auc", "pair_ap", "cmc@1", "cmc@5", "cmc@10", "minp")
SCORES = (*SHARES, "fnmr@0.001", "fnmr@0.01", "fnmr@0.1")


@st.composite
def sets(draw, least=1, most=9, identities=4):
    """Similarities with many ties (eighths, so exact in float16), and labels."""
    size = draw(st.integers(least, most))
    eighths = draw(st.lists(st.integers(-8, 8), min_size=size * size, max_size=size * size))
    labels = draw(st.lists(st.sampled_from("abcdef"[:identities]), min_size=size, max_size=size))
    return np.array(eighths, np.float64).reshape(size, size) / 8, labels


def random_set(size=40, identities=7, seed=0):
    rng = np.random.default_rng(seed)
    return jaguar_kit.similarity_matrix(rng.normal(size=(size, 5))), rng.integers(0, identities, size)


def assert_same_metrics(got, expected, rel=1e-12):
    for name in SCORES:
        assert got[name] == pytest.approx(expected[name], rel=rel, nan_ok=True), name
    assert got["per_identity"] == pytest.approx(expected["per_identity"], rel=rel)


# against the references


@PROPERTY
@given(sets())
def test_average_precision_is_that_of_the_slow_loops(given_set):
    np.testing.assert_allclose(average_precision(*given_set), slow.average_precision(*given_set), rtol=1e-12)


@PROPERTY
@given(sets(), st.sampled_from([0, 32]), st.sampled_from([20, 1 << 18]))
def test_what_a_gpu_counts_is_what_the_slow_loops_count(given_set, few, cache_size):
    expected = jaguar_kit.score_queries(jaguar_kit.compare(*given_set))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit, "FEW_POSITIVES", few)
        patch.setattr(jaguar_kit, "CACHE_SIZE", cache_size)
        patch.setattr(jaguar_kit, "count_at_least", jaguar_kit.count_in_bins)
        found = jaguar_kit.score_queries(jaguar_kit.compare(*given_set))
    np.testing.assert_allclose(found.precision, slow.average_precision(*given_set), rtol=1e-12)
    np.testing.assert_array_equal(found.first, expected.first)
    np.testing.assert_array_equal(found.last, expected.last)


@PROPERTY
@given(sets())
def test_average_precision_is_that_of_scikit_learn(given_set):
    similarity, labels = given_set
    labels = np.array(labels)
    for query, value in enumerate(average_precision(similarity, labels)):
        others = np.arange(len(labels)) != query
        positive = labels[others] == labels[query]
        if positive.any():
            assert value == pytest.approx(average_precision_score(positive, similarity[query, others]), rel=1e-12)
        else:
            assert math.isnan(value)


@PROPERTY
@given(sets())
def test_all_metrics_are_those_of_the_slow_loops(given_set):
    assert_same_metrics(retrieval_metrics(*given_set), slow.retrieval_metrics(*given_set))


@PROPERTY
@given(sets(), st.data())
def test_pairs_of_one_encounter_count_as_the_slow_loops_leave_them_out(given_set, data):
    similarity, labels = given_set
    encounters = data.draw(st.lists(st.integers(0, 4), min_size=len(labels), max_size=len(labels)))
    expected = slow.retrieval_metrics(similarity, labels, encounters)
    assert_same_metrics(retrieval_metrics(similarity, labels, encounters), expected)
    assert identity_balanced_map(similarity, labels, encounters) == pytest.approx(expected["map"], nan_ok=True)


@PROPERTY
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=5), st.data())
def test_chance_is_the_mean_over_all_orders(labels, data):
    labels = np.array(labels)
    encounters = data.draw(st.none() | st.lists(st.integers(0, 2), min_size=len(labels), max_size=len(labels)))
    encounters = None if encounters is None else np.array(encounters)
    orders = [np.tile(order, (len(labels), 1)) / 8 for order in permutations(range(len(labels)))]
    by_order = [identity_balanced_map(order, labels, encounters) for order in orders]
    assert chance_map(labels, encounters) == pytest.approx(np.mean(by_order), nan_ok=True)


@PROPERTY
@given(st.data())
def test_queries_and_a_gallery_are_scored_as_the_slow_loops_do(data):
    queries, images = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    eighths = data.draw(st.lists(st.integers(-8, 8), min_size=queries * images, max_size=queries * images))
    similarity = np.array(eighths, np.float64).reshape(queries, images) / 8
    labels, gallery = (data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)) for n in (queries, images))
    assume(set(labels) & set(gallery))
    assert_same_metrics(
        retrieval_metrics(similarity, labels, gallery_labels=gallery),
        slow.retrieval_metrics(similarity, labels, None, gallery),
    )
    met, gallery_met = (data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for n in (queries, images))
    assert_same_metrics(
        retrieval_metrics(similarity, labels, met, gallery, gallery_met),
        slow.retrieval_metrics(similarity, labels, met, gallery, gallery_met),
    )


@PROPERTY
@given(sets())
def test_encounters_of_one_image_each_change_nothing(given_set):
    similarity, labels = given_set
    alone = [f"met {i}" for i in range(len(labels))]
    assert_same_metrics(retrieval_metrics(similarity, labels, alone), retrieval_metrics(similarity, labels))


def test_an_encounter_worked_out_by_hand():
    similarity = np.array([[1, 0.9, 0.3, 0.5], [0.9, 1, 0.2, 0.1], [0.3, 0.2, 1, 0.4], [0.5, 0.1, 0.4, 1.0]])
    labels, encounters = ["a", "a", "a", "b"], ["monday", "monday", "friday", "friday"]
    # The first finds only the third, behind b; the second finds it at once; the third has the first before the second.
    assert average_precision(similarity, labels, encounters)[:3].tolist() == [0.5, 1.0, 1.0]
    told = {"encounters": encounters, "over": "queries", "rounds": 4000}
    assert jaguar_kit.bootstrap_interval(similarity, labels, **told) == pytest.approx((0.5, 1.0), abs=0.17)
    assert np.isnan(jaguar_kit.bootstrap_interval(similarity, labels, encounters=encounters)).all()


@every(
    ("told", "message"),
    [
        ({"encounters": [1, 2]}, "encounters: 2 for 3 images"),
        ({"gallery_encounters": [1, 2, 3]}, "gallery_encounters: expected where"),
        ({"gallery_labels": list("abc"), "encounters": [1, 2, 3]}, "gallery_encounters: expected where"),
        ({"gallery_labels": list("ab")}, "does not fit 3 and 2 labels"),
        ({"encounters": [1, None, 3]}, "encounters: row 1 has none"),
    ],
)
def test_encounters_that_do_not_fit_are_one_line(told, message):
    with pytest.raises(KitError, match=message):
        retrieval_metrics(np.eye(3), list("aab"), **told)


@PROPERTY
@given(sets())
def test_identity_balanced_map_is_that_of_the_slow_loops(given_set):
    assert identity_balanced_map(*given_set) == pytest.approx(
        slow.identity_balanced_map(*given_set), rel=1e-12, nan_ok=True
    )


@PROPERTY
@given(sets(least=2))
def test_pair_scores_are_those_of_scikit_learn(given_set):
    similarity, labels = given_set
    labels = np.array(labels)
    pairs = ~np.eye(len(labels), dtype=bool)
    same, scores = (labels[:, None] == labels)[pairs], similarity[pairs]
    auc, ap = (retrieval_metrics(similarity, labels)[name] for name in ("pair_auc", "pair_ap"))
    if same.all() or not same.any():
        assert math.isnan(auc)
        assert math.isnan(ap)
    else:
        assert auc == pytest.approx(roc_auc_score(same, scores), rel=1e-12)
        assert ap == pytest.approx(average_precision_score(same, scores), rel=1e-12)


def test_real_cosines_agree_with_the_slow_loops():
    similarity, labels = random_set()
    assert_same_metrics(retrieval_metrics(similarity, labels), slow.retrieval_metrics(similarity, labels))


# properties


@PROPERTY
@given(sets(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(given_set, random):
    similarity, labels = given_set
    order = random.sample(range(len(labels)), len(labels))
    shuffled = similarity[np.ix_(order, order)]
    expected = retrieval_metrics(similarity, labels)
    assert_same_metrics(retrieval_metrics(shuffled, [labels[i] for i in order]), expected)
    np.testing.assert_allclose(
        average_precision(shuffled, [labels[i] for i in order]), average_precision(similarity, labels)[order]
    )


@PROPERTY
@given(sets(most=5), st.data())
def test_duplicate_images_are_scored_as_the_slow_loops_do(given_set, data):
    similarity, labels = given_set
    rows = data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=2, max_size=8))
    doubled, names = similarity[np.ix_(rows, rows)], [labels[i] for i in rows]
    assert_same_metrics(retrieval_metrics(doubled, names), slow.retrieval_metrics(doubled, names))


@PROPERTY
@given(sets())
def test_only_the_order_of_similarities_matters(given_set):
    similarity, labels = given_set
    assert_same_metrics(retrieval_metrics(np.exp(3 * similarity), labels), retrieval_metrics(similarity, labels))


@PROPERTY
@given(sets())
def test_similarity_of_an_image_to_itself_does_not_matter(given_set):
    similarity, labels = given_set
    changed = similarity.copy()
    np.fill_diagonal(changed, -1e6)
    assert_same_metrics(retrieval_metrics(changed, labels), retrieval_metrics(similarity, labels))


@PROPERTY
@given(sets())
def test_names_of_identities_do_not_matter(given_set):
    similarity, labels = given_set
    numbers = [9 - "abcdef".index(label) for label in labels]
    got, expected = retrieval_metrics(similarity, numbers), retrieval_metrics(similarity, labels)
    assert [got[s] for s in SCORES] == pytest.approx([expected[s] for s in SCORES], nan_ok=True)
    assert {str(9 - "abcdef".index(k)): v for k, v in expected["per_identity"].items()} == pytest.approx(
        got["per_identity"]
    )


@PROPERTY
@given(sets(least=2, identities=1))
def test_one_identity_has_every_query_right_and_no_pairs_of_two(given_set):
    metrics = retrieval_metrics(*given_set)
    between = [name for name in SCORES if name.startswith(("pair", "fnmr"))]
    assert all(math.isnan(metrics[name]) for name in between)
    assert all(metrics[name] == 1 for name in SCORES if name not in between)


@PROPERTY
@given(sets())
def test_all_types_of_numbers_agree(given_set):
    similarity, labels = given_set
    expected = retrieval_metrics(similarity, labels)
    codes = ["abcdef".index(label) for label in labels]
    named = {**expected, "per_identity": {str("abcdef".index(k)): v for k, v in expected["per_identity"].items()}}
    for dtype in (np.float16, np.float32, np.float64):
        assert_same_metrics(retrieval_metrics(similarity.astype(dtype), labels), expected)
        assert_same_metrics(retrieval_metrics(torch.from_numpy(similarity.astype(dtype)), torch.tensor(codes)), named)
    assert_same_metrics(retrieval_metrics(similarity.tolist(), np.array(labels)), expected)
    assert_same_metrics(retrieval_metrics((8 * similarity).astype(int), labels), expected)


def test_bfloat16_is_accepted():
    similarity = torch.tensor([[1, 0.5, 0.25], [0.5, 1, 0.75], [0.25, 0.75, 1]]).bfloat16()
    assert identity_balanced_map(similarity, list("aab")) == pytest.approx((1 + 1 / 2) / 2)


def test_tensor_that_learns_is_accepted():
    similarity = torch.eye(4).requires_grad_()
    assert identity_balanced_map(similarity, torch.tensor([0, 0, 1, 1])) == pytest.approx(1 / 3)


def test_inputs_are_not_changed():
    similarity, labels = random_set(12)
    kept = similarity.copy(), labels.copy()
    retrieval_metrics(similarity, labels)
    assert np.array_equal(similarity, kept[0])
    assert np.array_equal(labels, kept[1])


# by hand


def test_average_precision_of_a_query_worked_out_by_hand():
    similarity = np.zeros((5, 5))
    similarity[0] = [1.0, 0.9, 0.8, 0.7, 0.6]  # retrieved: right, wrong, right, wrong
    assert average_precision(similarity, list("aabac"))[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_tied_images_are_retrieved_together():
    similarity = np.zeros((4, 4))
    similarity[0] = [1.0, 0.9, 0.9, 0.1]  # right and wrong at once, then right
    assert average_precision(similarity, list("aaba"))[0] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_all_tied_is_the_share_of_positives():
    np.testing.assert_allclose(average_precision(np.ones((4, 4)), list("aaab")), [2 / 3, 2 / 3, 2 / 3, math.nan])


def test_rows_are_queries():
    similarity = np.array([[1, 0.9, 0.1], [0.1, 1, 0.9], [0.5, 0.5, 1]])
    assert average_precision(similarity, list("aab"))[:2].tolist() == [1.0, 0.5]


def test_identities_count_alike_however_many_images_they_have():
    similarity = np.zeros((5, 5))
    similarity[:3, :3] = 1.0  # three queries of a: AP 1
    similarity[3, :3] = similarity[4, :3] = 0.5  # two queries of b: the other one comes last, AP 1 / 4
    labels = list("aaabb")
    assert identity_balanced_map(similarity, labels) == pytest.approx((1 + 1 / 4) / 2)
    assert retrieval_metrics(similarity, labels)["retrieval_map"] == pytest.approx((3 * 1 + 2 / 4) / 5)


def test_identity_with_one_image_is_no_query_but_stays_in_the_gallery():
    similarity = np.array([[1, 0.2, 0.9], [0.9, 1, 0.2], [0.5, 0.5, 1]])
    metrics = retrieval_metrics(similarity, list("aab"))
    assert metrics["map"] == pytest.approx((0.5 + 1) / 2)
    assert metrics["top1"] == 0.5
    assert metrics["per_identity"].keys() == {"a"}
    assert math.isnan(average_precision(similarity, list("aab"))[2])


@pytest.mark.parametrize("labels", ["abcd", "a"])
def test_nothing_to_score_is_nan(labels):
    similarity = np.eye(len(labels))
    assert math.isnan(identity_balanced_map(similarity, list(labels)))
    metrics = retrieval_metrics(similarity, list(labels))
    assert all(math.isnan(metrics[s]) for s in SCORES)
    assert metrics["per_identity"] == {}


def test_empty_set_is_nan():
    assert math.isnan(identity_balanced_map(np.zeros((0, 0)), []))


def test_first_place_shared_with_another_identity_is_a_miss():
    similarity = np.zeros((3, 3))
    similarity[0] = [1.0, 0.5, 0.5]
    similarity[1] = [0.6, 1.0, 0.5]
    assert retrieval_metrics(similarity, list("aab"))["top1"] == 0.5


def test_ranks_worked_out_by_hand():
    similarity = np.zeros((8, 8))
    similarity[0] = [1.0, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6, 0.5]  # the first positive is the sixth, the last the seventh
    similarity[1] = [0.9, 1.0, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1]
    similarity[2] = [0.9, 0.1, 1.0, 0.8, 0.1, 0.0, 0.0, 0.0]  # the last positive ties for the third and fourth place
    metrics = retrieval_metrics(similarity, list("aaabcdef"))
    assert metrics["cmc@1"] == metrics["cmc@5"] == pytest.approx(2 / 3)
    assert metrics["cmc@10"] == 1
    assert metrics["minp"] == pytest.approx((2 / 7 + 2 / 2 + 2 / 4) / 3)


def test_missed_pairs_at_a_false_match_rate_worked_out_by_hand():
    labels = [0, 0, 0, *range(1, 20)]  # 6 ordered pairs of one identity, 456 of two
    similarity = np.full((22, 22), -1.0)
    similarity[0, 1:3], similarity[1, [0, 2]], similarity[2, :2] = 0.95, 0.85, 0.5
    similarity[3, 4:8] = 0.9  # four of the 456 may pass at 0.01, none at 0.001
    similarity[3, 8] = 0.8
    metrics = retrieval_metrics(similarity, labels)
    assert metrics["fnmr@0.001"] == pytest.approx(4 / 6)
    assert metrics["fnmr@0.01"] == pytest.approx(2 / 6)
    assert metrics["fnmr@0.1"] == 0


@every("rate", [0.001, 0.01, 0.1])
@every("others", [1, 3, 30, 290, 1000, 5700, 29000])
def test_share_of_false_matches_is_counted_exactly(rate, others):
    allowed = others // round(1 / rate)
    positives, negatives = np.arange(others) + 0.5, np.arange(others, dtype=float)
    got = jaguar_kit.verification_metrics(positives, negatives)[f"fnmr@{rate:g}"]
    assert got == pytest.approx((others - 1 - allowed) / others)


def test_perfect_and_worst_similarities():
    labels = np.repeat(np.arange(3), 4)
    perfect = (labels[:, None] == labels).astype(float)
    best, worst = retrieval_metrics(perfect, labels), retrieval_metrics(-perfect, labels)
    assert [best[s] for s in SCORES] == [1.0] * len(SHARES) + [0.0] * 3
    assert [worst[s] for s in ("top1", "cmc@5", "pair_auc", "fnmr@0.1")] == [0.0, 0.0, 0.0, 1.0]
    three_of_eleven = pytest.approx(3 / 11)  # all at the end at once
    assert worst["map"] == three_of_eleven
    assert worst["minp"] == three_of_eleven


def test_map_of_identities_is_told_one_by_one():
    similarity, labels = random_set()
    metrics = retrieval_metrics(similarity, labels)
    assert np.mean(list(metrics["per_identity"].values())) == pytest.approx(metrics["map"])
    assert all(type(value) is float for name, value in metrics.items() if name in SCORES)


# refusals


@every("score", [average_precision, identity_balanced_map, retrieval_metrics])
@every("value", [math.nan, math.inf, -math.inf])
@every("kind", [np.asarray, torch.as_tensor])
def test_similarity_that_is_no_number_is_refused_with_its_place(score, value, kind):
    similarity = np.eye(4)
    similarity[2, 1] = value
    with pytest.raises(KitError, match="row 2, column 1"):
        score(kind(similarity), list("aabb"))


@every("score", [average_precision, identity_balanced_map, retrieval_metrics])
@every("shape", [(3, 3), (5, 5), (4, 3), (4,), (4, 4, 1)])
def test_shape_that_does_not_fit_the_labels_is_refused(score, shape):
    with pytest.raises(KitError, match="shape"):
        score(np.zeros(shape), list("aabb"))


def test_similarity_that_is_text_is_refused():
    with pytest.raises(KitError, match="similarity"):
        identity_balanced_map([["high", "low"], ["low", "high"]], list("aa"))


# intervals


def clustered(count=60, identities=8, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(identities, size=count)
    embeddings = rng.normal(size=(identities, 10))[labels] + noise * rng.normal(size=(count, 10))
    return jaguar_kit.similarity_matrix(embeddings), labels


@pytest.mark.parametrize("over", ["identities", "queries"])
def test_bootstrap_interval_holds_the_estimate_and_is_repeatable(over):
    similarity, labels = clustered(identities=14)
    low, high = jaguar_kit.bootstrap_interval(similarity, labels, over=over)
    assert low < jaguar_kit.identity_balanced_map(similarity, labels) < high
    assert (low, high) == jaguar_kit.bootstrap_interval(similarity, labels, over=over)
    narrow = jaguar_kit.bootstrap_interval(similarity, labels, over=over, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_an_interval_over_identities_is_that_of_their_mean_by_student():
    similarity, labels = clustered(identities=14)
    means = list(slow.per_identity(similarity, labels).values())
    expected = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert jaguar_kit.bootstrap_interval(similarity, labels) == pytest.approx(expected)


def test_below_ten_identities_there_is_no_interval():
    for identities in (9, 10):
        labels = np.repeat(np.arange(identities), 3)
        similarity = np.random.default_rng(0).random((len(labels), len(labels)))
        found = jaguar_kit.bootstrap_interval(similarity, labels)
        assert np.isnan(found).all() == (identities < jaguar_kit.FEWEST), identities


def levels_and_gains(identities: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean AP of identities whose truth is 0.286 on average, skewed, of two to sixty queries each; and gains of mean 0,
    heavy-tailed and skewed, measured with noise."""
    rng = np.random.default_rng((identities, seed))
    images = rng.lognormal(1.6, 0.8, identities).round().clip(2, 60).astype(int)
    truth = rng.beta(1.2, 3.0, identities)
    levels = [rng.beta(6 * m + 1e-3, 6 * (1 - m) + 1e-3, n).mean() for m, n in zip(truth, images)]
    change = 0.06 * rng.standard_t(4, identities) + rng.gamma(0.5, 0.1, identities) - 0.05
    return np.array(levels), np.array([rng.normal(c, 0.15, n).mean() for c, n in zip(change, images)])


@pytest.mark.parametrize("identities", [48, 20, 12])
def test_intervals_over_identities_hold_the_truth_as_often_as_they_say(identities):
    """2,000 simulations each; what 95 % is said of holds in 93 to 97 %, and at most 6 % of no gains look like one."""
    levels, gains = map(np.array, zip(*(levels_and_gains(identities, seed) for seed in range(2000))))
    for values, truth in ((levels, 1.2 / 4.2), (gains, 0.0)):
        low, high = np.array([jaguar_kit.mean_interval(row, fewest=10) for row in values]).T
        assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97
    assert np.mean(low > 0) <= 0.06


def test_interval_of_a_difference_is_paired():
    similarity, labels = clustered(identities=14)
    worse = similarity + 0.05 * np.random.default_rng(0).normal(size=similarity.shape)
    assert jaguar_kit.bootstrap_interval(similarity, labels, baseline=similarity) == (0, 0)
    low, high = jaguar_kit.bootstrap_interval(similarity, labels, baseline=worse)
    alone = jaguar_kit.bootstrap_interval(similarity, labels)
    assert high - low < alone[1] - alone[0]


def test_interval_without_anything_to_score_is_not_a_number():
    assert all(np.isnan(jaguar_kit.bootstrap_interval(np.eye(3), [1, 2, 3])))
    with pytest.raises(jaguar_kit.KitError, match="over: 'images'"):
        jaguar_kit.bootstrap_interval(np.eye(3), [1, 1, 2], over="images")


# labels that are missing


@every(
    "labels",
    [
        ["a", None, "a"],
        [1.0, math.nan, 1.0],
        np.array(["a", np.nan, "a"], object),
        ["a", math.nan, "a"],
        [math.nan] * 3,
        [None] * 3,
    ],
)
@every("function", [average_precision, identity_balanced_map, retrieval_metrics, jaguar_kit.bootstrap_interval])
def test_a_missing_label_is_no_individual(function, labels):
    with pytest.raises(KitError, match=r"labels: row \d has none"):
        function(np.eye(3), labels)


@every("labels", [[["a", "b"]], 3, "ab"])
def test_labels_that_are_no_list_are_one_line(labels):
    with pytest.raises(KitError, match=r"^labels: shape .* is no list"):
        identity_balanced_map(np.eye(2), labels)


@every("settings", [{"rounds": 0}, {"rounds": -1}, {"level": 1.5}, {"level": 0}, {"over": "all"}])
def test_an_interval_that_there_is_not_is_one_line(settings):
    with pytest.raises(KitError, match=r"^bootstrap_interval: "):
        jaguar_kit.bootstrap_interval(np.eye(4), ["a", "a", "b", "b"], **settings)


@pytest.mark.parametrize("geometry", [None, "poincare"])
def test_rows_of_similarities_score_as_their_matrix_does(geometry):
    rng = np.random.default_rng(3)
    points, labels, met = 0.2 * rng.normal(size=(40, 3)), rng.integers(0, 6, 40), rng.integers(0, 15, 40)
    points[7] = points[21]
    space = geometry and jaguar_kit.build("geometry", geometry)
    rows, matrix = (f(points, geometry=space) for f in (jaguar_kit.similarity_rows, jaguar_kit.similarity_matrix))
    np.testing.assert_allclose(average_precision(rows, labels, met), average_precision(matrix, labels, met))
    assert identity_balanced_map(rows, labels) == pytest.approx(identity_balanced_map(matrix, labels))
    with pytest.raises(KitError, match="identity_balanced_map takes rows"):
        retrieval_metrics(rows, labels)
    with pytest.raises(KitError, match="does not fit 39 labels"):
        average_precision(rows, labels[1:])


def test_a_matrix_that_no_memory_holds_names_what_does_without_one():
    for function in (jaguar_kit.similarity_matrix, jaguar_kit.closed_set_posterior):
        with pytest.raises(KitError, match=r"400,000 x 400,000 take 596 GiB.*top_k gives the nearest.*similarity_rows"):
            function(np.zeros((400_000, 2), np.float32))


def test_labels_are_compared_by_what_they_mean():
    """Whole floats are numbers, and blanks around a name are none of it; nothing in common is an error."""
    similarity = np.random.default_rng(0).random((4, 6))
    gallery = ["1", "2", "1", "2", "1", "2"]
    expected = identity_balanced_map(similarity, ["1", "2", "1", "2"], gallery_labels=gallery)
    for labels in ([1, 2, 1, 2], [1.0, 2.0, 1.0, 2.0], np.array([1, 2, 1, 2], ">f8"), ["1 ", "2", " 1", "2"]):
        assert identity_balanced_map(similarity, labels, gallery_labels=gallery) == expected
    with pytest.raises(KitError, match="such as '1' there and 'a' here"):
        identity_balanced_map(similarity, ["a", "b", "a", "b"], gallery_labels=gallery)
