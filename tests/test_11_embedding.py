"""Cosines, embedding in batches, and features that are computed once."""

import itertools
import random
from dataclasses import replace

import jaguar_kit
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import Component, ImageStore, ModelConfig, Preparation, Recipe, embed
from torch import nn

PROPERTY = settings(deadline=None, max_examples=40)
CPU = torch.device("cpu")


def vectors(count=7, dim=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim))


def inputs_of(source, positions, training=False):
    return source.prepare(source.read(positions), training)


# embed


class Numbers(jaguar_kit.Source):
    """A source whose images are their own positions."""

    device = CPU

    def read(self, positions):
        return torch.as_tensor(positions, dtype=torch.float64)[:, None]

    def prepare(self, read, training):
        assert training is False
        return super().prepare(read, training)


@PROPERTY
@given(st.lists(st.integers(0, 99), min_size=1, max_size=40), st.integers(1, 45))
def test_rows_come_in_the_order_of_positions_whatever_the_batch(positions, batch_size):
    rows = embed(lambda x: torch.cat([x, 2 * x], 1), Numbers(), np.array(positions), batch_size)
    assert rows.tolist() == [[p, 2 * p] for p in positions]


def test_batches_are_no_larger_than_asked():
    seen = []

    def network(x):
        seen.append(len(x))
        return x

    embed(network, Numbers(), np.arange(10), batch_size=4)
    assert seen == [4, 4, 2]


def test_what_does_not_fit_the_memory_goes_through_in_smaller_parts():
    tried = []

    def network(x):
        tried.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x

    assert embed(network, Numbers(), np.arange(20), batch_size=10)[:, 0].tolist() == list(range(0, 40, 2))
    assert tried == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]  # the second batch begins with what the first one found


def test_an_image_that_does_not_fit_the_memory_is_an_error():
    def network(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        embed(network, Numbers(), np.arange(3))


def test_result_is_float32_on_the_cpu_without_gradient():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        layer = nn.Linear(1, 3, dtype=dtype)
        rows = embed(lambda x, layer=layer: layer(x.to(layer.weight.dtype)), Numbers(), np.arange(5))
        assert rows.shape == (5, 3)
        assert rows.dtype == torch.float32, dtype
        assert rows.device == CPU
        assert not rows.requires_grad, dtype


# an embedder, as it was built


def built(**model):
    torch.manual_seed(0)
    return jaguar_kit.build_embedder({"backbone": "test_resnet", "pretrained": False, "input_size": 32, **model})


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("look", [embed, jaguar_kit.flip_tta, jaguar_kit.multi_scale_tta])
def test_what_was_just_built_embeds_as_in_evaluation_and_stays_as_it_was(look, freeze):
    embedder, images = built(freeze=freeze), torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    assert embedder.training
    with torch.no_grad():
        rows, alone = look(embedder, images), look(embedder, images[:1])
        torch.testing.assert_close(alone, rows[:1])  # whatever is beside it
        torch.testing.assert_close(rows, look(built(freeze=freeze).eval(), images))
    assert embedder.training
    assert all(torch.equal(value, before[name]) for name, value in embedder.state_dict().items())


def test_a_network_in_evaluation_stays_in_evaluation():
    embedder = built().eval()
    embed(embedder, torch.rand(2, 3, 32, 32))
    jaguar_kit.flip_tta(embedder, torch.rand(2, 3, 32, 32))
    assert not embedder.training


@pytest.mark.parametrize("view_seed", [(), (3,)])
def test_the_caller_draws_on_as_if_nothing_had_been_embedded(view_seed, store):
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    jaguar_kit.seed_everything(5)
    expected = [drawn() for _ in range(2)]
    noise = Preparation(Component("background", "noise"), (), 32, (0.5,) * 3, (0.5,) * 3)
    source = jaguar_kit.PixelSource(store, noise, CPU)
    jaguar_kit.seed_everything(5)
    first = drawn()
    rows = embed(lambda x: x.flatten(1), source, view_seed=view_seed)
    assert [first, drawn()] == expected
    assert torch.equal(rows, embed(lambda x: x.flatten(1), source, view_seed=view_seed)), "each time alike"


@pytest.mark.parametrize("model", [{"input_size": 48}, {"crop": 0.5}, {"input_size": 40, "crop": 0.8}, {}])
def test_images_are_seen_at_the_size_and_by_the_crop_of_their_model(model, store):
    embedder = built(**model).eval()
    size, cfg = model.get("input_size", 32), embedder.backbone.pretrained_cfg
    original = Component("background", "original")
    as_in_a_run = Preparation(original, (), size, cfg["mean"], cfg["std"], model.get("crop", 1.0))
    seen, features = [], embedder.backbone.forward_features
    embedder.backbone.forward_features = lambda x: features(seen.append(x) or x)
    for images in (store, store.pixels):
        embed(embedder, images)
        inputs = as_in_a_run(torch.from_numpy(store.pixels).permute(0, 3, 1, 2), training=False)
        assert seen[-1].shape == (6, 3, size, size)
        torch.testing.assert_close(seen[-1], inputs)


def test_images_that_are_not_square_become_so_even_where_a_side_fits():
    embedder, seen = built(), []
    features = embedder.backbone.forward_features
    embedder.backbone.forward_features = lambda x: features(seen.append(tuple(x.shape)) or x)
    for shape in ((16, 32), (32, 16)):
        embed(embedder, np.zeros((2, *shape, 3), np.uint8))
    assert seen == [(2, 3, 32, 32)] * 2


def test_positions_may_be_true_where_an_image_is_meant(store):
    meant = np.array([True, False, False, True, True, False])
    rows = embed(built(), store, meant)
    assert torch.equal(rows, embed(built(), store, [0, 3, 4]))
    assert embed(built(), store, np.zeros(6, bool)).shape == embed(built(), store.pixels[:0]).shape == (0, 256)


# sources and cached features


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def store():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 4), dtype=np.uint8)
    return ImageStore(pixels, key="six random images")


RECIPE = Recipe("features", model=ModelConfig("test_resnet", pretrained=False, input_size=32))


class Counting:
    """cached_features with a count of the images that went through the backbone."""

    def __init__(self):
        self.images = 0

    def __call__(self, store, recipe=RECIPE, seed=0, size=None):
        torch.manual_seed(seed)
        self.embedder = jaguar_kit.build_embedder(recipe.model)
        forward_features = self.embedder.backbone.forward_features

        def counted(images):
            self.images += len(images)
            return forward_features(images)

        self.embedder.backbone.forward_features = counted
        prepare = Preparation(recipe.background, (), size or recipe.model.input_size, (0.5,) * 3, (0.5,) * 3)
        self.source = jaguar_kit.PixelSource(store, prepare, CPU)
        return jaguar_kit.cached_features(self.embedder, self.source, recipe)


def test_pixel_source_prepares_the_images_at_its_positions(store):
    prepare = Preparation(Component("background", "black"), (), 32, (0.5,) * 3, (0.5,) * 3)
    source = jaguar_kit.PixelSource(store, prepare, CPU)
    pixels = torch.from_numpy(store.pixels[[4, 1]]).permute(0, 3, 1, 2)
    torch.testing.assert_close(inputs_of(source, np.array([4, 1])), prepare(pixels, training=False))


def test_features_are_the_pooled_outputs_of_every_image(cache, store):
    cached = Counting()
    features = cached(store).features
    assert cached.images == 6
    with torch.no_grad():
        expected = cached.embedder.eval().pooled(inputs_of(cached.source, np.arange(6)))
    torch.testing.assert_close(features, expected)


def test_features_of_positions_come_in_their_order(cache, store):
    source = Counting()(store)
    for training in (True, False):
        assert torch.equal(inputs_of(source, np.array([5, 0, 3]), training), source.features[[5, 0, 3]])


def test_cached_features_are_used_again(cache, store):
    first, second = Counting(), Counting()
    features, again = first(store).features, second(store).features
    assert (first.images, second.images) == (6, 0)
    assert torch.equal(features, again)


def test_one_set_of_features_is_one_file(cache, store):
    Counting()(store)
    assert [path.suffix for path in (cache / "features").iterdir()] == [".safetensors"]


def changed_model(**settings) -> Recipe:
    return replace(RECIPE, model=replace(RECIPE.model, **settings))


def test_features_are_computed_anew_when_images_or_what_is_before_them_changes(cache, store):
    Counting()(store)
    changes = {
        "weights": {"seed": 1},
        "input size": {"size": 48},
        "background": {"recipe": replace(RECIPE, background=Component("background", "black"))},
        "architecture": {"recipe": changed_model(backbone="test_convnext")},
        "pooling": {"recipe": changed_model(pooling=Component("pooling", "gem"))},
        "images": {"store": replace(store, key="other images")},
    }
    for what, change in changes.items():
        changed = Counting()
        changed(**{"store": store, **change})
        assert changed.images == 6, what


def test_features_do_not_depend_on_the_head(cache, store):
    Counting()(store)
    other_head = Counting()
    other_head(store, changed_model(head=Component("head", "linear")))
    assert other_head.images == 0


@torch.no_grad()
def test_features_do_not_depend_on_the_geometry_of_the_embeddings(cache, store):
    Counting()(store)
    for name in jaguar_kit.registered("geometry"):
        other = Counting()
        features = other(store, changed_model(geometry=Component("geometry", name))).features
        assert other.images == 0, name
        embeddings = other.embedder.eval()(inputs_of(other.source, np.arange(6)))
        torch.testing.assert_close(other.embedder.from_features(features), embeddings)


@torch.no_grad()
@pytest.mark.parametrize("pooling", jaguar_kit.registered("pooling"))
def test_embeddings_of_cached_features_are_those_of_the_images(pooling, cache, store):
    for _ in range(2):  # computed, then read from the cache
        cached = Counting()
        source = cached(store, changed_model(backbone="test_vit", pooling=Component("pooling", pooling)))
        embedder = cached.embedder.eval()
        got = embedder.from_features(inputs_of(source, np.array([4, 1]), training=True).float())
        expected = embedder(inputs_of(cached.source, np.array([4, 1])))
        torch.testing.assert_close(got, expected, rtol=1e-2, atol=5e-3)  # tokens and maps are kept in half precision


ERASING = replace(RECIPE, augment=(Component("augmentation", "erasing", {"p": 1.0, "area": (0.2, 0.5)}),))


def view_of(store, number, recipe=ERASING):
    """A view of the first four images, and how many of them went through the backbone for it."""
    counting = Counting()
    counting(store, replace(recipe, augment=()))  # the images as they are
    before = counting.images
    cfg = (0.5,) * 3
    prepare = Preparation(recipe.background, recipe.augment, recipe.model.input_size, cfg, cfg)
    source = replace(counting.source, preparation=prepare)
    features = jaguar_kit.cached_features(counting.embedder, source, recipe, view=number, first=4).features
    return features, counting.images - before


def test_a_random_view_is_drawn_and_computed_once(cache, store):
    (first, count), (again, none) = view_of(store, 0), view_of(store, 0)
    assert (first.shape, count, none) == ((4, first.shape[1]), 4, 0)
    assert torch.equal(first, again)


def test_random_views_differ_from_each_other_and_from_the_images(cache, store):
    drawn = [view_of(store, number)[0] for number in range(3)]
    for one, other in itertools.combinations([*drawn, Counting()(store).features[:4]], 2):
        assert not torch.isclose(one, other).all(1).any()


def test_views_are_drawn_anew_for_another_seed_or_augmentation(cache, store):
    before = view_of(store, 0)[0]
    for change in ({"seed": 7}, {"augment": (Component("augmentation", "erasing", {"p": 1.0}),)}):
        after, count = view_of(store, 0, replace(ERASING, **change))
        assert count == 4, change
        assert not torch.equal(before, after), change


def test_views_lie_in_the_order_of_their_images(cache, store):
    mirrored = replace(RECIPE, augment=(Component("augmentation", "flip", {"p": 1.0}),))
    counting = Counting()
    counting(store)
    with torch.no_grad():
        images = inputs_of(counting.source, np.arange(4)).flip(-1)
        expected = counting.embedder.eval().pooled(images)
    torch.testing.assert_close(view_of(store, 0, mirrored)[0], expected)


def test_epochs_see_the_views_in_turn():
    views = tuple(jaguar_kit.FeatureSource(torch.full((2, 3), float(k)), CPU) for k in range(3))
    source = jaguar_kit.ViewSource(views)
    seen = [inputs_of(source.of_epoch(epoch), np.array([1]), training=True)[0, 0].item() for epoch in range(1, 8)]
    assert seen == [0, 1, 2, 0, 1, 2, 0]


def test_features_too_large_for_the_gpu_stay_in_memory(monkeypatch):
    features = torch.zeros(10, 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * features.nbytes - 1, 10**9))
    assert jaguar_kit.where_they_fit(features, torch.device("cuda")) is features


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


def test_parts_that_were_in_evaluation_stay_there():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout())
    network[1].eval()
    embed(network, torch.rand(4, 3))
    assert [part.training for part in network.modules()] == [True, True, False, True]
