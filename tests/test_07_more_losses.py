"""All losses against their published formulas, written as loops in float64, and against pytorch-metric-learning."""

import copy
import inspect
import itertools
import math
import re

import jaguar_kit
import numpy as np
import pytest
import torch
from cases import every
from jaguar_kit import KitError

DIM, IDENTITIES = 8, 5
COUNTS = [1, 3, 10, 40, 400]  # images of each identity
SEVERAL = [3, 0, 1, 4, 2, 0, 1, 2, 3, 4, 2, 3]  # two or three images of each identity
LABELS = {
    "several of each": SEVERAL,
    "one alone, one missing": [0, 2, 1, 0, 2, 3, 1, 0, 2, 1, 0, 2],
    "two identities": [1, 4, 4, 1, 1, 4, 4, 4, 1, 1, 1, 4],
}
PARTS = {"parts": [{"name": "cosface"}, {"name": "triplet"}], "weights": [1.0, 0.5]}
NAMES = jaguar_kit.registered("loss")


# The formulas, each as fn(points, labels, parameters, class_weights, settings) -> scalar.


def mean(terms):
    return sum(terms) / len(terms)


def dot(a, b):
    return (a * b).sum()


def unit(vector):
    return vector / dot(vector, vector).sqrt()


def distance(a, b):
    return (unit(a) - unit(b)).square().sum().sqrt()


def log_sum_exp(values):
    return sum(value.exp() for value in values).log()


def relu(value):
    return value if value > 0 else 0 * value


def cross_entropy_of(logits, label, smoothing=0.0):
    log_probabilities = [logit - log_sum_exp(logits) for logit in logits]
    return -(1 - smoothing) * log_probabilities[label] - smoothing * mean(log_probabilities)


def slow_cross_entropy(points, labels, parameters, class_weights, label_smoothing=0.0):
    terms = []
    for point, label in zip(points, labels):
        logits = [dot(point, proxy) + bias for proxy, bias in zip(parameters["weight"], parameters["bias"])]
        terms.append(class_weights[label] * cross_entropy_of(logits, label, label_smoothing))
    return mean(terms)


def slow_margin_softmax(points, labels, parameters, class_weights, targets, scale, gamma=0.0):
    """targets: for each image the function that turns the cosine to its own identity into the target."""
    terms = []
    for point, label, target in zip(points, labels, targets):
        logits = []
        for identity, proxies in enumerate(parameters["weight"]):
            centres = proxies if proxies.ndim == 2 else [proxies]
            cosine = max(dot(unit(point), unit(centre)) for centre in centres)
            logits.append(scale * (target(cosine) if identity == label else cosine))
        term = cross_entropy_of(logits, label)
        terms.append(class_weights[label] * (1 - (-term).exp()) ** gamma * term)
    return mean(terms)


def slow_focal_arcface(points, labels, parameters, class_weights, margin=0.5, scale=64.0, gamma=2.0):
    def target(cosine):
        theta = cosine.acos()
        return (theta + margin).cos() if theta < math.pi - margin else cosine - margin * math.sin(margin)

    return slow_margin_softmax(points, labels, parameters, class_weights, [target] * len(labels), scale, gamma)


def slow_arcface(points, labels, parameters, class_weights, margin=0.5, scale=64.0):
    return slow_focal_arcface(points, labels, parameters, class_weights, margin, scale, gamma=0.0)


def slow_subcenter_arcface(points, labels, parameters, class_weights, margin=0.5, scale=64.0, subcenters=3):
    assert parameters["weight"].shape[1] == subcenters
    return slow_focal_arcface(points, labels, parameters, class_weights, margin, scale, gamma=0.0)


def slow_cosface(points, labels, parameters, class_weights, margin=0.35, scale=64.0):
    targets = [lambda cosine: cosine - margin] * len(labels)
    return slow_margin_softmax(points, labels, parameters, class_weights, targets, scale)


def slow_sphereface(points, labels, parameters, class_weights, margin=1.5, scale=30.0):
    def psi(cosine):
        theta = cosine.acos()
        k = math.floor(margin * theta.item() / math.pi)
        return (-1) ** k * (margin * theta).cos() - 2 * k

    return slow_margin_softmax(points, labels, parameters, class_weights, [psi] * len(labels), scale)


def clamped_length(point):
    return min(max(dot(point, point).item() ** 0.5, 1e-3), 100.0)


def slow_adaface(
    points,
    labels,
    parameters,
    class_weights,
    margin=0.4,
    scale=64.0,
    h=0.333,
    momentum=0.01,
    statistics=(20.0, 100.0),  # as they are when the margins are made
):
    def target_of(length):
        zhat = min(max((length - statistics[0]) / (statistics[1] + 1e-3) * h, -1.0), 1.0)
        g_angle, g_add = -margin * zhat, margin * zhat + margin
        return lambda cosine: (cosine.acos() + g_angle).clamp(1e-3, math.pi - 1e-3).cos() - g_add

    targets = [target_of(clamped_length(point)) for point in points]
    return slow_margin_softmax(points, labels, parameters, class_weights, targets, scale)


def shortened(vector, limit=0.95):
    length = dot(vector, vector).sqrt()
    return vector * (limit / length) if length > limit else vector


def hyperbolic_distance(a, b):
    """Of two points of the Poincare ball of curvature -1."""
    between, room = dot(a - b, a - b), (1 - dot(a, a)) * (1 - dot(b, b))
    return (1 + 2 * between / room).acosh()


def slow_hyperbolic_arcface(points, labels, parameters, class_weights, margin=0.5, scale=64.0):
    prototypes = [shortened(dot(v, v).sqrt().tanh() * unit(v)) for v in parameters["weight"]]
    terms = []
    for point, label in zip(points, labels):
        cosines = [2 * (-hyperbolic_distance(shortened(point), prototype)).exp() - 1 for prototype in prototypes]
        theta = cosines[label].acos()
        beyond = theta + margin >= math.pi
        cosines[label] = cosines[label] - margin * math.sin(margin) if beyond else (theta + margin).cos()
        terms.append(class_weights[label] * cross_entropy_of([scale * cosine for cosine in cosines], label))
    return mean(terms)


def neighbours(labels):
    """(anchor, its positives, its negatives) of each image."""
    for a, label in enumerate(labels):
        others = [i for i in range(len(labels)) if i != a]
        yield a, [i for i in others if labels[i] == label], [i for i in others if labels[i] != label]


def slow_triplet(points, labels, parameters, class_weights, margin=0.3, mining="batch_hard", squared=False):
    power = 2 if squared else 1
    terms = []
    for a, positives, negatives in neighbours(labels):
        if not positives or not negatives:
            continue
        near = [distance(points[a], points[p]) ** power for p in positives]
        far = [distance(points[a], points[n]) ** power for n in negatives]
        if mining == "batch_hard":
            term = relu(margin + max(near) - min(far))
        else:
            chosen = [min([d for d in far if d > d_ap], default=max(far)) for d_ap in near]
            term = mean([relu(margin + d_ap - d_an) for d_ap, d_an in zip(near, chosen)])
        terms.append(class_weights[labels[a]] * term)
    return mean(terms)


def slow_cross_entropy_triplet(
    points, labels, parameters, class_weights, label_smoothing=0.1, triplet_weight=0.2, margin=0.2
):
    return slow_cross_entropy(points, labels, parameters, class_weights, label_smoothing) + (
        triplet_weight * slow_triplet(points, labels, parameters, class_weights, margin)
    )


def slow_circle(points, labels, parameters, class_weights, margin=0.25, scale=80.0):
    terms = []
    for a, positives, negatives in neighbours(labels):
        if not positives or not negatives:
            continue
        pull, push = [], []
        for p in positives:
            s_p = dot(unit(points[a]), unit(points[p]))
            pull.append(-scale * max(1 + margin - s_p.item(), 0.0) * (s_p - (1 - margin)))
        for n in negatives:
            s_n = dot(unit(points[a]), unit(points[n]))
            push.append(scale * max(s_n.item() + margin, 0.0) * (s_n - margin))
        terms.append(class_weights[labels[a]] * (1 + (log_sum_exp(push) + log_sum_exp(pull)).exp()).log())
    return mean(terms)


def slow_supcon(points, labels, parameters, class_weights, temperature=0.1):
    terms = []
    for a, positives, negatives in neighbours(labels):
        if not positives:
            continue
        logits = {i: dot(unit(points[a]), unit(points[i])) / temperature for i in positives + negatives}
        everything = log_sum_exp(logits.values())
        terms.append(class_weights[labels[a]] * -mean([logits[p] - everything for p in positives]))
    return mean(terms)


def slow_proxy_anchor(points, labels, parameters, class_weights, margin=0.1, scale=32.0):
    pull, push = [], []
    for identity, proxy in enumerate(parameters["weight"]):
        cosines = [dot(unit(point), unit(proxy)) for point in points]
        positives = [(-scale * (s - margin)).exp() for s, label in zip(cosines, labels) if label == identity]
        negatives = [(scale * (s + margin)).exp() for s, label in zip(cosines, labels) if label != identity]
        if positives:
            pull.append(class_weights[identity] * (1 + sum(positives)).log())
        push.append(class_weights[identity] * (1 + sum(negatives, start=0 * cosines[0])).log())
    return mean(pull) + mean(push)


def slow_sum(points, labels, parameters, class_weights, parts, weights):
    total = 0.0
    for part, weight in zip(parts, weights):
        settings = {key: value for key, value in part.items() if key != "name"}
        total = total + weight * SLOW[part["name"]](points, labels, parameters, class_weights, **settings)
    return total


def slow_center(points, labels, parameters, class_weights, alpha=0.5):
    """Of centres that have not moved from the origin."""
    return mean([class_weights[label] * dot(point, point) / 2 for point, label in zip(points, labels)])


SLOW = {
    "adaface": slow_adaface,
    "arcface": slow_arcface,
    "center": slow_center,
    "circle": slow_circle,
    "cosface": slow_cosface,
    "cross_entropy": slow_cross_entropy,
    "cross_entropy_triplet": slow_cross_entropy_triplet,
    "focal_arcface": slow_focal_arcface,
    "hyperbolic_arcface": slow_hyperbolic_arcface,
    "proxy_anchor": slow_proxy_anchor,
    "sphereface": slow_sphereface,
    "subcenter_arcface": slow_subcenter_arcface,
    "sum": slow_sum,
    "supcon": slow_supcon,
    "triplet": slow_triplet,
}


def class_balance(beta, counts):
    """Cui et al. 2019: one over the effective number of images, with mean 1 over identities."""
    weights = [(1 - beta) / (1 - beta**n) for n in counts]
    return [weight / mean(weights) for weight in weights]


# What the tests share.


def build(name, seed=0, identities=IDENTITIES, **settings):
    """A loss in eval mode whose parameters are random; the settings of `sum` must be given, so they are."""
    settings = {**(PARTS if name == "sum" else {}), **settings}
    loss = jaguar_kit.build("loss", name, embedding_dim=DIM, num_identities=identities, **settings).eval()
    rng = np.random.default_rng(seed)
    for parameter in loss.parameters():
        parameter.data = torch.as_tensor(rng.normal(size=tuple(parameter.shape)).astype(np.float32))
    return loss


def parameters_of(loss):
    return {name.rsplit(".", 1)[-1]: parameter for name, parameter in loss.named_parameters()}


def proxies_of(loss, labels):
    """One proxy of each label; other directions where a loss has none."""
    weight = parameters_of(loss).get("weight", torch.eye(IDENTITIES, DIM)).detach()
    return (weight[:, 0] if weight.ndim == 3 else weight)[torch.as_tensor(labels)]


def random_points(loss, labels, pull=0.0, seed=0):
    """Random embeddings, drawn to their own proxies (pull > 0) or to the far side of them (pull < 0)."""
    noise = np.random.default_rng(seed + 1000).normal(size=(len(labels), DIM)).astype(np.float32)
    return torch.as_tensor(noise) + pull * proxies_of(loss, labels)


def backward(loss, points, labels):
    """(value, gradient of the embeddings); the gradients of the parameters are left with them."""
    points = points.detach().clone().requires_grad_()
    loss.zero_grad()
    result = loss(points, torch.as_tensor(labels))
    result.backward()
    return result.detach(), points.grad


def assert_near(actual, expected, tolerance=1e-5, about=""):
    actual, expected = (torch.as_tensor(x).detach().double() for x in (actual, expected))
    assert actual.shape == expected.shape, about
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max()), about


def assert_follows(loss, formula, points, labels, about=""):
    """formula(points, labels, parameters) in float64 has the value and gradients of the loss in fp32 and in fp64."""
    exact_points = points.detach().double().requires_grad_()
    exact = {name: p.detach().double().requires_grad_() for name, p in parameters_of(loss).items()}
    expected = formula(exact_points, list(labels), exact)
    expected.backward()
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        same, words = copy.deepcopy(loss).to(dtype), f"{about} {dtype}"
        value, gradient = backward(same, points.to(dtype), labels)
        assert value.dtype == gradient.dtype == dtype, words
        assert_near(value, expected, tolerance, words)
        assert_near(gradient, exact_points.grad, tolerance, words)
        for name, parameter in parameters_of(same).items():
            assert_near(parameter.grad, exact[name].grad, tolerance, f"{words} {name}")


def slow(name, class_weights=(1.0,) * IDENTITIES, **settings):
    settings = {**(PARTS if name == "sum" else {}), **settings}
    return lambda points, labels, parameters: SLOW[name](points, labels, parameters, class_weights, **settings)


def assert_finite(loss, points, labels, about=""):
    value, gradient = backward(loss, points, labels)
    assert torch.isfinite(value), about
    assert torch.isfinite(gradient).all(), about
    for parameter in loss.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), about


def refusal(call, *arguments, **settings) -> str:
    """The line with which a call is refused; empty when it is not."""
    try:
        call(*arguments, **settings)
    except KitError as error:
        return str(error)
    return ""


# Values and gradients.


@every("name", SLOW)
def test_loss_and_gradient_follow_the_formula(name):
    loss, places = build(name), [(kind, 0.0) for kind in LABELS] + [("one alone, one missing", p) for p in (0.7, -0.7)]
    for kind, pull in places:
        points = random_points(loss, LABELS[kind], pull)
        assert_follows(loss, slow(name), points, LABELS[kind], f"{kind}, pull {pull}")


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
def test_triplet_follows_the_formula_between_embeddings_that_nearly_agree(mining):
    loss = build("triplet", mining=mining)
    for spread in (0.3, 0.03):  # distances near 0.4 and 0.04
        points = 1 + spread * random_points(loss, SEVERAL)
        assert_follows(loss, slow("triplet", mining=mining), points, SEVERAL, f"spread {spread}")


SETTINGS = {
    "cross_entropy": [{"label_smoothing": 0.1}, {"label_smoothing": 0.5}],
    "cosface": [{"margin": 0.0, "scale": 16.0}, {"margin": 0.6, "scale": 30.0}],
    "sphereface": [{"margin": 1.0}, {"margin": 2.0, "scale": 8.0}, {"margin": 3.7, "scale": 8.0}],
    "subcenter_arcface": [{"margin": 0.3, "scale": 16.0, "subcenters": count} for count in (1, 4)],
    "adaface": [{"margin": 0.6, "scale": 16.0, "h": 1.0}],
    "hyperbolic_arcface": [{"margin": 0.0, "scale": 16.0}, {"margin": 1.5, "scale": 8.0}],
    "triplet": [
        {"squared": True},
        {"squared": True, "mining": "semi_hard"},
        *({"mining": "semi_hard", "margin": margin} for margin in (0.3, 0.05, 1.0)),
        *({"margin": margin} for margin in (0.05, 1.0)),
    ],
    "cross_entropy_triplet": [{"label_smoothing": 0.0, "triplet_weight": 1.5, "margin": 0.5}],
    "circle": [{"margin": 0.4, "scale": 16.0}, {"margin": 0.1, "scale": 2.0}],
    "supcon": [{"temperature": 0.05}, {"temperature": 1.0}],
    "proxy_anchor": [{"margin": 0.0, "scale": 8.0}, {"margin": 0.3, "scale": 16.0}],
    "sum": [
        {"parts": [{"name": "supcon", "temperature": 0.5}], "weights": [3.0]},
        {"parts": [{"name": "circle"}, {"name": "cosface", "margin": 0.1}], "weights": [0.25, 2.0]},
    ],
}


@every("name", SETTINGS)
def test_every_setting_has_its_place_in_the_formula(name):
    labels = LABELS["one alone, one missing"]
    for settings, pull in itertools.product(SETTINGS[name], (0.0, 0.7)):
        loss = build(name, seed=1, **settings)
        points = random_points(loss, labels, pull, seed=1)
        assert_follows(loss, slow(name, **settings), points, labels, f"{settings}, pull {pull}")


def test_defaults_are_those_of_the_formula():
    for name in SLOW:
        parameters = list(inspect.signature(SLOW[name]).parameters.values())[4:]
        expected = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "statistics"}
        actual = jaguar_kit.settings_of("loss", name)
        assert {key: actual.get(key) for key in expected} == expected, name
        assert "beta" not in actual or actual["beta"] == 0.0, name


# Class balance.


@every("name", SLOW)
def test_beta_weighs_each_image_by_how_rare_its_identity_is(name):
    labels = LABELS["one alone, one missing"]
    for beta in (0.9, 0.9999):
        weights = jaguar_kit.class_weights(COUNTS, beta)  # rounded to float32
        assert_near(weights, torch.tensor(class_balance(beta, COUNTS), dtype=torch.float64), 1e-6)
        loss = build(name, beta=beta, counts=COUNTS)
        assert_follows(loss, slow(name, weights.tolist()), random_points(loss, labels), labels, f"beta {beta}")


def test_beta_zero_or_equal_counts_leave_the_loss_as_it_is():
    for name, (beta, counts) in itertools.product(SLOW, [(0.0, COUNTS), (0.99, [7] * IDENTITIES)]):
        plain, weighted = build(name), build(name, beta=beta, counts=counts)
        points = random_points(plain, SEVERAL)
        for actual, expected in zip(backward(weighted, points, SEVERAL), backward(plain, points, SEVERAL)):
            assert_near(actual, expected, 1e-6, f"{name}, beta {beta}")


def test_beta_out_of_range_is_refused():
    for name, beta in itertools.product(SLOW, [-0.1, 1.0, 1.5]):
        assert "beta" in refusal(build, name, beta=beta, counts=COUNTS), f"{name}, beta {beta}"


def test_beta_needs_a_count_of_each_identity():
    for name, counts in itertools.product(SLOW, [None, COUNTS[1:], [*COUNTS, 7], [0, *COUNTS[1:]]]):
        given = {} if counts is None else {"counts": counts}
        assert "counts" in refusal(build, name, beta=0.9, **given), f"{name}, {counts}"


# Against pytorch-metric-learning, in float64.


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, miners, reducers

    size = {"num_classes": IDENTITIES, "embedding_size": DIM}
    euclid = distances.LpDistance(normalize_embeddings=True, p=2, power=1)
    hardest = miners.BatchHardMiner(distance=euclid)
    degrees = math.degrees(0.5)

    def triplet():
        loss = losses.TripletMarginLoss(margin=0.3, distance=euclid, reducer=reducers.MeanReducer())
        return lambda points, labels: loss(points, labels, hardest(points, labels))

    return {
        "arcface": lambda: losses.ArcFaceLoss(**size, margin=degrees, scale=64),
        "cosface": lambda: losses.CosFaceLoss(**size, margin=0.35, scale=64),
        "sphereface": lambda: losses.SphereFaceLoss(**size, margin=3, scale=30),  # whole margins only
        "subcenter_arcface": lambda: losses.SubCenterArcFaceLoss(**size, margin=degrees, scale=64, sub_centers=3),
        "triplet": triplet,
        "circle": lambda: losses.CircleLoss(m=0.25, gamma=80),
        "supcon": lambda: losses.SupConLoss(temperature=0.1),
        "proxy_anchor": lambda: losses.ProxyAnchorLoss(**size, margin=0.1, alpha=32),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own
@pytest.mark.parametrize(
    "name", ["arcface", "cosface", "sphereface", "subcenter_arcface", "triplet", "circle", "supcon", "proxy_anchor"]
)
def test_loss_and_gradient_are_those_of_pytorch_metric_learning(library, name):
    loss = build(name, **({"margin": 3.0} if name == "sphereface" else {}))
    for kind, labels in LABELS.items():
        points = random_points(loss, labels)
        if name == "sphereface":
            points = points / points.norm(dim=1, keepdim=True)  # the library multiplies by the length
        theirs = library[name]()
        own = None
        if hasattr(theirs, "W"):
            own = theirs.W
            own.data = loss.weight.detach().double().flatten(0, -2).T.contiguous()
        elif hasattr(theirs, "proxies"):
            own = theirs.proxies
            own.data = loss.weight.detach().double()
        exact = points.double().requires_grad_()
        expected = theirs(exact, torch.as_tensor(labels))
        expected.backward()
        value, gradient = backward(loss, points, labels)
        assert_near(value, expected, about=kind)
        if name == "sphereface":  # what the library adds along the embedding, through its length
            exact.grad -= (exact.grad * exact.detach()).sum(1, keepdim=True) * exact.detach()
        assert_near(gradient, exact.grad, about=kind)
        if own is not None:
            theirs_by_identity = own.grad.T if hasattr(theirs, "W") else own.grad
            assert_near(loss.weight.grad, theirs_by_identity.reshape(loss.weight.shape), about=kind)


# AdaFace and its running statistics.


def lengths_of(labels):
    return torch.tensor([5e-4, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 90.0, 120.0, 300.0, 15.0])[: len(labels), None]


def points_of_many_lengths(loss, labels, seed=0):
    points = random_points(loss, labels, seed=seed)
    return points / points.norm(dim=1, keepdim=True) * lengths_of(labels)


def statistics_of(loss):
    return float(loss.mean), float(loss.std)


@pytest.mark.parametrize("h", [0.333, 3.0])
def test_adaface_margins_follow_the_length_of_embeddings(h):
    loss = build("adaface", h=h)
    points = points_of_many_lengths(loss, SEVERAL)
    value, gradient = backward(loss, points, SEVERAL)
    exact = points.double().requires_grad_()
    expected = slow("adaface", h=h)(exact, SEVERAL, {"weight": loss.weight.detach().double()})
    expected.backward()
    assert_near(value, expected)
    assert_near(gradient * lengths_of(SEVERAL), exact.grad * lengths_of(SEVERAL))  # gradients fall with the length


@pytest.mark.parametrize("momentum", [0.01, 0.3, 1.0])
def test_adaface_keeps_running_statistics_while_it_trains(momentum):
    loss = build("adaface", momentum=momentum).train()
    running = (20.0, 100.0)
    assert statistics_of(loss) == running
    for step in range(3):
        points = points_of_many_lengths(loss, SEVERAL, seed=step)[step:]
        labels = SEVERAL[step:]
        lengths = [clamped_length(point) for point in points]
        batch = (mean(lengths), (sum((x - mean(lengths)) ** 2 for x in lengths) / (len(lengths) - 1)) ** 0.5)
        running = tuple((1 - momentum) * old + momentum * new for old, new in zip(running, batch))
        value, _ = backward(loss, points, labels)
        assert statistics_of(loss) == pytest.approx(running, rel=1e-5)
        exact = {"weight": loss.weight.detach().double()}
        assert_near(value, slow("adaface", statistics=running)(points.double(), labels, exact))


def test_adaface_statistics_stay_in_eval_mode():
    loss = build("adaface")
    backward(loss, points_of_many_lengths(loss, SEVERAL), SEVERAL)
    assert statistics_of(loss) == (20.0, 100.0)


def test_adaface_statistics_are_saved_with_the_loss():
    loss = build("adaface").train()
    backward(loss, points_of_many_lengths(loss, SEVERAL), SEVERAL)
    other = build("adaface", seed=1)
    other.load_state_dict(loss.state_dict())
    assert statistics_of(other) == statistics_of(loss) != (20.0, 100.0)
    points = random_points(loss, SEVERAL)
    assert_near(backward(other, points, SEVERAL)[0], backward(loss.eval(), points, SEVERAL)[0], 1e-7)


def test_adaface_statistics_stay_numbers_after_a_batch_of_one():
    loss = build("adaface").train()
    assert_finite(loss, random_points(loss, [2]), [2])
    assert all(math.isfinite(value) for value in statistics_of(loss))
    assert_finite(loss, random_points(loss, SEVERAL), SEVERAL)


# ArcFace in hyperbolic space.


def inside_the_ball(labels, seed=0, longest=0.9):
    directions = np.random.default_rng(seed).normal(size=(len(labels), DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.as_tensor(directions * np.linspace(0.05, longest, len(labels))[:, None], dtype=torch.float32)


@pytest.mark.parametrize("longest", [0.3, 0.9])
def test_hyperbolic_arcface_follows_its_formula_for_points_that_need_no_shortening(longest):
    loss = build("hyperbolic_arcface")
    loss.weight.data *= 0.2
    assert_follows(loss, slow("hyperbolic_arcface"), inside_the_ball(SEVERAL, longest=longest), SEVERAL)


@pytest.mark.parametrize("curvature", [0.3, 1.0, 4.0])
def test_hyperbolic_arcface_of_another_curvature_is_that_of_the_ball_scaled_to_it(curvature):
    """Distances in a space of curvature -k are those of curvature -1 over sqrt(k), at points sqrt(k) times as long."""
    c = math.sqrt(curvature)
    loss = build("hyperbolic_arcface", geometry=jaguar_kit.build("geometry", "poincare", curvature=curvature))
    loss.weight.data *= 0.2

    def formula(points, labels, parameters):
        prototypes = [unit(v) * (c * dot(v, v).sqrt()).tanh() for v in parameters["weight"]]
        terms = []
        for point, label in zip(points, labels):
            distances = [hyperbolic_distance(c * point, prototype) / c for prototype in prototypes]
            cosines = [2 * (-d).exp() - 1 for d in distances]
            theta = cosines[label].acos()
            assert theta + 0.5 < math.pi
            cosines[label] = (theta + 0.5).cos()
            terms.append(cross_entropy_of([64 * cosine for cosine in cosines], label))
        return mean(terms)

    assert_follows(loss, formula, inside_the_ball(SEVERAL, longest=0.5) / c, SEVERAL)


def test_hyperbolic_arcface_is_the_same_in_both_models_of_the_space():
    """A point x of the ball is 2 x / (1 - |x| ** 2) in Lorentz coordinates; tangent vectors there are twice as long."""
    ball, hyperboloid = (
        build("hyperbolic_arcface", geometry=jaguar_kit.build("geometry", name)) for name in ("poincare", "lorentz")
    )
    ball.weight.data *= 0.3
    hyperboloid.weight.data = 2 * ball.weight.data
    points = inside_the_ball(SEVERAL)
    lifted = 2 * points / (1 - points.square().sum(1, keepdim=True))
    assert_near(backward(hyperboloid, lifted, SEVERAL)[0], backward(ball, points, SEVERAL)[0])


def test_hyperbolic_arcface_needs_a_hyperbolic_geometry():
    with pytest.raises(KitError, match="poincare or lorentz"):
        build("hyperbolic_arcface", geometry=jaguar_kit.build("geometry", "hyperspherical"))


# Small examples and relations between the losses.


def on_circle(*angles):
    """Embeddings of various lengths at these angles, in radians."""
    rows = [[length * math.cos(t), length * math.sin(t)] for length, t in zip(itertools.cycle([1.0, 3.0]), angles)]
    return torch.nn.functional.pad(torch.tensor(rows), (0, DIM - 2))


def chord(angle):
    return 2 * math.sin(angle / 2)


def test_semi_hard_takes_the_nearest_negative_beyond_the_positive():
    points = on_circle(0.0, 0.4, -0.3, 0.5, 1.0)  # seen from the first: positive 0.4; negatives 0.3, 0.5, 1.0
    seen_from = {
        0: 0.3 + chord(0.4) - chord(0.5),
        1: 0.3 + chord(0.4) - chord(0.6),
        # both others have negatives only, except each other: labels 1, 2, 3 occur once
    }
    value = backward(build("triplet", mining="semi_hard"), points, [0, 0, 1, 2, 3])[0]
    assert float(value) == pytest.approx(sum(seen_from.values()) / 2, rel=1e-5)


def test_semi_hard_takes_the_farthest_negative_when_none_is_beyond_the_positive():
    points = on_circle(0.0, 1.0, 0.3, 0.6)
    expected = 0.3 + chord(1.0) - (chord(0.6) + chord(0.7)) / 2
    value = backward(build("triplet", mining="semi_hard"), points, [0, 0, 1, 2])[0]
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative():
    points = on_circle(0.0, 0.2, 0.7, -0.4, 2.0)
    terms = [0.3 + chord(0.7) - chord(0.4), 0.3 + chord(0.5) - chord(0.6), 0.3 + chord(0.7) - chord(1.1)]
    value = backward(build("triplet"), points, [0, 0, 0, 1, 2])[0]
    assert float(value) == pytest.approx(sum(max(term, 0) for term in terms) / 3, rel=1e-5)


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
def test_triplet_counts_anchors_without_a_violation_too(mining):
    points = on_circle(0.0, 0.1, 3.0, 3.1, 1.0)
    value, gradient = backward(build("triplet", mining=mining), points, [0, 0, 1, 1, 2])
    assert float(value) == 0
    assert not gradient.any()


def test_nothing_to_compare_with_is_a_loss_of_zero():
    for name, settings in (("triplet", {}), ("triplet", {"mining": "semi_hard"}), ("circle", {}), ("supcon", {})):
        loss = build(name, **settings)
        for labels in [[*range(5)], [3]] + ([[2] * 6] if name != "supcon" else []):
            value, gradient = backward(loss, random_points(loss, labels), labels)
            assert float(value) == 0, (name, settings, labels)
            assert not gradient.any(), (name, settings, labels)


def test_supcon_of_one_identity_is_not_zero():
    loss = build("supcon")
    assert_follows(loss, slow("supcon"), random_points(loss, [2] * 6), [2] * 6)


def test_two_losses_coincide():
    for name, settings, other, other_settings in (
        ("sphereface", {"margin": 1.0, "scale": 64.0}, "cosface", {"margin": 0.0}),
        ("arcface", {"margin": 0.0}, "cosface", {"margin": 0.0}),
        ("cross_entropy_triplet", {"triplet_weight": 0.0, "label_smoothing": 0.0}, "cross_entropy", {}),
        ("sum", {"parts": [{"name": "cosface"}], "weights": [1.0]}, "cosface", {}),
        ("sum", {"parts": ["triplet"], "weights": [1.0]}, "triplet", {}),
    ):
        first, second = build(name, **settings), build(other, **other_settings)
        points = random_points(first, SEVERAL)
        for actual, expected in zip(backward(first, points, SEVERAL), backward(second, points, SEVERAL)):
            assert_near(actual, expected, about=f"{name} {settings} and {other}")


def test_one_subcenter_is_arcface():
    first, second = build("subcenter_arcface", subcenters=1), build("arcface")
    second.weight.data = first.weight.detach()[:, 0].clone()
    points = random_points(first, SEVERAL)
    for actual, expected in zip(backward(first, points, SEVERAL), backward(second, points, SEVERAL)):
        assert_near(actual, expected)


def test_subcenters_that_are_no_nearest_get_no_gradient():
    loss = build("subcenter_arcface")
    labels = [0, 1]
    points = random_points(loss, labels)
    backward(loss, points, labels)
    cosine = torch.einsum(
        "bd,ckd->bck", *(torch.nn.functional.normalize(x.detach(), dim=-1) for x in (points, loss.weight))
    )
    nearest = torch.zeros(IDENTITIES, 3, dtype=torch.bool)
    for of_point in cosine:
        nearest[torch.arange(IDENTITIES), of_point.argmax(1)] = True
    assert not loss.weight.grad[~nearest].any()
    assert not nearest.all()


def test_sphereface_rises_with_the_angle_all_the_way_to_pi():
    angles = np.linspace(0.02, math.pi - 0.02, 60)
    points = torch.zeros(60, DIM)
    points[:, 0], points[:, 2] = torch.as_tensor(np.cos(angles)), torch.as_tensor(np.sin(angles))
    for margin in (1.0, 1.5, 2.0, 3.7):
        loss = build("sphereface", margin=margin, scale=4.0, identities=2)
        loss.weight.data = torch.eye(2, DIM)
        values = [loss(point[None], torch.tensor([0])).item() for point in points]
        assert all(later > earlier for earlier, later in itertools.pairwise(values)), f"margin {margin}"


def test_lengths_of_proxies_do_not_matter():
    for name in ("arcface", "cosface", "sphereface", "subcenter_arcface", "adaface", "proxy_anchor"):
        loss, longer = build(name), build(name)
        longer.weight.data *= 7
        points = random_points(loss, SEVERAL)
        assert_near(backward(longer, points, SEVERAL)[0], backward(loss, points, SEVERAL)[0], about=name)


def test_lengths_of_embeddings_do_not_matter():
    proxies, pairs = ("arcface", "cosface", "sphereface", "subcenter_arcface"), ("triplet", "circle", "supcon")
    for name in (*proxies, *pairs, "proxy_anchor"):
        loss = build(name)
        points = random_points(loss, SEVERAL)
        lengths = torch.logspace(-2, 3, len(points))[:, None]
        assert_near(backward(loss, lengths * points, SEVERAL)[0], backward(loss, points, SEVERAL)[0], about=name)


def test_parameters_are_the_proxies():
    one_each = {"weight": (IDENTITIES, DIM)}
    shapes = {
        "center": {},
        "circle": {},
        "cross_entropy": {**one_each, "bias": (IDENTITIES,)},
        "subcenter_arcface": {"weight": (IDENTITIES, 3, DIM)},
        "supcon": {},
        "triplet": {},
    }
    for name in sorted({*NAMES} - {"cross_entropy_triplet", "sum"}):
        expected = shapes.get(name, one_each)
        loss = jaguar_kit.build("loss", name, embedding_dim=DIM, num_identities=IDENTITIES)
        assert {key: tuple(p.shape) for key, p in loss.named_parameters()} == expected, name
        assert all(p.requires_grad for p in loss.parameters()), name
        if expected:
            assert len(torch.unique(loss.weight)) == loss.weight.numel(), name  # no two start alike


# What holds for every loss.


def test_every_loss_has_its_formula_here():
    assert sorted(SLOW) == NAMES


@every("name", NAMES)
def test_loss_is_a_finite_scalar_with_a_gradient(name):
    for mode in ("train", "eval"):
        loss = build(name).train(mode == "train")
        value, gradient = backward(loss, random_points(loss, SEVERAL), SEVERAL)
        assert value.shape == (), mode
        assert value.dtype == torch.float32, mode
        assert gradient.any(), mode
        assert all(parameter.grad.any() for parameter in loss.parameters()), mode
        assert_finite(loss, random_points(loss, SEVERAL), SEVERAL, mode)


@every("name", NAMES)
def test_embeddings_at_a_proxy_give_a_finite_loss_and_gradient(name):
    for sign, length in itertools.product((1.0, -1.0), (1e-2, 1.0, 50.0)):
        about = f"{sign * length:g} times the proxy"
        loss = build(name, identities=DIM)
        if "weight" in parameters_of(loss):
            weight = parameters_of(loss)["weight"].data
            (weight[:, 0] if weight.ndim == 3 else weight)[:] = torch.eye(DIM)  # no rounding hides the cosine of one
        for labels in (list(range(DIM)), [1, 0, *range(2, DIM)]):
            assert_finite(loss, sign * length * torch.eye(DIM), labels, about)
            assert_finite(loss, sign * length * torch.eye(DIM).repeat(2, 1), labels * 2, about)
        labels = list(range(DIM)) * 2
        weight = parameters_of(loss).get("weight", torch.randn(DIM, DIM))
        weight.data = torch.as_tensor(np.random.default_rng(0).normal(size=tuple(weight.shape)).astype(np.float32))
        centres = weight.detach()[:, 0] if weight.ndim == 3 else weight.detach()
        assert_finite(loss, sign * length * centres.repeat(2, 1), labels, about)


@every("name", NAMES)
def test_equal_embeddings_and_any_labels_give_a_finite_loss_and_gradient(name):
    for labels in ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 2]):  # the equal ones are of one identity, or of two
        loss = build(name).train()
        points = random_points(loss, labels)
        points[1] = points[0]
        points[4] = -points[0]
        assert_finite(loss, points, labels, labels)
        assert_finite(loss, points[:1].repeat(6, 1), labels, labels)
    for labels in ([2] * 6, list(range(5)), [4], [0, 0]):
        loss = build(name).train()
        assert_finite(loss, random_points(loss, labels), labels, labels)


def test_order_of_images_does_not_matter():
    for name in NAMES:
        loss = build(name)
        points, labels = random_points(loss, SEVERAL), torch.tensor(SEVERAL)
        value, gradient = backward(loss, points, labels)
        order = torch.as_tensor(np.random.default_rng(3).permutation(len(points)))
        other_value, other_gradient = backward(loss, points[order], labels[order])
        assert_near(other_value, value, 1e-6, name)
        assert_near(other_gradient, gradient[order], about=name)


def test_autocast_computes_in_full_precision():
    for name in NAMES:
        loss = build(name)
        points = random_points(loss, SEVERAL).bfloat16()
        expected, expected_gradient = backward(loss, points.float(), SEVERAL)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, gradient = backward(loss, points, SEVERAL)
        assert value.dtype == torch.float32, name
        assert_near(value, expected, 1e-3, name)
        assert_near(gradient, expected_gradient, 1e-2, name)  # itself in bfloat16


def test_parameters_and_buffers_move_with_the_loss():
    for name in NAMES:
        loss = build(name)
        points = random_points(loss, SEVERAL)
        expected = backward(loss, points, SEVERAL)[0]
        loss.to(torch.float64)
        assert all(parameter.dtype == torch.float64 for parameter in loss.parameters()), name
        assert all(buffer.dtype == torch.float64 for buffer in loss.buffers() if buffer.is_floating_point()), name
        assert_near(backward(loss, points.double(), SEVERAL)[0], expected, about=name)


def test_saved_loss_has_the_same_value():
    for name in NAMES:
        loss, other = build(name), build(name, seed=5)
        points = random_points(loss, SEVERAL)
        other.load_state_dict(loss.state_dict())
        assert other(points, torch.tensor(SEVERAL)).item() == loss(points, torch.tensor(SEVERAL)).item(), name


def test_embeddings_and_labels_are_left_as_they_were():
    for name in NAMES:
        loss = build(name).train()
        points, labels = random_points(loss, SEVERAL), torch.tensor(SEVERAL)
        before = points.clone()
        loss(points, labels)
        assert torch.equal(points, before), name
        assert labels.tolist() == SEVERAL, name


@every("name", NAMES)
def test_descent_lowers_the_loss(name):
    loss = build(name)
    points = random_points(loss, SEVERAL).requires_grad_()
    optimizer = torch.optim.Adam([points, *loss.parameters()], lr=0.05)
    before = loss(points, torch.tensor(SEVERAL)).item()
    for _ in range(40):
        optimizer.zero_grad()
        loss(points, torch.tensor(SEVERAL)).backward()
        optimizer.step()
    assert loss(points, torch.tensor(SEVERAL)).item() < 0.8 * before


# Single images.


SINGLES = [name for name in NAMES if build(name).per_sample]


def test_losses_that_compare_images_with_each_other_do_not_claim_to_look_at_one():
    assert set(NAMES) - set(SINGLES) == {
        "circle",
        "cross_entropy_triplet",
        "proxy_anchor",
        "sum",  # of cosface and triplet
        "supcon",
        "triplet",
    }
    assert build("sum", parts=[{"name": "cosface"}, {"name": "arcface"}], weights=[1.0, 2.0]).per_sample


def test_loss_on_single_images_is_the_mean_of_theirs_weighted_by_their_shares():
    for name, settings in itertools.product(SINGLES, ({}, {"beta": 0.9, "counts": COUNTS})):
        loss = build(name, **settings)
        points, labels = random_points(loss, SEVERAL), torch.tensor(SEVERAL)
        shares = torch.linspace(0, 1, len(SEVERAL))
        alone = [loss(points[i : i + 1], labels[i : i + 1]) for i in range(len(SEVERAL))]
        shared = mean([share * term for share, term in zip(shares, alone)])
        assert_near(loss(points, labels), mean(alone), about=f"{name} {settings}")
        assert_near(loss(points, labels, shares), shared, about=f"{name} {settings}")


# Settings.


def test_unfit_setting_is_refused():
    unfit = [
        *((name, {"mergin": 0.5}) for name in NAMES),
        ("cross_entropy", {"label_smoothing": -0.1}),
        ("cross_entropy", {"label_smoothing": 1.1}),
        ("cosface", {"margin": -0.1}),
        ("cosface", {"scale": 0}),
        ("sphereface", {"margin": 0.9}),
        ("sphereface", {"scale": -1}),
        ("subcenter_arcface", {"margin": 1.6}),
        ("subcenter_arcface", {"subcenters": 0}),
        ("subcenter_arcface", {"subcenters": 1.5}),
        ("subcenter_arcface", {"scale": 0}),
        ("adaface", {"margin": -0.1}),
        ("adaface", {"scale": 0}),
        ("adaface", {"h": -0.1}),
        ("adaface", {"momentum": -0.1}),
        ("adaface", {"momentum": 1.1}),
        ("hyperbolic_arcface", {"margin": 1.6}),
        ("hyperbolic_arcface", {"scale": 0}),
        ("triplet", {"margin": -0.1}),
        ("triplet", {"mining": "batch_easy"}),
        ("cross_entropy_triplet", {"label_smoothing": 1.1}),
        ("cross_entropy_triplet", {"triplet_weight": -0.1}),
        ("cross_entropy_triplet", {"margin": -0.1}),
        ("circle", {"margin": -0.1}),
        ("circle", {"scale": 0}),
        ("supcon", {"temperature": 0}),
        ("supcon", {"temperature": "warm"}),
        ("proxy_anchor", {"margin": -0.1}),
        ("proxy_anchor", {"scale": 0}),
        ("sum", {"parts": [{"name": "cosfase"}, {"name": "triplet"}]}),
        ("sum", {"parts": [{"name": "cosface", "margin": -1}, {"name": "triplet"}]}),
    ]
    for name, settings in unfit:
        assert next(iter(settings)) in refusal(build, name, **settings), f"{name}: {settings}"


def test_sum_needs_one_weight_for_each_part():
    for settings in ({"weights": [1.0]}, {"weights": [1.0, 0.5, 0.2]}, {"weights": []}, {"parts": [], "weights": []}):
        assert "parts and" in refusal(build, "sum", **settings), settings


# losses in anybody's hands


EVERY = [name for name in jaguar_kit.registered("loss") if name != "hyperbolic_arcface"]


def test_arrays_and_lists_are_taken_as_tensors_are():
    embeddings, labels = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), [0, 0, 1, 1, 2, 2]
    for name in EVERY:
        loss = jaguar_kit.build("loss", name, embedding_dim=4, num_identities=3, counts=[2, 2, 2]).eval()
        expected = float(loss(torch.tensor(embeddings), torch.tensor(labels)).detach())
        assert float(loss(embeddings, np.array(labels)).detach()) == pytest.approx(expected), name
        assert float(loss(embeddings.tolist(), labels).detach()) == pytest.approx(expected), name


def test_what_is_no_batch_is_one_line():
    built = {"embedding_dim": 4, "num_identities": 3, "counts": [2, 2, 2]}
    losses = {name: jaguar_kit.build("loss", name, **built) for name in EVERY}
    for embeddings, labels, words in (
        (np.zeros(4), [0], "embeddings: .* of shape"),
        (np.zeros((2, 4, 1)), [0, 1], "embeddings: .* of shape"),
        (np.zeros((2, 4), int), [0, 1], "expected numbers with a point"),
        (np.zeros((2, 4)), [0], "labels: .* of shape"),
        (np.zeros((2, 4)), [[0, 1]], "labels: .* of shape"),
        (np.zeros((2, 4)), [0.0, 1.0], "expected whole numbers"),
        (np.zeros((2, 4)), [True, False], "expected whole numbers"),
        (np.zeros((2, 4)), [0, 3], r"labels: 3 is none of 3 identities \(expected 0 to 2\)"),
        (np.zeros((2, 4)), [-1, 0], "labels: -1 is none of 3 identities"),
        ("words", [0], "expected numbers"),
        (np.zeros((2, 4)), ["a", "b"], "expected numbers"),
        (None, None, "expected numbers"),
        ([[1.0, 2.0], [1.0]], [0, 1], "expected numbers"),
    ):
        for name, loss in losses.items():
            line = refusal(loss, embeddings, labels)
            assert re.match(rf"loss: .*{words}", line), f"{name}, {embeddings!r}, {labels!r}: {line}"
            assert "\n" not in line, name


def test_embeddings_of_another_width_are_one_line():
    for name in ("arcface", "cross_entropy", "proxy_anchor", "adaface", "subcenter_arcface"):
        loss = jaguar_kit.build("loss", name, embedding_dim=4, num_identities=3)
        line = refusal(loss, torch.zeros(2, 5), torch.tensor([0, 1]))
        assert re.match(r"loss: embeddings: .* of shape \(2, 5\) \(expected .*\(B, 4\)\)", line), name


def test_sizes_that_there_are_not_are_one_line():
    for sizes in ({"num_identities": 0}, {"num_identities": "a"}, {"embedding_dim": -1}, {"embedding_dim": 2.5}):
        given = {"embedding_dim": 4, "num_identities": 3, **sizes}
        assert refusal(jaguar_kit.build, "loss", "arcface", **given).startswith(f"loss: {next(iter(sizes))}: "), sizes


def test_a_model_that_is_none_is_one_line():
    for model, words in (
        (3, "model: 3 is not a section"),
        (None, "model: None is not a section"),
        ("resnet5", r"model\.backbone: timm .* has no 'resnet5'"),
        ({"backbon": "x"}, r"model\.backbon: there is no such setting; did you mean 'backbone'"),
        ({"backbone": "test_resnet", "pretrained": False, "head": "linea"}, "did you mean 'linear'"),
    ):
        with pytest.raises(KitError, match=words):
            jaguar_kit.build_embedder(model)


def test_a_model_is_built_of_plain_settings_too():
    embedder = jaguar_kit.build_embedder({"backbone": "test_resnet", "pretrained": False, "head": "linear"})
    assert embedder.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 256)


def test_a_tensor_is_embedded_as_it_is():
    images = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    network = torch.nn.Linear(5, 2)
    got = jaguar_kit.embed(network, images, [0, 3, 6], batch_size=2)
    torch.testing.assert_close(got, network(images[[0, 3, 6]]).detach())
    for source in (None, images.numpy(), "images"):
        with pytest.raises(KitError, match=r"^embed: source: a .*expected a Source, or a tensor"):
            jaguar_kit.embed(network, source, [0])


# the other parts in anybody's hands


EMBEDDINGS = np.random.default_rng(0).normal(size=(6, 4))
TABLE = {"species": [""] * 2, "identity": ["a", "b"], "score": [0.1, 0.9], "truth": ["a", "x"], "known": [True, False]}


@every(
    "call",
    [
        jaguar_kit.quality_signals,
        jaguar_kit.perceptual_hashes,
        jaguar_kit.uniqueness,
        jaguar_kit.threshold_curve,
        jaguar_kit.fit_thresholds,
        jaguar_kit.cross_fitted_score,
        lambda odd: jaguar_kit.representativeness(odd, ["a", "b"]),
        lambda odd: jaguar_kit.find_bursts(odd, np.zeros((2, 64), bool)),
        lambda odd: jaguar_kit.curate(odd, np.eye(2), np.array(["a", "b"])),
        lambda odd: jaguar_kit.answers_of(odd, {"": 0.5}),
        lambda odd: jaguar_kit.fit_calibration(odd, [True, False]),
        lambda odd: jaguar_kit.fuse(odd, [lambda x: x]),
        lambda odd: jaguar_kit.fuse([np.eye(2)], [odd]),
        lambda odd: jaguar_kit.shortlist_rescore(np.eye(6), odd),
        lambda odd: jaguar_kit.shortlist_rescore(np.eye(6), lambda q, c: odd, k=3),
        lambda odd: jaguar_kit.nearest_identities(odd, ["a", "b"]),
        lambda odd: jaguar_kit.nearest_identities(np.eye(2), odd),
        lambda odd: (
            jaguar_kit.nearest_identities(np.eye(2), ["a", "b"], allowed=odd) if odd is not None else EMBEDDINGS[9]
        ),
        lambda odd: (
            jaguar_kit.postprocess(["k_reciprocal"], EMBEDDINGS, geometry=odd) if odd is not None else EMBEDDINGS[9]
        ),
        lambda odd: jaguar_kit.choose_steps([odd], EMBEDDINGS, ["a", "b"] * 3),
        lambda odd: jaguar_kit.open_set_score(odd, ["a", "b"], ["a"]),
    ],
)
def test_whatever_is_given_is_one_line(call):
    for odd in (None, 3, "words", [[1], [2, 3]], {}, np.zeros(3), np.zeros((2, 3, 4))):
        try:
            line = refusal(call, odd)
        except IndexError:
            assert odd is None
            continue
        assert line, f"{odd!r} was taken"
        assert "\n" not in line, odd


def test_a_geometry_may_be_named():
    inside = EMBEDDINGS / 10
    expected = jaguar_kit.similarity_matrix(inside, geometry=jaguar_kit.build("geometry", "poincare"))
    np.testing.assert_array_equal(jaguar_kit.similarity_matrix(inside, geometry="poincare"), expected)


# margins by rarity, centres, and losses on both sides of a neck


def test_dynamic_margins_are_linear_in_the_fourth_root_of_rarity():
    counts = [1, 4, 16, 81]
    told = {"embedding_dim": 3, "num_identities": 4, "counts": counts, "margins": [0.1, 0.5], "scale": 8.0}
    for name in ("arcface", "subcenter_arcface"):
        torch.manual_seed(0)
        loss = jaguar_kit.build("loss", name, **told)
        rare = [n**-0.25 for n in counts]
        margins = [0.1 + 0.4 * (r - min(rare)) / (max(rare) - min(rare)) for r in rare]
        embeddings, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 2])
        cosine = loss.cosines(embeddings).tolist()
        slow = []
        for row, label in zip(cosine, labels.tolist()):
            m, angle = margins[label], math.acos(row[label])
            logits = [8 * c for c in row]
            logits[label] = 8 * (math.cos(angle + m) if angle + m < math.pi else row[label] - m * math.sin(m))
            slow.append(math.log(sum(math.exp(x) for x in logits)) - logits[label])
        assert float(loss(embeddings, labels)) == pytest.approx(sum(slow) / len(slow), rel=1e-5), name
    alike = jaguar_kit.build("loss", "arcface", **{**told, "counts": [5] * 4})
    assert alike.margins_by_identity.tolist() == pytest.approx([0.1] * 4)
    with pytest.raises(jaguar_kit.KitError, match=r"margins: .* need counts"):
        jaguar_kit.build("loss", "arcface", embedding_dim=3, num_identities=4, margins=[0.1, 0.5])


def test_centres_follow_their_images_and_the_loss_is_half_the_squared_distance():
    loss = jaguar_kit.build("loss", "center", embedding_dim=2, num_identities=3, alpha=0.5)
    embeddings = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 6.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    found = loss(embeddings, labels)
    assert float(found.detach()) == pytest.approx((4 + 16 + 36) / 2 / 3)
    found.backward()
    torch.testing.assert_close(embeddings.grad, embeddings.detach() / 3)
    torch.testing.assert_close(loss.weight, torch.tensor([[0.5 * 6 / 3, 0.0], [0.0, 0.5 * 6 / 2], [0.0, 0.0]]))
    before = loss.weight.clone()
    loss.eval()(embeddings.detach(), labels)
    assert torch.equal(loss.weight, before)


def test_a_triplet_loss_before_the_neck_sees_what_the_neck_is_given(mini, tmp_path):
    parts = ["cross_entropy", {"name": "triplet", "before_neck": True}]
    told = {"parts": parts, "weights": [1, 1], "embedding_dim": 4, "num_identities": 3}
    loss = jaguar_kit.build("loss", "sum", **told)
    before, behind, labels = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    classify, compare = loss.losses
    expected = classify(behind, labels) + compare(before, labels)
    torch.testing.assert_close(loss(behind, labels, before=before), expected)
    head = jaguar_kit.build("head", "bn_neck", in_features=5, output=4, dropout=0.5)
    backbone = {"backbone": "test_resnet", "pretrained": False, "head": {"name": "bn_neck", "output": 4}}
    embedder = jaguar_kit.build_embedder(backbone).train()
    vectors = torch.randn(6, embedder.pooling.width(embedder.backbone))
    inner, outer = embedder.around_neck(vectors)
    torch.testing.assert_close(inner, embedder.head[0](vectors))
    torch.testing.assert_close(outer, embedder.from_pooled(vectors))
    assert isinstance(head[-1], torch.nn.Dropout)
    recipe = {
        "name": "neck",
        "data": {"size": 32},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "head": "bn_neck"},
        "loss": {"name": "sum", "parts": parts, "weights": [1, 1]},
        "train": {"epochs": 1, "sampler": {"name": "pk", "identities": 4, "images": 2}},
    }
    result = jaguar_kit.run_recipe(recipe, mini, tmp_path, device="cpu")
    assert np.isfinite(result.table["map"]).all()
    with pytest.raises(jaguar_kit.KitError, match="loss: before_neck needs"):
        jaguar_kit.recipe_from_dict({**recipe, "model": {**recipe["model"], "head": "linear"}})
