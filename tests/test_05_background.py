"""Background, augmentation and Preparation: from stored pixels to what a backbone takes."""

import math

import jaguar_kit
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import Component, KitError, Preparation
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import functional as torchvision

PROPERTY = settings(deadline=None, max_examples=30)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def stored(batch: int, channels: int = 4, size: int = 16, seed: int = 0) -> torch.Tensor:
    shape = (batch, channels, size, size)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def preparation(background="original", augment=(), size=16, mean=MEAN, std=STD) -> Preparation:
    parts = [jaguar_kit.component("augmentation", a, "augment") for a in augment]
    return Preparation(Component("background", background), parts, size, mean, std)


def plain(background="original", augment=(), size=16) -> Preparation:
    """Without normalisation, so that results are RGB in [0, 1]."""
    return preparation(background, augment, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def normalised(rgb: torch.Tensor) -> np.ndarray:
    return (rgb.double().numpy() / 255 - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))


def test_original_keeps_every_pixel_whatever_the_mask():
    pixels = stored(3)
    np.testing.assert_allclose(preparation()(pixels, training=False).numpy(), normalised(pixels[:, :3]), atol=1e-5)


def test_original_needs_no_mask():
    pixels = stored(2, channels=3)
    np.testing.assert_allclose(preparation()(pixels, training=True).numpy(), normalised(pixels), atol=1e-5)


def test_black_weighs_each_pixel_with_its_mask():
    pixels = stored(3)
    expected = pixels[:, :3].double() * pixels[:, 3:].double() / 255
    np.testing.assert_allclose(preparation("black")(pixels, training=False).numpy(), normalised(expected), atol=1e-5)


def test_black_is_black_where_the_mask_is_empty_and_the_image_where_it_is_full():
    pixels = stored(1)
    pixels[:, 3, :8], pixels[:, 3, 8:] = 0, 255
    rgb = plain("black")(pixels, training=False)
    assert (rgb[:, :, :8] == 0).all()
    torch.testing.assert_close(rgb[:, :, 8:], pixels[:, :3, 8:].float() / 255)


@PROPERTY
@given(rgb=st.integers(0, 255), alpha=st.integers(0, 255))
def test_black_follows_its_formula_at_every_value(rgb, alpha):
    pixels = torch.tensor([rgb, rgb, rgb, alpha], dtype=torch.uint8).view(1, 4, 1, 1)
    value = plain("black", size=1)(pixels, training=False)
    assert value.flatten().tolist() == pytest.approx([rgb / 255 * alpha / 255] * 3, abs=1e-6)


def test_stored_pixels_are_not_changed():
    pixels = stored(4)
    before = pixels.clone()
    preparation("black", ["flip", "affine", "erasing"])(pixels, training=True)
    assert torch.equal(pixels, before)


def test_result_has_the_layout_that_a_backbone_takes():
    prepared = preparation("black", size=24)(stored(5), training=False)
    assert prepared.shape == (5, 3, 24, 24)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_resizing_keeps_a_plain_colour():
    pixels = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    for size in (7, 16, 40):
        rgb = plain(size=size)(pixels, training=False)
        torch.testing.assert_close(rgb, torch.full((1, 3, size, size), 90 / 255))


def test_shrinking_averages_instead_of_skipping_pixels():
    lines = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    lines[..., ::8] = 255
    inner = plain(size=8)(lines, training=False)[..., 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 1 / 8), atol=0.01, rtol=0)


def test_each_channel_has_its_own_mean_and_deviation():
    prepare = preparation(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    prepared = prepare(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8), training=False)
    assert [prepared[0, c].unique().tolist() for c in range(3)] == [[1.0], [1.0], [0.0]]


def test_flip_mirrors_left_and_right():
    pixels = stored(3)
    once, mirrored = plain()(pixels, training=True), plain(augment=[{"name": "flip", "p": 1.0}])(pixels, training=True)
    torch.testing.assert_close(mirrored, once.flip(-1))


def test_mask_is_applied_before_the_image_moves():
    pixels = stored(2)
    still = plain("black")(pixels, training=True)
    flipped = plain("black", [{"name": "flip", "p": 1.0}])(pixels, training=True)
    torch.testing.assert_close(flipped, still.flip(-1))


def test_affine_without_any_movement_changes_nothing():
    unmoved = {"name": "affine", "degrees": 0, "translate": 0, "scale": [1, 1]}
    pixels = stored(2)
    torch.testing.assert_close(
        plain(augment=[unmoved])(pixels, training=True), plain()(pixels, training=True), atol=1e-4, rtol=0
    )


def test_affine_shifts_by_no_more_than_its_share_of_the_side():
    pixels = torch.zeros(64, 3, 40, 40, dtype=torch.uint8)
    pixels[:, :, 20, 20] = 255
    shift_only = {"name": "affine", "degrees": 0, "translate": 0.1, "scale": [1, 1]}
    rgb = plain(augment=[shift_only], size=40)(pixels, training=True)[:, 0]
    weight = rgb / rgb.sum((1, 2), keepdim=True)
    places = torch.arange(40.0)
    shifts = torch.stack([(weight.sum(2) * places).sum(1) - 20, (weight.sum(1) * places).sum(1) - 20])
    assert shifts.abs().max() <= 4.2  # some releases of kornia stretch a shift by 40 / 39
    assert shifts.abs().max() > 2


def test_erasing_blackens_a_rectangle_of_the_asked_share():
    white = torch.full((64, 3, 50, 50), 255, dtype=torch.uint8)
    rgb = plain(augment=[{"name": "erasing", "p": 1.0, "area": [0.1, 0.2]}], size=50)(white, training=True)
    assert set(rgb.unique().tolist()) == {0.0, 1.0}
    erased = rgb[:, 0] == 0
    for image, share in zip(erased, erased.float().mean((1, 2))):
        rows, columns = torch.nonzero(image.any(1)), torch.nonzero(image.any(0))
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert image.sum() == box
        assert 0.06 < share < 0.24  # whole pixels, and a long rectangle is cut at the border


def test_flip_mirrors_its_share_of_the_images():
    pixels = stored(1).expand(400, -1, -1, -1)
    rgb = plain(augment=[{"name": "flip", "p": 0.25}])(pixels, training=True)
    unchanged = (rgb == plain()(pixels, training=False)).flatten(1).all(1).float().mean()
    assert 0.65 < unchanged < 0.85


def test_preparation_is_fixed_exactly_when_nothing_is_drawn():
    assert preparation("black").fixed
    assert preparation("original").fixed
    assert not preparation("black", ["flip"]).fixed


def test_background_that_is_drawn_is_not_fixed():
    prepare = preparation()
    prepare.background = jaguar_kit.build("background", "random")
    assert not prepare.fixed


def test_unfit_setting_of_an_augmentation_is_refused():
    for name, unfit in (
        ("flip", {"p": 1.5}),
        ("flip", {"p": "often"}),
        ("flip", {"chance": 0.5}),
        ("affine", {"translate": -0.1}),
        ("affine", {"scale": [0, 1]}),
        ("affine", {"scale": [1]}),
        ("affine", {"degrees": 400}),
        ("erasing", {"area": [0.1, 1.1]}),
        ("erasing", {"area": [0.5, 0.1]}),
        ("erasing", {"ratio": [3.0, 0.5]}),
    ):
        with pytest.raises(KitError, match=next(iter(unfit))):
            jaguar_kit.component("augmentation", {"name": name, **unfit}, "augment").build()


def test_misspelt_background_is_answered_with_the_nearest_name():
    with pytest.raises(KitError, match="did you mean 'black'"):
        Component("background", "blakc").build()


# every background


def scene(images=3, side=32):
    """Animals of several colours before plain walls of a colour for each image: RGB, alpha, walls (B, 3, 1, 1)."""
    generator = torch.Generator().manual_seed(0)
    alpha = torch.zeros(images, 1, side, side)
    alpha[..., 8:24, 10:26] = 1
    walls = torch.linspace(0.1, 0.9, 3 * images).view(images, 3, 1, 1)
    animal = torch.rand(images, 3, side, side, generator=generator)
    return alpha * animal + (1 - alpha) * walls, alpha, walls


def changed(name, rgb, alpha, seed=0, **settings):
    torch.manual_seed(seed)
    return jaguar_kit.build("background", name, **settings)(rgb, alpha)


BEHIND = sorted(set(jaguar_kit.registered("background")) - {"background_only", "silhouette_only"})


def test_the_animal_itself_is_never_changed():
    rgb, alpha, _ = scene()
    for name in BEHIND:
        torch.testing.assert_close(alpha * changed(name, rgb, alpha), alpha * rgb, msg=lambda m, n=name: f"{n}: {m}")


def test_colours_stay_between_0_and_1_also_without_an_animal_or_without_surroundings():
    rgb = torch.rand(2, 3, 32, 32).round()
    for name in jaguar_kit.registered("background"):
        for alpha in (torch.zeros(2, 1, 32, 32), torch.ones(2, 1, 32, 32), torch.rand(2, 1, 32, 32)):
            out = changed(name, rgb, alpha)
            assert out.shape == rgb.shape, name
            assert torch.isfinite(out).all(), name
            assert out.min() >= 0, name
            assert out.max() <= 1, name


def test_what_is_drawn_is_drawn_anew_and_repeats_with_its_seed():
    rgb, alpha, _ = scene()
    for name in jaguar_kit.registered("background"):
        assert torch.equal(changed(name, rgb, alpha, 1), changed(name, rgb, alpha, 1)), name
        drawn = {changed(name, rgb, alpha, seed).sum().item() for seed in range(6)}
        assert (len(drawn) > 1) == jaguar_kit.build("background", name).drawn, name


def test_gray_and_mean_colour_are_what_they_say():
    rgb, alpha, _ = scene()
    mean = (rgb * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True)
    torch.testing.assert_close(changed("gray", rgb, alpha, level=0.25), alpha * rgb + (1 - alpha) * 0.25)
    torch.testing.assert_close(changed("mean_colour", rgb, alpha), alpha * rgb + (1 - alpha) * mean)


def test_blurred_surroundings_hold_no_colour_of_the_animal():
    rgb, alpha, walls = scene()
    torch.testing.assert_close(changed("blur", rgb, alpha), alpha * rgb + (1 - alpha) * walls, rtol=0, atol=2e-3)


def test_removing_the_animal_leaves_only_its_surroundings():
    rgb, alpha, walls = scene()
    torch.testing.assert_close(changed("background_only", rgb, alpha), walls.expand_as(rgb), rtol=0, atol=2e-3)


def test_painting_the_surroundings_over_leaves_only_the_animals_colours():
    rgb, alpha, walls = scene()
    other, same = scene()[0] * alpha + (1 - alpha) * (1 - walls), changed("inpaint", rgb, alpha)
    torch.testing.assert_close(changed("inpaint", other, alpha), same)


def test_the_silhouette_is_the_mask():
    rgb, alpha, _ = scene()
    torch.testing.assert_close(changed("silhouette_only", rgb, alpha), alpha.expand_as(rgb))


def test_swapped_surroundings_are_those_of_another_image():
    rgb, alpha, walls = scene(4)
    for seed in range(4):
        corners = changed("swap", rgb, alpha, seed)[:, :, 0, 0]
        for i, corner in enumerate(corners):
            nearest = (walls[:, :, 0, 0] - corner).abs().sum(1).argmin()
            torch.testing.assert_close(corner, walls[nearest, :, 0, 0])
            assert nearest != i


def test_noise_has_the_strength_it_says():
    rgb, alpha = torch.full((1, 3, 256, 256), 0.5), torch.zeros(1, 1, 256, 256)
    assert changed("noise", rgb, alpha, strength=0.1).std().item() == pytest.approx(0.1, rel=0.02)


def test_a_blur_as_wide_as_it_may_be_works_on_small_images():
    rgb, alpha = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    assert torch.isfinite(changed("blur", rgb, alpha, radius=0.3)).all()


# every augmentation

AUGMENTATIONS = jaguar_kit.registered("augmentation")


def augmented(name, images, seed=0, **settings):
    torch.manual_seed(seed)
    return jaguar_kit.build("augmentation", name, **settings)(images)


def test_augmentations_draw_for_each_image_and_repeat_with_their_seed():
    images = torch.rand(1, 3, 48, 48).expand(12, -1, -1, -1).contiguous()
    for name in AUGMENTATIONS:
        settings = {"p": 0.5} if "p" in jaguar_kit.settings_of("augmentation", name) else {}
        first, again = (augmented(name, images, 3, **settings) for _ in range(2))
        assert first.shape == images.shape, name
        assert torch.isfinite(first).all(), name
        assert torch.equal(first, again), name
        assert len({image.sum().item() for image in first}) >= 2, name
        assert not torch.equal(first, augmented(name, images, 4, **settings)), name


def test_probability_is_that_of_each_image():
    images = torch.rand(1, 3, 32, 32).expand(200, -1, -1, -1).contiguous()
    for name in [n for n in AUGMENTATIONS if "p" in jaguar_kit.settings_of("augmentation", n)]:
        torch.testing.assert_close(augmented(name, images, p=0.0), images, msg=lambda m, n=name: f"{n}: {m}")
        same = (augmented(name, images, p=0.5) - images).abs().amax((1, 2, 3)) < 1e-4
        assert 0.3 < same.float().mean() < 0.7, name


@pytest.mark.parametrize("side", [64, 128])
def test_elastic_moves_as_far_as_torchvision_for_the_same_numbers(side):

    ramp = torch.linspace(0, side - 1, side).expand(1, 1, side, side)
    torch.manual_seed(0)
    inner = slice(side // 4, -side // 4)
    theirs = [v2.ElasticTransform(50.0, 5.0)(ramp) - ramp for _ in range(12)]
    ours = [augmented("elastic", ramp, seed, alpha=50.0, sigma=5.0, p=1.0) - ramp for seed in range(12)]
    expected, got = (torch.stack(moves)[..., inner, inner].std().item() for moves in (theirs, ours))
    assert got == pytest.approx(expected, rel=0.25)


def test_augmentations_take_a_batch_of_one_whatever_is_drawn_for_it():
    image = torch.rand(1, 3, 32, 32)
    for name in AUGMENTATIONS:
        augmentation = jaguar_kit.build("augmentation", name)
        for seed in range(8):
            torch.manual_seed(seed)
            assert augmentation(image).shape == image.shape, name


def test_elastic_blurs_its_noise_like_torchvision():
    noise = torch.rand(2, 3, 48, 48)
    for sigma in (0.5, 2.0, 5.0):
        blur, kernel = jaguar_kit.blur_matrix(48, sigma), 2 * math.ceil(4 * sigma) + 1
        expected = torchvision.gaussian_blur(noise, [kernel, kernel], [sigma, sigma])
        torch.testing.assert_close(blur @ noise @ blur.T, expected)


def test_elastic_blur_wider_than_the_image_still_adds_up_to_one():
    weights = jaguar_kit.blur_matrix(16, 20.0)
    torch.testing.assert_close(weights.sum(1), torch.ones(16))
    assert weights.min() >= 0


def test_colour_jitter_leaves_every_pixel_where_it_is():
    images = (torch.rand(4, 1, 16, 16) > 0.5).float().expand(-1, 3, -1, -1).contiguous()
    out = augmented("colour_jitter", images, p=1.0, contrast=0.0)
    bright, dark = (out.masked_select(mask) for mask in (images > 0.5, images < 0.5))
    assert bright.min() > dark.max()


def test_policies_are_made_of_the_parts_they_name():
    parts = [type(module).__name__ for module in jaguar_kit.build("augmentation", "affine_erasing")]
    assert parts == ["RandomHorizontalFlip", "RandomAffine", "RandomErasing"]
    warp = jaguar_kit.build("augmentation", "elastic_rotation_perspective")
    assert [type(module).__name__ for module in warp][2:] == ["RandomRotation", "RandomPerspective"]


def test_augmented_images_stay_between_0_and_1():
    noise = torch.rand(24, 3, 32, 32)
    for name in AUGMENTATIONS:
        for images in (noise, noise.round(), torch.zeros_like(noise), torch.ones_like(noise)):
            out = augmented(name, images)
            assert out.shape == images.shape, name
            assert torch.isfinite(out).all(), name
            assert out.min() >= -1e-4, name
            assert out.max() <= 1 + 1e-4, name


# AutoAugment and RandAugment


def photographs(count, side=24) -> torch.Tensor:
    """uint8 (count, 3, side, side): one image with soft shapes and some grain, neither black nor white anywhere."""
    rng = np.random.default_rng(0)
    soft = torch.nn.functional.interpolate(torch.from_numpy(rng.random((1, 3, 4, 4))), size=side, mode="bicubic")[0]
    one = (20 + 180 * soft.clamp(0, 1) + 20 * torch.from_numpy(rng.random((3, side, side)))).byte()
    return one.expand(count, -1, -1, -1)


POLICIES = [
    ("autoaugment", {}, lambda bilinear: v2.AutoAugment(interpolation=bilinear)),
    ("randaugment", {"level": 0.3}, lambda bilinear: v2.RandAugment(2, 9, interpolation=bilinear)),
    ("randaugment", {"level": 0.6, "operations": 1}, lambda bilinear: v2.RandAugment(1, 18, interpolation=bilinear)),
]


@pytest.mark.parametrize(("name", "settings", "policy"), POLICIES)
def test_policies_are_torchvision_s_on_whole_values(name, settings, policy):
    images, policy = photographs(200), policy(InterpolationMode.BILINEAR)
    torch.manual_seed(3)
    expected = torch.stack([policy(image) for image in images]).float()
    torch.manual_seed(3)
    ours = jaguar_kit.build("augmentation", name, **settings)(images.float() / 255)
    difference = (255 * ours - expected).abs()
    assert (difference.amax((1, 2, 3)) < 4).float().mean() > 0.9  # two operations in a row may round twice
    assert difference.mean() < 0.5


@pytest.mark.parametrize(("name", "settings", "policy"), POLICIES)
def test_policies_draw_for_each_image(name, settings, policy):
    out = augmented(name, photographs(100).float() / 255, **settings)
    assert out.min() >= 0
    assert out.max() <= 1
    assert len({tuple((255 * row).round().int().tolist()) for row in out.flatten(1)}) > 10


# image and mask

GEOMETRIC = ["flip", "affine", "rotation", "perspective", "elastic", "resized_crop", "elastic_rotation_perspective"]


def own_masks(count=12, side=32) -> torch.Tensor:
    """Stored images whose colours are their masks."""
    soft = torch.rand(count, 1, side // 4, side // 4)
    mask = (255 * torch.nn.functional.interpolate(soft, size=side, mode="bilinear")).byte()
    return mask.expand(-1, 4, -1, -1).contiguous()


def always(name) -> dict:
    return {"name": name, **({"p": 1.0} if "p" in jaguar_kit.settings_of("augmentation", name) else {})}


def test_mask_moves_with_its_image():
    for name in GEOMETRIC:
        torch.manual_seed(0)
        pixels, prepare = own_masks(), plain(augment=[always(name)], size=32)
        rgb, alpha = prepare.images(pixels, training=True)
        assert alpha.shape == (12, 1, 32, 32), name
        assert (rgb - alpha).abs().max() <= 1e-6, name
        still = prepare.images(pixels, training=False)[1]
        assert (alpha - still).abs().amax((1, 2, 3)).gt(0.05).all(), name


def test_erasing_leaves_the_mask():
    for names in (["rotation", "erasing"], ["affine_erasing"], ["mimic_camera"], ["combined"]):
        rgb, alpha = plain(augment=names, size=32).images(own_masks(), training=True)
        kept = rgb > 0
        torch.testing.assert_close(rgb[kept], alpha.expand_as(rgb)[kept])
        assert (alpha.expand_as(rgb)[~kept] > 0.1).any(), names


def test_augmentations_after_the_first_that_changes_colours_move_the_finished_image():
    prepare = plain("black", [{"name": "grayscale", "p": 1.0}, {"name": "flip", "p": 1.0}])
    pixels = stored(3)
    rgb, alpha = prepare.images(pixels, training=True)
    torch.testing.assert_close(alpha, pixels[:, 3:].float() / 255)
    gray = plain("black", [{"name": "grayscale", "p": 1.0}]).images(pixels, training=True)[0]
    torch.testing.assert_close(rgb, gray.flip(-1))


def test_images_without_masks_move_too():
    pixels = stored(3)
    moved = [always("flip")]
    rgb, alpha = plain(augment=moved).images(pixels[:, :3], training=True)
    assert alpha is None
    torch.testing.assert_close(rgb, plain(augment=moved).images(pixels, training=True)[0])


@pytest.mark.parametrize(("background", "corner"), [("gray", 0.5), ("black", 0.0), ("mean_colour", 1.0)])
def test_background_is_painted_into_the_corners_of_a_turned_image(background, corner):
    white = torch.full((16, 4, 32, 32), 255, dtype=torch.uint8)
    prepare = plain(background, [{"name": "rotation", "degrees": 45.0}], size=32)
    rgb, alpha = prepare.images(white, training=True)
    outside = (alpha == 0).expand_as(rgb)
    assert outside.sum() > 100
    torch.testing.assert_close(rgb[outside], torch.full_like(rgb[outside], corner), rtol=0, atol=0.02)
    torch.testing.assert_close(rgb[(alpha == 1).expand_as(rgb)], torch.ones(()).expand(int((alpha == 1).sum()) * 3))


def test_background_is_painted_before_colours_change():
    pixels = stored(4)
    changes = [{"name": "colour_jitter", "p": 1.0}]
    torch.manual_seed(0)
    got = plain("gray", changes).images(pixels, training=True)[0]
    torch.manual_seed(0)
    painted = plain("gray").images(pixels, training=False)[0]
    torch.testing.assert_close(got, jaguar_kit.build("augmentation", "colour_jitter", p=1.0)(painted))


def test_preparation_with_any_augmentation_follows_its_seed_and_augments_only_in_training():
    pixels = stored(12, size=32)
    still = plain("gray", size=32)(pixels, training=False)

    def drawn(prepare, seed):
        jaguar_kit.seed_everything(seed, 0, 0)
        return prepare(pixels, training=True)

    for name in AUGMENTATIONS:
        part = {"name": name, **({"p": 0.5} if "p" in jaguar_kit.settings_of("augmentation", name) else {})}
        prepare = plain("gray", [part], size=32)
        assert torch.equal(drawn(prepare, 1), drawn(prepare, 1)), name
        assert not torch.equal(drawn(prepare, 1), drawn(prepare, 2)), name
        assert torch.equal(prepare(pixels, training=False), still), name
        assert not prepare.fixed, name


# mixing images

MIXES = ["mixup", "cutmix"]


def mixed(name, images, seed=0, **settings):
    torch.manual_seed(seed)
    return jaguar_kit.component("mix", {"name": name, **settings}, "mix")(images)


def test_nothing_is_mixed_unless_it_is_asked_for():
    images = torch.rand(3, 3, 4, 4)
    same, partner, share = mixed("none", images)
    assert same is images
    assert partner.tolist() == [0, 1, 2]
    assert share.tolist() == [1, 1, 1]
    assert jaguar_kit.recipe_from_dict({"name": "x"}).train.mix.name == "none"


def test_mixup_is_the_mean_of_two_images_weighted_by_the_share():
    images = torch.rand(16, 3, 8, 8)
    out, partner, share = mixed("mixup", images, alpha=1.0)
    assert sorted(partner.tolist()) == list(range(16))
    assert len(set(share.tolist())) == 16
    for i in range(16):
        torch.testing.assert_close(out[i], share[i] * images[i] + (1 - share[i]) * images[partner[i]])


@pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 40)])
def test_cutmix_puts_a_rectangle_of_the_partner_in_and_tells_what_area_is_left(height, width):
    colours = torch.arange(32.0)  # each image is of one colour
    images = colours.view(-1, 1, 1, 1).expand(-1, 3, height, width)
    out, partner, share = mixed("cutmix", images)
    cut = out != images
    for i in range(32):
        if partner[i] == i:
            assert not cut[i].any()
            continue
        assert (out[i][cut[i]] == colours[partner[i]]).all()
        assert (cut[i] == cut[i, :1]).all()
        rows, columns = cut[i, 0].any(1), cut[i, 0].any(0)
        assert torch.equal(cut[i, 0], rows[:, None] & columns)
        for line in (rows, columns):
            places = line.nonzero().flatten()
            assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)  # no gap
        assert share[i].item() == pytest.approx(1 - cut[i, 0].sum().item() / (height * width), abs=1e-6)
    assert share.min() < 0.3
    assert share.max() > 0.8


def test_shares_are_drawn_from_the_beta_distribution():
    for alpha in (0.2, 1.0, 5.0):
        share = mixed("mixup", torch.rand(4000, 3, 1, 1), alpha=alpha)[2]
        assert share.mean().item() == pytest.approx(0.5, abs=0.03), alpha
        assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1), alpha


@pytest.mark.parametrize("name", MIXES)
def test_only_a_share_p_of_the_images_is_mixed(name):
    images = torch.rand(400, 3, 8, 8)
    out, _, share = mixed(name, images, p=0.0)
    assert torch.equal(out, images)
    assert (share == 1).all()
    out, _, share = mixed(name, images, p=0.3)
    assert 0.2 < (share < 1).float().mean() < 0.4
    torch.testing.assert_close(out[share == 1], images[share == 1])


@pytest.mark.parametrize("name", MIXES)
def test_mixing_follows_the_seed_and_leaves_its_input(name):
    images = torch.rand(8, 3, 8, 8)
    before = images.clone()
    first, again, other = (mixed(name, images, seed) for seed in (1, 1, 2))
    assert torch.equal(images, before)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])
    assert first[0].min() >= 0
    assert first[0].max() <= 1


@pytest.mark.parametrize("name", MIXES)
def test_batch_of_one_is_left_as_it_is(name):
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(mixed(name, images)[0], images)


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"p": 1.5}, {"share": 0.5}], ids=str)
def test_unfit_setting_of_mixing_is_refused(settings):
    for name in MIXES:
        with pytest.raises(KitError, match=next(iter(settings))):
            jaguar_kit.component("mix", {"name": name, **settings}, "mix")


@torch.no_grad()
@pytest.mark.parametrize("name", ["arcface", "cosface", "cross_entropy", "focal_arcface", "hyperbolic_arcface"])
def test_mixed_loss_is_the_weighted_sum_of_the_losses_under_both_labels(name):
    for beta in (0.0, 0.9):
        loss = jaguar_kit.build("loss", name, embedding_dim=6, num_identities=4, beta=beta, counts=[1, 5, 20, 60])
        embeddings, labels = torch.randn(9, 6), torch.arange(9) % 4
        partner, share = torch.randperm(9), torch.rand(9)
        terms = []
        for i in range(9):
            own, other = (float(loss(embeddings[i : i + 1], labels[j : j + 1])) for j in (i, int(partner[i])))
            terms.append(float(share[i]) * own + (1 - float(share[i])) * other)
        got = float(jaguar_kit.mixed_loss(loss, embeddings, labels, partner, share))
        assert got == pytest.approx(sum(terms) / 9, rel=1e-5), f"beta {beta}"


def recipe_with(loss="arcface", mix="none", geometry="cosine"):
    raw = {"name": "x", "loss": loss, "train": {"mix": mix}, "model": {"geometry": geometry}}
    return jaguar_kit.recipe_from_dict(raw)


def test_mixing_for_a_loss_on_pairs_is_refused():
    for loss in ("triplet", "circle", "supcon", "proxy_anchor", "cross_entropy_triplet"):
        with pytest.raises(
            KitError, match=rf"train\.mix: 'mixup' needs a loss on single images.*'{loss}' looks at pairs"
        ):
            recipe_with(loss, "mixup")


def test_mixing_for_a_sum_of_losses_needs_all_of_them_to_look_at_single_images():
    recipe_with({"name": "sum", "parts": ["arcface", "cosface"], "weights": [1.0, 1.0]}, "cutmix")
    with pytest.raises(KitError, match="looks at pairs"):
        recipe_with({"name": "sum", "parts": ["arcface", "triplet"], "weights": [1.0, 1.0]}, "cutmix")


def test_mixing_for_a_loss_on_single_images_is_taken():
    for loss in ("arcface", "cosface", "adaface", "subcenter_arcface", "cross_entropy"):
        assert recipe_with(loss, "cutmix").train.mix.name == "cutmix"


def test_mixing_is_refused_by_an_override_too(write_recipe):
    path = write_recipe({"name": "x", "loss": "triplet"})
    jaguar_kit.load_recipe(path)
    with pytest.raises(KitError, match=r"train\.mix: 'mixup' needs a loss on single images"):
        jaguar_kit.load_recipe(path, ["train.mix=mixup"])


@pytest.mark.parametrize(("loss", "geometry"), [("triplet", "poincare"), ("cross_entropy", "lorentz")])
def test_loss_in_another_space_than_its_model_s_is_refused(loss, geometry):
    with pytest.raises(KitError, match=rf"loss: '{loss}' and model\.geometry '{geometry}' are of two spaces"):
        recipe_with(loss, geometry=geometry)
    assert recipe_with("hyperbolic_arcface", "mixup", geometry).model.geometry.name == geometry


def test_hyperbolic_loss_in_a_flat_space_is_refused():
    for geometry in ("cosine", "hyperspherical", "euclidean"):
        with pytest.raises(KitError, match=f"'{geometry}' are of two spaces"):
            recipe_with("hyperbolic_arcface", geometry=geometry)


def test_mixed_backgrounds_are_drawn_for_each_image_by_their_shares():
    rgb, alpha = torch.full((400, 3, 4, 4), 0.9), torch.zeros(400, 1, 4, 4)
    mixed = jaguar_kit.build("background", "mixed", of={"original": 0.7, "black": 0.3})
    torch.manual_seed(0)
    shown = mixed(rgb, alpha)[:, 0, 0, 0]
    assert sorted(shown.unique().tolist()) == pytest.approx([0.0, 0.9])
    assert (shown == 0).float().mean() == pytest.approx(0.3, abs=0.07)
    assert jaguar_kit.build("background", "mixed").drawn
    for of in ({"original": 0.0}, {"mixed": 1.0}):
        with pytest.raises(jaguar_kit.KitError, match="background mixed: of"):
            jaguar_kit.build("background", "mixed", of=of)


@pytest.mark.ci
def test_another_background_at_inference_is_seen_by_validation_alone(mini, tmp_path):
    told = {
        "name": "other",
        "data": {"size": 32},
        "background": {"name": "mixed", "of": {"original": 0.5, "gray": 0.5}},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
        "train": {"epochs": 1, "views": 2},
    }
    plain = {**told, "name": "plain", "background": "black"}
    seen = jaguar_kit.run_recipe({**told, "evaluated_background": "black"}, mini, tmp_path, device="cpu")
    same = jaguar_kit.run_recipe(plain, mini, tmp_path, device="cpu")
    assert seen.table.plain.tolist() == same.table.plain.tolist()  # the backbone alone sees black ones in both
    mixed = jaguar_kit.run_recipe({**told, "name": "mixed"}, mini, tmp_path, device="cpu")
    assert mixed.table.plain.tolist() != same.table.plain.tolist()
    frozen = {**plain, "name": "fixed", "background": "gray", "evaluated_background": "black", "train": {"epochs": 1}}
    fixed = jaguar_kit.run_recipe(frozen, mini, tmp_path, device="cpu")
    assert fixed.table.plain.tolist() == same.table.plain.tolist()
