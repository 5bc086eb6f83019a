"""Cosines, embedding in batches, and features that are computed once."""

from dataclasses import replace

import numpy as np
import pytest
import slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jaguar_kit
from jaguar_kit import Component, ImageStore, KitError, ModelConfig, Preparation, Recipe, embed, similarity_matrix

PROPERTY = settings(deadline=None, max_examples=40)
CPU = torch.device("cpu")


def vectors(count=7, dim=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim))


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


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_query_expansion_is_that_of_the_slow_loops(k, alpha):
    embeddings = vectors(20)
    expected = slow.query_expansion(embeddings, k, alpha)
    assert_close(jaguar_kit.query_expansion(embeddings, k, alpha), expected)
    assert_close(jaguar_kit.query_expansion(torch.from_numpy(embeddings).float(), k, alpha), expected)


@pytest.mark.parametrize("count", [2, 5, 30])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (1, 1), (5, 3), (7, 1), (5, 9), (60, 2)])
def test_re_ranking_is_that_of_the_slow_loops(count, k1, k2):
    embeddings = vectors(count, 4) + 2 * vectors(count, 4, seed=1)[np.arange(count) // 4]  # clusters of four
    similarity = slow.cosines(embeddings)
    expected = slow.k_reciprocal_rerank(similarity, k1, k2, 0.3)
    assert_close(jaguar_kit.k_reciprocal_rerank(embeddings, k1=k1, k2=k2), expected)
    assert_close(jaguar_kit.k_reciprocal_rerank(similarity=similarity, k1=k1, k2=k2), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_re_ranking_weighs_the_original_distance(weight):
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


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("seed", range(2))
def test_pictures_that_are_all_alike_stay_all_alike(count, seed):
    embeddings = np.repeat(vectors(1, 7, seed), count, axis=0).astype(np.float32)
    np.testing.assert_allclose(jaguar_kit.k_reciprocal_rerank(embeddings), np.ones((count, count)), atol=1e-5)


# embed


def numbers(positions, training):
    """A source whose pictures are their own positions."""
    assert training is False
    return torch.as_tensor(positions, dtype=torch.float64)[:, None]


@PROPERTY
@given(st.lists(st.integers(0, 99), min_size=1, max_size=40), st.integers(1, 45))
def test_rows_come_in_the_order_of_positions_whatever_the_batch(positions, batch_size):
    rows = embed(lambda x: torch.cat([x, 2 * x], 1), numbers, np.array(positions), batch_size)
    assert rows.tolist() == [[p, 2 * p] for p in positions]


def test_batches_are_no_larger_than_asked():
    seen = []

    def network(x):
        seen.append(len(x))
        return x

    embed(network, numbers, np.arange(10), batch_size=4)
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_result_is_float32_on_the_cpu_without_gradient(dtype):
    layer = nn.Linear(1, 3, dtype=dtype)
    rows = embed(lambda x: layer(x.to(dtype)), numbers, np.arange(5))
    assert rows.shape == (5, 3)
    assert rows.dtype == torch.float32
    assert rows.device == CPU
    assert not rows.requires_grad


# sources and cached features


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def store():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 4), dtype=np.uint8)
    return ImageStore(pixels, key="six random pictures")


RECIPE = Recipe("features", model=ModelConfig("test_resnet", pretrained=False, input_size=32))


class Counting:
    """cached_features with a count of the pictures that went through the backbone."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, store, recipe=RECIPE, seed=0, size=None):
        torch.manual_seed(seed)
        self.embedder = jaguar_kit.build_embedder(recipe.model)
        forward_features = self.embedder.backbone.forward_features

        def counted(images):
            self.pictures += len(images)
            return forward_features(images)

        self.embedder.backbone.forward_features = counted
        prepare = Preparation(recipe.background, (), size or recipe.model.input_size, (0.5,) * 3, (0.5,) * 3)
        self.source = jaguar_kit.PixelSource(store, prepare, CPU)
        return jaguar_kit.cached_features(self.embedder, self.source, recipe)


def test_pixel_source_prepares_the_pictures_at_its_positions(store):
    prepare = Preparation(Component("background", "black"), (), 32, (0.5,) * 3, (0.5,) * 3)
    source = jaguar_kit.PixelSource(store, prepare, CPU)
    pixels = torch.from_numpy(store.pixels[[4, 1]]).permute(0, 3, 1, 2)
    torch.testing.assert_close(source(np.array([4, 1]), training=False), prepare(pixels, training=False))


def test_features_are_the_pooled_outputs_of_every_picture(cache, store):
    cached = Counting()
    features = cached(store).features
    assert cached.pictures == 6
    with torch.no_grad():
        expected = cached.embedder.eval().pooled(cached.source(np.arange(6), training=False))
    torch.testing.assert_close(features, expected)


def test_features_of_positions_come_in_their_order(cache, store):
    source = Counting()(store)
    for training in (True, False):
        assert torch.equal(source(np.array([5, 0, 3]), training), source.features[[5, 0, 3]])


def test_cached_features_are_used_again(cache, store):
    first, second = Counting(), Counting()
    features, again = first(store).features, second(store).features
    assert (first.pictures, second.pictures) == (6, 0)
    assert torch.equal(features, again)


def test_one_set_of_features_is_one_file(cache, store):
    Counting()(store)
    assert [path.suffix for path in (cache / "features").iterdir()] == [".safetensors"]


def changed_model(**settings) -> Recipe:
    return replace(RECIPE, model=replace(RECIPE.model, **settings))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"size": 48},
        {"recipe": replace(RECIPE, background=Component("background", "black"))},
        {"recipe": changed_model(backbone="test_convnext")},
        {"recipe": changed_model(pooling=Component("pooling", "gem"))},
    ],
    ids=["weights", "input size", "background", "architecture", "pooling"],
)
def test_features_are_computed_anew_when_what_is_before_them_changes(cache, store, change):
    Counting()(store)
    changed = Counting()
    changed(store, **change)
    assert changed.pictures == 6


def test_features_are_computed_anew_for_other_pictures(cache, store):
    Counting()(store)
    changed = Counting()
    changed(replace(store, key="other pictures"))
    assert changed.pictures == 6


def test_features_do_not_depend_on_the_head(cache, store):
    Counting()(store)
    other_head = Counting()
    other_head(store, changed_model(head=Component("head", "linear")))
    assert other_head.pictures == 0


def test_interrupted_extraction_leaves_nothing_behind(cache, store, monkeypatch):
    def interrupted(tensors, path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(jaguar_kit, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Counting()(store)
    assert list((cache / "features").iterdir()) == []


def test_fingerprint_of_a_module_tells_any_change_of_a_tensor():
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = jaguar_kit.module_fingerprint(layer)
    assert jaguar_kit.module_fingerprint(layer) == before
    layer[1].num_batches_tracked += 1
    after = jaguar_kit.module_fingerprint(layer)
    assert after != before
    layer[0].weight.data[1, 2] += 1e-6
    assert jaguar_kit.module_fingerprint(layer) not in (before, after)
