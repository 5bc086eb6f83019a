"""Backbones of every family, pooling, heads, and where weights come from."""

import io
import math
import pickle

import numpy as np
import pytest
import slow
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import jaguar_kit
from jaguar_kit import Component, Embedder, KitError, ModelConfig

SIZE = 64
TINY_SWIN = {
    "embed_dim": 24,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": 2,
    "img_size": SIZE,
}
FAMILIES = {
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_vit": {"img_size": SIZE},
    "swin_tiny_patch4_window7_224": TINY_SWIN,
}


def tiny(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **FAMILIES[name]).eval()


@pytest.fixture(scope="module", params=list(FAMILIES))
def backbone(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No weights anywhere: an empty working folder, no hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("JAGUAR_KIT_WEIGHTS", raising=False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Places(nn.Module):
    """A backbone whose feature map is its input."""

    def forward_features(self, images):
        return images


# families


@torch.no_grad()
def test_native_pooling_is_the_backbone_s_own(backbone, images):
    pooled = Embedder(backbone, jaguar_kit.build("pooling", "native"), nn.Identity(), frozen=True).pooled(images)
    torch.testing.assert_close(pooled, backbone.forward_head(backbone.forward_features(images), pre_logits=True))
    torch.testing.assert_close(pooled, backbone(images))


@torch.no_grad()
def test_feature_map_has_channels_first_and_a_square_of_places(backbone, images):
    places = jaguar_kit.feature_map(backbone, images)
    side = 4 if backbone.__class__.__name__ == "VisionTransformer" else 2
    assert places.shape == (3, backbone.num_features, side, side)


@torch.no_grad()
def test_feature_map_of_a_cnn_is_its_last_layer(images):
    model = tiny("test_resnet")
    torch.testing.assert_close(jaguar_kit.feature_map(model, images), model.forward_features(images))
    torch.testing.assert_close(jaguar_kit.feature_map(model, images).mean((2, 3)), model(images))


@torch.no_grad()
def test_feature_map_of_a_vit_holds_its_patch_tokens_row_by_row(images):
    model = tiny("test_vit")
    places, tokens = jaguar_kit.feature_map(model, images), model.forward_features(images)
    assert tokens.shape[1] == 1 + 4 * 4  # the class token comes first
    torch.testing.assert_close(places.mean((2, 3)), tokens[:, 1:].mean(1))
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(places[:, :, row, column], tokens[:, 1 + 4 * row + column])


@torch.no_grad()
def test_feature_map_of_a_swin_turns_channels_to_the_front(images):
    model = tiny("swin_tiny_patch4_window7_224")
    places, out = jaguar_kit.feature_map(model, images), model.forward_features(images)
    for row in range(2):
        for column in range(2):
            torch.testing.assert_close(places[:, :, row, column], out[:, row, column])
    torch.testing.assert_close(places.mean((2, 3)), model(images))


@pytest.mark.parametrize("pooling", ["native", "gem"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_embedder_of_a_recipe_gives_vectors_of_the_asked_length(name, pooling, images):
    head = Component("head", "mlp", {"output": 24, "hidden": 16})
    config = ModelConfig(name, pretrained=False, input_size=SIZE, pooling=Component("pooling", pooling), head=head)
    embeddings = jaguar_kit.build_embedder(config)(images)
    assert embeddings.shape == (3, 24)
    assert torch.isfinite(embeddings).all()


@pytest.mark.parametrize("pooling", ["native", "gem"])
def test_backbone_that_widens_its_features_after_pooling_fits_its_head(pooling):
    config = ModelConfig(
        "mobilenetv3_small_050", pretrained=False, input_size=SIZE, pooling=Component("pooling", pooling)
    )
    assert jaguar_kit.build_embedder(config)(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 256)


def test_vit_is_built_for_the_asked_input_size():
    model = jaguar_kit.create_backbone("test_vit", 96)
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, model.num_features)


def test_native_size_is_that_of_the_pretrained_weights():
    assert jaguar_kit.native_size(jaguar_kit.create_backbone("test_resnet")) == 160


def test_backbone_has_no_classifier():
    assert jaguar_kit.create_backbone("test_resnet").num_classes == 0


def test_misspelt_architecture_is_answered_with_the_nearest_name():
    with pytest.raises(KitError, match="did you mean 'test_resnet'"):
        jaguar_kit.create_backbone("test_resent")


# pooling


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 6.0])
def test_gem_is_the_generalised_mean_over_places(p):
    places = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    pooled = jaguar_kit.build("pooling", "gem", p=p)(Places(), places)
    np.testing.assert_allclose(pooled.detach().numpy(), slow.generalised_mean(places, p), rtol=1e-4, atol=1e-6)


def test_gem_goes_from_the_mean_to_the_maximum():
    places = torch.rand(2, 5, 4, 4)
    pooled = [jaguar_kit.build("pooling", "gem", p=p)(Places(), places) for p in (1.0, 3.0, 20.0)]
    torch.testing.assert_close(pooled[0], places.mean((2, 3)))
    assert (pooled[0] < pooled[1]).all()
    assert (pooled[1] < pooled[2]).all()
    assert (pooled[2] <= places.amax((2, 3)) + 1e-6).all()


def test_gem_learns_its_exponent_along_the_formula():
    places = torch.rand(2, 3, 4, 4)
    pooling = jaguar_kit.build("pooling", "gem", p=3.0)
    pooling(Places(), places).sum().backward()
    (log_p,) = pooling.parameters()
    slope = slow.numerical_gradient(lambda x: slow.generalised_mean(places, math.exp(float(x))).sum(), math.log(3.0))
    assert float(log_p.grad) == pytest.approx(float(slope), rel=1e-3)


@pytest.mark.parametrize("p", [1.0, 3.0, 8.0, 30.0, 100.0])
@pytest.mark.parametrize("largest", [0.0, 0.5, 30.0])
def test_gem_and_its_gradient_are_finite_at_every_exponent_that_recipes_allow(p, largest):
    places = torch.rand(2, 3, 4, 4) * largest
    places[:, 0] = 0  # a channel that sees nothing, as ReLU leaves many
    expected = slow.generalised_mean(places, p)
    places.requires_grad_()
    pooling = jaguar_kit.build("pooling", "gem", p=p)
    pooled = pooling(Places(), places)
    pooled.sum().backward()
    np.testing.assert_allclose(pooled.detach().numpy(), expected, rtol=1e-3, atol=1e-5)
    assert torch.isfinite(places.grad).all()
    assert torch.isfinite(pooling.reduce.log_p.grad)


@pytest.mark.parametrize("settings", [{"p": 0.5}, {"p": 101}, {"power": 3}])
def test_unfit_setting_of_gem_is_refused(settings):
    with pytest.raises(KitError, match=next(iter(settings))):
        jaguar_kit.build("pooling", "gem", **settings)


# heads


def test_linear_head_is_one_affine_map():
    head, features = jaguar_kit.build("head", "linear", in_features=6, output=4), torch.rand(3, 6)
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_mlp_head_has_as_many_linear_layers_as_asked(layers):
    head = jaguar_kit.build("head", "mlp", in_features=6, layers=layers, hidden=10, output=4, dropout=0.2)
    shapes = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
    assert shapes == list(zip([6] + [10] * (layers - 1), [10] * (layers - 1) + [4]))
    kinds = [type(m) for m in head]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * (layers - 1) + [nn.Linear, nn.BatchNorm1d]
    assert all(m.p == 0.2 for m in head if isinstance(m, nn.Dropout))


def test_mlp_head_is_what_its_layers_say():
    head = jaguar_kit.build("head", "mlp", in_features=6, layers=2, hidden=10, output=4).eval()
    first, norm, _, _, last, last_norm = head
    for batch_norm in (norm, last_norm):
        batch_norm.running_mean.normal_()
        batch_norm.running_var.uniform_(0.5, 2)
    features = torch.rand(3, 6)

    def normalise(x, bn):
        return (x - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias

    hidden = normalise(features @ first.weight.T + first.bias, norm).clamp(min=0)
    torch.testing.assert_close(head(features), normalise(hidden @ last.weight.T + last.bias, last_norm))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_embedding_length_is_told_by_the_head(head):
    config = ModelConfig("test_resnet", pretrained=False, head=Component("head", head, {"output": 17}))
    assert jaguar_kit.build_embedder(config).embedding_dim == 17


@pytest.mark.parametrize("settings", [{"layers": 0}, {"dropout": 1.5}, {"output": 0}, {"width": 5}])
def test_unfit_setting_of_a_head_is_refused(settings):
    with pytest.raises(KitError, match=next(iter(settings))):
        jaguar_kit.build("head", "mlp", in_features=6, **settings)


# frozen or learning


def embedder(frozen: bool, pooling: str = "native") -> Embedder:
    config = ModelConfig(
        "test_resnet",
        pretrained=False,
        freeze=frozen,
        pooling=Component("pooling", pooling),
        head=Component("head", "mlp", {"hidden": 8, "output": 4}),
    )
    return jaguar_kit.build_embedder(config)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_changes_batch_statistics_of_a_backbone_only_when_it_learns(frozen, images):
    model = embedder(frozen)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()(images)
    after = model.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) == frozen


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_a_backbone_only_when_it_learns(frozen, images):
    model = embedder(frozen)
    model.train()(images).square().sum().backward()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.backbone.parameters()]
    assert any(reached) is not frozen
    assert all(p.grad is not None for p in model.head.parameters())


def test_exponent_of_gem_learns_on_a_frozen_backbone(images):
    model = embedder(frozen=True, pooling="gem")
    model.train()(images).square().sum().backward()
    assert model.pooling.reduce.log_p.grad is not None


def test_evaluation_has_no_randomness_and_no_batch_effects(images):
    model = embedder(frozen=False).eval()
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_forward_is_the_head_upon_the_pooled_features(images):
    model = embedder(frozen=True).eval()
    torch.testing.assert_close(model(images), model.head(model.pooled(images)))


# weights


def saved(path, name="test_resnet", seed=7, **changes) -> tuple:
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=10).eval()
    tensors = {**{k: v.contiguous() for k, v in model.state_dict().items()}, **changes}
    save_file({k: v for k, v in tensors.items() if v is not None}, path)
    return model, path


def assert_same_weights(loaded: nn.Module, model: nn.Module):
    own, expected = loaded.state_dict(), model.state_dict()
    assert own
    for key, value in own.items():
        torch.testing.assert_close(value, expected[key])


def test_tensors_and_metadata_come_back_from_a_safetensors_file(tmp_path):
    tensors = {"a": torch.rand(2, 3), "b": torch.arange(4)}
    save_file(tensors, tmp_path / "x.safetensors", {"told": "word"})
    loaded, metadata = jaguar_kit.load_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"told": "word"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_file_without_metadata_has_an_empty_one(tmp_path):
    save_file({"a": torch.rand(2)}, tmp_path / "x.safetensors")
    assert jaguar_kit.load_safetensors(tmp_path / "x.safetensors")[1] == {}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_weights_of_a_file_are_taken_and_its_classifier_is_dropped(name, offline):
    model, path = saved(offline / "given.safetensors", name)
    loaded = jaguar_kit.load_backbone(name, None, pretrained=True, weights=str(path)).eval()
    assert_same_weights(loaded, model)
    image = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(image), pre_logits=True)
        torch.testing.assert_close(loaded(image), expected)


def test_weights_of_half_precision_become_float32(offline):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).half()
    save_file(model.state_dict(), offline / "half.safetensors")
    loaded = jaguar_kit.load_backbone("test_resnet", None, True, str(offline / "half.safetensors"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert_same_weights(loaded, model.float())


def test_weights_are_found_in_the_folder_of_the_environment(offline, monkeypatch):
    (offline / "mount" / "deep" / "er").mkdir(parents=True)
    model, _ = saved(offline / "mount" / "deep" / "er" / "test_resnet.safetensors")
    monkeypatch.setenv("JAGUAR_KIT_WEIGHTS", str(offline / "mount"))
    assert_same_weights(jaguar_kit.load_backbone("test_resnet", None, True, None), model)


def test_weights_are_found_in_the_working_folder(offline):
    (offline / "weights").mkdir()
    model, _ = saved(offline / "weights" / "test_resnet.safetensors")
    assert_same_weights(jaguar_kit.load_backbone("test_resnet", None, True, None), model)


def test_weights_of_a_vit_serve_at_another_input_size(offline):
    model, path = saved(offline / "given.safetensors", "test_vit")
    loaded = jaguar_kit.load_backbone("test_vit", 96, pretrained=True, weights=str(path)).eval()
    assert loaded(torch.rand(1, 3, 96, 96)).shape == (1, model.num_features)
    expected = model.state_dict()
    for key, value in loaded.state_dict().items():
        if key != "pos_embed":  # resampled, as timm does
            torch.testing.assert_close(value, expected[key])


def test_random_weights_ask_for_no_file_and_follow_the_seed(offline):
    torch.manual_seed(1)
    first = jaguar_kit.load_backbone("test_resnet", None, pretrained=False, weights=None)
    torch.manual_seed(1)
    assert_same_weights(jaguar_kit.load_backbone("test_resnet", None, pretrained=False, weights="nowhere"), first)


def refused(path, name="test_resnet") -> str:
    with pytest.raises(KitError) as caught:
        jaguar_kit.load_backbone(name, None, pretrained=True, weights=str(path))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_weights_of_another_architecture_are_refused(offline):
    _, path = saved(offline / "given.safetensors", "test_efficientnet")
    assert "another architecture" in refused(path)


def test_file_that_lacks_a_tensor_is_refused(offline):
    _, path = saved(offline / "given.safetensors", **{"bn1.running_var": None})
    assert "'bn1.running_var' is missing" in refused(path)


def test_file_with_a_tensor_too_many_is_refused(offline):
    _, path = saved(offline / "given.safetensors", **{"neck.weight": torch.rand(2)})
    assert "'neck.weight' is unknown" in refused(path)


def test_tensor_of_another_shape_is_refused(offline):
    _, path = saved(offline / "given.safetensors", **{"bn1.bias": torch.rand(3)})
    assert "'bn1.bias' is (3,)" in refused(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_refused(offline, share):
    _, path = saved(offline / "given.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "not a complete safetensors file" in refused(path)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickled_file_is_refused_and_nothing_in_it_runs(offline, how):
    path, trace = offline / "given.safetensors", offline / "trace"
    buffer = io.BytesIO()
    (pickle.dump if how == "pickle" else torch.save)(Trap(trace), buffer)
    path.write_bytes(buffer.getvalue())
    assert "not a complete safetensors file" in refused(path)
    assert not trace.exists()


def test_missing_file_is_refused(offline):
    assert "no such weights file" in refused(offline / "nowhere.safetensors")


def test_folder_in_place_of_a_file_is_refused(offline):
    (offline / "folder.safetensors").mkdir()
    refused(offline / "folder.safetensors")


def test_no_weights_and_no_hub_is_one_clear_line_and_never_random(offline):
    with pytest.raises(KitError) as caught:
        jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=None)
    text = str(caught.value)
    assert "\n" not in text
    assert "no weights for 'test_resnet'" in text
    for way_out in ("test_resnet.safetensors", "model.weights", "model.pretrained: false"):
        assert way_out in text


def test_no_weights_on_kaggle_is_told_without_asking_the_hub(offline, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("the hub was asked"))
    with pytest.raises(KitError, match="no weights for 'test_resnet'"):
        jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=None)


def test_failed_download_is_one_clear_line(offline, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("the line is dead\nand more of it")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(KitError, match="the line is dead") as caught:
        jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=None)
    assert "\n" not in str(caught.value)


def test_hub_is_asked_for_pretrained_weights(offline, monkeypatch):
    asked = []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: asked.append((name, settings["pretrained"])))
    jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=None)
    assert asked == [("test_resnet", True)]


def test_architecture_that_has_no_pretrained_weights_is_refused(offline, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    name = "resnet50_mlp"
    with pytest.raises(KitError, match=f"no weights for '{name}'"):
        jaguar_kit.load_backbone(name, None, pretrained=True, weights=None)
