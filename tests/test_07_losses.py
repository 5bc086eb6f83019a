"""ArcFace and focal ArcFace against their formulas in float64."""

import itertools
import math

import jaguar_kit
import numpy as np
import pytest
import slow
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError

PROPERTY = settings(deadline=None, max_examples=15)


def batch(size=6, dim=5, identities=4, seed=0):
    """Embeddings, proxies (rounded to float32, so that both sides see the same numbers) and labels."""
    rng = np.random.default_rng(seed)
    embeddings, weight = (rng.normal(size=(n, dim)).astype(np.float32) for n in (size, identities))
    return embeddings, weight, rng.integers(0, identities, size)


def build(name, weight, **settings):
    loss = jaguar_kit.build("loss", name, embedding_dim=weight.shape[1], num_identities=len(weight), **settings)
    loss.weight.data = torch.as_tensor(weight, dtype=torch.float32).clone()
    return loss


def value(loss, embeddings, labels) -> float:
    return float(loss(torch.as_tensor(embeddings), torch.as_tensor(labels)).detach())


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.0, math.pi / 2])
def test_arcface_follows_its_formula(margin):
    embeddings, weight, labels = batch(size=12)
    for scale in (1.0, 16.0, 64.0):
        expected = slow.arcface_loss(embeddings, weight, labels, margin, scale)
        got = value(build("arcface", weight, margin=margin, scale=scale), embeddings, labels)
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5), f"scale {scale}"


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_arcface_follows_its_formula(gamma):
    embeddings, weight, labels = batch(size=12)
    for scale in (1.0, 4.0, 30.0):
        expected = slow.arcface_loss(embeddings, weight, labels, 0.4, scale, gamma)
        loss = build("focal_arcface", weight, margin=0.4, scale=scale, gamma=gamma)
        assert value(loss, embeddings, labels) == pytest.approx(expected, rel=1e-5, abs=1e-5), f"scale {scale}"


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("scale", [4.0, 32.0])
def test_gradient_follows_the_formula(gamma, scale):
    embeddings, weight, labels = batch(size=4, dim=3)
    loss = build("focal_arcface", weight, margin=0.5, scale=scale, gamma=gamma)
    points = torch.as_tensor(embeddings).requires_grad_()
    loss(points, torch.as_tensor(labels)).backward()
    of_embeddings = slow.numerical_gradient(
        lambda e: slow.arcface_loss(e, weight, labels, 0.5, scale, gamma), embeddings
    )
    of_weight = slow.numerical_gradient(lambda w: slow.arcface_loss(embeddings, w, labels, 0.5, scale, gamma), weight)
    np.testing.assert_allclose(points.grad.numpy(), of_embeddings, rtol=1e-3, atol=1e-4 * abs(of_embeddings).max())
    np.testing.assert_allclose(loss.weight.grad.numpy(), of_weight, rtol=1e-3, atol=1e-4 * abs(of_weight).max())


def test_gradient_follows_the_formula_beyond_pi_minus_the_margin():
    weight = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    embeddings = np.array([[-1.0, 0.2]], np.float32)  # the angle to its own proxy is 2.94
    points = torch.as_tensor(embeddings).requires_grad_()
    build("arcface", weight, margin=0.5, scale=8.0)(points, torch.tensor([0])).backward()
    expected = slow.numerical_gradient(lambda e: slow.arcface_loss(e, weight, [0], 0.5, 8.0), embeddings)
    np.testing.assert_allclose(points.grad.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"), [("arcface", {}), ("focal_arcface", {}), ("focal_arcface", {"gamma": 0.5})]
)
def test_loss_and_gradient_are_finite_at_cosine_one_and_minus_one(name, settings):
    _, weight, _ = batch(dim=7, identities=20)
    weight[:7] = np.eye(7)  # no rounding hides the cosine of exactly one
    for times in (1e-3, 1.0, 7.3, 1e3, -1e-3, -1.0, -7.3, -1e3):
        loss = build(name, weight, **settings)
        points = torch.as_tensor(times * weight).requires_grad_()
        result = loss(points, torch.arange(len(weight)))
        result.backward()
        assert torch.isfinite(result), f"{times} times the proxy"
        assert torch.isfinite(points.grad).all(), f"{times} times the proxy"
        assert torch.isfinite(loss.weight.grad).all(), f"{times} times the proxy"


def test_opposite_embedding_has_the_loss_of_the_formula():
    weight = np.eye(3, dtype=np.float32)
    expected = slow.arcface_loss(-weight, weight, range(3), 0.5, 64.0)
    assert value(build("arcface", weight), -weight, np.arange(3)) == pytest.approx(expected, rel=1e-5)


def test_loss_rises_with_the_angle_all_the_way_to_pi():
    loss = build("arcface", np.eye(2, 3, dtype=np.float32), margin=0.5, scale=10.0)
    angles = np.linspace(0, math.pi, 60)
    points = np.stack([np.cos(angles), 0 * angles, np.sin(angles)], 1)  # at right angles to the other proxy
    losses = [value(loss, point[None].astype(np.float32), [0]) for point in points]
    assert all(later > earlier for earlier, later in itertools.pairwise(losses))


def test_no_margin_is_softmax_over_scaled_cosines():
    embeddings, weight, labels = batch()
    logits = 64 * F.normalize(torch.as_tensor(embeddings)) @ F.normalize(torch.as_tensor(weight)).T
    expected = float(F.cross_entropy(logits, torch.as_tensor(labels)))
    assert value(build("arcface", weight, margin=0.0), embeddings, labels) == pytest.approx(expected, rel=1e-5)


def test_gamma_zero_is_plain_arcface():
    embeddings, weight, labels = batch()
    assert value(build("focal_arcface", weight, gamma=0.0), embeddings, labels) == value(
        build("arcface", weight), embeddings, labels
    )


@PROPERTY
@given(seed=st.integers(0, 10_000), margin=st.floats(0.01, math.pi / 2))
def test_margin_never_lowers_the_loss(seed, margin):
    embeddings, weight, labels = batch(seed=seed)
    without = value(build("arcface", weight, margin=0.0, scale=8.0), embeddings, labels)
    assert value(build("arcface", weight, margin=margin, scale=8.0), embeddings, labels) >= without - 1e-5


@PROPERTY
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.1, 5))
def test_focal_weight_never_raises_the_loss(seed, gamma):
    embeddings, weight, labels = batch(seed=seed)
    focal = value(build("focal_arcface", weight, gamma=gamma, scale=8.0), embeddings, labels)
    assert 0 <= focal <= value(build("arcface", weight, scale=8.0), embeddings, labels) + 1e-5


def test_focal_loss_takes_most_from_what_is_easy():
    weight = np.eye(2, dtype=np.float32)
    easy, hard = np.array([[1.0, 0.1]], np.float32), np.array([[0.1, 1.0]], np.float32)
    plain, focal = (build(name, weight, margin=0.1, scale=4.0) for name in ("arcface", "focal_arcface"))
    kept = [value(focal, e, [0]) / value(plain, e, [0]) for e in (easy, hard)]
    assert kept[0] < 0.01
    assert kept[1] > 0.9


def test_lengths_of_embeddings_and_proxies_do_not_matter():
    embeddings, weight, labels = batch()
    lengths = np.array([[0.01], [1], [3], [10], [100], [1000]], np.float32)
    assert value(build("arcface", weight), embeddings, labels) == pytest.approx(
        value(build("arcface", 5 * weight), lengths * embeddings, labels), rel=1e-5
    )


def test_cosines_keep_full_precision_under_autocast():
    embeddings, weight, labels = batch(size=32, dim=64)
    loss = build("arcface", weight)
    expected = value(loss, embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert value(loss, embeddings, labels) == pytest.approx(expected, rel=1e-6)


def test_embeddings_of_half_precision_are_accepted():
    embeddings, weight, labels = batch()
    rounded = embeddings.astype(np.float16)
    expected = slow.arcface_loss(rounded, weight, labels, 0.5, 64.0)
    assert value(build("arcface", weight), rounded, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["arcface", "focal_arcface"])
def test_descent_separates_two_identities(name):
    torch.manual_seed(0)
    loss = jaguar_kit.build("loss", name, embedding_dim=4, num_identities=2, scale=16.0)
    points, labels = torch.randn(8, 4).requires_grad_(), torch.arange(8) % 2
    optimizer = torch.optim.SGD([points, *loss.parameters()], lr=0.5)
    before = value(loss, points.detach(), labels)
    for _ in range(60):
        optimizer.zero_grad()
        loss(points, labels).backward()
        optimizer.step()
    assert value(loss, points.detach(), labels) < before / 100
    assert ((F.normalize(points) @ F.normalize(loss.weight).T).argmax(1) == labels).all()


@pytest.mark.parametrize("settings", [{"margin": 1.6}, {"margin": -0.1}, {"scale": "64x"}, {"gamma": -1}], ids=str)
def test_unfit_setting_is_refused(settings):
    with pytest.raises(KitError, match=next(iter(settings))):
        jaguar_kit.build("loss", "focal_arcface", embedding_dim=8, num_identities=3, **settings)
