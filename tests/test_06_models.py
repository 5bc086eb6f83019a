"""Backbones of every family, pooling, heads, and where weights come from."""

import dataclasses
import hashlib
import io
import itertools
import json
import math
import pickle

import jaguar_kit
import kornia.feature
import mpmath
import numpy as np
import pytest
import slow
import timm
import torch
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import Component, Embedder, KitError, ModelConfig
from jaguar_kit_tools.on_kaggle import weights as fetch_weights
from safetensors.torch import save_file
from torch import nn

PROPERTY = settings(deadline=None, max_examples=40)
SIZE = 64
TINY_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
TINY_SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
FAMILIES = {
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "mobilenetv3_small_050": {},
    "test_mambaout": {},
    "test_vit": {"img_size": SIZE},
    "vit_small_patch14_reg4_dinov2": {**TINY_VIT, "img_size": SIZE, "patch_size": 16},
    "vit_small_patch16_dinov3": {**TINY_VIT, "img_size": SIZE},
    "eva02_tiny_patch14_224": {**TINY_VIT, "img_size": SIZE, "patch_size": 16},
    "swin_tiny_patch4_window7_224": {**TINY_SWIN, "img_size": SIZE, "window_size": 2},
}
SHRUNK = {  # architectures of short names, small enough for a test
    "swin_large_patch4_window12_384": TINY_SWIN,
    "vit_large_patch16_dinov3.lvd1689m": TINY_VIT,
    "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k": TINY_VIT,
    "resnet50.a1_in1k": {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)},
    "vit_base_patch16_384": TINY_VIT,
    "vit_huge_patch14_224.orig_in21k": TINY_VIT,
    "convnext_xlarge.fb_in22k_ft_in1k_384": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24)},
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


@pytest.fixture
def shrunk(monkeypatch, offline):
    """timm's architectures under their own names and configurations, but small."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **{**SHRUNK.get(name, {}), **given}))
    return offline


class Places(nn.Module):
    """A backbone whose feature map is its input."""

    def forward_features(self, images):
        return images


# families


@torch.no_grad()
def test_native_pooling_is_the_backbone_s_own_and_its_map_a_square_of_places(backbone, images):
    pooled = Embedder(backbone, jaguar_kit.build("pooling", "native"), nn.Identity(), frozen=True).pooled(images)
    torch.testing.assert_close(pooled, backbone.forward_head(backbone.forward_features(images), pre_logits=True))
    torch.testing.assert_close(pooled, backbone(images))
    places = jaguar_kit.AveragePooling().features(backbone, images)
    side = SIZE // (16 if hasattr(backbone, "num_prefix_tokens") else 32)
    assert places.shape == (3, backbone.num_features, side, side)


@torch.no_grad()
def test_feature_map_of_a_cnn_is_its_last_layer(images):
    model = tiny("test_resnet")
    torch.testing.assert_close(jaguar_kit.AveragePooling().features(model, images), model.forward_features(images))
    torch.testing.assert_close(jaguar_kit.AveragePooling().features(model, images).mean((2, 3)), model(images))


@torch.no_grad()
def test_feature_map_of_a_vit_holds_its_patch_tokens_row_by_row(images):
    model = tiny("test_vit")
    places, tokens = jaguar_kit.AveragePooling().features(model, images), model.forward_features(images)
    assert tokens.shape[1] == 1 + 4 * 4  # the class token comes first
    torch.testing.assert_close(places.mean((2, 3)), tokens[:, 1:].mean(1))
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(places[:, :, row, column], tokens[:, 1 + 4 * row + column])


@torch.no_grad()
def test_feature_map_of_a_swin_turns_channels_to_the_front(images):
    model = tiny("swin_tiny_patch4_window7_224")
    places, out = jaguar_kit.AveragePooling().features(model, images), model.forward_features(images)
    for row in range(2):
        for column in range(2):
            torch.testing.assert_close(places[:, :, row, column], out[:, row, column])
    torch.testing.assert_close(places.mean((2, 3)), model(images))


@torch.no_grad()
def test_class_and_register_tokens_are_no_places(images):
    for name, first in (
        ("test_vit", 1),
        ("eva02_tiny_patch14_224", 1),
        ("vit_small_patch14_reg4_dinov2", 1 + 4),
        ("vit_small_patch16_dinov3", 1 + 4),
    ):
        model = tiny(name)
        tokens = jaguar_kit.normalised_features(model, images)
        assert tokens.shape[1] == first + 4 * 4, name
        places = jaguar_kit.AveragePooling().features(model, images)
        assert torch.equal(places.flatten(2).mT, tokens[:, first:]), name


def has_class_token(backbone) -> bool:
    return getattr(backbone, "cls_token", None) is not None


def slow_places(backbone, images):
    """What a backbone says of each place, in a list for each image."""
    features = backbone.forward_features(images)
    if hasattr(backbone, "num_prefix_tokens"):
        places = features[:, backbone.num_prefix_tokens :]
    elif type(backbone).__name__ in ("SwinTransformer", "MambaOut"):
        places = features.flatten(1, 2)
    else:
        places = features.flatten(2).mT
    norm = {"Eva": "fc_norm", "ConvNeXt": "head.norm", "MambaOut": "head.norm"}.get(type(backbone).__name__)
    norm = backbone.get_submodule(norm) if norm else None
    return layer_norm(norm, places) if isinstance(norm, torch.nn.LayerNorm) else places


def layer_norm(norm, vectors):
    return torch.nn.functional.layer_norm(vectors, vectors.shape[-1:], norm.weight, norm.bias, norm.eps)


def test_every_pooling_gives_finite_vectors_from_which_the_image_learns(backbone, images):
    images = images.clone().requires_grad_()
    for name in jaguar_kit.registered("pooling"):
        pooling = Component("pooling", name).build(num_features=backbone.num_features)
        if (name.startswith("class_") and not has_class_token(backbone)) or name == "logits":
            with pytest.raises(KitError, match=r"no class token|without a classifier"):
                pooling.width(backbone)
            continue
        pooled = pooling(backbone, images)
        assert pooled.shape == (3, pooling.width(backbone)), name
        assert pooled.dtype == torch.float32, name
        assert torch.isfinite(pooled).all(), name
        (gradient,) = torch.autograd.grad((pooled * torch.randn(pooled.shape)).sum(), images)
        assert torch.isfinite(gradient).all(), name
        assert gradient.flatten(1).any(1).all(), name


@torch.no_grad()
def test_poolings_are_what_they_say_in_every_family(backbone, images):
    places = slow_places(backbone, images)
    pooled = {
        name: Component("pooling", name).build(num_features=backbone.num_features).eval()
        for name in jaguar_kit.registered("pooling")
        if has_class_token(backbone) or not name.startswith("class_")
    }
    pooled = {name: pooling(backbone, images) for name, pooling in pooled.items()}
    torch.testing.assert_close(pooled["average"], places.mean(1))
    torch.testing.assert_close(pooled["max"], places.max(1).values)
    gem = torch.as_tensor(slow.generalised_mean(places.mT[..., None], 3.0), dtype=torch.float32)
    torch.testing.assert_close(pooled["gem"], gem, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled["gem_bn"], gem / math.sqrt(1 + 1e-5), rtol=1e-4, atol=1e-5)
    if has_class_token(backbone):
        token = backbone.forward_features(images)[:, 0]
        token = layer_norm(backbone.fc_norm, token) if hasattr(backbone.fc_norm, "weight") else token
        torch.testing.assert_close(pooled["class_token"], token)
        torch.testing.assert_close(pooled["class_gem"], torch.cat([token, gem], 1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_places_are_normalised_as_timm_normalises_its_pooled_vector(backbone, images):
    norm = jaguar_kit.norm_behind(backbone)
    if norm is None or type(backbone).__name__ == "MambaOut":  # whose own pooled vector goes through a layer besides
        pytest.skip("timm's model normalises before it pools, or not at all")
    for weight in (norm.weight, norm.bias):
        weight.copy_(torch.rand_like(weight))
    features = backbone.forward_features(images)
    places = jaguar_kit.feature_map(backbone, features).flatten(2).mT  # as they are
    own = backbone.forward_head(features, pre_logits=True)
    torch.testing.assert_close(layer_norm(norm, places.mean(1)), own, rtol=1e-4, atol=1e-4)
    pooled = jaguar_kit.AveragePooling()(backbone, images)
    torch.testing.assert_close(pooled, layer_norm(norm, places).mean(1), rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_the_weights_own_classifier(images, tmp_path, monkeypatch):
    model = timm.create_model("test_resnet").eval()
    save_file(model.state_dict(), tmp_path / "test_resnet.safetensors")
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path))
    embedder = jaguar_kit.build_embedder({"backbone": "test_resnet", "pooling": "logits", "head": "none"}).eval()
    assert embedder.embedding_dim == model.num_classes == 1000
    torch.testing.assert_close(embedder(images), model(images))
    with pytest.raises(KitError, match="without a classifier"):
        jaguar_kit.build_embedder(
            {"backbone": "test_resnet", "pooling": "logits"}, jaguar_kit.create_backbone("test_resnet")
        )


def test_class_token_of_a_backbone_without_one_is_refused():
    for pooling in ("class_token", "class_gem"):
        config = ModelConfig("test_resnet", pretrained=False, pooling=Component("pooling", pooling))
        with pytest.raises(KitError, match=r"model\.pooling: ResNet has no class token"):
            jaguar_kit.build_embedder(config)


def test_head_fits_every_pooling_of_a_vit(images):
    for pooling in jaguar_kit.registered("pooling"):
        config = ModelConfig("test_vit", pretrained=False, input_size=SIZE, pooling=Component("pooling", pooling))
        assert jaguar_kit.build_embedder(config)(images).shape == (3, 256), pooling


@torch.no_grad()
def test_half_precision_features_are_pooled_in_full_precision(images):
    places = 100 * torch.rand(2, 3, 64, 64).half()  # a sum of these is beyond the range of half precision
    for name in ("average", "gem"):
        pooled = jaguar_kit.build("pooling", name)(Places(), places)
        assert pooled.dtype == torch.float32
        p = 1.0 if name == "average" else 3.0
        np.testing.assert_allclose(pooled.numpy(), slow.generalised_mean(places, p), rtol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_embedder_of_a_recipe_gives_vectors_of_the_asked_length(name, images):
    head = Component("head", "mlp", {"output": 24, "hidden": 16})
    for pooling in ("native", "gem"):
        config = ModelConfig(name, pretrained=False, input_size=SIZE, pooling=Component("pooling", pooling), head=head)
        embeddings = jaguar_kit.build_embedder(config)(images)
        assert embeddings.shape == (3, 24), pooling
        assert torch.isfinite(embeddings).all(), pooling


def test_backbone_that_widens_its_features_after_pooling_fits_its_head():
    for pooling in ("native", "gem"):
        part = Component("pooling", pooling)
        config = ModelConfig("mobilenetv3_small_050", pretrained=False, input_size=SIZE, pooling=part)
        assert jaguar_kit.build_embedder(config)(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 256), pooling


def test_vit_is_built_for_the_asked_input_size():
    model = jaguar_kit.create_backbone("test_vit", 96)
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, model.num_features)


OTHER_SIZES = {
    "vit_b_384": (64, 96),
    "vit_h": (56, 84),
    "eva02_l_448": (56, 84),
    "dinov3_l": (64, 96),
    "swin_l_384": (64, 96),
    "convnext_xl_384": (64, 96),
    "resnet50": (64, 96),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's own
@torch.no_grad()
@pytest.mark.parametrize("name", OTHER_SIZES)
def test_backbones_take_other_input_sizes_than_that_of_their_weights(name, shrunk):
    torch.manual_seed(0)
    path = jaguar_kit.save_backbone(shrunk / "given.safetensors", jaguar_kit.create_backbone(name), name)
    for size in OTHER_SIZES[name]:
        model = jaguar_kit.load_backbone(name, size, pretrained=True, weights=str(path)).eval()
        images = torch.rand(2, 3, size, size)
        places = jaguar_kit.AveragePooling().features(model, images)
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", (32, 32))[0]
        assert places.shape[-1] == size // (32 if name.startswith("swin") else patch)
        assert torch.isfinite(model(images)).all()


@pytest.mark.parametrize("name", ["vit_b_384", "vit_h", "eva02_l_448"])
def test_position_embeddings_are_interpolated_to_another_input_size(name, shrunk):
    native = jaguar_kit.create_backbone(name)
    path = jaguar_kit.save_backbone(shrunk / "given.safetensors", native, name)
    patch = native.patch_embed.patch_size[0]
    model = jaguar_kit.load_backbone(name, 5 * patch, pretrained=True, weights=str(path))
    side = math.isqrt(native.pos_embed.shape[1])
    grid = native.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid, (5, 5), mode="bicubic", antialias=True).flatten(2).mT
    expected = torch.cat([native.pos_embed[:, :1], resized], 1)
    torch.testing.assert_close(model.pos_embed, expected)


def test_size_that_is_no_multiple_of_the_patch_is_refused(shrunk):
    for name, size, near in (
        ("test_vit", 100, 96),
        ("vit_b_384", 383, 368),
        ("vit_h", 225, 224),
        ("eva02_l_448", 440, 434),
        ("dinov3_l", 250, 240),
        ("swin_l_384", 382, 380),
    ):
        with pytest.raises(KitError, match=rf"model\.input_size: {size} is not a multiple .* try {near}$"):
            jaguar_kit.create_backbone(name, size)
        jaguar_kit.create_backbone(name, near)


def test_backbones_without_patches_take_any_size():
    for name in ("test_resnet", "test_convnext", "mobilenetv3_small_050"):
        jaguar_kit.create_backbone(name, 101)(torch.rand(2, 3, 101, 101))


def test_every_short_name_stands_for_an_architecture_with_weights():
    for name in jaguar_kit.BACKBONES:
        known = jaguar_kit.known_backbone(name)
        assert known is jaguar_kit.BACKBONES[name]
        architecture, _, tag = known.architecture.partition(".")
        assert timm.is_model(architecture), name
        tags = [pretrained.partition(".")[2] for pretrained in timm.list_pretrained(f"{architecture}.*")]
        assert tag in tags if tag else tags or known.hub, name


def test_timm_s_own_names_stand_for_themselves():
    assert jaguar_kit.known_backbone("test_vit").architecture == "test_vit"
    assert jaguar_kit.known_backbone("test_vit.r160_in1k").architecture == "test_vit.r160_in1k"


def test_unknown_name_or_tag_is_answered_with_the_nearest():
    for wrong, right in (
        ("megadescriptor", "megadescriptor_l_384"),
        ("dinov3_x", "dinov3_l"),
        ("eva02_448", "eva02_l_448"),
        ("test_vti", "test_vit"),
        ("resnet50.a1_in1", "a1_in1k"),
        ("test_vit.r161_in1k", "r160_in1k"),
    ):
        with pytest.raises(KitError, match=rf"model\.backbone: timm \S+ has no '{wrong}'; did you mean '{right}'\?$"):
            jaguar_kit.known_backbone(wrong)


def test_short_name_may_differ_from_timm_in_its_normalisation(shrunk):
    assert jaguar_kit.create_backbone("megadescriptor_l_384").pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert jaguar_kit.create_backbone("swin_l_384").pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


def test_native_size_is_that_of_the_pretrained_weights():
    assert jaguar_kit.native_size(jaguar_kit.create_backbone("test_resnet")) == 160


def test_backbone_has_no_classifier():
    assert jaguar_kit.create_backbone("test_resnet").num_classes == 0


def test_misspelt_architecture_is_answered_with_the_nearest_name():
    with pytest.raises(KitError, match="did you mean 'test_resnet'"):
        jaguar_kit.create_backbone("test_resent")


# pooling


def test_gem_is_the_generalised_mean_over_places():
    places = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    for p in (1.0, 2.5, 3.0, 6.0):
        pooled = jaguar_kit.build("pooling", "gem", p=p)(Places(), places).detach().numpy()
        np.testing.assert_allclose(pooled, slow.generalised_mean(places, p), rtol=1e-4, atol=1e-6, err_msg=f"p {p}")


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


def test_gem_and_its_gradient_are_finite_at_every_exponent_that_recipes_allow():
    for largest, p in itertools.product((0.0, 0.5, 30.0), (1.0, 3.0, 8.0, 30.0, 100.0)):
        places = torch.rand(2, 3, 4, 4) * largest
        places[:, 0] = 0  # a channel that sees nothing, as ReLU leaves many
        expected = slow.generalised_mean(places, p)
        places.requires_grad_()
        pooling = jaguar_kit.build("pooling", "gem", p=p)
        pooled = pooling(Places(), places)
        pooled.sum().backward()
        np.testing.assert_allclose(pooled.detach().numpy(), expected, rtol=1e-3, atol=1e-5, err_msg=f"{largest}, p {p}")
        assert torch.isfinite(places.grad).all(), (largest, p)
        assert torch.isfinite(pooling.reduce.log_p.grad), (largest, p)


def test_unfit_setting_of_gem_is_refused():
    for unfit, words in (({"p": 0.5}, "p: 0.5 is out"), ({"p": 101}, "p: 101.0 is out"), ({"power": 3}, "'power'")):
        with pytest.raises(KitError, match=words):
            jaguar_kit.build("pooling", "gem", **unfit)


# heads


def test_linear_head_is_one_affine_map():
    head, features = jaguar_kit.build("head", "linear", in_features=6, output=4), torch.rand(3, 6)
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)


def test_mlp_head_has_as_many_linear_layers_as_asked():
    for layers in (1, 2, 4):
        head = jaguar_kit.build("head", "mlp", in_features=6, layers=layers, hidden=10, output=4, dropout=0.2)
        shapes = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
        assert shapes == list(zip([6] + [10] * (layers - 1), [10] * (layers - 1) + [4])), layers
        kinds = [type(m) for m in head]
        assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * (layers - 1) + [nn.Linear, nn.BatchNorm1d]
        assert all(m.p == 0.2 for m in head if isinstance(m, nn.Dropout)), layers


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


@pytest.mark.parametrize("head", [name for name in jaguar_kit.registered("head") if name not in ("none", "whiten")])
def test_embedding_length_is_told_by_the_head(head, images):
    config = ModelConfig("test_resnet", pretrained=False, head=Component("head", head, {"output": 17}))
    model = jaguar_kit.build_embedder(config).eval()
    assert model.embedding_dim == 17
    assert model(images).shape == (3, 17)


def test_without_a_head_the_pooled_features_are_the_embeddings(images):
    model = jaguar_kit.build_embedder(
        ModelConfig("test_resnet", pretrained=False, head=Component("head", "none"))
    ).eval()
    assert model.embedding_dim == model.pooled(images).shape[1]
    assert torch.equal(model(images), model.pooled(images))


@pytest.mark.parametrize("output", [None, 4])
def test_bn_neck_learns_a_scale_and_no_shift(output):
    head, features = jaguar_kit.build("head", "bn_neck", in_features=6, output=output), 3 + 2 * torch.randn(32, 6)
    assert jaguar_kit.head_width(head) == (output or 6)
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (head(features) - 1).square().mean().backward()
        optimizer.step()
    *linear, norm = head
    assert not norm.bias.any()
    assert (norm.weight != 1).all()
    assert head(features).mean(0).abs().max() < 1e-5
    plain = features @ linear[0].weight.T if linear else features
    expected = (plain - plain.mean(0)) / (plain.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight
    torch.testing.assert_close(head(features), expected)
    assert [type(m) for m in linear] == ([nn.Linear] if output else [])
    assert all(m.bias is None for m in linear)


def test_bn_neck_without_an_output_is_as_long_as_the_features(images):
    model = jaguar_kit.build_embedder(ModelConfig("test_resnet", pretrained=False, head=Component("head", "bn_neck")))
    assert model.embedding_dim == model.backbone.num_features == model(images).shape[1]


def test_unfit_setting_of_a_head_is_refused():
    for unfit in ({"layers": 0}, {"dropout": 1.5}, {"output": 0}, {"width": 5}):
        with pytest.raises(KitError, match=f"head mlp: .*{next(iter(unfit))}"):
            jaguar_kit.build("head", "mlp", in_features=6, **unfit)


# geometries

NAMES = jaguar_kit.registered("geometry")
HYPERBOLIC = [name for name in NAMES if jaguar_kit.build("geometry", name).hyperbolic]
SPACES = [(1.0, None), (0.1, None), (4.0, None), (25.0, 0.1), (1.0, 0.999), (1.0, 0.3)]  # curvature, radius


def space(name, curvature=1.0, radius=None):
    return jaguar_kit.build("geometry", name, curvature=curvature, radius=radius)


def outputs_of_norms(*norms, dim=6, dtype=torch.float32):
    """What a head may give: a random direction of each norm."""
    directions = np.random.default_rng(0).normal(size=(len(norms), dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.as_tensor(directions * np.reshape(norms, (-1, 1)), dtype=dtype)


NORMS = [10.0**exponent for exponent in range(-8, 5)]


def reach(name, curvature, radius):
    """The largest Euclidean norm that an embedding may have."""
    c = math.sqrt(curvature)
    radius = 0.95 / c if radius is None else radius
    return radius if name == "poincare" else 2 * radius / (1 - curvature * radius**2)


def exact_map(name, vector, curvature, limit):
    """The exponential map at the origin, to 60 digits, of what is no longer than `limit` afterwards."""
    vector, c = [mpmath.mpf(x) for x in vector], mpmath.sqrt(curvature)
    norm = mpmath.sqrt(sum(x * x for x in vector))
    length = (mpmath.tanh if name == "poincare" else mpmath.sinh)(c * min(norm, 1000)) / c
    return [float(x / norm * min(length, limit)) for x in vector]


def exact_distance(name, x, y, curvature) -> float:
    """By the arcosh formulas, to 60 digits."""
    x, y, k = [mpmath.mpf(v) for v in x], [mpmath.mpf(v) for v in y], mpmath.mpf(curvature)
    inner, xx, yy = (sum(a * b for a, b in zip(u, v)) for u, v in ((x, y), (x, x), (y, y)))
    if name == "poincare":
        cosh = 1 + 2 * k * (xx - 2 * inner + yy) / ((1 - k * xx) * (1 - k * yy))
    else:
        cosh = k * (mpmath.sqrt(1 / k + xx) * mpmath.sqrt(1 / k + yy) - inner)
    return float(mpmath.acosh(max(cosh, 1)) / mpmath.sqrt(k))


@pytest.fixture(autouse=True, scope="module")
def many_digits():
    with mpmath.workdps(60):
        yield


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_hyperbolic_embeddings_are_those_of_the_exponential_map(name):
    outputs = outputs_of_norms(*NORMS)
    for curvature, radius in SPACES:
        embeddings = space(name, curvature, radius)(outputs)
        limit = reach(name, curvature, radius)
        expected = [exact_map(name, output.tolist(), curvature, limit) for output in outputs]
        for got, right in zip(embeddings.numpy(), np.array(expected)):
            close, about = 2e-5 * np.linalg.norm(right), f"curvature {curvature}, radius {radius}"
            np.testing.assert_allclose(got, right, rtol=0, atol=close, err_msg=about)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_hyperbolic_embeddings_never_leave_their_radius(name):
    outputs = outputs_of_norms(*NORMS)
    for curvature, radius in SPACES:
        geometry, about = space(name, curvature, radius), f"curvature {curvature}, radius {radius}"
        limit = reach(name, curvature, radius) * (1 + 1e-5)
        embeddings = geometry(outputs)
        assert (embeddings.norm(dim=1) <= limit).all(), about
        assert (geometry.project(1e6 * outputs).norm(dim=1) <= limit).all(), about
        torch.testing.assert_close(geometry.project(embeddings), embeddings)  # what is inside stays
        assert torch.isfinite(geometry.distance(embeddings, embeddings)).all(), about
        if name == "poincare":
            assert (curvature * embeddings.square().sum(1) < 1).all(), about


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_hyperbolic_gradients_are_finite_at_every_length(name):
    for curvature, radius in SPACES:
        geometry, about = space(name, curvature, radius), f"curvature {curvature}, radius {radius}"
        outputs = torch.cat([torch.zeros(2, 6), outputs_of_norms(*NORMS)])
        outputs = torch.cat([outputs, outputs[-3:]]).requires_grad_()  # some twice
        embeddings = geometry(outputs)
        (gradient,) = torch.autograd.grad((embeddings * torch.randn_like(embeddings)).sum(), outputs)
        assert torch.isfinite(gradient).all(), about
        assert gradient[0].any(), about  # the origin is no place to be stuck in
        distances = geometry.distance(geometry.project(geometry(outputs)), geometry.project(geometry(outputs)))
        (gradient,) = torch.autograd.grad((distances * torch.randn_like(distances)).sum(), outputs)
        assert torch.isfinite(gradient).all(), about


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3)], ids=str)
@pytest.mark.parametrize("name", HYPERBOLIC)
def test_hyperbolic_distances_are_those_of_the_arcosh_formula(name, dtype, tolerance):
    for curvature, radius in SPACES:
        geometry, about = space(name, curvature, radius), f"curvature {curvature}, radius {radius}"
        norms = np.array([1e-6, 1e-3, 0.1, 0.4, 1.0, 2.0, 100.0]) / math.sqrt(curvature)
        outputs = outputs_of_norms(*norms, dtype=dtype)
        points = geometry(torch.cat([outputs, outputs[3:] + 1e-3 / math.sqrt(curvature)]))
        got = geometry.distance(points, points).numpy()
        expected = [[exact_distance(name, x, y, curvature) for y in points.tolist()] for x in points.tolist()]
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=1e-6 / math.sqrt(curvature), err_msg=about)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_distances_lose_few_digits_at_the_usual_radius(name):
    points = space(name)(outputs_of_norms(*np.linspace(0.05, 5, 12)))
    got = space(name).distance(points, points).numpy()
    expected = [[exact_distance(name, x, y, 1.0) for y in points.tolist()] for x in points.tolist()]
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@PROPERTY
@given(st.sampled_from(HYPERBOLIC), st.sampled_from(SPACES), st.integers(1, 8), st.floats(-3, 3), st.integers(0, 9999))
def test_hyperbolic_distance_is_a_metric(name, curvature_and_radius, dim, exponent, seed):
    geometry = space(name, *curvature_and_radius)
    generator = torch.Generator().manual_seed(seed)
    points = geometry(10**exponent * torch.randn(6, dim, generator=generator, dtype=torch.float64))
    distance = geometry.distance(points, points)
    slack = 1e-6 / geometry.c
    assert (distance >= 0).all()
    assert (distance.diagonal() <= slack).all()
    torch.testing.assert_close(distance, distance.T)
    assert (distance[:, None, :] <= distance[:, :, None] + distance[None] + slack).all()


@PROPERTY
@given(st.sampled_from([0.1, 1.0, 9.0]), st.integers(1, 8), st.integers(0, 9999))
def test_both_hyperbolic_models_agree_on_the_distance_of_the_same_points(curvature, dim, seed):
    ball, hyperboloid = space("poincare", curvature), space("lorentz", curvature)
    generator = torch.Generator().manual_seed(seed)
    points = ball(torch.randn(6, dim, generator=generator, dtype=torch.float64) / math.sqrt(curvature))
    lifted = 2 * points / (1 - curvature * points.square().sum(1, keepdim=True))
    assert hyperboloid.longest == pytest.approx(ball.longest)
    torch.testing.assert_close(hyperboloid.project(lifted), lifted)  # the radius is the same too
    expected = ball.distance(points, points)
    torch.testing.assert_close(hyperboloid.distance(lifted, lifted), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_tangent_vectors_and_points_are_each_other_s_inverse(name):
    close = {"rtol": 1e-6, "atol": 1e-9}
    for curvature, radius in SPACES:
        geometry = space(name, curvature, radius)
        within = 0.99 * float(geometry.logmap0(geometry(outputs_of_norms(1e3, dtype=torch.float64))).norm())
        vectors = outputs_of_norms(*[share * within for share in (1e-4, 0.01, 0.3, 0.9, 1)], dtype=torch.float64)
        torch.testing.assert_close(geometry.logmap0(geometry.expmap0(vectors)), vectors, **close)
        points = geometry(vectors)
        torch.testing.assert_close(geometry.expmap0(geometry.logmap0(points)), points, **close)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_tangent_vectors_at_the_origin_tell_the_distance_to_it(name):
    stretch = 2 if name == "poincare" else 1  # the ball's metric at its origin
    for curvature, radius in SPACES:
        geometry = space(name, curvature, radius)
        points = geometry(outputs_of_norms(0.01, 0.1, 0.3, 5.0, dtype=torch.float64) / math.sqrt(curvature))
        to_origin = geometry.distance(points, torch.zeros(1, 6, dtype=torch.float64))[:, 0]
        torch.testing.assert_close(stretch * geometry.logmap0(points).norm(dim=1), to_origin, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_similarity_falls_with_the_distance_and_is_one_for_the_same(name):
    geometry = jaguar_kit.build("geometry", name)
    points = geometry.project(geometry(outputs_of_norms(0.1, 0.5, 1.0, 2.0, dtype=torch.float64)))
    distance = geometry.distance(points, points)
    torch.testing.assert_close(geometry.similarity(points, points), 1 - distance.square() / 2)
    torch.testing.assert_close(geometry.similarity(points, points).diagonal(), torch.ones(4, dtype=torch.float64))


def test_flat_geometries_are_what_they_say():
    outputs = outputs_of_norms(0.5, 1.0, 4.0)
    cosine, sphere, plane = (jaguar_kit.build("geometry", n) for n in ("cosine", "hyperspherical", "euclidean"))
    assert torch.equal(cosine(outputs), outputs)
    assert torch.equal(plane(outputs), outputs)
    torch.testing.assert_close(sphere(outputs).norm(dim=1), torch.ones(3))
    for geometry in (cosine, sphere):
        points = geometry.project(geometry(outputs))
        np.testing.assert_allclose(geometry.similarity(points, points), slow.cosines(outputs), atol=1e-6)
    distances = [[math.dist(x, y) for y in outputs.tolist()] for x in outputs.tolist()]
    np.testing.assert_allclose(plane.distance(outputs, outputs), distances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_radius_beyond_the_rim_is_refused(name):
    for curvature, radius in [(1.0, 1.0), (1.0, 7.0), (4.0, 0.5), (0.25, 2.0), (1e4, 0.95)]:
        with pytest.raises(KitError, match=rf"model\.geometry\.radius: {radius:g} reaches the rim"):
            space(name, curvature, radius)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_unfit_setting_of_a_geometry_is_refused(name):
    for unfit in ({"curvature": 0}, {"curvature": -1}, {"radius": 0}, {"bend": 1}):
        with pytest.raises(KitError, match=f"geometry {name}: .*{next(iter(unfit))}"):
            jaguar_kit.build("geometry", name, **unfit)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_outputs_are_taken_in_and_compared_in_full_precision(name):
    geometry = jaguar_kit.build("geometry", name)
    for dtype in (torch.float16, torch.bfloat16):
        outputs = outputs_of_norms(0.01, 0.3, 1.0, 3.0, 8.0).to(dtype)
        exact = geometry.project(geometry(outputs.float()))
        expected = geometry.distance(exact, exact)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            points = geometry.project(geometry(outputs))
            assert points.dtype == torch.float32, dtype
            torch.testing.assert_close(points, exact)
            torch.testing.assert_close(geometry.distance(points, points), expected)


@pytest.mark.parametrize("name", NAMES)
def test_embedder_gives_embeddings_of_its_geometry(name, images):
    config = ModelConfig("test_resnet", pretrained=False, geometry=Component("geometry", name))
    model = jaguar_kit.build_embedder(config).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.geometry(model.head(model.pooled(images))))
        torch.testing.assert_close(model.from_pooled(model.pooled(images)), model(images))


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
def test_statistics_and_gradients_of_a_backbone_change_only_when_it_learns(frozen, images):
    model = embedder(frozen)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()(images).square().sum().backward()
    after = model.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) == frozen
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


def test_truncated_file_is_refused(offline):
    _, path = saved(offline / "given.safetensors")
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.5, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "not a complete safetensors file" in refused(path), share


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


@pytest.fixture
def hub(offline, monkeypatch):
    """What timm was asked for; random weights stand for those of the hub."""
    asked, create = [], timm.create_model

    def pretend(name, pretrained=False, **settings):
        asked.append((name, pretrained))
        return create("test_resnet", **settings)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(timm, "create_model", pretend)
    return asked


def test_hub_is_asked_for_pretrained_weights(hub):
    jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=None)
    assert hub == [("test_resnet", True)]


def test_weights_that_timm_does_not_hold_are_asked_of_their_own_repository(hub, monkeypatch):
    known = jaguar_kit.Backbone("test_resnet", "someone/jaguars", config={"mean": (0.1, 0.2, 0.3)})
    monkeypatch.setitem(jaguar_kit.BACKBONES, "jaguars", known)
    model = jaguar_kit.load_backbone("jaguars", None, pretrained=True, weights=None)
    assert hub == [("hf-hub:someone/jaguars", True)]
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    jaguar_kit.load_backbone("jaguars", None, pretrained=False, weights=None)
    assert hub[1:] == [("test_resnet", False)]


@pytest.fixture
def part_of_a_larger_model(offline, monkeypatch):
    """A repository whose file holds a backbone among other things: (backbone, what was asked for)."""
    asked = []
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=0)
    tensors = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    others = {"pooling.p": torch.rand(1), "bn.weight": torch.rand(4), "final.weight": torch.rand(4, 4)}
    path = offline / "hub" / "model.safetensors"
    path.parent.mkdir()
    save_file({**tensors, **others}, path)

    def download(repository, file):
        asked.append((repository, file))
        return str(path)

    known = jaguar_kit.Backbone("test_resnet", "someone/miew", "backbone.", {"input_size": (3, 96, 96)})
    monkeypatch.setitem(jaguar_kit.BACKBONES, "miew", known)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return model, asked


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("inception_next_atto", {}),
        ("xcit_nano_12_p16_224", {}),
        ("crossvit_tiny_240", {"gem": "several maps", "average": "several maps"}),
    ],
)
def test_unusual_backbones_are_pooled_or_refused_in_one_line(name, faults):
    for pooling in ("native", "gem", "average"):
        size = timm.get_pretrained_cfg(name).input_size[-1]
        model = {"backbone": name, "pretrained": False, "pooling": pooling, "head": "none"}
        embedder = jaguar_kit.build_embedder(model).eval()
        if pooling in faults:
            with pytest.raises(KitError, match=f"model.pooling: .*{faults[pooling]}"):
                embedder(torch.zeros(1, 3, size, size))
        else:
            with torch.no_grad():
                assert embedder(torch.rand(1, 3, size, size)).shape == (1, embedder.embedding_dim)


def test_a_head_of_ones_own_tells_its_length():
    last = nn.LayerNorm(5)
    assert jaguar_kit.head_width(nn.Sequential(nn.Linear(7, 5), last, nn.Dropout())) == 5
    last.num_features = 6
    assert jaguar_kit.head_width(nn.Sequential(nn.Linear(7, 5), last)) == 6
    with pytest.raises(KitError, match=r"model\.head: a ReLU does not tell the length .*num_features"):
        jaguar_kit.head_width(nn.ReLU())


def test_backbone_is_taken_out_of_a_larger_model(part_of_a_larger_model, capsys):
    model, asked = part_of_a_larger_model
    loaded = jaguar_kit.load_backbone("miew", None, pretrained=True, weights=None)
    assert asked == [("someone/miew", "model.safetensors")]
    assert_same_weights(loaded, model)
    assert jaguar_kit.native_size(loaded) == 96
    assert "left out what is not the backbone's (bn, final, pooling)" in capsys.readouterr().out


def test_backbone_taken_out_of_a_larger_model_is_fetched_for_later(part_of_a_larger_model, offline, monkeypatch):
    model, asked = part_of_a_larger_model
    path = fetch_weights.fetch_backbone("miew", offline / "weights")
    assert path == offline / "weights" / "miew.safetensors"
    assert jaguar_kit.load_safetensors(path)[1]["source"] == "someone/miew"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = jaguar_kit.load_backbone("miew", None, pretrained=True, weights=None)
    assert_same_weights(loaded, model)
    assert jaguar_kit.native_size(loaded) == 96
    assert len(asked) == 1


@torch.no_grad()
@pytest.mark.parametrize("route", ["hub", "published file", "fetched"])
def test_miewid_is_its_features_gem_and_batch_norm(route, images, offline, monkeypatch):
    known = jaguar_kit.BACKBONES["miewid"]
    small = dataclasses.replace(known, architecture="test_efficientnet", config={"input_size": (3, 96, 96)})
    monkeypatch.setitem(jaguar_kit.BACKBONES, "miewid", small)
    torch.manual_seed(3)
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    width = model.num_features
    mean, var, weight, bias, p = (*(torch.rand(width) + 0.5 for _ in range(4)), torch.tensor([2.5]))
    tensors = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    tensors |= {"bn.running_mean": mean, "bn.running_var": var, "bn.weight": weight, "bn.bias": bias, "pooling.p": p}
    tensors |= {"bn.num_batches_tracked": torch.tensor(7), "final.weight": torch.rand(9, width)}
    path = offline / ("weights" if route == "published file" else "hub") / "miewid.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(path))
    if route != "published file":
        monkeypatch.delenv("HF_HUB_OFFLINE")
    if route == "fetched":
        fetch_weights.fetch_backbone("miewid", offline / "weights")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    embedder = jaguar_kit.build_embedder({"backbone": "miewid", "head": "none"}).eval()
    places = model.forward_features(images).clamp(min=1e-6)
    gem = places.pow(2.5).mean((2, 3)).pow(1 / 2.5)
    torch.testing.assert_close(embedder(images), (gem - mean) / (var + 1e-5).sqrt() * weight + bias)


def test_larger_model_without_the_backbone_s_tensors_is_refused(part_of_a_larger_model, offline, monkeypatch):
    save_file({"features.weight": torch.rand(3)}, offline / "hub" / "model.safetensors")
    with pytest.raises(KitError, match=r"another architecture: .* is missing"):
        jaguar_kit.load_backbone("miew", None, pretrained=True, weights=None)


def test_architecture_that_has_no_pretrained_weights_is_refused(offline, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    name = "resnet50_mlp"
    with pytest.raises(KitError, match=f"no weights for '{name}'"):
        jaguar_kit.load_backbone(name, None, pretrained=True, weights=None)


# weights that the kit itself saved


@pytest.fixture
def tiny_name(monkeypatch):
    """A short name for a small backbone, with a licence and a normalisation of its own."""
    config = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "license": "cc-by-nc-4.0"}
    known = jaguar_kit.Backbone("test_resnet.r160_in1k", "someone/tiny", config=config)
    monkeypatch.setitem(jaguar_kit.BACKBONES, "tiny", known)
    return "tiny"


def random_backbone(name, seed=5) -> nn.Module:
    torch.manual_seed(seed)
    return jaguar_kit.create_backbone(name).eval()


def slow_sha256(tensors) -> str:
    text = b""
    for name, tensor in sorted(tensors.items()):
        text += f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes()
    return hashlib.sha256(text).hexdigest()


def test_saved_backbone_tells_where_it_is_from(offline, tiny_name):
    path = jaguar_kit.save_backbone(offline / "x.safetensors", random_backbone(tiny_name), tiny_name)
    tensors, told = jaguar_kit.load_safetensors(path)
    assert told["architecture"] == "test_resnet.r160_in1k"
    assert told["source"] == "someone/tiny"
    assert told["licence"] == "cc-by-nc-4.0"
    assert told["sha256"] == slow_sha256(tensors)
    assert json.loads(told["config"]) == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 160, 160]}


def test_saved_backbone_of_timm_tells_timm_s_repository(offline):
    path = jaguar_kit.save_backbone(offline / "x.safetensors", random_backbone("test_vit"), "test_vit")
    told = jaguar_kit.load_safetensors(path)[1]
    assert told["architecture"] == "test_vit"
    assert told["source"] == "timm/test_vit.r160_in1k"
    assert told["licence"] == (timm.get_pretrained_cfg("test_vit").license or "unknown")  # older versions know none


PLACES = ["recipe", "recipe folder", "environment", "working folder"]


@pytest.mark.parametrize(("place", "file_name"), [*zip(PLACES, ["tiny", "test_resnet.r160_in1k"] * 2)])
def test_saved_backbone_is_found_and_loaded_as_it_was(place, file_name, offline, tiny_name, monkeypatch, capsys):
    folder = offline / ("weights" if place == "working folder" else "elsewhere") / "deep"
    folder.mkdir(parents=True)
    model = random_backbone(tiny_name)
    path = jaguar_kit.save_backbone(folder / f"{file_name}.safetensors", model, tiny_name)
    if place == "environment":
        monkeypatch.setenv("JAGUAR_KIT_WEIGHTS", str(offline / "elsewhere"))
    given = {"recipe": str(path), "recipe folder": str(offline / "elsewhere")}.get(place)
    loaded = jaguar_kit.load_backbone(tiny_name, None, pretrained=True, weights=given)
    assert_same_weights(loaded, model)
    assert capsys.readouterr().out == ""  # nothing was left out


@pytest.mark.parametrize("name", ["swin_l_384", "convnext_xl_384", "dinov3_l", "eva02_l_448", "vit_h", "resnet50"])
def test_saved_backbone_of_every_family_is_loaded_as_it_was(name, shrunk):
    model = random_backbone(name)
    path = jaguar_kit.save_backbone(shrunk / "x.safetensors", model, name)
    assert_same_weights(jaguar_kit.load_backbone(name, None, pretrained=True, weights=str(path)), model)


def test_weights_are_looked_for_in_the_recipe_s_folder_first(offline, monkeypatch):
    models = {}
    for seed, folder in enumerate(("given", "environment", "weights")):
        (offline / folder).mkdir()
        models[folder], _ = saved(offline / folder / "test_resnet.safetensors", seed=seed)
    monkeypatch.setenv("JAGUAR_KIT_WEIGHTS", str(offline / "environment"))

    def loaded(given):
        return jaguar_kit.load_backbone("test_resnet", None, True, given)

    assert_same_weights(loaded(str(offline / "given")), models["given"])
    assert_same_weights(loaded(None), models["environment"])
    monkeypatch.delenv("JAGUAR_KIT_WEIGHTS")
    assert_same_weights(loaded(None), models["weights"])


def test_a_folder_that_is_named_is_never_replaced_by_what_lies_elsewhere(offline):
    (offline / "empty.safetensors").mkdir()
    (offline / "weights").mkdir()
    model, _ = saved(offline / "weights" / "test_resnet.safetensors")
    with pytest.raises(KitError, match=r"model.weights: .*empty.safetensors: holds no weights of test_resnet"):
        jaguar_kit.load_backbone("test_resnet", None, True, str(offline / "empty.safetensors"))
    assert_same_weights(jaguar_kit.load_backbone("test_resnet", None, True, None), model)


def test_kaiming_is_its_formula_and_the_default_is_torch_s_own():
    for name in ("mlp", "linear"):
        torch.manual_seed(0)
        head = jaguar_kit.build("head", name, in_features=512, output=1024, init="kaiming")
        layers = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)]
        for layer in layers:
            expected = (2 / layer.out_features) ** 0.5  # fan out
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.02)
            assert layer.bias.eq(0).all()
        torch.manual_seed(0)
        plain = jaguar_kit.build("head", name, in_features=512, output=1024)
        torch.manual_seed(0)
        first = torch.nn.Linear(512, layers[0].out_features)
        assert torch.equal(
            next(one for one in plain.modules() if isinstance(one, torch.nn.Linear)).weight, first.weight
        )


def test_file_that_says_it_is_of_another_architecture_is_refused(offline):
    model = random_backbone("test_resnet")
    path = offline / "given.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, {"architecture": "test_vit"})
    assert "another architecture: test_vit, but model.backbone 'test_resnet' is test_resnet" in refused(path)


def test_other_weights_of_the_same_architecture_are_taken(offline):
    model = random_backbone("test_resnet")
    path = offline / "given.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, {"architecture": "test_resnet.other"})
    assert_same_weights(jaguar_kit.load_backbone("test_resnet", None, True, str(path)), model)


def test_flipped_byte_is_noticed(offline):
    path = jaguar_kit.save_backbone(offline / "given.safetensors", random_backbone("test_resnet"), "test_resnet")
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")  # of the tensors, behind the header
    for share in (0.0, 0.4, 0.999):
        content = bytearray(whole)
        content[start + int(share * (len(content) - start))] ^= 1
        path.write_bytes(content)
        assert "damaged" in refused(path), share


def test_classifier_is_left_out_aloud(offline, capsys):
    _, path = saved(offline / "given.safetensors")
    jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=str(path))
    assert capsys.readouterr().out.strip() == f"note: {path}: left out the classifier (fc.bias, fc.weight)"


def test_normalisation_of_the_file_wins(offline):
    model = random_backbone("test_resnet")
    model.pretrained_cfg.update(mean=(0.7, 0.8, 0.9), std=(0.1, 0.1, 0.2), input_size=(3, 224, 224))
    path = jaguar_kit.save_backbone(offline / "given.safetensors", model, "test_resnet")
    loaded = jaguar_kit.load_backbone("test_resnet", None, pretrained=True, weights=str(path))
    assert list(loaded.pretrained_cfg["mean"]) == [0.7, 0.8, 0.9]
    assert list(loaded.pretrained_cfg["std"]) == [0.1, 0.1, 0.2]
    assert jaguar_kit.native_size(loaded) == 224


def test_what_the_hub_refuses_says_what_to_do_and_does_not_name_itself(offline, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def refuse(*_, **__):
        raise OSError("gated")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(KitError, match=r"set HF_TOKEN; without internet") as told:
        fetch_weights.fetch_backbone("resnet50", offline / "weights")
    assert "tools/fetch_weights.py" not in str(told.value)


def test_backbone_is_fetched_once(offline, tiny_name, monkeypatch):
    fetched, model = [], random_backbone(tiny_name)
    monkeypatch.setattr(fetch_weights, "download_backbone", lambda *asked: fetched.append(asked) or model)
    for _ in range(2):
        path = fetch_weights.fetch_backbone(tiny_name, offline / "new" / "weights")
        assert path == offline / "new" / "weights" / "tiny.safetensors"
    assert fetched == [("tiny", None)]
    assert_same_weights(jaguar_kit.load_backbone(tiny_name, None, True, str(path.parent)), model)


@pytest.mark.parametrize(("file", "kind"), [("aliked_n16", "ALIKED"), ("disk", "DISK")])
def test_detector_is_fetched_once_and_found_where_weights_lie(file, kind, tmp_path, monkeypatch):
    if not hasattr(kornia.feature, kind):
        pytest.skip(f"kornia {kornia.__version__} has no {kind}")
    monkeypatch.setattr(fetch_weights, "find_spec", lambda name: name)
    monkeypatch.setattr(getattr(kornia.feature, kind), "from_pretrained", lambda name: fetched.append(name) or model)
    fetched, model = [], getattr(kornia.feature, kind)(*(["aliked-n16"] if kind == "ALIKED" else []))
    for _ in range(2):
        assert fetch_weights.fetch_command([file, "--out", str(tmp_path / "weights")]) == 0
    assert len(fetched) == 1
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    found = jaguar_kit.room("experiments.spots").load_detector(fetch_weights.SPOTS[file], 8).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_detector_is_not_fetched_by_a_kornia_that_would_unpickle_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_weights, "find_spec", lambda name: None)
    with pytest.raises(KitError, match=r"aliked_n16: kornia .* newer kornia"):
        fetch_weights.fetch_detector("aliked_n16", tmp_path)


def test_interrupted_save_leaves_nothing(offline, monkeypatch):
    def interrupted(tensors, path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(jaguar_kit, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jaguar_kit.save_backbone(offline / "x.safetensors", random_backbone("test_resnet"), "test_resnet")
    assert list(offline.iterdir()) == []


@every("name", ["test_vit", "efficientnet_lite0"])
def test_blocks_are_skipped_at_random_in_training_alone(name):
    model = {"backbone": name, "pretrained": False, "freeze": False, "head": "none", "drop_path": 0.5}
    embedder = jaguar_kit.build_embedder(model)
    rates = [m.drop_prob for m in embedder.backbone.modules() if isinstance(m, jaguar_kit.DropPath)]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0, pytest.approx(0.5))
    size = embedder.backbone.pretrained_cfg["input_size"][-1]
    images = torch.rand(8, 3, size, size)
    with torch.no_grad():
        still = [embedder.eval()(images) for _ in range(2)]
        moved = [embedder.train()(images) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moved)
    with pytest.raises(jaguar_kit.KitError, match="of a frozen backbone"):
        jaguar_kit.recipe_from_dict({"name": "x", "model": {**model, "freeze": True}})
