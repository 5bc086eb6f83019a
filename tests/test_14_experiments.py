"""Whole runs through the real command: results, what is left alone, refusals with their one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from jaguar_kit import load_recipe, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import comparison as report_tool
from jaguar_kit_tools.experiments import report as report_room
from jaguar_kit_tools.experiments import runs as runs_room
from jaguar_kit_tools.experiments import smoke as smoke_room
from PIL import Image
from tiny import smaller

CAN_MOUNT = shutil.which("unshare") and subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0

ROOT = Path(jaguar_kit.__file__).parent
TINY = {
    "name": "tiny",
    "data": {"size": 32},
    "background": "black",
    "augment": ["flip", {"name": "affine", "degrees": 5}],
    "model": {
        "backbone": "test_resnet",
        "pretrained": False,
        "input_size": 32,
        "freeze": False,
        "head": {"name": "mlp", "layers": 2, "hidden": 32, "output": 16},
    },
    "loss": {"name": "arcface", "margin": 0.2, "scale": 16},
    "train": {"epochs": 4, "batch_size": 16, "lr": 2e-3},
}
FROZEN = {"model": {"freeze": True}, "augment": [], "train": {"epochs": 1}}  # its features are extracted once for all


DRAW = jaguar_kit.Page.figure  # which draws each figure, as tests elsewhere do not


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def metrics_of(folder: Path) -> dict:
    told = json.loads((folder / "metrics.json").read_text())
    del told["seconds"], told["embedded_per_second"]
    return told


def recipe_of(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe(TINY, changes))


@pytest.fixture(scope="module")
def finished(mini, tmp_path_factory):
    """The folder of results of one finished run."""
    return run_recipe(recipe_of(), data=mini, out=tmp_path_factory.mktemp("finished"))


def test_a_run_leaves_everything_behind(finished, mini):
    place = finished.folder / "default" / "seed42"
    left = {p.name for p in place.iterdir()}
    assert left == {
        "recipe.yaml",
        "log.csv",
        "metrics.json",
        "weights.safetensors",
        "validation.npz",
        "test.npz",
        "submission.csv",
    }
    beside = {".jaguar_kit", "experiment.json", "figures", "results.csv", "report.md", "report.html"}
    assert {p.name for p in finished.folder.iterdir()} == {"default", *beside}
    told, log = metrics_of(place), pd.read_csv(place / "log.csv")
    assert told["map"] == pytest.approx(log["map"][1:].max())
    assert told["untrained"]["map"] == pytest.approx(log["map"][0])
    assert told["best_epoch"] == log["map"][1:].idxmax()
    rows = jaguar_kit.validate_submission(place / "submission.csv", mini / "test.csv")["rows"]
    assert rows == len(pd.read_csv(mini / "test.csv"))


def test_the_reported_map_follows_from_the_saved_embeddings(finished):
    place = finished.folder / "default" / "seed42"
    kept = np.load(place / "validation.npz")
    similarity = jaguar_kit.similarity_matrix(kept["embeddings"])
    assert jaguar_kit.identity_balanced_map(similarity, kept["labels"]) == pytest.approx(metrics_of(place)["map"])


def test_the_test_map_follows_from_the_submission(finished, mini):
    place = finished.folder / "default" / "seed42"
    table = pd.read_csv(mini / "test.csv").merge(pd.read_csv(place / "submission.csv"), on="row_id")
    square = table.pivot(index="query_image", columns="gallery_image", values="similarity")
    truth = pd.read_csv(mini / "solution.csv").set_index("filename").ground_truth
    square = square.loc[square.index, square.index].fillna(0).to_numpy()
    labels = truth[sorted(truth.index)].to_numpy()
    assert jaguar_kit.identity_balanced_map(square, labels) == pytest.approx(metrics_of(place)["test_map"])


def test_the_report_is_self_contained(finished):
    page = finished.report.read_text()
    images = sorted(p.name for p in (finished.folder / "figures").iterdir())
    assert page.count("data:image/webp;base64,") + page.count('class="curves"') == len(images) == 9
    told = (finished.folder / "report.md").read_text()
    assert all(f"figures/{name}" in told for name in images)
    assert "://" not in page
    assert f"{finished.table['map'][0]:.4f}" in page


def test_a_finished_run_is_not_run_again(finished, mini):
    place = finished.folder / "default" / "seed42"
    before = {p.name: p.stat().st_mtime_ns for p in place.iterdir()}
    run_recipe(recipe_of(), data=mini, out=finished.folder.parent)
    assert {p.name: p.stat().st_mtime_ns for p in place.iterdir()} == before


@pytest.mark.ci
def test_force_sets_the_old_result_aside_and_repeats_it_exactly(mini, tmp_path):
    first = run_recipe(recipe_of(train={"epochs": 1}), data=mini, out=tmp_path)
    run_recipe(recipe_of(train={"epochs": 1}), data=mini, out=tmp_path, force=True)
    folder = first.folder / "default"
    assert metrics_of(folder / "seed42") == metrics_of(folder / "seed42.old1")
    assert (folder / "seed42.old1" / "weights.safetensors").is_file()


def test_other_settings_never_overwrite_a_result(finished, mini):
    with pytest.raises(jaguar_kit.KitError, match=r"train\.epochs: 4 there, 5 now"):
        run_recipe(recipe_of(train={"epochs": 5}), data=mini, out=finished.folder.parent)


def test_other_words_are_no_other_experiment(finished, mini):
    run_recipe(recipe_of(interpretation="Training helped."), data=mini, out=finished.folder.parent)
    assert "Training helped." in (finished.folder / "report.md").read_text()


def test_other_data_never_mixes_with_a_result(finished, mini, tmp_path):
    other = shutil.copytree(mini, tmp_path / mini.name)
    table = pd.read_csv(other / "train.csv").iloc[1:]
    table.to_csv(other / "train.csv", index=False)
    with pytest.raises(jaguar_kit.KitError, match="other images or labels"):
        run_recipe(recipe_of(), data=other, out=finished.folder.parent)


@pytest.mark.ci
def test_the_other_round_is_other_data(finished, mini, tmp_path):
    other = jaguar_kit.make_mini_dataset(tmp_path / mini.name, identities=6, images=72, seed=0, round=2)
    with pytest.raises(jaguar_kit.KitError, match="other images or labels"):
        run_recipe(recipe_of(), data=other, out=finished.folder.parent)


@pytest.fixture(scope="module")
def odd(mini, tmp_path_factory):
    """What to run again, and the result, of data with an image that can't be read and names that plots misread."""
    folder = tmp_path_factory.mktemp("odd")
    data = Path(shutil.copytree(mini, folder / "data"))
    image = data / "train" / "train" / "train_0003.png"
    image.write_bytes(image.read_bytes()[:200])
    table = pd.read_csv(data / "train.csv")
    table["ground_truth"] = table.ground_truth.replace({"cat00": "_under $a^$", "cat01": "<b>雪豹</b>"})
    table.to_csv(data / "train.csv", index=False)
    (data / "solution.csv").unlink()
    again = partial(run_recipe, recipe_of(data={"bad_images": "skip"}, train={"epochs": 1}), data=data, out=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "figure", DRAW)
        return again, again()


def test_an_image_that_is_skipped_does_not_make_the_data_others(odd):
    again, first = odd
    assert again().table.equals(first.table)
    assert "train_0003.png" in first.report.read_text()


def test_names_that_plots_could_misread_do_no_harm(odd):
    assert "<b>雪豹" not in odd[1].report.read_text()


def test_each_variant_may_have_data_of_its_own(mini, tmp_path):
    other = shutil.copytree(mini, tmp_path / "other")
    pd.read_csv(other / "train.csv").query("ground_truth != 'cat00'").to_csv(other / "train.csv", index=False)
    variants = {"one": {"data": {"root": str(mini)}}, "two": {"data": {"root": str(other)}}}
    table = run_recipe(recipe_of(variants=variants, **FROZEN), out=tmp_path).table
    assert table["untrained"].nunique() == 2


def test_the_plain_backbone_is_what_no_head_and_no_training_would_give(mini, tmp_path):
    bare = recipe_of(name="bare", model={"head": "none"}, train={"epochs": 0})
    alone = run_recipe(bare, data=mini, out=tmp_path).table.iloc[0]
    for freeze in (True, False):
        recipe = recipe_of(name=f"head{freeze}", model={"head": "linear", "freeze": freeze}, train={"epochs": 1})
        row = run_recipe(recipe, data=mini, out=tmp_path).table.iloc[0]
        assert row.plain == pytest.approx(alone["map"])
        assert row.plain != pytest.approx(row.untrained)
        assert row.plain_across == pytest.approx(alone.map_across, nan_ok=True)


def test_a_frozen_backbone_from_a_checkpoint_travels_with_its_weights(finished, mini, tmp_path):
    first = finished.folder / "default" / "seed42"
    frozen = {**FROZEN, "model": {"freeze": True, "pretrained": True}}
    stage = (
        run_recipe(recipe_of(checkpoint=str(first), **frozen), data=mini, out=tmp_path).folder / "default" / "seed42"
    )
    last = recipe_of(name="last", checkpoint=str(stage), model={"pretrained": True}, train={"epochs": 0})
    again = run_recipe(last, data=mini, out=tmp_path)
    assert again.table["map"][0] == pytest.approx(metrics_of(stage)["map"], abs=1e-6)


def test_force_never_sets_aside_the_checkpoint_it_starts_from(finished, mini):
    place = finished.folder / "default" / "seed42"
    recipe = recipe_of(checkpoint=str(place), train={"epochs": 0})
    with pytest.raises(jaguar_kit.KitError, match="--force would set it aside"):
        run_recipe(recipe, data=mini, out=finished.folder.parent, force=True)
    assert (place / "weights.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_the_run_which_may_be_tried_again_with_other_settings(mini, tmp_path):
    with pytest.raises(jaguar_kit.TrainingFailed, match="no longer a number in epoch 1"):
        run_recipe(recipe_of(train={"lr": 1e30}), data=mini, out=tmp_path)
    assert run_recipe(recipe_of(train={"epochs": 1}), data=mini, out=tmp_path).report.is_file()


def test_steps_of_a_variant_are_checked_before_work():
    with pytest.raises(jaguar_kit.KitError, match=r"variants\.b: postprocess: .* out of order"):
        recipe_of(variants={"a": {}, "b": {"postprocess": ["k_reciprocal", "tta"]}})


def test_post_processing_is_measured_beside_raw_and_submitted(mini, tmp_path):
    result = run_recipe(recipe_of(postprocess=["query_expansion"], train={"epochs": 1}), data=mini, out=tmp_path)
    place = result.folder / "default" / "seed42"
    told, kept, test = metrics_of(place), np.load(place / "validation.npz"), np.load(place / "test.npz")
    expanded = jaguar_kit.similarity_matrix(jaguar_kit.query_expansion(kept["embeddings"]))
    assert told["map_postprocessed"] == pytest.approx(jaguar_kit.identity_balanced_map(expanded, kept["labels"]))
    assert [row["steps"] for row in told["postprocess"]] == ["raw", "query_expansion"]
    final = jaguar_kit.similarity_matrix(jaguar_kit.query_expansion(test["embeddings"]))
    np.testing.assert_allclose(test["similarity"], final, atol=1e-6)
    assert told["test_map"] != told["test_map_postprocessed"]


def test_a_second_process_is_kept_out(mini, tmp_path):
    place = tmp_path / f"tiny@{mini.name}" / "default" / "seed42"
    with jaguar_kit.only_one(place), pytest.raises(jaguar_kit.KitError, match="another process is at work"):
        run_recipe(recipe_of(), data=mini, out=tmp_path, force=True)


FULL_DISKS = """
mkdir results cache
for folder in results cache; do mount -t tmpfs -o size=300k tmpfs $folder; done
exec "$@"
"""
BOTH_FULL = """
import jaguar_kit, os, sys
for out, cache, size in (("results/runs", "plenty", 32), ("out", "cache", 256)):
    os.environ[jaguar_kit.CACHE_VARIABLE] = cache
    argv = ["tiny.yaml", "--data", sys.argv[1], "--out", out, "-o", f"data.size={size}"]
    print(jaguar_kit.main(jaguar_kit.run_command, argv), file=sys.stderr)
"""


@pytest.mark.ci
@pytest.mark.skipif(not CAN_MOUNT, reason="needs user and mount namespaces (unshare -rm)")
def test_a_full_disk_is_told_in_one_line(tiny, mini, tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    program = [sys.executable, "-c", BOTH_FULL, str(mini)]
    line, settings = ["unshare", "-rm", "bash", "-c", FULL_DISKS, "bash", *program], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(line, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    of_results, first, of_cache, second = done.stderr.splitlines()
    assert (first, second) == ("2", "2")
    assert re.match("error: results/.*can't be written", of_results)
    assert re.match("error: cache/.*can't be written", of_cache)


def test_a_submission_is_made_again_from_weights_without_training(finished, mini, tmp_path):
    weights = finished.folder / "default" / "seed42"
    recipe = recipe_of(checkpoint=str(weights), train={"epochs": 0})
    again = run_recipe(recipe, data=mini, out=tmp_path)
    place = again.folder / "default" / "seed42"
    assert (place / "submission.csv").read_bytes() == (weights / "submission.csv").read_bytes()
    assert metrics_of(place)["map"] == metrics_of(weights)["map"]


def test_a_checkpoint_of_another_model_is_refused(finished, mini, tmp_path):
    recipe = recipe_of(
        checkpoint=str(finished.folder / "default" / "seed42"), model={"head": {"name": "mlp", "hidden": 64}}
    )
    with pytest.raises(jaguar_kit.KitError, match="weights of another model"):
        run_recipe(recipe, data=mini, out=tmp_path)


def test_variants_and_seeds_each_get_a_folder_and_a_row(mini, tmp_path):
    variants = {"small": {"why": "less"}, "large": {"train": {"epochs": 2}}}
    result = run_recipe(recipe_of(variants=variants, seeds=[1, 2], **FROZEN), data=mini, out=tmp_path)
    assert list(zip(result.table.variant, result.table.seed)) == [
        ("small", 1),
        ("small", 2),
        ("large", 1),
        ("large", 2),
    ]
    assert list(result.table.epochs) == [1, 1, 2, 2]


def test_folds_validate_every_image_once_and_share_a_submission(mini, tmp_path):
    recipe = recipe_of(data={"split": {"name": "kfold", "folds": 3}}, **FROZEN)
    place = run_recipe(recipe, data=mini, out=tmp_path).folder / "default" / "seed42"
    kept = np.load(place / "oof_similarity.npz")
    images = np.concatenate([kept[f"images{k}"] for k in range(3)])
    assert sorted(images) == sorted(pd.read_csv(mini / "train.csv").filename)
    assert kept["similarity0"].shape == (len(kept["images0"]),) * 2
    jaguar_kit.validate_submission(place / "submission.csv", mini / "test.csv")
    told = [metrics_of(place / f"fold{k}")["map"] for k in range(3)]
    assert metrics_of(place)["map"] == pytest.approx(np.mean(told))


def test_frozen_features_are_extracted_once_and_train_as_whole_images_do(mini, tmp_path, monkeypatch):
    cached = run_recipe(recipe_of(**FROZEN), data=mini, out=tmp_path / "cached")
    monkeypatch.setattr(jaguar_kit.Preparation, "fixed", False)
    whole = run_recipe(recipe_of(**FROZEN), data=mini, out=tmp_path / "whole")
    assert cached.table["map"][0] == pytest.approx(whole.table["map"][0], abs=0.01)


DRAWN = {"model": {"freeze": True}, "train": {"epochs": 3}}  # a frozen backbone behind TINY's augmentations


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """How many images went through a frozen backbone at a time, with nothing in the cache at first."""
    monkeypatch.setenv(jaguar_kit.CACHE_VARIABLE, str(tmp_path / "cache"))
    counts, pooled = [], jaguar_kit.NativePooling.features

    def counted(self, backbone, images):
        counts.append(len(images))
        return pooled(self, backbone, images)

    monkeypatch.setattr(jaguar_kit.NativePooling, "features", counted)
    return counts


def test_random_images_go_through_a_frozen_backbone_each_epoch_others_once(seen, mini, tmp_path):
    result = run_recipe(recipe_of(**DRAWN), data=mini, out=tmp_path)
    training, test = (len(list((mini / part / part).glob("*.png"))) for part in ("train", "test"))
    validation = len(np.load(result.folder / "default" / "seed42" / "validation.npz")["labels"])
    assert sum(seen) == training + test + 3 * (training - validation)


@pytest.mark.ci
@pytest.mark.parametrize("random", [{}, {"augment": [], "background": "noise"}], ids=["augmentation", "background"])
def test_kept_views_go_through_the_backbone_once_for_all_runs_of_a_seed(random, seen, mini, tmp_path):
    variants = {"narrow": {}, "wide": {"model": {"head": {"name": "mlp", "hidden": 64}}}}
    recipe = recipe_of(model={"freeze": True}, train={"epochs": 3, "views": 2}, variants=variants, **random)
    result = run_recipe(recipe, data=mini, out=tmp_path)
    training, test = (len(list((mini / part / part).glob("*.png"))) for part in ("train", "test"))
    assert sum(seen) == training + test + 2 * training
    assert "narrow, wide saw 2 random views of each training image, in turn" in result.report.read_text()
    for variant in variants:
        losses = pd.read_csv(result.folder / variant / "seed42" / "log.csv").train_loss[1:]
        assert losses.nunique() == len(losses)


def test_views_of_images_on_which_nothing_is_random_are_the_images(seen, mini, tmp_path):
    plain = {**DRAWN, "augment": []}
    once = run_recipe(recipe_of(**plain), data=mini, out=tmp_path / "once")
    told = len(seen)
    views = run_recipe(recipe_of(**{**plain, "train": {"epochs": 3, "views": 3}}), data=mini, out=tmp_path / "views")
    assert len(seen) == told
    assert metrics_of(views.folder / "default" / "seed42") == metrics_of(once.folder / "default" / "seed42")
    assert "random views" not in views.report.read_text()


def test_an_interrupted_run_on_kept_views_ends_as_if_nothing_had_been(mini, tmp_path, monkeypatch):
    recipe = recipe_of(**{**DRAWN, "train": {"epochs": 3, "views": 2}})
    whole = run_recipe(recipe, data=mini, out=tmp_path / "whole").folder / "default" / "seed42"
    plain, calls = jaguar_kit.Checkpointer.save_or_stop, []

    def interrupted(self, *due, **late):
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return plain(self, *due, **late)

    monkeypatch.setattr(jaguar_kit.Checkpointer, "save_or_stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, data=mini, out=tmp_path / "cut")
    monkeypatch.undo()
    place = tmp_path / "cut" / whole.relative_to(tmp_path / "whole")
    assert not (place / "metrics.json").exists()
    run_recipe(recipe, data=mini, out=tmp_path / "cut")
    assert metrics_of(place) == metrics_of(whole)
    learned, expected = (jaguar_kit.load_weights(folder)[0] for folder in (place, whole))
    assert learned.keys() == expected.keys()
    assert all(torch.equal(learned[key], expected[key]) for key in expected)


def test_views_of_a_backbone_that_learns_or_of_mixed_images_are_refused():
    with pytest.raises(jaguar_kit.KitError, match=r"train\.views: 4 .* learns \(model\.freeze: false\)"):
        recipe_of(train={"views": 4})
    with pytest.raises(jaguar_kit.KitError, match=r"train\.views: 4 .* mixed \(mixup\) \(expected train\.views: 0\)"):
        recipe_of(model={"freeze": True}, train={"views": 4, "mix": "mixup"})


def test_plain_folders_of_identities_train_without_a_test_set(mini, tmp_path):
    views = pd.read_csv(mini / "views.csv").query("split == 'train'")
    for row in views.itertuples():
        target = tmp_path / "cats" / row.identity / row.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mini / row.path, target)
    result = run_recipe(recipe_of(train={"epochs": 1}), data=tmp_path / "cats", out=tmp_path)
    place = result.folder / "default" / "seed42"
    assert not (place / "submission.csv").exists()
    assert metrics_of(place)["map"] > 0


@pytest.fixture(scope="module")
def small(mini, tmp_path_factory):
    """Weights that stand in for those that a smoke run begins with: random, but they tell images apart."""
    paths = sorted((mini / "train" / "train").iterdir())
    images = np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32)), np.float32) for path in paths])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        backbone = jaguar_kit.create_backbone("test_resnet").train()
        for _ in range(30):  # its batch norms learn what is usual
            backbone((torch.from_numpy(images.transpose(0, 3, 1, 2).copy()) - 128) / 64)
    path = tmp_path_factory.mktemp("small") / "test_resnet.safetensors"
    return jaguar_kit.save_backbone(path, backbone.eval(), "test_resnet")


RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.ci
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_a_smoke_run(path, small, tmp_path, monkeypatch):
    """Every variant of it is trained, on fewer images than the command's, and for one epoch."""
    monkeypatch.setattr(report_room, "SHOWN", 1)
    recipe = smaller(jaguar_kit.smoke(load_recipe(path), small))
    result = run_recipe(recipe, out=tmp_path)
    page = result.report.read_text()
    assert recipe.question.split()[0] in page
    assert not result.failed
    if recipe.analysis and not recipe.train.epochs:
        assert result.table.empty
        assert list((result.folder / "analysis").glob("*.csv"))
    else:
        wanted = {cell.variant for cell in jaguar_kit.expand(recipe)} if not recipe.search else {"baseline", "best"}
        assert wanted <= set(result.table.variant)
        measured = "test_map" if recipe.data.split.name == "all" else "map"  # where all train, none validates
        assert result.table[measured].between(0, 1).all()
        assert "Findings" in page


@pytest.mark.ci
def test_smoke_runs_begin_with_a_small_backbone_that_is_trained_once(tmp_path, monkeypatch):
    whole, names = jaguar_kit.run_recipe, []

    def shrunk(recipe, *arguments, **settings):
        names.append(recipe.name)
        recipe = jaguar_kit.override(recipe, "data.mini={identities: 4, images: 32}", "here")
        return whole(jaguar_kit.override(recipe, "train.epochs=1", "here"), *arguments, **settings)

    monkeypatch.setenv(jaguar_kit.CACHE_VARIABLE, str(tmp_path / "cache"))
    for place in (jaguar_kit, smoke_room):
        monkeypatch.setattr(place, "run_recipe", shrunk)
    for out in ("first", "second"):
        argv = [str(ROOT / "recipes" / "frozen_dino.yaml"), "--smoke", "--out", str(tmp_path / out)]
        assert jaguar_kit.main(jaguar_kit.run_command, argv) == 0
        (folder,) = (tmp_path / out).iterdir()
        kept = yaml.safe_load((folder / "default" / "seed42" / "recipe.yaml").read_text())
        assert kept["model"]["weights"] == str(jaguar_kit.small_backbone())
    assert names == ["small", "frozen_dino-smoke", "frozen_dino-smoke"]


def spoil_column(folder, recipe):
    table = folder / "train.csv"
    table.write_text(table.read_text().replace("ground_truth", "label"))


def spoil_images(folder, recipe):
    for name in ("train_0001.png", "train_0002.png"):
        (folder / "train" / "train" / name).unlink()


def spoil_broken(folder, recipe):
    image = folder / "train" / "train" / "train_0003.png"
    image.write_bytes(image.read_bytes()[:200])


def spoil_duplicate(folder, recipe):
    table = folder / "train.csv"
    table.write_text(table.read_text() + "train_0001.png,cat00\n")


def spoil_empty(folder, recipe):
    (folder / "train.csv").write_text("filename,ground_truth\n")


def spoil_escape(folder, recipe):
    table = folder / "train.csv"
    table.write_text(table.read_text() + "../../secret.png,cat00\n")


def spoil_test_pair(folder, recipe):
    table = folder / "test.csv"
    table.write_text(table.read_text() + "999999,test_0001.png,test_9999.png\n")


def spoil_masks(folder, recipe):
    for image in folder.glob("*/*/*.png"):
        Image.open(image).convert("RGB").save(image)


def spoil_number(folder, recipe):
    recipe.write_text(recipe.read_text() + "seed: [1]\n")


def spoil_setting(folder, recipe):
    recipe.write_text(recipe.read_text().replace("batch_size", "batchsize"))


def spoil_yaml(folder, recipe):
    recipe.write_text("name: [tiny")


def spoil_folder(folder, recipe):
    shutil.rmtree(folder)


FAULTS = [
    (spoil_column, [], r"train\.csv: column 'ground_truth' is missing"),
    (spoil_images, [], r"2 images are not in .*: train_0001\.png, train_0002\.png"),
    (spoil_broken, [], r"1 images can't be read: .*train_0003\.png.*data\.bad_images: skip"),
    (spoil_duplicate, [], r"filename: more than one row for train_0001\.png"),
    (spoil_empty, [], r"train\.csv: has no rows"),
    (spoil_escape, [], r"'\.\./\.\./secret\.png' is not an image inside"),
    (spoil_test_pair, [], r"test\.csv: 1 images are not in .*test_9999\.png"),
    (spoil_masks, [], r"background: 'black' needs masks"),
    (spoil_number, [], r"tiny\.yaml: seed: \[1\] is not a whole number"),
    (spoil_setting, [], r"tiny\.yaml: train\.batchsize: there is no such setting; did you mean 'batch_size'"),
    (spoil_yaml, [], r"tiny\.yaml: line 1: not valid YAML"),
    (spoil_folder, [], r"there is no such folder"),
    (None, ["-o", "train.lr=abc"], r"train\.lr: 'abc' is not a number \(example: 5e-4\)"),
    (None, ["-o", "loss.margin=9"], r"loss\.margin: 9\.0 is out of range"),
    (None, ["-o", "loss=arcfase"], r"there is no loss 'arcfase'; did you mean 'arcface'"),
    (None, ["-o", "model.backbone=resnet51"], r"no 'resnet51'; did you mean 'resnet"),
    (None, ["--device", "tpu"], r"device: 'tpu' is not known"),
    (None, ["-o", "checkpoint=nowhere.safetensors"], r"nowhere\.safetensors: there is no such"),
]


@pytest.mark.parametrize(("spoil", "arguments", "words"), FAULTS)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(spoil, arguments, words, mini, tiny, tmp_path, capsys):
    folder = Path(shutil.copytree(mini, tmp_path / "data"))
    if spoil:
        spoil(folder, tiny)
    argv = [str(tiny), "--data", str(folder), "--out", str(tmp_path / "out"), *arguments]
    assert jaguar_kit.main(jaguar_kit.run_command, argv) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert told[0].startswith("error: ")
    assert re.search(words, told[0]), told[0]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


# reports made again, and comparisons


def report(*arguments):
    return jaguar_kit.main(report_tool.report_command, [str(a) for a in arguments])


def test_a_half_finished_grid_is_reported_without_training(mini, tmp_path):
    recipe = recipe_of(grid={"train.lr": [1e-3, 2e-3]}, question="How fast?", **FROZEN)
    whole = run_recipe(recipe, data=mini, out=tmp_path)
    left = whole.folder / "lr=0.002"
    shutil.rmtree(left)
    again = report_tool.remake_report(whole.folder)
    told = again.report.with_suffix(".md").read_text()
    assert "1 of 2 runs are not there yet" in told
    assert "How fast?" in told
    assert not left.exists()
    assert list(again.table.variant) == ["lr=0.001"]
    assert list(pd.read_csv(whole.folder / "results.csv").variant) == ["lr=0.001"]


def test_a_report_is_made_again_by_the_command(finished, mini, tmp_path):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    (folder / "report.html").unlink()
    (folder / "interpretation.md").write_text("By hand.")
    assert report(folder) == 0
    assert "By hand." in (folder / "report.html").read_text()
    assert (folder / "interpretation.md").read_text() == "By hand."


def test_experiments_are_compared_on_one_page(finished, tmp_path):
    other = Path(shutil.copytree(finished.folder, tmp_path / "other"))
    table = pd.read_csv(other / "results.csv")
    table.assign(map=table["map"] / 2).to_csv(other / "results.csv", index=False)
    assert report(finished.folder, other, "--out", tmp_path / "both") == 0
    told = (tmp_path / "both" / "report.md").read_text()
    assert f"other: default - {finished.folder.name}: default | 1 | {-table['map'][0] / 2:.4f}" in told
    assert "not distinguishable" in told
    assert (tmp_path / "both" / "figures" / "map.png").is_file()


def test_a_comparison_counts_seeds_that_decide_nothing_as_one(finished, tmp_path, capsys):
    other = Path(shutil.copytree(finished.folder, tmp_path / "other"))
    table = pd.read_csv(other / "results.csv")
    shutil.copytree(other / "default" / "seed42", other / "default" / "seed7")
    pd.concat([table, table.assign(seed=7)]).to_csv(other / "results.csv", index=False)
    assert report(finished.folder, other, "--out", tmp_path / "both") == 0
    assert f"| other: default | 1 | {table['map'][0]:.4f} |" in (tmp_path / "both" / "report.md").read_text()
    assert report(finished.folder, other, other, "--out", tmp_path / "again") == 2
    assert f"{other}: is named twice" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2])
def test_folders_without_results_are_told_in_one_line(count, tmp_path, capsys):
    folders = [tmp_path / f"empty{i}" for i in range(count)]
    assert report(*folders, *(["--out", tmp_path / "out"] if count > 1 else [])) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(folders[0]) in told
    assert not (tmp_path / "out").exists()


# which images train and validate


def kept_of(result, variant="default", seed=42):
    return set(np.load(result.folder / variant / f"seed{seed}" / "validation.npz")["images"])


@pytest.mark.ci
def test_a_subset_trains_alone_or_changes_the_split_too(mini, tmp_path):
    train = pd.read_csv(mini / "train.csv")
    listed = train.groupby("ground_truth").head(6)
    listed.to_csv(tmp_path / "listed.csv", index=False)
    subset = {"subset": str(tmp_path / "listed.csv")}
    variants = {
        "full": {},
        "training": {"data": {**subset, "subset_applies_to": "training"}},
        "all": {"data": {**subset, "subset_applies_to": "all"}},
    }
    recipe = recipe_of(variants=variants, **FROZEN)
    result = run_recipe(recipe, data=mini, out=tmp_path / "out")
    assert kept_of(result, "training") == kept_of(result, "full")
    assert kept_of(result, "all") <= set(listed.filename)
    assert f"{len(listed)} of {len(train)} training images (training)" in result.report.read_text()
    competition = jaguar_kit.load_competition(mini)
    opened = {c.variant: jaguar_kit.open_data(c.recipe, competition) for c in jaguar_kit.expand(recipe)}
    assert len(opened["all"].competition.train) == len(listed)
    rows, held_out = opened["training"].splits[0]
    names = opened["training"].competition.train.filename
    assert set(names.iloc[rows]) == set(listed.filename) - set(names.iloc[held_out])


def test_a_subset_with_an_unknown_name_is_told_in_one_line(tiny, mini, tmp_path, capsys):
    (tmp_path / "listed.csv").write_text("filename\ntrain_0001.png\nnobody.png\n")
    argv = [tiny, "--data", mini, "--out", tmp_path / "out", "-o", f"data.subset={tmp_path / 'listed.csv'}"]
    assert jaguar_kit.main(jaguar_kit.run_command, [str(a) for a in argv]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "listed.csv: filename: 1 are no training images: nobody.png" in told
    assert not (tmp_path / "out").exists()


def test_each_seed_may_have_a_split_of_its_own(mini, tmp_path):
    for own in (False, True):
        recipe = recipe_of(data={"split_by_seed": own}, seeds=[1, 2], **{**FROZEN, "train": {"epochs": 0}})
        result = run_recipe(recipe, data=mini, out=tmp_path / str(own))
        assert (kept_of(result, seed=1) == kept_of(result, seed=2)) == (not own)


def test_other_backgrounds_are_measured_and_reliance_reported(mini, tmp_path):
    raw = {**TINY, "train": {"epochs": 1}, "background": "original", "test_backgrounds": ["swap", "background_only"]}
    result = run_recipe(recipe_from_dict(raw), data=mini, out=tmp_path)
    row = pd.read_csv(result.folder / "results.csv").iloc[0]
    assert 0 < row["map@chance"] < 1
    told = (result.folder / "report.md").read_text()
    assert f"{row['map@swap']:.4f} behind the backgrounds of other images" in told
    assert f"it loses {row['map'] - row['map@swap']:.4f}" in told
    assert "| reliance |" in told


@pytest.mark.ci
def test_a_variant_trains_on_what_curation_left(mini, tmp_path):
    variants = {"full": {}, "curated": {"data": {"subset": "analysis/curated.csv"}}}
    analysis = [{"name": "curation", "duplicate": 1.0}]  # to a backbone that learned nothing all are alike
    recipe = recipe_of(analysis=analysis, variants=variants, **FROZEN)
    result = run_recipe(recipe, data=mini, out=tmp_path)
    curated = pd.read_csv(result.folder / "analysis" / "curated.csv").filename
    removed = pd.read_csv(result.folder / "analysis" / "removed.csv")
    train = pd.read_csv(mini / "train.csv").filename
    assert sorted([*curated, *removed.filename]) == sorted(train)
    assert len(removed)
    assert removed.reason.notna().all()
    assert kept_of(result, "curated") <= set(curated)
    assert f"{len(curated)} of {len(train)} training images (all)" in result.report.read_text()


# search

SPACE = {
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss.margin": {"low": 0.1, "high": 0.4},
    "model.head.layers": {"choices": [1, 2]},
}


def searching(trials):
    return recipe_of(search={"trials": trials, "space": SPACE}, **FROZEN)


@pytest.mark.ci
def test_a_second_backbone_is_compared_by_weights_of_its_own(mini, tmp_path, monkeypatch):
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path))
    for name in ("test_resnet", "test_convnext"):
        jaguar_kit.save_backbone(tmp_path / f"{name}.safetensors", jaguar_kit.create_backbone(name), name)
    model = {"pretrained": True, "freeze": True, "weights": str(tmp_path / "test_resnet.safetensors")}
    analysis = [{"name": "duplicates", "against": "test_convnext"}]
    result = run_recipe(recipe_of(model=model, analysis=analysis, train={"epochs": 0}), data=mini, out=tmp_path)
    assert (result.folder / "figures" / "pairs-test_convnext.png").is_file()


@pytest.mark.ci
def test_a_search_leaves_its_best_recipe_and_resumes(mini, tmp_path):
    first = run_recipe(searching(2), data=mini, out=tmp_path)
    trials = first.folder / "trials"
    before = {p: p.stat().st_mtime_ns for p in trials.glob("*/metrics.json")}
    assert len(before) == 2
    assert list(first.table.variant) == ["baseline", "best"]
    best = load_recipe(first.folder / "best.yaml")
    assert best.search is None
    assert 1e-4 <= best.train.lr <= 1e-2
    assert 0.1 <= best.loss.settings["margin"] <= 0.4
    assert best.model.head.settings["layers"] in (1, 2)
    assert all(name in (first.folder / "report.md").read_text() for name in SPACE)
    run_recipe(searching(3), data=mini, out=tmp_path)
    after = {p: p.stat().st_mtime_ns for p in trials.glob("*/metrics.json")}
    assert len(after) == 3
    assert after.items() >= before.items()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"train.learning": {"low": 1, "high": 2}}, r"search\.space\.train\.learning: .*there is no such setting"),
        ({"loss.margin": {"low": 0.1, "high": 9}}, r"loss\.margin: 9\.0 is out of range"),
        ({"train.schedule": {"choices": ["none", "cosinus"]}}, r"there is no schedule 'cosinus'"),
        ({"train.lr": {"low": 1e-5}}, r"search\.space\.train\.lr: .* is no range"),
        ({"train.lr": {"low": "abc", "high": 1}}, r"'abc' is not a number"),
    ],
)
def test_a_wrong_space_is_refused_before_work(space, words, mini, tmp_path, capsys):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**TINY, "search": {"space": space}}))
    argv = [str(path), "--data", str(mini), "--out", str(tmp_path / "out")]
    assert jaguar_kit.main(jaguar_kit.run_command, argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(words, told), told
    assert not (tmp_path / "out").exists()


# ensembles


FUSED = {
    "mean": lambda given, *_: (given[0] + given[1]) / 2,
    "rank": lambda given, *_: jaguar_kit.rank_average(*given),
    "calibrated": lambda given, pairs, same: np.mean([jaguar_kit.fit_calibration(s[pairs], same)(s) for s in given], 0),
}


@pytest.mark.ci
def test_an_ensemble_is_what_its_formula_says(mini, tmp_path):
    steps = [{"name": "query_expansion", "k": 2}]
    for kind, formula in FUSED.items():
        result = run_recipe(recipe_of(seeds=[1, 2], ensemble=kind, postprocess=steps, **FROZEN), mini, tmp_path / kind)
        runs = [np.load(result.folder / "default" / f"seed{seed}" / "validation.npz") for seed in (1, 2)]
        labels, given = runs[0]["labels"], [run["similarity"] for run in runs]
        pairs = ~np.eye(len(labels), dtype=bool)
        same = (labels[:, None] == labels)[pairs]
        told = json.loads((result.folder / "ensemble" / "metrics.json").read_text())
        expected = jaguar_kit.identity_balanced_map(formula(given, pairs, same), labels)
        assert told["map"] == pytest.approx(expected), kind
        assert told["runs"] == ["default/seed1", "default/seed2"]
        rows = jaguar_kit.validate_submission(result.folder / "ensemble" / "submission.csv", mini / "test.csv")["rows"]
        assert rows == len(jaguar_kit.load_pairs(mini / "test.csv"))
        assert "## Ensemble" in (result.folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ensemble": "mean", "data": {"split": {"name": "kfold", "folds": 2}}}, "without folds"),
        ({"ensemble": "mean", "variants": {"a": {}, "b": {"data": {"bad_images": "skip"}}}}, "same images"),
        ({"ensemble": "calibrated", "data": {"split": "all"}}, "needs validation images"),
    ],
)
def test_an_ensemble_of_what_does_not_fit_together_is_refused(changes, words, mini, tmp_path):
    with pytest.raises(jaguar_kit.KitError, match=words):
        run_recipe(recipe_of(**changes), mini, tmp_path)
    assert not any(tmp_path.iterdir())


# what is told of runs that differ in seeds, images or data


@pytest.fixture
def without_details(monkeypatch):
    """Reports have words and tables only, which take no time."""
    for part in ("report_curves", "report_detail", "run_details"):
        monkeypatch.setattr(report_room, part, lambda *_: None)


def test_an_interim_page_compares_by_the_seeds_that_all_variants_have(mini, tmp_path, without_details, monkeypatch):
    """After three of four runs one variant has both seeds, and the other has the first alone."""
    pages, report_so_far = [], runs_room.Between.report

    def watched(between):
        report_so_far(between)
        pages.append((between.experiment.folder / "report.md").read_text())

    for name in ("REPORTS", "FIRST_REPORT"):
        monkeypatch.setattr(runs_room, name, 0)
    monkeypatch.setattr(runs_room.Between, "report", watched)
    recipe = recipe_of(variants={"slow": {}, "fast": {"train": {"lr": 4e-3}}}, seeds=[1, 2], **FROZEN)
    result = run_recipe(recipe, data=mini, out=tmp_path)
    maps = result.table.set_index(["variant", "seed"])["map"]
    assert len(pages) == 3
    for variant in ("slow", "fast"):
        assert f"| {variant} | 1 | {maps[variant, 1]:.4f} |" in pages[2]
        assert f"| {variant} | 2 | {maps[variant].mean():.4f} |" in result.report.with_suffix(".md").read_text()
    assert f"{maps['slow', 2]:.4f}" in pages[1]
    assert f"{maps['slow', 2]:.4f}" not in pages[2]


def chosen_of(folder: Path, *variants: str, **scores) -> str:
    """The submission that a terminal names, below the folder, of a table with three seeds of each variant."""
    runs = [(variant, seed) for variant in variants for seed in (1, 2, 3)]
    for variant, seed in runs:
        place = folder / variant / f"seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "submission.csv").touch()
    table = pd.DataFrame(runs, columns=["variant", "seed"]).assign(**scores)
    lines = jaguar_kit.closing_lines(jaguar_kit.Result(folder, table, None), False)
    (told,) = [line for line in lines if line.startswith("  submission: ")]
    return str(Path(told.partition(": ")[2]).parent.relative_to(folder))


def test_the_submission_is_that_of_the_median_run_of_the_best_variant(tmp_path):
    maps = [0.80, 0.82, 0.81, 0.60, 0.90, 0.62]  # the highest single score is one lucky seed of the worse variant
    assert chosen_of(tmp_path, "steady", "lucky", map=maps) == "steady/seed3"
    processed = [0.30, 0.20, 0.40, 0.70, 0.60, 0.50]  # which is what is submitted
    assert chosen_of(tmp_path, "steady", "lucky", map=maps, map_postprocessed=processed) == "lucky/seed2"
    none = [np.nan] * 3  # the first variant has no steps, and submits raw similarities
    assert chosen_of(tmp_path, "raw", "steps", map=maps, map_postprocessed=[*none, 0.7, 0.6, 0.5]) == "raw/seed3"
    named = [0.50, 0.90, 0.60, 0.10, 0.20, 0.30]
    scores = {"map": maps, "map_postprocessed": processed, "open_set": named}
    assert chosen_of(tmp_path, "steady", "lucky", **scores) == "steady/seed3"
    assert chosen_of(tmp_path, "one", "other", map=[np.nan] * 6) == "one/seed1", "where nothing was validated"


def test_folds_tell_which_images_they_were_validated_on(mini, tmp_path, without_details):
    listed = pd.read_csv(mini / "train.csv").groupby("ground_truth").head(6)
    listed.to_csv(tmp_path / "listed.csv", index=False)
    fewer = {"subset": str(tmp_path / "listed.csv"), "subset_applies_to": "all"}
    variants = {"all": {}, "quick": {"train": {"lr": 4e-3}}, "fewer": {"data": fewer}}
    recipe = recipe_of(data={"split": {"name": "kfold", "folds": 2}}, variants=variants, **FROZEN)
    result = run_recipe(recipe, data=mini, out=tmp_path / "out")
    table = pd.read_csv(result.folder / "results.csv").set_index("variant")
    assert table.validated_on.notna().all()
    assert table.validated_on["all"] == table.validated_on["quick"] != table.validated_on["fewer"]
    told = (result.folder / "report.md").read_text()
    difference = table["map"]["fewer"] - table["map"]["all"]
    assert f"fewer - all: {difference:+.4f}, on other validation images, so that nothing is paired." in told
    assert "quick - all: " in told
    assert not re.search("quick - all: .* on other validation images", told)


def test_without_validation_several_runs_end_with_a_report_and_a_submission(mini, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jaguar_kit.Page, "figure", DRAW)
    variants = {"one": {}, "two": {"train": {"lr": 4e-3}}}
    recipe = recipe_of(data={"split": "all"}, variants=variants, seeds=[1, 2], **FROZEN)
    result = run_recipe(recipe, data=mini, out=tmp_path)
    assert result.table["map"].isna().all()
    assert len(result.table) == 4
    told = capsys.readouterr().out
    assert f"submission: {result.folder / 'one' / 'seed1' / 'submission.csv'}" in told
    assert "Nothing was validated" in result.report.with_suffix(".md").read_text()
    for row in result.table.itertuples():
        path = result.folder / row.variant / f"seed{row.seed}" / "submission.csv"
        assert jaguar_kit.validate_submission(path, mini / "test.csv")["rows"] > 0


def first_two_swapped(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table, in which two rows of different values in this column have changed them."""
    other = int((table[column] != table[column][0]).to_numpy().argmax())
    values = table[column].copy()
    values[0], values[other] = values[other], values[0]
    return table.assign(**{column: values})


@pytest.mark.parametrize("name", ["solution.csv", "views.csv"])
def test_a_finished_run_is_not_kept_where_what_is_known_of_test_images_changed(name, mini, tmp_path, without_details):
    data = Path(shutil.copytree(mini, tmp_path / "data"))
    run = partial(run_recipe, recipe_of(**FROZEN), data=data, out=tmp_path / "out")
    first = run()
    table = pd.read_csv(data / name)
    part = table[table.split == "test"].reset_index(drop=True) if name == "views.csv" else table
    others = table[table.split != "test"] if name == "views.csv" else table[:0]
    column = "flank" if name == "views.csv" else "ground_truth"
    pd.concat([others, first_two_swapped(part, column)]).to_csv(data / name, index=False)
    with pytest.raises(jaguar_kit.KitError, match=r"the data: other images or labels.*--force"):
        run()
    again = run(force=True)
    assert (again.folder / "default" / "seed42.old1").is_dir()
    assert again.table["map"][0] == first.table["map"][0]
    assert (again.table.test_map[0] == first.table.test_map[0]) == (name == "views.csv")
    pd.testing.assert_frame_equal(run().table, again.table)


def test_a_recipe_may_be_a_mapping(finished, mini):
    result = run_recipe(TINY, data=mini, out=finished.folder.parent)
    pd.testing.assert_frame_equal(result.table, finished.table)


# parts that a notebook adds

NOTEBOOK = """
from __future__ import annotations

from typing import Annotated

import jaguar_kit
import torch
from jaguar_kit import Range, register

Quarters = Annotated[float, Range(low=0, high=0.75)]  # a type that the kit does not know
used = {}


def see(kind, share):
    used[kind] = share


@register("loss", "own")
class OwnLoss(jaguar_kit.ArcFace):
    share: Quarters = 0.5

    def per_sample_loss(self, embeddings, labels):
        see("loss", self.share)
        return super().per_sample_loss(embeddings, labels)


@register("loss", "own_from_nothing")
class LossFromNothing(jaguar_kit.IdentityLoss):
    per_sample = True
    share: Quarters = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.weight = torch.nn.Parameter(torch.zeros(self.num_identities, self.embedding_dim))

    def per_sample_loss(self, embeddings, labels):
        see("summand", self.share)
        distance = (embeddings - self.weight[labels]).square().sum(1)
        return distance, torch.ones_like(labels, dtype=torch.bool)


@register("background", "own")
class OwnBackground(jaguar_kit.Background):
    share: Quarters = 0.5

    def paint(self, rgb, alpha):
        see("background", self.share)
        return torch.full_like(rgb, self.share)


@register("augmentation", "own")
class OwnAugmentation(jaguar_kit.Part):
    share: Quarters = 0.5

    def forward(self, rgb):
        see("augmentation", self.share)
        return rgb * (1 - self.share)


@register("pooling", "own")
class OwnPooling(jaguar_kit.AveragePooling):
    share: Quarters = 0.5

    def reduce(self, places):
        see("pooling", self.share)
        return super().reduce(places) * self.share


@register("geometry", "own")
class OwnGeometry(jaguar_kit.Cosine):
    share: Quarters = 0.5

    def similarity(self, points, others):
        see("geometry", self.share)
        return super().similarity(points, others)


@register("head", "own")
def own_head(in_features: int, share: Quarters = 0.5):
    see("head", share)
    return torch.nn.Linear(in_features, 8)


@register("mix", "own")
def own_mix(images, share: Quarters = 0.5):
    see("mix", share)
    return images, torch.arange(len(images)), torch.ones(len(images))


@register("sampler", "own")
def own_sampler(rows, codes, batch_size, rng, share: Quarters = 0.5):
    see("sampler", share)
    return jaguar_kit.random_batches(rows, codes, batch_size, rng)


@register("optimizer", "own")
def own_optimizer(parameters, lr, weight_decay, share: Quarters = 0.5):
    see("optimizer", share)
    return torch.optim.SGD(parameters, lr=lr)


@register("schedule", "own")
def own_schedule(optimizer, share: Quarters = 0.5):
    see("schedule", share)
    return jaguar_kit.Schedule(torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0))


@register("split", "own")
def own_split(train, hashes, split_seed, share: Quarters = 0.5):
    see("split", share)
    return jaguar_kit.build("split", "stratified", train=train, hashes=hashes, split_seed=split_seed)


@register("postprocess", "own")
def own_step(state, share: Quarters = 0.5):
    see("postprocess", share)
    return jaguar_kit.query_expansion_step(state, k=1)


@register("ensemble", "own")
def own_fusion(held_out, share: Quarters = 0.5):
    see("ensemble", share)
    return lambda told: sum(one.similarity for one in told)
"""


@pytest.fixture
def notebook(monkeypatch):
    """A module that registers a part of every kind, as cells of a notebook would."""
    monkeypatch.setattr(jaguar_kit, "REGISTRY", dict(jaguar_kit.REGISTRY))
    module = ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    exec(compile(NOTEBOOK, "notebook", "exec"), vars(module))
    return module


def test_a_recipe_uses_parts_of_every_kind_that_a_notebook_adds(notebook, mini, tmp_path, without_details):
    own = {"name": "own", "share": "0.25"}
    parts = [own, {"name": "own_from_nothing", "share": 0.25}]
    train = {"epochs": 1, "batch_size": 16, **dict.fromkeys(("mix", "sampler", "optimizer", "schedule"), own)}
    recipe = recipe_from_dict(
        {
            **TINY,
            "data": {"size": 32, "split": own},
            "background": own,
            "augment": [own],
            "model": {**TINY["model"], "pooling": own, "head": own, "geometry": own},
            "loss": {"name": "sum", "parts": parts},
            "train": train,
            "postprocess": [own],
            "ensemble": own,
        }
    )
    result = run_recipe(recipe, data=mini, out=tmp_path)
    kinds = {kind for kind, _ in jaguar_kit.REGISTRY} - {"analysis", "duplicates"}
    assert notebook.used == dict.fromkeys([*kinds, "summand"], 0.25)
    assert 0 < result.table["map"][0] <= 1


def test_a_part_of_a_notebook_is_checked_by_its_own_types_and_those_that_it_inherits(notebook):
    for settings, words in (
        ({"share": 0.8}, r"loss\.share: 0\.8 is out of range \(expected at least 0 and at most 0\.75\)"),
        ({"margin": 30}, r"loss\.margin: 30\.0 is out of range"),
        ({"beta": 2}, r"loss\.beta: 2\.0 is out of range"),
        ({"shares": 0.1}, r"loss\.shares: loss 'own' has no such setting; did you mean 'share'\?"),
    ):
        with pytest.raises(jaguar_kit.KitError, match=words):
            recipe_of(loss={"name": "own", **settings})
    with pytest.raises(jaguar_kit.KitError, match="OwnLoss: share: 'wide' is not a number"):
        notebook.OwnLoss(embedding_dim=4, num_identities=3, share="wide")
