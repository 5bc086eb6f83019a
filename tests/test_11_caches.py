"""What is kept between runs: keys that hold all that decides a value, and files that are made anew when damaged."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jaguar_kit
import numpy as np
import pytest
import torch
from jaguar_kit import Component, open_store, recipe_from_dict
from jaguar_kit_tools.experiments import smoke as smoke_room
from PIL import Image

CPU = torch.device("cpu")
RECIPE = recipe_from_dict(
    {
        "name": "cached",
        "data": {"size": 32},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    }
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(jaguar_kit.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def embedder_of(recipe=RECIPE):
    torch.manual_seed(0)
    return jaguar_kit.build_embedder(recipe.model)


def key_of(recipe=RECIPE, embedder=None, key="store", drawn=(), precision=None, total=3, **prepare):
    embedder = embedder or embedder_of(recipe)
    embedder.backbone_fingerprint = embedder.backbone_fingerprint or jaguar_kit.module_fingerprint(embedder.backbone)
    given = {"input_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, **prepare}
    preparation = jaguar_kit.Preparation(recipe.background, recipe.augment, **given)
    store = jaguar_kit.ImageStore(np.zeros((3, 32, 32, 3), np.uint8), key)
    source = jaguar_kit.PixelSource(store, preparation, CPU)
    return jaguar_kit.features_cache_key(embedder, source, recipe, precision, drawn, total)


def with_model(**model):
    return replace(RECIPE, model=replace(RECIPE.model, **model))


def other_weights():
    embedder = embedder_of()
    with torch.no_grad():
        next(embedder.backbone.parameters()).add_(1e-3)
    return embedder


AUGMENTED = replace(RECIPE, augment=(Component("augmentation", "flip"),))


def test_what_decides_features_is_in_their_key():
    gray = replace(RECIPE, background=Component("background", "gray"))
    lighter = replace(RECIPE, background=Component("background", "gray", {"level": 0.25}))
    keys = {
        "as it is": partial(key_of),
        "mean": partial(key_of, mean=(0.4, 0.5, 0.5)),
        "std": partial(key_of, std=(0.5, 0.5, 0.4)),
        "input size": partial(key_of, input_size=64),
        "images": partial(key_of, key="other images"),
        "weights": partial(key_of, embedder=other_weights()),
        "background": partial(key_of, gray),
        "a background's setting": partial(key_of, lighter),
        "pooling": partial(key_of, with_model(pooling=Component("pooling", "gem"))),
        "precision": partial(key_of, precision=torch.bfloat16),
        "how many": partial(key_of, total=2),
        "a view": partial(key_of, drawn=(42, 0)),
        "another view": partial(key_of, drawn=(42, 1)),
        "the view of another seed": partial(key_of, drawn=(1, 0)),
        "the view of an augmentation": partial(key_of, AUGMENTED, drawn=(42, 0)),
    }
    found = {}
    for what, make in keys.items():
        key = make()
        assert make() == key, what
        assert key not in found, f"{what} and {found[key]} share one key"
        found[key] = what


def test_poolings_of_one_map_share_it_and_others_do_not():
    names = ["average", "max", "gem", {"name": "gem", "p": 4}, "gem_bn"]
    keys = {key_of(with_model(pooling=jaguar_kit.component("pooling", name, ""))) for name in names}
    assert len(keys) == 1
    assert keys != {key_of()}


def test_heads_losses_and_augmentation_leave_features_alone():
    assert key_of(with_model(head=Component("head", "linear"))) == key_of()
    assert key_of(replace(RECIPE, loss=Component("loss", "triplet"))) == key_of()
    assert key_of(AUGMENTED) == key_of()


def features_of(folder, recipe=RECIPE, **prepare):
    embedder = embedder_of(recipe)
    given = {"input_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, **prepare}
    store = open_store(folder, ["a.png", "b.png", "c.png"], 32)
    preparation = jaguar_kit.Preparation(recipe.background, (), **given)
    return jaguar_kit.cached_features(embedder, jaguar_kit.PixelSource(store, preparation, CPU), recipe).features


def test_other_normalisation_gives_other_features(folder):
    assert not torch.allclose(features_of(folder), features_of(folder, mean=(0.1, 0.2, 0.3)))


def flip_a_bit(path: Path, place: int = -7):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path):
    path.write_bytes(b"")


def garble(path: Path):
    path.write_bytes(b"\x80garbled" * 40)


def drop_tensor(path: Path):
    jaguar_kit.save_tensors(path, {"other": torch.zeros(3)})


SPOILS = [flip_a_bit, truncate, empty, garble]


@pytest.mark.parametrize("spoil", [*SPOILS, drop_tensor])
def test_features_that_were_damaged_are_made_anew(spoil, folder, own_cache, capsys):
    before = features_of(folder).clone()
    (file,) = (own_cache / "features").glob("*.safetensors")
    spoil(file)
    jaguar_kit.CHECKED.clear()  # as in another process
    assert torch.equal(features_of(folder), before)
    assert "made anew" in capsys.readouterr().out or spoil is drop_tensor
    jaguar_kit.CHECKED.clear()
    assert torch.equal(jaguar_kit.load_safetensors(file)[0]["features"], before)


@pytest.mark.parametrize("which", ["npy", "json"])
def test_decoded_images_that_were_damaged_are_decoded_anew(which, folder, own_cache):
    paths = ["a.png", "b.png", "c.png"]
    before = open_store(folder, paths, 32).read(range(3)).clone()
    for spoil in SPOILS:
        (file,) = (own_cache / "pictures").glob(f"*.{which}")
        spoil(file)
        jaguar_kit.checksums_of.cache_clear()  # as in another process
        assert torch.equal(open_store(folder, paths, 32).read(range(3)), before), spoil


def test_a_record_of_faults_that_lies_is_not_believed(folder, own_cache):
    open_store(folder, ["a.png"], 32)
    (record,) = (own_cache / "pictures").glob("*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "broken": {"x": "no position"}}))
    assert open_store(folder, ["a.png"], 32).unreadable == ()


def test_intact_files_are_not_made_again(folder, own_cache, monkeypatch):
    features_of(folder)
    jaguar_kit.CHECKED.clear()
    jaguar_kit.checksums_of.cache_clear()
    monkeypatch.setattr(jaguar_kit, "write_store", pytest.fail)
    monkeypatch.setattr(jaguar_kit, "embed", pytest.fail)
    features_of(folder)


def test_a_subset_of_a_store_is_a_view_and_reads_the_same(folder):
    store = open_store(folder, ["a.png", "b.png", "c.png"], 32)
    part = store.subset(np.array([2, 0]))
    assert part.pixels is store.pixels
    assert len(part) == 2
    assert torch.equal(part.read([0, 1]), store.read([2, 0]))
    assert np.array_equal(part[1], store[0])
    assert [image.sum() for image in part] == [store[2].sum(), store[0].sum()]
    again = part.subset(np.array([1]))
    assert np.array_equal(again[0], store[0])
    assert len({store.key, part.key, again.key}) == 3
    assert np.array_equal(jaguar_kit.perceptual_hashes(part), jaguar_kit.perceptual_hashes(store)[[2, 0]])
    assert asdict(store)["rows"] is None


def test_variants_on_parts_of_the_data_share_one_store(mini, tmp_path, monkeypatch):
    names = [f"train_{i:04d}.png" for i in range(1, 41)]
    (tmp_path / "part.csv").write_text("filename\n" + "\n".join(names) + "\n")
    recipe = recipe_from_dict(
        {**jaguar_kit.recipe_to_dict(RECIPE), "data": {"size": 32, "subset": str(tmp_path / "part.csv")}}
    )
    whole = jaguar_kit.open_data(RECIPE, jaguar_kit.load_competition(mini))
    part = jaguar_kit.open_data(recipe, jaguar_kit.load_competition(mini))
    assert len(part.store) < len(whole.store)
    assert isinstance(part.store.pixels, np.memmap)
    assert part.store.pixels.filename == whole.store.pixels.filename


def test_the_small_backbone_heals(monkeypatch, tmp_path, session_cache):
    """A damaged file of it is no longer taken; it is trained again, here in place of which a copy comes."""
    made = jaguar_kit.cache_dir() / "weights" / "small 2" / "test_resnet.safetensors"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"damaged")
    trained = []

    def run_recipe(*arguments, **settings):
        trained.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(smoke_room, "run_recipe", run_recipe)
    with pytest.raises(KeyboardInterrupt):
        jaguar_kit.small_backbone()
    assert trained
    assert not made.exists()


def test_a_damaged_mini_dataset_is_told(tmp_path):
    root = jaguar_kit.make_mini_dataset(tmp_path / "mini", identities=2, images=12)
    (root / "mini.json").write_text("{")
    with pytest.raises(jaguar_kit.KitError, match=r"mini\.json: is damaged: .*; remove the folder"):
        jaguar_kit.make_mini_dataset(root, identities=2, images=12)
    shutil.rmtree(root)
