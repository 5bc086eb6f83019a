"""Section 10: similarities, expansion, re-ranking, calibration, fusion and the steps of a recipe."""

import itertools

import jaguar_kit
import numpy as np
import pytest
import slow
import torch
from cases import every
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaguar_kit import Component, KitError, identity_balanced_map, similarity_matrix

PROPERTY = settings(deadline=None, max_examples=40)


def vectors(count=7, dim=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim))


def clusters(count=40, identities=6, dim=16, noise=0.6, seed=0):
    """Embeddings (N, D) around a centre for each identity, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(identities, size=count)
    return rng.normal(size=(identities, dim))[labels] + noise * rng.normal(size=(count, dim)), labels


# cosines


@PROPERTY
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 999))
def test_similarity_is_the_cosine(count, dim, seed):
    embeddings = vectors(count, dim, seed)
    np.testing.assert_allclose(similarity_matrix(embeddings), slow.cosines(embeddings), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_result_is_of_the_kind_that_was_given(dtype):
    embeddings = vectors().astype(dtype)
    array, tensor = similarity_matrix(embeddings), similarity_matrix(torch.from_numpy(embeddings))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.dtype == max(np.dtype(np.float32), np.dtype(dtype))
    for similarity in (array, tensor.numpy()):
        np.testing.assert_allclose(similarity, slow.cosines(embeddings), atol=1e-6)


def test_bfloat16_embeddings_are_accepted():
    embeddings = torch.from_numpy(vectors()).bfloat16()
    np.testing.assert_allclose(similarity_matrix(embeddings), slow.cosines(embeddings.double()), atol=1e-6)


def test_embeddings_that_learn_are_accepted():
    assert similarity_matrix(torch.eye(3).requires_grad_()).tolist() == np.eye(3).tolist()


def test_embeddings_of_a_read_only_file_are_accepted(tmp_path):
    np.save(tmp_path / "x.npy", vectors())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(similarity_matrix(mapped), slow.cosines(vectors()), atol=1e-12)


def test_queries_against_a_gallery_are_rows_against_columns():
    everything = vectors(9)
    np.testing.assert_allclose(
        similarity_matrix(everything[:3], everything[3:]), slow.cosines(everything)[:3, 3:], atol=1e-12
    )


def test_embedding_that_is_no_number_is_refused_with_its_place():
    embeddings = vectors()
    embeddings[4, 2] = np.nan
    with pytest.raises(KitError, match="embeddings: nan in row 4, column 2"):
        similarity_matrix(embeddings)


def test_lengths_of_embeddings_do_not_matter():
    lengths = np.array([[1e-6], [1e-3], [1], [2], [10], [1e3], [1e6]])
    np.testing.assert_allclose(similarity_matrix(lengths * vectors()), similarity_matrix(vectors()), atol=1e-6)


def test_embedding_of_length_zero_is_like_nothing():
    embeddings = vectors()
    embeddings[3] = 0
    similarity = similarity_matrix(embeddings)
    assert not similarity[3].any()
    assert not similarity[:, 3].any()
    assert np.isfinite(similarity).all()


def test_embeddings_are_not_changed():
    embeddings = vectors().astype(np.float32)
    kept = embeddings.copy()
    similarity_matrix(embeddings)
    assert np.array_equal(embeddings, kept)


# re-ranking


def assert_close(got, expected):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1e-6)


def test_query_expansion_is_that_of_the_slow_loops():
    for k in (1, 3, 50):
        for alpha in (0.0, 1.0, 3.0):
            embeddings = vectors(20)
            expected = slow.query_expansion(embeddings, k, alpha)
            assert_close(jaguar_kit.query_expansion(embeddings, k, alpha), expected)
            assert_close(jaguar_kit.query_expansion(torch.from_numpy(embeddings).float(), k, alpha), expected)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (1, 1), (5, 3), (7, 1), (5, 9), (60, 2)])
def test_re_ranking_is_that_of_the_slow_loops(k1, k2):
    for count in (2, 5, 30):
        check_re_ranking(count, k1, k2)


def check_re_ranking(count, k1, k2):
    embeddings = vectors(count, 4) + 2 * vectors(count, 4, seed=1)[np.arange(count) // 4]  # clusters of four
    similarity = slow.cosines(embeddings)
    expected = slow.k_reciprocal_rerank(similarity, k1, k2, 0.3)
    assert_close(jaguar_kit.k_reciprocal_rerank(embeddings, k1=k1, k2=k2), expected)
    assert_close(jaguar_kit.k_reciprocal_rerank(similarity=similarity, k1=k1, k2=k2), expected)


def test_re_ranking_weighs_the_original_distance():
    for weight in (0.0, 0.3, 1.0):
        embeddings = vectors(25)
        expected = slow.k_reciprocal_rerank(slow.cosines(embeddings), 6, 3, weight)
        assert_close(jaguar_kit.k_reciprocal_rerank(embeddings, k1=6, k2=3, lambda_value=weight), expected)


@pytest.mark.parametrize("queries", [1, 8, 24])
def test_re_ranking_of_queries_against_a_gallery_is_that_of_the_slow_loops(queries):
    embeddings = vectors(25)
    expected = slow.k_reciprocal_rerank_two_sets(embeddings[:queries], embeddings[queries:], 6, 3)
    got = jaguar_kit.k_reciprocal_rerank(embeddings[:queries], embeddings[queries:], k1=6, k2=3)
    assert got.shape == (queries, 25 - queries)
    assert_close(got, expected)
    similarity = slow.cosines(embeddings)
    assert_close(jaguar_kit.k_reciprocal_rerank(similarity=similarity, queries=queries, k1=6, k2=3), expected)


@PROPERTY
@given(st.integers(2, 10), st.integers(0, 999), st.integers(1, 8), st.integers(1, 9))
def test_re_ranking_orders_ties_like_the_slow_loops(count, seed, k1, k2):
    similarity = np.random.default_rng(seed).integers(-2, 4, (count, count)) / 4
    similarity = np.maximum(similarity, similarity.T)
    np.fill_diagonal(similarity, 1)
    expected = slow.k_reciprocal_rerank(similarity, k1, k2)
    assert_close(jaguar_kit.k_reciprocal_rerank(similarity=similarity, k1=k1, k2=k2), expected)


def test_images_that_are_all_alike_stay_all_alike():
    for count in (1, 2, 10):
        for seed in range(2):
            embeddings = np.repeat(vectors(1, 7, seed), count, axis=0).astype(np.float32)
            np.testing.assert_allclose(jaguar_kit.k_reciprocal_rerank(embeddings), np.ones((count, count)), atol=1e-5)


@PROPERTY
@given(st.integers(2, 25), st.integers(0, 999))
def test_re_ranking_does_not_depend_on_the_order_of_rows(count, seed):
    embeddings, order = vectors(count, 6, seed), np.random.default_rng(seed).permutation(count)
    result = jaguar_kit.k_reciprocal_rerank(embeddings, k1=5, k2=3)
    assert_close(jaguar_kit.k_reciprocal_rerank(embeddings[order], k1=5, k2=3), result[np.ix_(order, order)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_agree_and_come_back_as_they_were(dtype):
    embeddings = clusters()[0].astype(dtype)
    functions = [
        jaguar_kit.query_expansion,
        jaguar_kit.database_augmentation,
        jaguar_kit.k_reciprocal_rerank,
        lambda x: jaguar_kit.rank_average(similarity_matrix(x)),
        lambda x: jaguar_kit.shortlist_rescore(similarity_matrix(x), lambda q, c: (q + c) % 7, k=5),
    ]
    for function in functions:
        array, tensor = function(embeddings), function(torch.from_numpy(embeddings))
        assert isinstance(array, np.ndarray)
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(array, tensor.numpy())


def test_half_precision_is_computed_in_single():
    embeddings = clusters()[0]
    half = embeddings.astype(np.float16)
    assert_close(jaguar_kit.k_reciprocal_rerank(half), jaguar_kit.k_reciprocal_rerank(half.astype(np.float32)))


def test_what_is_no_number_is_refused_everywhere():
    embeddings = vectors()
    embeddings[2, 1] = np.inf
    for function in (jaguar_kit.query_expansion, jaguar_kit.database_augmentation, jaguar_kit.k_reciprocal_rerank):
        with pytest.raises(KitError, match="inf in row 2, column 1"):
            function(embeddings)


def test_re_ranking_refuses_what_it_can_not_do():
    for wrong in ({"k1": 0}, {"k2": 0}, {"lambda_value": 1.5}, {"queries": 7}):
        with pytest.raises(KitError, match="k_reciprocal_rerank"):
            jaguar_kit.k_reciprocal_rerank(similarity=np.eye(7), **wrong)


def test_re_ranking_helps_where_neighbours_tell_more_than_pairs():
    embeddings, labels = clusters(120, 10, 12, noise=1.1, seed=3)
    raw = identity_balanced_map(similarity_matrix(embeddings), labels)
    assert identity_balanced_map(jaguar_kit.k_reciprocal_rerank(embeddings, k1=8, k2=4), labels) > raw + 0.05


@PROPERTY
@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 40), st.integers(0, 99))
def test_top_k_is_the_head_of_a_full_sort(queries, gallery, k, seed):
    first, second = vectors(queries, 4, seed), vectors(gallery, 4, seed + 1)
    if k > gallery:
        with pytest.raises(jaguar_kit.KitError, match=f"k: {k} is out of range"):
            jaguar_kit.top_k(first, second, k)
        return
    values, positions = jaguar_kit.top_k(first, second, k)
    full = similarity_matrix(first, second)
    assert positions.shape == (queries, k)
    np.testing.assert_allclose(values, -np.sort(-full, axis=1)[:, :k], atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(full, positions, 1), values, atol=1e-12)


def test_top_k_works_in_blocks_that_hold_few_similarities(monkeypatch):
    first, second = vectors(50, 4), vectors(60, 4, seed=1)
    whole = jaguar_kit.top_k(first, second, 5)
    monkeypatch.setattr(jaguar_kit, "BLOCK_SIZE", 130)
    for expected, got in zip(whole, jaguar_kit.top_k(first, second, 5)):
        np.testing.assert_allclose(expected, got, atol=1e-12)


def test_small_blocks_change_no_result(monkeypatch):
    embeddings, labels = clusters()
    similarity = similarity_matrix(embeddings)
    whole = [jaguar_kit.k_reciprocal_rerank(embeddings), jaguar_kit.average_precision(similarity, labels)]
    monkeypatch.setattr(jaguar_kit, "BLOCK_SIZE", 100)
    monkeypatch.setattr(jaguar_kit, "MEETINGS", 50)
    assert_close(jaguar_kit.k_reciprocal_rerank(embeddings), whole[0])
    assert_close(jaguar_kit.average_precision(similarity, labels), whole[1])


def test_database_augmentation_weighs_neighbours_by_rank():
    unit = slow.unit_rows(vectors(9))
    cosines = unit @ unit.T
    expected = []
    for i in range(9):
        others = sorted((j for j in range(9) if j != i), key=lambda j, i=i: -cosines[i, j])
        expected.append(unit[i] + 2 / 3 * unit[others[0]] + 1 / 3 * unit[others[1]])
    assert_close(jaguar_kit.database_augmentation(vectors(9), k=2), slow.unit_rows(np.array(expected)))


# other geometries


def in_a_ball(count=20, dim=4, seed=0):
    """Embeddings of all lengths up to the rim, and one beyond it, in clusters of four."""
    rows = vectors(count, dim, seed) + 2 * vectors(count, dim, seed + 1)[np.arange(count) // 4]
    lengths = np.random.default_rng(seed).permutation(np.linspace(0.05, 0.99, count))
    rows *= (lengths / np.linalg.norm(rows, axis=1))[:, None]
    rows[0] *= 3 / np.linalg.norm(rows[0])
    return rows


@pytest.mark.parametrize("space", slow.SPACES)
def test_similarity_in_another_geometry_is_that_of_its_distance(space):
    embeddings, geometry = in_a_ball(), jaguar_kit.build("geometry", space)
    expected = slow.space_similarities(embeddings, embeddings, space)
    assert_close(similarity_matrix(embeddings, geometry=geometry), expected)
    assert_close(similarity_matrix(embeddings[:3], embeddings[3:], geometry), expected[:3, 3:])
    single = similarity_matrix(torch.from_numpy(embeddings).float(), geometry=geometry)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", slow.SPACES)
def test_top_k_in_another_geometry_is_that_of_its_distance(space):
    everything = in_a_ball(25)
    queries, gallery = everything[:7], everything[7:]
    values, positions = jaguar_kit.top_k(queries, gallery, 5, jaguar_kit.build("geometry", space))
    similarity = slow.space_similarities(queries, gallery, space)
    for i, row in enumerate(similarity):
        best = sorted(range(len(row)), key=lambda j, row=row: -row[j])[:5]
        assert positions[i].tolist() == best
        assert_close(values[i], row[best])


@pytest.mark.parametrize("space", slow.SPACES)
def test_query_expansion_in_another_geometry_is_that_of_the_slow_loops(space):
    embeddings, geometry = in_a_ball(), jaguar_kit.build("geometry", space)
    for k, alpha in itertools.product((1, 3, 50), (0.0, 3.0)):
        weigh = lambda rank, s, alpha=alpha: max(s, 0.0) ** alpha  # noqa: E731
        expected = slow.space_average_with_nearest(embeddings, k, weigh, space)
        assert_close(jaguar_kit.query_expansion(embeddings, k, alpha, geometry), expected)


@pytest.mark.parametrize("space", slow.SPACES)
def test_database_augmentation_in_another_geometry_is_that_of_the_slow_loops(space):
    embeddings, geometry = in_a_ball(), jaguar_kit.build("geometry", space)
    for k in (1, 3):
        weigh = lambda rank, s, k=k: (k + 1 - rank) / (k + 1)  # noqa: E731
        expected = slow.space_average_with_nearest(embeddings, k, weigh, space)
        assert_close(jaguar_kit.database_augmentation(embeddings, k, geometry), expected)


@pytest.mark.parametrize("space", slow.SPACES)
def test_re_ranking_in_another_geometry_starts_from_its_squared_distance(space):
    embeddings, geometry = in_a_ball(24), jaguar_kit.build("geometry", space)
    expected = slow.k_reciprocal_rerank(slow.space_similarities(embeddings, embeddings, space), 6, 3)
    assert_close(jaguar_kit.k_reciprocal_rerank(embeddings, k1=6, k2=3, geometry=geometry), expected)
    two_sets = jaguar_kit.k_reciprocal_rerank(embeddings[:9], embeddings[9:], k1=6, k2=3, geometry=geometry)
    assert_close(two_sets, expected[:9, 9:])


@pytest.mark.parametrize("name", ["cosine", "hyperspherical"])
def test_geometries_of_directions_are_the_usual_cosine(name):
    embeddings, geometry = vectors(20), jaguar_kit.build("geometry", name)
    for function in (
        similarity_matrix,
        jaguar_kit.query_expansion,
        jaguar_kit.database_augmentation,
        jaguar_kit.k_reciprocal_rerank,
    ):
        assert np.array_equal(function(embeddings, geometry=geometry), function(embeddings))
    for got, expected in zip(
        jaguar_kit.top_k(embeddings[:5], embeddings, 4, geometry), jaguar_kit.top_k(embeddings[:5], embeddings, 4)
    ):
        assert np.array_equal(got, expected)


# blending, calibration, fusion


def test_blend_is_the_weighted_mean():
    raw, reranked = vectors(4, 4), vectors(4, 4, seed=1)
    np.testing.assert_allclose(jaguar_kit.blend(raw, reranked, 0.2), 0.2 * raw + 0.8 * reranked)
    with pytest.raises(KitError, match="raw_weight"):
        jaguar_kit.blend(raw, reranked, 1.2)


@PROPERTY
@given(st.integers(2, 12), st.integers(0, 999))
def test_rank_average_sees_only_the_order_of_each_matrix(count, seed):
    first, second = vectors(count, count, seed), vectors(count, count, seed + 1)
    mean = jaguar_kit.rank_average(first, second)
    np.testing.assert_allclose(mean, jaguar_kit.rank_average(np.exp(first), 5 * second - 3))
    np.testing.assert_allclose(np.diag(mean), 1)
    assert mean.min() >= 0
    assert mean.max() <= 1


def test_rank_average_by_hand():
    first = np.array([[9.0, 0.1, 0.4], [0.2, 9.0, 0.3], [0.2, 0.9, 9.0]])
    expected = np.array([[1, 0, 4 / 5], [1.5 / 5, 1, 3 / 5], [1.5 / 5, 1, 1]])
    np.testing.assert_allclose(jaguar_kit.rank_average(first), expected)


@pytest.mark.parametrize("kind", ["isotonic", "logistic"])
def test_calibrated_scores_keep_their_order_and_become_probabilities(kind):
    rng = np.random.default_rng(0)
    same = rng.uniform(size=4000) < 0.3
    scores = rng.normal(same * 1.5, 1.0)
    calibrator = jaguar_kit.fit_calibration(scores, same, kind)
    new = np.linspace(-9, 9, 2001)
    probability = calibrator(new)
    assert (np.diff(probability) > 0).all()
    assert probability.min() >= 0
    assert probability.max() <= 1
    fitted = calibrator(scores)
    for low in (0.1, 0.3, 0.5):
        among = (fitted >= low) & (fitted < low + 0.2)
        assert abs(same[among].mean() - fitted[among].mean()) < 0.05


def test_isotonic_calibration_is_that_of_pooled_violators_up_to_the_plateaus_slope():
    scores, same = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 1, 0, 0, 1, 1])
    fitted = jaguar_kit.fit_calibration(scores, same)(scores)
    np.testing.assert_allclose(fitted, [0, 1 / 3, 1 / 3, 1 / 3, 1, 1], atol=1e-3)


@every(("scores", "same"), [([1.0, 2.0], [True, True]), ([1.0, np.nan], [True, False]), ([1.0], [True, False])])
def test_calibration_needs_pairs_of_both_kinds(scores, same):
    with pytest.raises(KitError, match="fit_calibration"):
        jaguar_kit.fit_calibration(scores, same)


def test_fusing_two_weak_scores_beats_each():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 12
    same = labels[:, None] == labels
    pairs = ~np.eye(60, dtype=bool)
    scores = [same + rng.normal(size=(60, 60)), 100 * np.exp(same + rng.normal(size=(60, 60)))]
    calibrators = [jaguar_kit.fit_calibration(score[pairs], same[pairs]) for score in scores]
    fused = identity_balanced_map(jaguar_kit.fuse(scores, calibrators), labels)
    assert fused > max(identity_balanced_map(score, labels) for score in scores) + 0.05
    with pytest.raises(KitError, match="one for each"):
        jaguar_kit.fuse(scores, calibrators[:1])


@PROPERTY
@given(st.integers(3, 15), st.integers(2, 20), st.integers(0, 999))
def test_shortlist_is_reordered_by_the_pair_function_and_stays_in_front(count, k, seed):
    similarity = similarity_matrix(vectors(count, 4, seed))
    pair_scores = vectors(count, count, seed + 1)
    result = jaguar_kit.shortlist_rescore(similarity, lambda q, c: pair_scores[q, c], k)
    for i in range(count):
        others = [j for j in np.argsort(-similarity[i], kind="stable") if j != i]
        short, rest = others[:k], others[k:]
        assume(len(set(pair_scores[i, short])) == len(short))
        assert sorted(short, key=lambda j, i=i: -result[i, j]) == sorted(short, key=lambda j, i=i: -pair_scores[i, j])
        np.testing.assert_array_equal(result[i, rest], similarity[i, rest])
        assert not rest or result[i, short].min() >= result[i, rest].max() - 1e-12


# steps of a recipe


def steps(*names, **settings_of_last):
    parts = [Component("postprocess", name) for name in names]
    return (*parts[:-1], Component("postprocess", names[-1], settings_of_last)) if settings_of_last else tuple(parts)


def no_views(scales, flip):
    raise AssertionError("no step asked for other views")


def test_steps_are_applied_in_order():
    embeddings = torch.from_numpy(vectors(20, 6))
    got = jaguar_kit.postprocess(
        steps("query_expansion", "k_reciprocal", "blend", raw_weight=0.4), embeddings, no_views
    )
    reranked = jaguar_kit.k_reciprocal_rerank(jaguar_kit.query_expansion(embeddings))
    assert_close(got, 0.4 * similarity_matrix(embeddings) + 0.6 * reranked)
    assert_close(jaguar_kit.postprocess((), embeddings, no_views), similarity_matrix(embeddings))


@pytest.mark.parametrize("space", slow.SPACES)
def test_steps_compare_embeddings_by_their_geometry(space):
    embeddings, geometry = torch.from_numpy(in_a_ball()), jaguar_kit.build("geometry", space)
    views = slow.brought_inside(in_a_ball(seed=2), space)
    names = ("tta", "database_augmentation", "k_reciprocal", "blend")
    got = jaguar_kit.postprocess(steps(*names), embeddings, lambda scales, flip: torch.from_numpy(views), geometry)
    averaged = slow.space_average_with_nearest(views, 3, lambda rank, s: (4 - rank) / 4, space)
    reranked = slow.k_reciprocal_rerank(slow.space_similarities(averaged, averaged, space))
    assert_close(got, 0.2 * slow.space_similarities(embeddings, embeddings, space) + 0.8 * reranked)
    raw = jaguar_kit.postprocess((), embeddings, no_views, geometry)
    assert_close(raw, slow.space_similarities(embeddings, embeddings, space))


def with_views(embeddings, views=None):
    """What steps look at: embeddings, and the same or others from views of the images."""
    seen = embeddings if views is None else views
    return jaguar_kit.Retrieval.of(embeddings, lambda scales, flip: torch.as_tensor(seen))


def test_auto_begins_with_views_and_leaves_them_only_for_what_gains_over_them():
    embeddings, labels = clusters(120, 12, 12, noise=0.8, seed=3)
    shuffled = np.random.default_rng(0).permutation(embeddings)
    misled = jaguar_kit.choose_steps(steps("auto"), with_views(torch.from_numpy(embeddings), shuffled), labels)
    used, views = (next(row for row in misled.rows if test(row)) for test in (lambda r: r["used"], is_tta))
    assert [row["used"] for row in misled.rows].count(True) == 1
    assert "tta" not in used["steps"]
    assert used["map"] > views["map"] + 0.1
    apart, labels = torch.eye(12).repeat_interleave(4, 0), np.repeat(np.arange(12), 4)
    chosen = jaguar_kit.choose_steps(steps("auto"), with_views(apart), labels)
    assert chosen.parts == steps("tta")


def is_tta(row):
    return row["steps"] == "tta"


def test_fixed_steps_are_used_even_when_they_lose():
    embeddings, labels = clusters()
    shuffled = np.random.default_rng(0).permutation(embeddings)
    chosen = jaguar_kit.choose_steps(steps("tta"), with_views(embeddings, shuffled), labels)
    assert chosen.parts == steps("tta")
    assert chosen.rows[1]["used"]
    assert chosen.rows[1]["gain"] < 0


@every("wrong", [["k_reciprocal", "query_expansion"], ["query_expansion", "tta"], ["auto", "tta"]])
def test_steps_that_go_back_are_refused(wrong):
    with pytest.raises(KitError, match="postprocess"):
        jaguar_kit.recipe_from_dict({"name": "x", "postprocess": wrong})


# views


def mean_colour(images):
    """An embedding that tells where in the image the light is."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


def test_flip_tta_is_the_mean_of_both_unit_embeddings_of_batches_of_one_shape():
    calls, images = [], torch.rand(3, 3, 16, 16)

    def network(batch):
        calls.append(len(batch))
        return mean_colour(batch)

    normalize = torch.nn.functional.normalize
    expected = normalize(normalize(mean_colour(images)) + normalize(mean_colour(images.flip(-1))))
    assert torch.allclose(jaguar_kit.flip_tta(network, images), expected, atol=1e-6)
    assert calls == [3, 3]


def test_flip_tta_makes_mirrored_images_alike():
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(
        jaguar_kit.flip_tta(mean_colour, images), jaguar_kit.flip_tta(mean_colour, images.flip(-1)), atol=1e-6
    )


def test_scales_zoom_about_the_centre():
    images = torch.zeros(1, 1, 32, 32)
    images[..., 12:20, 12:20] = 1
    closer, farther = jaguar_kit.zoom(images, 2.0), jaguar_kit.zoom(images, 0.5)
    assert closer.sum() == pytest.approx(4 * 64, rel=0.1)
    assert farther.sum() == pytest.approx(64 / 4, rel=0.1)
    assert closer[0, 0, 15, 15] == farther[0, 0, 15, 15] == 1
    assert jaguar_kit.multi_scale_tta(mean_colour, images, (0.5, 1, 2)).shape == (1, 16)


@pytest.mark.parametrize("space", slow.SPACES)
def test_views_are_averaged_in_the_tangent_space_of_their_geometry(space):
    images, geometry = torch.rand(3, 3, 16, 16), jaguar_kit.build("geometry", space)
    views = [jaguar_kit.zoom(images, scale) for scale in (1.0, 0.5)]
    views += [view.flip(-1) for view in views]

    def network(batch):
        return mean_colour(batch) - 0.4

    points = [slow.brought_inside(network(view), space) for view in views]
    expected = [
        slow.exponential(sum(slow.tangent(view[i], space) for view in points) / len(points), space)
        for i in range(len(images))
    ]
    got = jaguar_kit.multi_scale_tta(network, images, (1.0, 0.5), geometry=geometry)
    np.testing.assert_allclose(got, np.array(expected), rtol=0, atol=1e-5)
    flipped = jaguar_kit.flip_tta(network, images, geometry)
    torch.testing.assert_close(flipped, jaguar_kit.multi_scale_tta(network, images, (1.0,), geometry=geometry))


@pytest.mark.parametrize("name", ["cosine", "hyperspherical"])
def test_views_of_directions_are_averaged_as_ever(name):
    images, geometry = torch.rand(2, 3, 16, 16), jaguar_kit.build("geometry", name)
    got = jaguar_kit.multi_scale_tta(mean_colour, images, geometry=geometry)
    assert torch.equal(got, jaguar_kit.multi_scale_tta(mean_colour, images))


# arguments that would say nothing


def test_re_ranking_ignores_no_argument():
    for arguments, words in (
        ({"similarity": np.eye(7), "gallery": np.eye(7)}, r"gallery= says nothing with similarity="),
        ({"similarity": np.eye(7), "geometry": jaguar_kit.build("geometry", "euclidean")}, "geometry= says nothing"),
        ({"embeddings": np.eye(7), "gallery": np.eye(7), "queries": 3}, "queries= says nothing with gallery="),
        ({"embeddings": np.eye(7), "similarity": np.eye(7)}, "give either"),
        ({}, "give either"),
    ):
        with pytest.raises(KitError, match=words):
            jaguar_kit.k_reciprocal_rerank(**arguments)


def test_more_neighbours_than_there_are_are_refused():
    for k, expected in ((0, "at least 1"), (-1, "at least 1"), (4, "1 to 3, the size of the gallery")):
        with pytest.raises(KitError, match=rf"top_k: k: {k} is out of range \(expected {expected}\)"):
            jaguar_kit.top_k(np.eye(3), np.eye(3), k)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list])
def test_steps_by_name_work_on_plain_embeddings(kind):
    embeddings = vectors(12, 4)
    given = kind(embeddings.tolist() if kind is list else embeddings)
    got = jaguar_kit.postprocess(["query_expansion", {"name": "k_reciprocal", "k1": 5}], given)
    expected = jaguar_kit.k_reciprocal_rerank(jaguar_kit.query_expansion(embeddings), k1=5)
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-6)
    assert isinstance(got, torch.Tensor) == (kind is torch.tensor)


def test_steps_that_can_not_be_taken_are_one_line():
    for steps, words in (
        (["tta"], "tta looks at the images again"),
        (["auto"], "auto needs labelled images"),
        (["k_reciprocal", "query_expansion"], "out of order"),
        (["k_recip"], "did you mean 'k_reciprocal'"),
        ([3], "names no postprocess"),
        (7, "is not a list"),
    ):
        with pytest.raises(KitError, match=words):
            jaguar_kit.postprocess(steps, np.eye(4))


@every(
    "call",
    [
        lambda: jaguar_kit.blend(np.eye(3), np.eye(4), 0.5),
        lambda: jaguar_kit.blend([[1.0, 0.0]], [[1.0]], 0.5),
        lambda: jaguar_kit.rank_average(np.eye(3), np.eye(4)),
        lambda: jaguar_kit.rank_average(),
        lambda: jaguar_kit.fuse([np.eye(3), np.eye(4)], [lambda x: x, lambda x: x]),
    ],
)
def test_matrices_of_several_shapes_are_one_line(call):
    with pytest.raises(KitError, match="expected matrices of one shape"):
        call()


def test_blend_takes_lists_as_they_are():
    np.testing.assert_allclose(jaguar_kit.blend([[1.0, 0.0]], [[0.0, 1.0]], 0.25), [[0.25, 0.75]])


@every("given", [[[1.0, 2.0], [3.0]], "abc", [["a", "b"]], [1.0, 2.0], None])
def test_what_is_no_matrix_is_one_line(given):
    for function in (jaguar_kit.query_expansion, jaguar_kit.similarity_matrix, jaguar_kit.database_augmentation):
        with pytest.raises(KitError, match="embeddings: "):
            function(given)


def test_auto_demands_more_the_more_it_tries(monkeypatch):
    """The interval of each candidate beside raw leaves 0.05 through their number outside; that of one step 0.05."""
    asked, interval = set(), jaguar_kit.interval_over_identities

    def watched(values, codes, level):
        asked.add(round(level, 9))
        return interval(values, codes, level)

    monkeypatch.setattr(jaguar_kit, "interval_over_identities", watched)
    embeddings, labels = clusters()
    tried = jaguar_kit.choose_steps(steps("auto"), with_views(embeddings), labels).rows
    assert asked == {round(1 - 0.05 / (len(tried) - 1), 9)}
    asked.clear()
    jaguar_kit.choose_steps(steps("k_reciprocal"), embeddings, labels)
    assert asked == {0.95}


@pytest.mark.slow
def test_auto_finds_gains_in_noise_in_one_of_twenty_choices_at_most():
    """Embeddings without any structure: whatever a step brings is chance."""
    found, tries = 0, 40
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        embeddings, labels = rng.normal(size=(48, 6)), np.repeat(np.arange(12), 4)
        views = embeddings + 0.3 * rng.normal(size=embeddings.shape)
        found += bool(jaguar_kit.choose_steps(steps("auto"), with_views(embeddings, views), labels).parts)
    assert found <= 5  # of 40: more has a probability below 0.02 at a rate of 0.05


@every(
    "call",
    [
        lambda: jaguar_kit.query_expansion(np.eye(4), alpha=-1),
        lambda: jaguar_kit.query_expansion(np.eye(4), k=-1),
        lambda: jaguar_kit.query_expansion(np.eye(4), k=2.5),
        lambda: jaguar_kit.database_augmentation(np.eye(4), k=-3),
        lambda: jaguar_kit.shortlist_rescore(np.eye(4), lambda q, c: c, k=-1),
        lambda: jaguar_kit.top_k(np.eye(4), np.eye(4), 2.0),
        lambda: jaguar_kit.nearest_identities(np.eye(2), ["a", "b"], k=-1),
        lambda: jaguar_kit.k_reciprocal_rerank(similarity=3 * np.eye(4)),
        lambda: jaguar_kit.fit_calibration([0.1, 0.2, 0.3], [0, 1, 2]),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call):
    with pytest.raises(KitError):
        call()


def test_a_shortlist_of_equals_is_ordered_by_the_other_scores():
    similarity = np.array([[1.0, 0.5, 0.5, 0.2], [0.5, 1.0, 0.5, 0.2], [0.5, 0.5, 1.0, 0.2], [0.2, 0.2, 0.2, 1.0]])
    found = jaguar_kit.shortlist_rescore(similarity, lambda queries, candidates: candidates, k=2)
    assert found[0, 2] > found[0, 1] > found[0, 3], "what is on no shortlist stays behind"


def settings_of_all_kinds(whole, number):
    """What the functions of this section make of their settings, written as `whole` and `number` write them."""
    embeddings, labels = clusters(count=24, identities=12, seed=1)
    similarity, views = np.asarray(similarity_matrix(embeddings)), torch.linspace(0, 1, 384).view(2, 3, 8, 8)
    pairs = {"over": "queries", "rounds": whole(20), "seed": whole(1), "level": number(0.75)}
    return [
        jaguar_kit.top_k(embeddings, embeddings, whole(2))[1],
        jaguar_kit.query_expansion(embeddings, whole(2), number(2)),
        jaguar_kit.database_augmentation(embeddings, k=whole(2)),
        jaguar_kit.k_reciprocal_rerank(embeddings, k1=whole(3), k2=whole(2), lambda_value=number(0.25)),
        jaguar_kit.blend(similarity, similarity.T**2, number(0.25)),
        jaguar_kit.shortlist_rescore(similarity, lambda queries, candidates: candidates, k=whole(3)),
        jaguar_kit.closed_set_posterior(embeddings, temperature=number(0.5)),
        jaguar_kit.bootstrap_interval(similarity, labels, **pairs),
        jaguar_kit.multi_scale_tta(lambda x: x.flatten(1), views, [number(1.0), number(0.75)]),
        jaguar_kit.embed(lambda x: x.flatten(1), views, batch_size=whole(1)),
        jaguar_kit.build("loss", "arcface", embedding_dim=4, num_identities=whole(3), margin=number(0.25)).margin,
    ]


@pytest.mark.parametrize(
    ("whole", "number"),
    [(np.int64, np.float32), (np.uint8, np.float64), (int, str)],
    ids=["numpy", "other numpy", "numbers as text"],
)
def test_a_setting_means_the_same_however_its_number_is_written(whole, number):
    for found, expected in zip(settings_of_all_kinds(whole, number), settings_of_all_kinds(int, float), strict=True):
        np.testing.assert_array_equal(found, expected)


@every(
    ("call", "words"),
    [
        (lambda: jaguar_kit.k_reciprocal_rerank(np.eye(4), k1=None), "^k_reciprocal_rerank: k1: None is not a whole"),
        (
            lambda: jaguar_kit.k_reciprocal_rerank(np.eye(4), lambda_value=2),
            r"^k_reciprocal_rerank: lambda_value: 2\.0",
        ),
        (lambda: jaguar_kit.closed_set_posterior(np.eye(4), temperature="cold"), "temperature: 'cold' is not a number"),
        (lambda: jaguar_kit.bootstrap_interval(np.eye(4), list("aabb"), seed=None), "^bootstrap_interval: seed: None"),
        (lambda: jaguar_kit.fit_calibration([0.1, 0.2], [0, 1], "isotonc"), "did you mean 'isotonic'"),
        (lambda: jaguar_kit.blend(np.eye(2), np.eye(2), "much"), "^blend: raw_weight: 'much' is not a number"),
    ],
)
def test_a_setting_that_is_none_is_told_with_its_function(call, words):
    with pytest.raises(KitError, match=words):
        call()


def test_re_ranking_takes_no_distances_for_similarities():
    distances = torch.cdist(torch.eye(4), torch.eye(4)).numpy()
    for told in (-distances, distances):
        with pytest.raises(KitError, match=r"^similarity: "):
            jaguar_kit.k_reciprocal_rerank(similarity=told)
    with pytest.raises(KitError, match=r"an image has -?0 with itself \(expected 1; is it a distance\?\)$"):
        jaguar_kit.k_reciprocal_rerank(similarity=-distances)
