"""Odd inputs, one of each kind: one line that names what is wrong, or the right answer, never a traceback."""

import json
import math
import re
from importlib.util import find_spec

import jaguar_kit as jk
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from cases import every
from jaguar_kit_tools.experiments import comparison, extra, figures
from jaguar_kit_tools.identify import decisions, encounters, facts, grouping
from jaguar_kit_tools.on_kaggle import kernels, package, weights
from PIL import Image
from safetensors.numpy import save_file

RNG = np.random.default_rng(0)
SQUARE, LABELS = RNG.random((6, 6)), list("aabbcc")
EMBEDDINGS = RNG.normal(size=(6, 4))
PIXELS = RNG.integers(0, 255, (4, 64, 64, 3), np.uint8)
TABLE = pd.DataFrame({"filename": [f"x_{i}.png" for i in range(4)], "identity": list("aabb")})
HASHES = RNG.random((4, 64)) > 0.5
TINY = {**tiny.TINY, "loss": tiny.ARCFACE}


@pytest.fixture(scope="module")
def embedder():
    return jk.build_embedder({"backbone": "test_resnet", "pretrained": False, "head": "none"})


# labels and matrices


@every("labels", [[1e19, 1e19, 2e19, 2e19, 1, 1], [0, 0, math.inf, math.inf, 1, 1]])
def test_numbers_beyond_what_a_float_tells_apart_are_no_labels(labels):
    with pytest.raises(jk.KitError, match=r"labels: .*\(expected whole numbers, or texts\)"):
        jk.average_precision(SQUARE, labels)


def test_labels_in_bfloat16_are_read_as_numbers():
    labels = torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.bfloat16)
    assert jk.identity_balanced_map(SQUARE, labels) == jk.identity_balanced_map(SQUARE, LABELS)


@every("labels", [[[1], [1], [2], [2], [3], [3]], np.zeros(6, [("a", int), ("b", int)])])
def test_lists_and_records_are_no_labels(labels):
    with pytest.raises(jk.KitError, match=r"labels: .*expected"):
        jk.average_precision(SQUARE, pd.Series(labels) if isinstance(labels, list) else labels)


@every("kind", ["masked", "sparse", "quantized", "meta"])
def test_a_matrix_that_is_not_whole_is_refused(kind):
    tensor = torch.tensor(SQUARE)
    given = {
        "masked": lambda: np.ma.masked_less(SQUARE, 0.2),
        "sparse": tensor.to_sparse,
        "quantized": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8),
        "meta": lambda: torch.empty(6, 6, device="meta"),
    }[kind]()
    with pytest.raises(jk.KitError, match=r"similarity: .*expected"):
        jk.identity_balanced_map(given, LABELS)


@every("weights", ["ab", [[1, 2], [3, 4]], np.array(1.0), [math.inf, 1], [0, 0]])
def test_weights_of_ranks_that_weigh_nothing_are_one_line(weights):
    with pytest.raises(jk.KitError, match="rank_average: weights: "):
        jk.rank_average(SQUARE, SQUARE, weights=weights)


def test_weights_of_ranks_may_be_an_array():
    wanted = jk.rank_average(SQUARE, SQUARE.T, weights=[0.25, 0.75])
    assert np.array_equal(jk.rank_average(SQUARE, SQUARE.T, weights=np.array([0.25, 0.75])), wanted)


@every("kind", ["isotonic", "logistic"])
@every("scores", [[math.nan], [math.inf], "x", [None]])
def test_scores_that_are_no_numbers_have_no_probability(kind, scores):
    calibrator = jk.fit_calibration([0.1, 0.2, 0.3, 0.9], [False, True, False, True], kind)
    with pytest.raises(jk.KitError, match="scores: "):
        calibrator(scores)


@every(
    "call",
    [
        lambda: jk.fuse([SQUARE], [lambda scores: None]),
        lambda: jk.mean_interval(["x", "y"]),
        lambda: jk.choose_steps(["auto"], EMBEDDINGS[:0], []),
        lambda: jk.postprocess([{"name": "k_reciprocal", "training": True}], EMBEDDINGS, training=np.ones((3, 2))),
        lambda: jk.flip_tta(lambda images: images, PIXELS),
        lambda: jk.perceptual_hashes([PIXELS[0], None]),
        lambda: jk.perceptual_hashes([PIXELS[0], PIXELS[0][..., :1]]),
        lambda: jk.find_bursts(TABLE, HASHES, "x"),
        lambda: jk.find_bursts(TABLE, HASHES, -1),
        lambda: jk.find_bursts(pd.concat([TABLE, TABLE], axis=1), HASHES),
        lambda: jk.local_similarity(PIXELS),
        lambda: jk.extract_local(PIXELS[:, :8, :8], "sift", 4),
        lambda: jk.extract_local(PIXELS, "sift", 4, device="gpu"),
        lambda: jk.recipe_from_dict([1]),
        lambda: jk.recipe_from_dict(None),
        lambda: jk.run_recipe(None),
        lambda: jk.run_recipe([]),
        lambda: jk.load_recipe(None),
    ],
)
def test_what_a_function_can_not_take_is_one_line(call):
    with pytest.raises(jk.KitError, match=r": .*(expected|is not a whole number)"):
        call()


def test_logits_may_come_as_plain_lists():
    steps, logits = ["posterior", "fuse"], RNG.normal(size=(6, 3))
    wanted = jk.postprocess(steps, EMBEDDINGS, logits=logits)
    assert np.allclose(jk.postprocess(steps, EMBEDDINGS, logits=lambda _: logits.tolist()), wanted)


@every("kind", ["category", "string", object])
def test_bursts_are_found_whatever_kind_of_text_a_table_holds(kind):
    assert np.array_equal(jk.find_bursts(TABLE.astype(kind), HASHES), jk.find_bursts(TABLE, HASHES))


def test_bursts_are_found_where_names_are_numbers():
    numbers = TABLE.assign(filename=range(4), identity=[0, 0, 1, 1])
    assert np.array_equal(jk.find_bursts(numbers, HASHES), jk.find_bursts(TABLE.assign(filename=list("0123")), HASHES))


# positions and images


@every("positions", [[9], [-1], [0.5], 1, ["a"], [[0, 1]], [True, False], np.ones(9, bool)])
def test_positions_that_name_no_image_are_one_line(embedder, positions):
    with pytest.raises(jk.KitError, match=r"positions: .*expected"):
        jk.embed(embedder, PIXELS, positions)


def test_a_nullable_mask_means_the_images_where_it_is_true(embedder):
    mask = pd.array([False, True, False, True], dtype="boolean")
    assert torch.equal(jk.embed(embedder, PIXELS, mask), jk.embed(embedder, PIXELS, [1, 3]))


@every("images", [torch.rand(3, 64, 64), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)])
def test_tensors_that_are_no_prepared_images_are_one_line(embedder, images):
    with pytest.raises(jk.KitError, match=r"images: .*expected a tensor of prepared images"):
        jk.embed(embedder, images)


@every("settings", [{"pairs": np.ones((2, 2), bool)}, {"pairs": [(0, 1)]}, {"block": 0}])
def test_pairs_to_match_that_do_not_fit_are_one_line(settings):
    spots = jk.LocalFeatures(torch.zeros(4, 3, 2), torch.eye(3).repeat(4, 1, 1))
    with pytest.raises(jk.KitError, match=r"local_similarity: (pairs|block): .*expected"):
        jk.local_similarity(spots, **settings)


def test_pairs_to_match_may_be_told_by_numbers():
    spots = jk.LocalFeatures(torch.zeros(3, 3, 2), torch.eye(3).repeat(3, 1, 1))
    pairs = np.zeros((3, 3))
    pairs[0, 1] = 1
    wanted = jk.local_similarity(spots, pairs=pairs > 0)
    assert torch.equal(jk.local_similarity(spots, pairs=pairs), wanted)


@every(
    "settings",
    [{"size": "32"}, {"size": 0}, {"size": 32.0}, {"fit": "Squash"}, {"bad_images": "ignore"}, {"turns": [math.nan, 0]},
     {"turns": [90]}, {"paths": "train/train/train_0001.png"}],
)  # fmt: skip
def test_a_store_that_can_not_be_opened_so_is_one_line(mini, tmp_path, settings):
    given = {"paths": ["train/train/train_0001.png", "train/train/train_0002.png"], "size": 32, **settings}
    with pytest.raises(jk.KitError, match=f"{next(iter(settings))}: .*") as told:
        jk.open_store(mini, **given, cache=tmp_path)
    assert "can't be read" not in str(told.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_store_may_have_a_size_of_numpy(mini, tmp_path):
    paths = ["train/train/train_0001.png"]
    assert len(jk.open_store(mini, paths, np.int64(32), cache=tmp_path)) == 1


# backbones and masks


@pytest.mark.parametrize(
    ("name", "size", "pooling"), [("inception_next_atto", 64, "gem"), ("coat_lite_tiny", 224, "average")]
)
def test_backbones_of_unusual_kinds_are_pooled(name, size, pooling):
    model = {"backbone": name, "pretrained": False, "input_size": size, "pooling": pooling, "head": "none"}
    embedder = jk.build_embedder(model).eval()
    with torch.no_grad():
        found = embedder(torch.rand(1, 3, size, size))
    assert found.shape == (1, embedder.embedding_dim)
    assert torch.isfinite(found).all()


def test_a_backbone_that_gives_several_maps_is_one_line():
    model = {"backbone": "crossvit_9_240", "pretrained": False, "pooling": "gem", "head": "none"}
    with pytest.raises(jk.KitError, match=r"model\.pooling: CrossVit.*expected pooling: native"):
        jk.build_embedder(model).eval()(torch.rand(1, 3, 240, 240))


@every("value", [20, 76, 127])
def test_a_mask_of_two_values_tells_the_animal_by_the_larger(value, tmp_path):
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:30, 10:30] = value
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(jk.read_mask(tmp_path / "mask.png")) > 127, pixels > 0)


# recipes


@every("value", ["", "null", "[text]", "{text: 1}", "3", "true"])
def test_a_reading_that_there_is_not_is_one_line(value, write_recipe):
    path = write_recipe({**TINY, "readings": [{"about": "x", "text": {"train": {"lr": 0.125}}}]})
    with pytest.raises(jk.KitError, match=r"reading: .* is not known; (expected one of|did you mean)"):
        jk.load_recipe(path, [f"reading={value}"])


def test_two_readings_are_not_laid_over_each_other(write_recipe):
    read = {**TINY, "readings": [{"about": "x", "text": {"train": {"lr": 0.125}}}]}
    with pytest.raises(jk.KitError, match=r"reading=text.*reading=published.*expected one"):
        jk.load_recipe(write_recipe(read), ["reading=text", "reading=published"])
    write_recipe({**read, "reading": "text"}, "base.yaml")
    with pytest.raises(jk.KitError, match=r"reading: 'published', but its base .*expected the same"):
        jk.load_recipe(write_recipe("base: base.yaml\nreading: published\n"))


def test_a_dict_is_read_as_it_says(mini, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(jk, "plan", lambda recipe, *_: asked.append(recipe) or (_ for _ in ()).throw(jk.KitError("-")))
    read = {**TINY, "reading": "text", "readings": [{"about": "x", "text": {"train": {"lr": 0.125}}}]}
    with pytest.raises(jk.KitError, match="-"):
        jk.run_recipe(read, data=mini, out=tmp_path)
    assert asked[0].train.lr == 0.125


@every("grid", [3, [1], "x"])
def test_a_grid_that_is_none_is_one_line_beside_splits_too(grid):
    with pytest.raises(jk.KitError, match=r"recipe: grid: .* is not a mapping"):
        jk.recipe_from_dict({**TINY, "splits": ["stratified"], "grid": grid})


@every(
    "settings",
    [{"weights": [0, 0]}, {"weights": [1e308, 1e308]}, {"kind": "rank", "weights": [-1, 2]},
     {"kind": "rank", "weights": [0, 0]}, {"kind": "isotonic", "weights": [1, 2]}],
)  # fmt: skip
def test_weights_of_evidence_that_say_nothing_are_refused_before_any_work(settings):
    steps = ["posterior", {"name": "fuse", **settings}]
    with pytest.raises(jk.KitError, match=r"postprocess: fuse\.weights: .*expected"):
        jk.recipe_from_dict({**TINY, "postprocess": steps})


def test_two_further_folders_of_the_same_images_are_one_line(mini, tmp_path):
    for place in ("one", "other"):
        for animal in ("Ana", "Beni"):
            (tmp_path / place / animal).mkdir(parents=True)
            for number in range(2):
                drawn = np.random.default_rng([ord(animal[0]), number]).integers(0, 255, (20, 20, 3), np.uint8)
                Image.fromarray(drawn).save(tmp_path / place / animal / f"{number}.png")
    folders = [str(tmp_path / "one"), str(tmp_path / "other")]
    with pytest.raises(jk.KitError, match=r"data\.extra: .*other: 4 of its images are images of"):
        extra.with_extra(jk.load_competition(mini), jk.DataConfig(extra=tuple(folders)))
    with pytest.raises(jk.KitError, match=r"data\.extra: .*nowhere"):
        extra.with_extra(jk.load_competition(mini), jk.DataConfig(extra=(str(tmp_path / "nowhere"),)))


# what a run wrote of itself


@pytest.fixture(scope="module")
def run_file(mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jk, "rooms_for", lambda _: False)  # no report
        result = jk.run_recipe({**TINY, "name": "odd"}, data=mini, out=out)
    return result.folder / "default" / "seed42" / "weights.safetensors"


@every(
    ("key", "value"),
    [
        ("recipe", {}),
        ("recipe", {"model": 3}),
        ("recipe", {"model": {"backbone": 5}}),
        ("recipe", {"model": {"backbone": "test_resnet", "pooling": "native", "geometry": "cosine"}}),
        ("recipe", {"model": {"backbone": "test_resnet"}, "loss": 3}),
        ("identities", [["a"]]),
        ("identities", [3]),
        ("trained", 3),
        ("trained", [3]),
        ("trained", None),
        ("trained", "abc"),
    ],
)
def test_odd_words_in_weights_are_one_line_with_the_remedy(key, value, run_file, tmp_path):
    with jk.safe_open(run_file, "np") as kept:
        told, tensors = kept.metadata(), {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "odd.safetensors", {**told, key: json.dumps(value)})
    with pytest.raises(jk.KitError, match=r"odd\.safetensors: is damaged: metadata: .*train it again"):
        jk.load_weights(tmp_path / "odd.safetensors")


# answers and decisions

HEADER = ",".join(decisions.COLUMNS)
ROW = {"mark": "0" * 16, "image": "a.png", "root": "/x", "decision": "yes", "identity": "Ana", "by": "me", "time": "1"}


@every(
    ("key", "value"),
    [("weights", 0), ("weights", ["a"]), ("backbone", 3), ("catalogue", {}), ("queries", 5.5), ("local", "false"),
     ("local", 1), ("weights", "a\0b"), ("sure", "0.9"), ("sure", 1), ("new", []), ("share_new", True)],
)  # fmt: skip
def test_an_odd_setting_of_earlier_answers_names_its_file(key, value, tmp_path):
    (tmp_path / "identify.json").write_text(json.dumps({"sure": 0.95, key: value}))
    with pytest.raises(jk.KitError, match=rf"identify\.json: is damaged: {key}: {re.escape(repr(value))}; "):
        decisions.earlier_settings(tmp_path)


@every("content", ["x", "mark,image\n", "\0\0\0", ",".join(ROW.values()), None])
def test_a_damaged_history_is_never_taken_for_no_decisions(content, tmp_path):
    if content is None:
        (tmp_path / "history.csv").mkdir()
    else:
        (tmp_path / "history.csv").write_text(content)
    with pytest.raises(jk.KitError, match=r"history\.csv: "):
        decisions.Decisions.read(tmp_path)


@every("header", [HEADER, f"\ufeff{HEADER}\n", HEADER.replace(",", ";"), HEADER.replace(",", '","')])
def test_a_header_alone_is_a_file_without_decisions(header, tmp_path):
    (tmp_path / "decisions.csv").write_text(header, encoding="utf-8")
    assert decisions.read_decisions(tmp_path / "decisions.csv").empty


@every("name", ["Ana\u200b", "\ufeffAna", "A\u00adna", " Ana ", "Ana\u00a0"])
def test_a_name_with_what_nobody_sees_is_the_same_animal(name, tmp_path):
    pd.DataFrame([{**ROW, "identity": name}]).to_csv(tmp_path / "decisions.csv", index=False)
    assert decisions.read_decisions(tmp_path / "decisions.csv").identity.tolist() == ["Ana"]


def test_a_name_that_nobody_sees_is_none(tmp_path):
    pd.DataFrame([{**ROW, "identity": "\u200b"}]).to_csv(tmp_path / "decisions.csv", index=False)
    with pytest.raises(jk.KitError, match=r"line 2: identity: is empty"):
        decisions.read_decisions(tmp_path / "decisions.csv")


def test_a_file_with_semicolons_and_quotes_is_read(tmp_path):
    pd.DataFrame([ROW]).to_csv(tmp_path / "decisions.csv", index=False, sep=";", quoting=1)
    assert len(decisions.read_decisions(tmp_path / "decisions.csv")) == 1


@every("year", ["1900", "1969", "2100"])
def test_a_year_far_away_tells_which_photographs_belong_together(year):
    taken = [f"{year}-12-31 10:00:00", f"{year}-12-31 10:00:30", f"{year}-12-31 23:00:00", ""]
    table = pd.DataFrame({"taken": taken, "camera": "x"})
    far = np.arange(4)[:, None] * np.ones((4, 64)) % 2 > 0
    far[2:] = np.random.default_rng(1).random((2, 64)) > 0.5
    met = encounters.encounters_of_queries(
        table, far, encounters.Alike(lambda rows: np.zeros((len(rows), len(rows))), 1)
    )
    assert met[0] == met[1]
    assert len(set(met)) == 3


def test_a_photograph_can_not_be_kept_apart_from_itself():
    assert grouping.group_new(np.ones((2, 2)), 0.5, cannot=[(0, 0)])[0] == ["new 1", "new 1"]


# on the way to Kaggle


def kernel_in(folder):
    kernels.write_kernels(folder, kernels.RECIPES, "me", only=["quickstart"])
    return folder / "quickstart"


@every("key", ["competition_sources", "dataset_sources", "kernel_sources"])
@every("value", [None, 3, [3], "abc"])
def test_sources_of_a_kernel_that_are_no_list_are_one_line(key, value, tmp_path):
    path = kernel_in(tmp_path) / "kernel-metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(jk.KitError, match=rf"kernel-metadata\.json: {key}: .*expected a list"):
        kernels.write_kernels(tmp_path, kernels.RECIPES, only=["quickstart"])


def test_a_kernels_code_that_is_no_text_is_one_line(tmp_path):
    (kernel_in(tmp_path) / "quickstart.py").write_bytes(b"\xff\xfe")
    with pytest.raises(jk.KitError, match=r"quickstart\.py: is not UTF-8"):
        kernels.write_kernels(tmp_path, kernels.RECIPES, only=["quickstart"])


@every("content", [b"", b"{}", b"[]", b'{"cells": []}', b'{"cells": [3]}', b"\xff"])
def test_a_notebook_without_code_is_one_line(content, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.ipynb").write_bytes(content)
    with pytest.raises(jk.KitError, match=r"own\.ipynb: is no"):
        kernels.kernel_files(tmp_path / "own", None, "me")


@pytest.mark.parametrize("name", ["aliked_n16", "disk"])
def test_spots_that_can_not_be_downloaded_are_one_line(name, tmp_path, monkeypatch):
    from kornia import feature

    def offline(_):
        raise RuntimeError("Failed to load weights from all 2 source(s)")

    words = rf"{name}: can't be downloaded: .*copy .*{name}\.safetensors here"
    if find_spec("kornia.core.download") is None:
        words = f"{name}: kornia .* does not download it safely"
    else:
        for kind in (feature.ALIKED, feature.DISK):
            monkeypatch.setattr(kind, "from_pretrained", offline)
    with pytest.raises(jk.KitError, match=words):
        weights.fetch_detector(name, tmp_path)


def test_a_package_does_not_replace_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", "", tmp_path):
        with pytest.raises(jk.KitError, match=r"--out: .*expected a folder of its own"):
            package.package_kit(out, "me")


@pytest.mark.parametrize("manifest", ["{}", json.dumps({"files": {}})])
def test_a_package_replaces_nothing_but_a_package(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "ROOM_FILES", [])
    monkeypatch.setattr(package, "RECIPES", tmp_path / "none")
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(jk.KitError, match=r"mine\.txt|manifest\.json"):
        package.package_kit(tmp_path, "me")
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_settings_of_a_split_among_several_name_the_way_to_write_them():
    splits = [{"name": "kfold", "folds": 2}, {"name": "kfold", "folds": 3}]
    with pytest.raises(jk.KitError, match=r"grid\.data\.split: .*expected names .*variants"):
        jk.recipe_from_dict({**TINY, "splits": splits})


# reports of results that are not whole

MEASURED = {**dict.fromkeys(jk.NUMBERS_OF_RUN, 1), "untrained": {"map": 0.5}, "per_identity": {"a": 0.5}}


@every(
    ("key", "value"),
    [
        *[
            (key, odd)
            for key in ("validated", "versions", "plain", "other_backgrounds", "open_set")
            for odd in (None, 3, [])
        ],
        *[(key, odd) for key in ("postprocess", "postprocess_test", "matches") for odd in ("abc", True, [3])],
        ("plain", {"map": "x"}),
        ("validated", {"images": 3}),
        ("validated", {"across": 3}),
        ("open_set", {"given": {}}),
        ("open_set", {"cross_fitted": {"score": "x"}}),
        ("learns", "x"),
        ("epochs", math.nan),
    ],
)
def test_an_odd_part_of_what_a_run_measured_names_its_file(key, value, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({**MEASURED, key: value}))
    with pytest.raises(jk.KitError, match=rf"metrics\.json: is damaged: {key}.*--force"):
        jk.RunFolder(tmp_path).metrics()


@every("column", ["grad_norm", "map_across", "hardest_positive"])
def test_curves_are_drawn_where_a_log_lacks_a_column(column):
    log = pd.DataFrame({"epoch": [0, 1], "map": [0.1, 0.2], column: [0.3, 0.4]})
    figure = figures.bands_figure({"a": {"1": log, "2": log.drop(columns=column)}}, [(column, "what it is")])
    assert len(figure.axes) == 1


def test_an_experiment_may_be_called_as_lines_are(tmp_path):
    made = tmp_path / "a: b" / "default" / "seed1"
    made.mkdir(parents=True)
    (made / "metrics.json").write_text(json.dumps(MEASURED))
    pd.DataFrame({"epoch": [0, 1], "train_loss": 1.0, "map": 0.5, "val_loss": 1.0, "lr": 0.1}).to_csv(
        made / "log.csv", index=False
    )
    table = pd.DataFrame({"variant": ["a: b: default"], "seed": [1], "map": [0.5]})
    assert list(comparison.curves_of({tmp_path / "a: b": "a: b"}, table)) == ["a: b: default"]


@every("name", ["report.html", "results.csv", "experiment.json", "interpretation.md"])
def test_a_variant_is_not_called_as_a_file_of_every_experiment(name):
    with pytest.raises(jk.KitError, match=r"variants\..* is a file of every experiment"):
        jk.recipe_from_dict({**TINY, "variants": {name: {}, "other": {}}})


def test_arrays_of_another_byte_order_are_read(tmp_path):
    whole = {"embeddings": np.ones((2, 2), ">f4"), "images": ["x", "y"], "labels": ["a", "b"]}
    np.savez(tmp_path / "validation.npz", **whole)
    assert torch.from_numpy(jk.read_arrays(tmp_path / "validation.npz", "embeddings")["embeddings"]).sum() == 4


@every("name", ["answers.csv", "experiment.json", ".jaguar_kit"])
def test_results_are_no_photographs(name, tmp_path):
    for folder in ("pictures", "figures"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / name).write_text("x")
    for read in (jk.load_competition, facts.load_queries):
        with pytest.raises(jk.KitError, match="holds results of this kit"):
            read(tmp_path)


def test_rows_without_a_header_are_no_file_without_decisions(tmp_path):
    (tmp_path / "decisions.csv").write_text(",".join(ROW.values()) + "\n")
    with pytest.raises(jk.KitError, match=r"decisions\.csv: "):
        decisions.read_decisions(tmp_path / "decisions.csv")
