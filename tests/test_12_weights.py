"""Trained weights and what they need: a run says what that is, and whoever uses it is held to it."""

import json
from pathlib import Path

import jaguar_kit
import numpy as np
import pytest
import timm
import tiny
import torch
from jaguar_kit import KitError, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import report as report_room
from jaguar_kit_tools.identify import confidence, identify
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TINY = {
    **tiny.TINY,
    "model": {
        "backbone": "test_resnet",
        "input_size": 32,
        "head": {"name": "mlp", "layers": 2, "hidden": 16, "output": 8},
    },
    "loss": tiny.ARCFACE,
}


def recipe_of(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe(TINY, changes))


def backbone_file(path: Path, seed: int, **config) -> str:
    torch.manual_seed(seed)
    backbone = jaguar_kit.create_backbone("test_resnet")
    backbone.pretrained_cfg.update(config)
    return str(jaguar_kit.save_backbone(path, backbone, "test_resnet"))


def quiet(function, *arguments, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_room, "write_report", lambda folder, *_, **__: folder / "report.html")
        return function(*arguments, **settings)


@pytest.fixture(scope="module")
def frozen(mini, tmp_path_factory):
    """The folder of a run behind a frozen backbone from a file with a normalisation of its own, and that file."""
    folder = tmp_path_factory.mktemp("frozen")
    file = backbone_file(folder / "test_resnet.safetensors", 0, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    result = quiet(run_recipe, recipe_of(model={"weights": file}), data=mini, out=folder / "runs")
    return result.folder / "default" / "seed42", Path(file)


@pytest.fixture(scope="module")
def learned(mini, tmp_path_factory):
    """The folder of a run whose backbone learned from a file with a normalisation of its own."""
    folder = tmp_path_factory.mktemp("learned")
    file = backbone_file(folder / "test_resnet.safetensors", 0, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    result = quiet(run_recipe, recipe_of(model={"weights": file, "freeze": False}), data=mini, out=folder / "runs")
    return result.folder / "default" / "seed42"


def again(place, mini, out, **changes):
    """A run that trains nothing more, with the weights of an earlier one."""
    recipe = recipe_of(name="again", checkpoint=str(place), train={"epochs": 0}, **changes)
    return quiet(run_recipe, recipe, data=mini, out=out)


def test_a_run_tells_what_its_weights_need(frozen, learned):
    place, _ = frozen
    _, told = jaguar_kit.load_weights(place)
    assert told["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
    assert told["backbone_sha256"]
    assert jaguar_kit.load_weights(learned)[1]["backbone_sha256"] == ""  # its backbone lies in the file


def test_another_backbone_of_that_name_is_refused(frozen, mini, tmp_path):
    place, file = frozen
    kept = file.read_bytes()
    assert again(place, mini, tmp_path / "same", model={"weights": str(file)}).table["map"][0] > 0
    backbone_file(file, 1, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    jaguar_kit.shared_backbone.cache_clear()
    try:
        with pytest.raises(
            KitError, match="'test_resnet' are not those that this run was trained with; give the right"
        ):
            again(place, mini, tmp_path / "other", model={"weights": str(file)})
        with pytest.raises(KitError, match="not those that this run was trained with"):
            identify.identify(place, mini, mini / "test", tmp_path / "answers", device="cpu")
        assert not (tmp_path / "answers").exists()
    finally:
        file.write_bytes(kept)


def test_a_backbone_that_was_replaced_while_a_run_was_interrupted_is_refused(mini, tmp_path, monkeypatch):
    file = backbone_file(tmp_path / "test_resnet.safetensors", 0)
    recipe = recipe_of(model={"weights": file}, train={"epochs": 3})
    plain, calls = jaguar_kit.Checkpointer.save_or_stop, []

    def interrupted(self, *due, **late):
        calls.append(None)
        if len(calls) == 6:
            self.keep()
            raise KeyboardInterrupt
        return plain(self, *due, **late)

    with monkeypatch.context() as patch:
        patch.setattr(jaguar_kit.Checkpointer, "save_or_stop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, data=mini, out=tmp_path / "runs")
    backbone_file(Path(file), 1)
    jaguar_kit.shared_backbone.cache_clear()
    with pytest.raises(KitError, match="the weights that it begins with: another file"):
        run_recipe(recipe, data=mini, out=tmp_path / "runs")


@pytest.mark.parametrize("whole", [False, True])
def test_images_are_normalised_as_the_run_normalised_them(whole, frozen, learned, mini, tmp_path):
    """Also where the backbone lies in the run's own weights, and timm would give another mean and std."""
    place = learned if whole else frozen[0]
    changes = {"model": {"freeze": not whole, "weights": None if whole else str(frozen[1])}}
    result = again(place, mini, tmp_path, **changes)
    one, other = (np.load(p / "validation.npz") for p in (place, result.folder / "default" / "seed42"))
    np.testing.assert_allclose(other["embeddings"], one["embeddings"], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"geometry": "euclidean"}, r'model\.geometry \{"name": "cosine"\}, the recipe\'s is \{"name": "euclidean"\}'),
        ({"pooling": "max"}, r'model\.pooling \{"name": "native"\}, the recipe\'s is \{"name": "max"\}'),
    ],
)
def test_a_model_in_which_weights_would_mean_something_else_is_refused(model, words, learned, mini, tmp_path):
    with pytest.raises(KitError, match=words):
        again(learned, mini, tmp_path, model={"freeze": False, **model})


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ("arcface", None),
        ("cosface", None),
        ("subcenter_arcface", "its loss has other parts"),
        ("cross_entropy", "parts"),
    ],
)
def test_a_loss_of_another_shape_begins_anew_aloud(loss, told, learned, mini, tmp_path, capsys):
    again(learned, mini, tmp_path, model={"freeze": False}, loss={"name": loss})
    said = [line for line in capsys.readouterr().out.splitlines() if "new class weights" in line]
    assert len(said) == (told is not None)
    assert all(told in line for line in said)


def changed(place, target, **metadata):
    """A copy of a run's weights with other metadata."""
    with safe_open(place / "weights.safetensors", "pt") as file:
        told = {**file.metadata(), **{key: json.dumps(value) for key, value in metadata.items()}}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(place / "weights.safetensors"), target, told)
    return str(target)


def test_a_soup_of_what_does_not_belong_together_is_refused(learned, mini, tmp_path):
    for what, words in (
        ({"identities": ["a", "b", "c", "d", "e", "f"]}, "other individuals"),
        ({"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}}, "mean and std"),
        ({"backbone_sha256": "other"}, "hash"),
    ):
        other = changed(learned, tmp_path / "other" / "weights.safetensors", **what)
        with pytest.raises(KitError, match=rf"^soup: .*{words}"):
            again(learned, mini, tmp_path / "out", model={"freeze": False}, soup=[other])
    same = changed(learned, tmp_path / "same" / "weights.safetensors")
    result = again(learned, mini, tmp_path / "out", model={"freeze": False}, soup=[same])
    kept = np.load(result.folder / "default" / "seed42" / "validation.npz")
    np.testing.assert_allclose(kept["embeddings"], np.load(learned / "validation.npz")["embeddings"], atol=1e-5)


def test_weights_of_an_earlier_version_load_and_say_what_they_do_not_tell(learned, mini, tmp_path, capsys):
    with safe_open(learned / "weights.safetensors", "pt") as file:
        told = {key: file.metadata()[key] for key in ("format", "recipe", "identities", "metrics")}
    place = tmp_path / "old"
    place.mkdir()
    save_file(load_file(learned / "weights.safetensors"), place / "weights.safetensors", told)
    again(place, mini, tmp_path / "out", model={"freeze": False})
    assert "does not tell the mean and std" in capsys.readouterr().out


def test_a_soup_without_a_checkpoint_is_refused():
    with pytest.raises(KitError, match=r"soup: \['a'\] is averaged with a checkpoint, but there is none"):
        recipe_of(soup=["a"])


# foreign files


def model_of(weights):
    return jaguar_kit.load_backbone("test_resnet", None, True, str(weights))


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return {key: value.clone() for key, value in jaguar_kit.create_backbone("test_resnet").state_dict().items()}


def test_names_behind_a_wrapping_are_taken_and_told(tensors, tmp_path, capsys):
    for prefix in ("module.", "backbone.", "model.", "_orig_mod.", "model.backbone."):
        save_file({f"{prefix}{key}": value for key, value in tensors.items()}, tmp_path / "x.safetensors")
        backbone = model_of(tmp_path / "x.safetensors")
        assert all(torch.equal(value, tensors[key]) for key, value in backbone.state_dict().items()), prefix
        assert f"without the prefix '{prefix}'" in capsys.readouterr().out


def test_a_folder_as_the_hub_leaves_it_is_found(tensors, tmp_path, monkeypatch):
    folder = tmp_path / "downloaded"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    assert model_of(folder) is not None
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path))
    folder.rename(tmp_path / "test_resnet")
    assert jaguar_kit.find_backbone_weights("test_resnet", None) == tmp_path / "test_resnet" / "model.safetensors"


@pytest.fixture
def from_the_hub(tmp_path, monkeypatch):
    """A model and the folder "Spots-R" among the weights, as timm puts it on the hub: weights and config.json."""
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    jaguar_kit.hub_backbone.cache_clear()
    torch.manual_seed(4)
    model = timm.create_model("test_resnet", num_classes=3)
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), input_size=(3, 96, 96))
    timm.models.save_for_hf(model, tmp_path / "Spots-R", safe_serialization=True)
    return model, tmp_path / "Spots-R"


def test_a_repository_of_the_hub_is_loaded_by_what_its_config_says(from_the_hub):
    model, folder = from_the_hub
    named = {"hf-hub:someone/Spots-R": None, "hf_hub:someone/Spots-R": None, "test_resnet": str(folder)}
    for name, weights in named.items():
        backbone = jaguar_kit.load_backbone(name, None, True, weights)
        assert torch.equal(backbone.conv1[0].weight, model.conv1[0].weight), name
        assert backbone.pretrained_cfg["mean"] == (0.1, 0.2, 0.3), name
        assert jaguar_kit.native_size(backbone) == 96, name
    with pytest.raises(KitError, match=r"another architecture: test_resnet.*'test_vit' is test_vit"):
        jaguar_kit.load_backbone("test_vit", None, True, str(folder))
    with pytest.raises(KitError, match=r"no weights for 'hf-hub:someone/Other'.*put Other\.safetensors"):
        jaguar_kit.load_backbone("hf-hub:someone/Other", None, True, None)
    jaguar_kit.hub_backbone.cache_clear()
    (folder / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(
        KitError, match=r"nothing tells which of timm's architectures it holds \(expected timm's config"
    ):
        jaguar_kit.load_backbone("hf-hub:someone/Spots-R", None, True, None)


def test_what_was_fetched_from_the_hub_is_found_by_its_address(from_the_hub, tmp_path):
    model, folder = from_the_hub
    backbone = jaguar_kit.load_backbone("hf-hub:someone/Spots-R", None, True, None)
    jaguar_kit.save_backbone(tmp_path / "Spots-R.safetensors", backbone, "hf-hub:someone/Spots-R")
    for file in folder.iterdir():
        file.unlink()
    jaguar_kit.hub_backbone.cache_clear()
    again = jaguar_kit.load_backbone("hf-hub:someone/Spots-R", None, True, None)
    assert torch.equal(again.conv1[0].weight, model.conv1[0].weight)
    assert again.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


def with_config(tensors, path, text):
    save_file(tensors, path, {"config": text})


def scaled(tensors, factor: float) -> dict:
    return {key: value * factor if value.is_floating_point() else value for key, value in tensors.items()}


def as_type(tensors, dtype: torch.dtype) -> dict:
    return {key: value.to(dtype) for key, value in tensors.items()}


NO_WEIGHTS = [
    ("x.pth", lambda t, p: torch.save(t, p), "may run code when it is read"),
    ("x.bin", lambda t, p: p.write_bytes(b"x"), "may run code when it is read"),
    ("lfs.safetensors", lambda t, p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    ("int8.safetensors", lambda t, p: save_file(as_type(t, torch.int8), p), "quantised weights"),
    ("fp8.safetensors", lambda t, p: save_file(as_type(t, torch.float8_e4m3fn), p), "quantised"),
    ("nan.safetensors", lambda t, p: with_config(t, p, '{"mean": [NaN, 0, 0]}'), "metadata 'config'"),
    ("run.safetensors", lambda t, p: save_file(t, p, {"format": "jaguar_kit 1"}), "expected it in `checkpoint`"),
    ("cut.safetensors", lambda t, p: with_config(t, p, "{"), "metadata 'config'"),
    ("word.safetensors", lambda t, p: with_config(t, p, '{"mean": "half"}'), "metadata 'config'"),
    ("zero.safetensors", lambda t, p: with_config(t, p, '{"std": [0, 1, 1]}'), "metadata 'config'"),
    ("sick.safetensors", lambda t, p: save_file(scaled(t, torch.nan), p), "not all of them are numbers"),
    ("empty.safetensors", lambda t, p: p.write_bytes(b""), "not a complete safetensors file"),
    ("odd.safetensors", lambda t, p: save_file({f"odd.{k}": v for k, v in t.items()}, p), "is missing"),
]


def test_weights_that_are_none_are_told_with_advice(tensors, tmp_path):
    for name, write, words in NO_WEIGHTS:
        write(tensors, tmp_path / name)
        with pytest.raises(KitError, match=words) as error:
            model_of(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_flipped_bit_in_trained_weights_is_told(learned, tmp_path):
    content = bytearray((learned / "weights.safetensors").read_bytes())
    content[-5] ^= 8
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(KitError, match=r"weights\.safetensors: damaged"):
        jaguar_kit.load_weights(tmp_path)


def test_weights_that_were_replaced_are_read_again_in_the_same_process(mini, tmp_path):
    file = backbone_file(tmp_path / "test_resnet.safetensors", 0)
    recipe = recipe_of(model={"weights": file}, train={"epochs": 0})
    kept = []
    for number in (0, 1):
        backbone_file(Path(file), number)
        result = quiet(run_recipe, recipe, data=mini, out=tmp_path / str(number))
        kept.append(np.load(result.folder / "default" / "seed42" / "validation.npz")["embeddings"])
    assert not np.allclose(*kept)


@pytest.mark.parametrize("what", ["backbone", "checkpoint"])
def test_a_finished_run_is_not_joined_by_runs_on_other_weights(what, frozen, mini, tmp_path):
    import shutil

    place, file = (
        Path(shutil.copytree(frozen[0], tmp_path / "run")),
        Path(shutil.copy(frozen[1], tmp_path / "x.safetensors")),
    )
    changes = {"model": {"weights": str(file)}}
    changes |= {"checkpoint": str(place), "train": {"epochs": 0}} if what == "checkpoint" else {}
    quiet(run_recipe, recipe_of(**changes, seeds=[1]), data=mini, out=tmp_path / "runs")
    if what == "backbone":
        backbone_file(file, 5)
    else:
        with open(place / "weights.safetensors", "r+b") as weights:
            weights.seek(-9, 2)
            weights.write(b"x")
    with pytest.raises(KitError, match="the weights that it begins with: another file"):
        quiet(run_recipe, recipe_of(**changes, seeds=[1, 2]), data=mini, out=tmp_path / "runs")


def test_images_that_a_checkpoint_was_trained_on_validate_nothing_unseen(mini, tmp_path, capsys):
    model = {"pretrained": False, "freeze": False}
    first = quiet(run_recipe, recipe_of(model=model, data={"split": "all"}), data=mini, out=tmp_path)
    place = first.folder / "default" / "seed42"
    second = quiet(
        run_recipe, recipe_of(name="b", model=model, checkpoint=str(place), train={"epochs": 0}), mini, tmp_path
    )
    assert "the checkpoint was trained on 12 of 12 validation images" in capsys.readouterr().out
    kept = np.load(second.folder / "default" / "seed42" / "validation.npz")
    assert set(kept["paths"]) <= set(kept["trained"])
    table = jaguar_kit.load_competition(mini).train
    assert not confidence.held_out_images(second.folder / "default" / "seed42", table).any()


def test_a_soup_over_settings_is_what_soups_are_for(learned, mini, tmp_path):
    others = {"loss": {"name": "arcface", "margin": 0.4, "scale": 16}, "train": {"lr": 0.5}}
    raw = jaguar_kit.merge_recipe(jaguar_kit.load_weights(learned)[1]["recipe"], others)
    other = changed(learned, tmp_path / "other" / "weights.safetensors", recipe=raw)
    again(learned, mini, tmp_path / "out", model={"freeze": False}, soup=[other])
